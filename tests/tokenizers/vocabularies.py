"""The public vocabularies of the shared data, written as the folders and files that tokenizers are read from."""
import base64
import json
import os
import shutil
import struct

IMAGE_TOKENS = ["<start_index>"] + ["<idx_%d>" % i for i in range(8192)] + ["<end_index>", "<pixel_newline>"]
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = CL100K.replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_alphabet():
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


ALPHABET = byte_alphabet()


def written(token):
    return "".join(ALPHABET[b] for b in token)


def read_gguf(path):
    """The metadata of a GGUF file."""
    with open(path, "rb") as f:
        data = f.read()
    formats = "B b H h I i f ? s a Q q d".split()
    at = 16

    def number(code):
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize("<" + code)
        return value

    def value(kind):
        nonlocal at
        if formats[kind] == "s":
            n = number("Q")
            at += n
            return data[at - n:at]
        if formats[kind] == "a":
            kind = number("I")
            return [value(kind) for _ in range(number("Q"))]
        return number(formats[kind])

    out = {}
    for _ in range(number("Q")):
        key = value(8).decode()
        out[key] = value(number("I"))
    return out


def write_gguf(path, keys):
    """keys: {name: (type, value)}; an array is (type, list)."""
    formats = "B b H h I i f ? s a Q q d".split()

    def packed(kind, v):
        if kind == 8:
            v = v if isinstance(v, bytes) else v.encode()
            return struct.pack("<Q", len(v)) + v
        return struct.pack("<" + formats[kind], v)

    out = [b"GGUF", struct.pack("<IQQ", 3, 0, len(keys))]
    for name, (kind, v) in keys.items():
        out.append(packed(8, name))
        if isinstance(v, list):
            out.append(struct.pack("<IIQ", 9, kind, len(v)))
            out += [packed(kind, x) for x in v]
        else:
            out += [struct.pack("<I", kind), packed(kind, v)]
    with open(path, "wb") as f:
        f.write(b"".join(out))


def read_ranks(path):
    with open(path, "rb") as f:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in f if line.strip())}


def merges_of(ranks):
    """A token is the join of the two parts that its bytes merge to by lower ranks."""
    out = []
    for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
            if best >= rank:
                raise ValueError("rank %d is not made of two tokens" % rank)
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            out.append("%s %s" % (written(parts[0]), written(parts[1])))
    return out


def protobuf(number, wire, body):
    key = bytes([number << 3 | wire]) if number < 16 else bytes([(number << 3 | wire) & 127 | 128, number >> 4])
    if wire == 0:
        return key + bytes([body])
    size, n = b"", len(body)
    while n > 127:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return key + (size + bytes([n]) if wire == 2 else b"") + body


def sentencepiece_model(pieces):
    """pieces: (string, score, type). BPE, byte fallback, identity normaliser, spaces kept."""
    out = [protobuf(1, 2, protobuf(1, 2, s) + protobuf(2, 5, struct.pack("<f", score)) + protobuf(3, 0, kind))
           for s, score, kind in pieces]
    out.append(protobuf(2, 2, protobuf(3, 0, 2) + protobuf(35, 0, 1)))  # TrainerSpec: BPE, byte_fallback
    out.append(protobuf(3, 2, protobuf(1, 2, b"identity") + protobuf(3, 0, 1) + protobuf(4, 0, 0)))
    return b"".join(out)


def dump(path, value):
    with open(path, "w", encoding="utf-8") as f:
        if isinstance(value, str):
            f.write(value)
        else:
            json.dump(value, f)


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Vocabularies:
    """Everything under one folder; `shared` is the folder data/tokenizers."""

    def __init__(self, shared, folder):
        self.shared, self.folder = shared, folder
        self.cl100k_path = os.path.join(shared, "tiktoken/cl100k_base.tiktoken")
        self.qwen_path = os.path.join(shared, "qwen/qwen.tiktoken")
        self.phi3_gguf = os.path.join(shared, "llama.cpp/ggml-vocab-phi-3.gguf")
        self.gpt2_gguf = os.path.join(shared, "llama.cpp/ggml-vocab-gpt-2.gguf")
        self.cl100k, self.qwen = read_ranks(self.cl100k_path), read_ranks(self.qwen_path)

    def _dir(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        return path

    def phi3(self, name="phi3", **changes):
        """tokenizer.model out of llama.cpp's file, Phi-3-mini's own config with these keys changed (None: left out)."""
        path, g = self._dir(name), read_gguf(self.phi3_gguf)
        kinds = [2, 3, 3] + [6] * 256 + [1] * (32000 - 259)
        pieces = zip(g["tokenizer.ggml.tokens"][:32000], g["tokenizer.ggml.scores"], kinds)
        with open(os.path.join(path, "tokenizer.model"), "wb") as f:
            f.write(sentencepiece_model(pieces))
        config = load(os.path.join(self.shared, "ort-ext/phi-3-mini/tokenizer_config.json"))
        config.update(changes)
        dump(os.path.join(path, "tokenizer_config.json"), {k: v for k, v in config.items() if v is not None})
        return path

    def phi3_with_images(self):
        """As after the reference's add_special_tokens: the 8195 ids are additional special tokens."""
        path = self.phi3("phi3-images")
        file = os.path.join(path, "tokenizer_config.json")
        config = load(file)
        flags = dict(lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
        for i, token in enumerate(IMAGE_TOKENS):
            config["added_tokens_decoder"][str(32011 + i)] = dict(content=token, **flags)
        config["additional_special_tokens"] = IMAGE_TOKENS
        dump(file, config)
        return path

    def phi3_json(self):
        path = self._dir("phi3-json")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(self.shared, "ort-ext/phi-3-mini", name), path)
        return path

    def gpt2(self):
        path, g = self._dir("gpt2"), read_gguf(self.gpt2_gguf)
        dump(os.path.join(path, "vocab.json"), {t.decode(): i for i, t in enumerate(g["tokenizer.ggml.tokens"])})
        dump(os.path.join(path, "merges.txt"),
             "#version: 0.2\n" + "".join(m.decode() + "\n" for m in g["tokenizer.ggml.merges"]))
        dump(os.path.join(path, "tokenizer_config.json"),
             {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": False})
        return path

    def _ranks(self, name, ranks, config):
        path = self._dir(name)
        dump(os.path.join(path, "vocab.json"), {written(t): i for t, i in ranks.items()})
        dump(os.path.join(path, "merges.txt"), "#version: 0.2\n" + "".join(m + "\n" for m in merges_of(ranks)))
        shutil.copy(os.path.join(self.shared, config), os.path.join(path, "tokenizer_config.json"))
        return path

    def phi4(self):
        return self._ranks("phi4", self.cl100k, "ort-ext/phi-4-base/tokenizer_config.json")

    def qwen25(self):
        return self._ranks("qwen25", self.qwen, "ort-ext/qwen2.5/tokenizer_config.json")

    def qwen_gguf(self):
        """Qwen2.5's vocabulary as llama.cpp's converter writes it."""
        folder, path = self.qwen25(), os.path.join(self.folder, "qwen2.gguf")
        added = load(os.path.join(folder, "tokenizer_config.json"))["added_tokens_decoder"]
        with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as f:
            merges = f.read().split("\n")[1:-1]
        tokens = [written(t) for t in sorted(self.qwen, key=self.qwen.get)] + [a["content"] for a in added.values()]
        kinds = [1] * len(self.qwen) + [3 if a["special"] else 4 for a in added.values()]
        rows = 152064 - len(tokens)
        write_gguf(path, {
            "general.architecture": (8, "qwen2"), "tokenizer.ggml.model": (8, "gpt2"),
            "tokenizer.ggml.pre": (8, "qwen2"),
            "tokenizer.ggml.tokens": (8, tokens + ["[PAD%d]" % (len(tokens) + i) for i in range(rows)]),
            "tokenizer.ggml.token_type": (5, kinds + [5] * rows), "tokenizer.ggml.merges": (8, merges),
            "tokenizer.ggml.eos_token_id": (4, 151645), "tokenizer.ggml.padding_token_id": (4, 151643),
            "tokenizer.ggml.bos_token_id": (4, 151643), "tokenizer.ggml.add_bos_token": (7, False)})
        return path
