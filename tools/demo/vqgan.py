"""The VQGAN in taming-transformers' layout: model, EMA codebook, training."""
import json
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from data import Clock, cosine, load_phantoms, load_xray, psnr, setup, ssim, unit

DDCONFIG = dict(double_z=False, z_channels=16, resolution=64, in_channels=3, out_ch=3, ch=32,
                ch_mult=[1, 1, 2, 2], num_res_blocks=1, attn_resolutions=[], dropout=0.0)
GROUPS, CODES = 8, 256


def norm(c):
    return nn.GroupNorm(GROUPS, c, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.norm1, self.conv1 = norm(i), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = norm(o), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Attn(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = norm(c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        n = self.norm(x)
        q, k, v = (f(n).reshape(b, c, h * w) for f in (self.q, self.k, self.v))
        p = torch.softmax(torch.bmm(q.transpose(1, 2), k).float() * c ** -0.5, -1).to(v.dtype)
        return x + self.proj_out(torch.bmm(v, p.transpose(1, 2)).reshape(b, c, h, w))


class Conv(nn.Module):
    """Holds one convolution under the name `conv` (down- and upsampling)."""

    def __init__(self, c, down):
        super().__init__()
        self.conv, self.down = nn.Conv2d(c, c, 3, stride=2 if down else 1, padding=0 if down else 1), down

    def forward(self, x):
        x = F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x)


class Mid(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResBlock(c, c), Attn(c), ResBlock(c, c)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    def __init__(self, i, o, blocks):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(i if b == 0 else o, o) for b in range(blocks))

    def forward(self, x):
        for b in self.block:
            x = b(x)
        return x


class Encoder(nn.Module):
    def __init__(self, c=DDCONFIG):
        super().__init__()
        ch, mult, n = c["ch"], c["ch_mult"], c["num_res_blocks"]
        self.conv_in = nn.Conv2d(c["in_channels"], ch, 3, padding=1)
        self.down, w = nn.ModuleList(), ch
        for lv, m in enumerate(mult):
            level = Level(w, ch * m, n)
            w = ch * m
            if lv < len(mult) - 1:
                level.downsample = Conv(w, True)
            self.down.append(level)
        self.mid, self.norm_out = Mid(w), norm(w)
        self.conv_out = nn.Conv2d(w, c["z_channels"], 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for lv in self.down:
            x = lv(x)
            if hasattr(lv, "downsample"):
                x = lv.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, c=DDCONFIG):
        super().__init__()
        ch, mult, n = c["ch"], c["ch_mult"], c["num_res_blocks"]
        w = ch * mult[-1]
        self.conv_in, self.mid = nn.Conv2d(c["z_channels"], w, 3, padding=1), Mid(w)
        levels = []
        for lv in reversed(range(len(mult))):
            level = Level(w, ch * mult[lv], n + 1)
            w = ch * mult[lv]
            if lv:
                level.upsample = Conv(w, False)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(w), nn.Conv2d(w, c["out_ch"], 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for lv in reversed(self.up):
            x = lv(x)
            if hasattr(lv, "upsample"):
                x = lv.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    """Pictures are [n,1,64,64] in 0..1 outside, RGB in -1..1 inside."""

    def __init__(self):
        super().__init__()
        e = DDCONFIG["z_channels"]
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = nn.Conv2d(e, e, 1), nn.Conv2d(e, e, 1)
        for name, value in (("cb", torch.randn(CODES, e)), ("cnt", torch.ones(CODES)), ("sm", torch.randn(CODES, e))):
            self.register_buffer(name, value)

    def latent(self, x):
        x = (x * 2 - 1).expand(-1, 3, -1, -1).contiguous()
        return self.quant_conv(self.encoder(x)).float()

    def nearest(self, z):
        f = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        return ((self.cb * self.cb).sum(1) - 2 * f @ self.cb.t()).argmin(1), f

    def render(self, q):
        """Quantised latent -> RGB [n,3,h,w] in 0..1, not clamped."""
        return (self.decoder(self.post_quant_conv(q)).float() + 1) / 2

    @torch.no_grad()
    def encode(self, x):
        return torch.cat([self.nearest(self.latent(b))[0].reshape(len(b), -1) for b in x.split(64)])

    @torch.no_grad()
    def decode(self, idx):
        """[n,64] indices -> [n,1,64,64] in 0..1, quantised as the server does."""
        out = []
        for i in idx.split(64):
            q = self.cb[i].reshape(len(i), 8, 8, -1).permute(0, 3, 1, 2)
            out.append(torch.floor(self.render(q).clamp(0, 1) * 255).mean(1, keepdim=True) / 255)
        return torch.cat(out)

    @torch.no_grad()
    def update(self, idx, f, decay=0.98):
        """EMA codebook step; codes that starve restart on data."""
        n = len(idx)
        hits = torch.zeros(CODES).index_add_(0, idx, torch.ones(n))
        sums = torch.zeros_like(self.sm).index_add_(0, idx, f)
        self.cnt.mul_(decay).add_(hits, alpha=1 - decay)
        self.sm.mul_(decay).add_(sums, alpha=1 - decay)
        self.cb.copy_(self.sm / self.cnt.clamp_min(1e-3)[:, None])
        dead = (self.cnt < 0.05 * n / CODES).nonzero()[:, 0]
        if len(dead):
            pick = f[torch.randint(0, n, (len(dead),))] + 0.01 * torch.randn(len(dead), f.shape[1])
            self.cb[dead], self.cnt[dead] = pick, n / CODES
            self.sm[dead] = pick * (n / CODES)

    def state_for_export(self):
        """taming GumbelVQ names; argmax(proj z) is the nearest codebook entry."""
        sd = {k: v.detach().float().contiguous() for k, v in self.state_dict().items() if k not in ("cb", "cnt", "sm")}
        sd["quantize.embed.weight"] = self.cb.clone()
        sd["quantize.proj.weight"] = (2 * self.cb)[:, :, None, None].clone()
        sd["quantize.proj.bias"] = -(self.cb * self.cb).sum(1)
        return sd


@torch.no_grad()
def kmeans(f, n, rounds=15):
    c = f[torch.randperm(len(f))[:n]].clone()
    for _ in range(rounds):
        a = ((c * c).sum(1) - 2 * f @ c.t()).argmin(1)
        k = torch.zeros(n).index_add_(0, a, torch.ones(len(f)))
        s = torch.zeros_like(c).index_add_(0, a, f)
        c = torch.where(k[:, None] > 0, s / k.clamp_min(1)[:, None], f[torch.randint(0, len(f), (n,))])
    return c


def measure(model, x):
    """Round trip of pictures x: (numbers, tokens)."""
    model.eval()
    idx = model.encode(x)
    y = model.decode(idx)
    p = torch.bincount(idx.flatten(), minlength=CODES).float()
    p = p / p.sum()
    perplexity = torch.exp(-(p[p > 0] * p[p > 0].log()).sum()).item()
    return dict(psnr=psnr(y, x).mean().item(), p5=psnr(y, x).quantile(0.05).item(), ssim=ssim(y, x).mean().item(),
                perplexity=perplexity, used=int((p > 0).sum())), idx


def train(data_dir, work, seed, minutes, batch=16, phantom_share=0.19, lr=1.5e-3, log=print):
    """Train for `minutes` of CPU time and write work/vqgan_<seed>.pt."""
    setup(seed)
    d, ph = load_xray(data_dir, work), load_phantoms(work)
    xt, xp, xv = unit(d["train_x"]), unit(ph["x"]), unit(d["val_x"])
    model = VQGAN()
    opt = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.95), weight_decay=1e-4)
    npx = int(round(batch * phantom_share))
    path = os.path.join(work, "vqgan_%d.pt" % seed)
    clock, step, vq_on, last, warm = Clock(minutes), 0, False, 0, 0.12
    while True:
        el, f = clock.seconds(), clock.fraction()
        if f >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = cosine(f, step, lr)
        x = torch.cat([xt[torch.randint(0, len(xt), (batch - npx,))], xp[torch.randint(0, len(xp), (npx,))]])
        if torch.rand(1) < 0.5:
            x = x.flip(3)
        if not vq_on and f > warm:
            model.eval()
            pool = torch.cat([xt[torch.randperm(len(xt))[:448]], xp[torch.randperm(len(xp))[:64]]])
            with torch.no_grad():
                z = torch.cat([model.latent(b) for b in pool.split(64)])
            model.cb.copy_(kmeans(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]), CODES))
            model.cnt.fill_(batch * 64 / CODES)
            model.sm.copy_(model.cb * model.cnt[:, None])
            model.train()
            vq_on = True
            log("vqgan: codebook starts at step %d" % step)
        with torch.autocast("cpu", torch.bfloat16, enabled=True):
            z = model.latent(x)
        if vq_on:
            idx, flat = model.nearest(z.detach())
            model.update(idx, flat)
            q = model.cb[idx].reshape(batch, 8, 8, -1).permute(0, 3, 1, 2)
            commit = F.mse_loss(z, q)
            q = z + (q - z).detach()
        else:
            q = z + 0.05 * z.detach().std() * torch.randn_like(z)
            commit = 1e-3 * (z ** 2).mean()
        with torch.autocast("cpu", torch.bfloat16, enabled=True):
            r = model.render(q)
        l1 = (r - x).abs().mean()
        loss = l1 + 0.5 * F.mse_loss(r, x.expand_as(r)) * 4 + 0.3 * (1 - ssim(r.mean(1, keepdim=True), x, 7).mean()) + 0.25 * commit
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        if el - last > 60:
            last = el
            log("vqgan: %ds step %d l1 %.4f val %s" % (el, step, l1.item(), json.dumps(measure(model, xv[:128])[0]) if vq_on else "-"))
            torch.save({"model": model.state_dict(), "step": step}, path)
            model.train()
    result = measure(model, xv)[0]
    log("vqgan: done, %d steps in %.0f s, val %s" % (step, clock.seconds(), json.dumps(result)))
    torch.save({"model": model.state_dict(), "step": step, "val": result, "seconds": clock.seconds()}, path)


def load(work, seed):
    ck = torch.load(os.path.join(work, "vqgan_%d.pt" % seed), weights_only=False)
    m = VQGAN()
    m.load_state_dict(ck["model"])
    return m.eval(), ck
