"""Stages that measure kernels: the card's ceilings, ours against them, and beside cuBLASLt and torch. On the
emulation they run with small shapes and keep no time."""
import glob
import os
import re
import shutil

import models
from common import HERE, LEAST_S, Fail, Skip, ceiling, floor_us, json_lines, must, python_with_torch, rehearsed, run, share

DRAM = ("dram__bytes_read.sum", "dram__bytes_write.sum")
DRAM_BOUND = 0.05  # counted and measured bytes of a kernel


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


# ---- our kernels ---------------------------------------------------------------------------------------

def kernel_table(ctx, cases):
    rows = sorted({c["rows"] for c in cases if c["op"] == "linear"})
    table = ["", "kernels: share of the floor (bytes at the measured read rate, or FLOP at the GEMM rate), by rows",
             "%-12s %-5s %-6s" % ("linear", "type", "plugin") + "".join("%7d" % r for r in rows)]
    linear = {(c["model"] + " " + c["shape"], c["type"], c["adapters"], c["rows"]): c for c in cases if c["op"] == "linear"}
    for name, kind, adapters in dict.fromkeys(key[:3] for key in linear):
        values = [linear.get((name, kind, adapters, r)) for r in rows]
        table.append("%-12s %-5s %-6s" % (name, kind, adapters) +
                     "".join("%7s" % (share(floor_us(ctx, c), c["us"]).strip() if c else "-") for c in values))
    table.append("%-32s %-5s %6s %8s %9s  share" % ("attention", "cache", "rows", "context", "us"))
    for c in cases:
        if c["op"] != "linear":
            table.append("%-32s %-5s %6d %8d %9.1f %s" % (c["op"] + " " + c["shape"], c["type"], c["rows"], c["context"], c["us"],
                                                          share(floor_us(ctx, c), c["us"])))
    return table


def kernel_bench(ctx):
    """the linears and attentions of M3, L14, CLIP and VQGAN alone, against their floors"""
    size = ("64", "1", "tiny") if ctx.simt else ("512", "9")
    text, code = run(ctx, [ctx.program("kernel-bench"), "cases", ctx.backend] + list(size), 300)
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


def ncu(ctx):
    """bytes of memory that one kernel moves by the counters, against those that are counted here"""
    tool = shutil.which("ncu") or next(iter(sorted(glob.glob("/usr/local/cuda*/bin/ncu"))), None)
    if ctx.simt or not tool:
        raise Skip("the emulation has no counters" if ctx.simt else "ncu is not installed")
    text, code = run(ctx, [tool, "--clock-control", "none", "--metrics", ",".join(DRAM), "--kernel-name", "regex:hlora_linear",
                           "--launch-skip", "20", "--launch-count", "5", "--csv", ctx.program("kernel-bench"), "cases",
                           ctx.backend, "512", "1", "one"], 120)
    if "ERR_NVGPUCTRPERM" in text:
        raise Skip("ncu may not read the counters here (ERR_NVGPUCTRPERM)")
    values = {name: [to_bytes(u, v) for u, v in re.findall(r'"%s","(\w+)","([\d.,]+)"' % re.escape(name), text)] for name in DRAM}
    counted = next((c["bytes"] for c in json_lines(text) if c.get("adapters") == "none"), None)
    if not values[DRAM[0]] or not counted:
        raise Fail("ncu: exit %s, no figures: %s" % (code, text[-400:]))
    moved = sorted(sum(v) for v in zip(*values.values()))[len(values[DRAM[0]]) // 2]
    result = {"counted": counted, "moved": moved, "note": "qkv of M3, one row: %.1f MB moved, %.1f MB counted" % (moved / 1e6,
                                                                                                           counted / 1e6)}
    if abs(moved / counted - 1) > DRAM_BOUND:
        raise Fail(result["note"] + ": more than %.0f %% apart" % (100 * DRAM_BOUND), **result)
    return result


def to_bytes(unit, value):
    scale = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
    return float(value.replace(",", "")) * scale.get(unit, 1)


# ---- beside cuBLASLt and torch -----------------------------------------------------------------------------

def ratio(theirs, ours):
    return "%.2f" % (theirs / ours) if theirs and ours else "-"


def cublas_libraries(ctx):
    """Where libcublasLt may lie: with torch, with CUDA."""
    python = python_with_torch(ctx)
    found = sorted(glob.glob("/usr/local/cuda*/lib*/libcublasLt.so.*"))
    if python:
        text, code = run(ctx, [python, "-c", "import torch, os; print(os.path.dirname(os.path.dirname(torch.__file__)))"], 60,
                         ours=False)
        if code == 0:
            found += sorted(glob.glob(text.strip().splitlines()[-1] + "/nvidia/*/lib/libcublasLt.so.*"))
    return found


def cublaslt(ctx):
    """cuBLASLt for the same products, rows 1..64 and prefill, beside our linear without plug-ins"""
    program = ctx.program("gpu-gemm")
    if ctx.simt or not os.path.exists(program):
        raise Skip("no cuBLASLt on the emulation" if ctx.simt else "gpu-gemm is not in this pack (built without cublasLt.h)")
    text, code = run(ctx, [program] + cublas_libraries(ctx), 200)
    if code == 69:
        raise Skip(text.strip()[-200:])
    theirs = [c for c in json_lines(text) if "us" in c]
    if code != 0 or not theirs:
        raise Fail("gpu-gemm: exit %s: %s" % (code, text[-400:]), cases=theirs)
    ours = {(c["model"], c["shape"], c["rows"]): c["us"] for c in ctx.done.get("bench", {}).get("cases", [])
            if c["op"] == "linear" and c["type"] == "bf16" and c["adapters"] == "none"}
    rows = sorted({c["rows"] for c in theirs})
    by = {(c["model"], c["shape"], c["rows"]): c["us"] for c in theirs}
    table = ["", "cuBLASLt %s, bf16: its time over ours (our linear writes fp32 and has its epilogue and norm inside), by rows"
             % json_lines(text)[0].get("cublaslt", ""), "%-12s" % "" + "".join("%7d" % r for r in rows)]
    for model, shape in dict.fromkeys(key[:2] for key in by):
        table.append("%-12s" % (model + " " + shape) +
                     "".join("%7s" % ratio(by.get((model, shape, r)), ours.get((model, shape, r))) for r in rows))
    return {"note": "%d products" % len(theirs), "cases": theirs, "table": table}


def torch_rows(ctx, seconds, *args):
    """Lines of torch_baseline.py; on the emulation the same script, small, on the CPU if there is a torch."""
    python = python_with_torch(ctx)
    if not python:
        raise Skip("no Python with torch" + ("" if ctx.simt else " that sees the card"))
    text, code = run(ctx, [python, os.path.join(HERE, "torch_baseline.py")] + list(args) + (["--tiny"] if ctx.simt else []),
                     seconds, ours=False)
    rows = json_lines(text)
    if code is None and ctx.left() < LEAST_S:
        raise Skip("out of time after %d rows; run the same command again" % len(rows))
    if code != 0 or not rows:
        raise Fail("torch_baseline.py %s: exit %s after %d rows: %s" % (args[0], code, len(rows), text[-400:]), rows=rows)
    return rows


def sdpa(ctx):
    """torch's scaled_dot_product_attention for the same shapes, beside ours"""
    rows = torch_rows(ctx, 120, "attention")
    if ctx.simt:
        return rehearsed(len(rows), "cases of torch")
    kinds = {"attention": "decode", "prefill_attention": "prefill", "dense_attention": "dense"}
    ours = {(kinds[c["op"]], c["shape"], c["rows"]): c["us"] for c in ctx.done.get("bench", {}).get("cases", [])
            if c["op"] in kinds and c["type"] in ("f16", "f32")}
    table = ["", "torch %s scaled_dot_product_attention (contiguous cache): us" % rows[0]["torch"],
             "%-24s %6s %6s %9s %9s %7s" % ("", "rows", "keys", "torch", "ours", "times")]
    for r in rows:
        mine = ours.get((r["what"], r["shape"], r["rows"]))
        table.append("%-24s %6d %6d %9.1f %9s %7s" % (r["what"] + " " + r["shape"], r["rows"], r["keys"], r["us"],
                                                      "%.1f" % mine if mine else "-", ratio(r["us"], mine)))
    return {"note": "%d cases" % len(rows), "rows": rows, "table": table}


def beside(ctx, title, rows, kinds, shape):
    stage = {"m3": "model", "l14": "l14"}[shape]
    ours = {(r["plugin"], r["sequences"]): r for r in ctx.done.get(stage, {}).get("runs", [])}
    table = ["", title, "%-14s %5s" % ("plugin", "batch") + "".join("%10s" % k for k in kinds) + "%10s" % "ours" +
             "".join("%10s" % ("/" + k) for k in kinds)]
    for r in rows:
        our, prefill = ours.get((r["plugin"], r["sequences"])), r["what"] == "prefill"
        mine = (our["prefill_one_ms"] if prefill else our["step_ms_p50"]) if our else None
        r["ours_ms"] = mine
        table.append("%-14s %5s" % (r["plugin"], "pre" if prefill else r["sequences"]) +
                     "".join("%10s" % ("%.3f" % r[k + "_ms"] if r.get(k + "_ms") else "-") for k in kinds) +
                     "%10s" % ("%.3f" % mine if mine else "-") + "".join("%10s" % ratio(r.get(k + "_ms"), mine) for k in kinds))
    return {"note": "%d rows" % len(rows), "rows": rows, "table": table}


def torch(ctx):
    """an eager torch model of M3's shape with H-LoRA, and the same as a CUDA graph"""
    if not ctx.simt and "l14" in ctx.wanted:
        models.start(ctx, "l14")  # written while torch runs
    rows = torch_rows(ctx, 180, "model", "m3")
    if ctx.simt:
        return rehearsed(len(rows), "rows of torch")
    return beside(ctx, "torch %s, M3 with H-LoRA on this card: ms, and how many times ours" % rows[0]["torch"], rows,
                  ("eager", "graph"), "m3")


def compiled(ctx):
    """the torch model through torch.compile and a CUDA graph"""
    if ctx.simt and ctx.quick:
        raise Skip("quick: a minute of compiling")
    rows = torch_rows(ctx, 240, "compiled", "m3")
    if ctx.simt:
        return rehearsed(len(rows), "rows of compiled torch")
    return beside(ctx, "torch %s, M3 compiled, as a CUDA graph: ms, and how many times ours" % rows[0]["torch"], rows,
                  ("compiled",), "m3")


def torch_l14(ctx):
    """an eager torch model of L14's shape, and the same as a CUDA graph"""
    if ctx.simt:
        raise Skip("the same script as for M3")
    rows = torch_rows(ctx, 180, "model", "l14")
    return beside(ctx, "torch %s, L14 with H-LoRA on this card: ms, and how many times ours" % rows[0]["torch"], rows,
                  ("eager", "graph"), "l14")
