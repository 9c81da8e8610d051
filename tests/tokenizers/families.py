"""Live comparisons: every family against the programs that others read the same vocabulary with."""
import json
import os
import random
import subprocess
import unicodedata

import texts
from vocabularies import CL100K, GPT2, IMAGE_TOKENS, QWEN2, Vocabularies, load


class Different(Exception):
    """Our ids, or our text, are not theirs."""


class Environment:
    """What the checks share. Folders of vocabularies are made when first asked for."""

    def __init__(self, program, shared, root, folder, count, seed, need):
        self.program, self.shared, self.root, self.count, self.seed, self.need = program, shared, root, count, seed, need
        self.v = Vocabularies(os.path.join(shared, "data/tokenizers"), folder)
        self._made = {}

    def made(self, name):
        if name not in self._made:
            self._made[name] = getattr(self.v, name)()
        return self._made[name]

    def rng(self, name):
        return random.Random("%d %s" % (self.seed, name))

    def strings(self, name, count=0):
        """Half made up, half real."""
        rng, sources, count = self.rng(name), texts.real_sources(self.shared, self.root), count or self.count
        out = [texts.random_text(rng) for _ in range(count // 2)]
        return out + [texts.real_text(rng, sources) for _ in range(count - len(out))]

    def run(self, *args, data=b""):
        p = subprocess.run([self.program, *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if p.returncode:
            raise Different("%s: %s" % (" ".join(args[:4]), p.stderr.decode()[:300]))
        return p.stdout

    def encode(self, path, strings, *options):
        lines = "".join(json.dumps(s) + "\n" for s in strings).encode()
        out = self.run("tokenize", "--tokenizer", path, "--json-lines", *options, data=lines)
        return [json.loads(line) for line in out.splitlines()]

    def decode(self, path, rows, *options):
        lines = "".join(json.dumps(r) + "\n" for r in rows).encode()
        out = self.run("detokenize", "--tokenizer", path, "--json-lines", *options, data=lines)
        return [json.loads(line) for line in out.split(b"\n") if line]


def compare(name, strings, got, want):
    """Every string, not only the first difference."""
    if not len(got) == len(want) == len(strings):
        raise Different("%s: %d strings, %d and %d results" % (name, len(strings), len(got), len(want)))
    bad = [i for i in range(len(got)) if got[i] != want[i]]
    print("     %-52s %6d strings, %d differences" % (name, len(strings), len(bad)))
    if bad:
        i = min(bad, key=lambda i: len(strings[i]))
        raise Different("%s: %d of %d differ; the shortest: %r: ours %s, theirs %s" % (
            name, len(bad), len(strings), strings[i], got[i], want[i]))


def slow_tokenizer(env, cls, path):
    logging = env.need("transformers").logging
    logging.set_verbosity_error()
    return getattr(env.need("transformers"), cls).from_pretrained(path)


def compare_slow(env, cls, name, prefix=0):
    """`--special` is how the reference reads a prompt; without it, split_special_tokens=True reads nothing as special."""
    path, strings = env.made(name), env.strings(name)
    slow = slow_tokenizer(env, cls, path)
    compare(name + " " + cls + ", special tokens read", strings, env.encode(path, strings, "--special"),
            [slow(s).input_ids for s in strings])
    plain = env.encode(path, strings)
    compare(name + " " + cls + ", plain text", strings, plain,
            [slow(s, split_special_tokens=True).input_ids for s in strings])
    special = set(slow.added_tokens_decoder) - ({slow.bos_token_id} if prefix else set())
    if any(special.intersection(row) for row in plain):
        raise Different(name + ": plain text gave a special id")
    return slow


def check_phi3_slow(env):
    compare_slow(env, "LlamaTokenizer", "phi3")


def check_phi3_slow_with_image_tokens(env):
    slow = compare_slow(env, "LlamaTokenizer", "phi3_with_images")
    if len(slow) != 40206 or slow.convert_tokens_to_ids("<idx_8191>") != 40203:
        raise Different("image tokens have other ids in transformers")


def check_phi4_slow(env):
    compare_slow(env, "GPT2Tokenizer", "phi4")


def check_gpt2_slow(env):
    compare_slow(env, "GPT2Tokenizer", "gpt2")


def check_qwen25_slow(env):
    compare_slow(env, "Qwen2Tokenizer", "qwen25")


def check_added_ids(env):
    """reference.md section 7: what the reference's add_special_tokens gives, and our own loader (tests: T3)."""
    for name, cls, first, rows in (("phi3", "LlamaTokenizer", 32011, 40206), ("phi4", "GPT2Tokenizer", 100352, 108547)):
        slow = slow_tokenizer(env, cls, env.made(name))
        slow.add_special_tokens({"additional_special_tokens": IMAGE_TOKENS})
        got = [slow.convert_tokens_to_ids(t) for t in IMAGE_TOKENS]
        if got != list(range(first, first + 8195)) or len(slow) != rows:
            raise Different("%s: %s.., %d rows" % (name, got[:3], len(slow)))
    slow = slow_tokenizer(env, "Qwen2Tokenizer", env.made("qwen25"))
    if not slow.additional_special_tokens or len(slow) != 151665:
        raise Different("qwen25: the reference would add tokens")


# ---- the other side: ids -> text ----------------------------------------------------------------


def reference_text(ours, added, skipped, spaces, row):
    """T17: the reference's decode from our pieces. Special ids fall out first, other added tokens stand alone, and all
    parts are joined with a space."""
    parts, group = [], []
    for i in [i for i in row if i not in skipped] + [None]:
        if i is not None and i not in added:
            group.append(i)
            continue
        if group:
            parts.append(ours(group))
        group = []
        if i is not None:
            parts.append(added[i])
    return (" " if spaces else "").join(parts)


def compare_decoding(env, cls, name):
    path, rng = env.made(name), env.rng(name + " ids")
    slow = slow_tokenizer(env, cls, path)
    added = {i: t.content for i, t in slow.added_tokens_decoder.items()}
    normal = [i for i in range(len(slow)) if i not in added]
    bytes_ = [i for i in normal if 3 <= i < 259] if cls == "LlamaTokenizer" else normal[:256]
    rows = [[texts.any_of(rng, bytes_ if rng.random() < 0.3 else normal) for _ in range(rng.randint(1, 12))]
            for _ in range(max(200, env.count // 4))]
    compare(name + " decode, any ids", rows, env.decode(path, rows), [slow.decode(r, skip_special_tokens=True) for r in rows])
    mixed = [[texts.any_of(rng, list(added) if rng.random() < 0.2 else normal) for _ in range(rng.randint(1, 12))]
             for _ in range(300)]
    groups = {}
    for row in mixed:
        reference_text(lambda g: groups.setdefault(tuple(g), ""), added, set(slow.all_special_ids), True, row)
    for group, text in zip(groups, env.decode(path, [list(g) for g in groups])):
        groups[group] = text
    got = [reference_text(lambda g: groups[tuple(g)], added, set(slow.all_special_ids), cls != "Qwen2Tokenizer", r)
           for r in mixed]
    compare(name + " decode, added tokens between (T17)", mixed, got,
            [slow.decode(r, skip_special_tokens=True) for r in mixed])


def check_decoding(env):
    for cls, name in (("LlamaTokenizer", "phi3"), ("GPT2Tokenizer", "phi4"), ("Qwen2Tokenizer", "qwen25")):
        compare_decoding(env, cls, name)


def check_the_cut_of_8(env):
    """com_infer.py cuts the last 8 characters, " <|end|>": what is left is our text."""
    path, strings = env.made("phi3"), ["Yes.", "Mild cardiomegaly, no effusion.", "5 \u00b5g \u2264 caf\u00e9 \U0001f600"]
    slow = slow_tokenizer(env, "LlamaTokenizer", path)
    rows = [r[1:] if r[0] == 29871 else r for r in env.encode(path, strings)]
    got = env.decode(path, rows)
    compare("phi3 decode(ids + <|end|>)[:-8]", strings, got, [slow.decode(r + [32007], skip_special_tokens=True)[:-8] for r in rows])
    compare("phi3 text of its own ids", strings, got, strings)


# ---- tokenizers and tiktoken --------------------------------------------------------------------


def newer(env, s):
    """Does it hold code points that only a Unicode newer than Python's (14 in Python 3.11) knows? The libraries differ in
    their versions, so one takes for a letter what another does not know."""
    assigned = env.need("regex").compile(r"\P{Cn}")
    return any(unicodedata.category(c) == "Cn" and assigned.match(c) for c in s)


def rust_byte_level(env, path, pattern, nfc):
    t = env.need("tokenizers")
    model = t.models.BPE.from_file(os.path.join(path, "vocab.json"), os.path.join(path, "merges.txt"))
    out = t.Tokenizer(model)
    if nfc:
        out.normalizer = t.normalizers.NFC()
    out.pre_tokenizer = t.pre_tokenizers.Sequence([t.pre_tokenizers.Split(t.Regex(pattern), "isolated"),
                                                   t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return out


def same_nfc(tokenizer, s):
    """The normaliser of `tokenizers` has an older Unicode: it knows no order of the marks that came later."""
    return tokenizer.normalizer.normalize_str(s) == unicodedata.normalize("NFC", s)


def compare_rust(env, name, tokenizer, path):
    strings = env.strings(name + " tokenizers", env.count + env.count // 20)  # some are left out
    if name == "qwen25":
        n = len(strings)
        strings = [s for s in strings if same_nfc(tokenizer, s)]
        print("     %d strings left out: their NFC is another one in `tokenizers` than in Python" % (n - len(strings)))
    if name.startswith("phi3"):  # not special in tokenizer.json, so encode_special_tokens does not reach it
        strings = [s for s in strings if "</s>" not in s]
    for new in (False, True):
        some = [s for s in strings if newer(env, s) == new]
        got, want = env.encode(path, some), [e.ids for e in tokenizer.encode_batch(some, add_special_tokens=False)]
        if not new:
            compare(name + " tokenizers", some, got, want)
            continue
        n = sum(g != w for g, w in zip(got, want))
        print("     %-52s %6d strings, %d differences" % (name + " tokenizers, with newer code points", len(some), n))


def check_phi3_tokenizers(env):
    path = env.made("phi3_json")
    tokenizer = env.need("tokenizers").Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    compare_rust(env, "phi3_json", tokenizer, path)


def check_phi4_tokenizers(env):
    compare_rust(env, "phi4", rust_byte_level(env, env.made("phi4"), GPT2, False), env.made("phi4"))


def check_qwen25_tokenizers(env):
    compare_rust(env, "qwen25", rust_byte_level(env, env.made("qwen25"), QWEN2, True), env.made("qwen25"))


def compare_tiktoken(env, name, ranks, path, regex, pattern, nfc=False):
    encoding = env.need("tiktoken").Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    strings = [s for s in env.strings(name, env.count + env.count // 20) if not newer(env, s)]
    form = (lambda s: unicodedata.normalize("NFC", s)) if nfc else str
    compare("%s tiktoken, regex %s" % (name, regex), strings, env.encode(path, strings, "--regex", regex),
            [encoding.encode_ordinary(form(s)) for s in strings])


def check_cl100k_tiktoken(env):
    compare_tiktoken(env, "cl100k", env.v.cl100k, env.v.cl100k_path, "cl100k", CL100K)
    compare_tiktoken(env, "cl100k", env.v.cl100k, env.v.cl100k_path, "gpt2", GPT2)


def check_qwen_tiktoken(env):
    compare_tiktoken(env, "qwen", env.v.qwen, env.v.qwen_path, "qwen2", QWEN2, True)


def check_gguf(env):
    """The vocabulary in a GGUF file gives the ids of the folder."""
    for name, gguf in (("phi3", env.v.phi3_gguf), ("gpt2", env.v.gpt2_gguf), ("qwen25", env.made("qwen_gguf"))):
        folder, strings = env.made(name), env.strings(name + " gguf")[::4]
        bos = 1 if name == "phi3" else 0  # that file says add_bos_token
        for option in ([], ["--special"]):
            got = [r[bos:] for r in env.encode(gguf, strings, *option)]
            compare("%s GGUF %s" % (name, " ".join(option)), strings, got, env.encode(folder, strings, *option))


def check_folders(env):
    """The files of one model in other company give the same ids (transformers' precedence)."""
    path, strings = env.made("phi4"), env.strings("folders")[::10]
    want, config = env.encode(path, strings, "--special"), load(os.path.join(path, "tokenizer_config.json"))
    added = {t["content"]: int(i) for i, t in config.pop("added_tokens_decoder").items()}
    config["extra"] = 1
    for names in (("added_tokens.json",), ("tokenizer.json",), ("added_tokens.json", "tokenizer.json")):
        folder = os.path.join(env.v.folder, "from " + " and ".join(names))
        os.makedirs(folder)
        for name in ("vocab.json", "merges.txt"):
            os.link(os.path.join(path, name), os.path.join(folder, name))
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f)
        flags = dict(single_word=False, lstrip=True, rstrip=True, normalized=False, special=True)
        contents = {"added_tokens.json": added, "tokenizer.json": {
            "version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []},
            "added_tokens": [dict(id=i, content=t, **flags) for t, i in added.items()]}}
        for name in names:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                json.dump(contents[name], f)
        slow = slow_tokenizer(env, "GPT2Tokenizer", folder)
        got = env.encode(folder, strings, "--special")
        compare("phi4 from %s" % " + ".join(names), strings, got, [slow(s).input_ids for s in strings])
        if "tokenizer.json" in names and got != want:
            raise Different("the same flags from tokenizer.json give other ids")


CHECKS = [check_added_ids, check_phi3_slow, check_phi3_slow_with_image_tokens, check_phi4_slow, check_gpt2_slow,
          check_qwen25_slow, check_folders, check_decoding, check_the_cut_of_8, check_phi3_tokenizers, check_phi4_tokenizers,
          check_qwen25_tokenizers, check_cl100k_tiktoken, check_qwen_tiktoken, check_gguf]
