"""`score`: results files -> metrics with intervals, as JSON and Markdown. Needs no server and no set."""
from __future__ import annotations

import collections
import datetime
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Callable, Sequence

import chexpert
import libraries
import metrics
import options
import published
import results
import stats
from items import Item, read_bytes
from run import STAND_IN, find_picture
from versions import commit


class ScoreError(Exception):
    """Results that cannot be scored together."""


@dataclass
class Metric:
    """A value (percent, or what `unit` says), its 95 % interval, over n questions. `how`: the interval's kind, and notes."""
    key: str
    name: str
    value: float
    low: float
    high: float
    n: int
    how: str
    unit: str = "%"
    group: str = ""


@dataclass
class Answer:
    item: Item
    text: str           # "" where the server refused
    line: dict[str, Any]
    folder: str         # of drawn pictures


def load(paths: Sequence[str]) -> tuple[list[dict[str, Any]], list[Answer]]:
    """(headers, answers in the order of the set): one run, or shards of one."""
    headers, answers = [], []
    for path in paths:
        header, lines = results.load(path)
        headers.append(header)
        try:
            answers += [Answer(Item.from_json(x["item"]), x.get("text") or "", x, path + ".pictures") for x in lines]
        except (KeyError, TypeError, AttributeError) as e:
            raise ScoreError("%s: a line of another shape: %s" % (path, e)) from None
    first = headers[0]["config"]
    for path, header in zip(paths, headers):
        changed = [d for d in results.differences(first, header["config"]) if not d.startswith("shard:")]
        if changed:
            raise ScoreError("%s is no shard of the same run as %s:\n  %s" % (path, paths[0], "\n  ".join(changed)))
    twice = [k for k, n in collections.Counter(a.item.id for a in answers).items() if n > 1]
    if twice:
        raise ScoreError("%d questions are answered more than once, the first: %s" % (len(twice), twice[0]))
    return headers, sorted(answers, key=lambda a: a.line["index"])


class Scorer:
    def __init__(self, seed: int, resamples: int):
        self.seed, self.resamples = seed, resamples
        self.metrics: list[Metric] = []
        self.left_out: list[str] = []       # metrics without their package

    def share(self, key: str, name: str, hits: Sequence[float], group: str = "") -> None:
        """Of 0s and 1s."""
        if hits:
            low, high = stats.wilson(int(sum(hits)), len(hits))
            self._add(key, name, stats.mean(hits), low, high, len(hits), "Wilson", group)

    def mean(self, key: str, name: str, values: Sequence[float], group: str = "") -> None:
        """Of values in 0..1."""
        if values:
            low, high = stats.bootstrap(values, stats.mean, self.seed, self.resamples)
            self._add(key, name, stats.mean(values), low, high, len(values), "bootstrap", group)

    def statistic(self, key: str, name: str, rows: Sequence, of: Callable[[Sequence], float], n: int, group: str = "") -> None:
        if rows:
            low, high = stats.bootstrap(rows, of, self.seed, self.resamples)
            self._add(key, name, of(rows), low, high, n, "bootstrap", group)

    def plain(self, key: str, name: str, values: Sequence[float], unit: str, group: str = "") -> None:
        """Mean in a unit of its own."""
        if values:
            low, high = stats.bootstrap(values, stats.mean, self.seed, self.resamples)
            self.metrics.append(Metric(key, name, stats.mean(values), low, high, len(values), "bootstrap", unit, group))

    def _add(self, key: str, name: str, value: float, low: float, high: float, n: int, how: str, group: str) -> None:
        self.metrics.append(Metric(key, name, 100 * value, 100 * low, 100 * high, n, how, "%", group))

    def without(self, what: str, e: libraries.Missing) -> None:
        self.left_out.append("%s: the package %s is not installed (make eval-venv)" % (what, e))

    # ---- kinds of questions --------------------------------------------------------------------------
    def questions(self, answers: list[Answer]) -> None:
        """Closed and open ones."""
        shut = [a for a in answers if a.item.kind == "closed"]
        free = [a for a in answers if a.item.kind == "open"]
        best = lambda f, group: [metrics.best(f, a.text, a.item.answers) for a in group]
        hits, prf = best(metrics.closed, shut), best(metrics.prf_llava_med, free)
        recall = [r for _, r, _ in prf]
        self.share("closed", "closed: accuracy", hits)
        self.mean("open_recall", "open: recall of the answer's words (LLaVA-Med)", recall)
        if shut and free:
            self.mean("all", "all: closed accuracy and open recall, by question", hits + recall)
        self.share("exact_all", "all: exact match", best(metrics.exact, shut + free))
        llava = best(metrics.closed_llava_med, shut)
        self.share("closed_llava_med", "closed: LLaVA-Med's substring rule", [v or 0.0 for v in llava])
        self.share("closed_llava_med_printed", "closed: as LLaVA-Med's program prints it", [v for v in llava if v is not None])
        self.share("open_exact", "open: exact match", best(metrics.exact, free))
        self.mean("open_f1", "open: F1 of words (clipped counts)", [f for _, _, f in best(metrics.token_f1, free)])
        self.mean("open_f1_llava_med", "open: F1 of words (LLaVA-Med)", [f for _, _, f in prf])
        self.mean("open_precision_llava_med", "open: precision of words (LLaVA-Med)", [p for p, _, _ in prf])
        self.mean("open_exact_llava_med", "open: LLaVA-Med's \"exact match\"", best(metrics.exact_llava_med, free))
        self.texts(free)
        for group in groups_of(shut + free):
            mine = lambda some, values: [v for a, v in zip(some, values) if a.item.group == group]
            self.share("closed", "closed: accuracy", mine(shut, hits), group)
            self.mean("open_recall", "open: recall (LLaVA-Med)", mine(free, recall), group)

    def texts(self, free: list[Answer]) -> None:
        """BLEU and ROUGE of open answers."""
        if not free:
            return
        said, want = [a.text for a in free], [a.item.answers for a in free]
        try:
            for order in (1, 2, 3, 4):
                value, low, high, how = libraries.bleu(said, want, order, self.seed, self.resamples)
                name = "open: BLEU-%d" % order
                self.metrics.append(Metric("bleu%d" % order, name, value, low, high, len(free), "sacrebleu " + how))
        except libraries.Missing as e:
            self.without("BLEU", e)
        try:
            found = [libraries.rouge(s, w) for s, w in zip(said, want)]
            for kind in ("rouge1", "rouge2", "rougeL"):
                self.mean(kind, "open: ROUGE-%s, F" % kind[5:], [f[kind] for f in found if f[kind] is not None])
        except libraries.Missing as e:
            self.without("ROUGE", e)

    def choices(self, answers: list[Answer], paper: str) -> None:
        """`paper`: omnimedvqa's mean over groups is over the seven modalities of the paper's table 9."""
        rows = []
        for a in answers:
            if a.item.kind == "choice":
                letter, rule = options.choose(a.text, a.item.options)
                rows.append((float(letter in a.item.answers and bool(letter)), rule, a.item.group))
        groups = sorted({g for _, _, g in rows if g})
        self.share("option", "option accuracy", [r[0] for r in rows])
        meant = [r for r in rows if r[2] and (paper != "omnimedvqa" or published.modality(r[2]))]
        if len(groups) > 1 and meant:
            by: dict[str, list[float]] = collections.defaultdict(list)
            for hit, _, group in meant:
                by[group].append(hit)
            value, low, high = stats.mean_of_shares([(sum(v), len(v)) for v in by.values()])
            self._add("option_macro", "option accuracy, mean over %d groups" % len(by), value, low, high, len(meant), "normal", "")
        for rule in ("letter", "text", "fuzzy", "none"):
            self.share("rule_" + rule, "answers matched by rule: " + rule, [float(r[1] == rule) for r in rows])
        for g in groups:
            self.share("option", "option accuracy", [r[0] for r in rows if r[2] == g], g)

    def labels(self, answers: list[Answer]) -> None:
        """Micro-F1; the bootstrap draws pictures, not classes."""
        by_picture: dict[tuple[str, ...], list[tuple[int, int, int]]] = collections.defaultdict(list)
        by_class: dict[str, list[tuple[int, int, int]]] = collections.defaultdict(list)
        hits = []
        for a in answers:
            if a.item.kind == "label":
                found = {c: int(metrics.closed(a.text, "yes")) for c in a.item.labels}
            elif a.item.kind == "report":
                found = chexpert.labels_of(a.text)
            else:
                continue
            by_picture[a.item.images or (a.item.id,)].append(metrics.confusion(found, a.item.labels))
            for c, y in a.item.labels.items():
                by_class[c].append(metrics.confusion(found, {c: y}))
                hits.append(float(found[c] == y and bool(a.text)))
        rows = list(by_picture.values())
        flat = lambda r: metrics.micro_f1(c for counts in r for c in counts)
        self.statistic("micro_f1", "micro-F1 over %d classes" % len(by_class), rows, flat, len(hits))
        self.share("label_accuracy", "accuracy of single labels", hits)
        for c in sorted(by_class):
            self.statistic("f1", "F1", by_class[c], metrics.micro_f1, len(by_class[c]), c)

    def pictures(self, answers: list[Answer], root: str, colour: bool) -> None:
        drawn = [a for a in answers if a.item.kind == "picture" and a.line.get("picture")]
        if not drawn:
            return
        try:
            found = [libraries.compare(read_bytes(os.path.join(a.folder, a.line["picture"])), reference_of(a, root), colour)
                     for a in drawn]
        except libraries.Missing as e:
            return self.without("PSNR, SSIM, MSE", e)
        for group in ["", *groups_of(drawn)]:
            mine = [f for a, f in zip(drawn, found) if not group or a.item.group == group]
            for key, name, unit in (("ssim", "SSIM (7x7), x100", "x100"), ("psnr", "PSNR", "dB"), ("mse", "MSE, 0..255", ""),
                                    ("ssim_gauss", "SSIM (11x11 Gaussian), x100", "x100")):
                self.plain(key, name, [f[key] for f in mine], unit, group)


def groups_of(answers: list[Answer]) -> list[str]:
    found = sorted({a.item.group for a in answers if a.item.group})
    return found if len(found) > 1 else []


def reference_of(a: Answer, root: str) -> bytes:
    path = find_picture(root, a.item.reference)
    if path is None:
        raise ScoreError("%s: reference picture %s is not below the folder (--images DIR)" % (a.item.id, a.item.reference))
    return read_bytes(path)


def score(paths: Sequence[str], root: str, seed: int | None = None, resamples: int = stats.RESAMPLES,
          colour: bool = False) -> dict[str, Any]:
    """The document that `score --json` writes."""
    headers, answers = load(paths)
    config = headers[0]["config"]
    seed = config["seed"] if seed is None else seed
    s = Scorer(seed, resamples)
    s.questions([a for a in answers if a.item.kind in ("closed", "open")])
    s.choices(answers, config["paper"])
    s.labels(answers)
    s.pictures(answers, root, colour)
    refused = sum("error" in a.line for a in answers)
    return {
        "config": {**config, "shard": [h["config"]["shard"] for h in headers]},
        "made": headers[0]["made"],
        "answered": len(answers), "of": config["set"]["items"], "refused": refused,
        "empty": sum(a.item.kind != "picture" and not a.text.strip() for a in answers),
        "stand_in": config["images"] == STAND_IN,
        "metrics": [asdict(m) for m in s.metrics], "left_out": s.left_out,
        "scored": {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit(),
                   "python": sys.version.split()[0], "packages": libraries.versions(), "seed": seed, "resamples": resamples,
                   "colour": colour},
    }
