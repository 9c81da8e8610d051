"""The 14 classes of CheXpert (Irvin et al. 2019), the question about each, and a simple labeller of texts.

The labeller is ours and small: it is no replacement for CheXpert's or CheXbert's, whose numbers it does not reproduce. A
class is positive when one of its words stands in a sentence without a negation before it (in the same clause) and no
"resolved", "absent" or "ruled out" after it. "No Finding" is positive when no other class but "Support Devices" is.
"""
from __future__ import annotations

import re

# class -> how a report says it (whole words, lower case)
WORDS: dict[str, tuple[str, ...]] = {
    "No Finding": (),
    "Enlarged Cardiomediastinum": ("enlarged cardiomediastinum", "cardiomediastinal enlargement", "widened mediastinum",
                                   "mediastinal widening", "enlarged mediastinum"),
    "Cardiomegaly": ("cardiomegaly", "enlarged heart", "heart is enlarged", "cardiac enlargement", "enlarged cardiac silhouette",
                     "cardiac silhouette is enlarged", "heart size is enlarged"),
    "Lung Opacity": ("opacity", "opacities", "opacification", "infiltrate", "infiltrates", "airspace disease"),
    "Lung Lesion": ("lung lesion", "nodule", "nodules", "mass", "masses", "lesion", "lesions"),
    "Edema": ("edema", "oedema", "vascular congestion"),
    "Consolidation": ("consolidation", "consolidations"),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("atelectasis", "atelectases", "atelectatic"),
    "Pneumothorax": ("pneumothorax", "pneumothoraces"),
    "Pleural Effusion": ("pleural effusion", "pleural effusions", "effusion", "effusions"),
    "Pleural Other": ("pleural thickening", "pleural scarring", "pleural plaque", "pleural plaques", "fibrothorax"),
    "Fracture": ("fracture", "fractures"),
    "Support Devices": ("endotracheal tube", "nasogastric tube", "chest tube", "pacemaker", "picc", "central line", "catheter",
                        "support devices", "sternotomy wires", "icd"),
}
CLASSES: tuple[str, ...] = tuple(WORDS)
_BEFORE = re.compile(r"\b(?:no|not|without|free of|negative for|absence of|clear of|ruled out|denies|rather than)\b")
_AFTER = re.compile(r"^[\w\s]*?\b(?:is|are|was|were|has|have|been)\b[\w\s]*?"
                    r"\b(?:absent|resolved|ruled out|not (?:seen|present|identified))\b")
_CLAUSE = re.compile(r"[,;:]?\s+(?:but|however|although|though|while)\s+|;")


def question_about(name: str) -> str:
    """The yes/no question about a class."""
    if name == "No Finding":
        return "Is this a normal chest X-ray without findings?"
    if name == "Support Devices":
        return "Are there support devices in this image?"
    if name == "Pleural Other":
        return "Is there evidence of a pleural abnormality other than effusion?"
    return "Is there evidence of %s?" % name.lower()


def labels_of(text: str) -> dict[str, int]:
    """class -> 1 or 0 of a text."""
    found = dict.fromkeys(CLASSES, 0)
    for sentence in re.split(r"[.!?\n]+", text.lower()):
        for clause in _CLAUSE.split(sentence):
            for name, words in WORDS.items():
                found[name] |= any(_stated(clause, w) for w in words)
    others = [c for c in CLASSES if c not in ("No Finding", "Support Devices")]
    found["No Finding"] = int(bool(text.strip()) and not any(found[c] for c in others))
    return found


def _stated(clause: str, word: str) -> bool:
    for m in re.finditer(r"\b%s\b" % re.escape(word), clause):
        if not _BEFORE.search(clause[:m.start()]) and not _AFTER.match(clause[m.end():]):
            return True
    return False
