"""Small CNNs: the independent judge of drawings, the ViT's teacher, the phantom judge.

The judge and the teacher have the same form but different width and seed and
never see each other's output; both are trained on the real train split only.
"""
import copy
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from data import Clock, auc, augment, cosine, load_phantoms, load_xray, mild, setup, unit
from phantoms import KINDS, SHAPES


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.n = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.b, self.m = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        same = stride == 1 and i == o
        self.s = nn.Identity() if same else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        return F.relu(self.m(self.b(F.relu(self.n(self.a(x))))) + self.s(x))


class CNN(nn.Module):
    """Residual network for 28x28 pictures; `grid` keeps places apart."""

    def __init__(self, width=24, outputs=1, grid=1):
        super().__init__()
        w = width
        self.f = nn.Sequential(nn.Conv2d(1, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
                               Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2))
        self.grid, self.d, self.h = grid, nn.Dropout(0.3), nn.Linear(4 * w * grid * grid, outputs)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.f((x - 0.57) / 0.17), self.grid).flatten(1)
        return self.h(self.d(x))


class Average:
    """Exponential moving average of a model's weights."""

    def __init__(self, model, decay=0.995):
        self.m, self.decay, self.n = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model):
        self.n += 1
        de = min(self.decay, self.n / (self.n + 50))
        for p, q in zip(self.m.state_dict().values(), model.state_dict().values()):
            if p.dtype.is_floating_point:
                p.mul_(de).add_(q, alpha=1 - de)
            else:
                p.copy_(q)


def shrink(x):
    """[n,1,64,64] -> [n,1,28,28] the way drawings are shown to a judge."""
    return F.interpolate(x, 28, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


@torch.no_grad()
def score(model, x):
    """Pneumonia probability of [n,1,28,28]."""
    return torch.cat([torch.sigmoid(model(b)[:, 0]) for b in x.split(256)])


def train_cnn(data_dir, work, name, seed, width, minutes, log=print):
    """Pneumonia CNN on the 28x28 train split -> work/<name>.pt."""
    setup(seed)
    d = load_xray(data_dir, work)
    x28 = {s: unit(d[s + "_28"]) for s in ("train", "val", "test")}
    # half of the batches see the 64-pixel upscale shrunk again, as drawings are
    soft = torch.cat([shrink(b) for b in unit(d["train_x"]).split(512)])
    y = d["train_y"]
    i0, i1 = (y == 0).nonzero()[:, 0], (y == 1).nonzero()[:, 0]
    m = CNN(width)
    ema, opt = Average(m), torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    clock, step = Clock(minutes), 0
    while True:
        f = clock.fraction()
        if f >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = cosine(f, step, 1e-3)
        ix = torch.cat([i0[torch.randint(0, len(i0), (32,))], i1[torch.randint(0, len(i1), (32,))]])
        x = augment((x28["train"] if step % 2 else soft)[ix])
        m.train()
        with torch.autocast("cpu", torch.bfloat16):
            lo = m(x)[:, 0].float()
        loss = F.binary_cross_entropy_with_logits(lo, y[ix].float() * 0.95 + 0.025)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        ema.update(m)
        step += 1
    out = {}
    for s in ("val", "test"):
        p, t = score(ema.m, x28[s]), d[s + "_y"]
        out[s] = dict(acc=((p > 0.5) == (t == 1)).float().mean().item(), auc=auc(p, t))
    log("%s: %d steps, %s" % (name, step, out))
    torch.save({"model": ema.m.state_dict(), "width": width, "score": out}, os.path.join(work, name + ".pt"))


def load_cnn(work, name):
    ck = torch.load(os.path.join(work, name + ".pt"), weights_only=False)
    m = CNN(ck["width"])
    m.load_state_dict(ck["model"])
    return m.eval()


# ---- phantom judge: names what is drawn -------------------------------------------------
FIELDS = (("kind", KINDS), ("lesion", (False, True)), ("side", ("left", "right")), ("height", ("top", "bottom")),
          ("size", ("small", "large")), ("shape", SHAPES), ("count", (1, 2, 3, 4)))


def phantom_targets(attrs):
    """[n, fields] class numbers, -1 where the attribute does not apply."""
    return torch.tensor([[v.index(a[k]) if k in a else -1 for k, v in FIELDS] for a in attrs])


def field_loss(logits, target, fields=FIELDS):
    """Sum of the cross-entropies of all fields that apply."""
    total = 0
    for j, part in enumerate(logits.split([len(v) for _, v in fields], 1)):
        ok = target[:, j] >= 0
        if ok.any():
            total = total + F.cross_entropy(part[ok], target[ok, j]) * ok.float().mean()
    return total


def train_phantom_judge(work, seed, minutes, log=print):
    setup(seed)
    ph = load_phantoms(work)
    x, t = torch.cat([shrink(b) for b in unit(ph["x"]).split(512)]), phantom_targets(ph["attr"])
    m = CNN(16, sum(len(v) for _, v in FIELDS), 4)
    opt = torch.optim.AdamW(m.parameters(), 2e-3, weight_decay=0.02)
    clock, step, cut = Clock(minutes), 0, len(x) - 512
    while clock.fraction() < 1:
        for g in opt.param_groups:
            g["lr"] = cosine(clock.fraction(), step, 2e-3)
        ix = torch.randint(0, cut, (64,))
        loss = field_loss(m.train()(mild(x[ix])), t[ix])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
    torch.save(m.eval().state_dict(), os.path.join(work, "phantom_judge.pt"))
    got = name_phantoms(m, x[cut:])
    ok = sum(all(g.get(k) == v for k, v in a.items()) for g, a in zip(got, ph["attr"][cut:]))
    log("phantom judge: %d steps, all attributes right on %d of 512 held-out phantoms" % (step, ok))


def load_phantom_judge(work):
    m = CNN(16, sum(len(v) for _, v in FIELDS), 4)
    m.load_state_dict(torch.load(os.path.join(work, "phantom_judge.pt")))
    return m.eval()


@torch.no_grad()
def name_phantoms(model, x28):
    """Attributes the phantom judge sees in [n,1,28,28]."""
    parts = [p.argmax(1).tolist() for p in model(x28).split([len(v) for _, v in FIELDS], 1)]
    out = []
    for row in zip(*parts):
        a = {k: v[i] for (k, v), i in zip(FIELDS, row)}
        keep = ("kind", "shape", "count") if a["kind"] == "shapes" else ("kind", "lesion")
        keep += ("side", "height", "size") if a["kind"] != "shapes" and a["lesion"] else ()
        out.append({k: a[k] for k in keep})
    return out
