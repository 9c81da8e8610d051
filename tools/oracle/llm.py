"""The language model of model/MODEL.md in PyTorch: the executable twin of model/llm.c.

Written out op by op (reference.md sections 5 and 6), fp32 unless `half` asks for the reference's FP16 run.
check_against_transformers() compares the plug-in-free part with transformers' own Phi-3, Qwen2 and
Llama modules, so that the twin itself is not only our reading of the paper."""
import math

import torch


class LLM:
    """weights: dict of float32 tensors with Hugging Face names; plugs: {slot: (dict, alpha)};
    tables: {slot: dict} with that task's embed_tokens/lm_head."""

    def __init__(self, config, weights, plugs=None, tables=None, half=False, rope="fp32"):
        self.c, self.half = config, half
        cast = (lambda d: {k: v.half() for k, v in d.items()}) if half else (lambda d: d)
        self.w = cast(weights)
        self.plugs = {s: (cast(d), alpha) for s, (d, alpha) in (plugs or {}).items()}
        self.tables = {s: cast(d) for s, d in (tables or {}).items()}
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.head_dim = config["hidden_size"] // self.heads
        self.fused = config["model_type"] == "phi3"
        exponent = torch.arange(0, self.head_dim, 2).float() / self.head_dim
        self.inv_freq = 1.0 / (config.get("rope_theta", 10000.0) ** exponent)
        if rope == "fp16":
            self.inv_freq = self.inv_freq.half().float()
        self.window = 0
        if self.fused and config.get("sliding_window"):
            self.window = config["sliding_window"] + 1  # visible keys (section 5.5)
        elif config.get("use_sliding_window"):
            self.window = config["sliding_window"]

    def norm(self, x, name):
        u = x.float()
        n = u * torch.rsqrt(u.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"])
        return self.w[name] * n.to(x.dtype)

    def linear(self, x, name, slot):
        y = torch.nn.functional.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))
        if slot not in self.plugs:
            return y
        d, alpha = self.plugs[slot]
        a, b, r = (d["%s.lora_%s.weight" % (name, k)] for k in ("A", "B", "route"))
        gate = torch.softmax((x @ r.T).float(), -1).to(x.dtype)
        z = (x @ a.T) * (alpha / a.shape[0] * r.shape[0])
        z = gate.repeat_interleave(a.shape[0] // r.shape[0], -1) * z
        return y + z @ b.T

    def rope(self, x, pos):
        angle = pos.float()[:, None] * self.inv_freq
        cos, sin = (torch.cat([f(angle)] * 2, -1)[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
        h = self.head_dim // 2
        return x * cos + torch.cat([-x[..., h:], x[..., :h]], -1) * sin

    def qkv(self, x, p, slot):
        if self.fused:
            y = self.linear(x, p + "qkv_proj", slot)
        else:
            y = torch.cat([self.linear(x, p + n, slot) for n in ("q_proj", "k_proj", "v_proj")], -1)
        t, n, g = x.shape[0], self.heads * self.head_dim, self.kv_heads * self.head_dim
        q, k, v = y.split([n, g, g], -1)
        return (u.reshape(t, -1, self.head_dim) for u in (q, k, v))

    def attention(self, q, k, v, pos, fused=False):
        if not fused:
            k, v = (u.repeat_interleave(self.heads // self.kv_heads, 1) for u in (k, v))
        if self.half and not self.fused and not fused:  # the reference ran Qwen2 with fused attention (section 5.6)
            return self.attention(q.float(), k.float(), v.float(), pos, True).to(q.dtype)
        s = torch.einsum("thp,shp->hts", q, k) * (1.0 / math.sqrt(self.head_dim))
        key = torch.arange(k.shape[0])[None]
        seen = key <= pos[:, None]
        if self.window:
            seen &= key > pos[:, None] - self.window
        s = s.float().masked_fill(~seen[None], -math.inf)
        p = torch.softmax(s, -1).to(q.dtype)
        return torch.einsum("hts,shp->thp", p, v).reshape(q.shape[0], -1)

    def mlp(self, x, p, slot):
        if self.fused:
            gate, up = self.linear(x, p + "gate_up_proj", slot).chunk(2, -1)
        else:
            gate, up = (self.linear(x, p + n, slot) for n in ("gate_proj", "up_proj"))
        return self.linear(torch.nn.functional.silu(gate) * up, p + "down_proj", slot)

    def table(self, name, slot):
        d = self.tables.get(slot, {})
        if name in d:
            return d[name]
        if name == "lm_head.weight" and name not in self.w:
            return self.w["model.embed_tokens.weight"]
        return self.w[name]

    def embed(self, ids, slot):
        return self.table("model.embed_tokens.weight", slot)[ids]

    def forward(self, x, cache, slot, start):
        """x [T, D] at positions start..; appends to cache (a list of [k, v]); last row's logits."""
        pos = torch.arange(start, start + x.shape[0])
        for i in range(self.c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            q, k, v = self.qkv(self.norm(x, p + "input_layernorm.weight"), p + "self_attn.", slot)
            q, k = self.rope(q, pos), self.rope(k, pos)
            if len(cache) <= i:
                cache.append([k, v])
            else:
                cache[i] = [torch.cat([cache[i][0], k]), torch.cat([cache[i][1], v])]
            x = x + self.linear(self.attention(q, *cache[i], pos), p + "self_attn.o_proj", slot)
            x = x + self.mlp(self.norm(x, p + "post_attention_layernorm.weight"), p + "mlp.", slot)
        return (self.norm(x[-1:], "model.norm.weight") @ self.table("lm_head.weight", slot).T)[0].float()

    @torch.no_grad()
    def greedy(self, x, slot, n, lo=0, hi=None):
        """x: prompt embeddings. Returns ids, logits [n, hi - lo]; lowest id wins ties."""
        cache, ids, rows, start = [], [], [], 0
        for _ in range(n):
            logits = self.forward(x, cache, slot, start)[lo:hi]
            start += x.shape[0]
            rows.append(logits)
            ids.append(lo + int((logits == logits.max()).nonzero()[0, 0]))
            x = self.embed(torch.tensor([ids[-1]]), slot)
        return ids, torch.stack(rows)


def check_against_transformers(config, weights, ids):
    """max |difference| of all logits between the twin and transformers' module of the same type."""
    import transformers

    kinds = {"phi3": ("Phi3Config", "Phi3ForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
             "llama": ("LlamaConfig", "LlamaForCausalLM")}
    cfg_name, model_name = kinds[config["model_type"]]
    fields = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "sliding_window")}
    if config["model_type"] == "phi3":
        fields.update(pad_token_id=0, sliding_window=None)
    c = getattr(transformers, cfg_name)(**fields, attn_implementation="eager")
    module = getattr(transformers, model_name)(c).float().eval()
    module.load_state_dict(weights, strict=True)
    plain = LLM(dict(config, sliding_window=None), weights)
    with torch.no_grad():
        theirs = module(torch.tensor([ids])).logits[0, -1]
        ours = plain.forward(plain.embed(torch.tensor(ids), None), [], None, 0)
    return (theirs - ours).abs().max().item()
