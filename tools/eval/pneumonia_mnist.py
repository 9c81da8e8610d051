#!/usr/bin/env python3
"""PneumoniaMNIST's test split as sets for the demo model: pneumonia_mnist.py NPZ DIR [LIMIT]

Writes DIR/images/NNNN.png (28 x 28, grey) and
  questions.jsonl    "Is there evidence of pneumonia?" about each: the prompts of tools/demo/evaluate.py
  reconstruct.jsonl  pairs: draw each again
  chexpert.csv       the class Pneumonia as a label, the other 13 uncertain
The npz is MedMNIST v2's (CC BY 4.0) and stays where it is. Standard library only.
"""
from __future__ import annotations

import ast
import csv
import json
import os
import struct
import sys
import zipfile
import zlib

from chexpert import CLASSES

QUESTION = "Is there evidence of pneumonia?"


def npy(path: str, name: str) -> tuple[tuple[int, ...], bytes]:
    """(shape, bytes) of a uint8 array in an npz."""
    with zipfile.ZipFile(path) as z:
        data = z.read(name + ".npy")
    if data[:6] != b"\x93NUMPY":
        raise ValueError("%s: %s: expected an npy array" % (path, name))
    wide = data[6] > 1
    n, = struct.unpack("<I" if wide else "<H", data[8:12 if wide else 10])
    at = 12 if wide else 10
    head = ast.literal_eval(data[at:at + n].decode("latin-1"))
    if head["descr"] not in ("|u1", "u1") or head["fortran_order"]:
        raise ValueError("%s: %s: expected uint8 in C order, got %r" % (path, name, head))
    return head["shape"], data[at + n:]


def grey_png(width: int, height: int, pixels: bytes) -> bytes:
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + \
        chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make(path: str, folder: str, limit: int = 0) -> int:
    """Returns how many pictures were written."""
    shape, pixels = npy(path, "test_images")
    _, labels = npy(path, "test_labels")
    n, height, width = shape[:3]
    n = min(n, limit) if limit else n
    os.makedirs(os.path.join(folder, "images"), exist_ok=True)
    with open(os.path.join(folder, "questions.jsonl"), "w") as q, open(os.path.join(folder, "reconstruct.jsonl"), "w") as r, \
            open(os.path.join(folder, "chexpert.csv"), "w", newline="") as c:
        rows = csv.writer(c)
        rows.writerow(["id", "image", *CLASSES])
        for i in range(n):
            name, size = "images/%04d.png" % i, width * height
            with open(os.path.join(folder, name), "wb") as f:
                f.write(grey_png(width, height, pixels[i * size:(i + 1) * size]))
            answer = ("No", "Yes")[labels[i]]
            q.write(json.dumps({"id": "t%d" % i, "image": name, "question": QUESTION, "answer": answer}) + "\n")
            r.write(json.dumps({"id": "r%d" % i, "image": name, "prompt": "Reconstruct the image."}) + "\n")
            rows.writerow(["t%d" % i, name, *(labels[i] if k == "Pneumonia" else -1 for k in CLASSES)])
    return n


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    print("%d pictures" % make(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 0))
