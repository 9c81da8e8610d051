#!/usr/bin/env python3
"""Fail when a function is longer than 80 lines (kernel bodies in *.cu: 150) or a file than 600.

A function is what starts with '{' in column 0 and ends with '}' in column 0 (the house's format)."""
import re
import sys

FILE_CAP, FUNCTION_CAP, KERNEL_CAP = 600, 80, 150


def functions(lines):
    start = None
    for i, line in enumerate(lines):
        if line.rstrip() == "{":
            start = i
        elif line.startswith("}") and start is not None:
            yield start + 1, i - start - 1
            start = None


def main():
    bad = 0
    for path in sys.argv[1:]:
        lines = open(path, encoding="utf-8").read().split("\n")
        if len(lines) - 1 > FILE_CAP:
            print(f"{path}: {len(lines) - 1} lines, at most {FILE_CAP}")
            bad += 1
        cap = KERNEL_CAP if re.search(r"\.cuh?$", path) else FUNCTION_CAP
        for line, n in functions(lines):
            if n > cap:
                print(f"{path}:{line}: function of {n} lines, at most {cap}")
                bad += 1
    print(f"limits: {bad} over" if bad else "limits: ok")
    return 1 if bad else 0


sys.exit(main())
