"""Random models in the published formats, and what `forward` (tools/oracle) makes of them."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import torch

from twins import HLora

STORED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Folder:
    """A folder of its own for one model; gone after `with`."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="hg-parity-"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def forward(program, jobs):
    """Each job gets its output file's bytes; raises with the program's message."""
    with Folder() as d:
        for i, job in enumerate(jobs):
            job["out"] = str(d / ("%d.out" % i))
        (d / "jobs.json").write_text(json.dumps(jobs))
        p = subprocess.run([program, d / "jobs.json"], capture_output=True, text=True)
        if p.returncode:
            raise RuntimeError("%s: %s" % (json.dumps(jobs)[:300], p.stderr.strip()))
        return [(d / ("%d.out" % i)).read_bytes() for i in range(len(jobs))]


def answers(data):
    """The sequences of an llm job: [(ids, logits)]."""
    out, at = [], 0
    while at < len(data):
        n, v = np.frombuffer(data, "<i4", 2, at)
        ids = np.frombuffer(data, "<i4", n, at + 8)
        logits = np.frombuffer(data, "<f4", n * v, at + 8 + 4 * n).reshape(n, v)
        out.append((ids, torch.from_numpy(logits.copy())))
        at += 8 + 4 * n + 4 * n * v
    return out


def unit_gain(module, g):
    """Parameters at which a deep random model has activations near 1 and lively logits."""
    tied = getattr(module.config, "tie_word_embeddings", False)
    with torch.no_grad():
        for name, p in module.named_parameters():
            n = torch.randn(p.shape, generator=g)
            if p.ndim == 1:
                p.copy_(1 + 0.1 * n if "norm" in name and name.endswith("weight") else 0.1 * n)
            elif "embed_tokens" in name and not tied:
                p.copy_(n)
            else:
                p.copy_(n * (2.3 if "lm_head" in name or "embed_tokens" in name else 1.0) * p[0].numel() ** -0.5)


def round_to(state, kind, rng):
    """state with values and dtypes as stored; kind "mix": a type for each tensor."""
    return {k: v.to(STORED[kind if kind != "mix" else rng.choice(sorted(STORED))]) for k, v in state.items()}


def save_llm(model, folder, rng):
    """Values rounded to a drawn storage type, written by save_pretrained in a drawn container; the model then holds them too."""
    kind, shard = rng.choice(["fp32", "bf16", "fp16", "mix"]), rng.choice(["5GB", "300KB"])
    stored = round_to(model.state_dict(), kind, rng)
    safe = rng.random() < 0.75 or model.config.tie_word_embeddings
    model.save_pretrained(folder, state_dict=stored, safe_serialization=safe, max_shard_size=shard)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(stored[name].float())
    return "%s %s%s" % (kind, "safetensors" if safe else "bin", " shards" if shard != "5GB" else "")


def plug_in(model, linears, slot, rows, g, rng):
    """Random H-LoRA tensors and, when rows, own tables: ({published name: tensor}, {module: (A, B, R, alpha)}, tables, alpha)."""
    e = rng.choice([1, 2, 4, 8])
    r, alpha, files, plugs, tables = e * rng.choice([1, 2, 4, 8, 16]), rng.choice([2, 16, 32, 128]), {}, {}, {}
    kind = rng.choice(["bf16", "bf16", "fp32", "fp16"])

    def tensor(name, shape, std):
        files["base_model.model." + name] = t = (torch.randn(shape, generator=g) * std).to(STORED[kind])
        return t.float()

    for name, m in model.named_modules():
        if name.split(".")[-1] not in linears:
            continue
        n_out, n_in = m.weight.shape
        gain = 0.2 / (alpha / r * e)
        plugs[name] = (tensor(name + ".lora_A.weight", (r, n_in), n_in ** -0.5),
                       tensor(name + ".lora_B.weight", (n_out, r), gain * r ** -0.5 * e),
                       tensor(name + ".lora_route.weight", (e, n_in), 2 * n_in ** -0.5), alpha)
    if rows:
        d = model.config.hidden_size
        tables = {n: tensor(n, (rows, d), s) for n, s in (("model.embed_tokens.weight", 1), ("lm_head.weight", 2.3 * d ** -0.5))}
    return files, plugs, tables, alpha


class Plugged:
    """A transformers model with H-LoRA on every linear of its decoder, one plug-in active at a time."""

    def __init__(self, model, plugs, tables):
        self.model, self.tables, self.wrapped = model, tables, []
        self.base = {n: model.get_parameter(n).data for n in ("model.embed_tokens.weight", "lm_head.weight")}
        for name in plugs[0] if plugs else []:
            parent, leaf = model.get_submodule(name.rsplit(".", 1)[0]), name.rsplit(".", 1)[1]
            module = HLora(getattr(parent, leaf), {s: p[name] for s, p in plugs.items()})
            setattr(parent, leaf, module)
            self.wrapped.append(module)

    def choose(self, slot):
        for m in self.wrapped:
            m.active = slot
        own, half = self.tables.get(slot, {}), self.model.lm_head.weight.dtype
        for name, base in self.base.items():
            self.model.get_parameter(name).data = own.get(name, base).to(half)

    @torch.no_grad()
    def greedy(self, ids, slot, n):
        """As the scripts run it: embeddings in, a cache, one token a step; the lowest id wins ties."""
        self.choose(slot)
        x, cache, out, rows = self.model.get_input_embeddings()(torch.tensor([ids])), None, [], []
        for _ in range(n):
            y = self.model(inputs_embeds=x, past_key_values=cache, use_cache=True)
            cache, logits = y.past_key_values, y.logits[0, -1].float()
            rows.append(logits)
            out.append(int((logits == logits.max()).nonzero()[0, 0]))
            x = self.model.get_input_embeddings()(torch.tensor([out[-1:]]))
        return out, torch.stack(rows)


def write_card(folder, name, tasks):
    """tasks: [(plug-in file or None, alpha) or None] of comprehension and generation."""
    cards = {key: t and {"hlora": t[0], "fusion": None, "alpha": t[1], "vision_layer": -2, "max_new_tokens": 64}
             for key, t in zip(("comprehension", "generation"), tasks)}
    card = {"format": 1, "name": name, "architecture": "healthgpt", "llm": "llm", "vision": None, "vqgan": None,
            "template": "phi3_instruct", "rope_inv_freq": "fp32", "license": "none", "notice": "random weights", "tasks": cards}
    (folder / "healthgpt.json").write_text(json.dumps(card))


class double_sums:
    """Half products summed in double, as ours are: what then differs is a rounding point, and no order of additions."""

    def __enter__(self):
        f = torch.nn.functional
        self.kept = linear, matmul, attend = f.linear, torch.matmul, f.scaled_dot_product_attention

        def wide(x, *others):
            return [t if t is None else t.double() for t in (x, *others)] if x.dtype == torch.float16 else None

        f.linear = lambda x, w, b=None: linear(*wide(x, w, b)).float().half() if wide(x) else linear(x, w, b)
        torch.matmul = lambda a, b: matmul(*wide(a, b)).float().half() if wide(a) else matmul(a, b)
        f.scaled_dot_product_attention = lambda q, k, v, **how: attend(*wide(q, k, v), **how).float().half()

    def __exit__(self, *_):
        f = torch.nn.functional
        f.linear, torch.matmul, f.scaled_dot_product_attention = self.kept


class Tally:
    """Worst differences of a group, and what must hold."""

    def __init__(self, group):
        self.group, self.worst, self.n, self.bad, self.shares = group, {}, {}, [], {}

    def add(self, key, difference, bound, what, n=0):
        difference = float("inf") if difference != difference else difference
        self.worst[key] = max(self.worst.get(key, 0), difference)
        self.n[key] = self.n.get(key, 0) + n
        if difference > bound:
            self.bad.append("%s: %s: %.3g over %g" % (what, key, difference, bound))

    def share(self, key, equal, n):
        a, b = self.shares.get(key, (0, 0))
        self.shares[key] = a + equal, b + n

    def equal(self, ours, theirs, gaps, what):
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
        if at is not None or len(ours) != len(theirs):
            self.bad.append("%s: token %s differs, gap %s" % (what, at, None if at is None or gaps is None else float(gaps[at])))

    def end(self):
        for line in self.bad:
            print("FAIL %s %s" % (self.group, line))
        worst = ["%s %.2e%s" % (k, w, " (%d)" % self.n[k] if self.n[k] else "") for k, w in self.worst.items()]
        shares = ["%s %.1f %% of %d" % (k, 100 * a / b, b) for k, (a, b) in self.shares.items()]
        print("%s %s: %s" % ("FAIL" if self.bad else "ok  ", self.group, "; ".join(worst + shares)), flush=True)
        return not self.bad


def gaps(logits):
    top = logits.topk(2, -1).values
    return top[:, 0] - top[:, 1]
