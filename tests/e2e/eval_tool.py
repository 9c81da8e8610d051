"""What the checks of tools/eval share: calling it in this process, sets that are made up, scores."""
import contextlib
import importlib.util
import io
import json
import os
import re
import sys
import tempfile

from fake_vqa import text
from harness import ROOT, SHARED, equal, test_image

EVAL = os.path.join(ROOT, "tools", "eval")
sys.path.insert(0, EVAL)
VQA = os.path.join(SHARED, "data", "images", "vqa")


def load_main():
    spec = importlib.util.spec_from_file_location("eval_main", os.path.join(EVAL, "__main__.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def tool(*args, expect=0, main=[]):
    """(stdout, stderr) of a command of tools/eval, in this process: a start takes longer than most commands."""
    main = main or [load_main()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main[0](list(args))
    equal(code, expect, "exit code of %s: %s" % (args[:1], err.getvalue()[-800:]))
    return out.getvalue(), err.getvalue()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def lines_of(path):
    return [json.loads(line) for line in read(path).splitlines()]


def results_of(path):
    """What does not depend on the day: all but the header."""
    return read(path).split(b"\n", 1)[1]


def scored(*paths, args=()):
    out = paths[0] + ".score.json"
    tool("score", *paths, "--json", out, "--markdown", out + ".md", *args)
    with open(out) as f:
        doc = json.load(f)
    return doc, {(m["key"], m["group"]): m for m in doc["metrics"]}


class Set:
    """A folder with questions.jsonl and its pictures."""

    def __init__(self, docs):
        self.folder = tempfile.TemporaryDirectory()
        self.set = self.path("questions.jsonl")
        for name in sorted({n for d in docs for n in d.get("images", [d["image"]] if "image" in d else [])}):
            with open(self.path(name), "wb") as f:
                f.write(test_image(len(name)))
        with open(self.set, "w") as f:
            f.writelines(json.dumps(d) + "\n" for d in docs)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run(self, url, out="out", *args, expect=0):
        path = self.path(out)
        said = tool("run", "--set", self.set, "--format", "jsonl", "--url", url, "--out", path, *args, expect=expect)
        return path, said[1]


MIXED = [{"id": "q%d" % i, "image": "p.png", "question": "Question %d?" % i, **more} for i, more in enumerate(
    [{"answer": "Yes"}, {"answer": "left lung", "group": "g"}, {"answer": "C", "options": ["brain", "lung", "heart"], "group": "g"},
     {"answer": "no", "group": "h"}, {"answers": ["spine", "the back"]}, {"answer": "Left", "closed": True},
     {"labels": {"Edema": 1, "Fracture": 0}}, {"answer": "heart", "options": {"A": "heart", "B": "x"}, "group": "h"}] * 5)]
RIGHT = ["yes", "Left lung.", "C. heart", "No", "back", "on the left", "Edema. No fracture.", "heart"]


def number_of(body):
    return int(re.search(r"Question (\d+)\?", body["question"]).group(1))


def right(body, times):
    return text(RIGHT[number_of(body) % 8])
