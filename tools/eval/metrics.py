"""Scores of one text answer, each in 0..1, with formula and source. Means, intervals and tables: score.py."""
from __future__ import annotations

from collections import Counter
from typing import Iterable

from normalise import contains, normalise
from normalise import words as plain_words


def words(text: str) -> list[str]:
    """Normalised words; of a text that has none ("A", "-") the text itself, so that it can still be met."""
    return plain_words(text) or [t for t in [text.strip().lower()] if t]


def closed(answer: str, reference: str) -> float:
    """Accuracy of a closed question. For yes and no: the first "yes" or "no" among the answer's normalised words is the
    reference. For others ("left", "MRI"): the reference's words stand in the answer as neighbours."""
    said, want = words(answer), words(reference)
    if want in (["yes"], ["no"]):
        return float(next(([w] for w in said if w in ("yes", "no")), None) == want)
    return float(contains(said, want))


def closed_llava_med(answer: str, reference: str) -> float | None:
    """LLaVA-Med's closed hit (run_eval.py at e9972cf), by substrings: 0 without "yes" or "no" anywhere in the answer ("not",
    "normal" have one), 1 where the reference is a substring; else None: its program appends nothing to the list that it
    averages, so that wrong answers shrink the denominator."""
    said, want = normalise(answer.lower()), normalise(reference.lower())
    if "yes" not in said and "no" not in said:
        return 0.0
    return 1.0 if want in said else None


def exact(answer: str, reference: str) -> float:
    """Exact match: equal normalised words."""
    return float(words(answer) == words(reference))


def exact_llava_med(answer: str, reference: str) -> float:
    """What LLaVA-Med prints as "exact match": distinct words of the reference that are in the answer / words of the
    answer (evaluate_metrics.py)."""
    said, want = words(answer), set(words(reference))
    return len(want & set(said)) / len(said) if said else 0.0


def prf_llava_med(answer: str, reference: str) -> tuple[float, float, float]:
    """(precision, recall, F1) over words as LLaVA-Med counts them (evaluate_metrics.py, calculate_f1score):
    tp = sum over shared words of their count in the ANSWER, fp = words of the answer not in the reference,
    fn = words of the reference not in the answer. Its recall is the paper's number for open questions."""
    said, want = Counter(words(answer)), Counter(words(reference))
    tp = sum(n for w, n in said.items() if w in want)
    fp = sum(n for w, n in said.items() if w not in want)
    fn = sum(n for w, n in want.items() if w not in said)
    return _prf(tp, fp, fn)


def token_f1(answer: str, reference: str) -> tuple[float, float, float]:
    """(precision, recall, F1) over words with clipped counts (SQuAD): tp = sum of min(count in answer, in reference)."""
    said, want = Counter(words(answer)), Counter(words(reference))
    tp = sum((said & want).values())
    return _prf(tp, sum(said.values()) - tp, sum(want.values()) - tp)


def _prf(tp: int, fp: int, fn: int) -> tuple[float, float, float]:
    if tp == 0:
        return 0.0, 0.0, 0.0
    p, r = tp / (tp + fp), tp / (tp + fn)
    return p, r, 2 * p * r / (p + r)


def best(function, answer: str, references: Iterable[str]):
    """The best over the references that are right; a None counts least."""
    values = [function(answer, r) for r in references]
    key = lambda v: (v[1], v[2], v[0]) if isinstance(v, tuple) else (-1.0 if v is None else v)
    return max(values, key=key)


def confusion(found: dict[str, int], labels: dict[str, int]) -> tuple[int, int, int]:
    """(tp, fp, fn) over the classes that `labels` has."""
    tp = sum(1 for c, y in labels.items() if y and found.get(c))
    fp = sum(1 for c, y in labels.items() if not y and found.get(c))
    fn = sum(1 for c, y in labels.items() if y and not found.get(c))
    return tp, fp, fn


def micro_f1(counts: Iterable[tuple[int, int, int]]) -> float:
    """2 tp / (2 tp + fp + fn) over all classes and pictures; 0 where nothing is positive on either side."""
    tp, fp, fn = (sum(c) for c in zip((0, 0, 0), *counts))
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
