"""The language model: Phi-3 in small, H-LoRA plug-ins, projector, sampling."""
import torch
import torch.nn as nn
import torch.nn.functional as F

import prompt

DIM, LAYERS, HEADS, FFN, EPS, THETA = 192, 4, 6, 512, 1e-5, 10000.0
LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
PLUGINS = {"com": dict(r=32, alpha=64), "gen": dict(r=64, alpha=128)}
EXPERTS, VISION_DIM = 4, 128


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * self.weight


class HLoRA(nn.Module):
    """y = B(gate * (A x) * alpha / r * k), the gate is a softmax of R x for every token."""

    def __init__(self, i, o, r, alpha):
        super().__init__()
        self.lora_A, self.lora_B = nn.Linear(i, r, bias=False), nn.Linear(r, o, bias=False)
        self.lora_route = nn.Linear(i, EXPERTS, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.scale, self.r = alpha / r * EXPERTS, r

    def forward(self, x):
        g = torch.softmax(self.lora_route(x).float(), -1).repeat_interleave(self.r // EXPERTS, -1)
        return self.lora_B(g * self.lora_A(x) * self.scale)


class Linear(nn.Linear):
    """A base linear whose active plug-in, if any, is set from outside."""

    def __init__(self, i, o):
        super().__init__(i, o, bias=False)
        nn.init.normal_(self.weight, std=0.02)
        object.__setattr__(self, "plug", None)

    def forward(self, x):
        y = super().forward(x)
        return y if self.plug is None else y + self.plug(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv_proj, self.o_proj = Linear(DIM, 3 * DIM), Linear(DIM, DIM)

    def forward(self, x, cos, sin, mask, cache):
        b, t, d = x.shape
        q, k, v = self.qkv_proj(x).reshape(b, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        turn = lambda u: u * cos + torch.cat([-u[..., d // HEADS // 2:], u[..., :d // HEADS // 2]], -1) * sin
        q, k = turn(q).to(v.dtype), turn(k).to(v.dtype)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        q, k, v = (u.reshape(b * HEADS, -1, d // HEADS) for u in (q, k, v))
        s = torch.zeros((), dtype=q.dtype) if mask is None else mask.to(q.dtype)
        p = torch.softmax(torch.baddbmm(s, q, k.transpose(1, 2), alpha=(d // HEADS) ** -0.5), -1)
        return self.o_proj((p @ v).reshape(b, HEADS, t, -1).transpose(1, 2).reshape(b, t, d))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj, self.down_proj = Linear(DIM, 2 * FFN), Linear(FFN, DIM)

    def forward(self, x):
        g, u = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(F.silu(g) * u)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(), RMSNorm()

    def forward(self, x, cos, sin, mask, cache, drop):
        h = self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        x = x + F.dropout(h, drop, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), drop, self.training)


class Tables(nn.Module):
    """One pair of embedding and head tables."""

    def __init__(self, rows):
        super().__init__()
        self.embed, self.head = nn.Embedding(rows, DIM), nn.Linear(DIM, rows, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)


class Plugin(nn.Module):
    """H-LoRA of every linear plus the projector of one task."""

    def __init__(self, kind):
        super().__init__()
        cfg = PLUGINS[kind]
        shapes = {"self_attn.qkv_proj": (DIM, 3 * DIM), "self_attn.o_proj": (DIM, DIM),
                  "mlp.gate_up_proj": (DIM, 2 * FFN), "mlp.down_proj": (FFN, DIM)}
        self.layers = nn.ModuleList(nn.ModuleDict(
            {n.replace(".", "/"): HLoRA(*shapes[n], cfg["r"], cfg["alpha"]) for n in LINEARS}) for _ in range(LAYERS))
        self.mm_projector = nn.Sequential(nn.Linear(VISION_DIM, DIM), nn.GELU(), nn.Linear(DIM, DIM))

    def named(self):
        """(published key without prefix, parameter) pairs."""
        for n, layer in enumerate(self.layers):
            for lin in LINEARS:
                for part in ("lora_A", "lora_B", "lora_route"):
                    yield "layers.%d.%s.%s.weight" % (n, lin, part), getattr(layer[lin.replace(".", "/")], part).weight
        for k, p in self.mm_projector.named_parameters():
            yield "mm_projector." + k, p


class LM(nn.Module):
    def __init__(self, rows=prompt.V_FULL):
        super().__init__()
        self.tables, self.norm, self.dropout = Tables(rows), RMSNorm(), 0.0
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def attach(self, plugin):
        """Make a plug-in active (None: bare base model)."""
        for n, layer in enumerate(self.layers):
            for lin in LINEARS:
                a, b = lin.split(".")
                unit = None if plugin is None else plugin.layers[n][lin.replace(".", "/")]
                object.__setattr__(getattr(getattr(layer, a), b), "plug", unit)

    def body(self, x, start=0, caches=None):
        t, h = x.shape[1], DIM // HEADS
        a = torch.arange(start, start + t).float()[:, None] * THETA ** (-torch.arange(0, h, 2).float() / h)
        a = torch.cat([a, a], 1)
        mask = torch.full((t, t), -1e9).triu(1) if t > 1 else None
        for i, layer in enumerate(self.layers):
            x = layer(x, a.cos(), a.sin(), mask, None if caches is None else caches[i], self.dropout)
        return self.norm(x)

    def embed(self, ids, rows=None, tables=None):
        """ids [n,t] with -1 where image rows (projected, [n,k,DIM]) go."""
        x = (tables or self.tables).embed(ids.clamp_min(0))
        if rows is not None:
            x = x.masked_scatter((ids < 0)[..., None].expand_as(x), rows.to(x.dtype).reshape(-1, DIM))
        return x

    @torch.no_grad()
    def generate(self, ids, rows=None, tables=None, steps=64, temperature=0.0, codes_only=False, rng=None, scores=None):
        """Batch decoding of equal-length prompts; `scores` collects each step's logits."""
        tables = tables or self.tables
        caches = [[] for _ in self.layers]
        h = self.body(self.embed(ids, rows, tables), 0, caches)[:, -1]
        pos, out = ids.shape[1], []
        for _ in range(steps):
            lo = tables.head(h).float()
            if scores is not None:
                scores.append(lo)
            if codes_only:
                lo = lo[:, prompt.IDX:prompt.IDX + prompt.N_CODES]
            if temperature:
                nx = torch.multinomial(torch.softmax(lo / temperature, -1), 1, generator=rng)[:, 0]
            else:
                nx = lo.argmax(-1)
            nx = nx + (prompt.IDX if codes_only else 0)
            out.append(nx)
            h = self.body(tables.embed(nx[:, None]), pos, caches)[:, -1]
            pos += 1
        return torch.stack(out, 1)


def pad(batch):
    """List of (prompt ids, answer ids) -> ids [n,t], target mask, targets.

    Position p predicts id p+1; only answer ids count.
    """
    t = max(len(p) + len(a) for p, a in batch) - 1
    ids, target = torch.zeros(len(batch), t, dtype=torch.long), torch.full((len(batch), t), -100)
    for i, (p, a) in enumerate(batch):
        full = torch.tensor(p + a)
        ids[i, :len(full) - 1] = full[:-1]
        target[i, len(p) - 1:len(full) - 1] = full[len(p):]
    return ids, target


def answer_loss(model, batch, rows=None, tables=None, weight=None):
    """Mean cross-entropy over the answer ids of a padded batch (bf16 autocast)."""
    tables = tables or model.tables
    ids, target = pad(batch)
    on = target >= 0
    with torch.autocast("cpu", torch.bfloat16):
        h = model.body(model.embed(ids, rows, tables))[on]
        lo = tables.head(h)
    each = F.cross_entropy(lo.float(), target[on], reduction="none")
    if weight is None:
        return each.mean()
    w = torch.as_tensor(weight)[:, None].expand_as(target)[on]
    return (each * w).sum() / w.sum()
