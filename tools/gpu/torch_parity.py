#!/usr/bin/env python3
"""A torch forward pass over the weights of a random model against the tokens that our backend chose.

usage: greedy MODEL ... | torch_parity.py MODEL [DEVICE]        prints one JSON object

Follows kernels/backend.h, not the kernels: bf16 weights meet activations rounded to bf16, everything is
added up in fp32, the cache holds f16, the rotary table is rounded to fp16 (model card). All tokens that
greedy chose go through in one pass (teacher forcing). For each, torch's best token must be ours, or ours
must be within NEAR of it; and the log probabilities of our best tokens must agree. Reads safetensors by
itself and keeps one layer in fp32 at a time."""
import json
import mmap
import os
import struct
import sys

import torch
import torch.nn.functional as F

# A bf16 activation that falls on the other side of a rounding point moves a product by 2^-8 of itself, in
# every layer; measured below 5e-3 on the CPU for models of a few layers.
NEAR = 0.05


class Weights:
    def __init__(self, path, device):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        size, = struct.unpack_from("<Q", self.data, 0)
        self.header, self.start, self.device = json.loads(self.data[8:8 + size]), 8 + size, device

    def __contains__(self, name):
        return name in self.header

    def get(self, name):
        h = self.header[name]
        lo, hi = h["data_offsets"]
        t = torch.frombuffer(self.data, dtype=torch.bfloat16, count=(hi - lo) // 2, offset=self.start + lo)
        return t.to(self.device).float().view(h["shape"])


def half(x):
    return x.bfloat16().float()


class Model:
    def __init__(self, path, task, device):
        with open(os.path.join(path, "llm", "config.json")) as f:
            self.c = json.load(f)
        with open(os.path.join(path, "healthgpt.json")) as f:
            card = json.load(f)
        self.device = device
        self.base = Weights(os.path.join(path, "llm", "model.safetensors"), device)
        profile = card["tasks"]["generation" if task == "generation" else "comprehension"]
        self.plugin = Weights(os.path.join(path, profile["hlora"]), device)
        self.alpha, self.adapted = profile["alpha"], task != "none"

    def table(self, name):
        return (self.plugin if name in self.plugin else self.base).get(name)

    def linear(self, x, name):
        x = half(x)
        y = F.linear(x, self.base.get(name + ".weight"))
        if name + ".bias" in self.base:
            y = y + self.base.get(name + ".bias")
        if not self.adapted:
            return y
        a, b, route = (self.plugin.get(name + ".lora_%s.weight" % p) for p in ("A", "B", "route"))
        rank, experts = a.shape[0], route.shape[0]
        gate = F.softmax(F.linear(x, route), -1).repeat_interleave(rank // experts, -1)
        return y + F.linear(half(F.linear(x, a) * gate * (self.alpha / rank * experts)), b)

    def norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"]) * self.base.get(name)

    def rope(self, x):
        """x [heads, T, P]"""
        p = x.shape[-1]
        inv = 1.0 / self.c["rope_theta"] ** (torch.arange(0, p, 2, dtype=torch.float64) / p)
        inv = inv.float().half().float().to(self.device)
        angle = torch.outer(torch.arange(x.shape[1], device=self.device).float(), inv)
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)

    def attention(self, x, name):
        heads, kv = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        p = self.c["hidden_size"] // heads
        if name + ".qkv_proj.weight" in self.base:
            q, k, v = self.linear(x, name + ".qkv_proj").split((heads * p, kv * p, kv * p), -1)
        else:
            q, k, v = (self.linear(x, name + "." + n + "_proj") for n in "qkv")
        q, k, v = (t.view(len(x), -1, p).transpose(0, 1) for t in (q, k, v))
        q, k, v = self.rope(q), self.rope(k).half().float(), v.half().float()
        k, v = (t.repeat_interleave(heads // kv, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2) / p ** 0.5
        mask = torch.ones(len(x), len(x), dtype=torch.bool, device=self.device).triu(1)
        y = F.softmax(scores.masked_fill(mask, float("-inf")), -1) @ v
        return self.linear(y.transpose(0, 1).reshape(len(x), -1), name + ".o_proj")

    def mlp(self, x, name):
        if name + ".gate_up_proj.weight" in self.base:
            gate, up = self.linear(x, name + ".gate_up_proj").chunk(2, -1)
        else:
            gate, up = (self.linear(x, name + "." + n + "_proj") for n in ("gate", "up"))
        return self.linear(F.silu(gate) * up, name + ".down_proj")

    def logprobs(self, ids, n):
        """Of the last n positions."""
        x = self.table("model.embed_tokens.weight")[torch.tensor(ids, device=self.device)]
        for i in range(self.c["num_hidden_layers"]):
            name = "model.layers.%d" % i
            x = x + self.attention(self.norm(x, name + ".input_layernorm.weight"), name + ".self_attn")
            x = x + self.mlp(self.norm(x, name + ".post_attention_layernorm.weight"), name + ".mlp")
        x = half(self.norm(x[-n:], "model.norm.weight"))
        return F.log_softmax(F.linear(x, self.table("lm_head.weight")), -1)


def compare(reply, logprobs):
    equal, worst, gap = 0, 0.0, 0.0
    for step, row in zip(reply["steps"], logprobs):
        best = float(row.max())
        equal += int(row.argmax()) == step["id"]
        gap = max(gap, best - float(row[step["id"]]))
        worst = max([worst] + [abs(float(row[i]) - v) for i, v in step["top"]])
    ok = gap <= NEAR and worst <= NEAR
    return {"task": reply["task"], "tokens": len(reply["steps"]), "prompt": len(reply["prompt"]), "equal": equal,
            "largest_gap": gap, "worst_logprob": worst, "bound": NEAR, "ok": ok}


def main(argv):
    if not argv:
        sys.exit(__doc__)
    device = argv[1] if len(argv) > 1 else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.inference_mode():
        for line in sys.stdin:
            reply = json.loads(line)
            ids = reply["prompt"] + [s["id"] for s in reply["steps"]]
            m = Model(argv[0], reply["task"], device)
            print(json.dumps(compare(reply, m.logprobs(ids[:-1], len(reply["steps"])))), flush=True)


main(sys.argv[1:])
