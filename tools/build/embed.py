#!/usr/bin/env python3
"""A JSON file as a C string, without its white space.

usage: embed.py IN.json SYMBOL OUT.c"""
import json
import os
import sys


def main():
    source, symbol, out = sys.argv[1:]
    with open(source, encoding="utf-8") as f:
        text = json.dumps(json.load(f), separators=(",", ":"))
    rows = "\n".join("    " + json.dumps(text[i:i + 90]) for i in range(0, len(text), 90))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, "w", encoding="utf-8") as f:
        f.write("/* Made by tools/build/embed.py from %s. */\nextern const char %s[];\nconst char %s[] =\n%s;\n"
                % (source, symbol, symbol, rows))


if __name__ == "__main__":
    main()
