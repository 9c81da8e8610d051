#!/usr/bin/env python3
"""Speed of `healthgpt bench` beside another engine's, in turns on the same machine.

usage: beside.py BUILD_DIR --model DIR --peer 'llama-bench -m FILE.gguf -t 2 -p 512,8 -n 16 -r 1 -o json'
                 [--dtypes int8] [--threads N] [--prompt 512] [--new 17] [--batches 1,8] [--rounds 5]

The peer is any command that prints what llama-bench prints with -o json: a list of objects with n_prompt, n_gen,
avg_ts and model_n_params. Rows with n_prompt = --prompt are its prefill, with n_gen > 0 its decode, and those with as
many prompt tokens as one of --batches stand for a batch (so many rows through every weight, though of one sequence).
Both are given the same threads and the same shape; the shape is checked by the number of weights.

A round is: the peer, the machine's limits, ours for every dtype with the limits after each. What is printed (Markdown) are medians
over the rounds, ratios taken round by round, and shares of the limits seen just before or after, the better of the
two. A busy machine makes all of it worthless (an engine that spins at its barriers suffers more): the load average
is printed, and rounds that began with more than half a CPU of foreign load are counted."""
import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys

LIMITS = ("read", "bf16", "int8")
PEAK = {"f32": None, "f16": None, "bf16": "bf16", "int8": "int8", "fp8": None, "int4": "int8"}
PEER = "peer"


def output(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"beside.py: {command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
    return done.stdout.decode()


class Shape:
    """Weights of the model's base linears, and of its embedding and head."""

    def __init__(self, folder):
        with open(os.path.join(folder, "healthgpt.json"), encoding="utf-8") as f:
            llm = json.load(f)["llm"]
        with open(os.path.join(folder, llm, "config.json"), encoding="utf-8") as f:
            c = json.load(f)
        dim, heads = c["hidden_size"], c["num_attention_heads"]
        kv, head_dim = c.get("num_key_value_heads") or heads, c.get("head_dim") or dim // heads
        layer = dim * head_dim * (2 * heads + 2 * kv) + 3 * dim * c["intermediate_size"]
        self.layers, self.vocab, self.dim = c["num_hidden_layers"], c["vocab_size"], dim
        self.linears, self.head = self.layers * layer, self.vocab * dim

    def check(self, n_params):
        ours = self.linears + 2 * self.head
        if not 0.97 < n_params / ours < 1.03:
            sys.exit(f"beside.py: the peer's model has {n_params / 1e9:.3f} G weights, ours {ours / 1e9:.3f} G: another shape")


def limits(a):
    return json.loads(output([f"{a.build}/kernel-bench", "limits", str(a.threads)]))


def better(a, b):
    return {k: max(a[k], b[k]) for k in LIMITS}


def ours(a, dtype):
    text = output([f"{a.build}/healthgpt", "bench", "--json", "--model", a.model, "--backend", "cpu", "--dtype", dtype,
                   "--threads", str(a.threads), "--prompt-tokens", str(a.prompt), "--max-tokens", str(a.new),
                   "--batches", a.batches, "--plugins", a.plugins])
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def peer(a, shape):
    rows = json.loads(output(shlex.split(a.peer)))
    for r in rows:
        shape.check(r["model_n_params"])
    if any(r.get("n_threads", a.threads) != a.threads for r in rows):
        sys.exit(f"beside.py: the peer runs {rows[0]['n_threads']} threads, ours {a.threads}")
    return rows


def measure(a, shape):
    rounds, before = [], None
    for i in range(a.rounds):
        done = {"load": os.getloadavg()[0], "runs": {}}
        done["peer"] = peer(a, shape)
        now = limits(a)
        for r in done["peer"]:  # the first round begins without: a wrong peer is refused before any long work
            r["limits"] = better(before or now, now)
        for dtype in a.dtypes.split(","):
            done["runs"][dtype], before = ours(a, dtype), now
            now = limits(a)
            for r in done["runs"][dtype]:
                r["limits"] = better(before, now)
        before = now
        rounds.append(done)
        print(f"round {i + 1} of {a.rounds}, load average {done['load']:.1f}", file=sys.stderr)
    return rounds


def middle(values):
    return statistics.median(list(values))


def peer_rate(a, done, batch):
    """Tokens per second and limits of the peer's row: batch 0 is the prompt, 1 decode."""
    for r in done["peer"]:
        is_decode = r["n_gen"] > 0 and r["n_prompt"] == 0
        wanted = a.prompt if batch == 0 else batch
        if is_decode if batch == 1 else (not is_decode and r["n_prompt"] == wanted):
            return r["avg_ts"], r["limits"]
    return None


def run_of(done, dtype, plugin, batch):
    return next(r for r in done["runs"][dtype] if r["plugin"] == plugin and r["sequences"] == batch)


def percent(parts):
    part = middle(parts)
    return f"{100 * part:.0f} %" + (" (the limit was seen too low: not idle)" if part > 1.05 else "")


def line(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |")


def prefill_table(a, shape, rounds):
    line("prefill", f"tokens/s, {a.prompt} tokens", "GOP/s", "of the arithmetic peak", "times the peer, median (least to most)")
    line(*["---"] * 5)
    work = 2 * shape.linears
    for dtype in a.dtypes.split(","):
        for plugin in a.plugins.split(","):
            rates, shares, ratios = [], [], []
            for done in rounds:
                r = run_of(done, dtype, plugin, 1)
                rates.append(r["prefill_tokens_per_s"])
                if PEAK[dtype]:
                    shares.append(work * rates[-1] / r["limits"][PEAK[dtype]])
                them = peer_rate(a, done, 0)
                ratios += [rates[-1] / them[0]] if them else []
            line(f"{dtype}, {plugin}", f"{middle(rates):.1f}", f"{work * middle(rates) / 1e9:.0f}",
                 percent(shares) if shares else "-",
                 f"{middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-")
    them = [peer_rate(a, done, 0) for done in rounds if peer_rate(a, done, 0)]
    if them:
        line(PEER, f"{middle(t for t, _ in them):.1f}", f"{work * middle(t for t, _ in them) / 1e9:.0f}",
             percent([work * t / l[a.peer_peak] for t, l in them]), "1")


def decode_table(a, shape, rounds):
    line("decode", "batch", "ms/step", "GB/s", "of read bandwidth", "times batch 1", "times the peer's tokens/s")
    line(*["---"] * 7)
    batches = [int(b) for b in a.batches.split(",")]
    for dtype in a.dtypes.split(","):
        for plugin in a.plugins.split(","):
            for batch in batches:
                runs = [run_of(done, dtype, plugin, batch) for done in rounds]
                ms, size = [r["step_ms_p50"] for r in runs], runs[0]["step_bytes"]
                first = [run_of(done, dtype, plugin, batches[0])["step_ms_p50"] for done in rounds]
                ratios = [batch * 1e3 / m / peer_rate(a, done, batch)[0] for m, done in zip(ms, rounds) if peer_rate(a, done, batch)]
                line(f"{dtype}, {plugin}", batch, f"{middle(ms):.2f}", f"{size / middle(ms) / 1e6:.1f}",
                     percent([size / m * 1e3 / r["limits"]["read"] for m, r in zip(ms, runs)]),
                     f"{middle(m / f for m, f in zip(ms, first)):.2f}", f"{middle(ratios):.2f}" if ratios else "-")
    size = a.peer_bits / 8 * (shape.linears + shape.head)
    for batch in batches:
        them = [peer_rate(a, done, batch) for done in rounds if peer_rate(a, done, batch)]
        if them:
            ms = [batch * 1e3 / t for t, _ in them]
            line(PEER + ("" if batch == 1 else f" ({batch} prompt tokens at once)"), batch, f"{middle(ms):.2f}", f"{size / middle(ms) / 1e6:.1f}",
                 percent([size / m * 1e3 / l["read"] for m, (_, l) in zip(ms, them)]), "", "1")


def bare(command):
    """The command without the folders of this machine."""
    return " ".join(os.path.basename(word) if word.startswith(("/", ".", "~")) else word for word in shlex.split(command))


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        text = f.read()
    values = dict(l.split(":", 1) for l in text.split("\n\n")[0].splitlines() if ":" in l)
    values = {k.strip(): v.strip() for k, v in values.items()}
    flags = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in values.get("flags", "").split()]
    return f"{values.get('model name', 'unknown')} (family {values.get('cpu family')}, model {values.get('model')}; {' '.join(flags)})"


def report(a, shape, rounds):
    first = rounds[0]["peer"][0]
    version = output([f"{a.build}/healthgpt", "--version"]).splitlines()[0]
    seen = [r["limits"] for done in rounds for runs in done["runs"].values() for r in runs]
    foreign = [done["load"] for done in rounds]
    noisy = sum(1 for x in foreign if x > 0.5)
    print(f"- {datetime.date.today()}, {cpu_model()}, {a.threads} threads; {version}")
    print(f"- limits seen (medians): read {middle(l['read'] for l in seen) / 1e9:.1f} GB/s, bf16 {middle(l['bf16'] for l in seen) / 1e9:.0f} GFLOP/s, "
          f"int8 {middle(l['int8'] for l in seen) / 1e9:.0f} GOP/s")
    print(f"- model: {shape.layers} layers, dim {shape.dim}, vocabulary {shape.vocab}, {shape.linears / 1e9:.3f} G weights in linears "
          f"({2 * shape.linears / 1e9:.2f} GOP a token), {shape.head / 1e9:.3f} G in the head; random")
    print(f"- peer: `{bare(a.peer)}`, build {first.get('build_commit', 'unknown')}, {first.get('model_type', '')}")
    print(f"- {a.rounds} rounds in turns; load average at their starts {min(foreign):.1f} to {max(foreign):.1f}"
          + (f": {noisy} of them on a machine that was not idle" if noisy else ""))
    print()
    prefill_table(a, shape, rounds)
    print()
    decode_table(a, shape, rounds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--model", required=True, help="folder with healthgpt.json, of random-model for example")
    p.add_argument("--peer", required=True)
    p.add_argument("--peer-peak", default="int8", choices=("int8", "bf16"), help="limit of the peer's prefill arithmetic")
    p.add_argument("--peer-bits", type=float, default=8.5, help="of a weight of the peer: 8.5 for Q8_0, 4.5 for Q4_0")
    p.add_argument("--dtypes", default="int8")
    p.add_argument("--plugins", default="none,comprehension")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--new", type=int, default=17)
    p.add_argument("--batches", default="1,8")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--json", help="write every round's figures here")
    a = p.parse_args()
    shape = Shape(a.model)
    rounds = measure(a, shape)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(rounds, f)
    report(a, shape, rounds)


main()
