"""Published vectors, the templates of reference.md 9.3-9.5, naughty strings, broken UTF-8: ours alone."""
import json
import os
import unicodedata

import texts
from families import Different, compare, slow_tokenizer

MARK = "\n__ggml_vocab_test__\n"


def vectors(env, name):
    folder = os.path.join(env.v.shared, "llama.cpp")
    with open(os.path.join(folder, "ggml-vocab-%s.gguf.inp" % name), encoding="utf-8", newline="") as f:
        strings = f.read().split(MARK)
    with open(os.path.join(folder, "ggml-vocab-%s.gguf.out" % name), encoding="utf-8") as f:
        rows = [[int(i) for i in line.split()] for line in f.read().split("\n")]
    return strings[:len(rows) - 1], rows[:len(rows) - 1]  # the last text has no ids


def check_llama_cpp_vectors(env):
    for name, paths in (("phi-3", [env.made("phi3"), env.made("phi3_json"), env.v.phi3_gguf]),
                        ("gpt-2", [env.made("gpt2"), env.v.gpt2_gguf]),
                        ("qwen2", [env.made("qwen25"), env.made("qwen_gguf")])):
        strings, want = vectors(env, name)
        for path in paths:
            got = env.encode(path, strings)
            if path == env.v.phi3_gguf:  # add_bos_token
                got = [r[1:] for r in got]
            compare("llama.cpp %s from %s" % (name, os.path.basename(path)), strings, got, want)


def check_cl100k_vector(env):
    folder = os.path.join(env.v.shared, "tiktoken/vectors")
    with open(os.path.join(folder, "lib.rs.txt"), encoding="utf-8", newline="") as f:
        text = f.read()
    with open(os.path.join(folder, "tokens.json"), encoding="utf-8") as f:
        want = json.load(f)
    got = env.encode(env.v.cl100k_path, [text])
    compare("cl100k lib.rs, %d ids" % len(want), [text[:20]], got, [want])
    compare("cl100k lib.rs and back", [text[:20]], env.decode(env.v.cl100k_path, got), [text])


KNIGHT = "You are a medieval knight and must provide explanations to modern people."
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TEMPLATES = [  # vocabulary, class, chunks of reference.md 9.1, ids with strings for what is plain text
    ("phi3", "LlamaTokenizer",
     ["<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n", "\nWhat is shown?<|end|>\n<|assistant|>\n"],
     [[29871, 32006, 3492, 526, 263, 8444, 319, 29902, 20255, 29889, 32007, 32010],
      [29871, 13, 5618, 338, 4318, 29973, 32007, 32001]]),
    ("phi4", "GPT2Tokenizer",
     ["<|im_start|>system<|im_sep|>\n" + KNIGHT + "<|im_end|>\n<|im_start|>user<|im_sep|>\n",
      "\nIs it 12345 mg? \n<|im_end|>\n<|im_start|>assistant<|im_sep|>\n"],
     [[100264, "system", 100266, KNIGHT, 100265, 100264, "user", 100266],
      ["\nIs it 12345 mg?", 100265, 100264, "assistant", 100266]]),
    ("qwen25", "Qwen2Tokenizer",
     ["<|im_start|>system\n" + QWEN + "<|im_end|>\n<|im_start|>user\n",
      "\nIs it 12345 mg?<|im_end|>\n<|im_start|>assistant\n"],
     [[151644, "system\n" + QWEN, 151645, 198, 151644, "user\n"],
      ["\nIs it 12345 mg?", 151645, 198, 151644, "assistant\n"]]),
]


def check_templates(env):
    """The same chunks as tests/model/text/test_tokenizer.c builds them, here against the slow classes too."""
    for name, cls, chunks, skeleton in TEMPLATES:
        path, slow = env.made(name), slow_tokenizer(env, cls, env.made(name))
        want = [[i for x in row for i in ([x] if isinstance(x, int) else env.encode(path, [x])[0])] for row in skeleton]
        compare(name + " template, reference.md", chunks, env.encode(path, chunks, "--special"), want)
        compare(name + " template, " + cls, chunks, [slow(c).input_ids for c in chunks], want)


def check_naughty_strings(env):
    """They come back as they were, and none gives a special id."""
    strings = [s for s in texts.naughty(env.shared) if s]
    for name in ("phi3", "phi3_json", "phi4", "gpt2", "qwen25"):
        path = env.made(name)
        rows = env.encode(path, strings)
        with open(os.path.join(path, "tokenizer_config.json"), encoding="utf-8") as f:
            added = {int(i) for i in json.load(f).get("added_tokens_decoder", {"50256": 0})}
        if any(added.intersection(r) for r in rows):
            raise Different(name + ": a naughty string gave a special id")
        want = [unicodedata.normalize("NFC", s) for s in strings] if name == "qwen25" else \
            [s.replace("\u2581", " ") for s in strings] if name.startswith("phi3") else strings
        compare(name + " there and back", strings, env.decode(path, rows), want)


def check_broken_utf8(env):
    """Bytes that are no UTF-8 become U+FFFD as Python reads them. JSON cannot carry them: one long text in a pipe."""
    rng = env.rng("bytes")
    with open(os.path.join(env.v.shared, "text/utf8tests.bin"), "rb") as f:
        data = b"\n".join([f.read()] + [texts.broken_bytes(rng) for _ in range(2000)])
    text = data.decode("utf-8", "replace")
    for name in ("phi3", "phi4", "qwen25"):
        path = env.made(name)
        for options in ([], ["--special"]):
            got = [int(i) for i in env.run("tokenize", "--tokenizer", path, *options, data=data).split()]
            compare(name + " broken UTF-8, 2000 texts in one", [text[:20]], [got], env.encode(path, [text], *options))


CHECKS = [check_llama_cpp_vectors, check_cl100k_vector, check_templates, check_naughty_strings, check_broken_utf8]
