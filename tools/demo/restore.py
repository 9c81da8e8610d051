#!/usr/bin/env python3
"""Rebuild the work folder of train.py from an exported model, to train further seeds on the same base.

    restore.py --model config/models/demo --work build/demo

Writes the codec, the base language model, and tower and plug-ins of the exported seed as 16-bit files hold them.
The base checkpoint lacks the rows of the image tokens (they live in the fusion file): these come from there.
"""
import argparse
import os
import shutil

import torch

import lm
import prompt
import torch_engine


def save(work, name, obj):
    torch.save(obj, os.path.join(work, name))
    open(os.path.join(work, name + ".done"), "w").close()


def base_with_image_rows(engine):
    """The base of the given engine with the tables that training uses: text rows + image-token rows."""
    model = lm.LM()
    state = {k: v for k, v in engine.base.state_dict().items() if not k.startswith("tables.")}
    for name in ("embed", "head"):
        rows = getattr(engine.fusion, name).weight.data.clone()
        rows[:prompt.N_BASE] = getattr(engine.base.tables, name).weight.data[:prompt.N_BASE]
        state["tables.%s.weight" % name] = rows
    model.load_state_dict(state)
    return model


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--work", required=True)
    p.add_argument("--seed", type=int, default=0, help="number the exported tower and plug-ins get")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    engine = torch_engine.TorchEngine(a.model)
    shutil.copy(os.path.join(a.model, "llm", "tokenizer.model"), a.work)
    step = torch.load(os.path.join(a.model, "vqgan", "last.ckpt"), weights_only=True)["global_step"]
    save(a.work, "vqgan_0.pt", {"model": engine.codec.state_dict(), "step": step})
    save(a.work, "base.pt", {"model": base_with_image_rows(engine).state_dict()})
    save(a.work, "vit_%d.pt" % a.seed, {"model": engine.tower.state_dict()})
    save(a.work, "com_%d.pt" % a.seed, {"model": engine.plugs["com"].state_dict()})
    save(a.work, "gen_%d.pt" % a.seed, {"model": engine.plugs["gen"].state_dict(), "tables": engine.fusion.state_dict()})


if __name__ == "__main__":
    main()
