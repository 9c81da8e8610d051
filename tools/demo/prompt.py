"""Prompt and tokenizer: LlamaTokenizer slow, legacy=false, as docs/reference 9.1-9.3.

Also trains the small SentencePiece BPE model on the phrasing corpus.
"""
import io
import re

import numpy as np
import sentencepiece as spm

import phantoms
import questions

N_PIECES = 768
SPECIALS = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
            "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
N_BASE = N_PIECES + len(SPECIALS)            # tokenizer length
V_BASE = (N_BASE + 63) // 64 * 64            # rows of the base tables
N_CODES, N_IMAGE_ROWS = 256, 64
START = N_BASE                               # <start_index>
IDX = START + 1                              # <idx_0>
END_INDEX = IDX + N_CODES
V_FULL = N_BASE + N_CODES + 3                # + <end_index>, <pixel_newline>
END = N_PIECES + SPECIALS.index("<|end|>")
SYSTEM = "You are a helpful AI assistant."
MARK = "\u2581"


def _varint(buf, i):
    value = shift = 0
    while True:
        value |= (buf[i] & 127) << shift
        shift, i = shift + 7, i + 1
        if buf[i - 1] < 128:
            return value, i


def _encode(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _fields(buf):
    """(number, payload or None, raw bytes) of each field of a protobuf message."""
    i = 0
    while i < len(buf):
        start = i
        key, i = _varint(buf, i)
        if key & 7 == 2:
            n, i = _varint(buf, i)
            payload, i = buf[i:i + n], i + n
        else:
            payload, i = None, _varint(buf, i)[1] if key & 7 == 0 else i + (8 if key & 7 == 1 else 4)
        yield key >> 3, payload, buf[start:i]


def set_dummy_prefix(model, on):
    """ModelProto bytes with normalizer_spec (3) . add_dummy_prefix (3) set."""
    out = b""
    for number, payload, raw in _fields(model):
        if number == 3:
            body = b"".join(r for n, _, r in _fields(payload) if n != 3) + bytes([0x18, int(on)])
            raw = b"\x1a" + _encode(len(body)) + body
        out += raw
    return out


def added_tokens():
    """[(content, id, rstrip)] of every added token, extension included."""
    out = [("<unk>", 0, False), ("<s>", 1, False), ("</s>", 2, True)]
    out += [(t, N_PIECES + i, t != "<|endoftext|>") for i, t in enumerate(SPECIALS)]
    ext = ["<start_index>"] + ["<idx_%d>" % i for i in range(N_CODES)] + ["<end_index>", "<pixel_newline>"]
    return out + [(t, N_BASE + i, False) for i, t in enumerate(ext)]


class Tokenizer:
    def __init__(self, model_bytes):
        self.sp = spm.SentencePieceProcessor(model_proto=set_dummy_prefix(model_bytes, False))
        self.added = {t: (i, r) for t, i, r in added_tokens()}
        self.split = re.compile("(" + "|".join(re.escape(t) for t in sorted(self.added, key=len, reverse=True)) + ")")
        self.mark = self.sp.piece_to_id(MARK)
        # bos, unk, eos = pad and the extension: the tokenizer's all_special_tokens
        self.special = {0, 1, N_PIECES} | set(range(N_BASE, V_FULL))

    def chunk(self, text):
        """Ids of one chunk (no <image> inside), stray leading mark included."""
        ids, strip = [], False
        for part in self.split.split(MARK + text.replace(MARK, " ")):
            if part in self.added:
                i, strip = self.added[part]
                ids.append(i)
                continue
            if strip:
                part = part.lstrip()
            strip = False
            if part:
                ids += self.sp.encode(part)
        return ids[1:] if len(ids) > 1 and ids[0] == self.mark and ids[1] in self.special else ids

    def answer(self, text):
        """Ids of an assistant's answer, as the model generates it."""
        return self.sp.encode(MARK + text) + [END]

    def decode(self, ids):
        """Text of generated ids: special tokens dropped, one leading space dropped."""
        text = self.sp.decode_ids([i for i in ids if 2 < i < N_PIECES])
        first = next((i for i in ids if 2 < i < N_PIECES), None)
        if first is not None and self.sp.id_to_piece(first).startswith(MARK) and text.startswith(" "):
            text = text[1:]
        return text


def template(question, images=0):
    return "<|system|>\n%s<|end|>\n<|user|>\n%s%s<|end|>\n<|assistant|>\n" % (SYSTEM, "<image>\n" * images, question)


def prompt_ids(tok, question, images=0, generate=False):
    """Prompt ids with -1 repeated 64 times for every image."""
    ids = []
    chunks = (template(question, images) + ("<start_index>" if generate else "")).split("<image>")
    for k, c in enumerate(chunks):
        ids += ([-1] * N_IMAGE_ROWS if k else []) + tok.chunk(c)
    return ids


def corpus(n=30000, seed=5):
    """Lines for the SentencePiece trainer: questions bare, answers after a space."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        item = {"kind": "xray", "pneumonia": int(rng.integers(2))} if i % 3 == 0 else phantoms.random_attributes(rng)
        q, a, _ = questions.ask(rng, item, questions.pick(rng, questions.kinds_for(item)))
        lines += [q, " " + a]
        if i % 3 == 1:
            lines.append(questions.draw_prompt(rng, item))
        if i % 6 == 2:
            k, ka, kb = questions.pair_kind(rng)
            q, a, _ = questions.ask_pair(rng, phantoms.random_attributes(rng, ka), phantoms.random_attributes(rng, kb), k)
            lines += [q, " " + a]
        if i % 6 == 3:
            qs, a = questions.pick(rng, questions.KNOWLEDGE)
            lines += [questions.pick(rng, qs), " " + a]
        if i % 6 == 4:
            lines += [questions.sentence(rng), SYSTEM]
        if i % 12 == 5:
            lines.append(questions.pick(rng, questions.RECONSTRUCT + questions.DENOISE + questions.SUPER))
    # every printable ASCII character gets a piece of its own
    lines += ["".join(chr(c) for c in range(33, 127))] * 40
    return lines


def train_tokenizer():
    """-> bytes of tokenizer.model."""
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, model_type="bpe", vocab_size=N_PIECES, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, character_coverage=1.0,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, split_digits=True, minloglevel=2)
    return set_dummy_prefix(out.getvalue(), True)   # as in LLaMA's file; the slow tokenizer patches it off
