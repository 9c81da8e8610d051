"""What the stages share: running programs, the ways a stage can end."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests"))
from run import count, run_group  # noqa: E402,F401

LEAST_S = 5  # a stage does not start with less time


class Skip(Exception):
    """The stage cannot run here, and why."""


class Fail(Exception):
    def __init__(self, text, **data):
        super().__init__(text)
        self.data = data


def run(ctx, command, seconds, ours=True):
    """Output and exit code (None: out of time) of a program; `ours` gets the libraries of the pack."""
    env = ctx.environment() if ours else None
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
