"""Clients that leave at every point, drip, or do not read: the slot is free at once, the connection is cut, nothing leaks,
nobody else notices. What is measured comes from /health."""
import json
import os
import random
import re
import socket
import struct
import threading
import time

from check_connections import GET, HOST, SLOW, connect, draw, post, read_until
from harness import Daemon, Fail, b64, equal, is_sanitized, require, test_image

NOBODY = {"requests": 0, "working": 0, "connections": 1}
CLOSE, RESET, HALF = "close", "reset", "half"


class Watch:
    """/health over one connection of its own."""

    def __init__(self, d):
        self.daemon = d
        self.socket = connect(d)
        self.look()  # from here on it is a connection that is kept alive

    def look(self):
        self.socket.sendall(GET)
        got = read_until(self.socket, lambda g: g.endswith(b"}\n") or g.endswith(b'"}'))
        head, _, body = got.partition(b"\r\n\r\n")
        if b"Connection: close" in head:  # the last of its 1,000 requests
            self.socket.close()
            self.socket = connect(self.daemon)
        return json.loads(body)

    def wait(self, holds, seconds=30):
        """The first state for which `holds`, and after how many seconds it was there."""
        start = time.monotonic()
        while True:
            h = self.look()
            spent = time.monotonic() - start
            if holds(h):
                return h, spent
            if spent > seconds:
                raise Fail("after %.0f s still %r" % (spent, {k: h[k] for k in ("queue", "open", "cut")}))
            time.sleep(0.001)

    def close(self):
        self.socket.close()


def leave(s, way):
    if way == HALF:
        s.shutdown(socket.SHUT_WR)
        return
    if way == RESET:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def gaps(d, data):
    """Seconds between the lines of an undisturbed stream: [(type of the line, gap before it)]."""
    s, got, at, out = connect(d, data), b"", time.monotonic(), []
    while b'"type":"done"' not in got:
        line = read_until(s, lambda g: b"\n" in g)
        now = time.monotonic()
        require(line, "the stream has broken off")
        got += line
        kinds = [piece.split(b'"')[0].decode() for piece in line.split(b'{"type":"')[1:]]
        out += [(kind, 0 if i else now - at) for i, kind in enumerate(kinds)]
        at = now
    s.close()
    return out


def longest(lines, kind):
    return max(gap for name, gap in lines if name == kind)


def before_token(lines):
    """Seconds until the first token, and the longest between two lines on the way."""
    found = []
    for kind, gap in lines[1:]:
        found.append(gap)
        if kind == "token":
            break
    return sum(found), max(found)


def ask(n_sentences, n_images=0, stream=True):
    return post({"question": "Is there an opacity? " * n_sentences, "max_tokens": 2, "stream": stream,
                 "images": [b64(test_image(i)) for i in range(n_images)]})


def grow(seed, previews):
    return post({"prompt": "Draw a chest X-ray.", "seed": seed, "stream": True, "previews": previews},
                "/v1/draw")


def points_of_life(d):
    """(name, bytes to send, bytes to wait for, further seconds, longest piece of work there, behind another request)."""
    prefill, vision, picture = ask(40), ask(4, 2), grow(1, 1)
    lines = gaps(d, prefill), gaps(d, vision), gaps(d, picture)
    (first, first_step), (seen, seen_step) = before_token(lines[0]), before_token(lines[1])
    step = longest([x for x in lines[2][2:] if x[1] < longest(lines[2], "preview") / 2], "progress")
    render = max(longest(lines[2], "preview"), longest(lines[2], "image"))
    upload = post({"question": "x" * 100000})
    body = upload.index(b"\r\n\r\n") + 4
    fractions = (0, 0.1, 0.3, 0.5, 0.7, 0.9)
    points = [("upload, byte %d" % n, upload[:n], None, 0.01, 0, False)
              for n in (10, body, body + 1000, body + 50000, len(upload) - 1000, len(upload) - 1)]
    points += [("queued %d" % i, data, until, 0.02, 0, True) for i, (data, until) in enumerate(
        [(draw(i), b'"queued"') for i in range(3)] + [(draw(4, False), None), (prefill, b'"queued"')])]
    points += [("prefill, %.1f" % f, prefill, b'"queued"', f * first, first_step, False) for f in fractions]
    points += [("vision, %.1f" % f, vision, b'"queued"', f * seen, seen_step, False) for f in fractions]
    points += [("answer, token %d" % n, ask(1), b'"token"', 0, step, False) for n in range(2)]
    points += [("image token %d" % n, draw(n), b'"done":%d,' % n, 0, step, False)
               for n in (1, 2, 5, 10, 20, 30, 40, 50, 60)]
    points += [("preview, %.1f" % f, picture, b'"done":32,', f * render, render, False) for f in (0.3, 0.8)]
    points += [("picture decode, %.1f" % f, draw(9), b'"done":64,', f * render, render, False) for f in (0.1, 0.5)]
    points += [("final picture", draw(10), b'"image"', 0, 0, False), ("last line", draw(11), b'"type":"done"', 0, 0, False)]
    points += [("plain, %.1f" % f, draw(12, False), None, f * render, render, False) for f in (0.2, 0.9)]
    points += [("idle, kept alive", GET, b'"status"', 0, 0, False), ("idle, nothing sent", b"", None, 0.01, 0, False)]
    return points


def slot_is_free(w, d, point, way):
    """Seconds from leaving to a free slot, and those that are allowed."""
    _, data, until, more, piece, behind = point
    blocker = None
    if behind:
        blocker = connect(d, grow(77, 8))
        w.wait(lambda h: h["queue"]["running"] == 1)
    s = connect(d, data)
    if until:
        require(until in read_until(s, lambda g: until in g), "%s: the stream has broken off" % point[0])
    time.sleep(more)
    before = 1 if behind else 0
    leave(s, way)
    _, spent = w.wait(lambda h: h["open"]["requests"] <= before and h["queue"]["depth"] == 0 and
                      h["open"]["connections"] <= 1 + before)
    if way == HALF:
        s.close()
    if behind:
        blocker.close()
    w.wait(lambda h: h["open"] == NOBODY)
    return spent, 0.1 + piece


def check_slots_are_free_at_once_wherever_a_client_leaves(build):
    ways = (CLOSE, RESET, HALF)
    spent, repeated, n_must = [], 0, 0
    with Daemon(build, *SLOW, "--forget") as d:
        w = Watch(d)
        points = points_of_life(d)
        require(len(points) >= 40, "%d points" % len(points))
        blocks = w.wait(lambda h: h["open"] == NOBODY)[0]["kv"]
        for i in range(0, len(points), 9 if "thread" in build else 4 if is_sanitized(build) else 1):
            for attempt in range(4):
                took, allowed = slot_is_free(w, d, points[i], ways[(i + attempt) % 3])
                n_must += points[i][0].split(",")[0].split()[0] in ("queued", "prefill", "vision")
                if took <= allowed or is_sanitized(build):
                    break
                # On a busy machine the measurement is late as well, and steps are longer now.
                repeated += 1
                points = points_of_life(d)
                w.wait(lambda h: h["open"] == NOBODY)
            else:
                raise Fail("%s: %.0f ms, allowed are 100 ms + one step = %.0f ms" % (points[i][0], took * 1e3,
                                                                                  allowed * 1e3))
            spent.append((took, took - allowed + 0.1))
        h, _ = w.wait(lambda h: h["open"] == NOBODY)
        w.close()
        require(h["requests"]["cancelled"] >= n_must, "%d must have been cancelled: %r" % (n_must, h["requests"]))
        require(h["cut"]["gone"] >= n_must, "%d must have been seen: %r" % (n_must, h["cut"]))
        equal(h["requests"]["failed"], 0, "failed")
        equal((h["ledger"]["accepted"] - h["ledger"]["ended"], h["ledger"]["ended_twice"]), (0, 0), "ledger")
        equal(h["kv"], blocks, "KV blocks")
    took = sorted(t for t, _ in spent)
    return "%d points: median %.0f ms, most %.0f ms, most beyond one step %.0f ms; %d measured again" % (
        len(took), took[len(took) // 2] * 1e3, took[-1] * 1e3, max(b for _, b in spent) * 1e3, repeated)


def abort_some(d, n, seed, errors):
    rng = random.Random(seed)
    try:
        for i in range(n):
            data = rng.choice((draw(i), draw(i, False), grow(i, 2), ask(3, 1), ask(10), GET))
            until = rng.choice((None, b"\r\n\r\n", b'"queued"', b'"token"', b'"done":5,', b'"done":50,'))
            if rng.random() < 0.2:
                data, until = data[:rng.randrange(len(data))], None
            s = connect(d, data)
            if until:
                read_until(s, lambda g: until in g or g.endswith(b"}\n") or (b" 503 " in g and b"}" in g)
                           or b'"notice"' in g)
            leave(s, rng.choice((CLOSE, RESET, HALF)))
            s.close()
    except Exception as e:
        errors.append(repr(e))


def aborts(d, n, seed):
    errors = []
    threads = [threading.Thread(target=abort_some, args=(d, n // 4, seed * 4 + i, errors)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal(errors, [], "what went wrong at the clients")


def check_a_thousand_aborts_leak_nothing(build):
    n = 100 if is_sanitized(build) else 1000
    with Daemon(build, "--threads", "1", "--max-batch", "4", "--max-queue", "16", "--forget", "--core-dumps") as d:
        w = Watch(d)
        aborts(d, n // 4, 1)
        h, _ = w.wait(lambda h: h["open"] == NOBODY)
        files, kib, accepted = len(os.listdir("/proc/%d/fd" % d.process.pid)), d.status_kb("VmRSS"), h["ledger"]["accepted"]
        aborts(d, n, 2)
        h, _ = w.wait(lambda h: h["open"] == NOBODY)
        growth = d.status_kb("VmRSS") - kib
        equal(len(os.listdir("/proc/%d/fd" % d.process.pid)), files, "open descriptors")
        w.close()
        equal(h["kv"]["free"], h["kv"]["blocks"], "free KV blocks")
        r, ledger = h["requests"], h["ledger"]
        require(ledger["accepted"] - accepted > n // 4, "requests that were accepted: %r" % ledger)
        equal((ledger["ended"], r["done"] + r["failed"] + r["cancelled"]), (ledger["accepted"],) * 2, "ends")
        equal((r["failed"], ledger["stalled"], ledger["ended_twice"]), (0, 0, 0), "failed, stalled, ended twice")
        if not is_sanitized(build):
            require(growth < 1024, "grew by %d KiB" % growth)
    return "%d accepted, %d cancelled, %d descriptors, grew by %d KiB" % (
        ledger["accepted"] - accepted, r["cancelled"], files, growth)


def check_a_half_closed_client_is_told_and_ended(build):
    with Daemon(build, *SLOW) as d:
        w = Watch(d)
        for stream in (True, False):
            data = grow(1, 8) if stream else draw(1, False)
            s = connect(d, data)
            w.wait(lambda h: h["queue"]["running"] == 1)
            s.shutdown(socket.SHUT_WR)
            got = read_until(s, lambda g: False)
            # libmicrohttpd 0.9.75 closes instead of writing an answer that has not begun.
            require(b'"type":"error"' in got if stream else not got or b" 499 " in got, "%r" % got[-300:])
            require(not got or b'"client_closed"' in got, "%r" % got[-300:])
            s.close()
        s = connect(d, GET)
        s.shutdown(socket.SHUT_WR)  # what is answered at once is answered
        require(b'"status":"ok"' in read_until(s, lambda g: False), "a question that needs no work")
        s.close()
        h, _ = w.wait(lambda h: h["open"] == NOBODY)
        equal((h["requests"]["cancelled"], h["cut"]["gone"]), (2, 2), "cancelled, gone")
        w.close()


def drip(s, data, seconds):
    """One byte at a time until the server ends it: what it said, and after how many seconds."""
    start = time.monotonic()
    s.settimeout(0.05)
    got = b""
    for byte in data:
        try:
            s.send(bytes([byte]))
            got += s.recv(65536)
        except socket.timeout:
            pass
        except OSError:
            break
        if got or time.monotonic() - start > seconds:
            break
    spent = time.monotonic() - start
    require(spent < seconds, "not cut within %.0f s" % seconds)
    return got, spent


def check_slow_senders_are_cut(build):
    with Daemon(build, "--header-timeout-s", "1", "--body-timeout-s", "2") as d:
        w = Watch(d)
        long = post({"question": "x" * 5000})
        at = long.index(b"\r\n\r\n") + 4
        silent = connect(d)
        half = connect(d, long[:at + 20])
        header = b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 5000
        got, spent = drip(connect(d), header, 60)
        require(spent >= 0.9 and (not got or b" 408 " in got), "headers: %.1f s, %r" % (spent, got[:100]))
        body = connect(d, long[:at])
        said, longer = drip(body, long[at:], 60)
        require(longer >= 1.9 and (not said or b" 408 " in said), "body: %.1f s, %r" % (longer, said[:100]))
        for s in (silent, half):
            require(b" 408 " in read_until(s, lambda g: False), "nothing more is sent")
            s.close()
        h, _ = w.wait(lambda h: h["open"] == NOBODY)
        equal((h["cut"]["slow_header"], h["cut"]["slow_body"]), (2, 2), "cut")
        require("cut after 1." in d.log_text() and "slow_header" in d.log_text() and "slow_body" in d.log_text(), "log")
        d.post_ok("/v1/vqa", {"question": "Hi?", "max_tokens": 1})
        w.close()
    return "headers after %.1f s of 1 s, body after %.1f s of 2 s" % (spent, longer)


def small_socket(d):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    s.connect(("127.0.0.1", d.port))
    return s


def check_who_does_not_read_is_cut(build):
    with Daemon(build, "--send-timeout-s", "1", "--max-unsent-kib", "4") as d:
        w = Watch(d)
        stream, plain, flood = (small_socket(d) for _ in range(3))
        stream.sendall(grow(1, 8))
        plain.sendall(post({"prompt": "Draw a chest X-ray.", "seed": 2}, "/v1/draw") * 20)
        threading.Thread(target=lambda: swallow(lambda: flood.sendall(GET * 2000)), daemon=True).start()
        h, spent = w.wait(lambda h: h["open"] == NOBODY, 60)
        cut = h["cut"]["not_reading"] + h["cut"]["slow_reading"]
        equal(cut, 3, "cut: %r" % h["cut"])
        equal(d.log_text().count("s: not_reading") + d.log_text().count("s: slow_reading"), 3, "lines of the log")
        equal(h["ledger"]["accepted"], h["ledger"]["ended"], "ends")
        for s in (stream, plain, flood):
            s.close()
        # Who reads slowly, but reads, gets all of it.
        slow = small_socket(d)
        slow.sendall(grow(1, 8))
        got = b""
        while b'"type":"done"' not in got:
            piece = slow.recv(1000)
            require(piece, "a slow reader was cut after %d bytes" % len(got))
            got += piece
            time.sleep(0.005)
        slow.close()
        w.close()
    return "after %.1f s of 1 s" % spent


def swallow(f):
    try:
        f()
    except OSError:
        pass


def latency(d, n):
    """The median of n short questions, one after the other."""
    c, times = connect(d), []
    for i in range(n):
        start = time.monotonic()
        c.sendall(post({"question": "Hi?", "max_tokens": 2, "seed": i}))
        require(b" 200 " in read_until(c, lambda g: b'"notice"' in g and g.endswith(b"}\n")), "an answer")
        times.append(time.monotonic() - start)
    c.close()
    return sorted(times)[n // 2]


def check_fifty_who_do_not_read_hold_up_nobody(build):
    n = 4 if "thread" in build else 12 if is_sanitized(build) else 50
    with Daemon(build, "--threads", "1", "--max-batch", "68", "--max-unsent-kib", "4", "--send-timeout-s", "60") as d:
        w = Watch(d)
        figures, kib, n_all = {}, {}, 0
        for reads in (True, False):
            sockets = [small_socket(d) for _ in range(n)]
            for i, s in enumerate(sockets):
                s.sendall(grow(i, 8))
            readers = [threading.Thread(target=read_until, args=(s, lambda g: b'"type":"done"' in g[-3000:]))
                       for s in sockets if reads]
            for t in readers:
                t.start()
            figures[reads] = latency(d, 5)
            # The engine is through with all of them, read or not.
            n_all += n + 5
            h, _ = w.wait(lambda h: h["ledger"]["ended"] == n_all, 240)
            for t in readers:
                t.join()
            if reads:
                w.wait(lambda h: h["open"]["working"] == 0)
            else:
                equal(h["open"]["working"], n, "streams that are not read to their end")
            kib[reads] = d.status_kb("VmRSS")
            for s in sockets:
                s.close()
            w.wait(lambda h: h["open"] == NOBODY)
        equal((h["requests"]["failed"], h["requests"]["cancelled"]), (0, 0), "failed, cancelled")
        w.close()
    held = (kib[False] - kib[True]) / n
    note = "another client waits %.0f ms beside readers, %.0f ms beside non-readers; %.0f KiB are held for each" % (
        figures[True] * 1e3, figures[False] * 1e3, held)
    require(figures[False] <= 2 * figures[True] + 0.5, note)
    # 9 pictures of 64 x 64 x 3 bytes wait for each (108 KiB), the connection's 64 KiB, lines on their way.
    require(is_sanitized(build) or held < 400, note)
    return note


def check_a_request_that_does_not_end_is_told_of(build):
    """Between two looks of the engine there is a whole prompt: longer than the deadline and a tick of the guard."""
    with Daemon(build, *SLOW, "--stall-s", "0") as d:
        w = Watch(d)
        for i in range(20):  # one is enough: the engine may look in time, or find it late before it runs
            status, _, reply = d.post("/v1/vqa", {"question": "Is there an opacity? " * (15 if "thread" in build else 150) + str(i),
                                                  "timeout_ms": 1 + 10 * i})
            h = w.look()
            if h["ledger"]["stalled"]:
                break
        equal((status, reply["error"]["code"]), (504, "deadline_exceeded"), reply)
        equal((h["ledger"]["stalled"], h["ledger"]["accepted"] - h["ledger"]["ended"]), (1, 0), "%r" % h["ledger"])
        equal(len(re.findall(r"request %d has not ended: (?:running|queued), accepted \d+\.\d s ago, \d+\.\d s after its "
                             r"deadline" % (i + 1), d.log_text())), 1, d.log_text()[-600:])
        w.close()
    return "at request %d" % (i + 1)
