"""The vision tower: a small CLIP vision model (Hugging Face names) and its training.

Multi-task: pneumonia (labels + soft labels of a CNN teacher), phantom
attributes, and a light loss that rebuilds each patch from hidden state 1, as
the generation plug-in reads that layer.  Heads sit on the mean patch of the
last two hidden states (comprehension reads hidden state -2) and are dropped.
"""
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from data import Clock, auc, augment, cosine, load_phantoms, load_xray, mild, setup, unit
from judge import FIELDS, Average, field_loss, load_cnn, phantom_targets

DIM, LAYERS, HEADS, FFN, SIZE, PATCH = 128, 6, 4, 512, 64, 8
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_FIELDS = (("source", ("phantom", "xray")),) + FIELDS + (("pneumonia", (0, 1)),)
N_OUT = sum(len(v) for _, v in HEAD_FIELDS)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(DIM, DIM) for _ in range(4))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (f(x).reshape(b, t, HEADS, d // HEADS).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        a = torch.softmax(q @ k.transpose(2, 3) * (d // HEADS) ** -0.5, -1).to(v.dtype)
        return self.out_proj((a @ v).transpose(1, 2).reshape(b, t, d))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(DIM, FFN), nn.Linear(FFN, DIM)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class Layer(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.self_attn, self.mlp, self.drop = Attention(), MLP(), drop
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)

    def path(self, y):
        """Stochastic depth."""
        if not self.training or not self.drop:
            return y
        return y * ((torch.rand(y.shape[0], 1, 1) > self.drop).to(y.dtype) / (1 - self.drop))

    def forward(self, x):
        x = x + self.path(self.self_attn(self.layer_norm1(x)))
        return x + self.path(self.mlp(self.layer_norm2(x)))


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(DIM) * 0.02)
        self.patch_embedding = nn.Conv2d(3, DIM, PATCH, PATCH, bias=False)
        self.position_embedding = nn.Embedding((SIZE // PATCH) ** 2 + 1, DIM)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, x):
        p = self.patch_embedding(x).flatten(2).transpose(1, 2)
        c = self.class_embedding.to(p.dtype).expand(len(p), 1, -1)
        return torch.cat([c, p], 1) + self.position_embedding.weight


class ViT(nn.Module):
    def __init__(self, drop=0.1):
        super().__init__()
        self.embeddings, self.pre_layrnorm = Embeddings(), nn.LayerNorm(DIM)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(Layer(drop * i / (LAYERS - 1)) for i in range(LAYERS))
        self.post_layernorm = nn.LayerNorm(DIM)

    def hidden(self, x, upto=LAYERS):
        """[n,1,64,64] in 0..1 -> list of hidden states 0..upto."""
        x = (x.expand(-1, 3, -1, -1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        states = [self.pre_layrnorm(self.embeddings(x))]
        for layer in self.encoder.layers[:upto]:
            states.append(layer(states[-1]))
        return states

    @torch.no_grad()
    def features(self, x, layer):
        """The 64 patch rows of one hidden state; layer as in the model card."""
        k = layer % (LAYERS + 1)
        return self.hidden(x, k)[k][:, 1:].float()


class Trainer(nn.Module):
    """ViT + the heads that only training needs."""

    def __init__(self):
        super().__init__()
        self.vit = ViT()
        self.head, self.aux = nn.Linear(DIM, N_OUT), nn.Linear(DIM, N_OUT)
        self.aux_norm, self.pixels = nn.LayerNorm(DIM), nn.Linear(DIM, PATCH * PATCH)

    def forward(self, x):
        h = self.vit.hidden(x)
        last = self.head(self.vit.post_layernorm(h[-1])[:, 1:].mean(1))
        return last.float(), self.aux(self.aux_norm(h[-2])[:, 1:].mean(1)).float(), self.pixels(h[1][:, 1:]).float()


def pneumonia_logit(logits):
    return logits[:, -1] - logits[:, -2]


@torch.no_grad()
def validate(m, d, split):
    m.eval()
    out = [m(b)[1] for b in unit(d[split + "_x"]).split(256)]
    s, y = pneumonia_logit(torch.cat(out)), d[split + "_y"]
    return dict(acc=round(((s > 0) == (y == 1)).float().mean().item(), 4), auc=round(auc(s, y), 4),
                sens=round((s[y == 1] > 0).float().mean().item(), 4), spec=round((s[y == 0] <= 0).float().mean().item(), 4))


def train(data_dir, work, seed, minutes, batch=64, lr=1.2e-3, log=print):
    """Train for `minutes` of CPU time and write work/vit_<seed>.pt."""
    setup(1000 + seed)
    d, ph, teacher = load_xray(data_dir, work), load_phantoms(work), load_cnn(work, "teacher")
    xt, y, xp, tp = unit(d["train_x"]), d["train_y"], unit(ph["x"]), phantom_targets(ph["attr"])
    i0, i1 = (y == 0).nonzero()[:, 0], (y == 1).nonzero()[:, 0]
    none = torch.full((len(tp), 1), -1)
    tp = torch.cat([torch.zeros_like(none), tp, none], 1)
    cut, m = len(xp) - 512, Trainer()
    nx = batch * 5 // 8
    ema, opt = Average(m, 0.997), torch.optim.AdamW(m.parameters(), lr, weight_decay=0.05, betas=(0.9, 0.98))
    clock, step, last = Clock(minutes), 0, 0
    while True:
        el, f = clock.seconds(), clock.fraction()
        if f >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = cosine(f, step, lr, 200, 0.01)
        ix = torch.cat([i0[torch.randint(0, len(i0), (nx // 2,))], i1[torch.randint(0, len(i1), (nx // 2,))]])
        ip = torch.randint(0, cut, (batch - nx,))
        xx = augment(xt[ix])
        x = torch.cat([xx, mild(xp[ip])])
        tx = torch.full((nx, tp.shape[1]), -1)
        tx[:, 0], tx[:, -1] = 1, y[ix]
        target = torch.cat([tx, tp[ip]])
        with torch.no_grad():
            soft = torch.sigmoid(teacher(F.interpolate(xx, 28, mode="area"))[:, 0])
        m.train()
        with torch.autocast("cpu", torch.bfloat16):
            outs = m(x)
        loss = 0
        for lo in outs[:2]:
            p = pneumonia_logit(lo[:nx])
            loss = loss + 0.35 * F.binary_cross_entropy_with_logits(p, y[ix].float() * 0.95 + 0.025)
            loss = loss + 0.65 * F.binary_cross_entropy_with_logits(p, soft) + 0.5 * field_loss(lo[:, :-2], target[:, :-1], HEAD_FIELDS[:-1])
        patches = F.unfold(x, PATCH, stride=PATCH).transpose(1, 2)
        loss = loss + 4.0 * F.mse_loss(outs[2], patches)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        ema.update(m)
        step += 1
        if el - last > 90:
            last = el
            with torch.no_grad():
                lo = torch.cat([ema.m(b)[1] for b in xp[cut:].split(256)])
                parts = torch.stack([p.argmax(1) for p in lo.split([len(v) for _, v in HEAD_FIELDS], 1)], 1)
                good = ((parts == tp[cut:]) | (tp[cut:] < 0)).all(1).float().mean().item()
                pix = F.mse_loss(ema.m(xt[:256])[2], F.unfold(xt[:256], PATCH, stride=PATCH).transpose(1, 2)).item()
            log("vit %d: %ds step %d ep %.1f loss %.3f val %s phantoms all right %.3f patch mse %.5f" % (
                seed, el, step, step * nx / len(y), loss.item(), validate(ema.m, d, "val"), good, pix))
            torch.save({"model": ema.m.vit.state_dict(), "step": step}, os.path.join(work, "vit_%d.pt" % seed))
    val = validate(ema.m, d, "val")
    log("vit %d: done, %d steps in %.0f s, val %s, test (reported, not used) %s" % (
        seed, step, clock.seconds(), val, validate(ema.m, d, "test")))
    torch.save({"model": ema.m.vit.state_dict(), "step": step, "val": val, "seconds": clock.seconds()},
               os.path.join(work, "vit_%d.pt" % seed))


def load(work, seed):
    ck = torch.load(os.path.join(work, "vit_%d.pt" % seed), weights_only=False)
    m = ViT()
    m.load_state_dict(ck["model"])
    return m.eval(), ck
