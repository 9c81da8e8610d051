"""Multiple choice: OmniMedVQA (JSON) and PMC-VQA (CSV)."""
from __future__ import annotations

import re
from typing import Iterator

from items import LETTERS, NOTHING, Item, Row, csv_rows, json_rows


def letter_of(row: Row, key: str, answer: str, options: dict[str, str]) -> str:
    """The letter of the right option, which a file gives as letter or as text."""
    if answer.upper() in options:
        return answer.upper()
    fold = lambda s: " ".join(s.lower().split())
    found = [k for k, v in options.items() if fold(v) == fold(answer)]
    if not found:
        raise row.error(key, "one of the options %s" % list(options.values()), answer)
    return found[0]


def omnimedvqa(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """QA_information/*.json: an array of {question_id, question, gt_answer, image_path, option_A.. option_D,
    modality_type}. Results are also given by modality; the published number is their unweighted mean."""
    for row in json_rows(path, data):
        options = {k: row.text("option_" + k, numbers=True) for k in LETTERS if row.has("option_" + k)}
        if len(options) < 2:
            raise row.error("option_A, option_B", "two options or more", NOTHING)
        right = letter_of(row, "gt_answer", row.text("gt_answer", numbers=True), options)
        yield Item(row.text("question_id", numbers=True), "choice", row.text("question"), (row.path("image_path"),), (right,),
                   options, group=row.text("modality_type", ""))


def pmc_vqa(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """test.csv, test_clean.csv, test_2.csv: Figure_path, Question, Choice A .. Choice D, and the right one in Answer_label
    or Answer, as letter or text. A choice may begin with its own letter ("A: lung")."""
    need = ("Figure_path", "Question", "Choice A", "Choice B")
    for i, row in enumerate(csv_rows(path, data, need)):
        options = {}
        for k in LETTERS:
            if row.has("Choice " + k):
                options[k] = re.sub(r"^\s*%s\s*[:.)]\s*" % k, "", row.text("Choice " + k))
        if len(options) < 2:
            raise row.error("Choice A, Choice B", "two options or more", NOTHING)
        key = "Answer_label" if row.has("Answer_label") else "Answer"
        answer = row.text(key)
        if answer.upper() not in options:
            answer = re.sub(r"^\s*[%s]\s*[:.)]\s*" % "".join(options), "", answer)
        right = letter_of(row, key, answer, options)
        yield Item(row.text("index", str(i)), "choice", row.text("Question"), (row.path("Figure_path"),), (right,), options)
