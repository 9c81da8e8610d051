"""Markdown: one run beside the published numbers, and the paper's tables with runs as rows."""
from __future__ import annotations

from typing import Any, Sequence

import published

WARNING = ("**NOT A MEASUREMENT: every picture was replaced by a stand-in (one grey square).** This run checks formats and "
           "plumbing; no number of it says anything about the model.")


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def number(value: float, unit: str = "%") -> str:
    return "%.2f" % value if unit in ("dB", "", "x100") else "%.1f" % value


def report(doc: dict[str, Any]) -> str:
    """One scored run."""
    c, made = doc["config"], doc["made"]
    out = ["## %s: %s (%s)" % (c["model"], c["paper"] or c["set"]["file"], c["set"]["format"]), ""]
    if doc["stand_in"]:
        out += [WARNING, ""]
    if doc["answered"] < doc["of"]:
        out += ["**Partial: %d of %d questions.**" % (doc["answered"], doc["of"]), ""]
    shown = [] if doc["stand_in"] else [m for m in published.SHOWN if any(
        m in published.of(c["paper"], x["key"], x["group"]) for x in doc["metrics"])]
    out += [line(["metric", "value", "95 % interval", "n"] + ["published " + m for m in shown]), line(["---"] * (4 + len(shown)))]
    for m in doc["metrics"]:
        known = published.of(c["paper"], m["key"], m["group"])
        name = m["name"] + (", " + m["group"] if m["group"] else "")
        unit = " dB" if m["unit"] == "dB" else ""
        between = "%s .. %s" % (number(m["low"], m["unit"]), number(m["high"], m["unit"]))
        out.append(line([name, number(m["value"], m["unit"]) + unit, between, str(m["n"])] +
                        [number(known[x], m["unit"]) if x in known else "" for x in shown]))
    out += [""] + ["Not computed: " + x for x in doc["left_out"]]
    out += ["Set %s, SHA-256 %s, %d of %d questions (%d refused, %d empty answers). " % (
        c["set"]["file"], c["set"]["sha256"][:16], doc["answered"], doc["of"], doc["refused"], doc["empty"]) +
        "Model card SHA-256 %s, fingerprint %s. Seed %d, temperature %g, at most %s tokens, route %s, template %r, system %r. " % (
            c["card_sha256"][:16], c["fingerprint"], c["seed"], c["temperature"], c["max_tokens"] or "the card's number of", c["route"],
            c["template"] or "default", c["system"] or "default") +
        "Run %s at %s by server %s; scored %s at %s, Python %s, %s; bootstrap of %d with seed %d." % (
            made["date"], made["commit"] or "no commit", made["server"], doc["scored"]["date"], doc["scored"]["commit"] or "no commit",
            doc["scored"]["python"], ", ".join("%s %s" % p for p in doc["scored"]["packages"].items()) or "no packages",
            doc["scored"]["resamples"], doc["scored"]["seed"])]
    return "\n".join(out) + "\n"


def label(doc: dict[str, Any]) -> str:
    partial = "" if doc["answered"] == doc["of"] else " (partial)"
    return "this run: %s, %s, seed %d%s" % (doc["config"]["model"], doc["config"]["fingerprint"], doc["config"]["seed"], partial)


def find(doc: dict[str, Any], key: str, group: str = "") -> dict[str, Any] | None:
    fold = published.fold
    name = (lambda g: published.modality(g) or g) if doc["config"]["paper"] == "omnimedvqa" else fold
    return next((m for m in doc["metrics"] if m["key"] == key and fold(name(m["group"])) == fold(group)), None)


def comprehension(docs: Sequence[dict[str, Any]]) -> str:
    """Table 1."""
    heads = ["VQA-RAD close", "all", "SLAKE close", "all", "PathVQA close", "all", "MMMU-Med", "OmniMedVQA", "avg."]
    out = [line(["model"] + heads), line(["---"] * 10)]
    for model, values in published.COMPREHENSION.items():
        out.append(line([model] + ["%.1f" % v for v in values] + ["%.1f" % published.AVERAGES[model]]))
    rows: dict[str, dict[int, float]] = {}
    for doc in docs:
        for at, (paper, key) in enumerate(published.COMPREHENSION_COLUMNS):
            m = find(doc, key) if doc["config"]["paper"] == paper else None
            if m:
                rows.setdefault(label(doc), {})[at] = m["value"]
    for name, found in rows.items():
        cells = ["%.1f" % found[i] if i in found else "" for i in range(8)]
        out.append(line([name] + cells + ["%.1f" % (sum(found.values()) / 8) if len(found) == 8 else ""]))
    return "### Table 1: comprehension\n\n" + "\n".join(out) + "\n" if rows else ""


def by_group(docs: Sequence[dict[str, Any]], paper: str, title: str, groups: Sequence[str], known: dict[str, list[str]],
             keys: Sequence[str]) -> str:
    out = [line(["model"] + list(groups)), line(["---"] * (1 + len(groups)))]
    out += [line([model] + cells) for model, cells in known.items()]
    rows = []
    for doc in docs:
        if doc["config"]["paper"] == paper:
            cells = []
            for g in groups:
                found = [find(doc, k, g) or (find(doc, k) if len(groups) == 1 else None) for k in keys]
                cells.append("/".join(number(m["value"], m["unit"]) for m in found) if all(found) else "")
            rows.append(line([label(doc)] + cells))
    return "### %s\n\n" % title + "\n".join(out + rows) + "\n" if rows else ""


def paper_tables(docs: Sequence[dict[str, Any]]) -> str:
    """The tables that the runs have something for; runs with stand-ins are left out."""
    real = [d for d in docs if not d["stand_in"]]
    parts = [comprehension(real)]
    parts.append(by_group(real, "omnimedvqa", "Table 9: OmniMedVQA by modality", published.MODALITIES,
                          {m: ["%.1f" % x for x in v] for m, v in published.OMNIMEDVQA.items()}, ("option",)))
    titles = {"reconstruction": "Table 11: reconstruction", "conversion": "Table 2: modality conversion",
              "super-resolution": "Table 3: super-resolution"}
    for paper, (groups, rows) in published.PICTURES.items():
        known = {m: ["%.2f/%.2f/%.2f" % c for c in v] for m, v in rows.items()}
        parts.append(by_group(real, paper, titles[paper] + ", SSIM (x100) / PSNR / MSE", groups, known, ("ssim", "psnr", "mse")))
    dropped = len(docs) - len(real)
    note = "%d run%s with stand-in pictures left out.\n" % (dropped, "s" * (dropped > 1)) if dropped else ""
    return "\n".join(p for p in parts + [note] if p)
