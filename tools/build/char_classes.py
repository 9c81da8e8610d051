#!/usr/bin/env python3
"""Write model/text/char_class_table.c: the letters, numbers and whitespace of Unicode 15.1.

usage: char_classes.py > model/text/char_class_table.c
The classes are taken from the `regex` package 2024.7.24 (PyPI), the last one with Unicode 15.1: what \\p{L}, \\p{N}
and \\s mean to the slow tokenizers of the reference (reference.md section 20)."""
import sys

import regex

PACKAGE = "2.5.146"  # regex.__version__ of 2024.7.24
CLASSES = (("LETTER", regex.compile(r"\p{L}")), ("NUMBER", regex.compile(r"\p{N}")), ("SPACE", regex.compile(r"\s")))
HEAD = """/* Written by tools/build/char_classes.py: Unicode 15.1, first and last code point of each run. */
#include "model/text/char_class.h"

#define LETTER HG_CHAR_LETTER
#define NUMBER HG_CHAR_NUMBER
#define SPACE HG_CHAR_SPACE

/* clang-format off */
const struct hg_char_range hg_char_ranges[] = {"""


def class_of(cp):
    for name, pattern in CLASSES:
        if pattern.match(chr(cp)):
            return name
    return None


def ranges():
    first, name = 0, None
    for cp in range(0x110001):
        now = None if cp == 0x110000 or 0xD800 <= cp < 0xE000 else class_of(cp)
        if now != name:
            if name:
                yield first, cp - 1, name
            first, name = cp, now


def main():
    if regex.__version__ != PACKAGE:
        sys.exit("char_classes: regex %s, expected %s (pip install regex==2024.7.24)" % (regex.__version__, PACKAGE))
    print(HEAD)
    line = ""
    for first, last, name in ranges():
        item = "{0x%x, 0x%x, %s}, " % (first, last, name)
        if len(line) + len(item) > 110:
            print("    " + line.rstrip())
            line = ""
        line += item
    print("    " + line.rstrip())
    print("};\n/* clang-format on */\n\nconst size_t hg_n_char_ranges = sizeof hg_char_ranges / sizeof hg_char_ranges[0];")


main()
