"""The stages of check.py that ask: is it right? measure.py and models.py have those that ask: how fast?"""
import concurrent.futures
import glob
import json
import os
import platform
import shutil
import tempfile

import measure
import models
from common import LEAST_S, Fail, Skip, count, json_lines, must, run  # noqa: F401

# Not of this backend.
ELSEWHERE = ("test_cpu_panels", "test_cpu_simd", "test_cpu_threads", "test_oom", "test_cuda_faults", "test_cuda_gemm",
             "test_cuda_pool")
OFFSETS = "test_offsets"
QUICK = {"test_layernorm", "test_embed", "test_argmax"}
PICTURES = (("tests/data/demo/brain_left.png", "Describe the image."),
            ("tests/data/demo/circles_3.png", "How many circles are there?"))
LOGPROB_BOUND = 2e-3  # both backends sum in fp32, in another order
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = ("test_layernorm", "test_embed", "test_argmax", "test_rope_kv", "test_hlora", "test_attention_full")
SMI = ("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.mem", "clocks.max.sm",
       "clocks.max.mem", "power.limit", "temperature.gpu", "ecc.mode.current")


CLOCKS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def smi(ctx, fields):
    tool = shutil.which("nvidia-smi")
    if not tool:
        return None
    text, code = run(ctx, [tool, "--query-gpu=" + ",".join(fields), "--format=csv,noheader"], 30, ours=False)
    return [v.strip() for v in text.strip().splitlines()[0].split(",")] if code == 0 and text.strip() else None


def clocks(ctx):
    """What the card runs at now, right after a measurement."""
    values = smi(ctx, CLOCKS)
    return dict(zip(CLOCKS, values)) if values else None


def card_name(ctx):
    names = smi(ctx, ("name",))
    if names:
        return names[0]
    text, code = run(ctx, [ctx.program("gpu-peak")], 60)
    return json_lines(text)[0]["card"] if code == 0 else "unknown"


def machine(ctx):
    """the card, its driver and clocks, the host"""
    with open("/proc/meminfo") as f:
        memory = f.readline().split()[1]
    host = {"cpus": os.cpu_count(), "memory_gb": int(memory) >> 20, "kernel": platform.release(),
            "python": platform.python_version(), "libc": " ".join(platform.libc_ver())}
    if ctx.simt:
        return {"host": host, "note": "the CPU emulation, %d cpus" % host["cpus"]}
    values = smi(ctx, SMI)
    card = dict(zip(SMI, values)) if values else {"name": card_name(ctx)}
    if card["name"] == "unknown":
        raise Fail("no card: neither nvidia-smi nor the runtime finds one", host=host)
    return {"host": host, "card": card, "note": ", ".join("%s %s" % v for v in card.items())}


# ---- kernels and parity programs -----------------------------------------------------------------------

def run_tests(ctx, paths, seconds, workers):
    """Run cmocka programs, all on the chosen backend; fails when one fails or none passes."""
    def one(path):
        text, code = run(ctx, [path], seconds)
        return path, text, count(text, code)
    programs, sums, bad = {}, [0, 0, 0], []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for path, text, result in pool.map(one, paths):
            name = os.path.basename(path)
            programs[name] = {"passed": result[0], "failed": result[1], "skipped": result[2]}
            sums = [a + b for a, b in zip(sums, result)]
            if result[1]:
                bad.append(name)
                programs[name]["output"] = text[-4000:]
                print("---- %s\n%s" % (name, text[-2500:]), flush=True)
    note = "%d programs: %d passed, %d failed, %d skipped" % ((len(paths),) + tuple(sums))
    if bad or not sums[0]:
        raise Fail(note + "; failed: " + (", ".join(bad) or "nothing has passed"), programs=programs)
    return {"note": note, "programs": programs}


def tests_env_is_tap():
    os.environ["CMOCKA_MESSAGE_OUTPUT"] = "TAP"


def kernels(ctx):
    """every kernel test against ref on the backend, which must open"""
    tests_env_is_tap()
    paths = sorted(p for p in glob.glob(ctx.program("tests/kernels/test_*")) if os.access(p, os.X_OK) and "." not in
                   os.path.basename(p) and os.path.basename(p) not in ELSEWHERE + (OFFSETS,))
    if ctx.quick:
        paths = [p for p in paths if os.path.basename(p) in QUICK]
    return run_tests(ctx, paths, 900 if ctx.simt else 240, 2 if ctx.simt else 6)


def offsets(ctx):
    """a weight and a cache of more than 2^31 elements, used at both ends"""
    tests_env_is_tap()
    os.environ["HG_TEST_LARGE"] = "0" if ctx.simt else "1"
    result = run_tests(ctx, [ctx.program("tests/kernels/" + OFFSETS)], 200, 1)
    return dict(result, note=result["note"] + ("; small ones: a rehearsal, it proves nothing" if ctx.simt else ""))


def parity(ctx):
    """demo, random tiny models and stories260K against PyTorch's goldens; mixed batches and pictures in pieces bit for bit"""
    tests_env_is_tap()
    if ctx.quick:
        raise Skip("quick: minutes on the emulation")
    names = ("test_stories260k", "test_demo_parity", "test_pieces", "test_steps_ahead", "test_llm_parity")
    if ctx.simt:
        names = names[:2]  # the rest is part of make test-simt-full
    os.environ["HEALTHGPT_GPU_MEMORY_UTILIZATION"] = "0.1"  # three programs share the card
    try:
        return run_tests(ctx, [ctx.program("tests/parity/" + n) for n in names], 1200 if ctx.simt else 300, 3)
    finally:
        del os.environ["HEALTHGPT_GPU_MEMORY_UTILIZATION"]


# ---- the demo model ----------------------------------------------------------------------------------

def demo(ctx, backend, *args, stdin=None):
    command = [ctx.program("healthgpt"), args[0], "--model", os.path.join(ctx.home, "config/models/demo"),
               "--backend", backend] + list(args[1:])
    if stdin is None:
        return must(ctx, command, 180)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write(stdin)
        f.flush()
        return must(ctx, ["sh", "-c", 'f=$1; shift; exec "$@" < "$f"', "sh", f.name] + command, 300)


def ask_like_cpu(ctx):
    worst = 0.0
    for image, question in PICTURES[:1] if ctx.quick else PICTURES:
        cpu, ours = (json.loads(demo(ctx, b, "ask", "--image", image, question, "--top-logprobs", "3", "--json")
                                .splitlines()[-1]) for b in ("cpu", ctx.backend))
        if cpu["text"] != ours["text"]:
            raise Fail("%r: cpu says %r, %s says %r" % (question, cpu["text"], ctx.backend, ours["text"]))
        for a, b in zip(cpu["top_logprobs"], ours["top_logprobs"]):
            if [t["id"] for t in a] != [t["id"] for t in b]:
                raise Fail("%r: other best tokens than on the cpu" % question)
            worst = max([worst] + [abs(s["logprob"] - t["logprob"]) for s, t in zip(a, b)])
    if not worst <= LOGPROB_BOUND:
        raise Fail("log probabilities differ by %g, at most %g" % (worst, LOGPROB_BOUND))
    return "answers equal the cpu's, log probabilities within %.1e" % worst


def draw_like_cpu(ctx):
    indices, data = [], []
    with tempfile.TemporaryDirectory() as d:
        for b in ("cpu", ctx.backend):
            path = os.path.join(d, b + ".png")
            reply = demo(ctx, b, "draw", "--seed", "7", "Draw three circles.", "-o", path, "--json")
            indices.append(json.loads(reply.splitlines()[-1])["indices"])
            data.append(open(path, "rb").read())
    differ = sum(a != b for a, b in zip(*indices))
    if differ:
        raise Fail("the picture: %d of %d index tokens differ from the cpu's" % (differ, len(indices[0])))
    return "a drawing has the cpu's index tokens, its PNG is %s" % ("equal" if data[0] == data[1] else "NOT equal")


def batch(ctx, lines, backend, size):
    text = demo(ctx, backend, "batch", "--max-batch", str(size), stdin="".join(json.dumps(v) + "\n" for v in lines))
    return json_lines(text)


def batch_alone(ctx):
    """8 mixed requests together and one by one: the same bytes."""
    with tempfile.TemporaryDirectory() as d:
        lines = []
        for i in range(4):
            lines.append({"id": "a%d" % i, "task": "ask", "images": [PICTURES[i % 2][0]], "question": "What is shown?",
                          "max_tokens": 6 + 5 * i, "top_logprobs": 3, "temperature": 0.7, "seed": i})
            lines.append({"id": "d%d" % i, "task": "draw", "question": "Draw a chest X-ray.", "seed": i,
                          "temperature": 0.9, "output": os.path.join(d, "%d.png" % i)})
        results = []
        for size in (8, 1):
            replies = batch(ctx, lines, ctx.backend, size)
            if len(replies) != 8 or any("error" in r for r in replies):
                raise Fail("batch of %d: %r" % (size, replies))
            results.append((replies, [open(os.path.join(d, "%d.png" % i), "rb").read() for i in range(4)]))
    if results[0] != results[1]:
        raise Fail("a request's reply depends on its batch", together=results[0][0], alone=results[1][0])
    return "8 mixed requests: the same bytes together and alone"


def selftest(ctx):
    with open(os.path.join(ctx.home, "config/models/demo/selftest.jsonl")) as f:
        lines = [json.loads(line) for line in f]
    cpu, ours = (batch(ctx, lines, b, 16) for b in ("cpu", ctx.backend))
    differ = [line["id"] for line, a, b in zip(lines, cpu, ours) if a.get("text") != b.get("text")]
    right = sum(r.get("text", "").strip() == line["expect"] for r, line in zip(ours, lines))
    if differ or len(ours) != len(lines):
        raise Fail("selftest: %d of %d replies, other texts than the cpu: %s" % (len(ours), len(lines), differ))
    return "selftest: %d of %d right, all as on the cpu" % (right, len(lines))


def end_to_end(ctx):
    """the demo model asked, drawing and in batches, against the cpu backend"""
    notes, bad = [], []
    for part in (ask_like_cpu,) if ctx.quick else (ask_like_cpu, draw_like_cpu, batch_alone, selftest):
        try:
            notes.append(part(ctx))
        except Fail as e:
            bad.append(str(e))
    if bad:
        raise Fail("; ".join(bad), passed=notes)
    return {"note": "; ".join(notes), "checks": notes}


# ---- sanitizers ----------------------------------------------------------------------------------------

def find_sanitizer():
    places = [shutil.which("compute-sanitizer") or ""] + sorted(glob.glob("/usr/local/cuda*/bin/compute-sanitizer"))
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def sanitize(ctx):
    """compute-sanitizer over small kernel tests"""
    tool = None if ctx.simt else find_sanitizer()
    if not tool:
        raise Skip("memory errors are found by the emulation's own tests" if ctx.simt else "compute-sanitizer is not installed")
    found, bad, cut = {}, [], 0

    def one(job):
        return job, run(ctx, [tool, "--tool", job[0], "--error-exitcode", "9", ctx.program("tests/kernels/" + job[1])], 100,
                        more_env={"HG_CUDA_POOL": "0"})  # each allocation its own, so that its ends are seen
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for (kind, name), (text, code) in pool.map(one, [(k, n) for n in SANITIZED for k in SANITIZERS]):
            state = "clean" if code == 0 else "out of time" if code is None else "exit %d" % code
            cut += code is None
            found["%s %s" % (kind, name)] = state if code in (0, None) else state + "\n" + text[-3000:]
            if code not in (0, None):
                bad.append("%s %s" % (kind, name))
    note = "%d runs clean, %d out of time" % (len(found) - len(bad) - cut, cut)
    if bad:
        raise Fail(note + "; errors: " + ", ".join(bad), runs=found)
    if cut == len(found):
        raise Skip("every run was out of time")
    return {"note": note, "runs": found}


def prepare(ctx, names):
    """Start what takes time beside the first stages."""
    if M3_STAGES & set(names):
        models.start(ctx, "m3")


def clean_up(ctx):
    models.stop(ctx)


M3_STAGES = {"model", "image", "dtypes", "fullshape"}
# (name, function, most seconds on a card). The first ten minutes bring what matters most; the same command goes on.
ALL = (("machine", machine, 30), ("kernels", kernels, 240), ("offsets", offsets, 200), ("demo", end_to_end, 180),
       ("ceilings", measure.ceilings, 120), ("bench", measure.kernel_bench, 200), ("model", models.model, 240),
       ("image", models.image, 90), ("cublaslt", measure.cublaslt, 120), ("sdpa", measure.sdpa, 90),
       ("torch", measure.torch, 180), ("sanitize", sanitize, 240), ("parity", parity, 240), ("fullshape", models.fullshape, 300),
       ("dtypes", models.dtypes, 300), ("ncu", measure.ncu, 120), ("compiled", measure.compiled, 240), ("l14", models.l14, 300),
       ("torch_l14", measure.torch_l14, 180), ("xl32", models.xl32, 180))
# How much longer the emulation may take.
SIMT_FACTOR = 6

