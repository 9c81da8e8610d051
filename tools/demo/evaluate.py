#!/usr/bin/env python3
"""Measure every target of the demo model through `healthgpt batch` (or its torch twin).

The requests are JSON lines; pictures are PNG files in a temporary folder.
The round trip of the VQGAN is measured in torch from the exported checkpoint.
"""
import argparse
import json
import os
import subprocess
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import judge
import phantoms
import plugins
import questions as qa
import torch_engine
import vqgan
from data import auc, load_phantoms, load_xray, psnr, setup, ssim, unit

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PNEUMONIA = "Is there evidence of pneumonia?"


class ServerEngine:
    """The C program: all lines in, all lines out."""

    def __init__(self, binary, model):
        self.command = [binary, "batch", "--model", model]

    def run(self, requests):
        lines = "".join(json.dumps(r) + "\n" for r in requests)
        done = subprocess.run(self.command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {a["id"]: a for a in answers}


class Bench:
    def __init__(self, engine, tmp):
        self.engine, self.tmp, self.rows, self.values = engine, tmp, [], {}

    def png(self, name, pixels):
        path = os.path.join(self.tmp, name + ".png")
        if not os.path.exists(path):
            Image.fromarray(np.asarray(pixels)).save(path)
        return path

    def show(self, metric, value, gate=None, goal=None, text="%.3f", low=False):
        """One line of the table; `low` means smaller is better."""
        better = lambda a, b: a <= b if low else a >= b
        mark = "" if gate is None else "goal" if better(value, goal) else "gate" if better(value, gate) else "MISSED"
        limit = lambda v: "-" if v is None else ("<= " if low else ">= ") + "%g" % v
        line = "%-58s %-10s %-10s %-10s %s" % (metric, limit(gate), limit(goal), text % value, mark)
        print(line, flush=True)
        self.rows.append({"metric": metric, "gate": gate, "goal": goal, "value": round(float(value), 5), "state": mark})

    def ask(self, items, plugin=None, max_tokens=48):
        """items: (id, image paths, question, expected) -> (right flags, texts, answers)."""
        reqs = [{"id": i, "task": "ask", "images": p, "question": q, "max_tokens": max_tokens, "top_logprobs": 20,
                 **({"plugin": plugin} if plugin else {})} for i, p, q, _ in items]
        got = self.engine.run(reqs)
        texts = [got[i].get("text", "").strip() for i, *_ in items]
        return np.array([t == e for t, (*_, e) in zip(texts, items)]), texts, [got[i] for i, *_ in items]

    def draw(self, items):
        """items: (id, image paths, question, seed, temperature) -> (pictures [n,1,64,64], indices)."""
        reqs = [{"id": i, "task": "draw", "images": p, "question": q, "seed": s, "temperature": t,
                 "output": os.path.join(self.tmp, "out_%s.png" % i)} for i, p, q, s, t in items]
        got = self.engine.run(reqs)
        read = lambda p: torch.from_numpy(np.asarray(Image.open(p).convert("L")).copy())
        x = torch.stack([read(got[r["id"]]["output"]) for r in reqs]).float()[:, None] / 255
        return x, torch.tensor([got[r["id"]]["indices"] for r in reqs])


def margin(answer, yes, no):
    """log p(Yes) - log p(No) of the first token; a token outside the top 20 counts as its last."""
    top = {t["id"]: t["logprob"] for t in answer["top_logprobs"][0]}
    low = min(top.values()) - 1
    return top.get(yes, low) - top.get(no, low)


def yes_no(b, d, tok, n):
    x, y = d["28"][:n], d["y"][:n].numpy()
    items = [("t%d" % i, [b.png("xray_%d" % i, x[i])], PNEUMONIA, ["No", "Yes"][y[i]]) for i in range(len(x))]
    right, texts, full = b.ask(items, max_tokens=8)
    yes, no = tok.answer("Yes")[0], tok.answer("No")[0]
    score = [margin(a, yes, no) for a in full]
    b.show("pneumonia yes/no accuracy, %d images" % len(x), right.mean(), 0.86, 0.90)
    b.show("  sensitivity", right[y == 1].mean(), 0.80, 0.87)
    b.show("  specificity", right[y == 0].mean(), 0.80, 0.87)
    b.show("  AUC of the yes/no logits", auc(score, y), 0.94, 0.965, "%.4f")
    b.show("  answer is Yes or No", np.mean([t in ("Yes", "No") for t in texts]))
    off, _, _ = b.ask([("o" + i, p, q, e) for i, p, q, e in items[:200]], "none", 8)
    b.show("  plug-in removed: share right (200 images)", off.mean())


def other_questions(b, d, n):
    rng = np.random.default_rng(99)
    items, kinds = [], []
    for i in range(n):
        k = i % 3
        pixels, attr = phantoms.phantom(d["phantoms"] + i, phantoms.KINDS[k])
        for kind in qa.kinds_for(attr):
            q, a, _ = qa.ask(rng, attr, kind)
            items.append(("p%d%s" % (i, kind), [b.png("ph_%d" % i, pixels)], q, a))
            kinds.append(kind)
    x, y = d["28"], d["y"]
    for i in range(0, len(x), max(1, len(x) // n)):
        for kind in ("modality", "organ", "real"):
            q, a, _ = qa.ask(rng, {"kind": "xray", "pneumonia": int(y[i])}, kind)
            items.append(("x%d%s" % (i, kind), [b.png("xray_%d" % i, x[i])], q, a))
            kinds.append(kind)
    right, texts, _ = b.ask(items)
    kinds = np.array(kinds)
    b.show("modality questions", right[kinds == "modality"].mean(), 0.97, 0.97)
    b.show("organ questions", right[kinds == "organ"].mean(), 0.97, 0.97)
    rest = ~np.isin(kinds, ("modality", "organ"))
    b.show("all other questions on phantoms", right[rest].mean(), 0.97, 0.97)
    for kind in sorted(set(kinds[rest])):
        b.show("  %s (%d)" % (kind, (kinds == kind).sum()), right[kinds == kind].mean())
    off, _, _ = b.ask([("o" + i, p, q, e) for i, p, q, e in items[::4]], "none")
    b.show("  plug-in removed: share right", off.mean())
    wrong = [(q, e, t) for ok, t, (_, _, q, e) in zip(right, texts, items) if not ok]
    print("  examples of wrong answers: %s" % wrong[:5])
    pairs = []
    for i in range(n // 2):
        kind, ka, kb = qa.pair_kind(rng)
        (pa, aa), (pb, ab) = (phantoms.phantom(d["phantoms"] + 50000 + 2 * i + j, k) for j, k in ((0, ka), (1, kb)))
        q, a, _ = qa.ask_pair(rng, aa, ab, kind)
        pairs.append(("d%d" % i, [b.png("pa_%d" % i, pa), b.png("pb_%d" % i, pb)], q, a))
    right, _, _ = b.ask(pairs)
    b.show("two-image questions (%d)" % len(pairs), right.mean(), 0.97, 0.97)
    fixed = [("k%d_%d" % (i, j), [], q, a) for i, (qs, a) in enumerate(qa.KNOWLEDGE) for j, q in enumerate(qs)]
    right, _, _ = b.ask(fixed)
    b.show("text-only questions (%d)" % len(fixed), right.mean())


def round_trip(b, codec, x):
    m, tokens = vqgan.measure(codec, x)
    b.show("VQGAN round trip PSNR, dB", m["psnr"], 30.5, 32.5, "%.2f")
    b.show("  SSIM", m["ssim"], 0.90, 0.93)
    b.show("  codebook perplexity", m["perplexity"], 128, 220, "%.0f")
    return tokens


def reconstruct(b, d, codec, tokens, n):
    x = unit(d["x"])[:n]
    r, idx = b.draw([("r%d" % i, [b.png("xray_%d" % i, d["28"][i])], "Reconstruct the image.", 0, 0.0) for i in range(n)])
    trip = codec.decode(tokens[:n])
    p, pt = psnr(r, x), psnr(trip, x)
    b.show("reconstruct PSNR vs original, dB (%d)" % n, p.mean(), 28, 30, "%.2f")
    b.show("  gap to the round trip, dB", (pt - p).mean(), 3.5, 2, "%.2f", low=True)
    b.show("  SSIM", ssim(r, x).mean(), 0.87, 0.91)
    b.show("  token accuracy", (idx == tokens[:n]).float().mean(), 0.30, 0.45)
    other = psnr(r, x.roll(1, 0)).mean()
    b.show("  own minus other image, dB", p.mean() - other, 8, 12, "%.2f")
    setup(5)
    for kind, question in (("noise", "Denoise the image."), ("super", "Increase the resolution of the image.")):
        m, items, seen = min(n, 128), [], []
        for i in range(m):
            y = unit(d["28"][i:i + 1])
            if kind == "super":
                y = F.interpolate(y, 14, mode="bicubic", antialias=True, align_corners=False)
            else:
                y = y + 0.12 * torch.randn_like(y)
            path = b.png("%s_%d" % (kind, i), (y[0, 0].clamp(0, 1) * 255).round().byte())
            seen.append(torch_engine.preprocess(path))
            items.append(("%s%d" % (kind, i), [path], question, 0, 0.0))
        r, _ = b.draw(items)
        b.show("%s PSNR gain over the input, dB" % question, (psnr(r, x[:m]) - psnr(torch.cat(seen), x[:m])).mean(), text="%.2f")


def drawings(b, d, codec, work, data_dir, n):
    cnn = judge.load_cnn(work, "judge")
    p, idx, pics = {}, {}, {}
    for name, question in (("with", "Draw a chest X-ray with pneumonia."), ("without", "Draw a chest X-ray without pneumonia.")):
        pics[name], idx[name] = b.draw([("%s%d" % (name, s), [], question, s, 0.9) for s in range(n)])
        p[name] = judge.score(cnn, judge.shrink(pics[name])).numpy()
    b.show("drawn, independent judge: AUC (%d per class)" % n, auc(np.r_[p["with"], p["without"]], np.r_[np.ones(n), np.zeros(n)]), 0.92, 0.98, "%.4f")
    b.show("  'with pneumonia' judged so", (p["with"] > 0.5).mean(), 0.75, 0.85)
    b.show("  'without pneumonia' judged so", (p["without"] <= 0.5).mean(), 0.75, 0.85)
    b.show("  paired order at equal seed", (p["with"] > p["without"]).mean(), 0.90, 0.97)
    train = plugins.load_tokens(data_dir, work)["t"].flatten(0, 1)   # the training pictures and their warped copies
    every = torch.cat(list(idx.values()))
    share = torch.stack([(i[None] == train).sum(1).max() for i in every])
    b.show("  most tokens shared with a training image", share.max(), 32, 20, "%d", low=True)
    flat = lambda v: F.interpolate(v, 28, mode="area").flatten(1)
    for c, name in ((1, "with"), (0, "without")):
        real = codec.decode(codec.encode(unit(d["x"][d["y"] == c][:100])))
        spread = (torch.pdist(flat(pics[name])).mean() / torch.pdist(flat(real)).mean()).item()
        b.show("  diversity '%s' relative to real ones" % name, spread, 0.6, 0.8)
    eye, rng, items, want = judge.load_phantom_judge(work), np.random.default_rng(4), [], []
    for i in range(90):
        item = phantoms.random_attributes(rng, phantoms.KINDS[i % 3])
        q = qa.draw_prompt(rng, item)
        want.append({k: v for k, v in item.items() if k in ("kind", "lesion", "shape", "count") or (k in ("side", "height", "size") and v in q)})
        items.append(("f%d" % i, [], q, i, 0.9))
    x, _ = b.draw(items)
    got = judge.name_phantoms(eye, judge.shrink(x))
    b.show("drawn phantoms: every named attribute right (90)", np.mean([all(g.get(k) == v for k, v in w.items()) for g, w in zip(got, want)]))
    return pics


def contact_sheet(pics, path):
    """Two rows with, two rows without pneumonia; marked as synthetic in the PNG."""
    from PIL.PngImagePlugin import PngInfo
    rows = [pics[k][j:j + 10, 0] for k in ("with", "without") for j in (0, 10)]
    frame = lambda t: F.pad(t, (0, 2, 0, 2), value=0.5)
    tile = torch.cat([F.pad(torch.cat([frame(t) for t in r], 1), (2, 0), value=0.5) for r in rows])
    im = Image.fromarray((F.pad(tile, (0, 0, 2, 0), value=0.5) * 255).round().byte().numpy())
    info = PngInfo()
    info.add_text("Description", "Synthetic images drawn by the HealthGPT demo model: rows 1-2 with, rows 3-4 without pneumonia. Not clinical data.")
    info.add_text("Synthetic", "true")
    im.resize((im.width * 2, im.height * 2), Image.NEAREST).save(path, pnginfo=info, optimize=True)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--model", default=os.path.join(ROOT, "config/models/demo"))
    a.add_argument("--engine", choices=("c", "torch"), default="c")
    a.add_argument("--binary", default=os.path.join(ROOT, "build/healthgpt"))
    a.add_argument("--data", default=os.environ.get("DEMO_DATA", os.path.join(ROOT, "../shared/data")))
    a.add_argument("--work", default=os.environ.get("DEMO_WORK", os.path.join(ROOT, "build/demo")))
    a.add_argument("--split", choices=("test", "val"), default="test", help="val: for choosing a seed; its phantoms differ too")
    a.add_argument("--images", type=int, default=624, help="images of the split to use")
    a.add_argument("--phantoms", type=int, default=150)
    a.add_argument("--seeds", type=int, default=64, help="drawings per class")
    a.add_argument("--only", default="", help="comma list of: yes_no, questions, vqgan, reconstruct, draw")
    a.add_argument("--sheet", help="write the contact sheet to this PNG")
    a.add_argument("--json", help="write the table to this file")
    a = a.parse_args()
    setup(0)
    xray, codec = load_xray(a.data, a.work), torch_engine.load_codec(a.model)
    d = {k: xray["%s_%s" % (a.split, k)] for k in ("28", "x", "y")}
    d["phantoms"] = phantoms.EVAL_SEED * (1 if a.split == "test" else 2)
    engine = torch_engine.TorchEngine(a.model) if a.engine == "torch" else ServerEngine(a.binary, a.model)
    want = lambda part: not a.only or part in a.only.split(",")
    with open(os.path.join(a.model, "llm", "tokenizer.model"), "rb") as f:
        tok = plugins.prompt.Tokenizer(f.read())
    with tempfile.TemporaryDirectory() as tmp:
        b = Bench(engine, tmp)
        print("%-58s %-10s %-10s %-10s %s" % ("metric", "gate", "goal", "measured", "reached"))
        if want("yes_no"):
            yes_no(b, d, tok, a.images)
        if want("questions"):
            other_questions(b, d, a.phantoms)
        if want("vqgan") or want("reconstruct"):
            tokens = round_trip(b, codec, unit(d["x"]))
        if want("reconstruct"):
            reconstruct(b, d, codec, tokens, min(a.images, len(d["x"])))
        if want("draw"):
            pics = drawings(b, d, codec, a.work, a.data, a.seeds)
            if a.sheet:
                contact_sheet(pics, a.sheet)
        size = sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(a.model) for f in fs)
        b.show("size of the model folder, MB", size / 1e6, 16, 12, "%.1f", low=True)
        if a.json:
            with open(a.json, "w") as f:
                json.dump({"engine": a.engine, "split": a.split, "rows": b.rows}, f, indent=1)


if __name__ == "__main__":
    main()
