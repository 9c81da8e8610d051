#!/usr/bin/env python3
"""Markdown table of evaluate.py --json files: the shipped seed first, then the range over all seeds.

    table.py shipped.json other.json ...
"""
import json
import sys


def text(v):
    return "-" if v is None else "%g" % round(v, 4) if abs(v) < 10 else "%.4g" % v


def main():
    runs = [{r["metric"].strip(): r for r in json.load(open(p))["rows"]} for p in sys.argv[1:]]
    print("| metric | gate | goal | shipped | reached | all %d seeds |" % len(runs))
    print("|---|---|---|---|---|---|")
    for name, row in runs[0].items():
        values = [r[name]["value"] for r in runs if name in r]
        span = "%s .. %s" % (text(min(values)), text(max(values))) if len(values) > 1 else "-"
        print("| %s | %s | %s | %s | %s | %s |" % (name, text(row["gate"]), text(row["goal"]), text(row["value"]), row["state"], span))


if __name__ == "__main__":
    main()
