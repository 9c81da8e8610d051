"""Wrong models, wrong pictures, wrong texts: a clear error each, nothing leaked, the daemon goes on."""
import json
import os
import shutil
import tempfile

from harness import DEMO, Daemon, b64, cli, edit_json, equal, png, require, require_error, test_image


def broken_copy(folder, change):
    copy = os.path.join(folder, "model")
    shutil.copytree(DEMO, copy)
    change(copy)
    return copy


def truncate_shard(copy):
    path = os.path.join(copy, "llm", "model.safetensors")
    os.truncate(path, os.path.getsize(path) - 1000)


def wrong_shape(copy):
    edit_json(os.path.join(copy, "llm", "config.json"), intermediate_size=448)


def unknown_architecture(copy):
    edit_json(os.path.join(copy, "llm", "config.json"), architectures=["MambaForCausalLM"], model_type="mamba")


def empty_plugin(copy):
    open(os.path.join(copy, "com_hlora_weights.bin"), "w").close()


def no_card(copy):
    os.remove(os.path.join(copy, "healthgpt.json"))


BAD_MODELS = [
    (no_card, (66,), "healthgpt.json"),
    (truncate_shard, (65,), "model.safetensors"),
    (wrong_shape, (65,), "expected ["),
    (unknown_architecture, (65, 69), "amba"),
    (empty_plugin, (65,), "com_hlora_weights.bin"),
]


def check_bad_model_folders_are_named_by_both_programs(build):
    for change, codes, part in BAD_MODELS:
        with tempfile.TemporaryDirectory() as d:
            copy = broken_copy(d, change)
            code, out, err = cli(build, "ask", "--model", copy, "Hello?")
            require(code in codes, "%s: exit %d, %s" % (change.__name__, code, err))
            require(part in err and not out, "%s: %s" % (change.__name__, err))
            try:
                with Daemon(build, "--model", copy):
                    require(False, "the daemon started with " + change.__name__)
            except Exception as e:
                require("did not start" in str(e) and part in str(e), "%s: %s" % (change.__name__, e))
    code, _, err = cli(build, "ask", "--model", "/nonexistent", "Hello?")
    require(code == 66 and "/nonexistent" in err, "exit %d, %s" % (code, err))
    return "%d folders" % (len(BAD_MODELS) + 1)


LONG = "pneumonia " * 10000

# name, image bytes or None, question, status, code, CLI exit codes
BAD_INPUTS = [
    ("empty question", None, "", 400, None, 64),
    ("0-byte image", b"", "What?", 400, "invalid_image", 65),
    ("20000x20000 PNG", png(20000, 20000), "What?", 413, "too_large", 65),
    ("9000x1 PNG", png(9000, 1), "What?", 413, "too_large", 65),
    ("text file as image", b"This is no picture.\n" * 20, "What?", 400, "invalid_image", 65),
    ("truncated PNG", test_image()[:300], "What?", 400, "invalid_image", 65),
    ("damaged PNG", test_image()[:-40] + bytes(40), "What?", 400, "invalid_image", 65),
    ("GIF", b"GIF89a" + bytes(100), "What?", 400, "invalid_image", 65),
    ("10,000-token question", None, LONG, 413, "too_large", 65),
]


def check_bad_requests_are_refused_and_the_daemon_goes_on(build):
    question = {"question": "What is shown?", "image": b64(test_image()), "max_tokens": 4}
    with Daemon(build) as d:
        before = d.post_ok("/v1/vqa", question)["text"]
        for name, image, text, status, code, _ in BAD_INPUTS:
            for path, key in (("/v1/vqa", "question"), ("/v1/draw", "prompt")):
                body = {key: text}
                parts = [(key, text)]
                if image is not None:
                    body["image"] = b64(image)
                    parts.append(("image", image, "x.png"))
                got, _, reply = d.post(path, body)
                require_error(got, reply, status, code)
                got, _, reply = d.form(path, parts)
                require_error(got, reply, status, code)
            equal(d.post_ok("/v1/vqa", question)["text"], before, "the answer after: " + name)
        h = d.wait_idle()
        equal(h["requests"]["failed"], 0, "nothing reached the engine")
    return "%d inputs x 2 routes x 2 body types" % len(BAD_INPUTS)


def check_bad_requests_have_exit_codes(build):
    with tempfile.TemporaryDirectory() as d:
        for name, image, text, _, _, exit_code in BAD_INPUTS:
            args = ["ask", text]
            if image is not None:
                path = os.path.join(d, "bad.png")
                with open(path, "wb") as f:
                    f.write(image)
                args += ["--image", path]
            code, out, err = cli(build, *args)
            equal(code, exit_code, "%s: %s" % (name, err))
            require(err.startswith("healthgpt ask: ") and not out, "%s: %r" % (name, err))
        code, _, err = cli(build, "ask", "What?", "--image", os.path.join(d, "absent.png"))
        equal(code, 66, err)


def check_special_tokens_in_user_text_are_plain_text(build):
    def tokens(text):
        code, out, err = cli(build, "ask", text, "--json", "--max-tokens", "1")
        equal(code, 0, err)
        return json.loads(out)["usage"]["prompt_tokens"]

    base = tokens("a")
    for special in ("<|end|>", "<|user|>", "<|endoftext|>", "<image>", "<s>"):
        require(tokens("a" + special) > base + 1, special + " became one token")


def check_daemon_options_are_checked(build):
    for args, part in ((["--bogus"], "--bogus"), (["--bogus", "x"], "unknown option --bogus"),
                       (["--insecure=no"], "expected true, false, 1 or 0"), (["--check-config=x"], "takes no value"), (["--max-queue", "0"], "--max-queue: expected a whole number in 1..65536"),
                       (["--listen"], "expected a value"), (["--listen", "192.0.2.1:0", "--insecure"], "192.0.2.1"),
                       (["--listen", "nowhere"], "listen"), (["--listen", "0.0.0.0:0"], "--insecure"),
                       (["--config", "/nonexistent.json"], "/nonexistent.json"),
                       (["--backend", "abacus"], "abacus"), (["--dtype", "f7"], "f7")):
        try:
            with Daemon(build, *args):
                require(False, "the daemon started with %r" % args)
        except Exception as e:
            require("did not start" in str(e) and part in str(e), "%r: %s" % (args, e))
