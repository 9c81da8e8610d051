"""Every file of examples/ is run against a daemon with keys, or its settings are replayed as the client would send them."""
import base64
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

from check_browser import Page
from check_daemon import ASK, DRAW, open_stream
from check_faults import Faulty
from check_keys import KeyFile, auth, entry
from check_openai import python_with
from harness import ROOT, Daemon, Skip, b64, equal, png_rows, require, require_error, require_synthetic, test_image

EXAMPLES = os.path.join(ROOT, "examples")
QUESTION = "What is shown in this image?"
# What is run or replayed here; a file that is not in this list fails check_every_example_is_run.
RUN = {"README.md", "curl.sh", "openai-python/chat.py", "openai-python/stream.py", "openai-python/image.py", "openai-python/edit.py",
       "javascript/ask.mjs", "javascript/draw.mjs", "open-webui.md", "librechat.md"}
HOST = "http://healthgpt.example:8080"


def text_of(name):
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as f:
        return f.read()


def check_every_example_is_run(build):
    found = {os.path.relpath(p, EXAMPLES) for p in glob.glob(EXAMPLES + "/**", recursive=True) if os.path.isfile(p)}
    equal({p for p in found if "__pycache__" not in p}, RUN, "files of examples/")
    for name in RUN - {"README.md"}:
        require(name in text_of("README.md"), "examples/README.md does not name " + name)


class Example:
    """A daemon with keys, a folder with a picture, and programs that are run there."""

    def __init__(self, build):
        self.folder = tempfile.TemporaryDirectory()
        self.keys = KeyFile(entry("a"))
        self.daemon = Daemon(build, "--api-keys", self.keys.path)
        reply = self.post("/v1/draw", {"prompt": "Draw a chest X-ray with pneumonia.", "seed": 3})
        with open(self.path("x.png"), "wb") as f:
            f.write(base64.b64decode(reply["image"]["b64_json"]))

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.daemon.__exit__(*why)
        self.keys.__exit__(*why)
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def post(self, path, value):
        status, _, data = self.daemon.request("POST", path, json.dumps(value), auth("a"))
        equal(status, 200, data[:300])
        return json.loads(data)

    def run(self, *command, key="key-of-a", ok=True):
        env = dict(os.environ, HEALTHGPT_URL="http://127.0.0.1:%d" % self.daemon.port, HEALTHGPT_API_KEY=key)
        p = subprocess.run(command, cwd=self.folder.name, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        if ok:
            equal(p.returncode, 0, "%s: %s" % (command, p.stderr.decode("utf-8", "replace")[-600:]))
        return p.stdout.decode(), p.stderr.decode("utf-8", "replace"), p.returncode


def check_curl_sh(build):
    if not shutil.which("curl"):
        raise Skip("curl is not here")
    with Example(build) as e:
        out, err, _ = e.run("sh", os.path.join(EXAMPLES, "curl.sh"))
        equal(err, "", "stderr")
        parts = dict(p.split("\n", 1) for p in out.split("== ")[1:])
        require(len(parts) == 8, "parts: %r" % list(parts))
        equal(parts["models"], "healthgpt-demo\n", "models")
        answer = e.post(ASK, {"image": b64(e.read("xray.png")), "question": QUESTION})["text"]
        equal(parts["OpenAI's chat, with the image as a data URI"], answer + "\n", "the chat's answer")
        require('"type":"done"' in parts["the same, streamed as lines of JSON"], "lines")
        require("data: [DONE]" in parts["the same as server-sent events, without an image"], "events")
        for name in ("xray.png", "drawn.png", "edited.png"):
            require_synthetic(e.read(name))
        _, err, code = e.run("sh", os.path.join(EXAMPLES, "curl.sh"), key="wrong", ok=False)
        require(code != 0 and "401" in err, "a wrong key: %d, %r" % (code, err))
        return "%d parts" % len(parts)


def check_openai_python(build):
    python = python_with("openai")
    with Example(build) as e:
        def script(name, *args):
            return e.run(python, os.path.join(EXAMPLES, "openai-python", name), *args)[0]
        answer = e.post(ASK, {"image": b64(e.read("x.png")), "question": QUESTION})["text"]
        equal(script("chat.py", "x.png", QUESTION, "Is there evidence of pneumonia?").split("\n")[0], answer, "chat.py")
        lines = script("stream.py", "x.png", QUESTION).split("\n")
        equal(lines[0], answer, "stream.py")
        require(re.fullmatch(r"\d+ tokens", lines[1]), "counts: %r" % lines)
        names = [line.split("  ")[0] for line in script("image.py", "Draw a chest X-ray.", "out.png").strip().split("\n")]
        equal(names, ["out.png.0.png", "out.png.1.png", "out.png.2.png", "out.png"], "image.py")
        for name in names:
            require_synthetic(e.read(name), seed=7)
        require(len({bytes().join(png_rows(e.read(name))) for name in names}) == 4, "four different pictures")
        script("edit.py", "x.png", "Reconstruct the image.", "edited.png")
        require_synthetic(e.read("edited.png"))


def check_javascript_in_node(build):
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], stdout=subprocess.PIPE).stdout.decode() if node else ""
    if not node or int(re.match(r"v(\d+)", version).group(1)) < 18:
        raise Skip("node 18 or later is not here")
    with Example(build) as e:
        out, _, _ = e.run(node, os.path.join(EXAMPLES, "javascript", "ask.mjs"), "x.png", QUESTION)
        equal(out, e.post(ASK, {"image": b64(e.read("x.png")), "question": QUESTION})["text"] + "\n", "ask.mjs")
        out, _, _ = e.run(node, os.path.join(EXAMPLES, "javascript", "draw.mjs"), "Draw a chest X-ray.", "out.png")
        require("64 of 64 tokens" in out and "preview 1" in out, "draw.mjs: %r" % out)
        said = require_synthetic(e.read("out.png"))
        require("seed %d" % said["seed"] in out, "seed %d: %r" % (said["seed"], out))
        _, err, code = e.run(node, os.path.join(EXAMPLES, "javascript", "ask.mjs"), "x.png", QUESTION, key="wrong", ok=False)
        require(code != 0 and "API key" in err, "a wrong key: %r" % err[-300:])
        return version.strip()


def check_javascript_in_the_browser(build):
    with Page(build) as page:
        seen = page.drive("modules", modules=os.path.join(EXAMPLES, "javascript"), question="Who are you?", prompt="Draw a chest X-ray.")
        equal("".join(seen["pieces"]), seen["answer"], "the pieces of the answer")
        require(len(seen["pieces"]) >= 2 and seen["previews"] >= 1 and seen["size"] > 500, "seen: %r" % seen)
        bars = [p["done"] for p in seen["progress"]]
        require(bars == sorted(bars) and bars[-1] == 64, "progress: %r" % bars)


# ---- clients that are not here: what they send, with the settings of the pages ---------------------------------------

def settings(name, pattern):
    """The assignments of the indented lines of a page: {name: value}."""
    found = dict(re.findall(pattern, text_of(name), re.M))
    require(found, "no settings on " + name)
    return found


class Client:
    """Requests to a base URL of a page, which stands for the daemon's own."""

    def __init__(self, daemon, base, key, **headers):
        require(base.startswith(HOST), "base URL of the page: " + base)
        self.daemon, self.prefix = daemon, base[len(HOST):]
        self.headers = dict(headers, Authorization="Bearer " + key)

    def get(self, path, timeout):
        status, _, data = self.daemon.request("GET", self.prefix + path, headers=self.headers, timeout=timeout)
        equal(status, 200, data[:200])
        return json.loads(data)

    def post(self, path, value, timeout=120):
        body = json.dumps(value)
        return self.daemon.request("POST", self.prefix + path, body, dict(self.headers, **{"Content-Type": "application/json"}),
                                   timeout=timeout)

    def chat(self, value):
        status, headers, data = self.post("/chat/completions", value)
        equal(status, 200, data[:300])
        if not value.get("stream"):
            return json.loads(data)["choices"][0]["message"]["content"]
        require(headers["Content-Type"].startswith("text/event-stream"), headers)
        events = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
        equal(events[-1], "[DONE]", "the last event")
        chunks = [json.loads(e) for e in events[:-1]]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])

    def edit(self, fields, files):
        """Multipart as aiohttp and form-data write it."""
        boundary = "b2f7a1c0"
        body = b""
        for name, value in fields:
            body += ('--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, name, value)).encode()
        for name, data in files:
            body += ('--%s\r\nContent-Disposition: form-data; name="%s"; filename="0f.png"\r\nContent-Type: image/png\r\n\r\n' % (
                boundary, name)).encode() + data + b"\r\n"
        body += ("--%s--\r\n" % boundary).encode()
        kind = {"Content-Type": "multipart/form-data; boundary=" + boundary}
        status, _, data = self.daemon.request("POST", self.prefix + "/images/edits", body, dict(self.headers, **kind))
        equal(status, 200, data[:300])
        return json.loads(data)["data"]


def looked_at(image):
    return [{"role": "user", "content": [{"type": "text", "text": QUESTION},
                                         {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64(image)}}]}]


def check_openwebui_three_calls(build):
    """Verify and list, chats (and the chats about chats), images and edits: routers/openai.py and images.py of Open WebUI."""
    s = settings("open-webui.md", r"^    ([A-Z_]+)=(\S+)$")
    who = {"X-OpenWebUI-User-Name": "Jane%20Public", "X-OpenWebUI-User-Id": "7", "X-OpenWebUI-User-Email": "j@clinic.example",
           "X-OpenWebUI-User-Role": "user", "X-OpenWebUI-Chat-Id": "c"}
    with Daemon(build, "--allowed-hosts", "healthgpt.example") as d:
        who["Host"] = "healthgpt.example:8080"
        chat = Client(d, s["OPENAI_API_BASE_URL"], s["OPENAI_API_KEY"], **who)
        names = [m["id"] for m in chat.get("/models", timeout=10)["data"]]
        require({s["IMAGE_GENERATION_MODEL"], s["IMAGE_EDIT_MODEL"]} <= set(names), "models: %r" % names)
        named = re.search(r"`([\w-]+:comprehension)` for chats", text_of("open-webui.md").replace("\n   ", " ")).group(1)
        require(named in names, "the model for chats: " + named)
        messages = looked_at(test_image())
        ask = {"model": named, "messages": messages, "stream": True, "max_tokens": 12, "stream_options": {"include_usage": True}}
        answer = chat.chat(ask)
        require(answer, "an answer")
        title = {"model": named, "stream": False, "max_completion_tokens": 20,
                 "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title of this chat as JSON."}]}
        chat.chat(title)
        more = messages + [{"role": "assistant", "content": answer}] + looked_at(test_image(2))
        require(chat.chat(dict(ask, messages=more)), "a second turn with a second image")

        many = [m for i in range(5) for m in looked_at(test_image(i)) + [{"role": "assistant", "content": "Yes"}]]
        status, _, reply = chat.post("/chat/completions", dict(ask, messages=many[:-1]))
        require_error(status, json.loads(reply), 400, "too_many_images")
        far = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://clinic.example/x.png"}}]}]
        status, _, reply = chat.post("/chat/completions", dict(ask, messages=far))
        require_error(status, json.loads(reply), 400, "remote_url_disabled")

        draw = Client(d, s["IMAGES_OPENAI_API_BASE_URL"], s["IMAGES_OPENAI_API_KEY"], **who)
        for size in ({"size": s["IMAGE_SIZE"]}, {"size": "512x512"}, {}):
            body = {"model": s["IMAGE_GENERATION_MODEL"], "prompt": "Draw a chest X-ray.", "n": 1, "response_format": "b64_json"}
            status, _, data = draw.post("/images/generations", dict(body, **size))
            equal(status, 200, data[:300])
            require_synthetic(base64.b64decode(json.loads(data)["data"][0]["b64_json"]))
        edit = Client(d, s["IMAGES_EDIT_OPENAI_API_BASE_URL"], s["IMAGES_EDIT_OPENAI_API_KEY"], **who)
        fields = [("model", s["IMAGE_EDIT_MODEL"]), ("prompt", "Reconstruct the image."), ("n", "1"), ("response_format", "b64_json")]
        for files in ([("image", test_image())], [("image[]", test_image()), ("image[]", test_image(2))]):
            require_synthetic(base64.b64decode(edit.edit(fields, files)[0]["b64_json"]))
        log = d.log_text()
        require("Jane" not in log and "clinic.example" not in log, "who asked is in the log: " + log[-300:])


def check_librechat_models_5s(build):
    """Full batches of slow work do not keep the list of models from coming; then LibreChat's chats, images and edits."""
    page = text_of("librechat.md")
    base = re.search(r'baseURL: "(\S+)"', page).group(1)
    key = re.search(r'apiKey: "(\w+)"', page).group(1)
    default = json.loads(re.search(r"default: (\[.+\])", page).group(1))
    env = settings("librechat.md", r"^    ([A-Z_]+)=(\S+)$")
    with Faulty(build, "slow_step:ms=100,count=0", "--max-batch", "2", "--max-queue", "8") as d:
        busy = [open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": i})[0] for i in range(7)]
        require(d.health()["queue"]["depth"] >= 4, "the queue is not full")
        client = Client(d, base, key)
        start = time.monotonic()
        names = [m["id"] for m in client.get("/models", timeout=5)["data"]]
        took = time.monotonic() - start
        require(set(default) <= set(names), "models: %r" % names)
        for s in busy:
            s.close()
    with Daemon(build) as d:
        client = Client(d, base, key)
        chat = {"model": default[0], "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "user": "64ff",
                "stream": True, "messages": looked_at(test_image())}
        require(client.chat(chat), "an answer")
        status, _, reply = client.post("/chat/completions", dict(chat, tools=[{"type": "function", "function": {"name": "f"}}]))
        require_error(status, json.loads(reply), 400, param="tools")
        draw = Client(d, env["IMAGE_GEN_OAI_BASEURL"], env["IMAGE_GEN_OAI_API_KEY"])
        status, _, data = draw.post("/images/generations", {
            "model": env["IMAGE_GEN_OAI_MODEL"], "prompt": "Draw a chest X-ray.", "n": 1, "background": "auto", "quality": "auto",
            "response_format": "b64_json", "output_format": "png", "size": "auto"})
        equal(status, 200, data[:300])
        require_synthetic(base64.b64decode(json.loads(data)["data"][0]["b64_json"]))
        edited = draw.edit([("model", env["IMAGE_GEN_OAI_MODEL"]), ("prompt", "Reconstruct the image."), ("quality", "auto"), ("size", "auto"),
                            ("response_format", "b64_json"), ("output_format", "png")], [("image[]", test_image())])
        require_synthetic(base64.b64decode(edited[0]["b64_json"]))
    return "%.1f ms beside full batches" % (1000 * took)
