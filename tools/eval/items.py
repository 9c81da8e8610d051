"""What a question set is made of, and the errors of its files."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import posixpath
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Iterator

MAX_SET_BYTES = 1 << 30
KINDS = ("closed", "open", "choice", "label", "report", "picture")
YES_NO = ("yes", "no")
LETTERS = "ABCDEFGHIJ"


class FormatError(Exception):
    """A file that is not what its format says: which file, where in it, which key, what was expected, what is there."""

    def __init__(self, file: str, where: str, key: str, expected: str, got: Any):
        shown = got if isinstance(got, Absent) else repr(got)
        shown = shown if len(str(shown)) <= 80 else str(shown)[:77] + "..."
        super().__init__(": ".join(p for p in (file, where, key) if p) + ": expected %s, got %s" % (expected, shown))


class Absent(str):
    """Something to say instead of a value."""


NOTHING = Absent("nothing")


@dataclass(frozen=True)
class Item:
    """One request of a set and what its answer is held against.

    kind      closed: yes/no, or one of the alternatives that the question names; open: free text; choice: `options`;
              label: yes/no about one of the 14 classes, see chexpert.py; report: text from which labels are read;
              picture: the answer is a picture like `reference`
    images    paths below the folder of the pictures; none for a question without one
    answers   any of them is right; a choice has its letter
    labels    class -> 1 or 0
    group     what results are also given by (modality, category)
    """
    id: str
    kind: str
    question: str
    images: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    group: str = ""
    reference: str = ""

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v or k in ("id", "kind")}

    @staticmethod
    def from_json(doc: dict[str, Any]) -> "Item":
        return Item(**{k: tuple(v) if isinstance(v, list) else v for k, v in doc.items()})


class Row:
    """A record of a file, with the typed getters that know where it stands."""

    def __init__(self, file: str, where: str, doc: Any):
        self.file, self.where, self.doc = file, where, doc
        if not isinstance(doc, dict):
            raise self.error("", "an object", doc)

    def error(self, key: str, expected: str, got: Any) -> FormatError:
        return FormatError(self.file, self.where, key, expected, got)

    def has(self, key: str) -> bool:
        return self.doc.get(key) is not None

    def text(self, key: str, default: str | None = None, numbers: bool = False, blank: bool = False) -> str:
        """A string, stripped; with `numbers` a JSON number too."""
        value = self.doc.get(key)
        if value is None:
            if default is not None:
                return default
            raise self.error(key, "a string", NOTHING if key not in self.doc else value)
        if numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.error(key, "a string", value)
        if not value.strip() and not blank:
            raise self.error(key, "a string that is not empty", value)
        return value.strip()

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.text(key)
        if value.upper() not in allowed:
            raise self.error(key, " or ".join(allowed), value)
        return value.upper()

    def path(self, key: str, default: str | None = None) -> str:
        """A relative path that stays below its folder."""
        return self.checked_path(key, self.text(key, default))

    def checked_path(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, "the path of a file", value)
        parts = value.replace("\\", "/").split("/")
        if value.startswith("/") or ".." in parts or "\0" in value or re.match(r"[A-Za-z]:", value):
            raise self.error(key, "a path below the folder of the pictures", value)
        return posixpath.normpath("/".join(parts))


def read_bytes(path: str) -> bytes:
    """The whole file, at most MAX_SET_BYTES."""
    try:
        with open(path, "rb") as f:
            data = f.read(MAX_SET_BYTES + 1)
    except OSError as e:
        raise FormatError(path, "", "", "a file that can be read", Absent(e.strerror or str(e))) from None
    if len(data) > MAX_SET_BYTES:
        raise FormatError(path, "", "", "at most %d bytes" % MAX_SET_BYTES, Absent("more"))
    return data


def decode(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise FormatError(path, "byte %d" % e.start, "", "UTF-8", data[e.start:e.start + 4]) from None


def load_json(path: str, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        place = where or "line %d" % e.lineno
        raise FormatError(path, "%s, column %d" % (place, e.colno), "", "JSON (%s)" % e.msg,
                          text[e.pos:e.pos + 20] or Absent("the end")) from None
    except (RecursionError, ValueError) as e:
        raise FormatError(path, where, "", "JSON of a sensible depth and size", Absent(type(e).__name__)) from None


def json_rows(path: str, data: bytes) -> Iterator[Row]:
    """The objects of a JSON array, or of JSON lines."""
    text = decode(path, data)
    if text.lstrip()[:1] == "[":
        for i, doc in enumerate(load_json(path, "", text)):
            yield Row(path, "item %d" % i, doc)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = "line %d" % number
            yield Row(path, where, load_json(path, where, line))


def csv_rows(path: str, data: bytes, need: tuple[str, ...]) -> Iterator[Row]:
    """The records of a CSV file with a line of names; every one has as many fields as that line."""
    csv.field_size_limit(1 << 20)
    reader = csv.reader(io.StringIO(decode(path, data), newline=""), strict=True)
    try:
        names = [n.strip() for n in next(reader, [])]
        for n in need:
            if n not in names:
                raise FormatError(path, "line 1", n, "a column of that name", names)
        for record in reader:
            if not record:
                continue
            where = "line %d" % reader.line_num
            if len(record) != len(names):
                raise FormatError(path, where, "", "%d fields" % len(names), Absent("%d" % len(record)))
            yield Row(path, where, {n: v for n, v in zip(names, record) if v.strip()})
    except csv.Error as e:
        raise FormatError(path, "line %d" % reader.line_num, "", "CSV", Absent(str(e))) from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_yes_no(answer: str) -> bool:
    return answer.strip().strip(".").lower() in YES_NO
