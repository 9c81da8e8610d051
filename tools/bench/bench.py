#!/usr/bin/env python3
"""Speed of the whole model and of its kernels as shares of what this machine can do.

usage: bench.py BUILD_DIR [--rounds N] [--no-kernels]
Writes a random model once (build/bench-model, 1.5 GB) and runs `healthgpt bench` on it in bf16,
int8, fp8 and int4. The machine's limits are measured before and after every run, the better of the two counts for
it: shared memory changes its speed within minutes. Figures and shares are medians over the rounds; a
share above 105 % is a bug of the bench."""
import argparse
import json
import os
import statistics
import subprocess
import sys

MODEL = "build/bench-model"
LAYERS, DIM, FFN, VOCAB, RANK, EXPERTS = 12, 2048, 5632, 8192, 64, 4
PROMPT, NEW, BATCHES = 252, 24, (4, 8)
LINEARS = ((3 * DIM, DIM), (DIM, DIM), (2 * FFN, DIM), (DIM, FFN))  # of a layer: (outputs, inputs)
BASE = LAYERS * sum(n * k for n, k in LINEARS)
ADAPTERS = LAYERS * sum(RANK * (n + k) + EXPERTS * k for n, k in LINEARS)
HEAD = VOCAB * DIM
BYTES = {"bf16": 2, "int8": 1, "fp8": 1, "int4": 0.5 + 2 / 128}
PEAK = {"bf16": "bf16", "int8": "int8", "fp8": "fp32", "int4": "int8"}  # what bounds its arithmetic
LIMITS = ("read", "fp32", "bf16", "int8")


def step_bytes(kind, batch):
    """What a decode step has to read: weights once, the adapters of one task (bf16), the KV cache
    (f16) of every sequence at its mean length."""
    cache = batch * (PROMPT + NEW / 2) * LAYERS * 2 * DIM * 2
    return (BASE + HEAD) * BYTES[kind] + ADAPTERS * 2 + cache


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()


def make_model(build):
    if os.path.exists(f"{MODEL}/healthgpt.json"):
        return
    fresh = f"{MODEL}.{os.getpid()}"
    output(f"{build}/random-model", fresh, *map(str, (LAYERS, DIM, FFN, VOCAB)))
    os.rename(fresh, MODEL)


def measure(build, rounds):
    measure_limits = lambda: json.loads(output(f"{build}/kernel-bench", "limits"))
    limits, speed = [measure_limits()], {}
    for _ in range(rounds):
        for batch in BATCHES:
            for kind in BYTES:
                lines = output(f"{build}/healthgpt", "bench", "--json", "--model", MODEL,
                               "--backend", "cpu", "--dtype", kind, "--max-batch", str(batch),
                               "--prompt-tokens", str(PROMPT), "--max-tokens", str(NEW))
                limits.append(measure_limits())
                for run in map(json.loads, lines.splitlines()):
                    run.update({k: max(limits[-2][k], limits[-1][k]) for k in LIMITS})
                    speed.setdefault((kind, run["sequences"]), []).append(run)
    return limits, speed


def median(runs, key):
    return statistics.median(r[key] for r in runs)


def share(parts):
    part = statistics.median(parts)
    return f"{100 * part:3.0f} %" + (" BUG OF THE BENCH" if part > 1.05 else "")


def report(limits, speed):
    read, peak = median(limits, "read"), {k: median(limits, k) for k in LIMITS}
    print(f"machine: {limits[0]['threads']} threads, read {read / 1e9:.1f} GB/s, "
          f"fp32 {peak['fp32'] / 1e9:.0f}, bf16 {peak['bf16'] / 1e9:.0f} GFLOP/s, int8 {peak['int8'] / 1e9:.0f} GOP/s")
    print(f"model: {LAYERS} layers, dim {DIM}, {(BASE + HEAD) / 1e9:.2f} G weights, rank {RANK} "
          f"adapters; prompt {PROMPT}, {NEW} new tokens")
    print(f"\n{'decode':8}{'batch':>6}{'tokens/s':>10}{'ms/step':>9}{'MB/token':>10}{'GB/s':>7}"
          "  of read")
    for (kind, batch), runs in sorted(speed.items()):
        ms, size = median(runs, "decode_step_ms"), step_bytes(kind, batch)
        shares = [size / r["decode_step_ms"] * 1e3 / r["read"] for r in runs]
        print(f"{kind:8}{batch:6}{batch * 1e3 / ms:10.1f}{ms:9.2f}{size / batch / 1e6:10.1f}"
              f"{size / ms / 1e6:7.1f}  {share(shares)}")
    print(f"\n{'prefill':14}{'tokens/s':>10}{'GFLOP/s':>9}  of peak")
    for kind in BYTES:
        runs = [r for key, all_runs in speed.items() if key[0] == kind for r in all_runs]
        tokens, work = median(runs, "prefill_tokens_per_s"), 2 * (BASE + ADAPTERS)
        shares = [work * r["prefill_tokens_per_s"] / r[PEAK[kind]] for r in runs]
        print(f"{kind:14}{tokens:10.1f}{work * tokens / 1e9:9.0f}  {share(shares)}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--no-kernels", action="store_true")
    a = p.parse_args()
    make_model(a.build)
    report(*measure(a.build, a.rounds))
    sys.stdout.flush()
    if not a.no_kernels:
        print("\nkernels alone")
        sys.stdout.flush()
        subprocess.run([f"{a.build}/kernel-bench"], check=True)


main()
