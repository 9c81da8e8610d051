"""API keys: who gets in, whose cache it is, shares of the work, bounds, a new file at SIGHUP."""
import hashlib
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from harness import ROOT, Daemon, Skip, b64, equal, is_sanitized, require, require_error, test_image

ASK = "/v1/vqa"
DRAW = "/v1/draw"


def entry(name, **limits):
    return dict(limits, name=name, sha256=hashlib.sha256(("key-of-" + name).encode()).hexdigest())


def auth(name):
    return {"Authorization": "Bearer key-of-" + name, "Content-Type": "application/json"}


class KeyFile:
    def __init__(self, *entries):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "keys.json")
        self.write(json.dumps({"keys": entries}))

    def write(self, text):
        with open(self.path + ".new", "w") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.folder.cleanup()


def ask(d, name, body, path=ASK):
    status, headers, data = d.request("POST", path, json.dumps(body), auth(name))
    return status, headers, json.loads(data)


def found(reply):
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def ask_ok(d, name, body, path=ASK):
    status, _, reply = ask(d, name, body, path)
    equal(status, 200, "%s: %r" % (name, str(reply)[:300]))
    return reply


def send_all(d, names, path, body):
    connections = [http.client.HTTPConnection("127.0.0.1", d.port, timeout=120) for _ in names]
    for c in connections:
        c.connect()
    for c, name in zip(connections, names):
        c.request("POST", path, json.dumps(body), auth(name))
    return connections


def receive_all(connections, names):
    answers = []
    for c, name in zip(connections, names):
        r = c.getresponse()
        answers.append((name, r.status, dict(r.getheaders()), json.loads(r.read())))
        c.close()
    return answers


def burst(d, names, path, body):
    """The answers to requests that are all sent before the first is answered."""
    return receive_all(send_all(d, names, path, body), names)


def check_keygen_prints_a_key_once_and_its_line(build):
    def keygen(*args):
        p = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "keygen"] + list(args), capture_output=True,
                           text=True, timeout=60)
        return p.returncode, p.stdout, p.stderr
    code, out, err = keygen("clinic-a")
    equal((code, err), (0, ""), "keygen")
    key = re.search(r": (hg-[\w-]{43})\n", out).group(1)
    line = json.loads(re.search(r"\{.*\}", out).group(0))
    equal(line, {"name": "clinic-a", "sha256": hashlib.sha256(key.encode()).hexdigest()}, "the line")
    require(key not in keygen("clinic-a")[1], "two keys are equal")
    equal(keygen("a b")[0], 64, "exit code with a bad name")
    with KeyFile(line) as f, Daemon(build, "--api-keys", f.path) as d:
        status, _, _ = d.request("GET", "/v1/models", headers={"Authorization": "Bearer " + key})
        equal(status, 200, "status with the fresh key")
        d.stop()
        log = d.log_text()
        d.ended = True
        require(key not in log and "key-of-" not in log, "a key is in the log")


def check_without_a_key_nothing_is_told(build):
    n = 0
    body = json.dumps({"question": "Hi?", "max_tokens": 1})
    with KeyFile(entry("a"), entry("r", role="reader")) as f, \
            Daemon(build, "--api-keys", f.path, "--auth-failures-per-minute", "0") as d:
        for method, path in (("GET", "/v1/models"), ("POST", ASK), ("POST", DRAW), ("GET", "/nothing"), ("PUT", "/v1"),
                             ("POST", "/health"), ("DELETE", "/health"), ("HEAD", "/v1/models")):
            for value, code in ((None, "missing_api_key"), ("Bearer", "missing_api_key"), ("Bearer ", "missing_api_key"),
                                ("Basic a2V5", "missing_api_key"), ("Bearer key-of-b", "invalid_api_key"),
                                ("Bearer key-of-", "invalid_api_key"), ("Bearer " + "x" * 500, "missing_api_key")):
                headers = {"Authorization": value} if value else {}
                status, got, reply = d.request(method, path, body if method == "POST" else None, headers)
                if method != "HEAD":
                    require_error(status, json.loads(reply), 401, code)
                equal((status, got.get("WWW-Authenticate", "")[:6]), (401, "Bearer"), method + " " + path)
                n += 1
        equal(d.request("GET", "/health")[0], 200, "GET /health needs no key")
        two = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + 2 * b"Authorization: Bearer key-of-a\r\n" + b"\r\n"
        require(b" 400 " in d.raw(two).split(b"\r\n")[0], "two Authorization headers")
        ask_ok(d, "a", {"question": "Hi?", "max_tokens": 1})
        equal(d.request("GET", "/v1/models", headers=auth("r"))[0], 200, "a reader reads")
        status, _, reply = ask(d, "r", {"question": "Hi?"})
        require_error(status, reply, 403, "not_allowed")
        equal(d.health()["requests"]["done"], 1, "requests that ran")
    return "%d refusals" % n


def check_caches_never_cross_keys(build):
    """P-07: what one key has asked is neither counted as found nor any faster for another."""
    if is_sanitized(build):
        raise Skip("times under a sanitizer mean nothing; test_caches has the counts")
    # A long prompt, so that finding it shows in the time.
    def body(i):
        return {"question": "Is there a fracture? " * 40 + str(i), "image": b64(test_image(i)), "max_tokens": 1}
    own, cross, cold = [], [], []
    with KeyFile(entry("a"), entry("b"), entry("c")) as f, Daemon(build, "--api-keys", f.path) as d:
        for i in range(15):
            first = ask_ok(d, "a", body(i))
            again = ask_ok(d, "a", body(i))
            other = ask_ok(d, "b", body(i))
            fresh = ask_ok(d, "b", body(1000 + i))
            equal((again["text"], other["text"]), (first["text"], first["text"]), "text")
            # Of two pictures asked about by the same key nothing is shared but what stands before them.
            equal([found(r) for r in (first, other)], [found(fresh)] * 2, "cached tokens of new prompts")
            require(found(fresh) < found(again), "the key's own cache: %d" % found(again))
            own.append(again["timings"]["first_token_ms"])
            cross.append(other["timings"]["first_token_ms"])
            cold.append(fresh["timings"]["first_token_ms"])
    hit, across, miss = (statistics.median(x) for x in (own, cross, cold))
    require(hit < 0.6 * miss, "a hit takes %.1f ms, a miss %.1f: the times show nothing" % (hit, miss))
    require(0.6 * miss < across, "asked by another key before: %.1f ms, never asked: %.1f" % (across, miss))
    return "first token %.1f ms own, %.1f ms other key's, %.1f ms new" % (hit, across, miss)


def check_sighup_reads_the_file_again(build):
    draw = {"prompt": "Draw a chest X-ray.", "seed": 1}
    long = {"question": "Is there a fracture? " * 20, "image": b64(test_image()), "max_tokens": 1}

    def status_of(d, name):
        return d.request("GET", "/v1/models", headers=auth(name))[0]

    def wait_for(what, true):
        end = time.monotonic() + 30
        while not true():
            require(time.monotonic() < end, "never: " + what)
            time.sleep(0.01)
    with KeyFile(entry("a"), entry("b")) as f, Daemon(build, "--api-keys", f.path, "--max-batch", "1") as d:
        ask_ok(d, "a", long)
        def n_known():
            h = d.health()
            return h["queue"]["running"] + h["queue"]["depth"] + h["requests"]["done"]
        sent = send_all(d, ["b"] * 4, DRAW, draw)
        # Twice: one that moves on between two counters is counted in both.
        wait_for("four pictures", lambda: n_known() >= 1 + 4 and n_known() >= 1 + 4)
        f.write(json.dumps({"keys": [entry("c"), dict(entry("a"), name="a-renamed")]}))
        d.process.send_signal(signal.SIGHUP)
        wait_for("the new key", lambda: status_of(d, "c") == 200)
        equal((status_of(d, "a"), status_of(d, "b")), (200, 401), "the key that stayed, the key that went")
        answers = receive_all(sent, ["b"] * 4)
        equal([r[1] for r in answers], [200] * 4, "requests of the key that went")
        require(found(ask_ok(d, "a", long)) > 0, "the tenant is the same")
        f.write('{"keys": [{"name": "c", "sha256": "12"}]}')
        d.process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "keys[0]: sha256: expected 64 hex digits" in d.log_text())
        require("the API keys stay as they were" in d.log_text(), "log")
        equal((status_of(d, "a"), status_of(d, "c")), (200, 200), "the keys of before")
    with Daemon(build) as d:  # without keys it is of no effect
        d.process.send_signal(signal.SIGHUP)
        wait_for("a word in the log", lambda: "no API keys" in d.log_text())
        equal(d.health()["status"], "ok", "alive")


def check_a_broken_key_file_is_refused_at_the_start(build):
    with KeyFile(entry("a"), entry("a")) as f:
        p = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "--listen", "127.0.0.1:0", "--ops-listen", "",
                            "--api-keys", f.path],
                           capture_output=True, text=True, timeout=60)
        equal(p.returncode, 65, "exit code")
        require("keys[1]: name \"a\" is in keys[0] already" in p.stderr, p.stderr)


def check_a_greedy_key_leaves_nine_small_ones_their_share(build):
    """P-22: one key with 24 streams, nine with three; all have work waiting all the time."""
    if is_sanitized(build):
        raise Skip("too slow to keep ten keys busy; test_policy_sim has the shares")
    names = ["greedy"] + ["small%d" % i for i in range(9)]
    tokens, first, refused = dict.fromkeys(names, 0), {n: [] for n in names}, [0]
    lock, running = threading.Lock(), threading.Event()
    running.set()

    def stream(d, name, i):
        n = 0
        while running.is_set():
            n += 1
            status, _, reply = ask(d, name, {"question": "What is in %s %d.%d?" % (name, i, n), "seed": n,
                                             "temperature": 1.5, "max_tokens": 40})
            with lock:
                if status == 200 and running.is_set():
                    tokens[name] += reply["usage"]["total_tokens"] - found(reply)
                    first[name].append(reply["timings"]["first_token_ms"])
                elif status != 200:
                    require_error(status, reply, 429, "rate_limit_exceeded")
                    refused[0] += 1
            if status != 200:
                time.sleep(0.02)
    with KeyFile(*[entry(n) for n in names]) as f, \
            Daemon(build, "--api-keys", f.path, "--max-batch", "4", "--http-threads", "4", "--forget") as d:
        threads = [threading.Thread(target=stream, args=(d, n, i)) for n in names
                   for i in range(24 if n == "greedy" else 3)]
        for t in threads:
            t.start()
        end = time.monotonic() + 60
        while sum(len(x) for x in first.values()) < 250 and time.monotonic() < end:
            time.sleep(0.05)
        running.clear()
        for t in threads:
            t.join()
    fair = sum(tokens.values()) / len(names)
    shares = {n: t / fair for n, t in tokens.items()}
    ttft = [statistics.mean(first[n]) for n in names[1:]]
    require(min(shares[n] for n in names[1:]) >= 0.8, "shares: %r" % shares)
    require(max(ttft) / min(ttft) <= 3, "first tokens: %r" % ttft)
    return "small keys %.2f to %.2f of their fair share, greedy %.2f; first token ratio %.2f; %d refused" % (
        min(shares[n] for n in names[1:]), max(shares[n] for n in names[1:]), shares["greedy"], max(ttft) / min(ttft),
        refused[0])


def check_quota_is_429_and_load_is_503(build):
    draw = {"prompt": "Draw a chest X-ray.", "seed": 1}
    with KeyFile(entry("a"), entry("few", max_queued=1)) as f, \
            Daemon(build, "--api-keys", f.path, "--max-batch", "1", "--max-queue", "6") as d:
        answers = burst(d, ["a"] * 14 + ["few"] * 4, DRAW, draw)
        # Of a: one may run and three wait, for three places in the queue are then left to others.
        n = {(name, code): len([x for x in answers if x[:2] == (name, code)]) for name in ("a", "few")
             for code in (200, 429)}
        equal(sum(n.values()), len(answers), "only 200 and 429: %r" % n)
        require(n["a", 429] >= 7 and n["few", 429] >= 1 and n["a", 200] >= 3 and n["few", 200] >= 1, n)
        for _, status, headers, reply in answers:
            if status == 429:
                require_error(status, reply, 429, "rate_limit_exceeded")
                equal(reply["error"]["type"], "rate_limit_error", "type")
                require(1 <= int(headers["Retry-After"]) <= 90, "Retry-After")
    with Daemon(build, "--max-batch", "1", "--max-queue-tokens", "150") as d:
        equal(d.health()["queue"]["max_tokens"], 150, "max_tokens")
        answers = burst(d, ["nobody"] * 8, DRAW, draw)
        refused = [x for x in answers if x[1] == 503]
        equal(len(refused) + len([x for x in answers if x[1] == 200]), len(answers), "only 200 and 503")
        require(len(refused) >= 4, "%d were refused, though 150 tokens are one picture" % len(refused))
        for _, status, headers, reply in refused:
            require_error(status, reply, 503, "queue_full")
            require("tokens are waiting" in reply["error"]["message"], reply)
            require(1 <= int(headers["Retry-After"]) <= 90, "Retry-After")
        big = d.post_ok(ASK, {"question": "Is it? " * 60, "max_tokens": 4})  # alone, larger than the bound
        require(big["usage"]["prompt_tokens"] > 150, "prompt tokens: %r" % big["usage"])
    return "429: %d of 14 and %d of 4; 503: %d of 8" % (n["a", 429], n["few", 429], len(refused))


def check_refusals_are_quick_beside_a_full_queue(build):
    """A body of 4 MB with a picture in it is neither parsed nor decoded when there is no room."""
    draw = {"prompt": "Draw a chest X-ray.", "seed": 1}
    picture = b64(test_image(0, 1100))
    body = json.dumps({"question": "What?", "image": picture + "A" * (4000000 - len(picture))})
    times = []
    with Daemon(build, "--max-batch", "1", "--max-queue", "1") as d:
        stop = threading.Event()

        def keep_full():
            while not stop.is_set():
                if d.post(DRAW, draw)[0] == 503:
                    time.sleep(0.005)
        threads = [threading.Thread(target=keep_full) for _ in range(4)]
        for t in threads:
            t.start()
        end = time.monotonic() + 60
        while len(times) < 12 and time.monotonic() < end:
            start = time.monotonic()
            status, headers, reply = d.request("POST", ASK, body, {"Content-Type": "application/json"})
            if status == 503:
                times.append(time.monotonic() - start)
                require("Retry-After" in headers and headers.get("Connection") != "close", headers)
            else:  # the queue had room: then it is seen that this is no picture
                require_error(status, json.loads(reply), 400)
        stop.set()
        for t in threads:
            t.join()
    require(len(times) == 12, "%d refusals" % len(times))
    return "4 MB each, median %.0f ms on a busy machine" % (1000 * statistics.median(times))
