"""One daemon with one model of full size: started, asked, measured."""
import base64
import json
import os
import re
import signal
import threading
import time

import harness
from harness import Daemon, Skip, equal, require

MEASURED = {}
GB = 1e9
TIMEOUT_S = 3600


def memory(key):
    with open("/proc/meminfo") as f:
        return int(re.search(key + r":\s+(\d+) kB", f.read()).group(1)) * 1024


def cpu_name():
    with open("/proc/cpuinfo") as f:
        m = re.search(r"model name\s*: (.+)", f.read())
    return m.group(1) if m else "?"


def card_of(folder):
    """The published model's card; the folder is one of write.py."""
    return os.path.join(harness.ROOT, "config", "models", "healthgpt-%s.json" % os.path.basename(folder).split("-")[0])


def forget_pages(folder):
    """Out of the page cache, so that the next load reads the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(root, name), os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


class Session:
    def __init__(self, ctx, folder, dtype, kv_tokens, need, *more):
        self.more = more  # arguments of the daemon
        self.ctx, self.folder, self.dtype, self.kv_tokens, self.need = ctx, folder, dtype, kv_tokens, need
        self.daemon, self.answer, self.picture, self.image = None, None, None, None
        self.row = MEASURED.setdefault("%s %s" % (os.path.basename(folder), dtype), {})

    # ---- from start to end ----------------------------------------------------------------------------------------------------

    def wait_for_memory(self):
        end = time.monotonic() + 900
        if memory("MemTotal") < self.need + GB:
            raise Skip("%.1f GB of memory wanted, the machine has %.1f" % (self.need / GB, memory("MemTotal") / GB))
        while memory("MemAvailable") < self.need + GB:
            if time.monotonic() > end:
                raise Skip("%.1f GB of memory wanted, %.1f available" % (self.need / GB, memory("MemAvailable") / GB))
            time.sleep(5)

    def start(self, kind):
        """kind: cold (nothing of it in the page cache), warm, writing or cached (--quant-cache)."""
        self.wait_for_memory()
        if kind == "cold":
            forget_pages(self.folder)
        begin = time.monotonic()
        self.daemon = Daemon(self.ctx.build, "--model", card_of(self.folder), "--weights", self.folder, "--dtype", self.dtype, "--backend",
                             "cpu", "--kv-tokens", str(self.kv_tokens), "--max-batch", "4", "--timeout-s", str(TIMEOUT_S), "--step-timeout-s", "900", *self.more)
        ready = time.monotonic() - begin
        load = float(re.search(r"loaded: .* in ([\d.]+) s", self.daemon.log_text()).group(1))
        with open("/proc/%d/stat" % self.daemon.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for key, value in (("", load), ("ready_", ready), ("cpu_", cpu)):
            self.row["%s%s_s" % (key, kind)] = value
        busy = os.getloadavg()[0]
        return "loaded in %.1f s, ready after %.1f s, %.1f s of CPU time, load average %.1f" % (load, ready, cpu, busy)

    def start_from_cache(self):
        """The second of two: the first wrote the file."""
        note = self.start("cached")
        m = re.search(r"quant cache: (read .+?): ", self.daemon.log_text())
        require(m, "no word about the cache: %s" % self.daemon.log_text()[-800:])
        return "%s; %s" % (note, m.group(1))

    def stop(self):
        if self.daemon and self.daemon.process.poll() is None:
            self.daemon.process.send_signal(signal.SIGTERM)
            self.daemon.process.wait(300)
            self.daemon.process.stdout.close()

    # ---- checks ---------------------------------------------------------------------------------------------------------------

    def check_memory(self, share=0.03, limit=None):
        log = self.daemon.log_text()
        parts = sum(float(re.search(form, log).group(1)) * 1e6 for form in (
            r"memory: weights .* = ([\d.]+) MB", r"memory: and ([\d.]+) MB for the backend's own work"))
        peak = self.daemon.status_kb("VmHWM") * 1024
        self.row["parts_gb"], self.row["peak_gb"] = parts / GB, peak / GB
        require(abs(peak / parts - 1) <= share, "peak %.3f GB, parts %.3f GB: %+.1f %%" % (peak / GB, parts / GB, 100 * (peak / parts - 1)))
        require(not limit or peak < limit, "peak %.3f GB" % (peak / GB))
        return "%.3f GB, parts %.3f GB: %+.2f %%" % (peak / GB, parts / GB, 100 * (peak / parts - 1))

    def post(self, path, value):
        status, _, data = self.daemon.request("POST", path, json.dumps(value), {"Content-Type": "application/json"}, timeout=TIMEOUT_S)
        return status, json.loads(data)

    def ask(self, question, image=None, n=16, **more):
        value = dict(question=question, max_tokens=n, top_logprobs=1, **more)
        if image:
            value["image"] = image
        status, reply = self.post("/v1/vqa", value)
        equal(status, 200, str(reply)[:300])
        ids = [t[0]["id"] for t in reply["top_logprobs"]]
        require(all(-100 < t[0]["logprob"] <= 0 for t in reply["top_logprobs"]), "log probabilities: %r" % reply["top_logprobs"])
        return {"ids": ids, "text": reply["text"], "logprobs": [t[0]["logprob"] for t in reply["top_logprobs"]], "usage": reply["usage"],
                "timings": reply["timings"]}

    def same(self, a, b, what):
        equal((a["ids"], a["logprobs"], a["text"]), (b["ids"], b["logprobs"], b["text"]), what)

    def check_answer(self, xray):
        with open(xray(), "rb") as f:
            self.image = base64.b64encode(f.read()).decode()
        question = "Is there evidence of pneumonia in this X-ray?"
        self.answer = self.ask(question, self.image)
        again = self.ask(question, self.image)
        self.same(self.answer, again, "the second time")
        n, t = len(self.answer["ids"]), self.answer["timings"]
        require(self.answer["usage"]["prompt_tokens"] > 576, "prompt of %r tokens" % self.answer["usage"])
        require(n >= 2 and len(set(self.answer["ids"])) > n // 2, "degenerate: %r" % self.answer["ids"])
        self.row["first_token_s"] = t["first_token_ms"] / 1e3
        self.row["token_ms"] = (t["total_ms"] - t["first_token_ms"]) / max(n - 1, 1)
        return "%d prompt + %d tokens, the first after %.1f s, then %.0f ms each" % (self.answer["usage"]["prompt_tokens"], n,
                                                                                  self.row["first_token_s"], self.row["token_ms"])

    def check_same(self, other):
        if not other.answer:
            raise Skip("there was no answer to compare with")
        self.same(other.answer, self.ask("Is there evidence of pneumonia in this X-ray?", other.image), "another process")

    def check_others(self, xray):
        """Another picture and no picture: other answers, so that the picture is seen."""
        folder = os.path.dirname(xray())
        other = sorted(n for n in os.listdir(folder) if n.endswith((".png", ".jpg")))[-1]
        with open(os.path.join(folder, other), "rb") as f:
            image = base64.b64encode(f.read()).decode()
        question = "Is there evidence of pneumonia in this X-ray?"
        a, b = self.ask(question, image, 4), self.ask(question, None, 4)
        require(a["logprobs"] != self.answer["logprobs"][:4], "another picture changes nothing: %r" % a["logprobs"])
        require(b["usage"]["prompt_tokens"] < 64 and a["usage"]["prompt_tokens"] > 576, "prompts of %r and %r" % (a["usage"], b["usage"]))
        require(a["ids"] != b["ids"], "the picture changes nothing: %r" % a["ids"])
        return "%r, %r" % (a["ids"], b["ids"])

    def draw(self):
        status, reply = self.post("/v1/draw", {"prompt": "Reconstruct the image.", "image": self.image, "temperature": 0})
        equal(status, 200, str(reply)[:300])
        return reply

    def check_picture(self, types):
        """Drawn while two questions are asked, whose answers are those that they had alone."""
        if self.dtype not in types:
            raise Skip("--draw %s" % ",".join(types))
        if not self.answer:
            raise Skip("there was no answer to compare with")
        drawn, begin = {}, time.monotonic()

        def work():
            try:
                drawn["reply"] = self.draw()
            except Exception as e:  # shown by the thread that waits
                drawn["error"] = e
        thread = threading.Thread(target=work)
        thread.start()
        beside = self.ask("Is there evidence of pneumonia in this X-ray?", self.image)
        running = thread.is_alive()
        beside_text = self.ask("What is a lung?", None, 4)
        thread.join()
        if "error" in drawn:
            raise drawn["error"]
        took = time.monotonic() - begin
        require(running, "the picture was finished before the question was answered")
        self.same(self.answer, beside, "beside a picture")
        self.same(beside_text, self.ask("What is a lung?", None, 4), "alone, and beside a picture")
        self.picture = drawn["reply"]
        rows = self.rows = harness.png_rows(base64.b64decode(self.picture["image"]["b64_json"]))
        equal((len(rows), len(rows[0])), (256, 768), "picture")
        colours = len({row[i:i + 3] for row in rows for i in range(0, 768, 3)})
        require(colours > 1000, "%d colours" % colours)
        equal(self.picture["usage"]["completion_tokens"], 1024, "tokens")
        t = self.picture["timings"]
        self.row["picture_s"], self.row["picture_token_ms"] = t["total_ms"] / 1e3, (t["total_ms"] - t["first_token_ms"]) / 1024
        return "%.0f s in all, %.0f ms a token, 256 x 256, %d colours" % (took, self.row["picture_token_ms"], colours)

    def check_picture_alone(self):
        if not self.picture:
            raise Skip("there was no picture to compare with")
        reply = self.draw()
        require(harness.png_rows(base64.b64decode(reply["image"]["b64_json"])) == self.rows, "another picture than beside questions")
        self.row["picture_s"] = reply["timings"]["total_ms"] / 1e3
        return "%.0f s" % self.row["picture_s"]

    def check_no_drawing(self):
        status, reply = self.post("/v1/draw", {"prompt": "Reconstruct the image.", "image": self.image})
        require(400 <= status < 500, "expected a refusal, got %d" % status)
        text = str(reply)
        require("generation" in text, "expected a word about generation: %s" % text[:300])
        return "%d: %s" % (status, reply.get("error", {}).get("message", text)[:100])

    def check_penalty(self):
        """What the file says is what 1.05 says, and not what 1 says: of distinct tokens so far each loses a twentieth of its logit."""
        question, n = "Count from one to ten, again and again.", 384
        own, said, off = (self.ask(question, None, n, **more) for more in ({}, {"repetition_penalty": 1.05}, {"repetition_penalty": 1.0}))
        self.same(own, said, "1.05 as the file says it, and as the request says it")
        require(own["ids"] != off["ids"] or own["logprobs"] != off["logprobs"], "without a penalty: the same %d tokens" % len(off["ids"]))
        first = next((i for i in range(min(len(own["ids"]), len(off["ids"]))) if own["ids"][i] != off["ids"][i]), -1)
        return "other tokens from number %d of %d; %d distinct with it, %d without" % (first, len(off["ids"]), len(set(own["ids"])),
                                                                                    len(set(off["ids"])))
