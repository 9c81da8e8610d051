"""Normalisation of answers.

`words` follows the rules of LLaVA-Med's evaluation (microsoft/LLaVA-Med e9972cf, llava/eval/eval_metrics/glossary.py, itself
after the VQA challenge): lower case; a punctuation mark goes away where the text has it beside a blank (or has a comma
between digits), else it becomes a blank; periods go unless a digit follows; none, zero .. ten become digits; a, an, the
are dropped. One difference: apostrophes are dropped, where LLaVA-Med maps "dont" to "don't" by a table.
"""
from __future__ import annotations

import re

_MARKS = ";/[]\"{}()=+\\_-><@`,?!"
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
            "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = ("a", "an", "the")


def words(text: str) -> list[str]:
    """The normalised words of an answer."""
    comma = re.search(r"\d,\d", text) is not None
    out = text
    for mark in _MARKS:
        beside_blank = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if beside_blank or comma else " ")
    out = re.sub(r"\.(?!\d)", "", out).replace("'", "").replace("\u2019", "")
    found = [_NUMBERS.get(w, w) for w in out.lower().split()]
    return [w for w in found if w not in _ARTICLES]


def normalise(text: str) -> str:
    """The words, joined by blanks; normalise(normalise(x)) == normalise(x)."""
    return " ".join(words(text))


def contains(text: list[str], phrase: list[str]) -> bool:
    """Does the phrase stand in the text as neighbouring words?"""
    n = len(phrase)
    return n > 0 and any(text[i:i + n] == phrase for i in range(len(text) - n + 1))
