#!/usr/bin/env python3
"""Make the tiny torch files of this folder, and expected.tsv: what torch itself reads from every file.

Needs PyTorch and safetensors. Run from the root of the checkout: python tests/data/weights/make.py
The first column of expected.tsv is a path below the shared data ("shared:...") or below this folder.
The crc is zlib.crc32 of the elements in row-major order in their own type."""
import argparse
import collections
import glob
import os
import pathlib
import zlib

import torch
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("HG_SHARED", os.path.join(HERE, "../../../../shared"))
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


class Callback:
    """Stands for a training callback: an object whose class nobody else has."""

    def __init__(self):
        self.best = torch.tensor(0.25)


def make_files():
    g = torch.Generator().manual_seed(7)
    rand = lambda *s: torch.randn(*s, generator=g)
    base = rand(6, 8)
    views = {"whole": base, "transposed": base.t(), "slice": base[1:5:2, ::3], "row": base[3],
             "column": base[:, 2], "positions": torch.arange(7).expand(1, -1), "scalar": base[2, 2],
             "empty": torch.zeros(0, 3), "permuted": rand(2, 3, 4).permute(2, 0, 1)}
    torch.save(views, os.path.join(HERE, "views.pt"))
    torch.save(views, os.path.join(HERE, "views_legacy.pth"), _use_new_zipfile_serialization=False)
    torch.manual_seed(7)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2, bias=False))
    torch.save(net.state_dict(), os.path.join(HERE, "module.pt"))
    marked = torch.nn.Parameter(rand(2, 2))
    marked.note = "with an attribute"
    torch.save({"plain": torch.nn.Parameter(rand(3)), "marked": marked}, os.path.join(HERE, "parameters.pt"))
    torch.save({"bf16": rand(3, 5).bfloat16(), "f16": rand(3, 5).half().t(), "f64": rand(2).double()},
               os.path.join(HERE, "types.pt"))
    torch.save({"epoch": 3, "global_step": 1 << 40, "lr": 1e-3, "pytorch-lightning_version": "1.0.8",
                "state_dict": net.state_dict(), "callbacks": {Callback: {"best": rand(1), "seen": {1, 2}}},
                "hyper_parameters": argparse.Namespace(folder=pathlib.PurePosixPath("/x"), sizes=[1, 2], raw=b"\x00\x01"),
                "optimizer_states": [{"state": {0: {"exp_avg": rand(3, 4), "cb": Callback()}}, "param_groups": [{"betas": (0.9, 0.999)}]}],
                "seed": 1 << 90, "lr_schedulers": [None, True]},
               os.path.join(HERE, "lightning.ckpt"))


def flatten(prefix, value, out):
    if isinstance(value, torch.Tensor):
        out.append((prefix, value))
    elif isinstance(value, dict):
        for k, v in value.items():
            if isinstance(k, (str, int)):
                flatten(prefix + "." + str(k) if prefix else str(k), v, out)
    elif isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            flatten("%s.%d" % (prefix, i) if prefix else str(i), v, out)


def crc(t):
    t = t.detach().contiguous().reshape(-1)
    return zlib.crc32(t.view(torch.uint8).numpy().tobytes() if t.numel() else b"")


def rows(shown, path):
    if path.endswith(".safetensors"):
        root = load_file(path)
    else:
        # Files of this folder are our own; those of others are read with the restricted unpickler.
        root = torch.load(path, map_location="cpu", weights_only=not path.startswith(HERE))
        if isinstance(root, dict) and isinstance(root.get("state_dict"), (dict, collections.OrderedDict)):
            root = root["state_dict"]
    out = []
    flatten("", root, out)
    for name, t in sorted(out):
        yield "\t".join([shown, name, TYPES[t.dtype], ",".join(map(str, t.shape)) or "-", "%08x" % crc(t)])


def main():
    make_files()
    lines = []
    for p in sorted(glob.glob(os.path.join(HERE, "*.pt")) + glob.glob(os.path.join(HERE, "*.pth")) + glob.glob(os.path.join(HERE, "*.ckpt"))):
        lines += rows(os.path.basename(p), p)
    top = os.path.join(SHARED, "data/weights_formats")
    found = [p for d in ("burn", "candle", "medvqa") for p in glob.glob(os.path.join(top, d, "**/*"), recursive=True)]
    found.append(os.path.join(top, "hostile_pickles/data/pytorch_model.bin"))
    for p in sorted(found):
        if not p.endswith((".pt", ".pth", ".safetensors", ".bin")) or p.endswith("/broken.pt"):
            continue
        lines += rows("shared:" + os.path.relpath(p, SHARED), p)
    with open(os.path.join(HERE, "expected.tsv"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(len(lines), "tensors of", len({x.split("\t")[0] for x in lines}), "files")


if __name__ == "__main__":
    main()
