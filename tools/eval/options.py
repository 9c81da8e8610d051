"""Which option an answer means.

1 letter  the answer is a letter of the options alone, or begins with one and a mark ("B. lung", "(B)", "B:"), or says
          "answer is B", "option B".
2 text    the normalised answer is an option's text, or holds the text of exactly one option as neighbouring words (an
          option whose text is part of another that is also held does not count).
3 fuzzy   the option whose normalised text is most like the answer, by difflib's ratio, the first among equals: the rule of
          OmniMedVQA's own question-answering score. A result says how many answers needed it.
An empty answer means none.
"""
from __future__ import annotations

import difflib
import re

from normalise import contains, normalise, words


def choose(answer: str, options: dict[str, str]) -> tuple[str, str]:
    """(letter or "", rule: letter, text, fuzzy or none)."""
    text = answer.strip()
    letter = _letter(text, options)
    if letter:
        return letter, "letter"
    if not normalise(text):
        return "", "none"
    letter = _by_text(text, options)
    if letter:
        return letter, "text"
    ratio = {k: difflib.SequenceMatcher(None, normalise(text), normalise(v), autojunk=False).ratio() for k, v in options.items()}
    best = max(ratio.values())
    return next(k for k in options if ratio[k] == best), "fuzzy"


def _letter(text: str, options: dict[str, str]) -> str:
    big = "".join(options)
    both = big + big.lower()
    for pattern in (r"\(?([%s])\)?[.:]?\s*$" % both, r"\(([%s])\)" % both, r"([%s])[.:)](?:\s|$)" % both, r"([%s])[.:)]\S" % big):
        m = re.match(pattern, text)
        if m:
            return m.group(1).upper()
    m = re.search(r"(?i:\b(?:answer|option|choice)\b(?:\s+is)?)\s*:?\s*\(?([%s])\b\)?" % big, text)
    return m.group(1) if m else ""


def _by_text(text: str, options: dict[str, str]) -> str:
    said = words(text)
    parts = {k: words(v) for k, v in options.items()}
    same = [k for k, v in parts.items() if v == said]
    if same:
        return same[0]
    held = [k for k, v in parts.items() if contains(said, v)]
    held = [k for k in held if not any(k != o and len(parts[o]) > len(parts[k]) and contains(parts[o], parts[k]) for o in held)]
    return held[0] if len(held) == 1 else ""
