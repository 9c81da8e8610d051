"""Our own two formats: questions as JSON lines, and pairs of pictures."""
from __future__ import annotations

from typing import Iterator

from chexpert import CLASSES
from items import LETTERS, NOTHING, Item, Row, is_yes_no, json_rows
from formats_choice import letter_of

QUESTION_KEYS = {"id", "image", "images", "question", "answer", "answers", "options", "closed", "labels", "group"}
PAIR_KEYS = {"id", "image", "images", "prompt", "reference", "group"}


def known(row: Row, keys: set[str]) -> None:
    for key in row.doc:
        if key not in keys:
            raise row.error(key, "one of " + ", ".join(sorted(keys)), key)


def pictures(row: Row) -> tuple[str, ...]:
    value = row.doc.get("images", row.doc.get("image"))
    key = "images" if "images" in row.doc else "image"
    if value is None:
        return ()
    if not isinstance(value, list):
        value = [value]
    if len(value) > 4:
        raise row.error(key, "at most 4 pictures", len(value))
    return tuple(row.checked_path(key, v) for v in value)


def option_table(row: Row) -> dict[str, str]:
    """{"A": text, ..} or [text, ..]."""
    value = row.doc.get("options")
    if value is None:
        return {}
    if isinstance(value, list):
        value = dict(zip(LETTERS, value)) if len(value) <= len(LETTERS) else None
    if not isinstance(value, dict) or not 2 <= len(value) <= len(LETTERS) or \
            not all(k in LETTERS and isinstance(v, str) and v.strip() for k, v in value.items()):
        raise row.error("options", "2 to %d texts, as a list or under letters" % len(LETTERS), row.doc["options"])
    return {k: v.strip() for k, v in value.items()}


def label_table(row: Row) -> dict[str, int]:
    value = row.doc.get("labels")
    if value is None:
        return {}
    if not isinstance(value, dict) or not value or \
            not all(k in CLASSES and v in (0, 1) and not isinstance(v, bool) for k, v in value.items()):
        raise row.error("labels", "an object of CheXpert classes with 0 or 1", value)
    return value


def jsonl(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """{"id", "image", "question", "answer"} with "images", "answers", "options", "closed", "labels", "group"."""
    for i, row in enumerate(json_rows(path, data)):
        known(row, QUESTION_KEYS)
        name, question = row.text("id", str(i), numbers=True), row.text("question")
        images, group = pictures(row), row.text("group", "", blank=True)
        options, labels = option_table(row), label_table(row)
        if labels:
            yield Item(name, "report", question, images, labels=labels, group=group)
            continue
        answers = row.doc.get("answers")
        if answers is None:
            answers = [row.text("answer", numbers=True)]
        if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
            raise row.error("answers", "a list of texts", answers)
        if options:
            yield Item(name, "choice", question, images, (letter_of(row, "answer", answers[0], options),), options,
                       group=group)
            continue
        closed = row.doc.get("closed", is_yes_no(answers[0]))
        if not isinstance(closed, bool):
            raise row.error("closed", "true or false", closed)
        yield Item(name, "closed" if closed else "open", question, images, tuple(a.strip() for a in answers), group=group)


def pairs(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """{"id", "image", "reference", "prompt", "group"}: draw from `image` (none: from the prompt alone), compare the picture
    with `reference` (default: the image itself, so a reconstruction)."""
    for i, row in enumerate(json_rows(path, data)):
        known(row, PAIR_KEYS)
        images = pictures(row)
        if not images and not row.has("reference"):
            raise row.error("reference", "the path of a picture", NOTHING)
        yield Item(row.text("id", str(i), numbers=True), "picture", row.text("prompt", "Reconstruct the image."), images,
                   group=row.text("group", "", blank=True), reference=row.path("reference", images[0] if images else None))
