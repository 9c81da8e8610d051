"""tools/gpu/check.py, the programme for a machine with a GPU, rehearsed on the emulation: its plan, its first stages,
its results file. It must never call what the emulation took a speed of a GPU."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.dom.minidom

import fake_card
from check_simt import needs_simt
from harness import ROOT, Skip, equal, require

STAGES = ["machine", "kernels", "offsets", "demo", "ceilings", "bench", "model", "image", "cublaslt", "sdpa", "torch", "sanitize",
          "parity", "fullshape", "dtypes", "ncu", "compiled", "l14", "torch_l14", "xl32"]
LINE = {"what", "value", "unit", "spread", "floor", "percent", "B", "ctx", "dtype", "adapters", "commit", "card", "driver", "clocks",
        "stage"}


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
    for name in ("kernel-bench", "random-model", "greedy"):
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


def made_up_pack(d):
    """A folder like build/gpu whose programs are fake_card.py; returns the environment that finds the rest."""
    for name in ("tools/gpu", "tests/run.py"):
        target = os.path.join(d, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(os.path.join(ROOT, name)):
            shutil.copytree(os.path.join(ROOT, name), target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(os.path.join(ROOT, name), target)
    with open(os.path.join(d, "COMMIT"), "w") as f:
        f.write("0123456789\n")
    with open(fake_card.__file__) as f:
        text = "#!%s\n" % sys.executable + f.read()
    tests = ["tests/kernels/" + n for n in ("test_embed", "test_offsets", "test_hlora")] + ["tests/parity/" + n for n in (
        "test_stories260k", "test_demo_parity", "test_pieces", "test_steps_ahead", "test_llm_parity")]
    for name in list(fake_card.PROGRAMS) + tests:
        path = os.path.join(d, "bin", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)
    return dict(os.environ, PATH=os.path.join(d, "bin") + os.pathsep + os.environ["PATH"],
                HG_TORCH_PYTHON=os.path.join(d, "bin", "torch-python"))


def check_every_line_gate_and_plot_of_a_made_up_card(build):
    """What only a card reaches: floors, tables, gates, one line per figure, the plot; and going on after an end."""
    with tempfile.TemporaryDirectory() as d:
        env = made_up_pack(d)
        command = [sys.executable, os.path.join(d, "tools", "gpu", "check.py"), "--results", os.path.join(d, "r"), "--only",
                   ",".join(s for s in STAGES if s != "demo"), "--scratch", os.path.join(d, "s")]
        runs = [subprocess.run(command + more, cwd=d, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
                for more in ([], ["--resume"])]
        text, again = (p.stdout.decode() for p in runs)
        equal([p.returncode for p in runs], [0, 0], "exit codes: " + text[-2500:])
        require("gpu-check cuda: 19 ok, 0 failed, 0 skipped" in text, text[-2500:])
        equal(again.count("done before"), 19, "stages that are not run again")
        for part in ("M3 bf16 B=1 step, ms", "2.80     3.1     2.4  gate", "not in this build: int4/kv auto", "mixed, batch 8: two steps",
                     "comprehension, batch 1: step 2.800 ms, its linears and attentions (at 1024) alone 4.160 ms"):
            require(part in text, "%r is missing: %s" % (part, text[-4000:]))
        name, = (n for n in os.listdir(os.path.join(d, "r")) if n.endswith(".json"))
        require(name.endswith("-Made_up_Card-0123456789.json"), name)
        with open(os.path.join(d, "r", name)) as f:
            lines = json.load(f)["lines"]
        for line in lines:
            equal(LINE - set(line), set(), "keys that a line lacks: %r" % line)
            equal((line["commit"], line["driver"], line["clocks"][0]), ("0123456789", "1.2.3", "1500 MHz"), "where from")
        equal({s for s in STAGES} - {line["stage"] for line in lines},
              {"machine", "kernels", "offsets", "demo", "ceilings", "sanitize", "parity", "fullshape", "ncu"}, "stages without lines")
        bars = xml.dom.minidom.parse(os.path.join(d, "r", name[:-5] + ".svg")).getElementsByTagName("rect")
        require(len(bars) > 40, "%d bars" % len(bars))
        return "%d lines, %d bars" % (len(lines), len(bars))
