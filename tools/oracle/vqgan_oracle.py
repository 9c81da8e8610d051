#!/usr/bin/env python3
"""Goldens of model/vqgan*.c: the VQGAN of taming-transformers rebuilt in double precision, on random
weights that tests/model/test_vqgan.c makes alike. Two networks: `gumbel` (quantize.proj, attention on
its lowest level) and `plain` (nearest codebook entry, three levels, none).

    python tools/oracle/vqgan_oracle.py      writes tests/golden/vqgan
"""
import os

import torch
import torch.nn.functional as F
from torch import nn

from standard_weights import randomise, store
from weights import uniform

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/vqgan")
NETS = {
    "gumbel": dict(ch=32, mult=(1, 2), blocks=1, attn=(1,), z=16, codes=64, groups=8, grid=8),
    "plain": dict(ch=16, mult=(1, 1, 2), blocks=2, attn=(), z=8, codes=32, groups=4, grid=4),
}


class Res(nn.Module):
    def __init__(self, i, o, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, i, 1e-6), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, o, 1e-6), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attn(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        n = self.norm(x)
        q, k, v = (f(n).flatten(2) for f in (self.q, self.k, self.v))
        p = torch.softmax(q.transpose(1, 2) @ k * x.shape[1] ** -0.5, -1)
        return x + self.proj_out((v @ p.transpose(1, 2)).reshape(x.shape))


class Half(nn.Module):
    """Encoder (down) or decoder (up): conv_in, levels, mid, norm_out, conv_out."""

    def __init__(self, c, down):
        super().__init__()
        ch, top = c["ch"], len(c["mult"]) - 1
        low, self.is_down = ch * c["mult"][-1], down
        width = ch if down else low
        self.conv_in = nn.Conv2d(3 if down else c["z"], width, 3, padding=1)
        self.mid = nn.Module()
        levels = {}
        for i in range(top + 1) if down else reversed(range(top + 1)):
            level, out = nn.Module(), ch * c["mult"][i]
            n = c["blocks"] + (0 if down else 1)
            level.block = nn.ModuleList(Res(out if k else width, out, c["groups"]) for k in range(n))
            level.attn = nn.ModuleList(Attn(out, c["groups"]) for _ in range(n if i in c["attn"] else 0))
            width = out
            if i != (top if down else 0):
                change = nn.Module()
                change.conv = nn.Conv2d(out, out, 3, stride=2) if down else nn.Conv2d(out, out, 3, padding=1)
                setattr(level, "downsample" if down else "upsample", change)
            levels[i] = level
        setattr(self, "down" if down else "up", nn.ModuleList(levels[i] for i in range(top + 1)))
        self.mid.block_1, self.mid.block_2 = Res(low, low, c["groups"]), Res(low, low, c["groups"])
        self.mid.attn_1 = Attn(low, c["groups"])
        last = low if down else width
        self.norm_out = nn.GroupNorm(c["groups"], last, 1e-6)
        self.conv_out = nn.Conv2d(last, c["z"] if down else 3, 3, padding=1)

    def run_mid(self, x):
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))

    def run_level(self, level, x):
        for i, block in enumerate(level.block):
            x = block(x)
            if len(level.attn):
                x = level.attn[i](x)
        if hasattr(level, "downsample"):
            x = level.downsample.conv(F.pad(x, (0, 1, 0, 1)))
        if hasattr(level, "upsample"):
            x = level.upsample.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x

    def forward(self, x):
        x = self.conv_in(x)
        if self.is_down:
            for level in self.down:
                x = self.run_level(level, x)
            x = self.run_mid(x)
        else:
            x = self.run_mid(x)
            for level in reversed(self.up):
                x = self.run_level(level, x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    def __init__(self, c, plain):
        super().__init__()
        self.plain, z = plain, c["z"]
        self.encoder, self.decoder = Half(c, True), Half(c, False)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(z, z, 1), nn.Conv2d(z, z, 1)
        self.quantize = nn.Module()
        if plain:
            self.quantize.embedding = nn.Embedding(c["codes"], z)
        else:
            self.quantize.embed = nn.Embedding(c["codes"], z)
            self.quantize.proj = nn.Conv2d(z, c["codes"], 1)

    def scores(self, x):
        """Larger is better, [codes, grid * grid]."""
        z = self.quant_conv(self.encoder(x))
        if self.plain:
            return -torch.cdist(self.quantize.embedding.weight, z[0].flatten(1).T) ** 2
        return self.quantize.proj(z)[0].flatten(1)

    def render(self, codes, grid):
        table = (self.quantize.embedding if self.plain else self.quantize.embed).weight
        z = table[codes].T.reshape(1, -1, grid, grid)
        x = self.decoder(self.post_quant_conv(z))[0].permute(1, 2, 0)
        return ((x.clamp(-1, 1) + 1) / 2 * 255)


def golden(name, c):
    model = randomise(VQGAN(c, name == "plain"))
    grid, side = c["grid"], c["grid"] << (len(c["mult"]) - 1)
    rgb = torch.from_numpy((uniform("picture", side * side * 3) * 256).astype("uint8")).reshape(side, side, 3)
    codes = torch.from_numpy((uniform("codes", grid * grid) * c["codes"]).astype("int64"))
    with torch.no_grad():
        x = (rgb.float() / 255 * 2 - 1).double().permute(2, 0, 1)[None]
        scores = model.scores(x)
        levels = model.render(codes, grid)
    best = scores.topk(2, 0).values
    gap = (best[0] - best[1]).min().item()
    saturated = ((levels <= 0) | (levels >= 255)).double().mean().item()
    print("%s: smallest gap of the two best scores %.2g, %d codes used, %.0f %% of the samples clamped"
          % (name, gap, len(scores.argmax(0).unique()), 100 * saturated))
    assert gap > 1e-4, "a code would depend on rounding: change the weights"
    store(os.path.join(FOLDER, name + ".safetensors"), codes=scores.argmax(0),
          levels=levels)


def main():
    torch.set_num_threads(1)
    for name, c in NETS.items():
        golden(name, c)


main()
