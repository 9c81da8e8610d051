"""A card file and --weights: every layout a download leaves, and every wrong file by its own message from daemon, command line and
doctor before a weight is packed. The demo model's files, under a card that expects what the published cards expect of theirs."""
import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile

import check_doctor as doctor_checks
from check_doctor import LFS, M3, doctor, found, lora, replace, sparse
from harness import DEMO, ROOT, Daemon, cli, cli_ok, edit_json, equal, is_sanitized, require

HASH, OLD = "0a67737cc96d2554230f90338b163bc6380a2a85", "f39ac1d28e925b323eae81227eaba4464caced4e"
PLUGINS = ("com_hlora_weights.bin", "gen_hlora_weights.bin", "fusion_layer_weights.bin")
REPOSITORIES = {"llm": "own/Base", "vision": "own/Tower", "plugins": "own/Plug-ins"}
EXPECT = {
    "config.json": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "vocab_size": 832, "sliding_window": 1023},
    "generation_config.json": {"eos_token_id": [768, 775], "repetition_penalty": 1},
    "tokenizer": {"first_image_id": 780}, "vqgan": {"codes": 256}, "vision/config.json": {"image_size": 64},
    "comprehension": {"rank": 32, "experts": 4}, "generation": {"rank": 64, "experts": 4},
}


def card(path, **values):
    with open(os.path.join(DEMO, "healthgpt.json")) as f:
        doc = json.load(f)
    doc.update(name="mine", expect=EXPECT, sources={
        "llm": {"repository": REPOSITORIES["llm"]}, "vision": {"repository": REPOSITORIES["vision"]},
        "vqgan": {"page": "https://example.org/vqgan", "names": ["last.ckpt"]}, "plugins": {"repository": REPOSITORIES["plugins"]}})
    doc.update(values)
    with open(path, "w") as f:
        json.dump(doc, f)
    return path


def link_tree(source, target):
    os.makedirs(target)
    for name in os.listdir(source):
        os.symlink(os.path.join(source, name), os.path.join(target, name))


def cache(root, repository, files, old=False, ref=HASH):
    """What huggingface_hub leaves: blobs, links to them in a snapshot, refs/main. files: name -> path."""
    repo = os.path.join(root, "models--" + repository.replace("/", "--"))
    os.makedirs(os.path.join(repo, "blobs"))
    for hash_, names in ((HASH, files),) + (((OLD, {}),) if old else ()):
        os.makedirs(os.path.join(repo, "snapshots", hash_))
        for i, (name, path) in enumerate(sorted(names.items())):
            shutil.copy(path, os.path.join(repo, "blobs", "%040x" % i))
            os.symlink("../../blobs/%040x" % i, os.path.join(repo, "snapshots", hash_, name))
    if ref:
        os.makedirs(os.path.join(repo, "refs"))
        with open(os.path.join(repo, "refs", "main"), "w") as f:
            f.write(ref)


def files_in(folder, names=None):
    return {n: os.path.join(folder, n) for n in names or os.listdir(folder)}


def plain(root):
    for sub in ("llm", "vision", "vqgan"):
        link_tree(os.path.join(DEMO, sub), os.path.join(root, sub))
    for name in PLUGINS:
        os.symlink(os.path.join(DEMO, name), os.path.join(root, name))


def clones(root):
    """One folder for each repository, as git clone leaves them."""
    link_tree(os.path.join(DEMO, "llm"), os.path.join(root, "Base"))
    link_tree(os.path.join(DEMO, "vision"), os.path.join(root, "own", "Tower"))
    os.makedirs(os.path.join(root, "Plug-ins"))
    for name in PLUGINS:
        os.symlink(os.path.join(DEMO, name), os.path.join(root, "Plug-ins", name))
    os.symlink(os.path.join(DEMO, "vqgan", "last.ckpt"), os.path.join(root, "last.ckpt"))


def hub(root):
    cache(root, REPOSITORIES["llm"], files_in(os.path.join(DEMO, "llm")), old=True)
    cache(root, REPOSITORIES["vision"], files_in(os.path.join(DEMO, "vision")), ref="../../../etc")
    cache(root, REPOSITORIES["plugins"], files_in(DEMO, PLUGINS), ref="")
    os.symlink(os.path.join(DEMO, "vqgan", "last.ckpt"), os.path.join(root, "last.ckpt"))


def hub_below(root):
    os.makedirs(os.path.join(root, "hub"))
    cache(os.path.join(root, "hub"), REPOSITORIES["llm"], files_in(os.path.join(DEMO, "llm")))
    cache(os.path.join(root, "hub"), REPOSITORIES["vision"], files_in(os.path.join(DEMO, "vision")))
    cache(os.path.join(root, "hub"), REPOSITORIES["plugins"], files_in(DEMO, PLUGINS))
    os.makedirs(os.path.join(root, "vqgan_gumbel_f8"))
    os.symlink(os.path.join(DEMO, "vqgan", "last.ckpt"), os.path.join(root, "last.ckpt"))


LAYOUTS = [
    (plain, ["llm", "vision", "vqgan/last.ckpt", "com_hlora_weights.bin"]),
    (clones, ["Base", "own/Tower", "last.ckpt", "Plug-ins/com_hlora_weights.bin"]),
    (hub, ["models--own--Base/snapshots/" + HASH, "models--own--Tower/snapshots/" + HASH, "last.ckpt",
           "models--own--Plug-ins/snapshots/%s/com_hlora_weights.bin" % HASH]),
    (hub_below, ["hub/models--own--Base/snapshots/" + HASH, "hub/models--own--Tower/snapshots/" + HASH, "last.ckpt",
                 "hub/models--own--Plug-ins/snapshots/%s/com_hlora_weights.bin" % HASH]),
]
ASK = ("--backend", "cpu", "Is there pneumonia?")


@contextlib.contextmanager
def weights(layout=plain):
    """A card file in a folder of its own, and the weights elsewhere."""
    with tempfile.TemporaryDirectory() as d:
        root = os.path.join(d, "weights")
        os.makedirs(root)
        layout(root)
        yield card(os.path.join(d, "mine.json")), root


def check_layouts_are_found_by_every_command(build):
    want = cli_ok(build, "ask", *ASK)
    ids = cli_ok(build, "tokenize", "Is there pneumonia?")
    for layout, places in LAYOUTS:
        with weights(layout) as (path, root):
            given = ("--model", path, "--weights", root)
            equal(cli_ok(build, "ask", *given, *ASK), want, "answer with %s" % layout.__name__)
            equal(cli_ok(build, "tokenize", *given, "Is there pneumonia?"), ids, "ids with %s" % layout.__name__)
            doc = json.loads(cli_ok(build, "inspect", "--json", path, "--weights", root))
            found_at = [os.path.relpath(p["path"], root) for p in doc["pieces"]]
            equal(found_at[:4], places, "places of %s" % layout.__name__)
            equal((doc["missing"], doc["warnings"]), ([], []), "complaints of inspect")
            code, report = doctor(build, *given)
            equal([f["text"] for f in report["findings"] if f["area"] == "model" and f["level"] != "ok"], [], "complaints of doctor")
            equal(code, 0, "exit code of doctor")
            said = " ".join(f["text"] for f in found(report, "found", "ok"))
            require(all(p in said for p in places if "snapshots" in p), "where they are: %r" % said)
    with weights(hub) as (path, root):
        out = os.path.join(root, "out.png")
        cli_ok(build, "draw", "--model", path, "--weights", root, "--backend", "cpu", "-o", out, "Draw a chest X-ray.")
        require(os.path.getsize(out) > 100, "a picture")
        with Daemon(build, "--backend", "cpu", env={"HEALTHGPT_MODEL": path, "HEALTHGPT_WEIGHTS": root}) as d:
            reply = d.post_ok("/v1/chat/completions", {"model": "mine", "messages": [{"role": "user", "content": "Is there pneumonia?"}]})
            equal(reply["choices"][0]["message"]["content"].strip(), want.strip(), "the daemon's answer")
            require("expected" not in d.log_text(), "warnings: %s" % d.log_text()[-500:])
    return "%d layouts" % len(LAYOUTS)


# reference.md 1, 2.3, 18: elements of base, tables, plug-ins with projectors; bytes of KV cache of a token, tokens of a context
PUBLISHED = {"m3": (3821079552, 247025664, 102891520 + 404881408 + 2 * 12589056, 393216, 4096),
             "l14": (14659507200, 0, 116736000 + 31467520, 204800, 16384),
             "xl32": (32763876352, 0, 283377664 + 31467520, 262144, 32768)}


def estimated(name, memory, needs):
    """Without a file: what the card's constants come to."""
    base, fusion, plugins, kv, context = PUBLISHED[name]
    equal((memory["estimated"], needs["estimated"]), (True, True), "estimated")
    equal((memory["plugins"], memory["fusion"], memory["vision"]), (2 * plugins, 2 * fusion, 2 * 303507456), "bytes beside the base")
    want = 2 * (base + fusion + plugins + 303507456) + memory["vqgan"]
    equal((memory["bf16"], needs["bf16"]["weights_bytes"]), (want, want), "bytes in bf16")
    equal(memory["vqgan"], 276000000 if name == "m3" else 0, "bytes of the VQGAN")
    equal((memory["kv_bytes_per_token_f16"], memory["kv_bytes_context_f16"]), (kv, kv * context), "KV cache")
    smallest = {"m3": (16, 16), "l14": (40, 16), "xl32": (141, 40)}[name]
    equal(tuple(memory["cards"][t]["fits_cards_gb"][0] for t in ("bf16", "int4")), smallest, "smallest cards")


def check_nothing_there_names_role_page_and_places(build):
    with tempfile.TemporaryDirectory() as d:
        for name, base in (("m3", "microsoft/Phi-3-mini-4k-instruct"), ("l14", "microsoft/phi-4"), ("xl32", "Qwen/Qwen2.5-32B-Instruct")):
            path = os.path.join(os.path.dirname(DEMO), "healthgpt-%s.json" % name)
            code, out, err = cli(build, "ask", "--model", path, "--weights", d, "Hello?")
            equal((code, out), (66, ""), "end")
            for part in ("language model", "https://huggingface.co/" + base, d[-20:], "models--" + base.replace("/", "--")):
                require(part in err, "%r is not in %r" % (part, err))
            code, out, _ = cli(build, "inspect", "--json", path, "--weights", d)
            doc = json.loads(out)
            equal((code, doc["name"], len(doc["pieces"])), (65, "healthgpt-" + name, 6 if name == "m3" else 3), "inspect")
            require(all(p["page"] and not p["path"] for p in doc["pieces"]), "%r" % doc["pieces"])
            equal(len(doc["missing"]), len(doc["pieces"]), "%r" % doc["missing"])
            estimated(name, doc["memory"], doctor(build, "--model", path, "--weights", d)[1]["model"]["needs"])
        code, _, err = cli(build, "ask", "--weights", os.path.join(d, "none"), "Hello?")
        require(code == 66 and "--weights" in err and "no such folder" in err, err)
        code = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "--check-config", "--weights", os.path.join(d, "none")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
        require(code.returncode == 64 and b"weights: --weights" in code.stderr, "%r" % code.stderr)


# ---- wrong files --------------------------------------------------------------------------------------------

def swap(root):
    for name, other in (("com", "gen"), ("gen", "com")):
        os.unlink(os.path.join(root, name + "_hlora_weights.bin"))
        os.symlink(os.path.join(DEMO, other + "_hlora_weights.bin"), os.path.join(root, name + "_hlora_weights.bin"))


def of_another_variant(root):
    os.unlink(os.path.join(root, "com_hlora_weights.bin"))
    l14 = {"self_attn.qkv_proj": (5120, 7680), "self_attn.o_proj": (5120, 5120), "mlp.gate_up_proj": (5120, 35840),
           "mlp.down_proj": (17920, 5120)}
    sparse(os.path.join(root, "com_hlora_weights.bin"), lora(40, 32, l14))


def read(name):
    with open(os.path.join(DEMO, name), "rb") as f:
        return f.read()


def safetensors(data):
    n, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + n]), data[8 + n:]


def with_header(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def nan_in(tensor, element):
    """An F16 element of the base becomes NaN."""
    def harm(root):
        header, body = safetensors(read("llm/model.safetensors"))
        at = header[tensor]["data_offsets"][0] + 2 * element
        require(header[tensor]["dtype"] == "F16", "type of the demo's weights")
        replace(root, "llm/model.safetensors", with_header(header, body[:at] + b"\x01\x7e" + body[at + 2:]))
    return harm


def nan_in_plugin(root):
    """The plug-in again as a safetensors file of zeros, one of them Inf."""
    names = json.loads(subprocess.run([os.path.join(ROOT, BUILD, "healthgpt"), "inspect", "--json", "--tensors",
                                       os.path.join(DEMO, "gen_hlora_weights.bin")], stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)
    path = os.path.join(root, "gen_hlora_weights.bin")
    os.unlink(path)
    sparse(path, [(t["name"], t["shape"]) for t in names["files"][0]["tensors"]])
    with open(path, "r+b") as f:
        f.seek(-2, os.SEEK_END)
        f.write(struct.pack("<H", 0x7f80))


def surplus(root):
    header, body = safetensors(read("llm/model.safetensors"))
    header["model.layers.4.extra"] = {"dtype": "F16", "shape": [2], "data_offsets": [len(body), len(body) + 4]}
    replace(root, "llm/model.safetensors", with_header(header, body + bytes(4)))


def shards(lost):
    """The base in two shards and an index; `lost` is not there."""
    def harm(root):
        header, body = safetensors(read("llm/model.safetensors"))
        names = sorted(n for n in header if n != "__metadata__")
        halves = {n: "model-0000%d-of-00002.safetensors" % (1 + (i % 2)) for i, n in enumerate(names)}
        for shard in set(halves.values()):
            part, data = {}, b""
            for n in (n for n in names if halves[n] == shard):
                a, b = header[n]["data_offsets"]
                part[n] = dict(header[n], data_offsets=[len(data), len(data) + b - a])
                data += body[a:b]
            if shard != lost:
                replace(root, "llm/" + shard, with_header(part, data))
        os.unlink(os.path.join(root, "llm/model.safetensors"))
        replace(root, "llm/model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": halves}).encode())
    return harm


def other_vocabulary(root):
    data = read("llm/config.json")
    replace(root, "llm/config.json", data)
    edit_json(os.path.join(root, "llm/config.json"), vocab_size=900)


def fusion_rows(root):
    os.unlink(os.path.join(root, "fusion_layer_weights.bin"))
    sparse(os.path.join(root, "fusion_layer_weights.bin"), [("base_model.model.model.embed_tokens.weight", [1000, 192]),
                                                            ("base_model.model.lm_head.weight", [1000, 192])])


def tower_tensor(root):
    header, body = safetensors(read("vision/model.safetensors"))
    header["vision_model.encoder.layers.1.mlp.fc1.bais"] = header.pop("vision_model.encoder.layers.1.mlp.fc1.bias")
    replace(root, "vision/model.safetensors", with_header(header, body))


# what is done, exit code, parts of the message of daemon and command line, id of the doctor's finding
WRONG = [
    (lambda root: os.unlink(os.path.join(root, "gen_hlora_weights.bin")), 66,
     ["generation plug-in: gen_hlora_weights.bin: not found", "https://huggingface.co/own/Plug-ins", "Plug-ins/gen_hlora_weights.bin"],
     "missing"),
    (of_another_variant, 65, ["com_hlora_weights.bin: a plug-in for another base", "width 5120", "the base has 4 of 192",
                              "it looks like the plug-in of HealthGPT-L14"], "plugin_base"),
    (swap, 65, ["com_hlora_weights.bin: expected rank 32 for comprehension, got 64", "looks like the generation plug-in", "swapped"],
     "load"),
    (lambda root: doctor_checks.own_copy(root, "llm/model.safetensors", 3000000), 65,
     ["the header speaks of 4184256 bytes, the file has 3000000"], "truncated"),
    (lambda root: doctor_checks.own_copy(root, "com_hlora_weights.bin", 500000), 65, ["com_hlora_weights.bin"], "truncated"),
    (shards("model-00002-of-00002.safetensors"), 66,
     ["model-00002-of-00002.safetensors: missing, though the index of shards beside it names it"], "missing"),
    (other_vocabulary, 65, ["model.embed_tokens.weight: expected [900, 192], got [832, 192]"], "load"),
    (fusion_rows, 65, ["of the generation plug-in: expected 1038 rows (tokenizer + 256 image tokens), got 1000"], "load"),
    (nan_in("lm_head.weight", 0), 65, ["tensor lm_head.weight: element 0 is NaN or Inf", "damaged"], "load"),
    (nan_in("model.layers.3.mlp.down_proj.weight", 512 * 192 - 1), 65, ["layers.3.mlp.down_proj.weight: element 98303 is NaN or Inf"],
     "load"),
    (nan_in_plugin, 65, ["gen_hlora_weights.bin: tensor model.", "is NaN or Inf"], "load"),
    (surplus, 65, ["tensor model.layers.4.extra: not expected by this model (1 such)"], "load"),
    (tower_tensor, 65, ["vision_model.encoder.layers.1.mlp.fc1.bias: missing"], "tensor"),
    (lambda root: replace(root, "fusion_layer_weights.bin", LFS), 65,
     ["fusion_layer_weights.bin: a git-LFS pointer, not the file itself", "git lfs pull"], "git_lfs_pointer"),
    (lambda root: replace(root, "llm/tokenizer.model", LFS), 65, ["tokenizer.model: a git-LFS pointer"], "git_lfs_pointer"),
    (lambda root: replace(root, "com_hlora_weights.bin", b"\n<!DOCTYPE html><title>login</title>"), 65,
     ["com_hlora_weights.bin: a web page, not the file", "download it again"], "web_page"),
]


def refused_by_daemon(build, path, root):
    """Exit code and log; nothing may have been packed."""
    p = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "--listen", "127.0.0.1:0", "--ops-listen", "", "--backend", "cpu",
                        "--model", path, "--weights", root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, timeout=120)
    log = p.stderr.decode()
    require(b"listening" not in p.stdout, "it listens")
    require(" loaded: " not in log and "memory: weights" not in log, "it has packed first: " + log)
    return p.returncode, log


def check_wrong_files_have_messages_of_their_own(build):
    global BUILD
    BUILD = build
    for i, (harm, code, parts, name) in enumerate(WRONG):
        with weights() as (path, root):
            harm(root)
            got, log = refused_by_daemon(build, path, root)
            equal(got, code, "exit code of the daemon in case %d: %s" % (i, log))
            cli_code, out, err = cli(build, "ask", "--model", path, "--weights", root, *ASK)
            equal((cli_code, out), (code, ""), "exit code of ask in case %d: %s" % (i, err))
            for part in parts:
                require(part in log and part in err, "case %d: %r is not in %r and %r" % (i, part, log[-600:], err))
            report = doctor(build, "--model", path, "--weights", root)[1]
            hits = found(report, name, "fail")
            bad = [f for f in report["findings"] if f["level"] == "fail"]
            require(hits, "case %d: no finding %s of the doctor in %r" % (i, name, bad))
            require(len(bad) <= 2, "case %d: said more than once: %r" % (i, bad))
    return "%d cases" % len(WRONG)


def check_nan_between_the_samples_is_found_while_packing(build):
    """An embedding table of 78 pages, of which 16 are looked at first; the third is not one of them."""
    with weights() as (path, root):
        nan_in("model.embed_tokens.weight", 2 * 2048 + 7)(root)
        code, _, err = cli(build, "ask", "--model", path, "--weights", root, *ASK)
        require(code == 65 and "model.embed_tokens.weight: element 4103 is NaN or Inf" in err, "exit %d: %s" % (code, err))


def check_mismatches_of_the_card_warn(build):
    with weights() as (path, root):
        card(path, expect=dict(EXPECT, **{"config.json": {"hidden_size": 3072, "rope_theta": 10000}, "comprehension": {"rank": 48}}))
        lines = ["config.json: hidden_size: expected 3072 (card mine), got 192", "comprehension: rank: expected 48 (card mine), got 32"]
        with Daemon(build, "--backend", "cpu", "--model", path, "--weights", root) as d:
            for line in lines:
                require(re.search(r"warn\s+" + re.escape(line), d.log_text()), "%r is not in %s" % (line, d.log_text()[-800:]))
            require("rope_theta" not in d.log_text(), "what is equal is not said")
        code, report = doctor(build, "--model", path, "--weights", root)
        equal((code, [f["text"] for f in found(report, "expectation", "warn")]), (0, lines), "doctor")
        doc = json.loads(cli_ok(build, "inspect", "--json", path, "--weights", root))
        equal(doc["warnings"], lines, "inspect")


# ---- tasks that are not published, prompts ------------------------------------------------------------------

def comprehension_only(path, **generation):
    with open(path) as f:
        doc = json.load(f)
    doc["tasks"]["generation"] = dict({"unpublished": "no generation weights are published for Mine"}, **generation)
    with open(path, "w") as f:
        json.dump(doc, f)


def check_generation_without_weights_is_refused_with_its_reason(build):
    with weights() as (path, root):
        comprehension_only(path)
        why = "model mine has no generation: no generation weights are published for Mine"
        code, out, err = cli(build, "draw", "--model", path, "--weights", root, "--backend", "cpu", "-o", os.path.join(root, "x.png"), "Draw.")
        require(code == 69 and why in err, "exit %d: %s" % (code, err))
        for n in ("gen_hlora_weights.bin", "fusion_layer_weights.bin", "vqgan/last.ckpt"):
            os.unlink(os.path.join(root, n))
        with Daemon(build, "--backend", "cpu", "--model", path, "--weights", root) as d:
            for route, body in (("/v1/images/generations", {"prompt": "Draw."}),
                                ("/v1/chat/completions", {"modalities": ["image"], "messages": [{"role": "user", "content": "Draw."}]})):
                status, _, reply = d.post(route, body)
                require(status == 422 and why in reply["error"]["message"], "%s: %d %r" % (route, status, reply))
            status, _, data = d.request("GET", "/v1/models/mine/card")
            said = json.loads(data)
            equal((status, said["tasks"]), (200, ["comprehension"]), "card")
            equal(said["abilities"]["generation"], {"available": False, "max_new_tokens": 0, "can": None, "unpublished": why.split(": ")[1]}, "abilities")
            equal(said["abilities"]["comprehension"]["available"], True, "abilities")
        text = cli_ok(build, "inspect", path, "--weights", root)
        require("not there: no generation weights are published for Mine" in text, text)
        require("generation: not there" in " ".join(f["text"] for f in found(doctor(build, "--model", path, "--weights", root)[1], "task")),
                "doctor says it")


def check_generation_weights_are_taken_when_they_appear(build):
    with weights() as (path, root):
        comprehension_only(path, hlora="gen_hlora_weights.bin", fusion="fusion_layer_weights.bin", alpha=128, vision_layer=1,
                           max_new_tokens=66, can="Draws.")
        given = ("--model", path, "--weights", root)
        cli_ok(build, "draw", *given, "--backend", "cpu", "-o", os.path.join(root, "x.png"), "Draw a chest X-ray.")
        said = json.loads(cli_ok(build, "draw", *given, "--json", "--backend", "cpu", "-o", os.path.join(root, "x.png"), "Draw a chest."))
        equal(said["temperature"], 0.9, "temperature of a drawing from text")
        comprehension_only(path, hlora="gen_hlora_weights.bin", fusion="fusion_layer_weights.bin", alpha=128, vision_layer=1,
                           max_new_tokens=66, temperature=0.25)
        said = json.loads(cli_ok(build, "draw", *given, "--json", "--backend", "cpu", "-o", os.path.join(root, "x.png"), "Draw a chest."))
        equal(said["temperature"], 0.25, "temperature of the card")
        os.unlink(os.path.join(root, "gen_hlora_weights.bin"))
        os.unlink(os.path.join(root, "vqgan/last.ckpt"))
        code, _, err = cli(build, "draw", *given, "--backend", "cpu", "-o", os.path.join(root, "x.png"), "Draw a chest X-ray.")
        require(code == 69 and "no generation weights are published" in err, "exit %d: %s" % (code, err))
        cli_ok(build, "ask", *given, *ASK)


def check_system_prompt_of_the_configuration(build):
    """The card's own text is the default; the key replaces it; a request replaces that."""
    question = {"messages": [{"role": "user", "content": "Is there pneumonia?"}], "max_tokens": 4}
    with weights() as (path, root):
        given = ("--model", path, "--weights", root, "--backend", "cpu")

        def tokens(d, system=None):
            body = dict(question, messages=([{"role": "system", "content": system}] if system else []) + question["messages"])
            return d.post_ok("/v1/chat/completions", body)["usage"]["prompt_tokens"]
        with Daemon(build, *given) as d:
            default, own = tokens(d), tokens(d, "You are brief.")
        with Daemon(build, *given, "--system-prompt", "You are brief.") as d:
            equal((tokens(d), tokens(d, "You are a helpful AI assistant.")), (own, default), "prompt tokens")
        require(default != own, "both prompts are %d tokens long" % own)
        card(path, system="You are brief.")
        with Daemon(build, *given) as d:
            equal(tokens(d), own, "prompt tokens with the card's system")
