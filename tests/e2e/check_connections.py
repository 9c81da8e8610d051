"""Connections: pipelines, keep-alive, odd clients, clients that leave at every stage, limits, signals."""
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import ROOT, Daemon, Skip, Slow, b64, equal, is_sanitized, require, test_image, until

HOST = b"Host: localhost\r\n"
SLOW = ("--backend", "ref", "--threads", "1", "--max-batch", "1")
GET = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body, path="/v1/vqa", extra=b"", version=b"1.1"):
    data = json.dumps(body).encode()
    return (b"POST %s HTTP/%s\r\n" % (path.encode(), version) + HOST + extra
            + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)


def draw(seed, stream=True):
    return post({"prompt": "Draw a chest X-ray.", "seed": seed, "stream": stream}, "/v1/draw")


def connect(d, data=b""):
    s = socket.create_connection(("127.0.0.1", d.port), 60)
    s.sendall(data)
    return s


def read_until(s, enough):
    got = b""
    while not enough(got):
        piece = s.recv(65536)
        if not piece:
            break
        got += piece
    return got


def check_pipelined_requests_are_answered_in_order(build):
    ask = {"question": "Hi?", "max_tokens": 2}
    with Daemon(build) as d:
        s = connect(d, GET + post(ask) + post(dict(ask, stream=True)) + GET + post(ask) + post({}) + GET)
        # An error that was found in the body leaves the connection usable.
        got = read_until(s, lambda g: g.count(b'"status":"ok"') == 3)
        order = [k for _, k in sorted((got.find(m, at), m) for m, at in (
            (b'"status":"ok"', 0), (b'"text":', 0), (b'"type":"queued"', 0), (b'"type":"done"', 0),
            (b'"missing_text"', 0)) )]
        equal(order, [b'"status":"ok"', b'"text":', b'"type":"queued"', b'"type":"done"', b'"missing_text"'], "order")
        equal((got.count(b"HTTP/1.1 200"), got.count(b"HTTP/1.1 400")), (6, 1), "answers")
        s.close()


def check_odd_but_valid_clients_are_served(build):
    ask, stream = {"question": "Hi?", "max_tokens": 2}, {"question": "Hi?", "max_tokens": 2, "stream": True}
    with Daemon(build) as d:
        s = connect(d)
        for byte in post(ask):
            s.send(bytes([byte]))
        require(read_until(s, lambda g: b'"text"' in g).startswith(b"HTTP/1.1 200"), "one byte at a time")
        data = post(ask, extra=b"Expect: 100-continue\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        s.sendall(head + b"\r\n\r\n")
        equal(read_until(s, lambda g: b"\r\n\r\n" in g), b"HTTP/1.1 100 Continue\r\n\r\n", "Expect")
        s.sendall(body)
        require(read_until(s, lambda g: b'"text"' in g).startswith(b"HTTP/1.1 200"), "after 100")
        s.close()
        s = connect(d, post(stream, version=b"1.0"))
        got = read_until(s, lambda g: False)
        require(got.rstrip().endswith(b"}") and b"chunked" not in got.lower(), "HTTP/1.0 stream ends with the connection")
        s = connect(d, b"HEAD /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        head, _, body = read_until(s, lambda g: False).partition(b"\r\n\r\n")
        require(b"Content-Length: " in head and not body, "HEAD")
        s = connect(d, b"POST /v1/vqa HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nConnection: close\r\n\r\n")
        require(b"empty text" in read_until(s, lambda g: False), "no body at all")


def check_every_request_ends_once_whenever_its_client_leaves(build):
    whole = draw(1)
    stages = [("mid-header", whole[:30], None), ("headers only", whole[:whole.index(b"\r\n\r\n") + 4], None),
              ("mid-body", whole[:-5], None), ("at once", whole, None), ("plain, at once", draw(2, False), None),
              ("after the head", whole, b"\r\n\r\n"), ("queued", whole, b'"queued"'), ("first", whole, b'"progress"'),
              ("middle", whole, b'"done":30,'), ("picture", whole, b'"image"'), ("done", whole, b'"type":"done"')]
    with Daemon(build) as d:
        accepted = 0
        for reset in (False, True):
            for name, data, until in stages:
                s = connect(d, data)
                if until:
                    require(until in read_until(s, lambda g: until in g), name)
                if reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
                accepted += until is not None
        d.wait_idle()
        last = d.post_ok("/v1/vqa", {"question": "Hi?", "max_tokens": 1})
        made = int(last["id"].split("-")[1])  # requests are numbered as they are made
        r = d.wait_idle()["requests"]
        equal(r["failed"], 0, "failed")
        require(made > accepted, "%d made" % made)
        equal(r["done"] + r["cancelled"], made, "each request has one end: %r" % r)
    return "%d requests, %d cancelled" % (made, r["cancelled"])


def check_readers_that_stop_reading_hold_up_nobody(build):
    with Daemon(build) as d:
        stuck = []
        for i in range(8):  # half of the batch
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            s.connect(("127.0.0.1", d.port))
            s.sendall(draw(i))
            stuck.append(s)
        until(lambda: d.health()["queue"]["running"] + d.health()["requests"]["done"] >= 8, "they have begun")
        ask = {"question": "What is shown?", "image": b64(test_image()), "max_tokens": 4}
        start = time.monotonic()
        d.post_ok("/v1/vqa", ask)
        waited = time.monotonic() - start
        h = d.wait_idle()
        equal(h["requests"], {"done": 9, "failed": 0, "cancelled": 0}, "all of them end")
        for s in stuck:
            s.close()
    return "another client waited %.2f s" % waited


def check_many_connections_at_once(build):
    n = 100 if is_sanitized(build) else 400
    with Daemon(build, "--max-connections", str(n + 20), "--max-queue", "16", "--core-dumps") as d:  # to see its /proc/PID/fd
        sockets = [connect(d, post({"question": "Hi %d?" % i, "max_tokens": 3, "stream": True})) for i in range(n)]
        ends = [read_until(s, lambda g: b'"type":"done"' in g or b'"queue_full"' in g) for s in sockets]
        done = sum(b'"type":"done"' in g for g in ends)
        equal(done + sum(b'"queue_full"' in g for g in ends), n, "an answer for each")
        for s in sockets:
            s.close()
        for _ in range(3):
            for s in [connect(d, draw(1)[:60]) for _ in range(n)]:
                s.close()
        d.wait_idle()

        def open_files():
            return len(os.listdir("/proc/%d/fd" % d.process.pid))
        until(lambda: open_files() < 40, "less than 40 descriptors are open")
        left = open_files()
    return "%d of %d served, the others 503; %d descriptors at the end" % (done, n, left)


def check_connections_over_the_limit_wait_for_their_turn(build):
    with Daemon(build, "--max-connections", "4", "--http-threads", "1") as d:
        idle = [connect(d) for _ in range(4)]
        time.sleep(0.1)
        late = connect(d, GET)
        for s in idle:
            s.close()
        require(b'"status":"ok"' in read_until(late, lambda g: b'"ok"' in g), "served when others left")
        late.close()


def run_daemon(build, *args):
    p = subprocess.run([os.path.join(ROOT, build, "healthgptd"), "--ops-listen", ""] + list(args), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    return p.returncode, p.stdout.decode(), p.stderr.decode()


def check_a_port_in_use_is_said_before_the_model_is_loaded(build):
    with Daemon(build) as d:
        code, out, err = run_daemon(build, "--listen", "127.0.0.1:%d" % d.port, "--model", "/nonexistent")
        equal((code, out), (69, ""), err)
        equal(err, "healthgptd: cannot listen on http://127.0.0.1:%d: Address already in use\n" % d.port, "message")


def check_ipv6_loopback(build):
    if not os.path.exists("/proc/net/if_inet6") or not open("/proc/net/if_inet6").read():
        raise Skip("no IPv6 here")
    p = subprocess.Popen([os.path.join(ROOT, build, "healthgptd"), "--listen", "[::1]:0", "--ops-listen", ""],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    line = p.stdout.readline().decode()
    port = int(line.split("http://[::1]:")[1].split()[0])
    c = http.client.HTTPConnection("::1", port, timeout=60)
    c.request("GET", "/health")
    equal(c.getresponse().status, 200, "over IPv6, Host: [::1]:port")
    c.close()
    p.terminate()
    equal(p.wait(30), 0, "exit code")
    p.stdout.close()


def check_idle_and_half_sent_connections_do_not_delay_the_end(build):
    # Milliseconds, and the 2 s that answers get to leave for a body that never comes; a busy machine
    # may take longer, an idle time-out (75 s) or the whole drain (30 s) is what must not be waited for.
    for data in (b"", GET, b"POST /v1/v", draw(1)[:-5]):
        with Daemon(build) as d:
            s = connect(d, data)
            time.sleep(0.1)
            start = time.monotonic()
            d.process.send_signal(signal.SIGTERM)
            d.expect_end()
            spent = time.monotonic() - start
            require(spent < 20, "%r: %.1f s" % (data[:20], spent))
            s.close()


def check_requests_during_a_drain_get_503_and_a_second_signal_ends_it(build):
    with Slow(build, "--max-batch", "1") as d:
        streams = [connect(d, draw(i)) for i in range(3)]
        kept = connect(d, GET)
        read_until(kept, lambda g: b'"ok"' in g)
        read_until(streams[0], lambda g: b'"progress"' in g)
        d.process.send_signal(signal.SIGTERM)
        until(lambda: "drain" in d.log_text(), "the drain has begun")
        kept.sendall(draw(9))
        got = read_until(kept, lambda g: b'"shutting_down"' in g)
        require(b" 503 " in got and b"Connection: close" in got and b"Retry-After: " in got, "%r" % got[:300])
        start = time.monotonic()
        late = connect(d, draw(10))  # not left hanging in the backlog until the drain is over
        got = read_until(late, lambda g: b'"shutting_down"' in g)
        require(b" 503 " in got and time.monotonic() - start < 10, "a new connection: %r" % got[:100])
        late.close()
        d.process.send_signal(signal.SIGINT)
        results = []
        threads = [threading.Thread(target=lambda s=s: results.append(read_until(s, lambda g: False))) for s in streams]
        for t in threads:
            t.start()
        d.expect_end()
        for t in threads:
            t.join()
        require(all(b'"shutting_down"' in g or b'"type":"done"' in g for g in results), "a last line for each")
        for s in streams + [kept]:
            s.close()
