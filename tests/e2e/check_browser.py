"""The page of GET / in a real browser: Debian's chromium without a window, driven by Playwright (browser.py, run with the Python
that has it: $HG_BROWSER_PYTHON, $HG_CLIENTS_PYTHON, or build/venv-clients of `make clients`)."""
import base64
import json
import os
import shutil
import subprocess
import tempfile

from check_faults import Faulty
from check_keys import KeyFile, entry
from check_openai import python_with
from harness import ROOT, Daemon, Fail, Skip, equal, png_rows, require, require_synthetic, test_image

# So slow that what grows can be seen to grow; and so that there is time to stop it.
SLOW, SLOWER = "slow_step:ms=12,count=0", "slow_step:ms=120,count=0"
QUESTION = "What is shown in this image?"


def browser():
    """(python, chromium), or a skip that says what is missing."""
    python = os.environ.get("HG_BROWSER_PYTHON") or python_with("playwright")
    chromium = shutil.which("chromium")
    if not chromium:
        raise Skip("chromium is not here: make clients as root, or apt-get install chromium")
    return python, chromium


def drive(d, folder, step, **given):
    """One function of browser.py; what it saw."""
    python, chromium = browser()
    job = dict(given, step=step, url="http://127.0.0.1:%d/" % d.port, chromium=chromium, folder=folder)
    p = subprocess.run([python, os.path.join(ROOT, "tests", "e2e", "browser.py"), json.dumps(job)], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=300)
    if p.returncode != 0:
        raise Fail("%s: %s" % (step, p.stderr.decode("utf-8", "replace")[-1500:]))
    return json.loads(p.stdout)


class Page:
    """A folder with a picture, and a daemon that is looked at."""

    def __init__(self, build, fault=SLOW, *args):
        browser()
        self.folder = tempfile.TemporaryDirectory()
        with open(self.path("what's \"this\".png"), "wb") as f:
            f.write(test_image())
        with open(self.path("broken.png"), "wb") as f:
            f.write(test_image()[:-30])
        with open(self.path("text.png"), "wb") as f:
            f.write(b"no picture")
        self.daemon = Faulty(build, fault, *args) if fault else Daemon(build, *args)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def drive(self, step, **given):
        return drive(self.daemon, self.folder.name, step, **given)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.daemon.__exit__(*why)
        self.folder.cleanup()


def lines_of_curl(page, command):
    """What the curl line of the page gives, run as it is where the file lies."""
    p = subprocess.run(["sh", "-e", "-c", command], cwd=page.folder.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=120)
    equal((p.returncode, p.stderr), (0, b""), command)
    return [json.loads(line) for line in p.stdout.decode().split("\n")[:-1]]


def check_the_page_asks_and_the_answer_grows(build):
    with Page(build) as page:
        seen = page.drive("ask", file="what's \"this\".png", question=QUESTION)
        grown = seen["texts"]
        require(len(grown) >= 3 and all(b.startswith(a) for a, b in zip(grown, grown[1:])), "the answer grew: %r" % grown)
        equal(seen["answer"], grown[-1], "the answer")
        lines = lines_of_curl(page, seen["curl"])
        equal("".join(e["text"] for e in lines if e["type"] == "token"), seen["answer"], "what curl answers")
        return "%d steps" % len(grown)


def check_the_page_draws_and_the_picture_grows(build):
    with Page(build) as page:
        seen = page.drive("draw", prompt="Draw a chest X-ray with pneumonia.", seed="3")
        require(len(set(seen["previews"])) >= 2, "%d pictures before the last" % len(set(seen["previews"])))
        bars = seen["bars"]
        require(len(bars) >= 3 and bars == sorted(bars) and bars[-1] > bars[0], "the bar: %r" % bars)
        require(any("left" in text for text in seen["left"]), "the time left: %r" % seen["left"])
        equal(seen["strip"], "AI GENERATED \u2013 NOT FOR DIAGNOSIS", "the strip")
        require(seen["strip_top"] >= seen["image_bottom"] - 0.5, "the strip lies over the pixels: %r" % seen)
        with open(page.path(seen["download"]), "rb") as f:
            data = f.read()
        require_synthetic(data)
        reply = page.daemon.post_ok("/v1/draw", {"prompt": "Draw a chest X-ray with pneumonia.", "seed": 3})
        equal(data, base64.b64decode(reply["image"]["b64_json"]), "the file that was saved")
        equal(seen["natural"], [len(png_rows(data))] * 2, "its size in the page")
        return "%d previews, bar at %d places" % (len(set(seen["previews"])), len(bars))


def check_the_page_works_with_the_keyboard_only(build):
    with Page(build, SLOWER) as page:
        seen = page.drive("keyboard", file="what's \"this\".png", question=QUESTION)
        order = seen["order"]
        equal([n for n in order if n in ("task", "files", "prompt", "send")], ["task", "files", "prompt", "send"], "order: %r" % order)
        equal(seen["unlabelled"], [], "controls without a name")
        require(seen["answer"] and seen["stopped"].startswith("Stopped"), "seen: %r" % seen)
        page.daemon.wait_idle()
        equal(page.daemon.health()["requests"]["cancelled"], 1, "Esc has ended the request")
        return "%d stops" % len(order)


def check_the_page_says_what_is_wrong_and_what_to_do(build):
    with Page(build, None) as page:
        seen = page.drive("errors", text="text.png", broken="broken.png")
        require("text.png is not a PNG or JPEG" in seen["text"], "no picture: %r" % seen["text"])
        require("image cannot be read" in seen["broken"] and "Take a PNG" in seen["broken"], "broken file: %r" % seen["broken"])
        require("temperature: expected a number in 0..2" in seen["wrong"], "bad field: %r" % seen["wrong"])
        equal(seen["focused"], "temperature", "where the focus went")
        require("cannot be reached" in seen["offline"] and "Check the network" in seen["offline"], "offline: %r" % seen["offline"])
        equal(seen["again"], 1, "buttons to try again when offline")
        require(seen["cut"] and "not complete" in seen["cut"], "cut short: %r" % seen["cut"])
        require("busy" in seen["busy"] and "in 7.0 s" in seen["busy"], "busy: %r" % seen["busy"])


def check_the_page_asks_for_a_key_and_forgets_it(build):
    with KeyFile(entry("a")) as keys, Page(build, None, "--api-keys", keys.path) as page:
        seen = page.drive("key", key="key-of-a", question="Hello?")
        require("API key" in seen["missing"] and "does not know" in seen["wrong"], "seen: %r" % seen)
        require(seen["answer"], "an answer with the key")
        equal((seen["stored"], seen["after_reload"]), ([0, 0, ""], ""), "what is left of the key")
        require("$HEALTHGPT_API_KEY" in seen["curl"] and "key-of-a" not in seen["curl"], "curl: %r" % seen["curl"])


def check_the_page_fits_dark_rooms_and_small_screens(build):
    with Page(build, None) as page:
        seen = page.drive("looks", question="Hello?", prompt="Draw a chest X-ray.")
        require(seen["light"]["paper"] > 0.8 and seen["dark"]["paper"] < 0.05, "paper: %r" % seen)
        for mode in ("light", "dark"):
            low = {k: v for k, v in seen[mode]["contrast"].items() if v < 4.5}
            equal(low, {}, "contrast in %s mode (WCAG AA: 4.5)" % mode)
        for width, overflow in seen["overflow"].items():
            require(overflow <= 0, "at %s pixels the page is %d too wide" % (width, overflow))
        return "least contrast %.1f" % min(v for m in ("light", "dark") for v in seen[m]["contrast"].values())


def check_the_page_works_under_a_prefix(build):
    with Page(build, None) as page:
        seen = page.drive("prefix", question="Hello?")
        require(seen["answer"] and "/clinic/v1/vqa" in seen["asked"], "seen: %r" % seen)
        equal([p for p in seen["asked"] if not p.startswith("/clinic/")], [], "what was asked outside of it")
        require("/clinic/v1/vqa" in seen["curl"], "curl: %r" % seen["curl"])
