"""The readers of question sets: a file's bytes -> items. README.md has an example of each format."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, Iterable

import formats_choice
import formats_labels
import formats_plain
import formats_vqa
from items import Absent, FormatError, Item, read_bytes, sha256

Reader = Callable[[str, bytes, str], Iterable[Item]]

# name -> reader, what `variant` may be (the first holds without one), the published set that it is
READERS: dict[str, tuple[Reader, tuple[str, ...], str]] = {
    "vqa-rad": (formats_vqa.vqa_rad, ("test", "all", "train"), "vqa-rad"),
    "slake": (formats_vqa.slake, ("en", "zh", "all"), "slake"),
    "vqa-med-2019": (formats_vqa.vqa_med_2019, ("",), "vqa-med-2019"),
    "hf-vqa": (formats_vqa.hf_vqa, ("",), ""),
    "omnimedvqa": (formats_choice.omnimedvqa, ("",), "omnimedvqa"),
    "pmc-vqa": (formats_choice.pmc_vqa, ("",), "pmc-vqa"),
    "chexpert": (formats_labels.chexpert, ("ask", "report"), "chexpert"),
    "jsonl": (formats_plain.jsonl, ("",), ""),
    "pairs": (formats_plain.pairs, ("",), ""),
}


@dataclass(frozen=True)
class QuestionSet:
    path: str
    format: str
    variant: str
    paper: str          # name of the published set, or ""
    sha256: str         # of the file's bytes
    items: tuple[Item, ...]


def load(path: str, format: str, variant: str = "", uncertain: str = "") -> QuestionSet:
    """Read a set; FormatError names file, place, key, what was expected and what is there."""
    if format not in READERS:
        raise FormatError(path, "", "--format", " or ".join(READERS), format)
    reader, variants, paper = READERS[format]
    if variant and variant not in variants:
        raise FormatError(path, "", "--variant", " or ".join(v or "none" for v in variants), variant)
    variant = variant or variants[0]
    if format == "chexpert":
        variant += ":" + (uncertain or "skip")
    data = read_bytes(path)
    items = tuple(reader(path, data, variant))
    if not items:
        raise FormatError(path, "", "", "at least one question (%s)" % (variant or format), Absent("none"))
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise FormatError(path, "", "id", "each id once", item.id)
        seen.add(item.id)
    return QuestionSet(os.path.basename(path), format, variant, paper, sha256(data), items)
