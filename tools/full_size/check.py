#!/usr/bin/env python3
"""check.py BUILD [--dir DIR] [--only m3,l14,xl32] [--dtypes int4,int8,bf16] [--draw int4] [--keep m3] [--results FILE] - random
models of full size in the published formats are written (or found in DIR from before), loaded and asked on the CPU backend.
docs/models.md says what is checked and what it took. What cannot be done here is counted as skipped, with the reason."""
import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "e2e")]
import harness
import models
import session
import vocabularies
from harness import Skip, equal, require
from session import Session

RESULTS = []
# From reference.md 1 and 7: what inspect has to say.
FACTS = {
    "m3": {"arch": "phi3", "dim": 3072, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "head_dim": 96, "ffn_dim": 8192, "vocab": 32064,
           "max_positions": 4096},
    "l14": {"arch": "phi3", "dim": 5120, "n_layers": 40, "n_heads": 40, "n_kv_heads": 10, "head_dim": 128, "ffn_dim": 17920,
            "vocab": 100352, "max_positions": 16384},
    "xl32": {"arch": "qwen2", "dim": 5120, "n_layers": 64, "n_heads": 40, "n_kv_heads": 8, "head_dim": 128, "ffn_dim": 27648,
             "vocab": 152064, "max_positions": 32768},
}
KV_BYTES = {"m3": 393216, "l14": 204800, "xl32": 262144}
GB = 1e9
NEED = {"bf16": 12.5 * GB, "int8": 8.5 * GB, "int4": 6.5 * GB}  # memory of M3


def check(name, function, *args):
    start, before = time.monotonic(), dict(harness.counts)
    kept = {}

    def run():
        kept["note"] = function(*args)
        return kept["note"]

    harness.check(name, run)
    how = next(k for k in before if harness.counts[k] != before[k])
    RESULTS.append({"check": name, "result": how, "seconds": round(time.monotonic() - start, 1), "note": kept.get("note")})
    return how == "passed"


# ---- files ----------------------------------------------------------------------------------------------------------------------


def write(ctx, variant, folder, need, *options):
    """The model, unless a complete one of the same kind is there."""
    stamp, want = os.path.join(folder, "written"), " ".join((variant, "seed 1") + options)
    if os.path.exists(stamp) and open(stamp).read() == want:
        return "from before"
    data = os.path.join(harness.SHARED, "data")
    if not vocabularies.available(variant, data):
        raise Skip("no tokenizer: HG_SHARED/data/tokenizers is not there")
    os.makedirs(ctx.dir, exist_ok=True)
    free = shutil.disk_usage(ctx.dir).free
    if free < need + 5 * GB:
        raise Skip("%.0f GB of disk wanted, %.0f free" % (need / GB + 5, free / GB))
    shutil.rmtree(folder, ignore_errors=True)
    fill = () if "--holes" in options else ("--fill", os.path.join(ROOT, ctx.build, "full-size-fill"))
    more = [o for o in options if o != "--holes"]
    p = subprocess.run([sys.executable, os.path.join(HERE, "write.py"), variant, folder, "--data", data, *fill, *more], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    require(p.returncode == 0, p.stdout[-500:])
    with open(stamp, "w") as f:
        f.write(want)
    return p.stdout.strip().split(": ", 1)[-1]


def remove(ctx, folder):
    if os.path.isdir(folder) and os.path.basename(folder) not in ctx.keep:
        shutil.rmtree(folder)


# ---- inspect, doctor --------------------------------------------------------------------------------------------------------------


def inspect(ctx, folder):
    out = subprocess.run([os.path.join(ROOT, ctx.build, "healthgpt"), "inspect", "--json", "--weights", folder, session.card_of(folder)],
                         stdout=subprocess.PIPE, text=True)
    require(out.returncode == 0, "inspect: exit %d" % out.returncode)
    return json.loads(out.stdout)


def expected_weights(variant, layers, dtype):
    """Bytes of weights, plug-ins, tables, tower, VQGAN by our own count of the shapes: the linears in their type (int8: a scale of 4 bytes
    per row; int4: half a byte and 2 bytes per 128), all else 16 bits; norms and the VQGAN (its encoder too) fp32."""
    v, total = dict(models.VARIANTS[variant], layers=layers), 0
    per = {"bf16": lambda n, k: 2 * n * k, "int8": lambda n, k: n * k + 4 * n, "int4": lambda n, k: n * k // 2 + n * (k // 128) * 2}[dtype]
    for t in models.base(v):
        is_table, is_matrix = "embed_tokens" in t.name, len(t.dims) == 2
        total += per(*t.dims) if is_matrix and not is_table else t.count * (2 if is_table else 4)
    for task in ("com", "gen"):
        total += sum(2 * t.count for t in models.plugin(v, v[task][1])) if v[task] else 0
    if v["fusion"]:
        table, head = models.fusion(v, v["fusion"][1])
        total += 2 * table.count + per(*head.dims)
        total += sum(4 * t.count for t in models.vqgan() if not t.name.startswith("loss."))
    tower = [t for t in models.clip() if t.name.startswith("vision_model.") and t.dtype == "F32"]
    return total + sum((2 if len(t.dims) > 1 else 4) * t.count for t in tower)


def check_inspect(ctx, variant, folder, layers):
    d, want = inspect(ctx, folder), dict(FACTS[variant], n_layers=layers)
    equal({k: d["llm"].get(k) for k in want}, want, "llm")
    equal(d["missing"], [], "missing")
    v = dict(models.VARIANTS[variant], layers=layers)
    equal(sorted(d["tasks"]), ["comprehension", "generation"] if v["gen"] else ["comprehension"], "tasks")
    shards = [f for f in d["files"] if "llm/model-" in f["file"]]
    equal(len(shards), v["shards"], "shards")
    parameters = sum(sum(f["dtypes"].values()) for f in shards)
    equal(parameters, sum(t.count for t in models.base(v)), "parameters of the base")
    if layers == models.VARIANTS[variant]["layers"]:
        equal(parameters, v["parameters"], "parameters of the base, published")
    tensors = {f["file"].split("/")[-1]: f["n_tensors"] for f in d["files"]}
    for task in ("com", "gen"):
        if v[task]:
            equal(tensors[v[task][0]], len(models.plugin(v, v[task][1])), v[task][0])
    equal(d["memory"]["kv_bytes_per_token_f16"], KV_BYTES[variant] * layers // models.VARIANTS[variant]["layers"], "KV bytes per token")
    said = []
    for dtype in ("bf16", "int8", "int4"):
        got, wanted = d["memory"][dtype], expected_weights(variant, layers, dtype)
        require(abs(got / wanted - 1) < 0.03, "memory %s: expected about %.3f GB by the shapes, got %.3f" % (dtype, wanted / GB, got / GB))
        said.append("%s %.2f GB" % (dtype, got / GB))
    return "%d parameters, %s" % (parameters, ", ".join(said))


def check_ids(ctx, variant, folder):
    """The image tokens behind the tokenizer, and the stop list, as reference.md 7 and 1 have them: by what the tokenizer says."""
    tokens = {"m3": {"<|end|>": 32007, "<|assistant|>": 32001}, "l14": {"<|im_end|>": 100265, "<|im_sep|>": 100266},
              "xl32": {"<|im_end|>": 151645, "<|endoftext|>": 151643}}[variant]
    for text, want in tokens.items():
        out = harness.cli_ok(ctx.build, "tokenize", "--tokenizer", os.path.join(folder, "llm"), "--special", text)
        require(re.search(r"\b%d\b" % want, out), "%s: expected id %d in %r" % (text, want, out))
    return ", ".join("%s %d" % x for x in tokens.items())


def check_doctor(ctx, variant, folder):
    p = subprocess.run([os.path.join(ROOT, ctx.build, "healthgpt"), "doctor", "--json", "--model", session.card_of(folder), "--weights", folder],
                       stdout=subprocess.PIPE, text=True)
    text = p.stdout
    json.loads(text)
    lines = re.findall(r"--dtype (bf16|int8|int4): ([\d.]+) GB \(weights ([\d.]+) GB[^\"]*?fits, in GB: ([\d, ]+|none)", text)
    require(len(lines) == 3, "memory lines: %r" % text[-800:])
    d = inspect(ctx, folder)
    for dtype, _, weights, _ in lines:
        require(abs(float(weights) * GB / d["memory"][dtype] - 1) < 0.01,
                "%s: doctor %s GB, inspect %d bytes" % (dtype, weights, d["memory"][dtype]))
    return "; ".join("%s %s GB fits %s" % (d, w, cards.strip(", ")) for d, w, _, cards in lines)


# ---- the models ----------------------------------------------------------------------------------------------------------------


def xray():
    folder = os.path.join(harness.SHARED, "data", "images", "cxr")
    names = sorted(n for n in os.listdir(folder) if n.endswith((".png", ".jpg"))) if os.path.isdir(folder) else []
    if not names:
        raise Skip("no pictures: HG_SHARED/data/images/cxr is not there")
    return os.path.join(folder, names[0])


def run_m3(ctx):
    folder = os.path.join(ctx.dir, "m3")
    if not check("m3: written in the published names, shapes and sizes", write, ctx, "m3", folder, 11.3 * GB):
        return
    check("m3: inspect", check_inspect, ctx, "m3", folder, 32)
    check("m3: ids", check_ids, ctx, "m3", folder)
    check("m3: doctor", check_doctor, ctx, "m3", folder)
    for dtype in ctx.dtypes:
        one = Session(ctx, folder, dtype, 3072, NEED[dtype])
        try:
            if not check("m3 %s: loads from the disk" % dtype, one.start, "cold"):
                continue
            check("m3 %s: peak memory within 3 %% of its parts" % dtype, one.check_memory)
            check("m3 %s: a question about an X-ray, twice the same" % dtype, one.check_answer, xray)
            check("m3 %s: a second picture, and text alone" % dtype, one.check_others, xray)
            check("m3 %s: a picture of 1024 tokens, questions beside it" % dtype, one.check_picture, ctx.draw)
            if dtype == "int4":
                check("m3 int4: the same picture alone", one.check_picture_alone)
            check("m3 %s: memory at the end" % dtype, one.check_memory)
        finally:
            one.stop()
        warm = Session(ctx, folder, dtype, 3072, NEED[dtype])
        try:
            if check("m3 %s: loads again" % dtype, warm.start, "warm"):
                check("m3 %s: a new process answers the same" % dtype, warm.check_same, one)
        finally:
            warm.stop()
        if dtype == "int8":
            run_cache(ctx, folder, one)
    remove(ctx, folder)


def run_cache(ctx, folder, one):
    """M3 in int8 with its quantised weights from a file."""
    with tempfile.TemporaryDirectory(dir=ctx.dir) as cache:
        for read in (False, True):
            s = Session(ctx, folder, "int8", 3072, NEED["int8"], "--quant-cache", cache)
            try:
                if check("m3 int8: loads from its cache", s.start_from_cache) if read else check("m3 int8: writes a cache", s.start, "writing"):
                    check("m3 int8: answers the same %s the cache" % ("from" if read else "beside"), s.check_same, one)
            finally:
                s.stop()


def run_l14(ctx):
    folder = os.path.join(ctx.dir, "l14")
    if not check("l14: written in the published names, shapes and sizes", write, ctx, "l14", folder, 31.4 * GB):
        return
    check("l14: inspect", check_inspect, ctx, "l14", folder, 40)
    check("l14: ids", check_ids, ctx, "l14", folder)
    check("l14: doctor", check_doctor, ctx, "l14", folder)
    one = Session(ctx, folder, "int4", 2048, 11 * GB)
    try:
        if check("l14 int4: loads from the disk", one.start, "cold"):
            check("l14 int4: a question about an X-ray, twice the same", one.check_answer, xray)
            check("l14 int4: refuses to draw", one.check_no_drawing)
            check("l14 int4: peak memory within 3 % of its parts, and within 24 GB", one.check_memory, 0.03, 24 * GB)
    finally:
        one.stop()
    remove(ctx, folder)


def run_xl32(ctx):
    whole, cut = os.path.join(ctx.dir, "xl32-shapes"), os.path.join(ctx.dir, "xl32")
    if check("xl32: all 64 layers as names and shapes, 17 shards of holes", write, ctx, "xl32", whole, 0, "--holes"):
        check("xl32: inspect, 64 layers", check_inspect, ctx, "xl32", whole, 64)
        check("xl32: ids", check_ids, ctx, "xl32", whole)
        check("xl32: doctor, 64 layers", check_doctor, ctx, "xl32", whole)
    remove(ctx, whole)
    if not check("xl32: 4 layers at full width in 17 shards", write, ctx, "xl32", cut, 9 * GB, "--layers", "4"):
        return
    check("xl32: inspect, 4 layers", check_inspect, ctx, "xl32", cut, 4)
    for dtype in ("int8", "int4"):
        if dtype not in ctx.dtypes:
            continue
        one = Session(ctx, cut, dtype, 2048, 7 * GB)
        try:
            if not check("xl32 %s: loads from the disk" % dtype, one.start, "cold"):
                continue
            check("xl32 %s: a question about an X-ray, twice the same" % dtype, one.check_answer, xray)
            check("xl32 %s: refuses to draw" % dtype, one.check_no_drawing)
            check("xl32 %s: repetition penalty 1.05 of the file is active" % dtype, one.check_penalty)
            # Of 4 layers, the 0.57 GB of the file that are there while the last is packed are more than 3 %.
            check("xl32 %s: peak memory within 8 %% of its parts" % dtype, one.check_memory, 0.08)
        finally:
            one.stop()
    remove(ctx, cut)


def report(ctx):
    if ctx.results:
        with open(ctx.results, "w") as f:
            json.dump({"machine": {"cpu": session.cpu_name(), "cores": os.cpu_count(), "memory_gb": round(session.memory("MemTotal") / GB, 1),
                                   "system": platform.system()}, "checks": RESULTS, "measured": session.MEASURED}, f, indent=1)
            f.write("\n")
    columns = (("cold load", "cold_s", "%.1f s"), ("warm load", "warm_s", "%.1f s"), ("from cache", "cached_s", "%.1f s"), ("ready", "ready_warm_s", "%.1f s"),
               ("parts", "parts_gb", "%.2f GB"), ("peak", "peak_gb", "%.2f GB"), ("first token", "first_token_s", "%.1f s"),
               ("token", "token_ms", "%.0f ms"), ("picture", "picture_s", "%.0f s"))
    rows = [(name, m) for name, m in session.MEASURED.items() if m]
    if rows:
        print("\n%-10s" % "" + "".join("%13s" % title for title, _, _ in columns))
    for name, m in rows:
        print("%-10s" % name + "".join("%13s" % (form % m[key] if key in m else "-") for _, key, form in columns))
    print("%d passed, %d failed, %d skipped" % (harness.counts["passed"], harness.counts["failed"], harness.counts["skipped"]))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("build")
    p.add_argument("--dir", default=os.path.join(ROOT, "build", "full-size-models"))
    p.add_argument("--only", default="m3,l14,xl32")
    p.add_argument("--dtypes", default="int4,int8,bf16")
    p.add_argument("--draw", default="int4,int8,bf16", help="types in which pictures of 1024 tokens are drawn: minutes each")
    p.add_argument("--keep", default="", help="models that stay on the disk")
    p.add_argument("--results")
    ctx = p.parse_args()
    for key in ("keep", "dtypes", "draw"):
        setattr(ctx, key, [x for x in getattr(ctx, key).split(",") if x])
    ctx.dir = os.path.abspath(ctx.dir)
    for name in ctx.only.split(","):
        {"m3": run_m3, "l14": run_l14, "xl32": run_xl32}[name](ctx)
    report(ctx)
    return 1 if harness.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
