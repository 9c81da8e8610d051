"""model.lock and the cache of quantised weights under the demo model, through the programs."""
import concurrent.futures
import glob
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile

from harness import DEMO, Daemon, Fail, cli, cli_ok, equal, require

ASK = ("ask", "--image", "tests/data/demo/chest_right.png", "Describe the image.", "--json", "--verbose")
# Of every container: safetensors, torch zip (plug-in, fusion), Lightning checkpoint.
FILES = ("llm/model.safetensors", "vision/model.safetensors", "com_hlora_weights.bin", "gen_hlora_weights.bin",
         "fusion_layer_weights.bin", "vqgan/last.ckpt")


class Copy:
    """The demo model in a folder of its own."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="hg_lock_")
        self.model = os.path.join(self.dir, "demo")
        shutil.copytree(DEMO, self.model)
        return self

    def __exit__(self, *what):
        shutil.rmtree(self.dir)

    def path(self, *names):
        return os.path.join(self.model, *names)


def ask(build, model, *args):
    code, out, err = cli(build, *ASK, "--backend", "cpu", "--model", model, *args)
    equal(code, 0, err)
    reply = json.loads(out.splitlines()[-1])
    return (reply["text"], reply.get("ids")), err


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


def check_a_lock_is_written_verified_and_the_same_twice(build):
    with Copy() as c:
        cli_ok(build, "inspect", "--lock", c.model)
        first = open(c.path("model.lock"), "rb").read()
        cli_ok(build, "inspect", "--lock", c.model)
        require(first == open(c.path("model.lock"), "rb").read(), "two locks of the same files differ")
        _, err = ask(build, c.model)
        found = re.search(r"model.lock holds: (\d+) of (\d+) tensors verified", err)
        require(found and 400 <= int(found.group(1)) <= int(found.group(2)), err)  # the last layer of the tower is not used
        info = json.loads(cli_ok(build, "inspect", c.model, "--json"))
        equal((info["lock"]["state"], info["missing"]), ("holds", []), "inspect")
        info = json.loads(cli_ok(build, "inspect", "--checksums", c.model, "--json"))
        equal((info["lock"]["state"], info["lock"]["compared"]), ("holds", "contents"), "inspect --checksums")
        return "%s of %s tensors verified, %d bytes" % (found.group(1), found.group(2), len(first))


def check_a_changed_byte_refuses_the_load_by_name(build):
    with Copy() as c:
        cli_ok(build, "inspect", "--lock", c.model)
        for name in FILES:
            at = os.path.getsize(c.path(name)) // 2  # in some tensor
            flip(c.path(name), at)
            code, _, err = cli(build, *ASK, "--backend", "cpu", "--model", c.model)
            require(code == 65 and re.search(r"tensor \S+: model.lock says crc32c \w{8}, the file has \w{8}", err),
                    "%s: %s" % (name, err))
            code, out, _ = cli(build, "inspect", "--checksums", "--json", c.model)
            equal((code, json.loads(out)["lock"]["state"]), (65, "broken"), name)
            code, _, err = cli(build, *ASK, "--backend", "cpu", "--model", c.model, "--lock", "off")
            equal(code, 0, err)
            flip(c.path(name), at)
        flip(c.path("llm/tokenizer_config.json"), 10)
        code, _, err = cli(build, *ASK, "--backend", "cpu", "--model", c.model)
        require(code == 65 and "tokenizer_config.json" in err, err)
    return "%d files" % (len(FILES) + 1)


def check_missing_added_and_foreign_files_are_named(build):
    with Copy() as c:
        code, _, err = cli(build, *ASK, "--model", c.model, "--lock", "require")
        require(code == 66 and "model.lock" in err, err)
        cli_ok(build, "inspect", "--lock", c.model)
        open(c.path("llm/vocab.json"), "w").write("{}")
        code, _, err = cli(build, *ASK, "--model", c.model)
        require(code == 65 and "llm/vocab.json: not in model.lock" in err, err)
        os.remove(c.path("llm/vocab.json"))
        os.rename(c.path("llm/added_tokens.json"), c.path("llm/away"))
        code, _, err = cli(build, *ASK, "--model", c.model)
        require(code == 65 and "llm/added_tokens.json: in model.lock, but not here" in err, err)
        os.rename(c.path("llm/away"), c.path("llm/added_tokens.json"))
        lock = json.load(open(c.path("model.lock")))
        lock["files"][0]["size"] += 1
        json.dump(lock, open(c.path("model.lock"), "w"))
        code, _, err = cli(build, *ASK, "--model", c.model)
        require(code == 65 and re.search(r"llm/model.safetensors: model.lock says \d+ bytes, the file has", err), err)
        try:
            with Daemon(build, "--model", c.model):
                raise AssertionError("the daemon has started")
        except Fail as e:
            require("model.lock says" in str(e), str(e))


def check_quantised_cache_gives_the_same_answer(build):
    with Copy() as c:
        cache, notes = os.path.join(c.dir, "q"), []
        for dtype in ("int8", "int4", "fp8"):
            plain, _ = ask(build, c.model, "--dtype", dtype)
            first, err = ask(build, c.model, "--dtype", dtype, "--quant-cache", cache)
            require("quant cache: wrote" in err, err)
            second, err = ask(build, c.model, "--dtype", dtype, "--quant-cache", cache)
            require("quant cache: read and checked" in err, err)
            equal((first, second), (plain, plain), dtype)
        equal(len(os.listdir(cache)), 3, "one file for each type")
        for backend in ("ref", "simt"):
            if backend == "simt" and not os.path.exists(os.path.join(build, "libhealthgpt_simt.so")):
                continue
            args = ("ask", "Who are you?", "--max-tokens", "4", "--json", "--backend", backend, "--model", c.model,
                    "--dtype", "int8")
            plain = json.loads(cli_ok(build, *args).splitlines()[-1])["text"]
            equal(json.loads(cli_ok(build, *args, "--quant-cache", cache).splitlines()[-1])["text"], plain, backend)
            notes.append(backend)
        return "cpu, " + ", ".join(notes)


def check_quantised_cache_that_is_damaged_stale_or_cannot_be_written(build):
    with Copy() as c:
        cache = os.path.join(c.dir, "q")
        args = ("--dtype", "int8", "--quant-cache", cache)
        plain, _ = ask(build, c.model, *args)
        path, = glob.glob(os.path.join(cache, "*"))
        for at, word in ((os.path.getsize(path) // 2, "removed; the rest is loaded from the sources"),
                         (300, "written anew")):
            flip(path, at)
            again, err = ask(build, c.model, *args)
            equal(again, plain, err)
            require(word in err, err)
            again, err = ask(build, c.model, *args)
            equal(again, plain, err)
        os.truncate(path, os.path.getsize(path) - 100)
        again, err = ask(build, c.model, *args)
        require(again == plain and "written anew" in err, err)
        os.utime(c.path("llm/model.safetensors"), (1000, 1000))
        again, err = ask(build, c.model, *args)
        require(again == plain and "stale" in err, err)
        again, err = ask(build, c.model, "--dtype", "int8", "--quant-cache", os.path.join(c.model, "healthgpt.json"))
        require(again == plain and "this load does without" in err, err)


def check_quantised_cache_on_a_full_disk(build):
    """A limit on the size of files stands for the disk: the write fails, the answer comes."""
    with Copy() as c:
        cache = os.path.join(c.dir, "q")

        def small():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))

        p = subprocess.run([os.path.join(build, "healthgpt"), "ask", "Who are you?", "--json", "--verbose", "--backend", "cpu",
                            "--model", c.model, "--dtype", "int8", "--quant-cache", cache], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, preexec_fn=small, timeout=300)
        err = p.stderr.decode("utf-8", "replace")
        equal(p.returncode, 0, err)
        require("this load does without" in err or "not written" in err, err)
        equal(os.listdir(cache), [], "what is left of the file")


def check_two_daemons_that_write_the_cache_at_once(build):
    with Copy() as c:
        cache = os.path.join(c.dir, "q")
        args = ("--model", c.model, "--dtype", "int8", "--backend", "cpu", "--quant-cache", cache, "--lock", "auto")

        def serve(_):
            with Daemon(build, *args) as d:
                return d.post_ok("/v1/vqa", {"question": "Who are you?", "seed": 1})["text"], d.log_text()

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            got = list(pool.map(serve, range(3)))
        equal(len({text for text, _ in got}), 1, "answers")
        equal([os.path.splitext(n)[1] for n in os.listdir(cache)], [".safetensors"], "files")
        with Daemon(build, *args) as d:
            equal(d.post_ok("/v1/vqa", {"question": "Who are you?", "seed": 1})["text"], got[0][0], "from the cache")
            require("quant cache: read and checked" in d.log_text(), d.log_text())
        return "%d of 3 wrote" % sum("quant cache: wrote" in log for _, log in got)
