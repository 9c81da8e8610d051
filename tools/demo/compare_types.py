#!/usr/bin/env python3
"""What quantised weights cost on the demo model: `healthgpt batch` with every --dtype against f32.

usage: compare_types.py [--binary FILE] [--backend NAME] [--data DIR]      needs numpy and Pillow

Test X-rays are asked for pneumonia (accuracy, AUC of the yes/no logits, share of answers as under
f32), phantoms are asked about their attributes (share right; mean KL divergence of the next-token
distribution from f32's, over the tokens up to the first that differs, from the 20 best), X-rays are
reconstructed greedily (share of picture tokens equal)."""
import argparse
import json
import os
import subprocess
import tempfile

import numpy as np
from PIL import Image

import phantoms
import questions as qa

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TYPES = ("f32", "f16", "bf16", "int8", "fp8", "int4")


def run(args, dtype, requests):
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    command = [args.binary, "batch", "--dtype", dtype, "--backend", args.backend]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return {a["id"]: a for a in map(json.loads, done.stdout.splitlines())}


def save(folder, name, pixels):
    path = os.path.join(folder, name + ".png")
    Image.fromarray(pixels).save(path)
    return path


def make_requests(folder, images, n_phantoms, n_drawings):
    """X-ray questions, phantom questions with {id: right answer}, reconstructions."""
    paths = [save(folder, "x%d" % i, x) for i, x in enumerate(images)]
    xrays = [{"id": "t%d" % i, "task": "ask", "images": [p], "question": "Is there evidence of pneumonia?",
              "max_tokens": 8, "top_logprobs": 20} for i, p in enumerate(paths)]
    rng, asked, right = np.random.default_rng(99), [], {}
    for i in range(n_phantoms):
        pixels, attributes = phantoms.phantom(phantoms.EVAL_SEED + i, phantoms.KINDS[i % 3])
        path = save(folder, "p%d" % i, pixels)
        for kind in qa.kinds_for(attributes):
            question, answer, _ = qa.ask(rng, attributes, kind)
            right["p%d%s" % (i, kind)] = answer
            asked.append({"id": "p%d%s" % (i, kind), "task": "ask", "images": [path], "question": question,
                          "max_tokens": 48, "top_logprobs": 20})
    drawn = [{"id": "r%d" % i, "task": "draw", "images": [p], "question": "Reconstruct the image.", "seed": 0,
              "temperature": 0.0, "output": os.path.join(folder, "out.png")} for i, p in enumerate(paths[:n_drawings])]
    return xrays, asked, right, drawn


def divergence(p, q):
    """KL of two lists of best tokens; a token missing from q counts as q's last."""
    q = {t["id"]: t["logprob"] for t in q}
    low = min(q.values())
    return sum(np.exp(t["logprob"]) * (t["logprob"] - q.get(t["id"], low)) for t in p)


def divergences(a, b):
    for p, q in zip(a["top_logprobs"], b["top_logprobs"]):
        yield divergence(p, q)
        if p[0]["id"] != q[0]["id"]:
            return


def auc(score, y):
    """Of tied scores either order counts."""
    rank = np.argsort(np.argsort(score)) + 1.0
    n1, n0 = y.sum(), len(y) - y.sum()
    return (rank[y == 1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)


def margin(answer, yes, no):
    top = {t["id"]: t["logprob"] for t in answer["top_logprobs"][0]}
    low = min(top.values()) - 1
    return top.get(yes, low) - top.get(no, low)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default=os.path.join(ROOT, "build/healthgpt"))
    p.add_argument("--backend", default="cpu")
    p.add_argument("--data", default=os.environ.get("DEMO_DATA", os.path.join(ROOT, "../shared/data")))
    p.add_argument("--images", type=int, default=624)
    p.add_argument("--phantoms", type=int, default=120)
    p.add_argument("--drawings", type=int, default=24)
    args = p.parse_args()
    xray = np.load(os.path.join(args.data, "medmnist", "pneumoniamnist.npz"))
    y = xray["test_labels"][:args.images, 0]
    print("%-5s %9s %8s %7s  %14s %9s %7s  %12s" % ("type", "same y/n", "accuracy", "AUC", "phantoms right",
                                                  "KL/token", "tokens", "drawn equal"))
    with tempfile.TemporaryDirectory() as folder:
        xrays, asked, right, drawn = make_requests(folder, xray["test_images"][:args.images], args.phantoms,
                                                   args.drawings)
        base = None
        for dtype in TYPES:
            got = run(args, dtype, xrays + asked + drawn)
            base = base or got
            text = lambda a, r: a[r["id"]]["text"].strip()
            first = {text(base, r): base[r["id"]]["top_logprobs"][0][0]["id"] for r in xrays}
            score = np.array([margin(got[r["id"]], first["Yes"], first["No"]) for r in xrays])
            kl = [d for r in asked for d in divergences(base[r["id"]], got[r["id"]])]
            equal = [np.mean(np.equal(base[r["id"]]["indices"], got[r["id"]]["indices"])) for r in drawn]
            print("%-5s %9.4f %8.4f %7.4f  %14.4f %9.1e %7d  %12.3f" % (
                dtype, np.mean([text(got, r) == text(base, r) for r in xrays]),
                np.mean([text(got, r) == ("No", "Yes")[v] for r, v in zip(xrays, y)]), auc(score, y),
                np.mean([text(got, r) == right[r["id"]] for r in asked]), np.mean(kl), len(kl), np.mean(equal)),
                flush=True)


if __name__ == "__main__":
    main()
