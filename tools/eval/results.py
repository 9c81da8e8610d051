"""The results file: JSON lines, a header and then one line per answered item, in the order of the set.

The header says what was asked of whom; a second start with the same command goes on behind the last whole line, and one
with another configuration is refused. A line that a kill cut in two is taken away. Results do not depend on the
concurrency: a line is written when all before it are.
"""
from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Iterator

FORMAT = 1


class ResultsError(Exception):
    """A results file that is broken or belongs to another run."""


def dump(doc: dict[str, Any]) -> bytes:
    return (json.dumps(doc, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """What two configurations do not share, as "key: old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for k in sorted(set(old) | set(new)):
            yield from differences(old.get(k), new.get(k), at + "." + k if at else k)
    elif old != new:
        yield "%s: %s -> %s" % (at, json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False))


def parse(path: str, data: bytes) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """(header or None, result lines, length of the whole lines). Only the end may be broken."""
    header, lines, whole = None, [], 0
    pieces = data.split(b"\n")
    for number, piece in enumerate(pieces, 1):
        is_last = number >= len(pieces) - 1 and not any(pieces[number:])
        try:
            if number == len(pieces):   # what stands behind the last newline
                break
            doc = json.loads(piece)
            if not isinstance(doc, dict) or doc.get("type") != ("header" if number == 1 else "result"):
                raise ValueError("expected a %s" % ("header" if number == 1 else "result"))
        except ValueError as e:
            if is_last:
                break
            raise ResultsError("%s: line %d: %s, got %.60r" % (path, number, e, piece)) from None
        if number == 1:
            header = doc
        else:
            lines.append(doc)
        whole += len(piece) + 1
    start = b'{"type":"header"'
    if header is None and not data.startswith(start) and not start.startswith(data):
        raise ResultsError("%s: line 1: expected a results file of `run`, got %.60r" % (path, data))
    if header is not None and not isinstance(header.get("config"), dict):
        raise ResultsError("%s: line 1: config: expected an object, got %r" % (path, header.get("config")))
    if header is not None and header.get("format") != FORMAT:
        raise ResultsError("%s: line 1: format: expected %d, got %r" % (path, FORMAT, header.get("format")))
    return header, lines, whole


def load(path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """For scoring. A cut last line is left out."""
    try:
        with open(path, "rb") as f:
            header, lines, _ = parse(path, f.read())
    except OSError as e:
        raise ResultsError("%s: %s" % (path, e.strerror)) from None
    if header is None:
        raise ResultsError("%s: expected a results file of `run`, got no header" % path)
    return header, lines


class Writer:
    """Open for appending, alone: a second run on the same file is refused."""

    def __init__(self, path: str, header: dict[str, Any], order: list[str]):
        """`order`: the ids of the selected items; what is done must be its beginning."""
        self.path, self.repaired = path, 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.fd)
            raise ResultsError("%s: another run is writing it" % path) from None
        try:
            self._resume(header, order)
        except BaseException:
            os.close(self.fd)
            raise

    def _resume(self, header: dict[str, Any], order: list[str]) -> None:
        with open(self.path, "rb") as f:
            data = f.read()
        old, lines, whole = parse(self.path, data)
        if old is not None:
            changed = list(differences(old["config"], header["config"]))
            if changed:
                raise ResultsError("%s was made with another configuration (take another file, or remove it):\n  %s" %
                                   (self.path, "\n  ".join(changed)))
        ids = [line.get("id") for line in lines]
        for at, (got, expected) in enumerate(zip(ids, order)):   # a smaller --limit than before has nothing to do
            if got != expected:
                raise ResultsError("%s: line %d: id: expected %r, got %r" % (self.path, at + 2, expected, got))
        self.repaired = len(data) - whole
        os.ftruncate(self.fd, whole)
        os.lseek(self.fd, 0, os.SEEK_END)
        self.done = len(lines)
        if old is None:
            self.append(header)

    def append(self, doc: dict[str, Any]) -> None:
        data = dump(doc)
        while data:
            data = data[os.write(self.fd, data):]

    def close(self) -> None:
        os.fsync(self.fd)
        os.close(self.fd)
