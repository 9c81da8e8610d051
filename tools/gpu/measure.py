"""The stages of check.py that measure. On the emulation they run with tiny shapes and keep no time."""
import os
import shutil
import subprocess
import sys

from common import Fail, Skip, json_lines, must, run

# HealthGPT-M3: Phi-3-mini with two plug-ins of rank 64 and 256, 4 experts each.
M3 = {"layers": 32, "dim": 3072, "ffn": 8192, "vocab": 40206, "head_dim": 96}
TINY = {"layers": 2, "dim": 128, "ffn": 192, "vocab": 512, "head_dim": 64}
RANKS = {"none": 0, "comprehension": 64 + 4, "generation": 256 + 4, "mixed": 64 + 256 + 8}
PROMPT, NEW, BATCHES = 700, 64, (1, 8, 32)
# (what, how to read it from the figures, gate, goal) of the design for a card that reads 4.2 TB/s (H200)
GATES = (("M3 bf16 B=1 step, ms", lambda f: f["comprehension", 1]["step_ms_p50"], 3.1, 2.4),
         ("H-LoRA generation, B=1, % more", lambda f: overhead(f, "generation"), 20, 13),
         ("H-LoRA comprehension, B=1, % more", lambda f: overhead(f, "comprehension"), 8, 4),
         ("prefill 700 comprehension, ms", lambda f: PROMPT / f["comprehension", 1]["prefill_tokens_per_s"] * 1e3, 13.5, 10))
HERE = os.path.dirname(os.path.abspath(__file__))


def overhead(figures, plugin):
    return 100 * (figures[plugin, 1]["step_ms_p50"] / figures["none", 1]["step_ms_p50"] - 1)


def rehearsed(n, what):
    return {"note": "%d %s ran on the emulation; times thrown away" % (n, what), "cases": n}


def python_with_torch(ctx):
    for python in dict.fromkeys((sys.executable, shutil.which("python3") or "")):
        if python and run(ctx, [python, "-c", "import torch; assert torch.cuda.is_available()"], 90, ours=False)[1] == 0:
            return python
    return None


def ceilings(ctx):
    """what the card reads, copies and multiplies at most"""
    if ctx.simt:
        raise Skip("the emulation has no ceilings")
    result = json_lines(must(ctx, [ctx.program("gpu-peak")], 90))[0]
    note = "read %.2f TB/s, copy %.2f TB/s, launch %.2f us" % (result["read"] / 1e12, result["copy"] / 1e12,
                                                               result["launch_us"])
    python = python_with_torch(ctx)
    if python:
        text, code = run(ctx, [python, os.path.join(HERE, "torch_baseline.py"), "gemm"], 90, ours=False)
        result["gemm"] = json_lines(text)[0]["flops"] if code == 0 and json_lines(text) else None
    note += ", bf16 GEMM %.0f TFLOP/s" % (result["gemm"] / 1e12) if result.get("gemm") else ", no torch: GEMM not measured"
    return dict(result, note=note)


def ceiling(ctx, name):
    return ctx.done.get("ceilings", {}).get(name)


def floor_us(ctx, case):
    read, gemm = ceiling(ctx, "read"), ceiling(ctx, "gemm")
    if not read:
        return None
    return max(case["bytes"] / read, case["flops"] / gemm if gemm else 0) * 1e6


def share(floor, value):
    if not floor or not value:
        return "     -"
    return "%4.0f %%%s" % (100 * floor / value, "!" if floor > 1.02 * value else "")  # ! above 100 %: a bug of the bench


def kernel_table(ctx, cases):
    rows = sorted({c["rows"] for c in cases if c["op"] == "linear"})
    table = ["", "kernels: share of the floor (bytes at the measured read rate, or FLOP at the GEMM rate), by rows",
             "%-8s %-5s %-6s" % ("linear", "type", "plugin") + "".join("%7d" % r for r in rows)]
    linear = {(c["shape"], c["type"], c["adapters"], c["rows"]): c for c in cases if c["op"] == "linear"}
    for shape, kind, adapters in dict.fromkeys(key[:3] for key in linear):
        values = [linear.get((shape, kind, adapters, r)) for r in rows]
        table.append("%-8s %-5s %-6s" % (shape, kind, adapters) +
                     "".join("%7s" % (share(floor_us(ctx, c), c["us"]).strip() if c else "-") for c in values))
    table.append("%-14s %-5s %6s %8s %9s  share" % ("attention", "cache", "rows", "context", "us"))
    for c in cases:
        if c["op"] == "attention":
            table.append("%-14s %-5s %6d %8d %9.1f %s" % (c["shape"], c["type"], c["rows"], c["context"], c["us"],
                                                         share(floor_us(ctx, c), c["us"])))
    return table


def kernel_bench(ctx):
    """the linears and attention of a layer alone, against their floors"""
    size = ("64", "1", "tiny") if ctx.simt else ("512", "9")
    text, code = run(ctx, [ctx.program("kernel-bench"), "cases", ctx.backend] + list(size), 200)
    cases = json_lines(text)
    if ctx.simt:
        if code != 0:
            raise Fail("kernel-bench: exit %s: %s" % (code, text[-500:]))
        return rehearsed(len(cases), "cases")
    for c in cases:
        floor = floor_us(ctx, c)
        c["floor_us"], c["share"] = floor, floor / c["us"] if floor else None
    result = {"note": "%d cases" % len(cases), "cases": cases, "table": kernel_table(ctx, cases)}
    if code != 0:
        raise Fail("kernel-bench: exit %s after %d cases: %s" % (code, len(cases), text[-300:]), **result)
    return result


# ---- the whole model -----------------------------------------------------------------------------------

def shape(ctx):
    return TINY if ctx.simt else M3


def model_path(ctx):
    return os.path.join(ctx.scratch, "tiny" if ctx.simt else "m3")


def weights(s):
    """Of the layers' linears: (base, per rank row of the adapters, head)."""
    d, f = s["dim"], s["ffn"]
    linears = ((3 * d, d), (d, d), (2 * f, d), (d, f))
    return (s["layers"] * sum(n * k for n, k in linears), s["layers"] * sum(n + k for n, k in linears), s["vocab"] * d)


def start_model(ctx):
    """Write the random model beside the first stages; 9 GB for M3."""
    s, path = shape(ctx), model_path(ctx)
    if os.path.exists(os.path.join(path, "complete")):
        return
    os.makedirs(path, exist_ok=True)
    base, per_rank, head = weights(s)
    need = 2.1 * (base + (64 + 256 + 8) * per_rank + 2 * head)
    if shutil.disk_usage(path).free < need:
        ctx.model_writer = "no room: %.1f GB needed in %s" % (need / 1e9, ctx.scratch)
        return
    ctx.model_writer = subprocess.Popen(
        [ctx.program("random-model"), path] + [str(s[k]) for k in ("layers", "dim", "ffn", "vocab", "head_dim")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ctx.environment())


def wait_model(ctx):
    path, writer = model_path(ctx), ctx.model_writer
    if isinstance(writer, str):
        raise Skip(writer)
    if writer:
        try:
            _, err = writer.communicate(timeout=max(1, ctx.left()))
        except subprocess.TimeoutExpired:
            raise Skip("the random model is not written yet; run again")
        if writer.returncode != 0:
            raise Fail("random-model: exit %d: %s" % (writer.returncode, err.decode()[-300:]))
        open(os.path.join(path, "complete"), "w").close()
    ctx.model_writer = None
    return path


def stop_model(ctx):
    if isinstance(ctx.model_writer, subprocess.Popen) and ctx.model_writer.poll() is None:
        ctx.model_writer.kill()
        ctx.model_writer.wait()


def step_bytes(s, row):
    """What a decode step cannot do without: weights once, the adapters in use, every sequence's KV cache (f16)."""
    base, per_rank, head = weights(s)
    cache = row["sequences"] * (row["prompt_tokens"] + row["new_tokens"] / 2) * s["layers"] * 2 * s["dim"]
    return 2 * (base + head + RANKS[row["plugin"]] * per_rank + cache)


def add_floors(ctx, rows):
    s, read, gemm = shape(ctx), ceiling(ctx, "read"), ceiling(ctx, "gemm")
    base, per_rank, _ = weights(s)
    for r in rows:
        r["step_bytes"] = step_bytes(s, r)
        r["step_floor_ms"] = r["step_bytes"] / read * 1e3 if read else None
        flops = 2 * PROMPT * (base + RANKS[r["plugin"]] * per_rank) if r["plugin"] != "mixed" else None
        r["prefill_ms"] = PROMPT / r["prefill_tokens_per_s"] * 1e3
        r["prefill_floor_ms"] = flops / gemm * 1e3 if gemm and flops else None


def model_table(rows):
    table = ["", "M3, random bf16 weights, prompt %d: ms" % PROMPT,
             "%-14s %5s %8s %8s %8s %8s %6s %9s %6s" % ("plugin", "batch", "step", "p10", "p90", "floor", "share",
                                                        "prefill", "share")]
    for r in rows:
        table.append("%-14s %5d %8.3f %8.3f %8.3f %8s %s %9.2f %s" % (
            r["plugin"], r["sequences"], r["step_ms_p50"], r["step_ms_p10"], r["step_ms_p90"],
            "%.3f" % r["step_floor_ms"] if r["step_floor_ms"] else "-", share(r["step_floor_ms"], r["step_ms_p50"]),
            r["prefill_ms"], share(r["prefill_floor_ms"], r["prefill_ms"])))
    figures = {(r["plugin"], r["sequences"]): r for r in rows}
    table.append("%-36s %9s %7s %7s" % ("gates (for an H200)", "measured", "gate", "goal"))
    for what, read, gate, goal in GATES:
        try:
            value = read(figures)
        except KeyError:
            continue
        table.append("%-36s %9.2f %7g %7g  %s" % (what, value, gate, goal, "goal" if value <= goal else
                                                  "gate" if value <= gate else "MISSED"))
    for batch in BATCHES[1:]:
        try:
            both = sum(figures[p, batch]["step_ms_p50"] for p in ("comprehension", "generation"))
            table.append("mixed, batch %d: two steps of %d would take %.2f times as long" % (
                batch, batch, both / figures["mixed", batch]["step_ms_p50"]))
        except KeyError:
            continue
    return table


def model(ctx):
    """a random model of full shape: a step and a prefill against their floors, H-LoRA on and off"""
    path = wait_model(ctx)
    if not os.path.exists(os.path.join(path, "complete")):
        raise Skip("no random model")
    prompt, new, batches = (20, 3, (1, 3)) if ctx.simt else (PROMPT, NEW, BATCHES)
    text, code = run(ctx, [ctx.program("healthgpt"), "bench", "--json", "--model", path, "--backend", ctx.backend, "--dtype",
                           "bf16", "--prompt-tokens", prompt, "--max-tokens", new, "--batches", ",".join(map(str, batches)),
                           "--plugins", ",".join(RANKS)], 240)
    rows = json_lines(text)
    if ctx.simt:
        if code != 0:
            raise Fail("bench: exit %s: %s" % (code, text[-500:]))
        return rehearsed(len(rows), "runs of a random model")
    add_floors(ctx, rows)
    result = {"note": "%d runs" % len(rows), "shape": shape(ctx), "runs": rows, "table": model_table(rows)}
    if code != 0:
        raise Fail("bench: exit %s after %d runs: %s" % (code, len(rows), text[-300:]), **result)
    return result


def images(ctx):
    """vision tower and VQGAN of the demo model"""
    if ctx.simt and ctx.quick:
        raise Skip("quick: half a minute on the emulation")
    text = must(ctx, [ctx.program("healthgpt"), "bench", "--json", "--images", "--backend", ctx.backend, "--model",
                      os.path.join(ctx.home, "config/models/demo"), "--prompt-tokens", "8", "--max-tokens", "2",
                      "--batches", "1"], 120)
    found = json_lines(text)[-1]
    if ctx.simt:
        return rehearsed(2, "kinds of pictures")
    return dict(found, note="demo: sees %(vision_side)d px in %(vision_ms).2f ms, draws %(drawn_side)d px in %(draw_ms).2f ms"
                % found)


# ---- beside torch --------------------------------------------------------------------------------------

def torch(ctx):
    """an eager torch model of the same shape with H-LoRA, and the same as a CUDA graph"""
    if ctx.simt:
        raise Skip("a card's torch cannot be compared with an emulation")
    python = python_with_torch(ctx)
    if not python:
        raise Skip("no Python with torch that sees the card")
    text, code = run(ctx, [python, os.path.join(HERE, "torch_baseline.py"), "model"], 150, ours=False)
    rows = json_lines(text)
    ours = {(r["plugin"], r["sequences"]): r for r in ctx.done.get("model", {}).get("runs", [])}
    table = ["", "beside torch %s, same card: ms, and how many times faster ours is" % (rows[0]["torch"] if rows else ""),
             "%-14s %5s %9s %9s %9s %7s %7s" % ("plugin", "batch", "eager", "graph", "ours", "/eager", "/graph")]
    for r in rows:
        our = ours.get((r["plugin"], r["sequences"]))
        mine = (our["prefill_ms"] if r["what"] == "prefill" else our["step_ms_p50"]) if our else None
        table.append("%-14s %5s %9.3f %9s %9s %7s %7s" % (
            r["plugin"], "pre" if r["what"] == "prefill" else r["sequences"], r["eager_ms"],
            "%.3f" % r["graph_ms"] if r.get("graph_ms") else "-", "%.3f" % mine if mine else "-",
            "%.2f" % (r["eager_ms"] / mine) if mine else "-",
            "%.2f" % (r["graph_ms"] / mine) if mine and r.get("graph_ms") else "-"))
    result = {"note": "%d rows" % len(rows), "rows": rows, "table": table}
    if code != 0 or not rows:
        raise Fail("torch_baseline.py: exit %s: %s" % (code, text[-400:]), **result)
    return result
