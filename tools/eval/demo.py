#!/usr/bin/env python3
"""`make eval`: the harness on the demo model. demo.py [--daemon FILE] [--data DIR] [--work DIR] [--limit N]

Starts healthgptd with the demo model on a free port, asks PneumoniaMNIST's test questions, its labels and its reconstructions
(from DIR/medmnist), and the question files of DIR/images/vqa with stand-in pictures; prints the tables.
"""
from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHARED = os.environ.get("HG_SHARED", os.path.join(ROOT, "..", "shared"))
VQA = (("vqa-rad", "vqa-rad_testset.json"), ("slake", "slake_test.json"), ("vqa-med-2019", "vqamed2019_test_w_answers.txt"))


def tool(*args: str) -> None:
    print("$ tools/eval %s" % " ".join(args), flush=True)
    code = subprocess.run([sys.executable, HERE, *args]).returncode
    if code:
        sys.exit(code)


def evaluate(url: str, data: str, work: str, limit: int) -> None:
    npz = os.path.join(data, "medmnist", "pneumoniamnist.npz")
    if not os.path.exists(npz):
        sys.exit("demo.py: %s is not there: MedMNIST v2's pneumoniamnist.npz, or --data DIR that has medmnist/" % npz)
    make = [sys.executable, os.path.join(HERE, "pneumonia_mnist.py"), npz, work] + ([str(limit)] if limit else [])
    subprocess.run(make, check=True)
    runs = [("questions", "jsonl", "questions.jsonl", ["--max-tokens", "8"]),
            ("labels", "chexpert", "chexpert.csv", ["--max-tokens", "8"]),
            ("reconstruct", "pairs", "reconstruct.jsonl", [])]
    jobs = [(name, ["--set", os.path.join(work, file), "--format", form, *more]) for name, form, file, more in runs]
    for form, file in VQA:
        path = os.path.join(data, "images", "vqa", file)
        if os.path.exists(path):
            jobs.append((form, ["--set", path, "--format", form, "--stand-in", "--limit", str(limit or 40)]))
    for name, args in jobs:
        out = os.path.join(work, name + ".results.jsonl")
        if os.path.exists(out):     # of an earlier time: a show begins at the beginning
            os.remove(out)
        tool("run", *args, "--url", url, "--out", out)
        tool("score", out, "--images", work, "--json", os.path.join(work, name + ".json"))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--daemon", default=os.path.join(ROOT, "build", "healthgptd"))
    p.add_argument("--data", default=os.path.join(SHARED, "data"))
    p.add_argument("--work", default=os.path.join(ROOT, "build", "eval"))
    p.add_argument("--limit", type=int, default=0)
    args = p.parse_args()
    os.makedirs(args.work, exist_ok=True)
    with open(os.path.join(args.work, "daemon.log"), "w") as log:
        daemon = subprocess.Popen([args.daemon, "--listen", "127.0.0.1:0", "--ops-listen", ""], stdout=subprocess.PIPE, stderr=log,
                                  text=True)
        try:
            line = daemon.stdout.readline()
            m = re.search(r"http://127\.0\.0\.1:\d+", line)
            if not m:
                sys.exit("demo.py: the daemon did not start: %r, see %s" % (line, log.name))
            evaluate(m.group(), args.data, args.work, args.limit)
        finally:
            daemon.terminate()
            daemon.wait(60)


if __name__ == "__main__":
    main()
