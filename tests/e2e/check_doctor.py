"""healthgpt doctor: a good machine, each kind of broken folder by its name, the document's shape, no leaks, hostile folders."""
import contextlib
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import tempfile

from harness import DEMO, LOG_ALARMS, ROOT, Daemon, Skip, edit_json, equal, is_sanitized, require

PORTS = {"HEALTHGPT_LISTEN": "127.0.0.1:0", "HEALTHGPT_OPS_LISTEN": "127.0.0.1:0"}
MEMBERS = {
    "": "configuration counts cuda findings format libraries machine model network result version",
    "configuration": "errors file set",
    "network": "listen ops_listen",
    "machine": "architecture clock cores cpu kernel limits memory nginx",
    "libraries": "jansson libjpeg libmicrohttpd libpng libunistring",
    "cuda": "backend card_bytes card_free_bytes cards driver library usable",
    "model": "card files looks_like name needs tasks",
}


def run(build, *args, env=None):
    """Exit code, stdout, and the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.run([os.path.join(ROOT, build, "healthgpt"), "doctor"] + list(args), cwd=ROOT, timeout=120,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, **dict(PORTS, **(env or {}))))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    err = p.stderr.decode("utf-8", "replace")
    require(not LOG_ALARMS.search(err), "sanitizer: " + err[-2000:])
    equal(err, "", "stderr of %r" % (args,))
    return p.returncode, p.stdout.decode(), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def doctor(build, *args, env=None):
    code, out, seconds = run(build, "--json", *args, env=env)
    doc = json.loads(out)
    require(out.count("\n") == 1, "one line")
    for name, members in MEMBERS.items():
        equal(" ".join(sorted(doc[name] if name else doc)), members, "members of \"%s\"" % name)
    levels = [f["level"] for f in doc["findings"]]
    for f in doc["findings"]:
        equal(sorted(f), ["area", "id", "level", "next", "text"], "members of a finding")
        require(f["text"] and "\n" not in f["text"], "text: %r" % f)
        if f["level"] == "fail":
            require(f["next"] or f["id"] == "tensor" or f["id"] == "vqgan" or f["id"] == "card", "nothing to do next: %r" % f)
    equal(doc["counts"], {k: levels.count(k) for k in ("ok", "warn", "fail")}, "counts")
    equal(doc["result"], "fail" if "fail" in levels else "warn" if "warn" in levels else "ok", "result")
    equal(code != 0, "fail" in levels, "exit code %d with %r" % (code, doc["counts"]))
    require(seconds < (20 if is_sanitized(build) else 2), "%.1f s of processor time" % seconds)
    return code, doc


def found(doc, name, level=None):
    return [f for f in doc["findings"] if f["id"] == name and level in (None, f["level"])]


@contextlib.contextmanager
def folder():
    """The demo model as links, so that a file may be replaced."""
    with tempfile.TemporaryDirectory() as d:
        root = os.path.join(d, "model")
        for at, _, names in os.walk(DEMO):
            os.makedirs(os.path.join(root, os.path.relpath(at, DEMO)))
            for name in names:
                os.symlink(os.path.join(at, name), os.path.join(root, os.path.relpath(at, DEMO), name))
        yield root


def replace(root, name, data):
    path = os.path.join(root, name)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as f:
        f.write(data)


def own_copy(root, name, n=None):
    with open(os.path.join(DEMO, name), "rb") as f:
        replace(root, name, f.read(n))
    return os.path.join(root, name)


def sparse(path, tensors):
    """A safetensors file (BF16) whose header is true and whose data is a hole."""
    header, at = {}, 0
    for name, shape in tensors:
        n = 2
        for x in shape:
            n *= x
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)


def lora(layers, rank, modules, projector=0):
    """modules: name -> (in, out)"""
    made = [("model.mm_projector.0.weight", [projector, 1024])] if projector else []
    for i in range(layers):
        for name, (k, n) in modules.items():
            where = "base_model.model.model.layers.%d.%s." % (i, name)
            made += [(where + "lora_A.weight", [rank, k]), (where + "lora_B.weight", [n, rank]), (where + "lora_route.weight", [4, k])]
    return made


M3 = {"self_attn.qkv_proj": (3072, 9216), "self_attn.o_proj": (3072, 3072), "mlp.gate_up_proj": (3072, 16384),
      "mlp.down_proj": (8192, 3072)}


def m3_base():
    made = [("model.embed_tokens.weight", [32064, 3072]), ("lm_head.weight", [32064, 3072]), ("model.norm.weight", [3072])]
    for i in range(32):
        made += [("model.layers.%d.%s.weight" % (i, name), [n, k]) for name, (k, n) in M3.items()]
        made += [("model.layers.%d.%s.weight" % (i, name), [3072]) for name in ("input_layernorm", "post_attention_layernorm")]
    return made


# ---- a good machine -----------------------------------------------------------------------------------

def check_doctor_json(build):
    code, doc = doctor(build)
    equal(code, 0, "exit code: %r" % [f for f in doc["findings"] if f["level"] == "fail"])
    equal((doc["format"], doc["model"]["name"], doc["model"]["tasks"]), (1, "healthgpt-demo", ["comprehension", "generation"]), "model")
    equal({f["state"] for f in doc["model"]["files"]}, {"ok"}, "states of the files")
    sizes = {f["file"]: f["bytes"] for f in doc["model"]["files"]}
    for name in ("llm/model.safetensors", "vqgan/last.ckpt", "gen_hlora_weights.bin", "vision/preprocessor_config.json"):
        equal(sizes[name], os.path.getsize(os.path.join(DEMO, name)), "size of " + name)
    require(doc["libraries"]["libmicrohttpd"]["linked"].count(".") >= 2, "libraries: %r" % doc["libraries"])
    old = tuple(int(x) for x in re.findall(r"\d+", doc["libraries"]["libmicrohttpd"]["linked"])[:3]) < (1, 0, 5)
    equal([f["level"] for f in found(doc, "libmicrohttpd")], ["warn" if old else "ok"], "level of libmicrohttpd")
    equal(doc["machine"]["cores"]["affinity"], len(os.sched_getaffinity(0)), "affinity")
    equal(doc["machine"]["limits"]["nofile_hard"], resource.getrlimit(resource.RLIMIT_NOFILE)[1], "nofile")
    equal(doc["network"], {"listen": "free", "ops_listen": "free"}, "network")
    equal(sorted(doc["configuration"]["set"].items()), [("listen", "environment"), ("ops_listen", "environment")], "what is set")


def check_text_is_a_line_for_each_finding(build):
    code, out, _ = run(build)
    lines = out.splitlines()
    _, doc = doctor(build)
    equal(code, 0, "exit code")
    equal(len(lines), len(doc["findings"]) + 1, "lines")
    for line, f in zip(lines, doc["findings"]):
        require(line.startswith({"ok": "ok    ", "warn": "warn  ", "fail": "FAIL  "}[f["level"]] + f["area"]), line)
        require(not f["next"] or "; next: " + f["next"] in line, line)
    require(re.fullmatch(r"\d+ ok, \d+ to look at, 0 failed: .+", lines[-1]), lines[-1])


def check_memory_is_what_the_daemon_takes(build):
    """Weights, cache and workspace from headers alone, against those of a load."""
    needs = doctor(build)[1]["model"]["needs"]
    with Daemon(build, "--backend", "cpu") as d:
        m = re.search(r"weights ([\d.]+) MB \+ plug-ins ([\d.]+) MB .* KV cache ([\d.]+) MB \((\d+) tokens\) \+ workspace ([\d.]+) MB = "
                      r"([\d.]+) MB", d.log_text())
    require(m, "no line about memory")
    weights, plugins, kv, tokens, workspace, together = (float(x) for x in m.groups())
    equal(needs["kv_tokens"], tokens, "tokens of the cache")
    for name, mine, theirs in (("KV cache", needs["kv_bytes"], kv), ("workspace", needs["workspace_bytes"], workspace),
                               ("weights", needs["bf16"]["weights_bytes"], weights + plugins),
                               ("together", needs["bf16"]["total_bytes"], together)):
        require(abs(mine / 1e6 - theirs) < 0.02 * theirs + 0.06, "%s: %d bytes here, %.1f MB there" % (name, mine, theirs))
    return "%.1f MB here, %.1f MB there" % (needs["bf16"]["total_bytes"] / 1e6, together)


def check_a_published_shape_and_the_cards_it_fits(build):
    with folder() as root:
        edit_json(own_copy(root, "healthgpt.json"), name="healthgpt-m3", vision=None, vqgan=None, tasks={
            "comprehension": {"hlora": "com.safetensors", "alpha": 128}})
        edit_json(own_copy(root, "llm/config.json"), hidden_size=3072, num_hidden_layers=32, num_attention_heads=32,
                  num_key_value_heads=32, intermediate_size=8192, vocab_size=32064, max_position_embeddings=4096)
        os.unlink(os.path.join(root, "llm/model.safetensors"))
        sparse(os.path.join(root, "llm/model.safetensors"), m3_base())
        sparse(os.path.join(root, "com.safetensors"), lora(32, 64, M3))
        _, doc = doctor(build, "--model", root)
        equal([f["text"] for f in found(doc, "tensor") + found(doc, "plugin_base")], [], "complaints")
        equal(doc["model"]["looks_like"], "HealthGPT-M3", "looks like")
        needs = doc["model"]["needs"]
        base, plugin, table = 3821079552, 102891520, 32064 * 3072  # reference.md 1 and 2.3; tables stay 16-bit
        equal(needs["bf16"]["weights_bytes"], 2 * (base + plugin), "bytes in bf16")
        equal(needs["plugin_bytes"], 2 * plugin, "bytes of the plug-in")
        equal(needs["kv_context_bytes"], 4096 * 393216, "a context's KV cache")
        require(1.00 < needs["int8"]["weights_bytes"] / (base + table + 2 * plugin) < 1.01, "int8: %r" % needs)
        require(0.50 < (needs["int4"]["weights_bytes"] - 2 * plugin - 2 * table) / (base - table) < 0.53, "int4: %r" % needs)
        equal(needs["bf16"]["fits_cards_gb"], [16, 24, 40, 48, 80, 141], "cards")
        sparse(os.path.join(root, "com.safetensors"), lora(32, 256, M3))
        code, doc = doctor(build, "--model", root)
        equal([f["level"] for f in found(doc, "plugin_swapped")], ["fail"], "generation plug-in under comprehension")
        os.unlink(os.path.join(root, "com.safetensors"))
        _, doc = doctor(build, "--model", root)
        equal(found(doc, "missing")[0]["next"], "it comes from com_hlora_weights.bin of https://huggingface.co/lintw/HealthGPT-M3", "source")
        equal(doc["model"]["needs"], None, "sums of half a model")


def check_the_cards_of_the_published_models(build):
    """Empty: every file and its page are named. Filled with files after the published names and shapes: nothing to complain of but
    what these lack."""
    pages = {"healthgpt-m3": ("Phi-3-mini-4k-instruct", "lintw/HealthGPT-M3", 3), "healthgpt-l14": ("phi-4", "lintw/HealthGPT-L14", 1),
             "healthgpt-xl32": ("Qwen2.5-32B-Instruct", "lintw/HealthGPT-XL32", 1)}
    for name, (base, page, n_plugins) in pages.items():
        with tempfile.TemporaryDirectory() as d:
            code, doc = doctor(build, "--model", os.path.join(os.path.dirname(DEMO), name + ".json"), "--weights", d)
            next_of = {f["text"].split(":")[0].rstrip("/"): f["next"] for f in found(doc, "missing", "fail")}
            equal((code, doc["model"]["name"]), (66, name), "end")
            require(base in next_of["llm"] and "clip-vit-large-patch14-336" in next_of["vision"], "pages: %r" % next_of)
            equal(len([x for x in next_of.values() if page in x]), n_plugins, "plug-ins of %s in %r" % (page, next_of))
            equal("vqgan/last.ckpt" in next_of, n_plugins == 3, "VQGAN of " + name)
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(os.path.join(os.path.dirname(DEMO), "healthgpt-m3.json"), os.path.join(d, "healthgpt.json"))
        shutil.copytree(os.path.join(DEMO, "llm"), os.path.join(d, "llm"))
        edit_json(os.path.join(d, "llm/config.json"), hidden_size=3072, num_hidden_layers=32, num_attention_heads=32,
                  num_key_value_heads=32, intermediate_size=8192, vocab_size=32064, max_position_embeddings=4096)
        os.unlink(os.path.join(d, "llm/model.safetensors"))
        tensors, halves = m3_base(), {}
        for k in (0, 1):
            shard = "model-0000%d-of-00002.safetensors" % (k + 1)
            sparse(os.path.join(d, "llm", shard), tensors[k::2])
            halves.update((t[0], shard) for t in tensors[k::2])
        with open(os.path.join(d, "llm/model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": halves}, f)
        sparse(os.path.join(d, "com_hlora_weights.bin"), lora(32, 64, M3, 3072))
        sparse(os.path.join(d, "gen_hlora_weights.bin"), lora(32, 256, M3, 3072))
        sparse(os.path.join(d, "fusion_layer_weights.bin"), [("base_model.model.model.embed_tokens.weight", [40206, 3072]),
                                                              ("base_model.model.lm_head.weight", [40206, 3072])])
        _, doc = doctor(build, "--model", d)
        bad = [f["text"] for f in doc["findings"] if f["area"] == "model" and f["level"] != "ok"]
        equal(sorted(x for x in bad if "expected" not in x), ["vision/: the folder is missing", "vqgan/last.ckpt: missing"], "complaints")
        expected = [f["text"] for f in found(doc, "expectation", "warn")]
        require("generation_config.json: eos_token_id: expected among them 32000 (card healthgpt-m3), got 768, 769, 775" in " ".join(expected),
                "the demo's own stop ids are not those of Phi-3: %r" % expected)
        sizes = {f["file"]: f["bytes"] for f in doc["model"]["files"]}
        equal(sorted((f["text"].split(":")[0]) for f in found(doc, "plugin", "ok")), ["com_hlora_weights.bin", "gen_hlora_weights.bin"],
              "plug-ins that fit")
        require(abs(sizes["fusion_layer_weights.bin"] - 494051328) < 1000, "size of the fusion file: %r" % sizes)  # reference.md 2.3
        for mine, other in (("com", "x"), ("gen", "com"), ("x", "gen")):
            os.rename(os.path.join(d, mine + "_hlora_weights.bin"), os.path.join(d, other + "_hlora_weights.bin"))
        code, doc = doctor(build, "--model", d)
        equal(len(found(doc, "plugin_swapped", "fail")), 2, "swapped files in %r" % doc["findings"][-8:])


# ---- broken folders -------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4184256\n"


def unlink(name):
    return lambda root: os.unlink(os.path.join(root, name))


def write(name, data):
    return lambda root: replace(root, name, data)


def cut(name, n):
    return lambda root: own_copy(root, name, n)


def edit(name, **values):
    return lambda root: edit_json(own_copy(root, name), **values)


def swap_plugins(root):
    for mine, other in (("com", "gen"), ("gen", "com")):
        os.unlink(os.path.join(root, mine + "_hlora_weights.bin"))
        os.symlink(os.path.join(DEMO, other + "_hlora_weights.bin"), os.path.join(root, mine + "_hlora_weights.bin"))


def fusion_as_plugin(root):
    os.unlink(os.path.join(root, "com_hlora_weights.bin"))
    os.symlink(os.path.join(DEMO, "fusion_layer_weights.bin"), os.path.join(root, "com_hlora_weights.bin"))


def foreign_plugin(root):
    os.unlink(os.path.join(root, "com_hlora_weights.bin"))
    sparse(os.path.join(root, "com_hlora_weights.bin"), lora(32, 64, M3))


def index_of_nothing(root):
    os.unlink(os.path.join(root, "llm/model.safetensors"))
    replace(root, "llm/model.safetensors.index.json", json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}).encode())


def loop(name):
    def make(root):
        path = os.path.join(root, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        os.symlink(os.path.basename(name), path)
    return make


def fifo(name):
    def make(root):
        os.unlink(os.path.join(root, name))
        os.mkfifo(os.path.join(root, name))
    return make


def rmtree(name):
    return lambda root: shutil.rmtree(os.path.join(root, name))


# what is done to the demo model, exit code, id, a part of the text, a part of the advice
BROKEN = [
    (unlink("com_hlora_weights.bin"), 66, "missing", "com_hlora_weights.bin: missing", "config/models/demo"),
    (rmtree("vision"), 66, "missing", "vision/: the folder is missing", "comes from"),
    (unlink("llm/config.json"), 66, "missing", "llm/config.json: missing", "comes from"),
    (unlink("llm/model.safetensors"), 66, "missing", "llm/: no weights", "come from"),
    (unlink("llm/tokenizer.model"), 66, "tokenizer", "no tokenizer here", "config/models/demo"),
    (index_of_nothing, 66, "missing", "llm/model-00001-of-00002.safetensors: missing", "comes from"),
    (write("llm/model.safetensors", LFS), 65, "git_lfs_pointer", "132 bytes here, 4.2 MB there", "git lfs pull"),
    (write("gen_hlora_weights.bin", LFS), 65, "git_lfs_pointer", "gen_hlora_weights.bin", "git lfs pull"),
    (cut("llm/model.safetensors", 3000000), 65, "truncated", "the header speaks of 4184256 bytes, the file has 3000000", "download it again"),
    (cut("llm/model.safetensors", 500), 65, "truncated", "header of", "download it again"),
    (cut("com_hlora_weights.bin", 500000), 65, "truncated", "com_hlora_weights.bin", "download it again"),
    (write("vqgan/last.ckpt", b"<!DOCTYPE html><title>404</title>"), 65, "web_page", "vqgan/last.ckpt", "download it again"),
    (write("fusion_layer_weights.bin", b""), 65, "empty", "fusion_layer_weights.bin: empty", "download it again"),
    (write("vision/model.safetensors", b"\0" * 100), 65, "unreadable", "vision/model.safetensors", "download it again"),
    (edit("llm/config.json", intermediate_size=256), 65, "tensor", "expected", "not of one model"),
    (swap_plugins, 0, "plugin_scale", "every published plug-in by 8", "swapped"),
    (fusion_as_plugin, 65, "plugin_kind", "looks like the fusion file", "comes from"),
    (foreign_plugin, 65, "plugin_base", "for another base (HealthGPT-M3, 32 layers of 3072", "the right one"),
    (write("healthgpt.json", b"{\"format\": 1,\n oops"), 65, "card", "healthgpt.json", "example"),
    (edit("healthgpt.json", templat="x"), 65, "card", "templat", "example"),
    (edit("healthgpt.json", llm="../demo"), 65, "card", "below the card's folder", "example"),
    # hostile ones
    (loop("vision"), 74, "not_a_folder", "symbolic links that run in a circle", "make it a folder"),
    (loop("gen_hlora_weights.bin"), 74, "unreadable", "symbolic links that run in a circle", "download"),
    (fifo("gen_hlora_weights.bin"), 65, "not_a_file", "a FIFO, not a file", "download"),
    (fifo("llm/config.json"), 65, "not_a_file", "llm/config.json: a FIFO", "download"),
    (fifo("healthgpt.json"), 65, "card", "not a regular file", "example"),
    (write("llm/model.safetensors", struct.pack("<Q", 1 << 40) + b"{" * 100), 65, "truncated", "header of", "download"),
    (write("llm/model.safetensors", struct.pack("<Q", 31 << 20) + b"{\"a\":" + b"[" * (31 << 20)), 65, "unreadable", "nested", "download"),
    (write("llm/model.safetensors", struct.pack("<Q", 31 << 20) + b"{\"a\":[" + b"1," * (15 << 20) + b" " * (1 << 20)), 65, "unreadable",
     "llm/model.safetensors", "download"),
    (write("llm/model.safetensors.index.json", b"[" * 1000000), 65, "index", "no index of shards", "download"),
]


def check_each_broken_folder_is_named(build):
    for i, (harm, code, name, text, advice) in enumerate(BROKEN):
        with folder() as root:
            harm(root)
            got, doc = doctor(build, "--model", root)
            hits = [f for f in found(doc, name) if text in f["text"] and advice in (f["next"] or "")]
            wrong = [f for f in doc["findings"] if f["level"] != "ok"]
            require(hits, "case %d: no %s with %r and %r in %r" % (i, name, text, advice, wrong))
            require(hits[0]["level"] == ("fail" if code else "warn"), "level of %r" % hits)
            equal(got, code, "exit code of case %d: %r" % (i, wrong))
    return "%d folders" % len(BROKEN)


def check_folders_without_a_card(build):
    """A Hugging Face folder, the tower alone, plug-ins alone, a cache, a GGUF, the wrong level."""
    phi4 = {"model_type": "phi3", "hidden_size": 5120, "num_hidden_layers": 40}
    qwen = {"model_type": "qwen2", "hidden_size": 5120, "num_hidden_layers": 64}
    with tempfile.TemporaryDirectory() as d:
        def given(name, files):
            os.makedirs(os.path.join(d, name))
            for file, value in files.items():
                os.makedirs(os.path.dirname(os.path.join(d, name, file)), exist_ok=True)
                if not file.endswith("/"):
                    replace(os.path.join(d, name), file, value if isinstance(value, bytes) else json.dumps(value).encode())
            return os.path.join(d, name)
        plugins = given("plugins", {"config.json": b"null\n"})  # the published ones have 5 bytes there
        sparse(os.path.join(plugins, "com_hlora_weights.bin"), lora(32, 64, M3))
        cases = [
            (given("phi4", {"config.json": phi4}), "Phi-4", ["plain Hugging Face folder of Phi-4", "the base of HealthGPT-L14"],
             ["com_hlora_weights_phi4.bin of https://huggingface.co/lintw/HealthGPT-L14", "openai/clip-vit-large-patch14-336"]),
            (given("qwen", {"config.json": qwen}), "Qwen2.5-32B-Instruct", ["plain Hugging Face folder of Qwen2.5-32B"],
             ["lintw/HealthGPT-XL32", "taming-transformers"]),
            (os.path.join(DEMO, "llm"), "phi3", ["some language model (config.json: phi3, 4 layers of 192)"], ["lintw"]),
            (os.path.join(DEMO, "vision"), "CLIP", ["is a vision tower"], ["healthgpt.json"]),
            (plugins, "plug-ins", ["holds plug-ins only", "for HealthGPT-M3"], ["microsoft/Phi-3-mini-4k-instruct"]),
            (os.path.dirname(DEMO), None, ["no healthgpt.json"], ["did you mean its folder"]),
            (given("cache", {"snapshots/abc/": b"", "refs/": b""}), None, ["no healthgpt.json"], ["snapshots/<hash>"]),
            (given("gguf", {"model.gguf": b"GGUF"}), None, ["GGUF files are not read"], ["example"]),
            (given("none", {}), None, ["no model in it"], ["example"]),
            (given("broken", {"config.json": b"{"}), None, ["config.json"], ["download it again"]),
        ]
        for path, looks, texts, advice in cases:
            code, doc = doctor(build, "--model", path)
            seen = [f for f in doc["findings"] if f["area"] in ("model", "memory")]
            equal(doc["model"]["looks_like"], looks, "%s looks like" % path)
            for part in texts:
                require(any(part in f["text"] for f in seen), "%s: no %r in %r" % (path, part, seen))
            for part in advice:
                require(any(part in (f["next"] or "") for f in seen), "%s: no advice %r in %r" % (path, part, seen))
            require(code in (65, 66), "exit code %d for %s" % (code, path))
        equal(doctor(build, "--model", os.path.join(DEMO, "healthgpt.json"))[0], 0, "a card file")
        for path, text in ((os.path.join(d, "now\nhere \x1b[31m"), "no such folder"), ("/dev/null", "not a folder")):
            code, doc = doctor(build, "--model", path)
            require(text in found(doc, "no_folder", "fail")[0]["text"], "%r" % doc["findings"][-1])


# ---- configuration, ports, card --------------------------------------------------------------------------

def check_configuration_errors_have_their_places(build):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "config.json")
        with open(path, "w") as f:
            f.write("{ // comment\n  \"max_queu\": 3,\n  \"max_batch\": \"x\"\n}\n")
        code, doc = doctor(build, "--config", path)
        equal((code, doc["configuration"]["errors"]), (64, 2), "end")
        texts = " | ".join(f["text"] for f in found(doc, "configuration", "fail"))
        for part in (path + ":2:", "max_queue", path + ":3:", "max_batch"):
            require(part in texts, "%r not in %s" % (part, texts))


def check_ports(build):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        code, doc = doctor(build, env={"HEALTHGPT_LISTEN": "127.0.0.1:%d" % s.getsockname()[1]})
        equal((code, doc["network"]["listen"]), (69, "in use"), "a port that another program has")
        require("is taken by another program" in found(doc, "listen", "fail")[0]["text"], "%r" % found(doc, "listen"))
    with Daemon(build, "--backend", "cpu") as d:
        code, doc = doctor(build, env={"HEALTHGPT_LISTEN": "127.0.0.1:%d" % d.port})
        equal((code, doc["network"]["listen"]), (0, "healthgptd"), "a port that healthgptd has")
    code, doc = doctor(build, env={"HEALTHGPT_LISTEN": "192.0.2.7:8080"})
    require(found(doc, "configuration", "fail") and "192.0.2.7" not in json.dumps(doc), "an address of the site is shown")
    code, doc = doctor(build, env={"HEALTHGPT_LISTEN": "192.0.2.7:8080", "HEALTHGPT_INSECURE": "true"})
    equal((code, doc["network"]["listen"]), (74, "not bound"), "an address of nobody")
    require("192.0.2.7" not in json.dumps(doc), "an address of the site is shown")


def check_no_card_is_no_failure_unless_asked_for(build):
    _, doc = doctor(build)
    if doc["cuda"]["usable"]:
        return "this machine has a card: %s" % doc["cuda"]["backend"]
    require(found(doc, "cuda")[0]["level"] != "fail", "%r" % found(doc, "cuda"))
    code, doc = doctor(build, env={"HEALTHGPT_BACKEND": "cuda"})
    equal((code, [f["level"] for f in found(doc, "cuda")]), (69, ["fail"]), "backend cuda without a card")


def check_an_emulated_card(build):
    """The emulation of tests/simt under the name of the cuda backend: memory of the card, what fits, what does not."""
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(os.path.join(ROOT, build, "healthgpt"), d)
        shutil.copy(os.path.join(ROOT, build, "libhealthgpt_simt.so"), os.path.join(d, "libhealthgpt_cuda.so"))
        code, doc = doctor(d, "--model", DEMO, env={"HG_SIMT_MEMORY": "2000"})
        equal((code, doc["cuda"]["usable"], doc["cuda"]["card_bytes"]), (0, True, 2000000000), "a card of 2 GB: %r" % doc["cuda"])
        require("the card has 1.80 GB free" in found(doc, "memory_fits", "ok")[0]["text"], "%r" % found(doc, "memory_fits"))
        code, doc = doctor(d, "--model", DEMO, env={"HG_SIMT_MEMORY": "50"})
        equal(code, 75, "a card of 50 MB")
        require("the card has" in found(doc, "memory_fits", "fail")[0]["text"], "%r" % found(doc, "memory_fits"))
        code, doc = doctor(d, "--model", DEMO, env={"HG_SIMT_MEMORY": "50", "HEALTHGPT_BACKEND": "cpu"})
        require(code == 0 and "this machine has" in found(doc, "memory_fits", "ok")[0]["text"], "%r" % found(doc, "memory_fits"))


def check_a_driver_that_crashes_takes_nobody_with_it(build):
    if is_sanitized(build) or not shutil.which("cc"):
        raise Skip("a sanitizer's own end, or no C compiler")
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(os.path.join(ROOT, build, "healthgpt"), d)
        replace(d, "crash.c", b"#include <stdlib.h>\nint hg_cuda_open(void) { abort(); }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", os.path.join(d, "libhealthgpt_cuda.so"), os.path.join(d, "crash.c")], check=True)
        code, doc = doctor(d, "--model", DEMO, env={"HEALTHGPT_BACKEND": "cuda"})
        equal(code, 69, "exit code")
        require("has crashed" in found(doc, "cuda", "fail")[0]["text"], "%r" % found(doc, "cuda"))


# ---- what must not be seen ----------------------------------------------------------------------------------

def check_nothing_private_is_shown(build):
    with folder() as root, tempfile.TemporaryDirectory() as home:
        os.unlink(os.path.join(root, "com_hlora_weights.bin"))
        secret = os.path.join(home, "my keys", "s3cr3t.json")
        env = {"HOME": home, "USER": "qzuserzq", "HEALTHGPT_API_KEYS": secret, "HEALTHGPT_AUDIT_KEY_FILE": home + "/audit.key",
               "HEALTHGPT_MAX_QUEUE": "zzvaluezz", "HEALTHGPT_DTYPE": "zzotherzz", "HEALTHGPT_MODEL": root,
               "HEALTHGPT_AUDIT_LOG": home + "/audit.jsonl", "AWS_SECRET_ACCESS_KEY": "zzawszz"}
        code, out, _ = run(build, "--json", env=env)
        text = run(build, env=env)[1]
        equal(code, 64, "exit code")
        require("HEALTHGPT_MAX_QUEUE" in out, "the variable is named")
        private = [home, secret, "my keys", root, os.path.dirname(root), DEMO, ROOT, "qzuserzq", "zzvaluezz", "zzotherzz", "zzawszz",
                   "s3cr3t"]
        name = socket.gethostname()
        private += [name] if len(name) > 5 else []
        for what in private:
            require(what not in out and what not in text, "%r is shown" % what)
        require("com_hlora_weights.bin: missing" in out, "below the folder names are shown")
        shown = json.loads(run(build, "--json", "--model", root, env={"HOME": home})[1])
        require(root not in json.dumps(shown) or all(root in f["text"] for f in found(shown, "card")), "only where it was typed")
        paths = re.findall(r"(?<![\w.:/<>-])/[\w.-]+/[\w./-]+", re.sub(r"https?://\S+", "", json.dumps(shown)))
        equal([p for p in paths if not p.startswith(root)], [], "absolute paths that were not typed")
