"""PneumoniaMNIST at 64x64 as the server sees it, augmentation and metrics."""
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import phantoms

N_PHANTOMS = 9000


def setup(seed):
    """One thread, seeded generators: every stage calls this first."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)


def cached(path, make):
    """Load a tensor dictionary from path, or make it and save it there."""
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        tmp = "%s.%d" % (path, os.getpid())
        torch.save(make(), tmp)
        os.replace(tmp, path)
    return torch.load(path, weights_only=False)


def upscale(images, size=64):
    """uint8 [n, h, w] -> uint8 [n, size, size], Pillow bicubic like the server."""
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.BICUBIC)) for i in images])


def load_xray(data_dir, work):
    """{'train_x': uint8 [n,64,64], 'train_28': .., 'train_y': int64 [n], ...}."""
    def make():
        z = np.load(os.path.join(data_dir, "medmnist", "pneumoniamnist.npz"))
        out = {}
        for s in ("train", "val", "test"):
            a = z[s + "_images"].reshape(-1, 28, 28)
            out[s + "_28"] = torch.from_numpy(a)
            out[s + "_x"] = torch.from_numpy(upscale(a))
            out[s + "_y"] = torch.from_numpy(z[s + "_labels"].reshape(-1).astype(np.int64))
        return out
    return cached(os.path.join(work, "xray.pt"), make)


def load_phantoms(work, n=N_PHANTOMS):
    """Training phantoms: {'x': uint8 [n,64,64], 'attr': list of dictionaries}."""
    def make():
        x, attr = phantoms.phantom_set(0, n)
        return {"x": torch.from_numpy(x), "attr": attr}
    return cached(os.path.join(work, "phantoms_%d.pt" % n), make)


def unit(x):
    """uint8 [n,h,w] -> float [n,1,h,w] in 0..1."""
    return x.float()[:, None] / 255


def gauss(w, s):
    x = torch.arange(w).float() - (w - 1) / 2
    g = torch.exp(-x * x / (2 * s * s))
    g = g / g.sum()
    return (g[:, None] * g[None])[None, None]


def ssim(a, b, w=11, s=1.5):
    """Per-image SSIM of [n,1,h,w] pictures in 0..1, Gaussian window."""
    k = gauss(w, s)
    f = lambda t: F.conv2d(t, k)
    ma, mb = f(a), f(b)
    va, vb, c = f(a * a) - ma * ma, f(b * b) - mb * mb, f(a * b) - ma * mb
    m = ((2 * ma * mb + 1e-4) * (2 * c + 9e-4)) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
    return m.mean((1, 2, 3))


def psnr(a, b):
    """Per-image PSNR of pictures in 0..1."""
    return -10 * torch.log10(((a - b) ** 2).flatten(1).mean(1).clamp_min(1e-10))


def auc(score, label):
    """Area under the ROC curve, ties averaged."""
    score, label = np.asarray(score, np.float64), np.asarray(label)
    _, inv, count = np.unique(score, return_inverse=True, return_counts=True)
    cum = np.cumsum(count)
    rank = (cum - (count - 1) / 2)[inv]
    n1, n0 = (label == 1).sum(), (label == 0).sum()
    return float((rank[label == 1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def warp(x, rot=0.17, scale=0.12, shift=0.16, flip=True):
    """Random rotation, scale, shift (and mirror) with border padding."""
    n = x.shape[0]
    r = lambda: torch.rand(n) * 2 - 1
    a, sc = r() * rot, 1 + r() * scale
    sx = torch.where(torch.rand(n) < (0.5 if flip else 0.0), -1.0, 1.0)
    th = torch.zeros(n, 2, 3)
    th[:, 0, 0], th[:, 0, 1] = torch.cos(a) * sc * sx, -torch.sin(a) * sc
    th[:, 1, 0], th[:, 1, 1] = torch.sin(a) * sc * sx, torch.cos(a) * sc
    th[:, 0, 2], th[:, 1, 2] = r() * shift, r() * shift
    grid = F.affine_grid(th, x.shape, align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def augment(x, flip=True, cut=0.4):
    """The strong augmentation for classification (x: [n,1,h,w] in 0..1)."""
    n, h = x.shape[0], x.shape[-1]
    r = lambda: (torch.rand(n) * 2 - 1)[:, None, None, None]
    x = warp(x, flip=flip)
    x = x.clamp(1e-4, 1) ** torch.exp(r() * 0.35)
    m = x.mean((2, 3), keepdim=True)
    x = (x - m) * (1 + r() * 0.3) + m + r() * 0.12
    k = gauss(5, 0.9 if h < 40 else 1.6)
    blur = F.conv2d(F.pad(x, (2,) * 4, mode="replicate"), k)
    al = (torch.rand(n) * 1.6 - 0.6).clamp(-0.5, 1)[:, None, None, None]
    x = x * (1 - al) + blur * al
    x = x + torch.randn_like(x) * (torch.rand(n) * 0.03)[:, None, None, None]
    if cut:
        for i in torch.nonzero(torch.rand(n) < cut)[:, 0].tolist():
            s = int(h * (0.1 + 0.25 * torch.rand(1)))
            u, v = torch.randint(0, h - s, (2,)).tolist()
            x[i, :, u:u + s, v:v + s] = torch.rand(1)
    return x.clamp(0, 1)


def mild(x):
    """Gentle augmentation for phantoms: nothing that changes an attribute."""
    n = x.shape[0]
    r = lambda: (torch.rand(n) * 2 - 1)[:, None, None, None]
    x = warp(x, 0.06, 0.05, 0.05, flip=False)
    x = x.clamp(1e-4, 1) ** torch.exp(r() * 0.15)
    return (x * (1 + r() * 0.1) + r() * 0.05 + torch.randn_like(x) * 0.015).clamp(0, 1)


class Clock:
    """Budget of a stage in CPU minutes, so that a busy machine does not shorten it.

    DEMO_UNTIL (seconds since the epoch) is a wall-clock end that comes first if it must.
    """

    def __init__(self, minutes):
        self.budget, self.start, self.cpu = minutes * 60, time.time(), time.process_time()
        self.wall = float(os.environ.get("DEMO_UNTIL", "inf")) - self.start

    def seconds(self):
        return time.process_time() - self.cpu

    def fraction(self, share=1.0):
        """Done part; `share`: the part of the wall time left that this run may use."""
        return max(self.seconds() / self.budget, (time.time() - self.start) / max(1.0, self.wall * share))


def cosine(step_frac, step, base, warm=100, floor=0.02):
    """Cosine schedule on the fraction of the time budget, linear warm-up."""
    return base * min(1, (step + 1) / warm) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step_frac, 1))))
