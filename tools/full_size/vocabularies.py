"""Tokenizer files of the base models from the data beside the project ($HG_SHARED/data/tokenizers): nothing of it is in the project."""
import base64
import json
import os
import shutil


def byte_letters():
    """GPT-2's printable letter of each byte."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    letters, extra = {b: chr(b) for b in plain}, 0
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + extra)
            extra += 1
    return letters


def halves(token, ranks):
    """The two tokens that were merged into this one: what merging by rank leaves when this one's own rank is not yet there."""
    parts, limit = [token[i:i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 2:
        found = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, i = min(found)
        if rank >= limit:
            return None
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts


def from_ranks(path, folder):
    """vocab.json and merges.txt of a file of tiktoken ranks. Returns how many tokens."""
    letters, ranks = byte_letters(), {}
    with open(path, "rb") as f:
        for line in f:
            text, rank = line.split()
            ranks[base64.b64decode(text)] = int(rank)
    spelt = {token: "".join(letters[b] for b in token) for token in ranks}
    with open(os.path.join(folder, "vocab.json"), "w") as f:
        json.dump({spelt[t]: r for t, r in ranks.items()}, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n")
        for token in sorted(ranks, key=ranks.get):
            pair = halves(token, ranks) if len(token) > 1 else None
            if pair:
                f.write("%s %s\n" % (spelt[pair[0]], spelt[pair[1]]))
    return len(ranks)


def files(variant, data):
    at = lambda *name: os.path.join(data, "tokenizers", *name)
    return {
        "m3": [at("ort-ext", "phi-3-mini", n) for n in ("tokenizer.json", "tokenizer_config.json")],
        "l14": [at("ort-ext", "phi-4-base", "tokenizer_config.json"), at("tiktoken", "cl100k_base.tiktoken")],
        "xl32": [at("ort-ext", "qwen2.5", "tokenizer_config.json"), at("qwen", "qwen.tiktoken")],
    }[variant]


def available(variant, data):
    return all(os.path.exists(n) for n in files(variant, data))


def install(variant, data, folder):
    """The variant's tokenizer into folder; False where the data is not there."""
    if not available(variant, data):
        return False
    for n in files(variant, data):
        if n.endswith(".json"):
            shutil.copyfile(n, os.path.join(folder, os.path.basename(n)))
        else:
            from_ranks(n, folder)
    return True
