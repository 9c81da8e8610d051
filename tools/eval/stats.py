"""Intervals of 95 %."""
from __future__ import annotations

import math
import random
from typing import Callable, Sequence

Z = 1.959963984540054
RESAMPLES = 1000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    if n == 0:
        return 0.0, 1.0
    p, d = hits / n, 1 + Z * Z / n
    middle, half = (p + Z * Z / (2 * n)) / d, Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / d
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of_shares(groups: Sequence[tuple[float, int]]) -> tuple[float, float, float]:
    """(mean, low, high) of the unweighted mean of shares, (hits, n) by group: normal approximation, variance
    sum p (1 - p) / n over the groups / groups^2."""
    shares = [(hits / n, n) for hits, n in groups]
    middle = mean([p for p, _ in shares])
    half = Z * math.sqrt(math.fsum(p * (1 - p) / n for p, n in shares)) / len(shares)
    return middle, max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def bootstrap(rows: Sequence, statistic: Callable[[Sequence], float], seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap over questions: the 2.5 % and 97.5 % quantiles of the statistic of `resamples` draws with
    replacement. The same seed and rows give the same interval."""
    if not rows:
        return 0.0, 0.0
    rng, n = random.Random(seed), len(rows)
    draws = sorted(statistic(rng.choices(rows, k=n)) for _ in range(resamples))
    at = lambda q: draws[min(resamples - 1, max(0, round(q * (resamples - 1))))]
    return at(0.025), at(0.975)
