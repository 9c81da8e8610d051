"""Random weights that C and Python make alike: a hash of (tensor name, index), no file needed.

value(name, i) = offset + (2 u - 1) * scale, u = top 24 bits of splitmix64(fnv1a64(name) + (i + 1) * G)
/ 2^24, computed in double, rounded to float32. tests/parity/tiny_model.c is the C twin."""
import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name, n):
    """n doubles in [0, 1)."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-24


def tensor(name, shape, scale, offset=0.0):
    n = int(np.prod(shape))
    return (offset + (2.0 * uniform(name, n) - 1.0) * scale).astype(np.float32).reshape(shape)
