"""Goldens of numerics "strict": tests/golden/strict/<name>.json for two of the tiny models of specs.json.

The twin of llm.py in half tensors, as the reference's FP16 run rounds (reference.md 4-6): Phi-3 with eager attention and a
window, Qwen2 with biases and fused attention; both with their plug-ins and rotary frequencies in FP16. Each task keeps its
ids, every step's gap between the two best logits (ids must agree up to the first under 0.05) and some rows of logits.
tests/parity/live compares the same with transformers' own modules in float16."""
import json
import pathlib
import sys

import torch

from golden_llm import ROOT, make
from llm import LLM
from weights import uniform

NAMES, N_TOKENS, KEPT_ROWS = ("phi3_gqa4_p80_window", "qwen2_gqa5_p64"), 64, (0, 1, 5, 20, 63)


def golden(spec):
    w, plugs, tables = make(spec)
    model = LLM(spec["config"], w, plugs, tables, half=True, rope="fp16")
    ids, tasks = [int(u * spec["config"]["vocab_size"]) for u in uniform(spec["salt"] + "prompt", spec["n_prompt"])], []
    for slot, task in enumerate(spec["tasks"]):
        if task is None:
            tasks.append(None)
            continue
        tokens, logits = model.greedy(model.embed(torch.tensor(ids), slot), slot, N_TOKENS)
        top = logits.topk(2, -1).values
        gaps = (top[:, 0] - top[:, 1]).tolist()
        tasks.append({"ids": tokens, "gaps": [round(g, 4) for g in gaps],
                      "logits": {str(r): [round(x, 5) for x in logits[r].tolist()] for r in KEPT_ROWS}})
        print("%s task %d: smallest gap %.4f" % (spec["name"], slot, min(gaps)))
    return {"prompt": ids, "tasks": tasks}


def main():
    out = ROOT.parent / "strict"
    out.mkdir(exist_ok=True)
    for spec in json.loads((ROOT / "specs.json").read_text()):
        if spec["name"] in NAMES:
            (out / (spec["name"] + ".json")).write_text(json.dumps(golden(spec), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
