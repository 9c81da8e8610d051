#!/usr/bin/env python3
"""Rows of Hugging Face parquet files -> pictures and JSON lines: export_parquet.py OUT_DIR FILE.parquet...

Two shapes are known by their columns:
  question, answer, image                              VQA-RAD, PathVQA, SLAKE-English: OUT_DIR/questions.jsonl for --format hf-vqa
  question, answer, options, image_1 .. image_7        MMMU: OUT_DIR/questions.jsonl for --format jsonl; "<image 1>" becomes
                                                       "image 1"; questions with more than four pictures are left
                                                       out and counted
Needs pyarrow. Nothing is downloaded.
"""
from __future__ import annotations

import ast
import json
import os
import re
import sys
from typing import Any, Iterator

from items import LETTERS

MOST_PICTURES = 4   # of a request


def rows(paths: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet
    for path in paths:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(64):
            for row in batch.to_pylist():
                yield path, row


def picture(folder: str, name: str, value: Any) -> str:
    """Writes {bytes, path}; the path in the set."""
    if not isinstance(value, dict) or not isinstance(value.get("bytes"), bytes):
        raise ValueError("expected a picture as {bytes, path}, got %.60r" % (value,))
    kind = ".png" if value["bytes"][:4] == b"\x89PNG" else ".jpg"
    with open(os.path.join(folder, "images", name + kind), "wb") as f:
        f.write(value["bytes"])
    return "images/" + name + kind


def mmmu(folder: str, at: int, row: dict[str, Any]) -> dict[str, Any] | None:
    values = [row["image_%d" % i] for i in range(1, 8) if row.get("image_%d" % i) is not None]
    if len(values) > MOST_PICTURES:
        return None
    plain = lambda s: re.sub(r"<image (\d)>", r"image \1", s)
    out = {"id": row["id"], "question": plain(row["question"]), "group": row.get("subfield") or "",
           "images": [picture(folder, "%06d_%d" % (at, i), v) for i, v in enumerate(values)]}
    options = ast.literal_eval(row["options"]) if isinstance(row["options"], str) else row["options"]
    if options:
        return {**out, "options": {k: plain(str(v)) for k, v in zip(LETTERS, options)}, "answer": row["answer"]}
    answer = row["answer"]
    if answer.startswith("["):      # open questions may have a list
        answer = ast.literal_eval(answer)
    return {**out, "closed": False, "answers": [str(a) for a in (answer if isinstance(answer, list) else [answer])]}


def export(folder: str, paths: list[str]) -> tuple[int, int]:
    """(written, left out)."""
    os.makedirs(os.path.join(folder, "images"), exist_ok=True)
    written = left_out = 0
    with open(os.path.join(folder, "questions.jsonl"), "w", encoding="utf-8") as f:
        for at, (path, row) in enumerate(rows(paths)):
            try:
                if "options" in row and "image_1" in row:
                    doc = mmmu(folder, at, row)
                else:
                    doc = {"id": str(at), "image": picture(folder, "%06d" % at, row["image"]), "question": row["question"],
                           "answer": row["answer"]}
            except (KeyError, ValueError, TypeError, AttributeError, SyntaxError) as e:
                sys.exit("export_parquet.py: %s: row %d: %s: %s; columns: %s" % (path, at, type(e).__name__, e, ", ".join(row)))
            if doc is None:
                left_out += 1
                continue
            f.write(json.dumps(doc, ensure_ascii=False) + "\n")
            written += 1
    return written, left_out


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        print("%d questions, %d left out" % export(sys.argv[1], sys.argv[2:]))
    except ImportError:
        sys.exit("export_parquet.py: the package pyarrow is not installed (make eval-venv)")
