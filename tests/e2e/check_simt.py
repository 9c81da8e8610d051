"""The CUDA kernels, emulated on the CPU (tests/simt), under the unchanged model and programs.

Rule: greedy tokens and seeded pictures equal those of the cpu backend, log probabilities agree within 2e-3; both
backends sum in fp32, in another order. With quantised weights an activation may fall on the other side of a rounding
point (a step of int8, of bf16 beside fp8), so log probabilities agree within 0.1; 4e-2 was measured."""
import json
import os
import subprocess

from harness import ROOT, Daemon, Skip, cli_ok, equal, is_sanitized, require, require_error

PICTURES = ["tests/data/demo/brain_left.png", "tests/data/demo/circles_3.png"]
LOGPROB_BOUND = 2e-3
QUANTISED_BOUND = 0.1


def needs_simt(build):
    if not os.path.exists(os.path.join(ROOT, build, "libhealthgpt_simt.so")):
        raise Skip("libhealthgpt_simt.so is not built")
    if is_sanitized(build):
        raise Skip("fibers under a sanitizer take minutes here; tests/kernels cover the kernels")


def both(build, *args):
    """The JSON reply on the cpu backend and on the emulated one."""
    return [json.loads(cli_ok(build, *args, "--json", "--backend", b)) for b in ("cpu", "simt")]


def worst_logprob(a, b):
    worst = 0.0
    for x, y in zip(a["top_logprobs"], b["top_logprobs"]):
        equal([t["id"] for t in y], [t["id"] for t in x], "ids of the best tokens")
        worst = max([worst] + [abs(s["logprob"] - t["logprob"]) for s, t in zip(x, y)])
    return worst


def check_cuda_kernels_answer_like_the_cpu_backend(build):
    needs_simt(build)
    worst = 0.0
    for image, question in zip(PICTURES, ("Describe the image.", "How many circles are there?")):
        cpu, simt = both(build, "ask", "--image", image, question, "--top-logprobs", "3")
        equal(simt["text"], cpu["text"], question)
        worst = max(worst, worst_logprob(cpu, simt))
    require(worst <= LOGPROB_BOUND, "log probabilities differ by %g" % worst)
    return "largest difference of a log probability %.1e" % worst


def check_quantised_weights_answer_alike_on_every_backend(build):
    needs_simt(build)
    worst = {}
    for kind in ("int8", "fp8", "int4"):
        cpu, simt, ref = (json.loads(cli_ok(build, "ask", "--image", PICTURES[0], "Describe the image.", "--json",
                                            "--top-logprobs", "3", "--dtype", kind, "--backend", b))
                          for b in ("cpu", "simt", "ref"))
        for other in (simt, ref):
            equal(other["text"], cpu["text"], kind)
            for x, y in zip(cpu["top_logprobs"], other["top_logprobs"]):
                logprob = {t["id"]: t["logprob"] for t in x}
                equal(y[0]["id"], x[0]["id"], kind + ": best token")
                far = [abs(t["logprob"] - logprob[t["id"]]) for t in y if t["id"] in logprob]
                worst[kind] = max([worst.get(kind, 0.0)] + far)
    require(max(worst.values()) <= QUANTISED_BOUND, "log probabilities differ by %r" % worst)
    return "largest differences of a log probability: " + ", ".join("%s %.1e" % w for w in worst.items())


def check_cuda_kernels_draw_the_same_picture(build):
    needs_simt(build)
    data = []
    for name, graphs in (("cpu", ""), ("simt", ""), ("simt", "0")):
        path = os.path.join(ROOT, build, "simt_check_%s%s.png" % (name, graphs))
        subprocess.run([os.path.join(ROOT, build, "healthgpt"), "draw", "--backend", name, "--seed", "7",
                        "Draw three circles.", "-o", path], cwd=ROOT, env=dict(os.environ, HG_CUDA_GRAPHS=graphs),
                       stdout=subprocess.PIPE, check=True)
        data.append(open(path, "rb").read())
    require(data[0] == data[1], "the pictures differ")
    require(data[1] == data[2], "the picture drawn without graphs differs")


def check_lost_device_ends_the_command_with_71(build):
    needs_simt(build)
    p = subprocess.run([os.path.join(ROOT, build, "healthgpt"), "ask", "--backend", "simt", "Who are you?"], cwd=ROOT,
                       env=dict(os.environ, HG_SIMT_FAULT="launch:40"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    equal(p.returncode, 71, "exit code: " + p.stderr.decode()[-300:])
    require(b"device error" in p.stderr, "the message names the device: " + p.stderr.decode()[-300:])


def check_no_device_is_explained(build):
    needs_simt(build)
    for fault in ("device", "driver"):
        p = subprocess.run([os.path.join(ROOT, build, "healthgpt"), "ask", "--backend", "simt", "Who are you?"],
                           cwd=ROOT, env=dict(os.environ, HG_SIMT_FAULT=fault), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        equal(p.returncode, 69, "exit code: " + p.stderr.decode()[-300:])
        require(fault.encode() in p.stderr, "%s: %s" % (fault, p.stderr.decode()[-300:]))


def check_lost_device_ends_the_daemon_with_71(build):
    """The request in flight gets an error object, later ones are refused, the supervisor sees exit code 71."""
    needs_simt(build)
    with Daemon(build, "--backend", "simt", env={"HG_SIMT_FAULT": "launch:60"}) as d:
        status, _, reply = d.post("/v1/vqa", {"question": "Who are you?"})
        require_error(status, reply, 500, "device_error")
        equal(d.process.wait(timeout=30), 71, "exit code")
        d.ended = True
