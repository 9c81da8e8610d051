"""Strings for comparisons: made up by a seed, and cut out of real text."""
import glob
import json
import os
import unicodedata

WHITESPACE = [chr(c) for c in [*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
                               0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0x180E, 0x200B, 0xFEFF]]
NEWLINES = ["\n", "\r", "\r\n", "\n\n", "\n \n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
WORDS = ("the dose mg lung opacity I'M don't we'LL it's 'S 'D y'all pneumonia CT MRI caf\u00e9 na\u00efve Stra\u00dfe \u00b5g "
         "\u0645\u0631\u062d\u0628\u0627 \u4f60\u597d \u3053\u3093\u306b\u3061\u306f \u0928\u092e\u0938\u094d\u0924\u0947 12345 3.14 (A) e.g. x-ray \u2264 \u00bd C++ http://a.b/?q=1 a'\u017f").split()
LOOKALIKES = ["<|user|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|assistant|>", "<s>",
              "</s>", "<unk>", "<0x0A>", "<image>", "<idx_7>", "<idx_12>", "<start_index>", "<end_index>", "\u2581", "<|", "|>",
              "<|en", "d|>", "\uff1c|end|\uff1e", "<\u200b|end|>", "<|END|>", "<|dummy_3|>", "<|placeholder1|>", "<tool_call>",
              "<|fim_prefix|>", "<<|end|>>", "\u0130", "<|e\u0301nd|>", "<idx_", "</s", "<|endofprompt|>"]
# what NFC changes: singletons, marks in the wrong order, Hangul jamo, exclusions
COMPOSING = ["e\u0301", "a\u0323\u0307", "a\u0307\u0323", "\u212b", "\u2126", "\u1112\u1161\u11ab", "\u0958", "\u0344", "\ufb1d", "\u1e9b\u0323", "q\u0307\u0323",
             "\u0301", "\u0327\u0301", "\u1fef", "\u037e", "\u2000", "<\u0338", "\u2adc", "\uac00\u11a8", "\U0001d15e", "\u0f73"]


def any_of(rng, items):
    return items[rng.randrange(len(items))]


def code_point(rng):
    """A code point of any plane, assigned or not, without surrogates."""
    first, last = any_of(rng, [(0x20, 0x7E), (0x80, 0x24F), (0x250, 0x10FF), (0x1100, 0x2FFF), (0x3000, 0xD7FF),
                               (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x1F300, 0x1FAFF), (0x20000, 0x323AF),
                               (0x323B0, 0xDFFFF), (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF), (0, 0x1F)])
    return chr(rng.randint(first, last))


CATEGORIES = {}
for _cp in range(0x110000):
    if not 0xD800 <= _cp < 0xE000:
        CATEGORIES.setdefault(unicodedata.category(chr(_cp)), []).append(_cp)


def of_category(rng, names):
    return chr(any_of(rng, CATEGORIES[any_of(rng, names)]))


def piece(rng):
    kind = rng.randrange(13)
    if kind == 0:
        return any_of(rng, WORDS) + any_of(rng, ["", " ", " ", ".", ",", "?\n"])
    if kind == 1:
        return "".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 8)))
    if kind == 2:
        return code_point(rng)
    if kind == 3:
        return any_of(rng, WHITESPACE) * rng.randint(1, 3)
    if kind == 4:
        return any_of(rng, NEWLINES)
    if kind == 5:
        return any_of(rng, LOOKALIKES)
    if kind == 6:
        return any_of(rng, COMPOSING)
    if kind == 7:
        return "".join(of_category(rng, ["Nd", "Nl", "No"]) for _ in range(rng.randint(1, 5)))
    if kind == 8:
        return "".join(of_category(rng, ["Mn", "Mc", "Me"]) for _ in range(rng.randint(1, 3)))
    if kind == 9:
        return "".join(of_category(rng, ["Lu", "Ll", "Lt", "Lm", "Lo"]) for _ in range(rng.randint(1, 4)))
    if kind == 10:
        return of_category(rng, ["Cn", "Co", "Cf", "Sk", "So", "Sm", "Sc", "Pd", "Po"])
    if kind == 11:
        return any_of(rng, ["a", " ", "\n", "1", "!", "\u2581", "\U0001f600", "=", "\t", "'"]) * rng.randint(2, 40)
    return " " * rng.randint(1, 3) + any_of(rng, WORDS)


def random_text(rng):
    return "".join(piece(rng) for _ in range(rng.randint(1, 12)))


def real_sources(shared, root):
    """Long real texts: questions, code, naughty strings, tests of UTF-8, our own documents."""
    data = os.path.join(shared, "data")
    out = []
    for name in ("slake_test.json", "vqa-rad_testset.json"):
        with open(os.path.join(data, "images/vqa", name), encoding="utf-8") as f:
            out.append("\n".join("%s %s" % (x.get("question"), x.get("answer")) for x in json.load(f)))
    files = [os.path.join(data, "images/vqa/vqamed2019_test_w_answers.txt"),
             os.path.join(data, "tokenizers/tiktoken/vectors/lib.rs.txt")]
    files += sorted(glob.glob(os.path.join(root, "docs/*.md"))) + sorted(glob.glob(os.path.join(root, "model/text/*.c")))
    files.append(os.path.join(data, "tokenizers/text/utf8tests.txt"))
    for path in files:
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            out.append(f.read())
    with open(os.path.join(data, "tokenizers/text/blns.json"), encoding="utf-8") as f:
        out.append("\n".join(json.load(f)))
    return out


def real_text(rng, sources):
    text = any_of(rng, sources)
    at = rng.randrange(max(1, len(text) - 300))
    return text[at:at + rng.randint(1, 300)]


def naughty(shared):
    with open(os.path.join(shared, "data/tokenizers/text/blns.json"), encoding="utf-8") as f:
        out = json.load(f)
    with open(os.path.join(shared, "data/tokenizers/text/utf8tests.txt"), "rb") as f:
        out += [line.decode("utf-8", "replace") for line in f.read().split(b"\n")]
    return out


def broken_bytes(rng):
    """Bytes that are no UTF-8, between bytes that are."""
    out = b""
    for _ in range(rng.randint(1, 10)):
        good = code_point(rng).encode()
        out += any_of(rng, [good, good[:-1] or b"\xff", bytes([rng.randrange(256)]), b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
                            b"\xe2\x82", b" ", b"<|end|>"])
    return out
