#!/usr/bin/env python3
"""torch on the same card, for comparison: what one gets without this server.

usage: torch_baseline.py gemm | attention | model SHAPE | compiled SHAPE [--tiny]    one JSON object per line

gemm: bf16 matrix product of 8192^3 on random data. attention: scaled_dot_product_attention for the shapes of
kernel_cases.c (decode over a contiguous f16 cache, causal prefill, CLIP, VQGAN). model: a random bf16 model
of SHAPE (m3, l14) with H-LoRA, decode at batch 1, 8, 32, 64 over a cache of 732 positions and a prefill of
700, with no, either or both plug-ins; eager, and decode also as a replayed CUDA graph. compiled: the same
decode with every layer through torch.compile, then captured as a CUDA graph; "none" is what merged plain
LoRA would cost, an upper bar. The adapter is the reference's: softmax over experts of route x, A x scaled
by it, times B, as separate calls. Times are CUDA events, medians with 10th and 90th percentile. --tiny runs
small shapes on the CPU, untimed, to see that the script works."""
import json
import sys

import torch
import torch.nn.functional as F

SHAPES = {"m3": dict(layers=32, dim=3072, ffn=8192, vocab=40206, heads=32, kv_heads=32, ranks={"com": 64, "gen": 256}),
          "l14": dict(layers=40, dim=5120, ffn=17920, vocab=100352, heads=40, kv_heads=10, ranks={"com": 32, "gen": 128}),
          "tiny": dict(layers=2, dim=64, ffn=96, vocab=128, heads=4, kv_heads=2, ranks={"com": 8, "gen": 16})}
EXPERTS, PROMPT, CONTEXT, BATCHES = 4, 700, 732, (1, 8, 32, 64)
ADAPTERS = {"none": (), "comprehension": ("com",), "generation": ("gen",), "mixed": ("com", "gen")}
# Those of which the compiled model is timed; compiling each takes a while.
COMPILED = (("none", 1), ("comprehension", 1), ("generation", 1), ("mixed", 8), ("comprehension", 32))
# kind, name, batch, query heads, kv heads, queries, keys, head dim
ATTENTION = [("decode", "mha32x96", b, 32, 32, 1, 1024, 96) for b in BATCHES] + \
            [("decode", "gqa40:10x128", b, 40, 10, 1, 1024, 128) for b in BATCHES] + \
            [("prefill", "mha32x96", 1, 32, 32, PROMPT, PROMPT, 96), ("prefill", "gqa40:10x128", 1, 40, 10, PROMPT, PROMPT, 128),
             ("dense", "clip", 1, 16, 16, 577, 577, 64), ("dense", "clip", 4, 16, 16, 577, 577, 64),
             ("dense", "vqgan", 1, 1, 1, 1024, 1024, 512)]


def random(device, *shape, dtype=torch.bfloat16):
    return (torch.randn(shape, device=device, dtype=torch.float32) * 0.02).to(dtype)


# ---- the model: plain functions of tensors, so that one compiled layer serves all layers -----------------

def linear(x, weight, masks):
    """weight: (W, {plug-in: (A, B, route)}); masks: plug-in -> None (every row) or a 0/1 column."""
    w, adapters = weight
    y = F.linear(x, w)
    for name, mask in masks.items():
        a, b, route = adapters[name]
        gate = F.softmax(F.linear(x, route).float(), -1).to(x.dtype)
        gate = gate.repeat_interleave(a.shape[0] // EXPERTS, -1) * 0.5
        delta = F.linear(F.linear(x, a) * gate, b)
        y = y + (delta if mask is None else delta * mask)
    return y


def rms(x, weight):
    v = x.float()
    return (v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def layer(x, weights, norm, cache, pos, cos, sin, masks, heads, kv_heads):
    """x [B, T, D]; cache [2, B, kv_heads, CONTEXT, P], or None: a prefill of its own."""
    qkv, o, gate_up, down = weights
    b, t, d = x.shape
    p = d // heads
    parts = linear(rms(x, norm), qkv, masks).view(b, t, heads + 2 * kv_heads, p).transpose(1, 2)
    q, k, v = parts.split((heads, kv_heads, kv_heads), 1)
    q, k = rope(q, cos, sin), rope(k, cos, sin)
    if cache is not None:
        cache[0, :, :, pos:pos + t] = k
        cache[1, :, :, pos:pos + t] = v
        k, v = cache[0], cache[1]
    y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None, enable_gqa=heads != kv_heads)
    x = x + linear(y.transpose(1, 2).reshape(b, t, d), o, masks)
    gate, up = linear(rms(x, norm), gate_up, masks).chunk(2, -1)
    return x + linear(F.silu(gate) * up, down, masks)


class Model:
    def __init__(self, device, s):
        d, f, p = s["dim"], s["ffn"], s["dim"] // s["heads"]
        self.s, self.device, self.layer = s, device, layer
        self.embed, self.head = random(device, s["vocab"], d), random(device, s["vocab"], d)
        self.norm = torch.ones(d, device=device, dtype=torch.bfloat16)
        shapes = ((d + 2 * s["kv_heads"] * p, d), (d, d), (2 * f, d), (d, f))
        self.layers = [tuple(self.weight(n, k) for n, k in shapes) for _ in range(s["layers"])]
        half = p // 2
        angle = torch.outer(torch.arange(CONTEXT, device=device).float(), 1e4 ** (-torch.arange(half, device=device) / half))
        self.cos, self.sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    def weight(self, n, k):
        return random(self.device, n, k), {name: (random(self.device, r, k), random(self.device, n, r),
                                                  random(self.device, EXPERTS, k)) for name, r in self.s["ranks"].items()}

    def forward(self, ids, caches, pos, masks):
        t, x = ids.shape[1], F.embedding(ids, self.embed)
        cos, sin = self.cos[pos:pos + t], self.sin[pos:pos + t]
        for i, weights in enumerate(self.layers):
            x = self.layer(x, weights, self.norm, caches[i] if caches else None, pos, cos, sin, masks, self.s["heads"],
                           self.s["kv_heads"])
        return F.linear(rms(x[:, -1], self.norm), self.head).argmax(-1)


# ---- timing ------------------------------------------------------------------------------------------

def timed(work, rounds):
    """(median, 10th, 90th percentile) in milliseconds; on the CPU the work runs once, untimed."""
    if not torch.cuda.is_available():
        work()
        return 0.0, 0.0, 0.0
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
    times.sort()
    return times[rounds // 2], times[rounds // 10], times[rounds * 9 // 10]


def graph_of(work):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
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


def named(prefix, times):
    return dict(zip((prefix + "_ms", prefix + "_ms_p10", prefix + "_ms_p90"), times))


def show(**row):
    print(json.dumps(dict(row, torch=torch.__version__)), flush=True)


def decode_step(m, plugin, batch):
    s = m.s
    p = s["dim"] // s["heads"]
    caches = [random(m.device, 2, batch, s["kv_heads"], CONTEXT, p) for _ in range(s["layers"])]
    ids, masks = torch.randint(s["vocab"], (batch, 1), device=m.device), masks_of(m.device, plugin, batch)
    return lambda: m.forward(ids, caches, CONTEXT - 1, masks)


def bench_model(device, shape, batches, prompt):
    m = Model(device, SHAPES[shape])
    for plugin in ADAPTERS:
        if plugin != "mixed":
            ids = torch.randint(m.s["vocab"], (1, prompt), device=device)
            times = timed(lambda: m.forward(ids, None, 0, masks_of(device, plugin, 1)), 10)
            show(what="prefill", shape=shape, plugin=plugin, sequences=1, tokens=prompt, **named("eager", times))
        for batch in batches:
            if plugin == "mixed" and batch == 1:
                continue
            step = decode_step(m, plugin, batch)
            row = named("eager", timed(step, 20))
            if device == "cuda":
                graph = graph_of(step)
                row.update(named("graph", timed(graph.replay, 50)))
                del graph
            show(what="decode", shape=shape, plugin=plugin, sequences=batch, context=CONTEXT, **row)


def bench_compiled(device, shape, cases):
    m = Model(device, SHAPES[shape])
    for plugin, batch in cases:
        torch._dynamo.reset()
        m.layer = torch.compile(layer, dynamic=False, fullgraph=True)
        step = decode_step(m, plugin, batch)
        work = graph_of(step).replay if device == "cuda" else step
        show(what="decode", shape=shape, plugin=plugin, sequences=batch, context=CONTEXT, **named("compiled", timed(work, 50)))


def bench_attention(device, cases):
    for kind, name, batch, heads, kv_heads, queries, keys, p in cases:
        copies = 16 if device == "cuda" else 1  # caches in turns, so that the L2 holds none
        data = [[random(device, batch, h, n, p, dtype=torch.float16) for h, n in
                 ((heads, queries), (kv_heads, keys), (kv_heads, keys))] for _ in range(copies)]

        def work():
            for q, k, v in data:
                F.scaled_dot_product_attention(q, k, v, is_causal=kind == "prefill", enable_gqa=heads != kv_heads)
        times = [t / copies * 1e3 for t in timed(work, 21)]
        show(what=kind, shape=name, sequences=batch, rows=batch * queries, keys=keys, us=times[0], us_p10=times[1], us_p90=times[2])


def gemm():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms = timed(lambda: a @ b, 20)[0]
    show(what="gemm", ms=ms, flops=2 * 8192 ** 3 / ms * 1e3)


def main(argv):
    tiny = "--tiny" in argv
    argv = [a for a in argv if a != "--tiny"]
    if not argv or argv[0] not in ("gemm", "attention", "model", "compiled"):
        sys.exit(__doc__)
    torch.manual_seed(1)
    device, shape = ("cpu", "tiny") if tiny else ("cuda", argv[1] if len(argv) > 1 else "m3")
    with torch.inference_mode():
        if argv[0] == "gemm":
            gemm()
        elif argv[0] == "attention":
            small = [("decode", "mha2x32", 2, 4, 2, 1, 24, 32), ("prefill", "mha2x32", 1, 2, 2, 9, 9, 32)]
            bench_attention(device, small if tiny else ATTENTION)
        elif argv[0] == "compiled":
            bench_compiled(device, shape, COMPILED[2:4] if tiny else COMPILED)
        else:
            bench_model(device, shape, (1, 3) if tiny else BATCHES, 20 if tiny else PROMPT)


main(sys.argv[1:])
