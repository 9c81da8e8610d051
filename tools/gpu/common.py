"""What the stages share: running programs, the ways a stage can end, ceilings and shares."""
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests"))
from run import count, run_group  # noqa: E402,F401

LEAST_S = 5  # a stage does not start with less time


class Skip(Exception):
    """The stage cannot run here, and why."""


class Fail(Exception):
    def __init__(self, text, **data):
        super().__init__(text)
        self.data = data


def run(ctx, command, seconds, ours=True, more_env=None):
    """Output and exit code (None: out of time) of a program; `ours` gets the libraries of the pack."""
    env = dict(ctx.environment(), **(more_env or {})) if ours else None
    return run_group([str(c) for c in command], max(LEAST_S, min(seconds, ctx.left())), env=env, cwd=ctx.home)


def must(ctx, command, seconds, ours=True):
    text, code = run(ctx, command, seconds, ours)
    if code != 0:
        raise Fail("%s: exit %s: %s" % (os.path.basename(str(command[0])), code, text.strip()[-600:]))
    return text


def json_lines(text):
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                pass  # cut off by a time limit
    return found


def rehearsed(n, what):
    return {"note": "%d %s ran on the emulation; times thrown away" % (n, what), "cases": n}


def python_with_torch(ctx):
    """A Python whose torch sees the card; on the emulation any torch ($HG_TORCH_PYTHON is tried first)."""
    test = "import torch" if ctx.simt else "import torch; assert torch.cuda.is_available()"
    if ctx.torch_python is None:
        found = ""
        for python in dict.fromkeys((os.environ.get("HG_TORCH_PYTHON", ""), sys.executable, shutil.which("python3") or "")):
            if python and not found and run(ctx, [python, "-c", test], 90, ours=False)[1] == 0:
                found = python
        ctx.torch_python = found
    return ctx.torch_python or None


# ---- floors --------------------------------------------------------------------------------------------

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
