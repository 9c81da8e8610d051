"""Training of the language model: base, then the two H-LoRA plug-ins on the frozen base."""
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import lm
import phantoms
import prompt
import questions as qa
import vit
import vqgan
from data import Clock, augment, cached, cosine, load_phantoms, load_xray, mild, setup, unit, warp
from judge import Average, load_cnn

PHANTOMS = 6000
COPIES = 4  # token copies of every X-ray: the picture itself and gently warped ones


def tokenizer(work):
    path = os.path.join(work, "tokenizer.model")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(prompt.train_tokenizer())
    with open(path, "rb") as f:
        return prompt.Tokenizer(f.read())


def load_tokens(data_dir, work, seed=0):
    """Index tokens and the pictures they come from, of X-rays (copies) and phantoms."""
    def make():
        setup(7)
        codec, d, ph = vqgan.load(work, seed)[0], load_xray(data_dir, work), load_phantoms(work)
        xt = unit(d["train_x"])
        sets = [xt] + [warp(xt, 0.07, 0.06, 0.06, flip=False) for _ in range(COPIES - 1)]
        byte = lambda x: (x[:, 0] * 255).round().byte()
        return {"x": torch.stack([byte(s) for s in sets]), "t": torch.stack([codec.encode(s) for s in sets]).short(),
                "y": d["train_y"], "px": ph["x"][:PHANTOMS], "pt": codec.encode(unit(ph["x"][:PHANTOMS])).short(),
                "attr": ph["attr"][:PHANTOMS]}
    return cached(os.path.join(work, "tokens_%d.pt" % seed), make)


class Run:
    """CPU-time budget, cosine schedule, weight average, progress lines."""

    def __init__(self, name, minutes, params, lr, log, every=60, decay=0.02, share=1.0):
        self.name, self.params, self.lr, self.log, self.every = name, list(params), lr, log, every
        self.clock, self.share = Clock(minutes), share
        self.opt = torch.optim.AdamW(self.params, lr, betas=(0.9, 0.95), weight_decay=decay)
        self.step, self.last, self.sums = 0, 0, {}

    def running(self):
        el, f = self.clock.seconds(), self.clock.fraction(self.share)
        for g in self.opt.param_groups:
            g["lr"] = cosine(f, self.step, self.lr)
        if el - self.last > self.every and self.sums:
            self.last = el
            self.log("%s: %ds step %d %s" % (self.name, el, self.step, " ".join(
                "%s %.3f" % (k, float(np.mean(v))) for k, v in self.sums.items())))
            self.sums = {}
        if f >= 1:
            self.log("%s: done, %d steps in %.0f CPU s" % (self.name, self.step, el))
        return f < 1

    def add(self, name, loss, share=1.0):
        """Backward of one part of the step."""
        (loss * share).backward()
        self.sums.setdefault(name, []).append(loss.item())

    def update(self):
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.opt.zero_grad()
        self.step += 1


def codes(t):
    """64 indices -> answer ids of a drawing."""
    return [prompt.IDX + int(i) for i in t] + [prompt.END_INDEX, prompt.END]


# ---- stage 0: the base language model ----------------------------------------------------
def any_item(rng):
    return {"kind": "xray", "pneumonia": int(rng.integers(2))} if rng.random() < 0.3 else phantoms.random_attributes(rng)


def base_text(rng, tok):
    """(prompt ids, answer ids): chat with answers that are right in form only, or plain text."""
    r = rng.random()
    if r < 0.2:
        text = " ".join(qa.sentence(rng) for _ in range(3))
        return [tok.mark], tok.sp.encode(prompt.MARK + text)[1:] + [prompt.N_PIECES]
    if r < 0.35:
        s = qa.sentence(rng)
        return prompt.prompt_ids(tok, "Repeat: " + s), tok.answer(s)
    if r < 0.45:
        return prompt.prompt_ids(tok, qa.pick(rng, qa.pick(rng, qa.KNOWLEDGE)[0])), tok.answer(qa.pick(rng, qa.IMAGE_FREE))
    if r < 0.6:
        k, a, b = qa.pair_kind(rng)
        q, _, pool = qa.ask_pair(rng, phantoms.random_attributes(rng, a), phantoms.random_attributes(rng, b), k)
    else:
        item = any_item(rng)
        q, _, pool = qa.ask(rng, item, qa.pick(rng, qa.kinds_for(item)))
    return prompt.prompt_ids(tok, q), tok.answer(qa.pick(rng, pool))


def train_base(data_dir, work, minutes, log=print, lr=2e-3):
    """Text, unlabelled index sequences, and repeating a given index sequence."""
    setup(20)
    rng, tok, tk = np.random.default_rng(20), tokenizer(work), load_tokens(data_dir, work)
    pool = torch.cat([tk["t"].flatten(0, 1), tk["pt"]])
    head = prompt.prompt_ids(tok, "x", 1)
    cut = head.index(-1)
    before, after = head[:cut], [prompt.prompt_ids(tok, q, 1, True)[cut + 64:] for q in ("Repeat the codes.", "Repeat the image codes.")]
    model = lm.LM()
    model.dropout = 0.05
    run = Run("base", minutes, model.parameters(), lr, log, decay=0.05)
    while run.running():
        model.train()
        run.add("text", lm.answer_loss(model, [base_text(rng, tok) for _ in range(24)]), 0.3)
        t = pool[torch.randint(0, len(pool), (20,))]
        run.add("codes", lm.answer_loss(model, [(prompt.prompt_ids(tok, qa.pick(rng, qa.ANY_IMAGE), 0, True), codes(i)) for i in t]), 0.4)
        t = pool[torch.randint(0, len(pool), (12,))]
        if run.step % 3 == 0:
            t = t[:, torch.randperm(64)]
        run.add("copy", lm.answer_loss(model, [(before + codes(i)[:64] + qa.pick(rng, after), codes(i)) for i in t]), 0.3)
        run.update()
    torch.save({"model": model.state_dict(), "step": run.step, "seconds": run.clock.seconds()}, os.path.join(work, "base.pt"))


def load_base(work):
    model = lm.LM()
    model.load_state_dict(torch.load(os.path.join(work, "base.pt"))["model"])
    # what the server holds: FP16 base weights
    for p in model.parameters():
        p.data = p.data.half().float()
        p.requires_grad_(False)
    return model.eval()


# ---- comprehension plug-in ---------------------------------------------------------------
XRAY_KINDS = ["pneumonia"] * 8 + ["clear"] * 3 + ["choice"] * 2 + ["finding"] * 2 + ["describe", "report", "modality", "organ", "real"]


HARD = ["choice"] * 4 + ["count"] * 2 + ["count_of"] * 3   # matching and counting need more practice than naming


class Comprehension:
    """Draws mixed batches for the comprehension plug-in."""

    def __init__(self, data_dir, work, rng, tok, tower):
        d, ph = load_xray(data_dir, work), load_phantoms(work)
        self.rng, self.tok, self.tower = rng, tok, tower
        self.x, self.y, self.px, self.attr = unit(d["train_x"]), d["train_y"], unit(ph["x"]), ph["attr"]
        self.by_class = [(self.y == c).nonzero()[:, 0] for c in (0, 1)]
        self.by_kind = {k: [i for i, a in enumerate(self.attr) if a["kind"] == k] for k in phantoms.KINDS}
        self.teacher = load_cnn(work, "teacher")

    def row(self, item, kind, ask, images):
        q, a, _ = ask(kind)
        return prompt.prompt_ids(self.tok, q, images), self.tok.answer(a)

    def xrays(self, n):
        """X-rays: labels are drawn from 0.35 truth + 0.65 teacher (soft labels by sampling)."""
        ix = torch.cat([c[torch.randint(0, len(c), (n // 2,))] for c in self.by_class])
        x = augment(self.x[ix])
        with torch.no_grad():
            soft = torch.sigmoid(self.teacher(F.interpolate(x, 28, mode="area"))[:, 0])
        p = 0.35 * self.y[ix].float() + 0.65 * soft
        items = [{"kind": "xray", "pneumonia": int(v)} for v in (torch.rand(n) < p)]
        rows = [self.row(it, qa.pick(self.rng, XRAY_KINDS), lambda k, it=it: qa.ask(self.rng, it, k), 1) for it in items]
        return rows, self.tower.features(x, -2)

    def kind(self, item):
        fit = qa.kinds_for(item)
        return qa.pick(self.rng, fit + [k for k in HARD if k in fit])

    def singles(self, n):
        ix = self.rng.integers(0, len(self.attr), n)
        items = [self.attr[i] for i in ix]
        rows = [self.row(it, self.kind(it), lambda k, it=it: qa.ask(self.rng, it, k), 1) for it in items]
        return rows, self.tower.features(mild(self.px[ix]), -2)

    def pairs(self, n):
        rows, ix = [], []
        for _ in range(n):
            k, *kinds = qa.pair_kind(self.rng)
            pair = [qa.pick(self.rng, self.by_kind[c]) for c in kinds]
            q, a, _ = qa.ask_pair(self.rng, self.attr[pair[0]], self.attr[pair[1]], k)
            rows.append((prompt.prompt_ids(self.tok, q, 2), self.tok.answer(a)))
            ix += pair
        return rows, self.tower.features(mild(self.px[ix]), -2)

    def captions(self, n):
        """Questions about a picture that is described in words: teaches to match options and to count without a picture."""
        rows = []
        for _ in range(n):
            item = any_item(self.rng)
            q, a, _ = qa.ask(self.rng, item, self.kind(item))
            rows.append((prompt.prompt_ids(self.tok, qa.describe(item) + " " + q), self.tok.answer(a)))
        return rows

    def texts(self, n):
        rows = []
        for _ in range(n):
            qs, a = qa.pick(self.rng, qa.KNOWLEDGE)
            rows.append((prompt.prompt_ids(self.tok, qa.pick(self.rng, qs)), self.tok.answer(a)))
        return rows


def each_equal(rows):
    """Every answer weighs the same however long it is."""
    return [1.0 / len(a) ** 0.7 for _, a in rows]


def text_tables(base):
    """The tables comprehension uses: base rows only."""
    t = lm.Tables(prompt.N_BASE)
    t.embed.weight.data, t.head.weight.data = (w.data[:prompt.N_BASE] for w in (base.tables.embed.weight, base.tables.head.weight))
    return t.requires_grad_(False)


def train_com(data_dir, work, seed, minutes, log=print, lr=2e-3):
    """Stage 1 (projector on captions), then H-LoRA + projector -> work/com_<seed>.pt."""
    setup(3000 + seed)
    rng, tok, base = np.random.default_rng(3000 + seed), tokenizer(work), load_base(work)
    tower, plug, tables = vit.load(work, seed)[0], lm.Plugin("com"), text_tables(base)
    src = Comprehension(data_dir, work, rng, tok, tower)
    loss = lambda rows, feats=None: lm.answer_loss(
        base, rows, None if feats is None else plug.mm_projector(feats), tables, each_equal(rows))
    run = Run("com %d align" % seed, 0.1 * minutes, plug.mm_projector.parameters(), 2e-3, log, share=0.1)
    while run.running():
        rows, feats = src.singles(16)
        run.add("phantoms", loss(rows, feats), 0.5)
        rows, feats = src.xrays(16)
        run.add("xrays", loss(rows, feats), 0.5)
        run.update()
    base.attach(plug)
    ema = Average(plug, 0.99)
    run = Run("com %d" % seed, 0.9 * minutes, plug.parameters(), lr, log)
    while run.running():
        for name, share, (rows, feats) in (("xrays", 0.4, src.xrays(20)), ("phantoms", 0.35, src.singles(28)), ("pairs", 0.15, src.pairs(10))):
            run.add(name, loss(rows, feats), share)
        run.add("text", loss(src.texts(4) + src.captions(8)), 0.15)
        run.update()
        ema.update(plug)
    torch.save({"model": ema.m.state_dict(), "step": run.step, "seconds": run.clock.seconds()}, os.path.join(work, "com_%d.pt" % seed))


# ---- generation plug-in ------------------------------------------------------------------
def degrade(x, kind, xray):
    """Pictures [n,1,64,64] -> what a user would send: noisy or low resolution, upscaled by the server."""
    small = 28 if xray else 64
    if kind == "super":
        y = F.interpolate(x, 14 if xray else 20, mode="bicubic", antialias=True, align_corners=False)
    elif kind == "noise":
        y = F.interpolate(x, small, mode="bicubic", antialias=True, align_corners=False) if xray else x
        y = y + torch.randn_like(y) * (0.04 + 0.14 * torch.rand(len(y)))[:, None, None, None]
    else:
        return x
    y = (y.clamp(0, 1) * 255).round() / 255
    if y.shape[-1] != 64:
        y = F.interpolate(y, 64, mode="bicubic", align_corners=False)
    return (y.clamp(0, 1) * 255).round() / 255


class Generation:
    """Draws mixed batches for the generation plug-in."""

    def __init__(self, data_dir, work, rng, tok, tower):
        self.tk, self.rng, self.tok, self.tower = load_tokens(data_dir, work), rng, tok, tower
        self.by_class = [(self.tk["y"] == c).nonzero()[:, 0] for c in (0, 1)]

    def images(self, n, xray):
        """Reconstruct (2/3), denoise and increase the resolution (1/6 each)."""
        tk = self.tk
        if xray:
            ix = torch.cat([c[torch.randint(0, len(c), (n // 2,))] for c in self.by_class])
            av = torch.randint(0, COPIES, (len(ix),))
            x, t = unit(tk["x"][av, ix]), tk["t"][av, ix]
        else:
            ix = torch.from_numpy(self.rng.integers(0, len(tk["pt"]), n))
            x, t = unit(tk["px"][ix]), tk["pt"][ix]
        kinds = self.rng.choice(["same", "noise", "super"], len(ix), p=[0.6, 0.2, 0.2])
        rows = []
        for i, k in enumerate(kinds):
            q = qa.pick(self.rng, {"same": qa.RECONSTRUCT, "noise": qa.DENOISE, "super": qa.SUPER}[str(k)])
            rows.append((prompt.prompt_ids(self.tok, q, 1, True), codes(t[i])))
        for k in ("noise", "super"):
            on = torch.from_numpy(kinds == k)
            if on.any():
                x[on] = degrade(x[on], k, xray)
        return rows, self.tower.features(x, 1)

    def drawings(self, n_xray, n_phantom):
        rows, tk = [], self.tk
        for c in (0, 1):
            ix = self.by_class[c][torch.randint(0, len(self.by_class[c]), (n_xray // 2,))]
            for i, a in zip(ix, torch.randint(0, COPIES, (len(ix),))):
                q = qa.draw_prompt(self.rng, {"kind": "xray", "pneumonia": c})
                rows.append((prompt.prompt_ids(self.tok, q, 0, True), codes(tk["t"][a, i])))
        for i in self.rng.integers(0, len(tk["pt"]), n_phantom):
            rows.append((prompt.prompt_ids(self.tok, qa.draw_prompt(self.rng, tk["attr"][i]), 0, True), codes(tk["pt"][i])))
        return rows


def train_gen(data_dir, work, seed, minutes, log=print, lr=2.5e-3):
    """Projector, fusion tables, H-LoRA + projector -> work/gen_<seed>.pt."""
    setup(4000 + seed)
    rng, tok, base = np.random.default_rng(4000 + seed), tokenizer(work), load_base(work)
    tower, plug, tables = vit.load(work, seed)[0], lm.Plugin("gen"), lm.Tables(prompt.V_FULL)
    tables.embed.weight.data.copy_(base.tables.embed.weight)
    tables.head.weight.data.copy_(base.tables.head.weight)
    src = Generation(data_dir, work, rng, tok, tower)

    def step(run, draw=True):
        for name, share, xray, n in (("rebuild xray", 0.4, True, 16), ("rebuild phantom", 0.2, False, 8)):
            rows, feats = src.images(n, xray)
            run.add(name, lm.answer_loss(base, rows, plug.mm_projector(feats), tables), share)
        if draw:
            run.add("draw", lm.answer_loss(base, src.drawings(14, 8), None, tables), 0.4)
        run.update()

    proj = list(plug.mm_projector.parameters())
    tables.requires_grad_(False)
    run = Run("gen %d align" % seed, 0.05 * minutes, proj, 2e-3, log, share=0.05)
    while run.running():
        step(run, draw=False)   # a drawing has no image rows: nothing for the projector to learn
    tables.requires_grad_(True)
    run = Run("gen %d fusion" % seed, 0.07 * minutes, proj + list(tables.parameters()), 1e-3, log, share=0.07)
    while run.running():
        step(run)
    tables.requires_grad_(False)
    for p in tables.parameters():
        p.data = p.data.half().float()
    base.attach(plug)
    ema = Average(plug, 0.99)
    run = Run("gen %d" % seed, 0.88 * minutes, plug.parameters(), lr, log)
    path = os.path.join(work, "gen_%d.pt" % seed)
    save = lambda: torch.save({"model": ema.m.state_dict(), "tables": tables.state_dict(), "step": run.step,
                               "seconds": run.clock.seconds()}, path)
    while run.running():
        step(run)
        ema.update(plug)
        if run.step % 300 == 0:
            save()
    save()


def load_plugin(work, kind, seed):
    ck = torch.load(os.path.join(work, "%s_%d.pt" % (kind, seed)))
    plug = lm.Plugin("gen" if kind == "gen" else "com")
    plug.load_state_dict(ck["model"])
    tables = None
    if kind == "gen":
        tables = lm.Tables(prompt.V_FULL)
        tables.load_state_dict(ck["tables"])
        tables.eval()
    return plug.eval(), tables
