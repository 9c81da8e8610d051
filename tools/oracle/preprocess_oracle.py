#!/usr/bin/env python3
"""Goldens of model/preprocess.c and model/resample.c, made by Pillow.

    python tools/oracle/preprocess_oracle.py      writes tests/golden/preprocess

normal.txt: CRC-32 of the little-endian fp32 values of the normalised grey ramp 0..255, R, G, B.
resize.txt, one case a line: operation, filter, input width and height, output width and height,
CRC-32 of the output's RGB bytes, then x,y,rrggbb of a few output pixels. Operation "resize" is a
plain resize; "square" pads to a square first, as the reference's expand2square does. The input is
picture(width, height), a formula that tests/model/test_preprocess.c repeats.
"""
import os
import zlib

import numpy as np
from PIL import Image

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/preprocess")
PAD = (122, 116, 104)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
FILTERS = {"bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
SQUARE = [(1, 1), (3, 1000), (1000, 3), (335, 335), (336, 336), (337, 337), (512, 512), (1024, 768),
          (4000, 3000), (8192, 2), (28, 28), (337, 336)]
RESIZE = [("bicubic", 28, 28, 64, 64), ("bicubic", 1, 1, 5, 7), ("bicubic", 8, 1, 5, 1),
          ("bicubic", 8, 1, 13, 1), ("bicubic", 300, 200, 300, 77), ("bicubic", 300, 200, 77, 200),
          ("bicubic", 50, 40, 333, 21), ("lanczos", 28, 28, 64, 64), ("lanczos", 512, 512, 256, 256),
          ("lanczos", 640, 480, 256, 256), ("lanczos", 5, 900, 256, 256),
          ("lanczos", 256, 256, 256, 256), ("lanczos", 2, 2, 256, 3)]


def picture(width, height):
    """Busy in all three channels, so that the filters over- and undershoot."""
    x = np.arange(width, dtype=np.uint32)[None, :, None]
    y = np.arange(height, dtype=np.uint32)[:, None, None]
    c = np.arange(3, dtype=np.uint32)[None, None, :]
    t = x * x * np.uint32(3) + y * y * np.uint32(5) + x * y * np.uint32(7) + c * np.uint32(85)
    noise = (t ^ (t >> np.uint32(7))) & np.uint32(255)
    block = ((x >> np.uint32(4)) + (y >> np.uint32(4)) + c) & np.uint32(3)
    v = np.where(block == 0, 0, np.where(block == 1, 255, noise))
    return Image.fromarray(np.ascontiguousarray(v.astype(np.uint8)), "RGB")


def square(im):
    w, h = im.size
    side = max(w, h)
    out = Image.new("RGB", (side, side), PAD)
    out.paste(im, ((side - w) // 2, (side - h) // 2))
    return out


def resize(im, size, name):
    """Horizontal pass, then vertical. One Image.resize does the same up to Pillow 12; Pillow 13 runs
    the vertical pass first where the height shrinks much more than the width (pull request 9549)."""
    return im.resize((size[0], im.size[1]), FILTERS[name]).resize(size, FILTERS[name])


def line(operation, name, size, out):
    w, h = out.size
    spots = {(0, 0), (w - 1, h - 1), (w // 2, h // 2), (w // 3, h - 1), (w - 1, h // 5)}
    pixels = ["%d,%d,%02x%02x%02x" % ((x, y) + out.getpixel((x, y))) for x, y in sorted(spots)]
    return " ".join([operation, name, "%d %d" % size, "%d %d" % (w, h),
                     "%08x" % zlib.crc32(out.tobytes())] + pixels)


def normal_crc():
    """transformers 4.41: uint8 * python float is float64, stored as fp32; then fp32 arithmetic."""
    v = (np.arange(256, dtype=np.uint8) * (1 / 255)).astype(np.float32)
    planes = [(v - np.float32(m)) / np.float32(s) for m, s in zip(MEAN, STD)]
    return zlib.crc32(np.stack(planes).astype("<f4").tobytes())


def main():
    lines = []
    for size in SQUARE:
        im = picture(*size)
        lines.append(line("square", "bicubic", size, resize(square(im), (336, 336), "bicubic")))
    for name, w, h, out_w, out_h in RESIZE:
        im = picture(w, h)
        lines.append(line("resize", name, (w, h), resize(im, (out_w, out_h), name)))
    with open(os.path.join(FOLDER, "resize.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(FOLDER, "normal.txt"), "w") as f:
        f.write("%08x\n" % normal_crc())


main()
