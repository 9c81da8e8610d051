"""What needs packages of requirements.txt: BLEU, ROUGE, PSNR, SSIM. Without one the metric is left out, and said so."""
from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
from typing import Any, Sequence

PACKAGES = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score", "numpy": "numpy", "PIL": "Pillow", "skimage": "scikit-image"}
PAD = (122, 116, 104)   # what healthgptd pads a picture with to a square: CLIP's mean colour
PSNR_OF_EQUAL = 100.0   # dB; the ratio is infinite, which no mean and no JSON can hold


class Missing(Exception):
    """A package that is not installed."""


def need(*modules: str) -> list[Any]:
    found = []
    for m in modules:
        try:
            found.append(importlib.import_module(m))
        except ImportError:
            raise Missing(PACKAGES.get(m.split(".")[0], m)) from None
    return found


def versions() -> dict[str, str]:
    """name -> version of the packages that are there."""
    out = {}
    for package in PACKAGES.values():
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return out


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], order: int, seed: int,
         n_bootstrap: int) -> tuple[float, float, float, str]:
    """Corpus BLEU of sacrebleu in 0..100: (score, low, high, signature). Tokenizer 13a, lower case, effective order: an
    order that no answer is long enough for is left out, so that short right answers reach 100."""
    sb, _ = need("sacrebleu", "numpy")
    os.environ["SACREBLEU_SEED"] = str(seed)
    metric = sb.metrics.BLEU(max_ngram_order=order, lowercase=True, effective_order=True, smooth_method="exp")
    if not any(a.strip() for a in answers):
        return 0.0, 0.0, 0.0, "no answer has a word"
    most = max(len(r) for r in references)
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    result = metric.corpus_score(list(answers), streams, n_bootstrap=n_bootstrap)
    low, high = (result._mean - result._ci, result._mean + result._ci) if n_bootstrap > 1 else (result.score, result.score)
    return min(100.0, result.score), max(0.0, low), min(100.0, high), str(metric.get_signature())


def rouge(answer: str, references: Sequence[str]) -> dict[str, float | None]:
    """F of ROUGE-1, -2 and -L in 0..1, no stemmer, the best over the references. ROUGE-2 is None where no reference has
    two words: there are no bigrams to find."""
    scorer_module, tokenizers = need("rouge_score.rouge_scorer", "rouge_score.tokenizers")
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = scorer_module.RougeScorer(list(kinds), use_stemmer=False)
    tokens = tokenizers.DefaultTokenizer(False)
    out: dict[str, float | None] = {}
    for kind in kinds:
        usable = [r for r in references if kind != "rouge2" or len(tokens.tokenize(r)) > 1]
        out[kind] = max((scorer.score(r, answer)[kind].fmeasure for r in usable), default=None)
    return out


def compare(drawn: bytes, reference: bytes, colour: bool = False) -> dict[str, float]:
    """MSE (0..255 squared), PSNR (dB, peak 255) and SSIM (0..100) of a drawn picture against its reference.

    Grey (Pillow's "L"), or the mean over R, G, B with `colour`. The reference is laid out as the model sees it: padded to
    a square, then scaled bicubically to the drawn size. ssim: scikit-image's default (7x7, uniform); ssim_gauss: Wang et
    al. 2004 (11x11 Gaussian, sigma 1.5, biased covariance)."""
    np, Image, skm = need("numpy", "PIL.Image", "skimage.metrics")
    a = Image.open(io.BytesIO(drawn)).convert("RGB")
    b = Image.open(io.BytesIO(reference)).convert("RGB")
    if b.size != a.size:
        side = max(b.size)
        square = Image.new("RGB", (side, side), PAD)
        square.paste(b, ((side - b.size[0]) // 2, (side - b.size[1]) // 2))
        b = square if square.size == a.size else square.resize(a.size, Image.Resampling.BICUBIC)
    if not colour:
        a, b = a.convert("L"), b.convert("L")
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    axis = {"channel_axis": 2} if colour else {}
    mse = float(skm.mean_squared_error(x, y))
    psnr = PSNR_OF_EQUAL if mse == 0 else float(skm.peak_signal_noise_ratio(y, x, data_range=255))
    ssim = 100 * float(skm.structural_similarity(x, y, data_range=255, **axis))
    gauss = 100 * float(skm.structural_similarity(x, y, data_range=255, gaussian_weights=True, sigma=1.5,
                                                  use_sample_covariance=False, **axis))
    return {"mse": mse, "psnr": min(psnr, PSNR_OF_EQUAL), "ssim": ssim, "ssim_gauss": gauss}
