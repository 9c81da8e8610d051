"""Labels of the 14 CheXpert classes, as MIMIC-CXR and CheXpert publish them."""
from __future__ import annotations

from typing import Iterator

from chexpert import CLASSES, question_about
from items import FormatError, Item, NOTHING, csv_rows

PATH_KEYS = ("image", "Path", "path", "dicom_id")
REPORT = "Describe the findings in this chest X-ray."


def chexpert(path: str, data: bytes, variant: str) -> Iterator[Item]:
    """A CSV with a column for each class (1, 0, -1, or empty: not mentioned, which counts as 0) and one for the picture
    (image, Path, path or dicom_id). `variant`:
    "ask:U": a yes/no question for each class of each picture;
    "report:U": one question for a report, from which chexpert.py reads the classes.
    U is what -1 (uncertain) counts as: positive, negative, or skip (left out)."""
    mode, _, uncertain = variant.partition(":")
    key = ""
    for i, row in enumerate(csv_rows(path, data, CLASSES)):
        if not key:
            key = next((k for k in PATH_KEYS if row.has(k)), "")
            if not key:
                raise FormatError(path, "line 1", "image", "a column image, Path, path or dicom_id", NOTHING)
        image = row.path(key)
        image = image if "." in image.rsplit("/", 1)[-1] else image + ".jpg"
        labels = {}
        for c in CLASSES:
            value = row.text(c, "0", blank=True)
            if value not in ("1", "1.0", "0", "0.0", "-1", "-1.0"):
                raise row.error(c, "1, 0, -1 or nothing", value)
            if float(value) < 0 and uncertain == "skip":
                continue
            labels[c] = 1 if float(value) > 0 or (float(value) < 0 and uncertain == "positive") else 0
        name = row.text("id", str(i))
        if mode == "report":
            yield Item(name, "report", REPORT, (image,), labels=labels)
            continue
        for c, label in labels.items():
            yield Item("%s:%s" % (name, c), "label", question_about(c), (image,), ("yes" if label else "no",), labels={c: label},
                       group=c)
