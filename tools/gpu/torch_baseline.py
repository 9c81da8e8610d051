#!/usr/bin/env python3
"""A torch model of HealthGPT-M3's shape with H-LoRA on the same card, for comparison.

usage: torch_baseline.py gemm | model [--tiny]        prints one JSON object per line

gemm: bf16 matrix product of 8192^3 on random data. model: random bf16 weights, decode steps at batch
1, 8, 32 over a KV cache of 732 positions and a prefill of 700, with no, either or both plug-ins;
eager, and decode also as a replayed CUDA graph. Times are CUDA events, medians. The adapter is the
reference's: softmax over experts of route x, A x scaled by it, times B, as separate calls. --tiny
runs on the CPU, untimed, to see that the script works."""
import json
import statistics
import sys

import torch
import torch.nn.functional as F

M3 = dict(layers=32, dim=3072, ffn=8192, vocab=40206, heads=32)
SMALL = dict(layers=2, dim=64, ffn=96, vocab=128, heads=4)
RANKS, EXPERTS, PROMPT, CONTEXT, BATCHES = {"com": 64, "gen": 256}, 4, 700, 732, (1, 8, 32)
ADAPTERS = {"none": (), "comprehension": ("com",), "generation": ("gen",), "mixed": ("com", "gen")}


def random(device, *shape):
    return torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02


class Linear:
    def __init__(self, device, n, k):
        self.w = random(device, n, k)
        self.adapters = {name: (random(device, r, k), random(device, n, r), random(device, EXPERTS, k))
                         for name, r in RANKS.items()}

    def __call__(self, x, masks):
        """masks: plug-in -> None (every row) or a 0/1 column."""
        y = F.linear(x, self.w)
        for name, mask in masks.items():
            a, b, route = self.adapters[name]
            gate = F.softmax(F.linear(x, route).float(), -1).to(x.dtype)
            gate = gate.repeat_interleave(RANKS[name] // EXPERTS, -1) * 0.5
            delta = F.linear(F.linear(x, a) * gate, b)
            y = y + (delta if mask is None else delta * mask)
        return y


class Model:
    def __init__(self, device, s):
        d, f = s["dim"], s["ffn"]
        self.s, self.device = s, device
        self.embed, self.head = random(device, s["vocab"], d), random(device, s["vocab"], d)
        self.norm = torch.ones(d, device=device, dtype=torch.bfloat16)
        self.layers = [[Linear(device, 3 * d, d), Linear(device, d, d), Linear(device, 2 * f, d), Linear(device, d, f)]
                       for _ in range(s["layers"])]
        half = d // s["heads"] // 2
        angle = torch.outer(torch.arange(CONTEXT, device=device).float(), 1e4 ** (-torch.arange(half, device=device) / half))
        self.cos, self.sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    def rms(self, x):
        v = x.float()
        return (v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.norm

    def rope(self, x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def forward(self, ids, cache, pos, masks):
        """ids [B, T]; cache per layer [2, B, H, CONTEXT, P], or None: a prefill of its own."""
        b, t = ids.shape
        heads, x = self.s["heads"], F.embedding(ids, self.embed)
        cos, sin = self.cos[pos:pos + t], self.sin[pos:pos + t]
        for i, (qkv, o, gate_up, down) in enumerate(self.layers):
            q, k, v = qkv(self.rms(x), masks).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            q, k = self.rope(q, cos, sin), self.rope(k, cos, sin)
            if cache is None:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                cache[i][0, :, :, pos:pos + t] = k
                cache[i][1, :, :, pos:pos + t] = v
                y = F.scaled_dot_product_attention(q, cache[i][0], cache[i][1])
            x = x + o(y.transpose(1, 2).reshape(b, t, -1), masks)
            gate, up = gate_up(self.rms(x), masks).chunk(2, -1)
            x = x + down(F.silu(gate) * up, masks)
        return F.linear(self.rms(x[:, -1]), self.head).argmax(-1)


def timed(work, rounds):
    """Median milliseconds; on the CPU the work runs once, untimed."""
    if not torch.cuda.is_available():
        work()
        return 0.0
    for _ in range(3):
        work()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def graph_of(work):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def masks_of(device, plugin, batch):
    if plugin != "mixed":
        return {name: None for name in ADAPTERS[plugin]}
    odd = (torch.arange(batch, device=device) % 2).bfloat16().view(batch, 1, 1)
    return {"com": 1 - odd, "gen": odd}


def show(**row):
    print(json.dumps(dict(row, torch=torch.__version__)), flush=True)


def bench_model(device, s, batches, prompt):
    m, cuda = Model(device, s), device == "cuda"
    for plugin in ADAPTERS:
        if plugin != "mixed":
            ids = torch.randint(s["vocab"], (1, prompt), device=device)
            ms = timed(lambda: m.forward(ids, None, 0, masks_of(device, plugin, 1)), 10)
            show(what="prefill", plugin=plugin, sequences=1, tokens=prompt, eager_ms=ms)
        for batch in batches:
            if plugin == "mixed" and batch == 1:
                continue
            cache = [random(device, 2, batch, s["heads"], CONTEXT, s["dim"] // s["heads"]) for _ in range(s["layers"])]
            ids, masks = torch.randint(s["vocab"], (batch, 1), device=device), masks_of(device, plugin, batch)

            def step():
                return m.forward(ids, cache, CONTEXT - 1, masks)
            row = {"eager_ms": timed(step, 20)}
            if cuda:
                graph = graph_of(step)
                row["graph_ms"] = timed(graph.replay, 50)
                del graph
            show(what="decode", plugin=plugin, sequences=batch, context=CONTEXT, **row)


def gemm():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms = timed(lambda: a @ b, 20)
    show(what="gemm", ms=ms, flops=2 * 8192 ** 3 / ms * 1e3)


def main(argv):
    if not argv or argv[0] not in ("gemm", "model"):
        sys.exit(__doc__)
    torch.manual_seed(1)
    with torch.inference_mode():
        if argv[0] == "gemm":
            gemm()
        elif "--tiny" in argv:
            bench_model("cpu", SMALL, (1, 3), 20)
        else:
            bench_model("cuda", M3, BATCHES, PROMPT)


main(sys.argv[1:])
