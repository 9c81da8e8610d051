#!/usr/bin/env python3
"""Tokenizers against everybody else's: `make tokenizer-check`.

usage: check.py BUILD_DIR [--count N] [--seed N] [--only NAME,...]
Compares `healthgpt tokenize` and `detokenize` on the real vocabularies of the shared data with transformers' slow
tokenizers (LlamaTokenizer legacy=false, GPT2Tokenizer, Qwen2Tokenizer), with `tokenizers` and with tiktoken, over N
(default 20000) strings per family, half of them made up and half cut out of real text; runs the published vectors,
templates, naughty strings and broken UTF-8; measures speed. Needs
    pip install transformers==4.49.0 tiktoken sentencepiece regex==2024.7.24
(transformers 4.41.0 for the reference's other pinned version); what is missing is skipped and counted. The last line is
`N passed, N failed, N skipped`."""
import argparse
import importlib
import os
import sys
import tempfile
import time

import families
import reference
import speed

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Skip(Exception):
    """A check that cannot run here, with the reason."""


def need(name):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise Skip("%s is not there (%s)" % (name, e)) from None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="")
    args = p.parse_args()
    shared = os.environ.get("HG_SHARED") or os.path.join(ROOT, "..", "shared")
    if not os.path.isfile(os.path.join(shared, "data/tokenizers/qwen/qwen.tiktoken")):
        print("SKIP: no vocabularies in the shared data\n0 passed, 0 failed, 1 skipped")
        return 0
    for name in ("transformers", "tokenizers", "tiktoken", "sentencepiece", "regex"):
        try:
            print("%s %s" % (name, importlib.import_module(name).__version__))
        except (ImportError, AttributeError) as e:
            print("%s: %s" % (name, e))
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        env = families.Environment(os.path.abspath(os.path.join(args.build, "healthgpt")), shared, ROOT, folder,
                                   args.count, args.seed, need)
        for check in reference.CHECKS + families.CHECKS + speed.CHECKS:
            if args.only and not any(o in check.__name__ for o in args.only.split(",")):
                continue
            start = time.monotonic()
            try:
                check(env)
                passed += 1
                print("ok   %-44s %6.1f s" % (check.__name__, time.monotonic() - start), flush=True)
            except Skip as e:
                skipped += 1
                print("SKIP: %s: %s" % (check.__name__, e), flush=True)
            except families.Different as e:
                failed += 1
                print("FAIL %s: %s" % (check.__name__, e), flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
