"""Stages over whole random models: steps and prefills against their floors, pictures, storage types, parity with torch.

The floor of a decode step is the bytes that `healthgpt bench` counts (weights once, plug-ins in use, KV cache)
at the card's own read rate; of a prefill, CLIP and VQGAN the operations at its GEMM rate."""
import json
import os
import shutil
import subprocess

from common import HERE, Fail, Skip, ceiling, json_lines, python_with_torch, rehearsed, run, share

SHAPES = {"m3": dict(layers=32, dim=3072, ffn=8192, vocab=32064, head_dim=96, kv_heads=32, ranks=(64, 256), pictures="--pictures"),
          "l14": dict(layers=40, dim=5120, ffn=17920, vocab=100352, head_dim=128, kv_heads=10, ranks=(32, 128)),
          # 4 of 64 layers; Qwen2's own linears; no generation
          "xl32": dict(layers=4, dim=5120, ffn=27648, vocab=152064, head_dim=128, kv_heads=8, ranks=(32, 0), split="--split")}
TINY = {"m3": dict(layers=2, dim=128, ffn=192, vocab=512, head_dim=64, kv_heads=2, ranks=(8, 16), pictures="--small-pictures"),
        "l14": dict(layers=2, dim=256, ffn=192, vocab=320, head_dim=64, kv_heads=1, ranks=(8, 16)),
        "xl32": dict(layers=1, dim=320, ffn=192, vocab=320, head_dim=64, kv_heads=1, ranks=(8, 0), split="--split")}
EXPERTS, PROMPT, NEW, IMAGE = 4, 700, 64, 1024
BATCHES = (1, 4, 8, 16, 32, 64)  # 4 and 16: the halves of mixed batches of 8 and 32
DTYPES = (("fp8", "auto"), ("int8", "auto"), ("int4", "auto"), ("bf16", "int8"), ("fp8", "int8"))
CLIP_FLOPS, VQGAN_FLOPS = 366.0e9 + 14.5e9, 312e9  # 23 layers and projector; performance.md T3
NOT_THERE = ("expected", "unsupported", "not supported")  # how a build refuses a type that it lacks


# ---- the models' files -----------------------------------------------------------------------------------

def shape(ctx, name):
    return (TINY if ctx.simt else SHAPES)[name]


def weights(s):
    """Of the layers' linears: (base, per rank row of the adapters)."""
    d, f, kv = s["dim"], s["ffn"], s["kv_heads"] * s["head_dim"]
    linears = ((d + 2 * kv, d), (d, d), (2 * f, d), (d, f))
    return s["layers"] * sum(n * k for n, k in linears), s["layers"] * sum(n + k for n, k in linears)


def model_path(ctx, name):
    return os.path.join(ctx.scratch, name + ("-tiny" if ctx.simt else ""))


def start(ctx, name):
    """Write a model in the background, unless it is there: 10 GB for m3, 29 GB for l14."""
    s, path = shape(ctx, name), model_path(ctx, name)
    if os.path.exists(os.path.join(path, "complete")) or name in ctx.writers:
        return
    os.makedirs(path, exist_ok=True)
    base, per_rank = weights(s)
    need = 2.05 * (base + sum(r + EXPERTS for r in s["ranks"]) * per_rank + 4 * (s["vocab"] + 8195) * s["dim"]) + 1e9
    if not ctx.simt and shutil.disk_usage(path).free < need:
        ctx.writers[name] = "no room for %s: %.1f GB needed in %s" % (name, need / 1e9, ctx.scratch)
        return
    command = [ctx.program("random-model"), path] + [str(s[k]) for k in ("layers", "dim", "ffn", "vocab", "head_dim", "kv_heads")]
    command += ["--ranks", "%d,%d" % s["ranks"]] + [s[k] for k in ("pictures", "split") if k in s]
    ctx.writers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ctx.environment())


def wait(ctx, name):
    start(ctx, name)
    path, writer = model_path(ctx, name), ctx.writers.get(name)
    if isinstance(writer, str):
        raise Skip(writer)
    if writer:
        try:
            _, err = writer.communicate(timeout=max(1, ctx.left()))
        except subprocess.TimeoutExpired:
            raise Skip("the random model %s is not written yet; run again" % name)
        if writer.returncode != 0:
            raise Fail("random-model: exit %d: %s" % (writer.returncode, err.decode()[-300:]))
        open(os.path.join(path, "complete"), "w").close()
        del ctx.writers[name]
    return path


def stop(ctx):
    for writer in ctx.writers.values():
        if not isinstance(writer, str) and writer.poll() is None:
            writer.kill()
            writer.wait()


# ---- healthgpt bench --------------------------------------------------------------------------------------

def bench(ctx, name, plugins, batches, prompt, new, dtype="bf16", kv="auto", extra=(), seconds=300):
    """Rows of `healthgpt bench`, with their floors; (rows, text, exit code)."""
    path = wait(ctx, name)
    command = [ctx.program("healthgpt"), "bench", "--json", "--model", path, "--backend", ctx.backend, "--dtype", dtype,
               "--kv-dtype", kv, "--prompt-tokens", prompt, "--max-tokens", new, "--batches", ",".join(map(str, batches)),
               "--plugins", ",".join(plugins)] + list(extra)
    text, code = run(ctx, command, seconds)
    found = json_lines(text)
    rows = [r for r in found if "sequences" in r]
    if not ctx.simt:
        for r in rows:
            add_floors(ctx, name, r)
    return rows, [r for r in found if "vision_ms" in r], text, code


def add_floors(ctx, name, r):
    read, gemm, s = ceiling(ctx, "read"), ceiling(ctx, "gemm"), shape(ctx, name)
    base, per_rank = weights(s)
    ranks = {"none": 0, "comprehension": s["ranks"][0] + EXPERTS, "generation": s["ranks"][1] + EXPERTS}
    r["step_floor_ms"] = r["step_bytes"] / read * 1e3 if read else None
    flops = 2 * r["prompt_tokens"] * (base + ranks[r["plugin"]] * per_rank) if r["plugin"] in ranks else None
    r["prefill_one_ms"] = r["prefill_ms"] / r["sequences"]
    r["prefill_floor_ms"] = flops / gemm * 1e3 if gemm and flops else None


def table_of(title, rows):
    table = ["", title, "%-14s %-5s %-5s %5s %8s %8s %8s %8s %6s %9s %6s" % (
        "plugin", "type", "kv", "batch", "step ms", "p10", "p90", "floor", "share", "prefill", "share")]
    for r in rows:
        table.append("%-14s %-5s %-5s %5d %8.3f %8.3f %8.3f %8s %s %9.2f %s" % (
            r["plugin"], r["dtype"], r["kv_dtype"], r["sequences"], r["step_ms_p50"], r["step_ms_p10"], r["step_ms_p90"],
            "%.3f" % r["step_floor_ms"] if r["step_floor_ms"] else "-", share(r["step_floor_ms"], r["step_ms_p50"]),
            r["prefill_one_ms"], share(r["prefill_floor_ms"], r["prefill_one_ms"])))
    return table


def mixed_lines(rows):
    """One step over both tasks against two steps of half the rows each."""
    by, lines = {(r["plugin"], r["sequences"]): r for r in rows}, []
    for (plugin, n), r in sorted(by.items()):
        halves = [by.get((p, n // 2)) for p in ("comprehension", "generation")]
        if plugin == "mixed" and n % 2 == 0 and all(halves):
            r["against_halves"] = sum(h["step_ms_p50"] for h in halves) / r["step_ms_p50"]
            lines.append("mixed, batch %d: two steps of %d each take %.2f times as long" % (n, n // 2, r["against_halves"]))
    return lines


def bubble_lines(ctx, rows):
    """A step of M3 against the sum of its linears and attentions alone: what is between them."""
    alone = {}
    for c in ctx.done.get("bench", {}).get("cases", []):
        plain = c["op"] == "linear" and (c["model"], c["type"], c["adapters"]) == ("m3", "bf16", "com")
        if plain or (c["op"] == "attention" and (c["shape"], c["type"]) == ("mha32x96", "f16")):
            alone.setdefault(c["rows"], []).append(c["us"])
    lines = []
    for r in rows:
        parts = alone.get(r["sequences"], [])
        if r["plugin"] == "comprehension" and len(parts) == 5:
            r["kernels_ms"] = SHAPES["m3"]["layers"] * sum(parts) / 1e3
            lines.append("comprehension, batch %d: step %.3f ms, its linears and attentions (at 1024) alone %.3f ms" % (
                r["sequences"], r["step_ms_p50"], r["kernels_ms"]))
    return lines


def steps_of(ctx, name, title, plugins, batches):
    prompt, new, batches = (8, 3, (1, 2)) if ctx.simt else (PROMPT, NEW, batches)
    rows, _, text, code = bench(ctx, name, plugins, batches, prompt, new)
    if ctx.simt:
        if code != 0 or not rows:
            raise Fail("bench: exit %s: %s" % (code, text[-500:]))
        return rehearsed(len(rows), "runs of a small model of that layout")
    result = {"note": "%d runs" % len(rows), "shape": shape(ctx, name), "runs": rows,
              "table": table_of(title, rows) + mixed_lines(rows) + (bubble_lines(ctx, rows) if name == "m3" else [])}
    if code != 0 or not rows:
        raise Fail("bench: exit %s after %d runs: %s" % (code, len(rows), text[-300:]), **result)
    return result


def model(ctx):
    """M3: steps and prefills at batch 1..64, H-LoRA on and off, mixed against two halves"""
    return steps_of(ctx, "m3", "M3, random weights, prompt %d: ms" % PROMPT, ("none", "comprehension", "generation", "mixed"),
                    BATCHES)


def l14(ctx):
    """L14: the same for the larger model, 29 GB"""
    return steps_of(ctx, "l14", "L14, random weights, prompt %d: ms" % PROMPT, ("none", "comprehension"), (1, 8, 32))


def xl32(ctx):
    """4 layers of XL32's width: split linears with biases, groups of 5 heads"""
    return steps_of(ctx, "xl32", "4 of 64 layers of XL32, random weights, prompt %d: ms" % PROMPT, ("none", "comprehension"),
                    (1, 8, 32))


def image(ctx):
    """whole pictures: prompt 700, 1024 steps, VQGAN; CLIP of full size"""
    prompt, new, batches = (8, 16, (1,)) if ctx.simt else (PROMPT, IMAGE, (1, 8))
    rows, pictures, text, code = bench(ctx, "m3", ("generation",), batches, prompt, new, extra=["--images"])
    if code != 0 or not pictures:
        raise Fail("bench: exit %s: %s" % (code, text[-500:]), runs=rows)
    if ctx.simt:
        return rehearsed(len(rows), "drawings of 16 tokens, and small pictures")
    p, read, gemm = pictures[-1], ceiling(ctx, "read"), ceiling(ctx, "gemm")
    p["vision_floor_ms"], p["draw_floor_ms"] = (f / gemm * 1e3 if gemm else None for f in (CLIP_FLOPS, VQGAN_FLOPS))
    table = ["", "pictures, M3: ms", "%-34s %9s %9s %6s" % ("", "ms", "floor", "share")]
    for r in rows:
        r["image_ms"] = r["total_ms"] + r["sequences"] * p["draw_ms"]
        r["image_floor_ms"] = None
        if read and gemm:
            r["image_floor_ms"] = r["step_floor_ms"] * IMAGE + r["sequences"] * (r["prefill_floor_ms"] + p["draw_floor_ms"])
        table.append("%-34s %9.1f %9s %s" % ("%d whole picture(s), prompt %d" % (r["sequences"], PROMPT), r["image_ms"],
                                             "%.1f" % r["image_floor_ms"] if r["image_floor_ms"] else "-",
                                             share(r["image_floor_ms"], r["image_ms"])))
    for what, key in (("CLIP 336 px, 23 layers, projector", "vision"), ("VQGAN decoder, 256 px", "draw")):
        table.append("%-34s %9.2f %9s %s" % (what, p[key + "_ms"], "%.2f" % p[key + "_floor_ms"] if gemm else "-",
                                             share(p[key + "_floor_ms"], p[key + "_ms"])))
    note = "a picture in %.2f s, CLIP %.2f ms, VQGAN %.2f ms" % (rows[0]["image_ms"] / 1e3, p["vision_ms"], p["draw_ms"])
    return {"note": note, "runs": rows, "pictures": p, "table": table}


def dtypes(ctx):
    """M3 with other types of weights and cache"""
    rows, missing, bad = [], [], []
    prompt, new, batches = (8, 3, (1,)) if ctx.simt else (PROMPT, NEW, (1, 8, 32))
    for dtype, kv in DTYPES:
        found, _, text, code = bench(ctx, "m3", ("comprehension", "generation"), batches, prompt, new, dtype, kv, seconds=120)
        rows += found
        if code != 0:
            refused = not found and any(w in text for w in NOT_THERE)
            (missing if refused else bad).append("%s/kv %s: %s" % (dtype, kv, text.strip()[-120:]))
    result = {"runs": rows, "missing": missing, "note": "%d runs" % len(rows) + (", not in this build: %s" % "; ".join(missing)
                                                                                 if missing else "")}
    if not ctx.simt:
        result["table"] = table_of("M3, types of weights and cache: ms", rows)
    if bad or not rows:
        raise Fail("; ".join(bad) or "no type ran", **result)
    return dict(rehearsed(len(rows), "runs"), missing=missing, note=result["note"] + " on the emulation") if ctx.simt else result


# ---- parity of full shapes ----------------------------------------------------------------------------------

def fullshape(ctx):
    """greedy tokens of the random models against a torch forward pass on the same card"""
    python = python_with_torch(ctx)
    if not python:
        raise Skip("no Python with torch" + ("" if ctx.simt else " that sees the card"))
    names = ("m3", "l14", "xl32") if ctx.simt else ("m3",) + tuple(
        n for n in ("l14", "xl32") if os.path.exists(os.path.join(model_path(ctx, n), "complete")))
    n_prompt, n_new = (24, 6) if ctx.simt else (96, 64)
    found, bad = [], []
    for name in names:
        path = wait(ctx, name)
        for task in ("none", "comprehension", "generation"):
            if task == "generation" and not shape(ctx, name)["ranks"][1]:
                continue
            text, code = run(ctx, [ctx.program("greedy"), path, ctx.backend, "bf16", task, n_prompt, n_new], 120)
            if code != 0:
                raise Fail("greedy %s %s: exit %s: %s" % (name, task, code, text[-300:]), runs=found)
            reply = os.path.join(ctx.scratch, "reply.json")
            with open(reply, "w") as f:
                f.write([line for line in text.splitlines() if line.startswith("{")][-1] + "\n")
            text, code = run(ctx, ["sh", "-c", 'exec "$0" "$1" "$2" "$3" < "$4"', python, os.path.join(HERE, "torch_parity.py"),
                                   path, "cpu" if ctx.simt else "cuda", reply], 150, ours=False)
            result = json_lines(text)
            if code != 0 or not result:
                raise Fail("torch_parity.py: exit %s: %s" % (code, text[-400:]), runs=found)
            found.append(dict(result[-1], model=name))
            if not result[-1]["ok"]:
                bad.append("%s %s: %s" % (name, task, json.dumps(result[-1])))
    note = "%s: %d of %d tokens are torch's best, largest difference of a log probability %.1e" % (
        ", ".join(names), sum(r["equal"] for r in found), sum(r["tokens"] for r in found), max(r["worst_logprob"] for r in found))
    if bad:
        raise Fail("; ".join(bad), runs=found)
    return {"note": note, "runs": found}
