#!/usr/bin/env python3
"""Makes the files of this folder and the tables own.tsv and shared.tsv.

usage: make.py PATH_OF_SHARED_DATA        (needs Pillow and numpy; made with Pillow 13.0.0, libjpeg-turbo 3.2.0)

A table line is: path, WIDTHxHEIGHT, CRC-32 of the RGB bytes of Image.open(path).convert("RGB"); or
path, REFUSED, why. Pillow is the reference; STRICTER lists the files where we refuse damage that it
lets pass. All pixels of the files here are formulas of this script."""
import os
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
W, H = 37, 29  # no multiple of 8 or 16: partial blocks at both edges
STRICTER = {
    "weights_formats/image_suites/pngsuite/xcsn0g01.png": "CRC of the pixel data is wrong",
    "weights_formats/image_suites/jpeg_reftest/partial_progressive.jpg": "entropy data ends early",
}


def pattern(channels):
    y, x = np.mgrid[0:H, 0:W].astype(float)
    planes = [127 + 120 * np.sin(x / (3 + c) + y / (5 - c)) for c in range(channels)]
    return np.stack(planes, -1).round().clip(0, 255).astype(np.uint8)


def make_files():
    grey, rgb = Image.fromarray(pattern(1)[..., 0]), Image.fromarray(pattern(3))
    cmyk = Image.frombytes("CMYK", (W, H), pattern(4).tobytes())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate: must be ignored
    grey.save("grey.jpg", quality=80)
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        rgb.save("rgb%s.jpg" % name, quality=80, subsampling=sampling)
    rgb.save("progressive.jpg", quality=80, progressive=True)
    rgb.save("restart.jpg", quality=80, restart_marker_blocks=1)
    rgb.save("stored_rgb.jpg", quality=80, keep_rgb=True)
    rgb.save("rotated.jpg", quality=80, exif=exif)
    cmyk.save("cmyk.jpg", quality=80)
    data = bytearray(open("cmyk.jpg", "rb").read())
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] in (0, 2)
    data[adobe + 11] = 2 - data[adobe + 11]  # the other one of CMYK and YCCK
    open("ycck.jpg", "wb").write(data)
    grey.convert("1").save("one_bit.png")
    Image.fromarray(np.arange(W * H, dtype=np.uint16).reshape(H, W)).save("grey16.png")
    rgb.quantize(13).save("palette.png", transparency=bytes(range(13)))
    grey.save("grey_transparent.png", transparency=100)
    Image.fromarray(pattern(2)).save("grey_alpha.png")
    Image.fromarray(pattern(4)).save("rgb_alpha.png")


def line(root, name):
    if name in STRICTER:
        return "%s\tREFUSED\t%s" % (name, STRICTER[name])
    try:
        im = Image.open(os.path.join(root, name), formats=["PNG", "JPEG"]).convert("RGB")
    except Exception as e:
        return "%s\tREFUSED\tPillow: %s" % (name, type(e).__name__)
    return "%s\t%dx%d\t%08x" % (name, im.width, im.height, zlib.crc32(im.tobytes()))


def table(root, out):
    names = [os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs]
    names = sorted(n for n in names if n.lower().endswith((".png", ".jpg", ".jpeg")))
    with open(os.path.join(HERE, out), "w") as f:
        f.writelines(line(root, n) + "\n" for n in names)


warnings.simplefilter("ignore")
Image.MAX_IMAGE_PIXELS = None
os.chdir(HERE)
make_files()
table(HERE, "own.tsv")
table(sys.argv[1], "shared.tsv")
