"""tools/eval: runs against a server that makes trouble, resumption, scores and tables, and the demo model."""
import base64
import email.utils
import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from eval_tool import EVAL, MIXED, VQA, Set, lines_of, number_of, read, results_of, right, scored, tool
from fake_vqa import FakeServer, error, text
from harness import ROOT, SHARED, Daemon, Skip, equal, png_rows, require, until

import pneumonia_mnist  # of tools/eval
import progress
import run as eval_run
from client import Client

NPZ = os.path.join(SHARED, "data", "medmnist", "pneumoniamnist.npz")


def check_a_right_model_scores_100_and_an_empty_one_0(build):
    with Set(MIXED) as s, FakeServer(right) as server:
        out, _ = s.run(server.url)
        _, best = scored(out)
        with FakeServer(lambda body, times: text("")) as silent:
            doc, worst = scored(s.run(silent.url, "empty")[0])
        equal((doc["empty"], doc["refused"]), (len(MIXED), 0), "empty answers")
        checked = [k for k in best if "llava_med" not in k[0] and not k[0].startswith("rule_")]
        require(len(checked) >= 20 - 7, "metrics: %s" % checked)
        for key in checked:
            if key in (("exact_all", ""), ("f1", "Fracture")):
                continue        # "on the left" is right and not exact; no label of that class is positive, so its F1 is 0
            equal(round(best[key]["value"], 9), 100.0, "right answers: %s" % (key,))
            equal(worst[key]["value"], 0.0, "empty answers: %s" % (key,))
            require(best[key]["low"] <= best[key]["value"] <= best[key]["high"] + 1e-9, "interval of %s" % (key,))
        equal((best["closed", ""]["n"], best["open_recall", ""]["n"], best["option", ""]["n"], best["all", ""]["n"]), (15, 10, 10, 25), "n")
        equal(best["option_macro", ""]["n"], 10, "n of the mean over groups")
        for package, keys in (("sacrebleu", ["bleu1", "bleu4"]), ("rouge-score", ["rouge1", "rougeL"])):
            there = importlib.util.find_spec(package.replace("-score", "_score")) is not None
            equal([(k, "") in best for k in keys], [there] * 2, "metrics of " + package)
            require(there or any("package %s is not installed" % package in x for x in doc["left_out"]), "left out: %r" % doc["left_out"])
        equal([round(best["rule_" + r, ""]["value"]) for r in ("letter", "text", "fuzzy", "none")], [50, 50, 0, 0], "rules")


def check_scores_by_hand(build):
    """Ten questions whose metrics can be computed on paper."""
    docs = [{"id": "c%d" % i, "question": "Question %d?" % i, "answer": "yes"} for i in range(4)] + \
           [{"id": "o0", "question": "Question 4?", "answer": "left lung", "group": "a"},
            {"id": "o1", "question": "Question 5?", "answer": "the heart", "group": "b"}] + \
           [{"id": "m%d" % i, "question": "Question %d?" % (6 + i), "answer": "A", "options": ["x-ray", "CT"], "group": g} for i, g in
            enumerate("aab")] + [{"id": "l", "question": "Question 9?", "labels": {"Edema": 1, "Fracture": 1, "Pneumonia": 0}}]
    says = ["Yes", "no", "it is normal", "maybe", "left left", "heart", "X-ray", "CT", "(A)", "Edema and pneumonia."]
    with Set(docs) as s, FakeServer(lambda body, times: text(says[number_of(body)])) as server:
        _, m = scored(s.run(server.url)[0])
    value = lambda key, group="": round(m[key, group]["value"], 4)
    equal(value("closed"), 25.0, "closed")
    equal(value("closed_llava_med"), 25.0, "closed by LLaVA-Med's rule")
    equal(value("closed_llava_med_printed"), 50.0, "as printed: \"no\" and \"normal\" are forgotten")
    equal(value("open_recall"), round(100 * (2 / 3 + 1) / 2, 4), "open recall")
    equal(value("open_f1"), round(100 * (0.5 + 1) / 2, 4), "open F1")
    equal(value("open_exact"), 50.0, "open exact")
    equal(value("all"), round(100 * (1 + 2 / 3 + 1) / 6, 4), "all")
    equal(value("exact_all"), round(100 * 2 / 6, 4), "exact match of all")
    equal((value("option"), value("option", "a"), value("option", "b"), value("option_macro")), (round(200 / 3, 4), 50.0, 100.0, 75.0), "option")
    equal((value("micro_f1"), value("label_accuracy")), (50.0, round(100 / 3, 4)), "labels: tp 1, fp 1, fn 1")
    equal((value("f1", "Edema"), value("f1", "Pneumonia")), (100.0, 0.0), "F1 by class")


def check_results_do_not_depend_on_concurrency(build):
    def slow_for_some(body, times):
        if number_of(body) % 5 == 0:
            for _ in range(20000):     # overtaken by others
                pass
        return right(body, times)
    with Set(MIXED) as s, FakeServer(slow_for_some) as server:
        first = results_of(s.run(server.url, "a", "--concurrency", "1")[0])
        equal(results_of(s.run(server.url, "b", "--concurrency", "16")[0]), first, "results of 1 and 16 at once")
        equal([json.loads(x)["index"] for x in first.splitlines()], list(range(len(MIXED))), "order")
        equal(s.run(server.url, "b", "--concurrency", "3")[1].splitlines()[0], "run: 40 of 40 are done", "a second start")
        equal(set(server.times()), {2}, "how often a question was asked by both runs")
        p = subprocess.run([sys.executable, EVAL, "run", "--set", s.set, "--format", "jsonl", "--url", server.url, "--out", s.path("c"),
                            "--limit", "1"], capture_output=True, timeout=300, env=dict(os.environ, HEALTHGPT_API_KEY="secret-key"))
        equal((p.returncode, server.auth[-1]), (0, "Bearer secret-key"), "a run of its own: %r" % p.stderr)
        require(b"secret-key" not in p.stdout + p.stderr + read(s.path("c")), "the key is shown")


def check_trouble_is_tried_again(build):
    """Busy, restarting, resetting: the results are those of a quiet server, and each question has one line."""
    def troubled(body, times):
        n = number_of(body)
        if times < 2 and n % 4 < 3:
            return (error(503, "busy", Retry_After="0"), error(429, "quota", Retry_After="0.01"), None)[n % 4]
        return right(body, times)
    with Set(MIXED) as s, FakeServer(right) as quiet, FakeServer(troubled) as server:
        first = results_of(s.run(quiet.url, "a")[0])
        out, said = s.run(server.url, "b", "--concurrency", "8")
        equal(results_of(out), first, "results")
        require("retries" in said, said)


class Waits(threading.Event):
    """An event that tells how long was waited for it, and does not wait."""
    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


def check_waits_are_those_of_the_server(build):
    at = email.utils.formatdate(time.time() + 30, usegmt=True)
    said = ("7", "0.25", at, None, "soon", "1000", "-3", None)
    expected = (7, 0.25, 30, 4, 8, 120, 0, 30)      # without one: 0.5 s doubled each time, at most 30

    def busy(body, times):
        if times == len(said):
            return text("done")
        return error(503, "busy", **({"Retry_After": said[times]} if said[times] else {}))
    with FakeServer(busy) as server:
        c = Client(server.url, retries=len(said))
        c.stop = Waits()
        equal(c.call("POST", "/v1/vqa", {"question": "q"})["text"], "done", "answer")
        require(len(c.stop.seconds) == len(said) and all(abs(a - b) < 3 for a, b in zip(c.stop.seconds, expected)), "%r" % c.stop.seconds)
        equal([s for s, v in zip(c.stop.seconds, said) if v != at], [e for e, v in zip(expected, said) if v != at], "waits")


def check_closed_connections_are_no_trouble(build):
    with Set(MIXED) as s, FakeServer(right) as server:
        server.drops = True
        _, said = s.run(server.url, "a", "--retries", "0")
        require("retries" not in said, said)


def check_refusals_are_results(build):
    def refusing(body, times):
        return error(400, "context_length_exceeded") if number_of(body) == 0 else \
            error(500, "numeric_fault", Retry_After="0") if number_of(body) == 3 else right(body, times)
    with Set(MIXED) as s, FakeServer(refusing) as server:
        out, said = s.run(server.url)
        require("2 of 40 were refused" in said, said)
        bad = {x["id"]: x["error"]["code"] for x in lines_of(out)[1:] if "error" in x}
        equal(bad, {"q0": "context_length_exceeded", "q3": "numeric_fault"}, "refused")
        doc, m = scored(out)
        equal((doc["refused"], round(m["closed", ""]["value"], 6)), (2, round(100 * 13 / 15, 6)), "scored as wrong")


def check_a_server_that_goes_is_waited_for_next_time(build):
    def goes(body, times):
        return error(503, "shutting_down", Retry_After="0") if number_of(body) >= 11 else right(body, times)
    with Set(MIXED) as s, FakeServer(right) as quiet:
        with FakeServer(goes) as server:
            out, said = s.run(server.url, "a", "--retries", "2", expect=3)
        require("503 shutting_down" in said and "after 3 tries" in said and "the same command goes on" in said, said)
        equal(len(lines_of(out)), 1 + 11, "lines")
        s.run(quiet.url, "a")
        equal(results_of(out), results_of(s.run(quiet.url, "b")[0]), "results")
        _, said = s.run("http://127.0.0.1:1", "c", "--retries", "0", expect=3)
        require("ConnectionRefusedError" in said, said)
        with FakeServer(lambda *a: error(401, "invalid_api_key")) as locked:
            _, said = s.run(locked.url, "d", expect=3)
            require("401 invalid_api_key" in said and "$HEALTHGPT_API_KEY" in said and max(locked.times()) == 1, said)
            equal(len(lines_of(s.path("d"))), 1, "no result")
        _, said = s.run("ftp://x", "c", expect=3)
        require("--url: expected http://HOST:PORT, got 'ftp://x'" in said, said)
        with FakeServer(lambda *a: (200, {"txt": "?"}, ())) as other:
            _, said = s.run(other.url, "e", expect=3)
            require("an answer of another shape" in said, said)


def check_killed_runs_go_on(build):
    """SIGKILL when some lines are there, the last one cut in two; then the same command."""
    with Set(MIXED) as s, FakeServer(right) as quiet:
        first = results_of(s.run(quiet.url, "whole")[0])
        out = s.path("killed")
        command = [sys.executable, EVAL, "run", "--set", s.set, "--format", "jsonl", "--out", out, "--concurrency", "2"]
        for stop_at, cut in ((0, 0), (3, 0), (9, 37), (20, 1)):
            hold = threading.Event()

            def holds(body, times):
                if number_of(body) >= stop_at:
                    hold.wait(60)
                return right(body, times)
            with FakeServer(holds) as server:
                p = subprocess.Popen(command + ["--url", server.url], stderr=subprocess.DEVNULL)
                until(lambda: os.path.exists(out) and read(out).count(b"\n") >= 1 + stop_at, "%d lines" % stop_at)
                p.send_signal(signal.SIGKILL)
                p.wait(30)
                hold.set()
            if cut:
                os.truncate(out, os.path.getsize(out) - cut)
        said = s.run(quiet.url, "killed")[1]
        require("a line that was cut" in said and "run: 19 of 40 are done" in said, said)
        equal(results_of(out), first, "results after four kills")
        with open(s.path("torn"), "wb") as f:
            f.write(read(out)[:50])     # of the header
        s.run(quiet.url, "torn")
        equal(results_of(s.path("torn")), first, "results after a torn header")


def check_what_is_sent(build):
    seen = []

    def keeps(body, times):
        seen.append(body)
        return right(body, times) if "question" in body else \
            (200, {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}, ())
    with Set(MIXED) as s, FakeServer(keeps) as server:
        picture = base64.b64encode(read(s.path("p.png"))).decode()
        s.run(server.url, "a", "--limit", "3", "--seed", "7", "--concurrency", "1")
        choice = "Question 2?\nA. brain\nB. lung\nC. heart\nAnswer with the option's letter from the given choices directly."
        equal(seen, [{"question": q, "image": [picture], "temperature": 0.0, "seed": 7 + i} for i, q in
                     enumerate(["Question 0?", "Question 1?", choice])], "requests")
        del seen[:]
        s.run(server.url, "b", "--limit", "1", "--route", "chat", "--system", "Be brief.", "--template", "{x} {question}!", "--max-tokens", "5",
              "--temperature", "0.5")
        equal(seen, [{"model": "fake", "temperature": 0.5, "seed": 0, "max_tokens": 5, "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + picture}},
                                         {"type": "text", "text": "{x} Question 0?!"}]}]}], "a chat")


def heed_ctrl_c():
    """A program that was started in the background ignores it, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def check_ctrl_c_ends_at_once(build):
    with Set(MIXED) as s, FakeServer(right) as quiet:
        hold, out = threading.Event(), s.path("out")
        with FakeServer(lambda body, times: right(body, times) if number_of(body) < 5 or hold.wait(60) else None) as server:
            p = subprocess.Popen([sys.executable, EVAL, "run", "--set", s.set, "--format", "jsonl", "--out", out, "--url", server.url],
                                 stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
            until(lambda: os.path.exists(out) and read(out).count(b"\n") == 6 and len(server.asked) == 9, "requests that hang")
            p.send_signal(signal.SIGINT)
            said = p.communicate(timeout=40)[1]     # before the server answers
            hold.set()
        equal(p.returncode, 130, "exit code: " + said)
        require("stopped; 5 of 40 are done, the same command goes on" in said and "Traceback" not in said, said)
        s.run(quiet.url, "out")
        equal(results_of(out), results_of(s.run(quiet.url, "whole")[0]), "results")


def check_another_configuration_is_refused(build):
    with Set(MIXED) as s, FakeServer(right) as server:
        out, _ = s.run(server.url, "a", "--limit", "4")
        before = read(out)
        for args, expected in ((("--seed", "5"), "seed: 0 -> 5"), (("--template", "Q: {question}"), 'template: "" -> "Q: {question}"'),
                               (("--temperature", "0.5"), "temperature: 0.0 -> 0.5"), (("--stand-in",), "images: "),
                               (("--shard", "1/2"), 'shard: "1/1" -> "1/2"'), (("--route", "chat"), 'route: "vqa" -> "chat"')):
            _, said = s.run(server.url, "a", *args, expect=2)
            require("another configuration" in said and expected in said, said)
        server.card["fingerprint"] = "fp_2"
        _, said = s.run(server.url, "a", expect=2)
        require("card_sha256: " in said and 'fingerprint: "fp_1" -> "fp_2"' in said, said)
        server.card["fingerprint"] = "fp_1"
        with open(s.set, "a") as f:
            f.write('{"question": "one more?", "answer": "yes"}\n')
        require("set.sha256: " in s.run(server.url, "a", expect=2)[1], "another set")
        for junk in (b"my notes, no results", b'{"a": 1}\n'):
            with open(s.path("junk"), "wb") as f:
                f.write(junk)
            require("expected a results file" in s.run(server.url, "junk", expect=2)[1], "a file of someone else")
            equal(read(s.path("junk")), junk, "a file of someone else")
        damaged = before.split(b"\n")
        damaged[2] = damaged[2][:40]
        with open(s.path("damaged"), "wb") as f:
            f.write(b"\n".join(damaged))
        _, said = tool("score", s.path("damaged"), expect=2)
        require("damaged: line 3: " in said, said)
        equal(read(out), before, "the results of the first run")


def check_limits_and_shards_add_up(build):
    with Set(MIXED) as s, FakeServer(right) as server:
        whole, _ = s.run(server.url, "whole")
        out, _ = s.run(server.url, "steps", "--limit", "7")
        s.run(server.url, "steps", "--limit", "12")
        equal(len(lines_of(out)), 13, "lines with a limit")
        doc, _ = scored(out)
        equal((doc["answered"], doc["of"]), (12, 40), "coverage")
        require("**Partial: 12 of 40 questions.**" in read(out + ".score.json.md").decode(), "a partial run says so")
        s.run(server.url, "steps")
        equal(results_of(out), results_of(whole), "a limit that is raised")
        shards = [s.run(server.url, "shard%d" % k, "--shard", "%d/3" % k)[0] for k in (1, 2, 3)]
        equal([x["index"] for x in lines_of(shards[1])[1:]], list(range(1, 40, 3)), "every third from the second")
        equal(sorted(b"".join(map(results_of, shards)).splitlines()), sorted(results_of(whole).splitlines()), "shards")
        equal(scored(*shards)[1], scored(whole)[1], "metrics of shards and of the whole")
        _, said = tool("score", shards[0], shards[0], expect=2)
        require("answered more than once" in said, said)
        require("expected K/N" in s.run(server.url, "x", "--shard", "3/2", expect=2)[1], "a shard that is none")


def check_pictures_must_be_there(build):
    with Set(MIXED) as s, FakeServer(lambda body, times: text(str(len(body["image"][0])))) as server:
        os.remove(s.path("p.png"))
        _, said = s.run(server.url, "a", expect=2)
        require("1 pictures are not below the folder of the set, the first: p.png" in said and not server.asked, said)
        out, _ = s.run(server.url, "a", "--stand-in")
        doc, _ = scored(out)
        page = read(out + ".score.json.md").decode()
        require(doc["stand_in"] and "NOT A MEASUREMENT" in page and "published" not in page, page)
        require("stand-in" in lines_of(out)[0]["config"]["images"], "the header names it")
        equal(png_rows(eval_run.stand_in()), [b"\x80" * 64] * 64, "the stand-in")
        out, _ = tool("table", out + ".score.json")
        require("1 run with stand-in pictures left out" in out and "this run" not in out, out)


def check_tables(build):
    """Scored runs as rows of the paper's tables."""
    docs = [{"id": "q%d" % i, "question": "Question %d?" % i, "answer": ("A", "B")[i % 2], "options": ["x", "y"],
             "group": ("CT(Computed Tomography)", "X-Ray")[i // 4]} for i in range(8)]
    with Set(docs) as s, FakeServer(lambda body, times: text("A" if number_of(body) != 7 else "B")) as server:
        out, _ = s.run(server.url, "a", "--paper", "omnimedvqa")
        _, m = scored(out)
        equal(m["option_macro", ""]["value"], 62.5, "mean of 50 and 75")
        page, _ = tool("table", out + ".score.json")
    name = "this run: fake, fp_1, seed 0"
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| this run")]
    equal(rows, [[name, "", "", "", "", "", "", "", "62.5", ""], [name, "50.0", "75.0", "", "", "", "", ""]], "rows")
    require("| HealthGPT-M3 | 73.7 | 55.9 | 74.6 | 56.4 | 78.7 | 39.7 | 43.3 | 68.5 | 61.3 |" in page, page)


def check_bar_and_lines(build):
    class Terminal(io.StringIO):
        isatty = lambda self: True
    equal(progress.bar(50, 200, 10, 0, "", 80), "[" + "#" * 10 + "." * 30 + "] 50/200   25%  5.0/s  0:30 left", "a bar")
    equal(progress.bar(50, 200, 10, 40, "", 0), "50/200   25%  1.0/s  2:30 left", "a line of a run that went on")
    require(all(len(progress.bar(d, 1000, 9.5, 0, "  3 refused", w)) < w for d in (0, 1, 999, 1000) for w in range(12, 120)), "width")
    for out, expected in ((Terminal(), r"(\r\x1b\[K\[[#.]+\] \d/3 .*)+\n"), (io.StringIO(), r"run: 3/3  100%  .*\n")):
        p = progress.Progress("run", 3, 0, out)
        for i in (1, 2, 3):
            p.update(i, 0, 0)
        p.close()
        require(re.fullmatch(expected, out.getvalue()), "%r" % out.getvalue())


# ---- the demo model --------------------------------------------------------------------------------------

class Pneumonia(tempfile.TemporaryDirectory):
    """The sets of pneumonia_mnist.py."""

    def __init__(self, limit):
        if not os.path.exists(NPZ):
            raise Skip("no %s" % NPZ)
        super().__init__()
        equal(pneumonia_mnist.make(NPZ, self.name, limit), limit or 624, "pictures")

    def __enter__(self):
        return self

    def run(self, daemon, file, form, *args, out="out"):
        path = os.path.join(self.name, out)
        tool("run", "--set", os.path.join(self.name, file), "--format", form, "--url", "http://127.0.0.1:%d" % daemon.port, "--out", path, *args)
        return path


def check_pneumonia_accuracy_is_that_of_the_model_card(build):
    """The prompts of tools/demo/evaluate.py, whose number the card of the demo model has."""
    with open(os.path.join(ROOT, "config", "models", "demo", "README.md")) as f:
        card = float(re.search(r"pneumonia yes/no accuracy, 624 images \| [\d.]+ \| [\d.]+ \| ([\d.]+)", f.read()).group(1))
    with Pneumonia(0) as folder, Daemon(build) as d:
        out = folder.run(d, "questions.jsonl", "jsonl", "--max-tokens", "8", "--concurrency", "8")
        doc, m = scored(out)
        got = m["closed", ""]
        equal((got["n"], round(got["value"] * 6.24)), (624, round(card * 624)), "right answers")
        require(doc["config"]["fingerprint"].startswith("fp_") and doc["made"]["server"], "who answered")
        return "%.4f of 624, the card says %.4f" % (got["value"] / 100, card)


def check_demo_routes_labels_and_drawings(build):
    with Pneumonia(12) as folder, Daemon(build) as d:
        run = lambda *args, **kw: folder.run(d, *args, **kw)
        vqa, chat = (run("questions.jsonl", "jsonl", "--max-tokens", "8", "--route", r, out=r) for r in ("vqa", "chat"))
        equal([x["text"] for x in lines_of(chat)[1:]], [x["text"] for x in lines_of(vqa)[1:]], "answers of both routes")
        _, m = scored(run("chexpert.csv", "chexpert", "--max-tokens", "8", out="labels"))
        hits = sum(x["text"] == x["item"]["answers"][0].capitalize() for x in lines_of(os.path.join(folder.name, "labels"))[1:])
        equal(round(m["label_accuracy", ""]["value"] * 12 / 100), hits, "labels")
        drawn = run("reconstruct.jsonl", "pairs", "--limit", "6", out="drawn")
        again = run("reconstruct.jsonl", "pairs", "--limit", "6", "--concurrency", "6", out="again")
        equal(results_of(again), results_of(drawn), "drawings of two runs")
        for line in lines_of(drawn)[1:]:
            data = read(os.path.join(drawn + ".pictures", line["picture"]))
            equal((hashlib.sha256(data).hexdigest(), len(png_rows(data))), (line["picture_sha256"], 64), "a drawing")
        with open(os.path.join(folder.name, "text.jsonl"), "w") as f:
            f.write('{"question": "What is pneumonia?", "answer": "x"}\n'
                    '{"question": "Are both images of the same organ?", "images": ["images/0000.png", "images/0001.png"], "answer": "yes"}\n')
        lines = lines_of(run("text.jsonl", "jsonl", "--max-tokens", "8", out="text"))[1:]
        require(all("error" not in x and x["text"] for x in lines) and len(lines[1]["images_sha256"]) == 2, "no and two pictures: %r" % lines)


def check_drawings_are_compared(build):
    """The gate of the demo model: at least 28 dB, SSIM 0.87."""
    from check_eval_metrics import python_with_libraries
    python = python_with_libraries()
    with Pneumonia(8) as folder, Daemon(build) as d:
        out = folder.run(d, "reconstruct.jsonl", "pairs")
        p = subprocess.run([python, EVAL, "score", out, "--images", folder.name, "--json", out + ".json"], capture_output=True, text=True, timeout=300)
        equal(p.returncode, 0, p.stderr[-500:])
        with open(out + ".json") as f:
            m = {x["key"]: x for x in json.load(f)["metrics"]}
        require(m["psnr"]["value"] >= 28 and m["ssim_gauss"]["value"] >= 87 and m["psnr"]["n"] == 8, "%r" % m)
        return "PSNR %.2f dB, SSIM %.2f" % (m["psnr"]["value"], m["ssim_gauss"]["value"])


def check_public_files_run_with_a_stand_in(build):
    if not os.path.isdir(VQA):
        raise Skip("no question files in %s" % VQA)
    with tempfile.TemporaryDirectory() as folder, Daemon(build) as d:
        for form, name in (("vqa-rad", "vqa-rad_testset.json"), ("slake", "slake_test.json"), ("vqa-med-2019", "vqamed2019_test_w_answers.txt")):
            out = os.path.join(folder, form)
            tool("run", "--set", os.path.join(VQA, name), "--format", form, "--stand-in", "--limit", "30", "--max-tokens", "16", "--url",
                 "http://127.0.0.1:%d" % d.port, "--out", out)
            doc, _ = scored(out)
            equal((doc["answered"], doc["refused"], doc["stand_in"], doc["config"]["paper"]), (30, 0, True, form), "run of " + form)
