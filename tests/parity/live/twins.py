"""H-LoRA, projector and VQGAN in PyTorch, written from reference.md 6, 8.5 and 10 alone."""
import torch
import torch.nn.functional as F
from torch import nn


class HLora(nn.Module):
    """A Linear with plug-ins, as the reference wraps it; `active` chooses one, None: the base alone.

    y = Wx + b + B (g * (A x) * alpha / r * k), expert e owns r / k columns, g = softmax over experts in fp32."""

    def __init__(self, base, plugs):
        super().__init__()
        self.base, self.active = base, None
        self.scaling = {}
        for slot, (a, b, route, alpha) in plugs.items():
            for name, w in (("A", a), ("B", b), ("R", route)):
                self.register_parameter("%s%d" % (name, slot), nn.Parameter(w.clone()))
            self.scaling[slot] = alpha / a.shape[0] * route.shape[0]

    def forward(self, x):
        y = self.base(x)
        if self.active is None:
            return y
        a, b, r = (getattr(self, "%s%d" % (n, self.active)) for n in "ABR")
        gate = torch.softmax(F.linear(x, r), -1, dtype=torch.float32).to(x.dtype)
        z = F.linear(x, a) * self.scaling[self.active]
        return y + F.linear(gate.repeat_interleave(a.shape[0] // r.shape[0], -1) * z, b)


def projector(w, x):
    y = F.linear(x, w["model.mm_projector.0.weight"], w["model.mm_projector.0.bias"])
    return F.linear(F.gelu(y), w["model.mm_projector.2.weight"], w["model.mm_projector.2.bias"])


class VQGAN:
    """GumbelVQ on a state dict w, in the type of its tensors. shape: ch, mult, blocks, attn (levels), z, codes, groups."""

    def __init__(self, w, shape):
        self.w, self.s = w, shape

    def conv(self, name, x, stride=1, padding=0):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], stride, padding)

    def norm(self, name, x):
        return F.group_norm(x, self.s["groups"], self.w[name + ".weight"], self.w[name + ".bias"], 1e-6)

    def swished(self, name, x):
        x = self.norm(name, x)
        return x * torch.sigmoid(x)

    def res(self, p, x):
        h = self.conv(p + ".conv1", self.swished(p + ".norm1", x), padding=1)
        h = self.conv(p + ".conv2", self.swished(p + ".norm2", h), padding=1)
        return (self.conv(p + ".nin_shortcut", x) if p + ".nin_shortcut.weight" in self.w else x) + h

    def attn(self, p, x):
        n = self.norm(p + ".norm", x)
        q, k, v = (self.conv("%s.%s" % (p, m), n).flatten(2) for m in "qkv")
        score = torch.einsum("bci,bcj->bij", q, k) * x.shape[1] ** -0.5
        out = torch.einsum("bcj,bij->bci", v, score.softmax(-1)).reshape(x.shape)
        return x + self.conv(p + ".proj_out", out)

    def mid(self, p, x):
        return self.res(p + ".mid.block_2", self.attn(p + ".mid.attn_1", self.res(p + ".mid.block_1", x)))

    def blocks(self, p, n, level, x):
        for i in range(n):
            x = self.res("%s.block.%d" % (p, i), x)
            if level in self.s["attn"]:
                x = self.attn("%s.attn.%d" % (p, i), x)
        return x

    def levels(self, codes, grid):
        """Samples [side, side, 3] on 0..255 before truncation."""
        x = self.w["quantize.embed.weight"][codes].T.reshape(1, -1, grid, grid)
        x = self.mid("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", x), padding=1))
        for i in reversed(range(len(self.s["mult"]))):
            x = self.blocks("decoder.up.%d" % i, self.s["blocks"] + 1, i, x)
            if i:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv("decoder.up.%d.upsample.conv" % i, x, padding=1)
        x = self.conv("decoder.conv_out", self.swished("decoder.norm_out", x), padding=1)
        return ((x.clamp(-1, 1) + 1) / 2 * 255)[0].permute(1, 2, 0)

    def scores(self, rgb):
        """rgb [side, side, 3] 0..255 -> [codes, grid * grid]: their argmax is the deterministic counterpart of the Gumbel draw."""
        x = (rgb / 255 * 2 - 1).permute(2, 0, 1)[None]
        x, top = self.conv("encoder.conv_in", x, padding=1), len(self.s["mult"]) - 1
        for i in range(top + 1):
            x = self.blocks("encoder.down.%d" % i, self.s["blocks"], i, x)
            if i < top:
                x = self.conv("encoder.down.%d.downsample.conv" % i, F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.conv("encoder.conv_out", self.swished("encoder.norm_out", self.mid("encoder", x)), padding=1)
        return self.conv("quantize.proj", self.conv("quant_conv", x))[0].flatten(1)


def vqgan_shapes(s):
    """{name: shape} of the state dict (reference.md 10.5, 10.6)."""
    out, top = {}, len(s["mult"]) - 1

    def conv(name, o, i, k):
        out[name + ".weight"], out[name + ".bias"] = (o, i, k, k), (o,)

    def norm(name, c):
        out[name + ".weight"] = out[name + ".bias"] = (c,)

    def res(p, i, o):
        norm(p + ".norm1", i), conv(p + ".conv1", o, i, 3), norm(p + ".norm2", o), conv(p + ".conv2", o, o, 3)
        if i != o:
            conv(p + ".nin_shortcut", o, i, 1)

    def attn(p, c):
        norm(p + ".norm", c)
        for m in ("q", "k", "v", "proj_out"):
            conv("%s.%s" % (p, m), c, c, 1)

    def level(p, n, i, width):
        o = s["ch"] * s["mult"][i]
        for b in range(n):
            res("%s.block.%d" % (p, b), o if b else width, o)
            if i in s["attn"]:
                attn("%s.attn.%d" % (p, b), o)
        return o

    def mid(p, c):
        res(p + ".mid.block_1", c, c), attn(p + ".mid.attn_1", c), res(p + ".mid.block_2", c, c)

    low = s["ch"] * s["mult"][-1]
    conv("encoder.conv_in", s["ch"], 3, 3)
    width = s["ch"]
    for i in range(top + 1):
        width = level("encoder.down.%d" % i, s["blocks"], i, width)
        if i < top:
            conv("encoder.down.%d.downsample.conv" % i, width, width, 3)
    mid("encoder", low), norm("encoder.norm_out", low), conv("encoder.conv_out", s["z"], low, 3)
    conv("decoder.conv_in", low, s["z"], 3), mid("decoder", low)
    width = low
    for i in reversed(range(top + 1)):
        width = level("decoder.up.%d" % i, s["blocks"] + 1, i, width)
        if i:
            conv("decoder.up.%d.upsample.conv" % i, width, width, 3)
    norm("decoder.norm_out", width), conv("decoder.conv_out", 3, width, 3)
    conv("quant_conv", s["z"], s["z"], 1), conv("post_quant_conv", s["z"], s["z"], 1)
    out["quantize.embed.weight"] = (s["codes"], s["z"])
    conv("quantize.proj", s["codes"], s["z"], 1)
    return out
