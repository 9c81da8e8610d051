"""Procedural phantoms: seeded 64x64 grey pictures with known attributes.

Three kinds: `chest` (two dark lungs in a bright body), `brain` (skull ring,
ventricles) and `shapes` (one to four circles, squares or triangles).  Chest
and brain may carry one bright lesion: side and height are those of the image
as the viewer sees it.  The same seed always gives the same picture; seeds
below EVAL_SEED are for training, seeds from EVAL_SEED on are held out.
"""
import numpy as np

SIZE = 64
EVAL_SEED = 1_000_000
KINDS = ("chest", "brain", "shapes")
SHAPES = ("circle", "square", "triangle")
NUMBERS = ("zero", "one", "two", "three", "four")
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - (SIZE - 1) / 2


def _soft(d, width=1.0):
    """Signed distance (negative inside) -> coverage 0..1 with a soft edge."""
    return np.clip(0.5 - d / (2 * width), 0, 1)


def _ellipse(cx, cy, rx, ry, angle=0.0, width=1.0):
    c, s = np.cos(angle), np.sin(angle)
    x, y = _X - cx, _Y - cy
    u, v = (c * x + s * y) / rx, (-s * x + c * y) / ry
    return _soft((np.sqrt(u * u + v * v) - 1) * min(rx, ry), width)


def _smooth_noise(rng, cells):
    """Low-frequency noise in -1..1: a coarse random grid, bilinear upscaled."""
    g = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    t = np.linspace(0, cells, SIZE, endpoint=False)
    i, f = t.astype(int), (t - t.astype(int)).astype(np.float32)
    rows = g[i] * (1 - f)[:, None] + g[i + 1] * f[:, None]
    return rows[:, i] * (1 - f) + rows[:, i + 1] * f


def _blend(img, mask, value):
    return img * (1 - mask) + value * mask


def _lesion(rng, img, attr, dx, dy, value):
    """Add the bright lesion that `attr` asks for, about (+-dx, +-dy)."""
    if not attr["lesion"]:
        return img
    r = rng.uniform(3.0, 3.8) if attr["size"] == "small" else rng.uniform(6.8, 8.2)
    cx = (dx + rng.uniform(-1.5, 1.5)) * (-1 if attr["side"] == "left" else 1)
    cy = (dy + rng.uniform(-1.5, 1.5)) * (-1 if attr["height"] == "top" else 1)
    m = _ellipse(cx, cy, r * rng.uniform(0.9, 1.1), r * rng.uniform(0.9, 1.1),
                 rng.uniform(0, np.pi), 1.3)
    return _blend(img, m, value)


def _chest(rng, attr):
    img = np.full((SIZE, SIZE), rng.uniform(0.05, 0.12), np.float32)
    body = rng.uniform(0.52, 0.64)
    img = _blend(img, _ellipse(0, 6, rng.uniform(29, 31), rng.uniform(36, 39), 0, 2), body)
    tilt, lung = rng.uniform(0.05, 0.15), rng.uniform(0.12, 0.2)
    for side in (-1, 1):
        m = _ellipse(side * rng.uniform(12.5, 13.5), rng.uniform(-1, 1), rng.uniform(9, 10.2),
                     rng.uniform(21, 23.5), side * -tilt, 1.5)
        ribs = 0.5 + 0.5 * np.sin((_Y + side * 0.25 * _X) * 2 * np.pi / 8 + rng.uniform(0, 6))
        img = _blend(img, m, lung + 0.07 * ribs)
    img = _blend(img, _ellipse(0, 0, 2.4, 40, 0, 1.5), body + 0.16)
    img = _blend(img, _ellipse(rng.uniform(3, 5), rng.uniform(11, 13), 7.5, 9, -0.5, 1.5), body + 0.1)
    return _lesion(rng, img, attr, 13.5, 11.0, rng.uniform(0.82, 0.95))


def _brain(rng, attr):
    img = np.full((SIZE, SIZE), rng.uniform(0.02, 0.06), np.float32)
    a, rx, ry = rng.uniform(-0.06, 0.06), rng.uniform(23.5, 26), rng.uniform(28, 30)
    tissue = rng.uniform(0.34, 0.42)
    img = _blend(img, _ellipse(0, 0, rx, ry, a), rng.uniform(0.68, 0.8))
    img = _blend(img, _ellipse(0, 0, rx - 3, ry - 3, a), 0.1)
    inner = _ellipse(0, 0, rx - 5, ry - 5, a)
    img = _blend(img, inner, tissue)
    img += 0.05 * inner * _smooth_noise(rng, 9)
    img = _blend(img, _ellipse(0, 0, 0.9, ry - 6, a), tissue - 0.16)
    for side in (-1, 1):
        img = _blend(img, _ellipse(side * rng.uniform(3.8, 4.8), rng.uniform(-1, 1),
                                   2.4, rng.uniform(7, 8.5), side * 0.25), 0.1)
    return _lesion(rng, img, attr, 12.0, 11.5, rng.uniform(0.86, 1.0))


def _shapes(rng, attr):
    bg, fg = rng.uniform(0.04, 0.2), rng.uniform(0.65, 0.95)
    img = np.full((SIZE, SIZE), bg, np.float32)
    cells = [(-16, -16), (16, -16), (-16, 16), (16, 16)]
    for k in rng.permutation(4)[: attr["count"]]:
        cx, cy = (c + rng.uniform(-4, 4) for c in cells[k])
        r = rng.uniform(7.0, 9.5)
        if attr["shape"] == "circle":
            d = np.hypot(_X - cx, _Y - cy) - r
        elif attr["shape"] == "square":
            t = rng.uniform(-0.12, 0.12)
            u = np.cos(t) * (_X - cx) + np.sin(t) * (_Y - cy)
            v = -np.sin(t) * (_X - cx) + np.cos(t) * (_Y - cy)
            d = np.maximum(np.abs(u), np.abs(v)) - 0.9 * r
        else:  # upright triangle
            x, y = np.abs(_X - cx), _Y - cy - 0.15 * r
            d = np.maximum(y - 0.75 * r, 0.8944 * x - 0.4472 * (y + 1.25 * r))
        img = _blend(img, _soft(d), fg)
    return img


def random_attributes(rng, kind=None):
    """Draw the attributes of one phantom; all classes are equally likely."""
    kind = kind or str(rng.choice(KINDS))
    if kind == "shapes":
        return {"kind": kind, "shape": str(rng.choice(SHAPES)), "count": int(rng.integers(1, 5))}
    attr = {"kind": kind, "lesion": bool(rng.integers(2))}
    if attr["lesion"]:
        attr.update(side=str(rng.choice(("left", "right"))), height=str(rng.choice(("top", "bottom"))),
                    size=str(rng.choice(("small", "large"))))
    return attr


def render(attr, seed):
    """Attributes + seed -> uint8 [64, 64]."""
    rng = np.random.default_rng([seed, 77])
    img = {"chest": _chest, "brain": _brain, "shapes": _shapes}[attr["kind"]](rng, attr)
    img = 0.5 + (img - 0.5) * rng.uniform(0.85, 1.05) + rng.uniform(-0.04, 0.04)
    img = img + 0.015 * _smooth_noise(rng, 5) + rng.normal(0, rng.uniform(0.0, 0.02), img.shape)
    return (np.clip(img, 0, 1) * 255 + 0.5).astype(np.uint8)


def phantom(seed, kind=None):
    """One random phantom: (uint8 [64, 64], attributes)."""
    attr = random_attributes(np.random.default_rng([seed, 11]), kind)
    return render(attr, seed), attr


def phantom_set(first_seed, n):
    """n phantoms of seeds first_seed.. : (uint8 [n, 64, 64], list of attributes)."""
    pairs = [phantom(first_seed + i, KINDS[i % 3]) for i in range(n)]
    return np.stack([p[0] for p in pairs]), [p[1] for p in pairs]
