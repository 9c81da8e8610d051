"""tools/gpu/check.py, the programme for a machine with a GPU, rehearsed on the emulation: its plan, its first stages,
its results file. It must never call what the emulation took a speed of a GPU."""
import json
import os
import subprocess
import sys
import tempfile

from check_simt import needs_simt
from harness import ROOT, Skip, equal, require

STAGES = ["machine", "kernels", "demo", "ceilings", "bench", "model", "images", "torch", "parity", "sanitize"]


def programme(*args, expect=0):
    p = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "gpu", "check.py"), "--backend", "simt", "--quick"] +
                       list(args), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    text = p.stdout.decode()
    equal(p.returncode, expect, "exit code: " + text[-1500:])
    return text


def needs_programs(build):
    needs_simt(build)
    if os.path.normpath(build) != os.path.join("build", "release"):
        raise Skip("the programme uses build/release")
    for name in ("kernel-bench", "random-model"):
        if not os.path.exists(os.path.join(ROOT, build, name)):
            raise Skip("%s is not built (make bench)" % name)


def check_plan_names_every_stage(build):
    needs_simt(build)
    with tempfile.TemporaryDirectory() as d:
        lines = programme("--plan", "--results", d).splitlines()
        equal([line.split()[0] for line in lines if "would run" in line], STAGES, "stages")
        equal(os.listdir(d), [], "a plan writes nothing")


def check_first_stages_run_and_are_resumed(build):
    needs_programs(build)
    with tempfile.TemporaryDirectory() as d:
        args = ("--results", d, "--scratch", d, "--only", "machine,kernels,ceilings,bench,model")
        first = programme(*args)
        require("gpu-check simt: 4 ok, 0 failed, 1 skipped" in first, first[-1500:])
        require("GB/s" not in first and "TB/s" not in first and "TFLOP" not in first, "a speed: " + first)
        name, = (n for n in os.listdir(d) if n.endswith(".json"))
        require("-simt_quick-" in name, name)
        with open(os.path.join(d, name)) as f:
            stages = json.load(f)["stages"]
        require(stages["bench"]["cases"] > 40 and stages["model"]["cases"] == 7, "cases: %r" % stages)
        again = programme(*args)
        equal(again.count("done before"), 4, "stages that are not run again")
        return "%d kernel cases, %d runs of a random model" % (stages["bench"]["cases"], stages["model"]["cases"])


def check_results_of_the_emulation_stay_out_of_bench(build):
    needs_simt(build)
    text = programme("--plan", "--results", os.path.join(ROOT, "bench", "results"), expect=2)
    require("do not belong" in text, text)


def check_kernel_tests_fail_when_the_device_is_missing(build):
    """A run on a GPU must not pass because nothing was opened."""
    needs_simt(build)
    p = subprocess.run([os.path.join(ROOT, build, "tests", "kernels", "test_embed")], cwd=ROOT, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, env=dict(os.environ, HG_TEST_BACKEND="simt", HG_SIMT_FAULT="device",
                                                          LD_LIBRARY_PATH=os.path.join(ROOT, build)))
    require(p.returncode != 0, "passed without a device: " + p.stdout.decode()[-500:])
