"""Goldens of the random tiny models: tests/golden/llm/<name>.json for every entry of specs.json.

Each holds a prompt, >= 256 greedy ids and some rows of logits per task, from the PyTorch twin in fp32.
A model whose smallest gap between the two best logits is under 4e-3 is refused (choose another
`salt`): token equality would then test luck."""
import json
import pathlib
import sys

import torch

from llm import LLM, check_against_transformers
from weights import tensor, uniform

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/llm"
N_TOKENS, KEPT_ROWS = 260, (0, 1, 64, 200, 259)


def base_shapes(c):
    d, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    p = d // c["num_attention_heads"]
    q, g = d, c["num_key_value_heads"] * p
    linears = {}
    if c["model_type"] == "phi3":
        linears = {"self_attn.qkv_proj": (q + 2 * g, d), "self_attn.o_proj": (d, q),
                   "mlp.gate_up_proj": (2 * f, d), "mlp.down_proj": (d, f)}
    else:
        linears = {"self_attn.q_proj": (q, d), "self_attn.k_proj": (g, d), "self_attn.v_proj": (g, d),
                   "self_attn.o_proj": (d, q), "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d),
                   "mlp.down_proj": (d, f)}
    return linears, (v, d)


def make(spec):
    """The tensors of one tiny model; tests/parity/tiny_model.c makes the same ones."""
    c, salt = spec["config"], spec["salt"]
    linears, table = base_shapes(c)
    d = c["hidden_size"]

    def t(name, shape, scale, offset=0.0):
        return torch.from_numpy(tensor(salt + name, shape, scale, offset))

    w = {"model.embed_tokens.weight": t("model.embed_tokens.weight", table, 1.0),
         "lm_head.weight": t("lm_head.weight", table, 4.0 / d**0.5),
         "model.norm.weight": t("model.norm.weight", (d,), 0.2, 1.0)}
    plugs, tables = {}, {}
    for i in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % i
        for n in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            w[p + n] = t(p + n, (d,), 0.2, 1.0)
        for n, (rows, cols) in linears.items():
            w[p + n + ".weight"] = t(p + n + ".weight", (rows, cols), (3.0 / cols)**0.5)
            if c["model_type"] == "qwen2" and n[-6:] in ("q_proj", "k_proj", "v_proj"):
                w[p + n + ".bias"] = t(p + n + ".bias", (rows,), 0.1)
    for slot, task in enumerate(spec["tasks"]):
        if task is None:
            continue
        r, e, s = task["rank"], task["experts"], "%d." % slot
        plug = {}
        for i in range(c["num_hidden_layers"]):
            for n, (rows, cols) in linears.items():
                name = "model.layers.%d.%s" % (i, n)
                plug[name + ".lora_A.weight"] = t(s + name + ".lora_A.weight", (r, cols), (3.0 / cols)**0.5)
                plug[name + ".lora_B.weight"] = t(s + name + ".lora_B.weight", (rows, r), 0.2 / r**0.5)
                plug[name + ".lora_route.weight"] = t(s + name + ".lora_route.weight", (e, cols), 3.0 / cols**0.5)
        plugs[slot] = (plug, task["alpha"])
        if task.get("fusion_rows"):
            shape = (task["fusion_rows"], d)
            tables[slot] = {"model.embed_tokens.weight": t(s + "model.embed_tokens.weight", shape, 1.0),
                            "lm_head.weight": t(s + "lm_head.weight", shape, 4.0 / d**0.5)}
    return w, plugs, tables


def golden(spec):
    w, plugs, tables = make(spec)
    c = spec["config"]
    model = LLM(c, w, plugs, tables)
    ids = [int(u * c["vocab_size"]) for u in uniform(spec["salt"] + "prompt", spec["n_prompt"])]
    gap_hf = check_against_transformers(c, w, ids)
    assert gap_hf < 1e-4, "%s: twin differs from transformers by %g" % (spec["name"], gap_hf)
    out = {"prompt": ids, "tasks": []}
    for slot, task in enumerate(spec["tasks"]):
        if task is None:
            out["tasks"].append(None)
            continue
        tokens, logits = model.greedy(model.embed(torch.tensor(ids), slot), slot, N_TOKENS)
        top = logits.topk(2, -1).values
        gap = (top[:, 0] - top[:, 1]).min().item()
        print("%s task %d: distinct %d, smallest gap %.4f, transformers %.1e" %
              (spec["name"], slot, len(set(tokens)), gap, gap_hf))
        if gap < 4e-3 or len(set(tokens)) < 12:
            return None
        out["tasks"].append({"ids": tokens, "logits": {
            str(r): [round(x, 5) for x in logits[r].tolist()] for r in KEPT_ROWS}})
    return out


def main():
    path = ROOT / "specs.json"
    specs = json.loads(path.read_text())
    for spec in specs:
        for attempt in range(200):
            out = golden(spec)
            if out:
                break
            spec["salt"] = "%s-%d." % (spec["name"], attempt + 1)
        (ROOT / (spec["name"] + ".json")).write_text(json.dumps(out, separators=(",", ":")) + "\n")
    path.write_text(json.dumps(specs, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
