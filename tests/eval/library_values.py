"""Values of BLEU, ROUGE, PSNR and SSIM that can be computed by hand, for tests/e2e/check_eval_metrics.py: a JSON line per check."""
import io
import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "eval"))
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import libraries  # noqa: E402

SAID, WANT = "the cat sat on the mat", "the cat is on the mat"


def close(got, expected, what, by=1e-6):
    assert abs(got - expected) <= by, "%s: expected %r, got %r" % (what, expected, got)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, "png")
    return out.getvalue()


def bleu(said, want, order, n_bootstrap=1):
    return libraries.bleu(said, want, order, 1, n_bootstrap)


def bleu_by_hand():
    # n-grams found: 5/6, 3/5, 1/4, 0/3 (smoothed to 1/(2*3)); equal lengths, so no brevity penalty
    for order, product in ((1, 5 / 6), (2, 5 / 6 * 3 / 5), (3, 5 / 6 * 3 / 5 / 4), (4, 5 / 6 * 3 / 5 / 4 / 6)):
        close(bleu([SAID], [[WANT]], order)[0], 100 * product ** (1 / order), "BLEU-%d" % order)
    close(bleu(["the cat"], [["the cat sat"]], 1)[0], 100 * math.exp(1 - 3 / 2), "brevity penalty")
    close(bleu(["The Cat"], [["the cat"]], 2)[0], 100, "lower case")


def bleu_of_right_and_empty_answers():
    want = [["yes"], ["left lung"], ["skull", "spine and contents"]]
    for order in (1, 2, 3, 4):
        value, low, high, how = bleu(["yes", "left lung", "spine and contents"], want, order, 200)
        close(value, 100, "right answers"), close(low, 100, "low"), close(high, 100, "high")
        assert "case:lc" in how and "tok:13a" in how and "eff:yes" in how, how
        assert bleu(["", "", ""], want, order, 200)[0] == 0, "empty answers"
    again = bleu(["yes", "right", "x"], want, 1, 200)
    assert again == bleu(["yes", "right", "x"], want, 1, 200), "the same seed gives the same interval"
    assert again[1] < again[0] < again[2], again


def rouge_by_hand():
    got = libraries.rouge(SAID, [WANT])     # the longest common subsequence has 5 of 6 words
    for kind, value in (("rouge1", 5 / 6), ("rouge2", 3 / 5), ("rougeL", 5 / 6)):
        close(got[kind], value, kind)
    assert libraries.rouge("yes", ["yes"]) == {"rouge1": 1.0, "rouge2": None, "rougeL": 1.0}
    assert libraries.rouge("", ["left lung"]) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    close(libraries.rouge("spine", ["skull", "spine"])["rouge1"], 1, "the best reference")


def psnr_mse_by_hand():
    a, b = np.full((16, 16), 100), np.full((16, 16), 110)
    got = libraries.compare(png(a), png(b))
    close(got["mse"], 100, "MSE"), close(got["psnr"], 10 * math.log10(255 ** 2 / 100), "PSNR")
    half = a.copy()
    half[:8] += 20      # half of the pixels differ by 20: MSE 200
    close(libraries.compare(png(half), png(a))["mse"], 200, "MSE of a half")
    same = libraries.compare(png(half), png(half))
    assert same["mse"] == 0 and same["psnr"] == libraries.PSNR_OF_EQUAL, same
    close(same["ssim"], 100, "SSIM of equals"), close(same["ssim_gauss"], 100, "SSIM of equals")
    black_white = libraries.compare(png(np.zeros((16, 16))), png(np.full((16, 16), 255)))
    close(black_white["psnr"], 0, "PSNR of black and white")


def ssim_of_constants():
    # no variance: (2 m n + C1) / (m^2 + n^2 + C1), C1 = (0.01 * 255)^2
    got, c1 = libraries.compare(png(np.full((16, 16), 100)), png(np.full((16, 16), 110))), (0.01 * 255) ** 2
    for key in ("ssim", "ssim_gauss"):
        close(got[key], 100 * (2 * 100 * 110 + c1) / (100 ** 2 + 110 ** 2 + c1), key, 1e-6)


def ssim_windows():
    """Both against the definition, window by window."""
    rng = np.random.default_rng(5)
    a = rng.integers(0, 256, (16, 16)).astype(np.float64)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).round()
    x = np.arange(11) - 5
    g = np.exp(-x * x / (2 * 1.5 ** 2))
    got = libraries.compare(png(a), png(b))
    for key, w, bias in (("ssim", np.full((7, 7), 1 / 49), 49 / 48), ("ssim_gauss", np.outer(g, g) / g.sum() ** 2, 1.0)):
        n, values = w.shape[0], []
        for i in range(16 - n + 1):
            for j in range(16 - n + 1):
                p, q = a[i:i + n, j:j + n], b[i:i + n, j:j + n]
                mp, mq = (w * p).sum(), (w * q).sum()
                vp, vq, c = bias * ((w * p * p).sum() - mp * mp), bias * ((w * q * q).sum() - mq * mq), bias * ((w * p * q).sum() - mp * mq)
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                values.append((2 * mp * mq + c1) * (2 * c + c2) / ((mp * mp + mq * mq + c1) * (vp + vq + c2)))
        close(got[key], 100 * float(np.mean(values)), key, 1e-6)


def reference_is_laid_out_as_the_model_sees_it():
    wide = np.full((8, 16), 50)     # padded to 16 x 16 with the pad colour above and below
    square = np.zeros((16, 16, 3))
    square[:] = libraries.PAD
    square[4:12] = 50
    assert libraries.compare(png(square), png(wide))["mse"] == 0, "padding"
    big = np.asarray(Image.fromarray(np.asarray(np.arange(64).reshape(8, 8) * 4, np.uint8)).resize((16, 16), Image.Resampling.BICUBIC))
    assert libraries.compare(png(big), png(np.arange(64).reshape(8, 8) * 4))["mse"] == 0, "scaling"


def colour():
    a, b = np.zeros((16, 16, 3)), np.zeros((16, 16, 3))
    b[..., 0] = 30      # one of three channels differs by 30: MSE 300
    close(libraries.compare(png(a), png(b), colour=True)["mse"], 300, "MSE in colour")
    close(libraries.compare(png(a), png(b))["mse"], 81, "MSE in grey: luma 0.299 * 30 = 9")


def parquet_export():
    import tempfile

    import pyarrow
    import pyarrow.parquet

    import export_parquet
    import formats
    a, b = png(np.full((4, 4), 9)), png(np.full((4, 4), 200))
    picture = lambda data: {"bytes": data, "path": None}
    sets = {"vqa": [{"image": picture(a), "question": "is it dark?", "answer": "yes"}, {"image": picture(b), "question": "what?", "answer": "fat"}],
            "mmmu": [{"id": "v_1", "question": "<image 1> Which is <image 2>?", "options": "['<image 2>', 'bone']", "answer": "B", "subfield": "Anatomy",
                      **{"image_%d" % i: picture(a) if i < 3 else None for i in range(1, 8)}},
                     {"id": "v_2", "question": "How many?", "options": "[]", "answer": "['2', 'two']", "subfield": "X",
                      **{"image_%d" % i: picture(b) if i < 2 else None for i in range(1, 8)}},
                     {"id": "v_3", "question": "five", "options": "['x', 'y']", "answer": "A", "subfield": "X",
                      **{"image_%d" % i: picture(b) if i < 6 else None for i in range(1, 8)}}]}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in sets.items():
            path = os.path.join(folder, name + ".parquet")
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
            counts = export_parquet.export(os.path.join(folder, name), [path])
            assert counts == (2, len(rows) - 2), counts
        load = lambda name, form: formats.load(os.path.join(folder, name, "questions.jsonl"), form).items
        vqa, mmmu = load("vqa", "hf-vqa"), load("mmmu", "jsonl")
        assert [(i.kind, i.answers, i.images) for i in vqa] == [("closed", ("yes",), ("images/000000.png",)), ("open", ("fat",), ("images/000001.png",))]
        with open(os.path.join(folder, "vqa", vqa[1].images[0]), "rb") as f:
            assert f.read() == b
        assert (mmmu[0].question, mmmu[0].options, mmmu[0].answers, len(mmmu[0].images), mmmu[0].group) == \
            ("image 1 Which is image 2?", {"A": "image 2", "B": "bone"}, ("B",), 2, "Anatomy"), mmmu[0]
        assert (mmmu[1].kind, mmmu[1].answers) == ("open", ("2", "two")), mmmu[1]


for check in (bleu_by_hand, bleu_of_right_and_empty_answers, rouge_by_hand, psnr_mse_by_hand, ssim_of_constants, ssim_windows,
              reference_is_laid_out_as_the_model_sees_it, colour, parquet_export):
    try:
        check()
        error = ""
    except Exception as e:
        error = "%s: %s" % (type(e).__name__, e)
    print(json.dumps({"name": check.__name__, "error": error}))
