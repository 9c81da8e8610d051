"""The operators' port: what it says while loading, serving, full, stalled and draining, and who may ask."""
import http.client
import re
import signal
import socket
import threading

from check_connections import SLOW, connect, draw, read_until
from check_keys import KeyFile, entry
from harness import Daemon, Fail, equal, require, require_error
from opstool import GATEWAY, Loading, OpsDaemon, get, parse, until, value


def check_documents(build):
    with OpsDaemon(build) as d:
        for path, status in (("/livez", "alive"), ("/readyz", "ready"), ("/startupz", "started")):
            code, headers, body = d.ops(path)
            equal((code, body), (200, {"status": status}), path)
            equal((headers["Content-Type"], headers["Cache-Control"]), ("application/json", "no-store"), path)
            code, headers, body = d.ops(path, method="HEAD")
            equal((code, body), (200, b""), "HEAD " + path)
        _, _, version = d.ops("/version")
        health = d.health()
        equal(sorted(version), ["api", "backend", "git", "libmicrohttpd", "model", "openapi", "version", "weights_crc32c"], "members")
        equal((version["model"], version["backend"], version["version"]), (health["model"], health["backend"], health["version"]), "facts")
        require(re.fullmatch(r"[0-9a-f]{8}", version["weights_crc32c"]), version)
        require("crc32c %s\n" % version["weights_crc32c"] in d.log_text(), "the sum that was logged")
        require(re.fullmatch(r"\d+\.\d+\.\d+(\.\d+)?", version["libmicrohttpd"]), version)
        require(version["git"] is None or re.fullmatch(r"[0-9a-f]{7,40}", version["git"]), version)
        for path in ("/livez", "/readyz", "/metrics", "/version"):  # they are not on the main port
            equal(d.request("GET", path)[0], 404, path + " on the main port")


def check_what_is_refused(build):
    with OpsDaemon(build) as d:
        code, _, body = d.ops("/v1/models")
        require_error(code, body, 404, "unknown_route")
        code, headers, body = d.ops("/readyz", method="POST")
        require_error(code, body, 405, "method_not_allowed")
        equal(headers["Allow"], "GET, HEAD", "Allow")
        code, _, body = d.ops("/readyz", {"Host": "evil.example"})
        require_error(code, body, 403, "host_not_allowed")
        for text in (b"GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /rea%00dyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"\x16\x03\x01\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", d.ops_port), 60) as s:
                s.sendall(text)
                got = read_until(s, lambda g: False)
                require(got.startswith(b"HTTP/1.1 400") or got == b"", "%r: %r" % (text, got[:80]))
        equal(d.ready(), (200, None), "afterwards")


def check_loading_is_told_on_both_ports(build):
    with Loading(build) as d:
        equal(get(d.ops_port, "/livez")[0], 200, "/livez")
        for path in ("/readyz", "/startupz"):
            code, _, body = get(d.ops_port, path)
            equal((code, body["reason"], body["phase"], body["percent"], body["eta_s"]), (503, "loading", "weights", 0, None), path)
        code, _, body = get(d.ops_port, "/version")
        equal((code, body["model"], body["weights_crc32c"]), (200, None, None), "/version")
        for is_open in (False, True):
            accept = {"Accept": "application/openmetrics-text"} if is_open else {}
            page = parse(get(d.ops_port, "/metrics", accept)[2].decode(), is_open)
            for name in GATEWAY:
                value(page, name)
            equal((value(page, "healthgpt_loaded"), value(page, "healthgpt_model_load_seconds")), (0, 0), "loaded")
        for method, path in (("GET", "/v1/models"), ("GET", "/health"), ("GET", "/nonsense"), ("POST", "/v1/vqa"), ("POST", "/v1/nonsense")):
            code, headers, body = get(d.port, path, method=method)
            require_error(code, body, 503, "loading")
            require(1 <= int(headers["Retry-After"]) <= 120, headers)
        # An exchange is counted when it is over, a moment after its answer.
        until(lambda: value(parse(get(d.ops_port, "/metrics")[2].decode()), "healthgpt_rejected_total", reason="loading") == 5, "refused")
        page = parse(get(d.ops_port, "/metrics")[2].decode())
        equal(value(page, "healthgpt_requests_total", route="other", code="503"), 5, "by route")
        d.process.send_signal(signal.SIGTERM)
        equal(d.process.wait(60), 0, "exit code")
        equal(d.process.stdout.read(), b"", "it never said that it listens")


def check_beyond_loopback_it_wants_keys_or_insecure(build):
    try:
        with OpsDaemon(build, "--ops-listen", "0.0.0.0:0"):
            require(False, "it started")
    except Fail as e:
        require("ops_listen: 0.0.0.0 is not loopback" in str(e), e)
    with OpsDaemon(build, "--ops-listen", "127.0.0.1:0", "--insecure") as d:
        equal(d.ready(), (200, None), "/readyz")
    with KeyFile(entry("reads", role="reader")) as f:
        # on loopback the operators' port wants no key
        with OpsDaemon(build, "--api-keys", f.path) as d:
            equal(d.ready(), (200, None), "/readyz")
        with WideDaemon(build, "--ops-listen", "0.0.0.0:0", "--api-keys", f.path) as d:
            for path in ("/livez", "/readyz", "/startupz", "/version", "/metrics"):
                code, headers, body = d.ops(path)
                require_error(code, body, 401, "missing_api_key")
                require(headers["WWW-Authenticate"].startswith("Bearer"), headers)
                code, _, body = d.ops(path, {"Authorization": "Bearer hg-nonsense"})
                require_error(code, body, 401, "invalid_api_key")
                equal(d.ops(path, {"Authorization": "Bearer key-of-reads"})[0], 200, path)


class WideDaemon(OpsDaemon):
    """On every address."""

    def log_text(self):
        return super().log_text().replace("http://0.0.0.0:", "http://127.0.0.1:")


def check_port_in_use_is_said(build):
    with OpsDaemon(build) as d:
        try:
            with OpsDaemon(build, "--ops-listen", "127.0.0.1:%d" % d.ops_port):
                require(False, "it started")
        except Fail as e:
            require("ops_listen: cannot listen on http://127.0.0.1:%d: Address already in use" % d.ops_port in str(e), e)


# ---- readiness --------------------------------------------------------------------------------------------

def check_queue_that_is_nearly_full_is_not_ready(build):
    with OpsDaemon(build, *SLOW, "--max-queue", "10", "--max-queue-tokens", "100000") as d:
        streams = [connect(d, draw(0))]
        until(lambda: d.health()["queue"]["running"] == 1, "one runs")
        streams += [connect(d, draw(i)) for i in range(8)]
        until(lambda: d.health()["queue"]["depth"] == 8, "eight wait")
        equal(d.ready(), (200, None), "eight of ten wait")
        streams.append(connect(d, draw(9)))
        until(lambda: d.health()["queue"]["depth"] == 9, "nine wait")
        equal(d.ready(), (503, "queue_full"), "nine of ten wait")
        page = d.metrics()
        equal((value(page, "vllm:num_requests_waiting"), value(page, "vllm:num_requests_running")), (9, 1), "gauges")
        for s in streams:
            s.close()
        until(lambda: d.ready() == (200, None), "ready again")


def check_engine_that_stands_still_is_not_ready(build):
    with OpsDaemon(build, "--step-timeout-s", "60", env={"HG_FAULT": "step_hang:after=40,start=0"},
                   program="healthgptd-faults", expect_exit=None) as d:
        s = connect(d, draw(1))
        until(lambda: d.ready() == (503, "engine_stalled"), "the condition")
        equal(d.ops("/livez")[0], 200, "alive: its own watchdog has the last word")
        equal(d.ops("/startupz")[0], 200, "started")
        s.close()
        d.process.kill()
        d.process.wait(60)
        d.ended = True


def check_drain_is_told_at_once(build):
    with OpsDaemon(build, *SLOW) as d:
        s = connect(d, draw(1))
        read_until(s, lambda g: b'"progress"' in g)
        d.process.send_signal(signal.SIGTERM)
        until(lambda: d.ready() == (503, "draining"), "the condition")
        equal((d.ops("/livez")[0], d.ops("/startupz")[0]), (200, 200), "alive and started")
        require(b'"type":"done"' in read_until(s, lambda g: False), "the stream is finished")
        d.expect_end()


# ---- under pressure ---------------------------------------------------------------------------------------

def check_answers_at_the_connection_limit(build):
    """The main port has no connection left; this one answers, and on many connections at a time."""
    with OpsDaemon(build, "--max-connections", "8", "--http-threads", "1") as d:
        held = [connect(d) for _ in range(8)]
        until(lambda: value(d.metrics(), "healthgpt_connections") == 8, "all are taken")
        late = connect(d, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        results = []

        def ask():
            c = http.client.HTTPConnection("127.0.0.1", d.ops_port, timeout=60)
            for _ in range(25):
                c.request("GET", "/readyz")
                r = c.getresponse()
                results.append((r.status, r.read()))
            c.close()
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(set(results), {(200, b'{"status":"ready"}\n')}, "answers")
        equal(len(results), 200, "answers")
        late.settimeout(0.2)
        try:
            got = late.recv(1)
            require(False, "the main port answered: %r" % got)
        except socket.timeout:
            pass
        for s in held:
            s.close()
        require(b'"status":"ok"' in read_until(late, lambda g: b'"ok"' in g), "the main port goes on")
        late.close()


def check_who_holds_connections_does_not_stop_it(build):
    """Twice as many as it takes, each with half a header that goes on dripping; it answers all the while."""
    with OpsDaemon(build) as d:
        drips = [socket.create_connection(("127.0.0.1", d.ops_port), 60) for _ in range(128)]
        for k in range(6):
            for s in drips:
                try:
                    s.send(b"GET /readyz HTTP/1.1\r\n"[k:k + 1])
                except OSError:
                    pass  # it was cut
            equal(d.ready(), (200, None), "/readyz")
        page = d.metrics()
        equal(value(page, "healthgpt_connections"), 0, "these are not the main port's")
        equal(value(page, "healthgpt_connections_cut_total"), 0, "nor are these cuts")
        for s in drips:
            s.close()


def check_no_port_when_none_is_wanted(build):
    with OpsDaemon(build) as d:
        require("operators' port" in d.log_text(), "log")
    with Daemon(build) as d:
        require("operators' port" not in d.log_text(), "log")
