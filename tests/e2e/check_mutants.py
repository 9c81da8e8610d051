"""Mutated requests (tests/http/h1mut.c), the short run; `make fuzz-http` is the long one under sanitizers."""
import os
import sys

from harness import ROOT, is_sanitized

sys.path.insert(0, os.path.join(ROOT, "tests", "http"))
import fuzz  # noqa: E402


def check_some_thousands_find_nothing(build):
    return fuzz.finds_nothing(build, 3000 if is_sanitized(build) else 8000, 1)


def check_nor_do_some_at_the_operators_port(build):
    return fuzz.finds_nothing_at_the_operators_port(build, 3000, 1)


def check_a_planted_crash_is_found(build):
    if "address" in build:
        return fuzz.finds_the_planted_bug(build, "overread:count=0", "heap-buffer-overflow")
    return fuzz.finds_the_planted_bug(build, "crash", None)
