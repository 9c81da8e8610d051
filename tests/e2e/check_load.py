"""The load generator itself, and the daemon under it: same bytes in any company, every request accounted for."""
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

from harness import ROOT, Daemon, Skip, equal, is_sanitized, require

sys.path.insert(0, os.path.join(ROOT, "tests", "load"))
import equal_bytes  # noqa: E402
from loadtool import answers, command, load, total  # noqa: E402


class SlowServer:
    """Answers one request after the other, each after `seconds`; every `refuse`-th with 503 at once."""

    def __init__(self, seconds, refuse=0):
        turn, state = threading.Lock(), {"n": 0}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                with turn:
                    state["n"] += 1
                    refused = refuse and state["n"] % refuse == 0
                    if not refused:
                        time.sleep(seconds)
                body = json.dumps({"error": {"code": "queue_full"}} if refused else {
                    "text": "Yes", "finish_reason": "stop", "usage": {"completion_tokens": 2}}).encode()
                self.send_response(503 if refused else 200)
                self.send_header("Content-Length", str(len(body)))
                if refused:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


def check_waiting_is_not_omitted(build):
    """40 requests at about twice what the server can do: whoever times from the sending, or waits for an answer before
    the next one, sees 20 ms each; from when they were due the last ones wait for half of all that came before."""
    plain = ("--streamed", "0", "--ask", "0", "--text", "1", "--count", "40", "--deadline-ms", "100")
    with SlowServer(0.02) as s:
        closed = load(build, s, "--concurrency", 1, *plain)["kinds"]["text"]
        open_ = load(build, s, "--rate", 100, *plain)["kinds"]["text"]
    equal((closed["ok"], open_["ok"]), (40, 40), "answers")
    require(closed["total_ms"]["p50"] >= 20, "one after the other: %r" % closed["total_ms"])
    require(open_["total_ms"]["p90"] >= 5 * 20, "open loop: %r" % open_["total_ms"])
    require(open_["good"] < 40, "all within the deadline: %r" % open_)
    return "p90 %.0f ms one after the other, %.0f ms as they come" % (closed["total_ms"]["p90"], open_["total_ms"]["p90"])


def check_refusals_are_counted_apart(build):
    with SlowServer(0.001, refuse=4) as s:
        r = load(build, s, "--concurrency", 2, "--streamed", "0", "--ask", "0", "--text", "1", "--count", "40")
    equal((r["refused"], r["kinds"]["text"]["ok"], r["errors"]), (10, 30, 0), "refused, answered, errors")
    refusals = r["statuses"]["503"]
    equal((refusals["retry_after"], refusals["ms"]["n"]), (10, 10), "503")
    equal(r["kinds"]["text"]["total_ms"]["n"], 30, "latencies are of answers alone")


def check_a_server_that_is_not_there_is_an_error_not_a_crash(build):
    with SlowServer(0) as s:
        port = s.port
    out = subprocess.run(command(build, port, "--count", 5, "--json"), stdout=subprocess.PIPE, check=True).stdout
    equal(json.loads(out)["codes"], {"connection": 5}, "codes")
    for bad in (("--rate", "x"), ("--words", "5..1"), ("--nonsense",), ("--ask", "0"), ("--url", "nowhere"), ("--count",)):
        p = subprocess.run([os.path.join(ROOT, build, "healthgpt-load")] + list(bad), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        equal(p.returncode, 64, "%s: exit" % (bad,))
        require(p.stderr.startswith(b"healthgpt-load: ") and p.stderr.count(b"\n") == 1, "%s: %r" % (bad, p.stderr))


def check_outputs(build):
    with Daemon(build) as d, tempfile.TemporaryDirectory() as folder:
        svg = os.path.join(folder, "plot.svg")
        mix = ("--ask", 4, "--draw", 1, "--count", 12, "--concurrency", 4)
        out = subprocess.run(command(build, d.port, "--plot", svg, *mix), stdout=subprocess.PIPE, check=True).stdout.decode()
        for row in ("ask    first token", "ask    between tokens", "draw   end to end"):
            require(re.search("^" + row + r" +\d+ +[\d.]+ ", out, re.M), "no row %r in %s" % (row, out))
        with open(svg) as f:
            text = f.read()
        require(text.startswith("<svg ") and text.endswith("</svg>\n") and text.count("<polyline") == 6, text[:200])
        got = answers(build, d, *mix)
        equal([a[0] for a in got], list(range(12)), "numbers")
        equal(answers(build, d, *mix), got, "the same load again")


def check_same_bytes_in_any_company(build):
    """The small one of `make load-check`."""
    if "thread" in build:
        raise Skip("2 minutes with arithmetic 50 times slower; check_daemon compares a few answers here too")
    few = is_sanitized(build)
    names = {"batch 3, nothing kept"} if few else {"batch 2, nothing kept", "batch 7, caches cold and warm", "batch 16, one thread"}
    compared, differ, gave_way = equal_bytes.run(build, 40, 40 if few else 80,
                                                 wanted=lambda name: name in names or "512 tokens of KV cache" in name)
    equal(differ, 0, "answers of %d that differ from the same request alone" % compared)
    return "%d answers, 0 differ, %d sequences gave way" % (compared, gave_way)


def check_every_request_of_a_rough_load_is_accounted_for(build):
    """Both tasks, clients that leave (half of them by RST) and that read slowly, more than there is room for. Under
    ThreadSanitizer for half a minute: the log is looked through for what it found."""
    seconds = 30 if "thread" in build else 5
    with Daemon(build, "--max-queue", "16", "--max-batch", "8") as d:
        r = load(build, d, "--rate", 30 if is_sanitized(build) else 150, "--duration", seconds, "--ask", 4, "--text", 3, "--draw", 2,
                 "--edit", 1, "--sampled", "0.5", "--streamed", "0.7", "--previews", 2, "--abandon", "0.2", "--abandon-ms", 30,
                 "--slow", "0.1", "--words", "1..100")
        h = d.wait_idle()
    equal(r["errors"], 0, "errors %r" % r["codes"])
    equal(set(r["statuses"]) - {"503"}, set(), "statuses")
    equal(r["due"], total(r, "ok") + r["refused"] + r["left"] + r["slow"], "requests")
    require(total(r, "ok") > 0 and r["left"] > 0 and r["slow"] > 0, "a load without %r" % r)
    equal(h["requests"]["failed"], 0, "failed")
    return "%d due: %d answered, %d refused, %d left, %d read slowly" % (r["due"], total(r, "ok"), r["refused"], r["left"], r["slow"])
