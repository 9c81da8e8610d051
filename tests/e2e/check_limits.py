"""Limits of connections and chunks (T-02, reliability section 8), and docs/limits.md, which names them all."""
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import threading
import time

from harness import ROOT, Daemon, Skip, b64, equal, is_sanitized, require, test_image

HOST = b"Host: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
ASK = b'{"question":"Hi?","max_tokens":1}'
CHUNKED = (b"POST /v1/vqa HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
           b"Transfer-Encoding: chunked\r\n\r\n")


def post(body):
    return (b"POST /v1/vqa HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body) + body)


def connect(d, data=b"", source="127.0.0.1"):
    s = socket.create_connection(("127.0.0.1", d.port), 60, (source, 0))
    s.sendall(data)
    return s


def answer(s):
    """Head and body of one answer; b"" when the server closes first."""
    got = b""
    try:
        while b"\r\n\r\n" not in got:
            piece = s.recv(65536)
            if not piece:
                return got, b""
            got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        n = int(re.search(rb"content-length: (\d+)", head, re.I).group(1))
        while len(body) < n:
            body += s.recv(65536)
        return head, body
    except ConnectionResetError:
        return got, b""


def closed(s):
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def check_a_connection_ends_after_idle_time_requests_and_life(build):
    with Daemon(build, "--connection-requests", "5") as d:
        s = connect(d)
        for i in range(5):
            s.sendall(GET if i % 2 else post(ASK))
            head, _ = answer(s)
            require(head.startswith(b"HTTP/1.1 200"), "answer %d: %r" % (i, head[:80]))
            equal(b"connection: close" in head.lower(), i == 4, "Connection: close on answer %d" % i)
        require(closed(s), "the connection stays open")
        s = connect(d, GET * 8)
        got = b""
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
        equal(got.count(b"HTTP/1.1 200"), 5, "answers of a pipeline")
    with Daemon(build, "--idle-timeout-s", "1") as d:
        s = connect(d, GET)
        start = time.monotonic()
        answer(s)
        require(closed(s), "an idle connection stays open")
        idle = time.monotonic() - start
        require(idle >= 0.9, "closed after %.1f s of 1 s" % idle)
    with Daemon(build, "--connection-s", "1") as d:
        s, n = connect(d), 0
        start = time.monotonic()
        while True:
            s.sendall(GET)
            head, _ = answer(s)
            n += 1
            if b"connection: close" in head.lower():
                break
            require(time.monotonic() - start < 60, "no end")
            time.sleep(0.1)
        require(time.monotonic() - start >= 0.9 and n > 1, "ended after %d requests" % n)
        require(closed(s), "the connection stays open")
    with Daemon(build, "--connection-requests", "1") as d:
        _, headers = d.stream("/v1/vqa", {"question": "Hi?", "max_tokens": 1})
        equal(headers.get("Connection"), "close", "Connection of a stream")
    return "idle for %.1f s of 1 s" % idle


def check_connections_of_one_address(build):
    with Daemon(build, "--max-connections-per-address", "3") as d:
        held = [connect(d, GET) for _ in range(3)]
        require(all(answer(s)[0].startswith(b"HTTP/1.1 200") for s in held), "three are served")
        try:
            equal(answer(connect(d, GET))[0], b"", "the fourth of an address")
        except (ConnectionResetError, BrokenPipeError):
            pass
        other = connect(d, GET, source="127.0.0.2")
        require(answer(other)[0].startswith(b"HTTP/1.1 200"), "another address")
        held[0].close()
        end = time.monotonic() + 30
        while True:
            try:
                if answer(connect(d, GET))[0].startswith(b"HTTP/1.1 200"):
                    break
            except (ConnectionResetError, BrokenPipeError):
                pass
            require(time.monotonic() < end, "no place after one has left")
            time.sleep(0.01)


def check_those_without_headers_do_not_take_every_place(build):
    with Daemon(build, "--max-connections", "64") as d:
        held = [connect(d, GET[:i % len(GET)]) for i in range(60)]
        start = time.monotonic()
        for _ in range(10):
            equal(d.health()["status"], "ok", "a client in the crowd")
        spent = time.monotonic() - start
        h = d.health()
        require(44 <= h["cut"]["crowded"] <= 60, "cut: %r" % h["cut"])
        head, body = answer(held[0])
        require(b" 408 " in head and b"request_timeout" in body, "the oldest: %r" % head[:80])
        for s in held:
            s.close()
    return "%d of 60 made room; 10 requests beside them took %.0f ms" % (h["cut"]["crowded"], spent * 1e3)


def check_chunks_are_counted_and_cost_no_memory(build):
    def body(n):
        """n chunks of one byte each; the first ones are a question, the others blanks."""
        return b"".join(b"1\r\n%c\r\n" % c for c in ASK) + b"1\r\n \r\n" * (n - len(ASK)) + b"0\r\n\r\n"

    def send(d, data):
        s = connect(d)
        try:
            s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer(s)

    with Daemon(build) as d:
        head, _ = send(d, CHUNKED + body(65536))
        require(head.startswith(b"HTTP/1.1 200"), "65,536 chunks: %r" % head[:80])
        head, text = send(d, CHUNKED + body(65537))
        require(head.startswith(b"HTTP/1.1 400") and b"too_many_chunks" in text, "65,537 chunks: %r" % head[:80])
        flood = CHUNKED + body(1000000)
        send(d, flood)
        before = d.status_kb("VmRSS")
        for _ in range(2 if is_sanitized(build) else 20):
            head, text = send(d, flood)
            require(head.startswith(b"HTTP/1.1 400") and b"too_many_chunks" in text, "1 M chunks: %r" % head[:80])
        grown = d.status_kb("VmRSS") - before
        require(grown < 1024 or is_sanitized(build), "grown by %d KiB" % grown)
        equal(d.health()["status"], "ok", "after the flood")
    return "grown by %d KiB after 20 x 1 M chunks" % grown


def check_requests_that_the_library_gives_up_leave_nothing(build):
    """libmicrohttpd 0.9.75 does not tell of the end of a request with more parameters than it has memory for."""
    data = GET.replace(b"/health", b"/health?" + b"a&" * 1000)

    def send(d, n):
        for _ in range(n):
            require(closed(connect(d, data)), "it stays open")

    with Daemon(build) as d:
        send(d, 200)
        before = d.status_kb("VmRSS")
        send(d, 4000)
        grown = d.status_kb("VmRSS") - before
        require(grown < 1024 or is_sanitized(build), "grown by %d KiB" % grown)
        start = time.monotonic()
        equal(d.stop(), 0, "exit code")  # and no ALERT of what has not ended
        d.ended = True
    return "grown by %d KiB after 4,000; end after %.2f s" % (grown, time.monotonic() - start)


def check_json_and_text_have_bounds(build):
    """One step below and one beyond."""
    def chat(n):
        return {"messages": [{"role": "user" if i % 2 == 0 else "assistant", "content": "x"} for i in range(n)] +
                            [{"role": "user", "content": "x"}] * (n % 2 == 0), "max_tokens": 1}

    def nested(n):
        return '{"question":"x","user":' + '{"a":' * (n - 1) + "1" + "}" * n

    def many(n):
        """n values and keys: the object, a key and its value, then an array and its elements."""
        return '{"messages":[{"role":"user","content":"x"}],"max_tokens":1,"metadata":[' + ",".join(["1"] * n) + "]}"

    image = b64(test_image())
    with Daemon(build) as d:
        for body, code in ((nested(32), "invalid_type"), (nested(33), "invalid_json")):
            status, _, reply = d.post("/v1/vqa", body)
            equal((status, reply["error"]["code"]), (400, code), "depth")
        low, high = 19000, 20001  # where it begins is counted here, not said
        require(d.post("/v1/chat/completions", many(low))[0] == 200, "%d values" % low)
        status, _, reply = d.post("/v1/chat/completions", many(high))
        equal((status, reply["error"]["code"]), (400, "invalid_json"), "%d values" % high)
        for n, expected in (((256 << 10), "too_large"), ((256 << 10) + 1, "text_too_large")):
            status, _, reply = d.post("/v1/vqa", {"question": "x" * n})
            equal((status, reply["error"]["code"]), (413, expected), "%d bytes of text" % n)
        equal(d.post("/v1/chat/completions", chat(63))[0], 200, "63 messages")
        status, _, reply = d.post("/v1/chat/completions", chat(65))
        equal((status, reply["error"]["code"]), (400, "too_many_messages"), "65 messages")
        equal(d.post("/v1/vqa", {"question": "x", "images": [image] * 4, "max_tokens": 1})[0], 200, "4 images")
        status, _, reply = d.post("/v1/vqa", {"question": "x", "images": [image] * 5, "max_tokens": 1})
        equal((status, reply["error"]["code"]), (400, "too_many_images"), "5 images")


def first_token_ms(d):
    """Until the first line of an answer, on a connection of its own."""
    start = time.monotonic()
    with connect(d, post(b'{"question":"Hi?","max_tokens":1,"stream":true}')) as s:
        got = b""
        while b'"token"' not in got:
            piece = s.recv(65536)
            require(piece, "no token: %r" % got[-200:])
            got += piece
    return (time.monotonic() - start) * 1e3


def drip(stop, sockets, data):
    """One byte of `data` for each of them now and then."""
    at = 0
    while not stop.wait(0.2):
        for s in sockets:
            try:
                s.send(data[at:at + 1])
            except OSError:
                pass
        at += 1


def check_two_thousand_who_wait_and_drip_hold_up_nobody(build):
    n = 100 if is_sanitized(build) else 1000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < 6 * n:
        raise Skip("only %d descriptors" % most)
    before_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (6 * n, most))
    stop, held = threading.Event(), []
    try:
        with Daemon(build) as quiet, Daemon(build, "--max-connections", str(4 * n + 64), "--header-timeout-s", "60",
                                            "--body-timeout-s", "60") as d:
            first_token_ms(quiet)
            first_token_ms(d)
            for i in range(n):  # half have asked once and stay, half have never said anything
                held += [connect(d, GET), connect(d)]
            for s in held[::2]:
                require(answer(s)[0].startswith(b"HTTP/1.1 200"), "asked once")
            slow = [connect(d, GET[:20]) for _ in range(20)] + [connect(d, post(ASK)[:-20]) for _ in range(20)]
            slow[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            held += slow
            threading.Thread(target=drip, args=(stop, slow, b"x" * 1000), daemon=True).start()
            h = d.health()
            require(h["open"]["connections"] >= 2 * n, "held: %r" % h["open"])
            # A daemon without them is asked in turn, so that both have the same share of a busy machine.
            for _ in range(5):
                pairs = [(first_token_ms(d), first_token_ms(quiet)) for _ in range(15)]
                beside, alone = (statistics.median(p[i] for p in pairs) for i in (0, 1))
                if beside <= max(2 * alone, 20):
                    break
            else:
                require(False, "first token after %.1f ms, alone %.1f ms" % (beside, alone))
    finally:
        stop.set()
        for s in held:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before_limit)
    return "first token after %.1f ms beside %d connections, %.1f ms alone" % (beside, h["open"]["connections"], alone)


def rows():
    with open(os.path.join(ROOT, "docs", "limits.md"), encoding="utf-8") as f:
        for line in f:
            cells = [c.strip() for c in line.strip().strip("|").split("|")]
            if line.startswith("|") and cells[0] not in ("what", "---"):
                yield cells


def check_the_page_of_limits_is_true(build):
    text = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "--help"], stdout=subprocess.PIPE).stdout.decode()
    with open(os.path.join(ROOT, "config", "schema.json"), encoding="utf-8") as f:
        known = json.load(f)["properties"]
    n = 0
    for what, default, flag, _, check in rows():
        n += 1
        if flag:
            name = flag.strip("`")
            require(name in text, "%s: there is no %s" % (what, name))
            key = known[name[2:].replace("-", "_")]
            if re.fullmatch(r"\d+", default):
                equal(str(key["default"]), default, "default of " + name)
        module, _, function = check.partition(": ")
        with open(os.path.join(ROOT, "tests", "e2e", module + ".py"), encoding="utf-8") as f:
            require("def check_%s(" % function in f.read(), "%s: there is no %s" % (what, check))
    require(n >= 15, "%d rows" % n)
    return "%d limits" % n
