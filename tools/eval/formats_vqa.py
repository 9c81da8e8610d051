"""VQA-RAD, SLAKE, VQA-Med-2019 and rows of Hugging Face data sets."""
from __future__ import annotations

from typing import Iterator

from items import Absent, FormatError, Item, decode, is_yes_no, json_rows


def vqa_rad(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """OSF's JSON: an array of {qid, image_name, question, answer, answer_type, phrase_type, image_organ}.

    The public file holds both splits: a phrase_type that begins with "test" is the test split. A file without such a
    one (the 451 questions that are handed around) is taken whole."""
    rows = list(json_rows(path, data))
    is_test = [r.text("phrase_type", "").startswith("test") for r in rows]
    for row, test in zip(rows, is_test):
        if variant != "all" and any(is_test) and test != (variant == "test"):
            continue
        kind = "closed" if row.one_of("answer_type", ("CLOSED", "OPEN")) == "CLOSED" else "open"
        yield Item(row.text("qid", numbers=True), kind, row.text("question"), (row.path("image_name"),),
                   (row.text("answer", numbers=True),), group=row.text("image_organ", ""))


def slake(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """test.json: an array of {qid, img_name, question, answer, q_lang, answer_type, content_type}; `variant` is the
    language. Pictures stand in imgs/ of the set."""
    for row in json_rows(path, data):
        language = row.one_of("q_lang", ("EN", "ZH")).lower()
        kind = "closed" if row.one_of("answer_type", ("CLOSED", "OPEN")) == "CLOSED" else "open"
        item = Item(row.text("qid", numbers=True), kind, row.text("question"), (row.path("img_name"),),
                    (row.text("answer", numbers=True),), group=row.text("content_type", ""))
        if variant in (language, "all"):
            yield item


def vqa_med_2019(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """Lines `image|category|question|answer`; "#" stands between answers that are all right. Pictures are image.jpg."""
    for number, line in enumerate(decode(path, data).splitlines(), 1):
        if not line.strip():
            continue
        fields, where = [f.strip() for f in line.split("|")], "line %d" % number
        if len(fields) != 4:
            raise FormatError(path, where, "", "image|category|question|answer", Absent("%d fields" % len(fields)))
        for name, value in zip(("image", "category", "question", "answer"), fields):
            if not value:
                raise FormatError(path, where, name, "a string that is not empty", value)
        image, category, question, answer = fields
        if "/" in image or "\\" in image or image.startswith("."):
            raise FormatError(path, where, "image", "the name of a picture", image)
        answers = tuple(a.strip() for a in answer.split("#") if a.strip()) or (answer,)
        kind = "closed" if is_yes_no(answer) else "open"
        yield Item("%s:%d" % (image, number), kind, question, (image + ".jpg",), answers, group=category)


def hf_vqa(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """Rows of a Hugging Face VQA set as JSON (VQA-RAD, PathVQA, SLAKE-English; export_parquet.py writes them):
    {question, answer, image}, `image` a path or {"path"}. Closed is what is answered by yes or no."""
    for i, row in enumerate(json_rows(path, data)):
        image = row.doc.get("image")
        if isinstance(image, dict):
            image = image.get("path")
        answer = row.text("answer", numbers=True)
        yield Item(row.text("id", str(i), numbers=True), "closed" if is_yes_no(answer) else "open", row.text("question"),
                   (row.checked_path("image", image),), (answer,))
