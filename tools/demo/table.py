#!/usr/bin/env python3
"""Markdown table of evaluate.py --json files: the shipped seed first, then the range over all seeds.

    table.py shipped.json other.json ...
"""
import json
import sys


def text(v):
    return "-" if v is None else "%g" % round(v, 4) if abs(v) < 10 else "%.4g" % v


def main():
    runs = [json.load(open(p))["rows"] for p in sys.argv[1:]]   # the same rows in the same order
    print("| metric | gate | goal | shipped | reached | all %d seeds |" % len(runs))
    print("|---|---|---|---|---|---|")
    for row, *others in zip(*runs):
        assert all(o["metric"] == row["metric"] for o in others), row["metric"]
        name, values = row["metric"].strip(), [r["value"] for r in (row, *others)]
        span = "%s .. %s" % (text(min(values)), text(max(values))) if len(values) > 1 else "-"
        print("| %s | %s | %s | %s | %s | %s |" % (name, text(row["gate"]), text(row["goal"]), text(row["value"]), row["state"], span))


if __name__ == "__main__":
    main()
