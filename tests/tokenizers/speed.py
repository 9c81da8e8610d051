"""Megabytes per second on real text, and on texts that are made to be slow."""
import random
import re

import texts
from families import Different

MB_S = 5.0


def megabytes_per_second(env, path, text):
    out = env.run("tokenize", "--tokenizer", path, "--time", data=text).decode()
    return float(re.search(r"([\d.]+) MB/s", out).group(1))


def hostile(n):
    rng = random.Random(1)
    some = rng.randbytes(1 << 16)
    mixed = "".join(texts.random_text(rng) for _ in range(2000)).encode()
    marks = ("e" + "\u0301\u0327" * 1000).encode()
    shapes = {"a": b"a", "space": b" ", "newline": b"\n", "emoji": "\U0001f600".encode(), "family": "\U0001f469\u200d\U0001f52c".encode(),
              "digits": b"7", "two digits": b"31", "alternating": b"ab", "a space": b"a ", "bytes": some, "marks": marks,
              "look-alikes": b"<|end|", "spaces x": b" " * 63 + b"x", "mixed": mixed, "apostrophes": b"'", "cjk": "\u4e2d".encode()}
    return {k: (v * (n // len(v) + 1))[:n] for k, v in shapes.items()}


def check_speed(env):
    real = "\n".join(texts.real_sources(env.shared, env.root)).encode()
    for name in ("phi3", "phi4", "qwen25"):
        best = max(megabytes_per_second(env, env.made(name), real) for _ in range(3))
        print("     %-8s %-14s %8.1f MB/s of %.2f MB" % (name, "real text", best, len(real) * 1e-6))
        if best < MB_S:
            raise Different("%s: %.1f MB/s on real text, expected %.0f" % (name, best, MB_S))


def check_hostile_speed(env):
    """The time per byte of 2 MB is within 2.5 times that of 512 kB, for which quadratic work would need 4 times. (128 kB are
    shown only: they fit the nearer caches. tests/model/text/test_bpe.c counts steps between 128 kB and 2 MB.)"""
    little, small, large = hostile(128 << 10), hostile(512 << 10), hostile(2 << 20)
    for name in ("phi3", "phi4", "qwen25"):
        path = env.made(name)
        for shape in large:
            for last in (False, False, True):
                a, b = megabytes_per_second(env, path, small[shape]), megabytes_per_second(env, path, large[shape])
                if a <= 2.5 * b:
                    break
                if last:
                    raise Different("%s %s: %.2f MB/s of 512 kB, %.2f of 2 MB" % (name, shape, a, b))
            print("     %-8s %-14s %8.1f MB/s of 128 kB %8.1f of 512 kB %8.1f of 2 MB" % (
                name, shape, megabytes_per_second(env, path, little[shape]), a, b))


CHECKS = [check_speed, check_hostile_speed]
