"""The metrics of tools/eval: values computed by hand, and what must hold for any text. BLEU, ROUGE, PSNR and SSIM need packages:
tests/eval/library_values.py runs in an interpreter that has them (make eval-venv), else each is a counted skip."""
import json
import math
import os
import random
import subprocess

import eval_tool  # noqa: F401  (finds the modules of tools/eval)
from harness import ROOT, Fail, Skip, equal, require

import chexpert
import metrics
import options
import published
import stats
from normalise import normalise, words

LIBRARY_CHECKS = ("bleu_by_hand", "bleu_of_right_and_empty_answers", "rouge_by_hand", "psnr_mse_by_hand", "ssim_of_constants", "ssim_windows",
                  "reference_is_laid_out_as_the_model_sees_it", "colour", "parquet_export")
results = {}


def close(got, expected, what, by=1e-9):
    require(abs(got - expected) <= by, "%s: expected %r, got %r" % (what, expected, got))


def check_normalisation(build):
    for text, expected in {
            "The left lung.": "left lung", "X-ray": "x ray", "x-ray - chest": "xray chest", "1,000 mL": "1000 ml", "3.5 cm.": "3.5 cm",
            "None": "0", "Two, three": "2 3", "a/b": "b", "T2-weighted": "t2 weighted", "don't": "dont", "Yes!": "yes", "": "",
            "  An   apple ": "apple", "(right) upper": "right upper", "COVID-19, [new]": "covid 19 new"}.items():
        equal(normalise(text), expected, "normalise(%r)" % text)


def check_closed_rule(build):
    for answer, reference, hit in [
            ("Yes, there is.", "yes", 1), ("No", "yes", 0), ("There is no evidence", "No", 1), ("It is normal", "no", 0), ("not sure", "no", 0),
            ("No. Yes", "yes", 0), ("MRI scan", "mri", 1), ("the left lung", "Left", 1), ("leftover", "left", 0), ("", "yes", 0),
            ("yes", "left", 0), ("upper right lobe", "right lobe", 1), ("lobe right", "right lobe", 0)]:
        equal(metrics.closed(answer, reference), hit, "closed(%r, %r)" % (answer, reference))


def check_llava_med_rules(build):
    """With the quirks of its program: substrings, and wrong answers that leave the denominator."""
    for answer, reference, hit in [("normal", "no", 1.0), ("MRI", "MRI", 0.0), ("yes", "no", None), ("no", "no", 1.0), ("", "no", 0.0),
                                   ("no, left", "left", 1.0)]:
        equal(metrics.closed_llava_med(answer, reference), hit, "closed_llava_med(%r, %r)" % (answer, reference))
    p, r, f = metrics.prf_llava_med("left left left", "left lung")
    close(p, 1, "precision"), close(r, 3 / 4, "recall"), close(f, 6 / 7, "F1")
    p, r, f = metrics.token_f1("left left left", "left lung")
    close(p, 1 / 3, "clipped precision"), close(r, 1 / 2, "clipped recall"), close(f, 0.4, "clipped F1")
    close(metrics.exact_llava_med("left lung lobe", "left lung"), 2 / 3, "LLaVA-Med's exact match")
    equal(metrics.exact("The left lung", "left lung."), 1.0, "exact match")
    equal(metrics.exact("left lung lobe", "left lung"), 0.0, "exact match")
    equal(metrics.best(metrics.exact, "spine", ("skull", "spine")), 1.0, "the best of two references")


def check_options_rule(build):
    table = {"A": "brain", "B": "lung", "C": "heart", "D": "left lung"}
    for answer, expected in {
            "A": ("A", "letter"), "b": ("B", "letter"), "(C)": ("C", "letter"), "B. lung": ("B", "letter"), "D) left lung": ("D", "letter"),
            "The answer is B.": ("B", "letter"), "Option (C)": ("C", "letter"), "A:brain": ("A", "letter"), "lung": ("B", "text"),
            "It is the left lung": ("D", "text"), "Heart.": ("C", "text"), "hart": ("C", "fuzzy"), "A chest": ("C", "fuzzy"),
            "the brain or lung": ("A", "fuzzy"), "": ("", "none"), " ?!": ("", "none"), "E": ("C", "fuzzy")}.items():
        equal(options.choose(answer, table), expected, "choose(%r)" % answer)


def check_labels_of_texts(build):
    for text, expected in {
            "No focal consolidation, effusion or pneumothorax.": {"No Finding"},
            "Cardiomegaly. Small left pleural effusion without pneumothorax.": {"Cardiomegaly", "Pleural Effusion"},
            "There is no edema but atelectasis is present.": {"Atelectasis"},
            "The pneumonia has resolved.": {"No Finding"},
            "A pacemaker. The lungs are clear.": {"Support Devices", "No Finding"},
            "Right lower lobe opacity, likely pneumonia; no fracture.": {"Lung Opacity", "Pneumonia"},
            "pneumoniae": {"No Finding"}, "": set()}.items():
        found = chexpert.labels_of(text)
        equal({c for c, v in found.items() if v}, expected, "labels of %r" % text)
        equal(len(found), 14, "classes")


def check_micro_f1(build):
    close(metrics.micro_f1([(1, 0, 1), (2, 1, 0)]), 0.75, "micro-F1")
    equal(metrics.confusion({"Edema": 1, "Pneumonia": 1}, {"Edema": 1, "Pneumonia": 0, "Fracture": 1}), (1, 1, 1), "confusion")
    equal(metrics.micro_f1([]), 0.0, "of nothing")


def check_intervals(build):
    for hits, n, low, high in [(45, 50, 0.78640, 0.95652), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (564, 624, 0.87818, 0.92457)]:
        a, b = stats.wilson(hits, n)
        close(a, low, "low of %d/%d" % (hits, n), 1e-5), close(b, high, "high of %d/%d" % (hits, n), 1e-5)
    # shares 0.5 of 100 and 0.9 of 50: variance (0.0025 + 0.0018) / 4
    mean, low, high = stats.mean_of_shares([(50, 100), (45, 50)])
    close(mean, 0.7, "mean of shares"), close(high - mean, 1.959964 * math.sqrt(0.0043 / 4), "half width", 1e-6), close(mean - low, high - mean, "low")
    equal(stats.bootstrap([0.5] * 9, stats.mean, 1), (0.5, 0.5), "of equal values")
    values = [i / 99 for i in range(100)]
    first = stats.bootstrap(values, stats.mean, 7)
    equal(stats.bootstrap(values, stats.mean, 7), first, "the same seed")
    require(stats.bootstrap(values, stats.mean, 8) != first, "another seed gives the same interval")
    # sd of the mean of 100 values spread evenly over 0..1: 0.2915 / 10; the interval's half width 1.96 of it
    close((first[1] - first[0]) / 2, 1.96 * 0.02915, "half width", 0.006), close(sum(first) / 2, 0.5, "middle", 0.006)
    covered = 0
    for seed in range(400):
        rng = random.Random(seed)
        low, high = stats.wilson(sum(rng.random() < 0.9 for _ in range(100)), 100)
        covered += low <= 0.9 <= high
    require(0.91 <= covered / 400 <= 0.99, "Wilson covers the truth in %d of 400 samples" % covered)
    return "Wilson: %d of 400" % covered


def check_any_text(build):
    """Scores lie in 0..1, the reference itself gets 1, an empty answer 0, normalisation is idempotent."""
    rng, alphabet = random.Random(20261126), "aAbnoYESyes019 ,.-/'?()\u00e9\u4e2d\n\u2019_<&"
    for _ in range(2000):
        a, b = ("".join(rng.choice(alphabet) for _ in range(rng.randint(0, 14))) for _ in "ab")
        equal(normalise(normalise(a)), normalise(a), "normalised twice: %r" % a)
        require(all(w == w.lower() and " " not in w for w in words(a)), "words of %r" % a)
        for f in (metrics.closed, metrics.exact, metrics.exact_llava_med):
            require(0 <= f(a, b) <= 1, "%s(%r, %r)" % (f.__name__, a, b))
        for f in (metrics.prf_llava_med, metrics.token_f1):
            require(all(0 <= v <= 1 for v in f(a, b)), "%s(%r, %r)" % (f.__name__, a, b))
        letter, rule = options.choose(a, {"A": b or "x", "B": "lung"})
        require(letter in ("A", "B") or (letter, rule) == ("", "none"), "choose(%r)" % a)
        if b.strip():
            equal((metrics.closed(b, b), metrics.exact(b, b)), (1.0, 1.0), "the reference itself: %r" % b)
            equal(metrics.prf_llava_med(b, b)[1], 1.0, "recall of the reference itself: %r" % b)
            equal(metrics.token_f1(b, b), (1.0, 1.0, 1.0), "F1 of the reference itself: %r" % b)
            equal((metrics.closed("", b), metrics.exact("", b), metrics.prf_llava_med("", b), metrics.token_f1("", b)),
                  (0.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), "an empty answer to %r" % b)


def check_published_numbers(build):
    """Sums that the paper gives itself: its averages."""
    mean = lambda v: sum(v) / len(v)
    odd = {m for m, v in published.COMPREHENSION.items() if abs(mean(v) - published.AVERAGES[m]) > 0.06}
    equal(odd, {"Show-o", "Unified-IO 2", "Janus"}, "models whose printed average is not that of their row")
    for model, at in (("HealthGPT-M3", 68.5), ("HealthGPT-L14", 74.4)):
        close(mean(published.OMNIMEDVQA[model]), at, "OmniMedVQA of " + model, 0.05)
        equal(published.of("omnimedvqa", "option_macro")[model], at, "the two tables")
    for paper, (groups, rows) in published.PICTURES.items():
        for model, cells in rows.items():
            equal(len(cells), len(groups), "groups of %s, %s" % (paper, model))
            for _, psnr, mse in cells:      # a mean of PSNRs is at least the PSNR of the mean MSE, so the peak is 255
                above = psnr - 10 * math.log10(255 ** 2 / mse)
                require(-0.05 <= above <= 1.5, "PSNR and MSE of %s, %s: %.2f dB apart" % (paper, model, above))
    equal(published.of("reconstruction", "psnr", "CT brain")["HealthGPT-M3"], 36.42, "a cell")


FINDS = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(m) for m in sys.argv[1:]))"
MODULES = ("sacrebleu", "rouge_score", "skimage", "numpy", "PIL", "pyarrow")


def python_with_libraries():
    for path in (os.environ.get("HG_EVAL_PYTHON"), os.path.join(ROOT, "build", "venv-eval", "bin", "python")):
        if path and os.path.exists(path) and subprocess.run([path, "-c", FINDS, *MODULES], capture_output=True).returncode == 0:
            return path
    raise Skip("no interpreter with the packages of tools/eval/requirements.txt: make eval-venv")


def run_libraries():
    p = subprocess.run([python_with_libraries(), os.path.join(ROOT, "tests", "eval", "library_values.py")], capture_output=True,
                       text=True, timeout=300)
    for line in p.stdout.splitlines():
        r = json.loads(line)
        results[r["name"]] = r["error"]
    equal((p.returncode, sorted(results)), (0, sorted(LIBRARY_CHECKS)), "what ran: " + p.stderr[-800:])


def make(name):
    def check(build):
        if not results:
            run_libraries()
        if results[name]:
            raise Fail(results[name])
    return check


for _name in LIBRARY_CHECKS:
    globals()["check_library_" + _name] = make(_name)
