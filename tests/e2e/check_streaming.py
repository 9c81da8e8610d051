"""The contract of docs/streaming.md and the commands of README.md, held against the daemon."""
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile

from harness import ROOT, Daemon, Skip, b64, equal, png, png_texts, require, require_error, require_synthetic, test_image

ASK, DRAW = "/v1/vqa", "/v1/draw"
TYPES = {"string": str, "integer": int, "number": (int, float), "object": dict, "array": list, "boolean": bool}
LAST = ("done", "error")


def contract():
    """{event: {field: (type, always)}} of the tables."""
    events = {}
    with open(os.path.join(ROOT, "docs", "streaming.md")) as f:
        for line in f:
            cells = [c.strip() for c in line.split("|")[1:-1]]
            if len(cells) == 5 and re.fullmatch(r"`\w+`", cells[0]):
                events.setdefault(cells[0].strip("`"), {})[cells[1].strip("`")] = (cells[2], cells[3] == "always")
    require(len(events) == 9, "events of the page: %r" % sorted(events))
    return events


def hold(fields, value, what, prefix=""):
    """Every field of the page that is always there, of its type; and no other."""
    own = {k[len(prefix):]: v for k, v in fields.items() if k.startswith(prefix) and "[]." not in k[len(prefix):]}
    for name, (kind, always) in own.items():
        require(name in value or not always, "%s: no %s: %r" % (what, name, str(value)[:200]))
        if name in value:
            right = isinstance(value[name], TYPES[kind]) and (kind == "boolean") == isinstance(value[name], bool)
            require(right, "%s: %s is no %s: %r" % (what, name, kind, value[name]))
        for element in value.get(name, []) if name + "[]." in "".join(fields) else []:
            hold(fields, element, "%s.%s" % (what, name), prefix + name + "[].")
    require(set(value) <= set(own) | {"type"}, "%s: not on the page: %r" % (what, set(value) - set(own)))


def hold_lines(page, lines):
    """Fields, types and order of one stream."""
    kinds = [line["type"] for line in lines]
    for line in lines:
        require(line["type"] in page, "event %r is not on the page" % line["type"])
        hold(page[line["type"]], line, line["type"])
        for t in line.get("image_transform", []):
            hold(page["image_transform"], t, "image_transform")
    equal(kinds[0], "queued", "first line")
    require(kinds[-1] in LAST and sum(k in LAST + ("queued",) for k in kinds) == 2, "lines %r" % kinds)
    order = {"prefill": 0, "token": 1, "progress": 1, "preview": 1, "image": 2}
    ranks = [order[k] for k in kinds[1:-1]]
    equal(ranks, sorted(ranks), "order of %r" % kinds)
    for kind in ("prefill", "progress"):
        done = [line["done"] for line in lines if line["type"] == kind]
        require(all(a < b for a, b in zip(done, done[1:])), "%s goes up: %r" % (kind, done))
    first = next((line for line in lines if line["type"] == "prefill"), None)
    if kinds[-1] == "done":
        prefills = [line for line in lines if line["type"] == "prefill"]
        equal(first["done"], first["cached"], "the first prefill")
        equal(prefills[-1]["done"], prefills[-1]["total"], "the last prefill")
        equal(prefills[-1]["total"], lines[-1]["usage"]["prompt_tokens"], "prompt tokens")
        equal(first["cached"], lines[-1]["usage"]["prompt_tokens_details"]["cached_tokens"], "cached tokens")
        equal(lines[0]["prompt_tokens"], prefills[-1]["total"], "prompt tokens of queued")
        equal("image" in kinds, lines[-1].get("synthetic", False), "a picture is synthetic")
    if kinds[-1] == "done" and "image" in kinds:
        progress = [line for line in lines if line["type"] == "progress"]
        equal(progress[-1]["done"], progress[-1]["total"], "the last progress")
    return kinds


def check_every_line_is_as_the_page_says(build):
    page, seen = contract(), set()
    picture = b64(test_image())
    asked = [(ASK, {"question": "Hello?"}),
             (ASK, {"question": "What is shown?", "image": picture, "max_tokens": 6, "top_logprobs": 3}),
             (ASK, {"question": "And what else is shown?", "images": [picture, b64(test_image(5))], "max_tokens": 3}),
             (DRAW, {"prompt": "Draw a chest X-ray.", "seed": 4, "previews": 2}),
             (DRAW, {"prompt": "Reconstruct the image.", "image": picture})]
    with Daemon(build) as d:
        for path, body in asked:
            lines, _ = d.stream(path, body)
            seen |= set(hold_lines(page, lines))
            equal(lines[-1]["type"], "done", "last line of %r" % body)
            equal(len(lines[-1]["image_transform"]), len(body.get("images", [1] * ("image" in body))), "transforms")
    with Daemon(build, "--backend", "ref") as d:  # slow on any machine
        lines, _ = d.stream(DRAW, {"prompt": "Draw a chest X-ray.", "timeout_ms": 1})
        seen |= set(hold_lines(page, lines))
        error = require_error(504, lines[-1], 504, "deadline_exceeded")
        require("within 1 ms" in error["message"], error)
    equal(seen, set(page) - {"image_transform"}, "events that came")


def check_plain_answers_have_the_facts_of_done(build):
    image = test_image(3)
    cases = [(ASK, {"question": "What is shown?", "max_tokens": 5}, True), (ASK, {"question": "Hello?"}, False),
             (DRAW, {"prompt": "Draw a chest X-ray.", "seed": 9, "temperature": 0.9}, False),
             (DRAW, {"prompt": "Reconstruct the image."}, True)]
    own = {"id", "timings", "usage", "type", "image_transform"}
    with Daemon(build, "--forget") as d:
        for path, body, has_image in cases:
            plain = d.post_ok(path, dict(body, **({"image": b64(image)} if has_image else {})))
            lines, _ = d.stream(path, dict(body, **({"image": b64(image)} if has_image else {})))
            parts = [(k, str(v)) for k, v in body.items()] + ([("image", image, "x.png")] if has_image else [])
            status, _, form = d.form(path, parts)
            equal(status, 200, form)
            done = lines[-1]
            for answer in (plain, form):
                extra = {"created"} | ({"text"} if path == ASK else {"image"})
                equal(set(answer), (set(done) - {"type"}) | extra, "fields")
                for key in set(done) - own:
                    equal(answer[key], done[key], key)
                for key in ("usage", "image_transform"):
                    equal(answer[key], done[key], key)
                equal(set(answer["timings"]), set(done["timings"]), "timings")
                if path == ASK:
                    equal(answer["text"], "".join(l["text"] for l in lines if l["type"] == "token"), "text")
                else:
                    equal(answer["image"], {k: v for k, v in lines[-2].items() if k != "type"}, "image")
                    require_synthetic(base64.b64decode(answer["image"]["b64_json"], validate=True))
        images = d.post_ok("/v1/images/generations", {"prompt": "Draw a chest X-ray.", "seed": 9})
        draw = d.post_ok(DRAW, cases[2][1])
        equal(images["data"][0]["b64_json"], draw["image"]["b64_json"], "the two routes")
        status, _, reply = d.post(DRAW, {"question": "Hello?"})
        require_error(status, reply, 400, "unknown_parameter", "question")
        status, _, reply = d.post(DRAW, {})
        require_error(status, reply, 400, "missing_text", "prompt")


def check_answers_say_how_pictures_were_laid_out(build):
    sizes = [(100, 50), (33, 64), (1, 1), (64, 64)]
    want = [{"left": 0, "top": 25, "right": 0, "bottom": 25}, {"left": 15, "top": 0, "right": 16, "bottom": 0},
            dict.fromkeys(("left", "top", "right", "bottom"), 0), dict.fromkeys(("left", "top", "right", "bottom"), 0)]
    with Daemon(build) as d:
        reply = d.post_ok(ASK, {"question": "What is shown?", "max_tokens": 1,
                                "images": [b64(png(w, h, bytes(3 * w * h))) for w, h in sizes]})
        got = reply["image_transform"]
        equal([(t["width"], t["height"]) for t in got], sizes, "sizes")
        equal([t["pad"] for t in got], want, "padding")
        for t, (w, h) in zip(got, sizes):
            require(abs(t["scale"] - 64 / max(w, h)) < 1e-8, "scale: %r" % t)
            equal((t["side"], t["resample"], t["pad_rgb"]), (64, "bicubic", [122, 116, 104]), "facts")
        equal(d.post_ok(ASK, {"question": "Hello?", "max_tokens": 1})["image_transform"], [], "without a picture")


def check_a_second_question_says_what_was_found(build):
    ask = {"image": b64(test_image(2)), "max_tokens": 2}
    with Daemon(build) as d:
        first, _ = d.stream(ASK, dict(ask, question="Is there consolidation in the left lung?"))
        second, _ = d.stream(ASK, dict(ask, question="Is there consolidation in the right lung, and what else?"))
        equal(first[1], {"type": "prefill", "done": 0, "total": first[0]["prompt_tokens"], "cached": 0}, "the first")
        require(second[1]["type"] == "prefill" and second[1]["cached"] >= 64, "the second: %r" % second[1])
        equal(second[1]["done"], second[1]["cached"], "done at the beginning")
    return "%d of %d found" % (second[1]["cached"], second[1]["total"])


# ---- README.md -----------------------------------------------------------------------------------------

def readme_commands():
    """[(command, lines shown below it)] of the section on serving."""
    with open(os.path.join(ROOT, "README.md")) as f:
        section = f.read().split("## Serve it")[1].split("\n## ")[0]
    found = []
    for line in section.split("\n"):
        if line.startswith("    curl "):
            found.append((line.strip(), []))
        elif line.startswith("    ") and found:
            found[-1][1].append(line.strip())
    return found


def shown_keys(line):
    return re.findall(r'"(\w+)":', line)


def all_keys(value):
    """Of an object and of what is in it."""
    if isinstance(value, list):
        return {key for v in value for key in all_keys(v)}
    return set(value) | all_keys(list(value.values())) if isinstance(value, dict) else set()


def objects(text):
    """Of an answer: one, one on each line, or those of the events of a stream."""
    if text.startswith(": ok\n"):
        return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    return [json.loads(line) for line in text.strip().split("\n")]


def check_the_commands_of_the_readme(build):
    if not shutil.which("curl"):
        raise Skip("curl is not here")
    commands = readme_commands()
    require(len(commands) >= 5, "commands: %r" % commands)
    n_shown = 0
    with Daemon(build) as d, tempfile.TemporaryDirectory() as folder:
        for command, shown in commands:
            require("http://127.0.0.1:8080/v1/" in command, command)
            p = subprocess.run(["sh", "-e", "-c", command.replace("127.0.0.1:8080", "127.0.0.1:%d" % d.port)],
                               cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
            equal((p.returncode, p.stderr), (0, b""), command)
            if command.endswith("> x.png"):
                with open(os.path.join(folder, "x.png"), "rb") as f:
                    png_texts(f.read())
                continue
            lines = objects(p.stdout.decode())
            require(all("error" not in line for line in lines), "%s: %r" % (command, lines))
            if "stream=true" in command:
                hold_lines(contract(), lines)
            at = 0
            for line in shown:  # each stands for one that comes, in this order, with these fields
                if line == "...":
                    continue
                kind = re.search(r'"type":"(\w+)"', line)
                while at < len(lines) and (lines[at].get("type") != (kind and kind.group(1)) or
                                           not set(shown_keys(line)) <= all_keys(lines[at])):
                    at += 1
                require(at < len(lines), "%s: no such line: %s" % (command, line))
                for text in re.findall(r'"text":"([^"]*)"', line):
                    equal(lines[at]["text"], text, command)
                at += 1
                n_shown += 1
    return "%d commands, %d lines shown" % (len(commands), n_shown)
