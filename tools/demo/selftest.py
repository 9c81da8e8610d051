#!/usr/bin/env python3
"""Write the small question set for CI: phantom PNGs and config/models/demo/selftest.jsonl.

Each line is a request for `healthgpt batch` plus the expected text; image
paths are relative to the repository root.
"""
import json
import os

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import phantoms
import questions as qa

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PICTURES = {
    "brain_left": {"kind": "brain", "lesion": True, "side": "left", "height": "top", "size": "large"},
    "brain_right": {"kind": "brain", "lesion": True, "side": "right", "height": "bottom", "size": "small"},
    "brain_clear": {"kind": "brain", "lesion": False},
    "chest_right": {"kind": "chest", "lesion": True, "side": "right", "height": "top", "size": "large"},
    "chest_clear": {"kind": "chest", "lesion": False},
    "circles_3": {"kind": "shapes", "shape": "circle", "count": 3},
    "squares_2": {"kind": "shapes", "shape": "square", "count": 2},
    "triangles_4": {"kind": "shapes", "shape": "triangle", "count": 4},
}
QUESTIONS = [
    (["brain_left"], "What modality is this?", "MRI"), (["brain_left"], "What organ is shown?", "Brain"),
    (["brain_left"], "Is there a lesion?", "Yes"), (["brain_left"], "On which side is the lesion?", "Left"),
    (["brain_left"], "How large is the lesion?", "Large"),
    (["brain_left"], "Describe the image.", "A phantom of the brain with a large lesion at the top left."),
    (["brain_right"], "Where is the lesion?", "Bottom right"), (["brain_right"], "Is the lesion small or large?", "Small"),
    (["brain_clear"], "Is a lesion present?", "No"), (["brain_clear"], "Describe the image.", "A phantom of the brain without a lesion."),
    (["chest_right"], "What organ is shown?", "Chest"), (["chest_right"], "Which side of the image has the lesion?", "Right"),
    (["chest_right"], "Is the image real or a phantom?", "Phantom"), (["chest_clear"], "What modality is this?", "X-ray"),
    (["chest_clear"], "Is there a lesion?", "No"), (["circles_3"], "How many circles are there?", "Three"),
    (["circles_3"], "How many squares are there?", "Zero"), (["squares_2"], "What shape is shown?", "Squares"),
    (["squares_2"], "How many shapes are there?", "Two"), (["triangles_4"], "Describe the image.", "A drawing of four triangles."),
    (["triangles_4"], "What does the image show? (A) circles (B) squares (C) triangles (D) a brain", "C"),
    (["circles_3", "squares_2"], "Which image has more shapes?", "The first"),
    (["brain_clear", "brain_left"], "Which image has a lesion?", "The second"),
    (["brain_clear", "chest_clear"], "Do both images show the same organ?", "No"),
    ([], qa.KNOWLEDGE[0][0][0], qa.KNOWLEDGE[0][1]), ([], "Are you a medical device?", qa.KNOWLEDGE[4][1]),
    ([], "What is H-LoRA?", qa.KNOWLEDGE[8][1]),
]


def main():
    folder = os.path.join("tests", "data", "demo")
    os.makedirs(os.path.join(ROOT, folder), exist_ok=True)
    info = PngInfo()
    info.add_text("Description", "Synthetic phantom drawn by tools/demo/phantoms.py; not clinical data.")
    for n, (name, attr) in enumerate(PICTURES.items()):
        # the smoothest of some held-out seeds, so that the file stays small
        options = [phantoms.render(attr, phantoms.EVAL_SEED + 900000 + 100 * n + i) for i in range(100)]
        best = min(options, key=lambda p: np.abs(np.diff(p.astype(int), axis=1)).sum())
        path = os.path.join(ROOT, folder, name + ".png")
        Image.fromarray(best).save(path, optimize=True, pnginfo=info)
        assert os.path.getsize(path) < 3000, (name, os.path.getsize(path))
    with open(os.path.join(ROOT, "config/models/demo/selftest.jsonl"), "w") as f:
        for i, (images, question, expect) in enumerate(QUESTIONS):
            f.write(json.dumps({"id": "s%02d" % i, "task": "ask", "images": ["%s/%s.png" % (folder, p) for p in images],
                                "question": question, "max_tokens": 48, "expect": expect}) + "\n")


if __name__ == "__main__":
    main()
