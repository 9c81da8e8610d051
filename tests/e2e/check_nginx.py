"""deploy/nginx.conf for real: Debian's nginx on loopback in front of two daemons."""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from check_connections import SLOW, connect, draw, read_until
from harness import ROOT, Daemon, Skip, b64, equal, png, require, require_error
from opstool import until

ASK, DRAW = "/v1/vqa", "/v1/draw"
WRAPPER = """
%(user)s
daemon off;
worker_processes 2;
pid %(folder)s/pid;
error_log %(folder)s/error.log warn;
events { worker_connections 4096; }
http {
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    include %(folder)s/healthgpt.conf;
}
"""


def nginx():
    path = shutil.which("nginx") or (os.path.exists("/usr/sbin/nginx") and "/usr/sbin/nginx")
    if not path:
        raise Skip("nginx is not installed")
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def shipped(port, folder, daemons):
    """The shipped file, with ports of this machine, without TLS and passwords, and no limits that the test itself meets."""
    with open(os.path.join(ROOT, "deploy", "nginx.conf")) as f:
        text = f.read()
    for old, new in ((r"listen 443 ssl;", "listen 127.0.0.1:%d;" % port), (r"ssl_\w+ +[^;]+;", ""), (r"auth_basic [^;]+;", ""),
                     (r"auth_basic_user_file [^;]+;", ""), (r"/var/log/nginx/healthgpt.log", folder + "/access.log"),
                     (r"rate=60r/m", "rate=60000r/m"), (r"burst=20", "burst=2000"), (r"limit_conn healthgpt_conn 8", "limit_conn healthgpt_conn 2000"),
                     (r"127.0.0.1:8080", "127.0.0.1:%d" % daemons[0].port), (r"127.0.0.1:8082", "127.0.0.1:%d" % daemons[1].port)):
        require(re.search("(?m)^[^#]*" + old, text), "deploy/nginx.conf has no " + old)
        text = re.sub(old, new, text)
    return text


class Proxy:
    """`port` leads through nginx to the daemons. edit: what else is changed in the file, (old, new)."""

    def __init__(self, daemons, *edits):
        self.folder = tempfile.TemporaryDirectory()
        name = self.folder.name
        self.port = free_port()
        text = shipped(self.port, name, daemons)
        for old, new in edits:
            require(old in text, old)
            text = text.replace(old, new)
        with open(os.path.join(name, "healthgpt.conf"), "w") as f:
            f.write(text)
        with open(os.path.join(name, "nginx.conf"), "w") as f:
            f.write(WRAPPER % {"folder": name, "user": "user root;" if os.getuid() == 0 else ""})
        self.process = subprocess.Popen([nginx(), "-p", name, "-c", os.path.join(name, "nginx.conf"), "-e", os.path.join(name, "error.log")],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.listens, "nginx: " + self.errors())

    def listens(self):
        require(self.process.poll() is None, "nginx has ended: " + self.errors())
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        except OSError:
            return False

    def text_of(self, name):
        try:
            with open(os.path.join(self.folder.name, name)) as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def errors(self):
        return self.text_of("error.log")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        errors = self.errors()
        self.folder.cleanup()
        if kind is None:
            require(not re.search(r"\[(emerg|alert|crit)\]", errors), errors[-600:])

    request, post, post_ok, raw = Daemon.request, Daemon.post, Daemon.post_ok, Daemon.raw


class Two:
    """Two daemons and nginx in front of them."""

    def __init__(self, build, *args, edits=(), **kw):
        nginx()
        self.daemons = [Daemon(build, *args, **kw) for _ in range(2)]
        self.proxy = Proxy(self.daemons, *edits)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.proxy.__exit__(kind, value, trace)
        for d in self.daemons:
            d.__exit__(kind, value, trace)


def check_what_passes_and_what_does_not(build):
    with Two(build) as t:
        p = t.proxy
        require("text" in p.post_ok(ASK, {"question": "Who are you?", "max_tokens": 4}), "an answer")
        equal(json.loads(p.request("GET", "/v1/models")[2])["object"], "list", "models")
        equal(json.loads(p.request("GET", "/health")[2])["status"], "ok", "health, from loopback")
        for path in ("/metrics", "/readyz", "/livez", "/startupz", "/version", "/nonsense", "/v1", "/.git/config"):
            status, headers, _ = p.request("GET", path)
            equal((status, headers["Server"]), (404, "nginx"), path)
        status, headers, _ = p.request("GET", "/v1/models", headers={"X-Request-Id": "mine-1", "Authorization": "Basic eDp5"})
        got = {k: headers.get(k) for k in ("X-Request-Id", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Server")}
        equal(got, {"X-Request-Id": "mine-1", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
                    "Server": "nginx"}, "headers, once each")
        require("max-age=" in headers["Strict-Transport-Security"], headers)
        _, headers, _ = p.request("GET", "/v1/models", headers={"X-Request-Id": "not <mine>"})
        require(re.fullmatch(r"[0-9a-f]{32}", headers["X-Request-Id"]), headers)
        # errors of the daemon come as they are, with their headers
        status, headers, data = p.request("POST", ASK, b"{", {"Content-Type": "application/json"})
        require_error(status, json.loads(data), 400)
        status, headers, data = p.request("POST", ASK, b"x" * (25 << 20), {"Content-Type": "application/json"})
        require_error(status, json.loads(data), 413, "body_too_large")
        for d in t.daemons:  # one after the other, so that both stop
            d.process.send_signal(signal.SIGTERM)
            d.expect_end()
        status, headers, data = p.request("GET", "/v1/models")
        require_error(status, json.loads(data), 503, "no_replica")
        equal((headers["Retry-After"], len(headers["X-Request-Id"])), ("1", 32), "headers of nginx's own answer")
        require("?" not in p.text_of("access.log"), "a query string in the log")


def check_a_client_that_comes_too_often_gets_429(build):
    with Two(build, edits=(("rate=60000r/m", "rate=60r/m"), ("burst=2000", "burst=3"))) as t:
        answers = [t.proxy.request("GET", "/v1/models") for _ in range(8)]
        equal([a[0] for a in answers[:4]], [200] * 4, "the burst")
        refused = [a for a in answers if a[0] != 200]
        require(len(refused) >= 3, "%r" % [a[0] for a in answers])
        for status, headers, data in refused:
            require_error(status, json.loads(data), 429, "rate_limit_exceeded")
            equal(headers["Retry-After"], "1", "Retry-After")


# ---- streams ----------------------------------------------------------------------------------------------

def lateness(port, seed):
    """Seconds that each line of a stream comes after its time: they are computed at equal distances from the question to the
    last line."""
    with socket.create_connection(("127.0.0.1", port), 60) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start, times, got = time.monotonic(), [], b""
        s.sendall(draw(seed))
        while b'"type":"done"' not in got:
            piece = s.recv(65536)
            require(piece, "cut: %r" % got[-100:])
            got += piece
            times += [time.monotonic() - start] * piece.count(b'"progress"')
    return [t - times[-1] * (k + 1) / len(times) for k, t in enumerate(times)]


def together(port, turn):
    """Of four streams at a time."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return [x for late in pool.map(lambda i: lateness(port, 4 * turn + i), range(4)) for x in late]


def p99(late):
    return 1e3 * sorted(late)[int(0.99 * (len(late) - 1))]


def check_streams_pass_unbuffered(build):
    """Steps of 10 ms; how late lines come, through nginx and beside it. The best of some turns: others use the machine
    too, and can only make it slower."""
    fault = dict(env={"HG_FAULT": "slow_step:ms=10,count=0"}, program="healthgptd-faults")
    turns = []
    with Two(build, "--max-batch", "8", **fault) as t:
        for turn in range(8):
            turns.append([p99(together(port, turn)) for port in (t.daemons[0].port, t.proxy.port)])
            direct, through = (min(x[k] for x in turns) for k in (0, 1))
            if turn > 0 and through - direct <= 20:
                break
        require(through - direct <= 20, "p99 through nginx is %.1f ms, without it %.1f: %r" % (through, direct, turns))
        # With nginx's defaults instead (buffers, HTTP/1.0): this test would see them.
        with Proxy(t.daemons, ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"),
                   ("proxy_http_version 1.1;", "")) as buffered:
            bad = p99(lateness(buffered.port, 1))
            require(bad > direct + 20, "buffering is not seen: %.1f ms" % bad)
    return "p99 of a line's delay: direct %.1f ms, nginx %.1f ms, nginx with buffers %.0f ms" % (direct, through, bad)


def check_a_client_that_leaves_is_cancelled_behind_nginx(build):
    with Two(build, *SLOW) as t:
        s = connect(t.proxy, draw(1))
        read_until(s, lambda g: b'"progress"' in g)
        equal(sum(d.health()["queue"]["running"] for d in t.daemons), 1, "running")
        s.close()
        until(lambda: sum(d.health()["requests"]["cancelled"] for d in t.daemons) == 1, "cancelled")
        equal([d.health()["requests"]["done"] for d in t.daemons], [0, 0], "nothing was finished for nobody")


# ---- bodies -----------------------------------------------------------------------------------------------

def check_bodies_of_two_megabytes_stay_in_memory(build):
    """nginx says so when it writes one to disk, and the folder that it would use does not change."""
    side = 720
    picture = png(side, side, os.urandom(side * side * 3))
    body = {"question": "What is shown?", "image": b64(picture), "max_tokens": 3}
    said = "a client request body is buffered to a temporary file"
    with Two(build) as t:
        folders = [os.path.join(t.proxy.folder.name, n) for n in ("body", "proxy")]
        before = [os.stat(f).st_mtime_ns for f in folders]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: t.proxy.post(ASK, body), range(16)))
        equal({r[0] for r in replies}, {200}, "statuses")
        equal(len({r[2]["text"] for r in replies}), 1, "answers")
        equal([os.stat(f).st_mtime_ns for f in folders], before, "folders for temporary files")
        require("temporary file" not in t.proxy.errors(), t.proxy.errors()[-300:])
        with Proxy(t.daemons, ("client_body_buffer_size 24m;", "client_body_buffer_size 16k;")) as small:
            equal(small.post(ASK, body)[0], 200, "with a small buffer")
            require(said in small.errors(), "a body that is written to disk is not seen: " + small.errors()[-300:])
    return "16 bodies of %.1f MB" % (len(json.dumps(body)) / 1e6)


# ---- replicas that end ------------------------------------------------------------------------------------

def one(port, i):
    """("done" | status | "cut", code): how request i ended for its client."""
    stream = i % 4 == 3
    path, body = (DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}) if i % 5 == 0 else (ASK, {"question": "Who are you?", "max_tokens": 12})
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        c.request("POST", path, json.dumps(dict(body, stream=stream)), {"Content-Type": "application/json"})
        r = c.getresponse()
        data = r.read()
    except (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError) as e:
        return "cut", type(e).__name__
    finally:
        c.close()
    if r.status != 200:
        return r.status, json.loads(data)["error"]["code"]
    last = json.loads(data.strip().split(b"\n")[-1])
    if stream and last["type"] == "error":
        return "error line", last["error"]["code"]
    require("finish_reason" in last or "image" in last, "it looks whole and is not: %r" % data[-200:])
    return "done", None


def run_200(port, at_60):
    """Ends of 200 requests from eight clients; at_60() when sixty have ended."""
    ends, lock, reached = {}, threading.Lock(), threading.Event()
    work = iter(range(200))

    def client():
        while True:
            with lock:
                i = next(work, None)
            if i is None:
                return
            end = one(port, i)
            with lock:
                ends[i] = end
                if len(ends) == 60:
                    reached.set()
    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    require(reached.wait(120), "sixty requests")
    at_60()
    for t in threads:
        t.join()
    equal(len(ends), 200, "requests that ended")
    return ends


def tally(ends):
    counts = {}
    for end in ends.values():
        counts[end] = counts.get(end, 0) + 1
    return counts


def check_a_drained_replica_loses_none_of_200(build):
    """Plain requests and streams, of which the replica has some running and waiting: what has begun to answer is finished, what
    waits is answered 503 and asked again."""
    with Two(build, "--max-batch", "3", env={"HG_FAULT": "slow_step:ms=1,count=0"}, program="healthgptd-faults") as t:
        first = t.daemons[0]
        streams = [connect(first, draw(i)) for i in range(4)]
        begun = [read_until(s, lambda g: b'"queued"' in g) for s in streams]
        ends = run_200(t.proxy.port, lambda: first.process.send_signal(signal.SIGTERM))
        equal(tally(ends), {("done", None): 200}, "ends")
        for got, s in zip(begun, streams):
            require(b'"type":"done"' in got + read_until(s, lambda g: b'"type":"done"' in g), "a stream that ran")
            s.close()
        first.expect_end()
        after = t.daemons[1].health()["requests"]["done"]
        require(after >= 70, "the other one did %d" % after)
    return "200 of 200, the other replica did %d" % after


def check_a_killed_replica_fails_none_silently(build):
    """Plain requests are asked again; a stream that had begun is seen to break: its last chunk is not there."""
    seen = {"done": 0, "broken": 0}
    with Two(build, "--max-batch", "16", env={"HG_FAULT": "slow_step:ms=2,count=0"}, program="healthgptd-faults") as t:
        def kill():
            streams = [connect(t.proxy, draw(i)) for i in range(6)]
            begun = [read_until(s, lambda g: b'"progress"' in g) for s in streams]
            t.daemons[0].process.kill()
            t.daemons[0].process.wait(60)
            t.daemons[0].ended = True
            for s, got in zip(streams, begun):
                got += read_until(s, lambda g: g.endswith(b"\r\n0\r\n\r\n"))
                whole = got.endswith(b"\r\n0\r\n\r\n")
                equal(b'"type":"done"' in got, whole, "a stream that looks whole: %r" % got[-100:])
                seen["done" if whole else "broken"] += 1
                s.close()
        counts = tally(run_200(t.proxy.port, kill))
        equal([end for end in counts if end[0] not in ("done", "cut")], [], "ends: %r" % counts)
        require(seen["broken"] > 0, "none of six streams ran in the replica that was killed")
        cut = sum(n for end, n in counts.items() if end[0] == "cut")
        require(cut <= 8, "more were cut than ran: %r" % counts)  # one a client
        equal(t.proxy.request("GET", "/v1/models")[0], 200, "the other one goes on")
    return "%d of 200 done, %d streams seen to break; of six more %r" % (200 - cut, cut, seen)
