"""The daemon: streams, batching that changes no byte, full queue, clients that leave, clean end."""
import base64
import json
import re
import signal
import socket
import struct
import threading
import time

from harness import Daemon, Slow, b64, equal, png_rows, require, require_error, require_synthetic, test_image, until

ASK = "/v1/vqa"
DRAW = "/v1/draw"


def check_stream_has_the_parts_of_the_plain_answer(build):
    ask = {"question": "What is shown?", "image": b64(test_image()), "max_tokens": 6, "top_logprobs": 2}
    draw = {"prompt": "Draw a chest X-ray.", "seed": 4}
    with Daemon(build) as d:
        plain = d.post_ok(ASK, ask)
        lines, headers = d.stream(ASK, ask)
        lines = [line for line in lines if line["type"] != "prefill"]
        equal(headers["X-Accel-Buffering"], "no", "X-Accel-Buffering")
        kinds = [line["type"] for line in lines]
        equal((kinds[0], kinds[-1]), ("queued", "done"), "kinds %r" % kinds)
        require(set(kinds[1:-1]) <= {"token"}, "kinds %r" % kinds)
        equal("".join(line["text"] for line in lines[1:-1]), plain["text"], "text")
        equal([line["top_logprobs"] for line in lines[1:-1] if "id" in line], plain["top_logprobs"], "top_logprobs")
        for answer in (lines[-1], plain):  # the second question found the first one's prompt
            answer["usage"].pop("prompt_tokens_details")
        equal(lines[-1]["usage"], plain["usage"], "usage")
        require(lines[-1]["timings"]["total_ms"] > 0 and lines[-1]["notice"], "done: %r" % lines[-1])
        status, headers, picture = d.post(DRAW, draw)
        equal(status, 200, picture)
        equal(headers["X-Synthetic-Image"], "true", "X-Synthetic-Image")
        png = base64.b64decode(picture["image"]["b64_json"], validate=True)
        require_synthetic(png)
        equal((picture["seed"], picture["synthetic"]), (4, True), "facts")
        lines, headers = d.stream(DRAW, draw)
        equal(headers["X-Synthetic-Image"], "true", "X-Synthetic-Image")
        kinds = [line["type"] for line in lines]
        equal((kinds[0], kinds[-2], kinds[-1]), ("queued", "image", "done"), "kinds %r" % kinds[-3:])
        done = [line["done"] for line in lines if line["type"] == "progress"]
        equal(done, sorted(done), "progress goes up")
        equal(done[-1], 64, "progress is complete")
        equal(lines[0]["position"], 1, "position in the queue")
        left = [line["seconds_left"] for line in lines if line["type"] == "progress" and line["done"] > 1]
        require(left[-1] == 0 and all(x >= 0 for x in left), "seconds left: %r" % left[-3:])
        equal(base64.b64decode(lines[-2]["b64_json"]), png, "the same picture")


def check_streamed_pictures_grow(build):
    draw = {"prompt": "Draw a chest X-ray.", "seed": 4}
    with Daemon(build) as d:
        plain, _ = d.stream(DRAW, draw)
        lines, _ = d.stream(DRAW, dict(draw, previews=3))
        equal(lines[-2]["b64_json"], plain[-2]["b64_json"], "the picture with and without previews")
        previews = [line for line in lines if line["type"] == "preview"]
        equal(len(previews), 3, "previews")
        drawn, total = [], previews[0]["total"]
        for k, line in enumerate(previews):
            data = base64.b64decode(line["b64_json"], validate=True)
            require_synthetic(data)
            require(line["done"] >= total * (k + 1) // 4, "preview %d after %d of %d tokens" % (k, line["done"], total))
            rows = png_rows(data)
            equal(len(rows), 64, "rows")
            grey = [i for i, row in enumerate(rows) if set(row) == {0x80}]
            equal(grey, list(range(64 - len(grey), 64)), "what is not drawn yet is the end")
            drawn.append(64 - len(grey))
        require(0 < drawn[0] < drawn[1] < drawn[2] < 64, "rows drawn: %r" % drawn)
        status, _, reply = d.post(DRAW, dict(draw, previews=9))
        require_error(status, reply, 400, "invalid_value")
    return "rows drawn: %r" % drawn


def jobs(n):
    out = []
    for i in range(n):
        out.append((ASK, {"question": "What is in image %d?" % i, "image": b64(test_image(i)),
                          "max_tokens": 4 + 3 * i}))
        out.append((ASK, {"question": "Say %d." % i, "temperature": 1.2, "seed": i, "max_tokens": 10}))
        out.append((DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}))
    out.append((DRAW, {"prompt": "Reconstruct the image.", "image": b64(test_image(9))}))
    return out


def essence(reply):
    return reply["image"]["b64_json"] if "image" in reply else reply["text"]


def run_together(d, work, streams=False):
    results = [None] * len(work)

    def one(i):
        path, body = work[i]
        try:
            if streams:
                lines, _ = d.stream(path, body)
                pictures = [line["b64_json"] for line in lines if line["type"] == "image"]
                results[i] = pictures[0] if pictures else "".join(line.get("text", "") for line in lines)
            else:
                results[i] = essence(d.post_ok(path, body))
        except Exception as e:
            results[i] = e

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(work))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def check_mixed_concurrent_requests_give_the_bytes_of_single_ones(build):
    work = jobs(2 if "thread" in build else 6)  # ThreadSanitizer makes arithmetic 50 times slower
    with Daemon(build) as d:
        alone = [essence(d.post_ok(path, body)) for path, body in work]
        for streams in (False, True):
            together = run_together(d, work, streams)
            for (path, body), a, b in zip(work, alone, together):
                equal(b, a, "%s %r together" % (path, str(body)[:60]))
    return "%d requests of both tasks, plain and streamed" % len(work)


def chat_about(picture, **fields):
    url = "data:image/png;base64," + b64(picture)
    return dict({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is shown?"}, {"type": "image_url", "image_url": {"url": url}}]}],
        "temperature": 2.0, "max_tokens": 8}, **fields)


def encoded(d):
    return d.health()["engine"]["pictures_encoded"]


def check_choices_about_one_picture_encode_it_once(build):
    chat, n = "/v1/chat/completions", 4
    with Daemon(build, "--forget") as d:
        alone = [d.post_ok(chat, chat_about(test_image(3), seed=20 + i))["choices"][0]["message"]["content"] for i in range(n)]
        equal(encoded(d), n, "encodings of %d questions that are forgotten" % n)
    require(len(set(alone)) > 1, "all answers are the same: %r" % alone)
    with Daemon(build) as d:
        reply = d.post_ok(chat, chat_about(test_image(3), seed=20, n=n))
        equal([c["message"]["content"] for c in reply["choices"]], alone, "choices")
        equal(encoded(d), 1, "encodings for %d choices" % n)
    with Daemon(build) as d:  # wherever the first of two leaves, the other one's answer is right
        for seed in range(3):
            ask = {"question": "What is shown?", "image": b64(test_image(seed)), "max_tokens": 6}
            first, _ = open_stream(d, ASK, ask)
            second, got = open_stream(d, ASK, ask)
            first.close()
            text = got
            while not text.endswith(b"\r\n0\r\n\r\n"):
                piece = second.recv(65536)
                require(piece, "the second was cut: %r" % text[-200:])
                text += piece
            second.close()
            streamed = "".join(re.findall(r'"type":"token".*?"text":"([^"]*)"', text.decode()))
            equal(streamed, json.dumps(d.post_ok(ASK, ask)["text"])[1:-1], "the answer of the second")
            equal(encoded(d), seed + 1, "encodings that were finished")
        d.wait_idle()


def check_full_queue_answers_503_with_retry_after(build):
    results = []
    with Slow(build, "--max-queue", "1", "--max-batch", "1") as d:
        running, _ = open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": 1})
        until(lambda: d.health()["queue"]["running"] == 1, "it runs")
        waiting, _ = open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": 2})

        def one(i):
            results.append(d.post(DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}))
        threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for status, headers, reply in results:
            require_error(status, reply, 503, "queue_full")
            require(int(headers["Retry-After"]) >= 1, "Retry-After")
        running.close()
        waiting.close()
        equal(d.wait_idle()["requests"], {"done": 0, "failed": 0, "cancelled": 2}, "those that were there")
        equal(d.post_ok(ASK, {"question": "Hi?", "max_tokens": 1})["usage"]["completion_tokens"] <= 1, True, "later")


def open_stream(d, path, body):
    data = json.dumps(dict(body, stream=True)).encode()
    s = socket.create_connection(("127.0.0.1", d.port), 60)
    s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
              % (path.encode(), len(data)) + data)
    got = b""
    while b'"queued"' not in got:
        piece = s.recv(4096)
        require(piece, "closed early: %r" % got)
        got += piece
    return s, got


def check_clients_that_leave_are_cancelled(build):
    with Slow(build, "--max-batch", "2") as d:
        # Two run and six wait: those are cancelled long before their turn ends.
        sockets = [open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": i})[0] for i in range(8)]
        for i, s in enumerate(sockets):
            if i % 2:  # half of them with a reset
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        h = d.wait_idle()
        equal(h["requests"]["failed"], 0, "failed")
        require(h["requests"]["cancelled"] >= 6, "cancelled: %r" % h["requests"])
        equal(d.post_ok(ASK, {"question": "Hi?", "max_tokens": 1})["finish_reason"] in ("stop", "length"), True, "next")
        return "%(cancelled)d cancelled, %(done)d done" % h["requests"]


def check_half_sent_requests_cost_nothing(build):
    with Daemon(build) as d:
        sockets = []
        for i in range(20):
            s = socket.create_connection(("127.0.0.1", d.port), 10)
            s.sendall(b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      b"Content-Length: 1000\r\n\r\n{\"question\":"[:40 + 8 * i])
            sockets.append(s)
        equal(d.health()["status"], "ok", "while they wait")
        for s in sockets:
            s.close()
        equal(d.wait_idle()["requests"]["failed"], 0, "failed")


def read_to_end(s, got):
    while True:
        try:
            piece = s.recv(65536)
        except OSError:
            return got
        if not piece:
            return got
        got += piece


def check_sigterm_lets_running_requests_finish(build):
    with Daemon(build) as d:
        streams = [open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}) for i in range(4)]
        deadline = time.monotonic() + 20
        while d.health()["queue"]["depth"] > 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        d.process.send_signal(signal.SIGTERM)
        for s, got in streams:
            text = read_to_end(s, got)
            require(b'"type":"done"' in text, "cut: %r" % text[-200:])
            s.close()
        d.expect_end()


def check_sigterm_without_grace_ends_streams_with_an_error(build):
    with Slow(build, "--drain-s", "0", "--max-batch", "1") as d:
        streams = [open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}) for i in range(6)]
        plain = {}
        waiting = threading.Thread(target=lambda: plain.update(r=d.post(DRAW, {"prompt": "Draw.", "seed": 9})))
        waiting.start()
        until(lambda: d.health()["queue"]["depth"] == 6, "the plain one waits behind five streams")
        d.process.send_signal(signal.SIGTERM)
        texts = [read_to_end(s, got) for s, got in streams]
        waiting.join()
        for text in texts:
            require(b'"type":"error"' in text or b'"type":"done"' in text, "no last line: %r" % text[-200:])
        ended = [t for t in texts if b'"shutting_down"' in t]
        equal(len(ended), 6, "streams that were ended")
        require_error(plain["r"][0], plain["r"][2], 503, "shutting_down")
        d.expect_end()
    return "%d of 6 streams ended" % len(ended)


def check_sigint_while_idle_exits_0(build):
    with Daemon(build) as d:
        d.process.send_signal(signal.SIGINT)
        d.expect_end()


def check_deadline_ends_a_request(build):
    with Slow(build, "--timeout-s", "1", "--max-batch", "1", "--max-queue-tokens", "100000") as d:
        work = [(DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}) for i in range(60)]
        statuses = []

        def one(path, body):
            statuses.append(d.post(path, body))
        threads = [threading.Thread(target=one, args=w) for w in work]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        late = [r for r in statuses if r[0] == 504]
        hopeless = [r for r in statuses if r[0] == 503]  # told at once, when the speed was known
        equal(len(late) + len(hopeless) + len([r for r in statuses if r[0] == 200]), 60, "only 200, 503 and 504")
        for status, headers, reply in hopeless:
            require_error(status, reply, 503, "queue_full")
            require("longer than its deadline" in reply["error"]["message"], reply)
            require(int(headers["Retry-After"]) >= 1, "Retry-After")
        require(late, "60 pictures were drawn within a second")
        status, _, reply = d.post(DRAW, {"prompt": "Draw a chest X-ray.", "timeout_ms": 1})
        require_error(status, reply, 504, "deadline_exceeded")
        require("within 1 ms" in reply["error"]["message"], reply)
        status, _, reply = d.post(ASK, {"question": "Hi?", "timeout_ms": 0})
        require_error(status, reply, 400, "invalid_value")
        require_error(late[0][0], late[0][2], 504, "deadline_exceeded")
        d.wait_idle()
    return "%d of 60 were too late, %d more were told so at once" % (len(late), len(hopeless))
