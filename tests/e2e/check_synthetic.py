"""Every picture that leaves the programs says of itself that a model made it, and says nothing of who asked for what."""
import base64
import json
import os
import tempfile

from harness import Daemon, b64, cli_ok, equal, png_rows, require, require_synthetic, test_image

PROMPT = "Draw a chest X-ray with pneumonia."
SECRET = "Jane Q. Public, born 1931"


PICTURE = "data:image/png;base64," + b64(test_image(3))


def sse(d, path, value):
    status, headers, data = d.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
    equal((status, headers.get("X-Synthetic-Image")), (200, "true"), "status and header of " + path)
    return [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: {")]


def check_png_has_marking(build):
    with Daemon(build) as d, tempfile.TemporaryDirectory() as folder:
        lines, headers = d.stream("/v1/draw", {"prompt": PROMPT, "seed": 5, "previews": 4})
        equal(headers["X-Synthetic-Image"], "true", "header of a stream")
        previews = [base64.b64decode(e["b64_json"]) for e in lines if e["type"] == "preview"]
        final = base64.b64decode(next(e for e in lines if e["type"] == "image")["b64_json"])
        facts = {"model": lines[-1]["model"], "plugin": "generation", "seed": 5}
        require(previews, "no previews")
        for data in previews + [final]:
            said = require_synthetic(data, **facts)
        status, headers, reply = d.post("/v1/draw", {"prompt": PROMPT, "seed": 5})
        equal((status, headers["X-Synthetic-Image"], reply["synthetic"]), (200, "true", True), "the plain answer")
        equal(base64.b64decode(reply["image"]["b64_json"]), final, "the same request, the same bytes")
        images = d.post_ok("/v1/images/generations", {"prompt": PROMPT, "seed": 5})
        equal(base64.b64decode(images["data"][0]["b64_json"]), final, "the images route")
        chat = {"messages": [{"role": "user", "content": PROMPT}], "modalities": ["text", "image"], "seed": 5}
        url = d.post_ok("/v1/chat/completions", chat)["choices"][0]["message"]["images"][0]["image_url"]["url"]
        equal(base64.b64decode(url.partition(",")[2]), final, "the picture of a chat")
        for path, ask in (("/v1/images/generations", {"prompt": PROMPT}),
                          ("/v1/images/edits", {"prompt": "Reconstruct the image.", "images": [{"image_url": PICTURE}]})):
            events = sse(d, path, dict(ask, seed=5, stream=True, partial_images=2))
            require(len(events) >= 2, "%s: events %r" % (path, [e["type"] for e in events]))
            for e in events:
                require_synthetic(base64.b64decode(e["b64_json"]), **facts)
        other = base64.b64decode(d.post_ok("/v1/draw", {"prompt": PROMPT, "seed": 6})["image"]["b64_json"])
        require_synthetic(other, seed=6)
        require(png_rows(other) != png_rows(final), "another seed, another picture")

        path = os.path.join(folder, "a.png")
        cli_ok(build, "draw", "--seed", "5", PROMPT, "-o", path)
        with open(path, "rb") as f:
            equal(f.read(), final, "the command line's file")
        job = {"task": "draw", "question": PROMPT, "images": [], "seed": 5, "output": os.path.join(folder, "b.png")}
        cli_ok(build, "batch", stdin=(json.dumps(job) + "\n").encode())
        with open(job["output"], "rb") as f:
            equal(f.read(), final, "a file of a batch")
        return "%d previews, weights %s" % (len(previews), said["weights"])


def check_marks_hold_nothing_of_the_request(build):
    with Daemon(build) as d:
        ask = {"prompt": "Reconstruct the image of %s." % SECRET, "system": SECRET, "image": b64(test_image(3)), "user": SECRET,
               "previews": 2}
        lines, _ = d.stream("/v1/draw", ask)
        pictures = [base64.b64decode(e["b64_json"]) for e in lines if "b64_json" in e]
        require(len(pictures) >= 2, "pictures: %d" % len(pictures))
        for data in pictures:
            require_synthetic(data)
            require(SECRET.encode() not in data and b"Reconstruct" not in data and b"Jane" not in data, "text of the request in it")
        again, _ = d.stream("/v1/draw", dict(ask, prompt=ask["prompt"]))
        equal(next(e for e in again if e["type"] == "image"), next(e for e in lines if e["type"] == "image"), "no time in it")
