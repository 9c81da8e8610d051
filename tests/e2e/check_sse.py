"""Server-sent events on OpenAI's routes, byte for byte: what openai-python, proxies and browsers rely on."""
import json
import resource
import socket
import time

from harness import Daemon, Fail, Skip, Slow, b64, equal, is_sanitized, require, test_image

CHAT = "/v1/chat/completions"
SAY = [{"role": "user", "content": "Is there pneumonia?"}]
DRAW = {"prompt": "Draw a chest X-ray.", "seed": 1}


class Stream:
    """A POST whose answer is read as it comes; blocks are what blank lines part."""

    def __init__(self, d, path, value):
        body = json.dumps(value).encode()
        self.socket = socket.create_connection(("127.0.0.1", d.port), 60)
        self.socket.sendall(("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                             "Content-Length: %d\r\n\r\n" % (path, len(body))).encode() + body)
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        for line in iter(self.file.readline, b"\r\n"):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        self.socket.close()

    def block(self):
        """The next one as text, or None at the end of the stream."""
        while b"\n\n" not in self.buffer:
            size = int(self.file.readline().split(b";")[0], 16)
            self.buffer += self.file.read(size)
            self.file.readline()
            if size == 0:
                if self.buffer:
                    raise Fail("the stream ends inside a block: %r" % self.buffer)
                return None
        text, self.buffer = self.buffer.split(b"\n\n", 1)
        return text.decode()

    def blocks(self):
        return list(iter(self.block, None))


def data_of(blocks):
    return [json.loads(b.split("data: ", 1)[1]) for b in blocks if "data: {" in b]


def require_framing(blocks):
    """Comments alone, or an event with data: no id, no retry, no event without data."""
    for block in blocks:
        lines = block.split("\n")
        if lines[0].startswith(":"):
            equal(len(lines), 1, "lines of the comment %r" % block)
            continue
        names = [line.split(":")[0] for line in lines]
        require(names in (["data"], ["event", "data"]), "block %r" % block)
        if names[0] == "event":
            equal(json.loads(lines[1][6:])["type"], lines[0][7:], "type and event name")


def check_a_stream_is_framed_as_clients_want_it(build):
    asked = [(CHAT, {"messages": SAY, "stream": True, "stream_options": {"include_usage": True}, "n": 3}),
             (CHAT, {"messages": SAY, "stream": True, "modalities": ["image"], "healthgpt": {"previews": 2}}),
             ("/v1/completions", {"prompt": "Is there pneumonia?", "stream": True, "logprobs": 1}),
             ("/v1/images/generations", dict(DRAW, stream=True, partial_images=3)),
             ("/v1/images/edits", {"prompt": "Reconstruct.", "image": b64(test_image()), "stream": True})]
    with Daemon(build) as d:
        for path, body in asked:
            with Stream(d, path, body) as s:
                equal(s.status, 200, path)
                equal(s.headers["content-type"], "text/event-stream; charset=utf-8", "Content-Type")
                equal(s.headers["x-accel-buffering"], "no", "X-Accel-Buffering")
                require("no-store" in s.headers["cache-control"] and "content-length" not in s.headers, s.headers)
                equal(s.headers.get("x-synthetic-image"), "true" if "images" in path or "modalities" in body else None,
                      "mark")
                blocks = s.blocks()
            require_framing(blocks)
            equal(blocks[0], ": ok", "first block")
            equal(blocks[-1] == "data: [DONE]", "images" not in path, "[DONE]")


def check_role_and_token_come_together_and_choices_in_order(build):
    with Daemon(build) as d:
        with Stream(d, CHAT, {"messages": SAY, "stream": True, "n": 3, "temperature": 1.2, "seed": 5}) as s:
            chunks = data_of(s.blocks())
        order = [c["choices"][0]["index"] for c in chunks]
        equal(order, sorted(order), "choices")
        for i in range(3):
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == i]
            equal(mine[0]["delta"]["role"], "assistant", "role")
            require(mine[0]["delta"]["content"], "the first chunk has no text")
            require(all("role" not in c["delta"] for c in mine[1:]), "role once more")
            equal([c["finish_reason"] for c in mine[:-1]], [None] * (len(mine) - 1), "finish_reason before the end")
            require(mine[-1]["finish_reason"] in ("stop", "length"), mine[-1])


def check_chunks_can_be_filled_up(build):
    ask = {"messages": SAY, "stream": True, "stream_options": {"include_obfuscation": True, "include_usage": True}}
    with Daemon(build) as d:
        with Stream(d, CHAT, ask) as s:
            sizes = [len(b) + 2 for b in s.blocks() if "data: {" in b]
        equal([n % 256 for n in sizes], [0] * len(sizes), "sizes of chunks %s" % sizes)


def check_headers_come_at_once_and_pings_while_it_waits(build):
    with Slow(build, "--max-batch", "1", "--ping-s", "1", ms=30) as d:  # two seconds a picture
        ahead = [Stream(d, "/v1/draw", dict(DRAW, seed=i, stream=True)) for i in range(2)]
        start = time.monotonic()
        with Stream(d, CHAT, {"messages": SAY, "modalities": ["image"], "stream": True}) as s:
            equal(s.block(), ": ok", "first block")
            said = time.monotonic() - start
            blocks = s.blocks()
            whole = time.monotonic() - start
        for other in ahead:
            other.__exit__()
        require_framing(blocks)
        pings = blocks.count(": ping")
        require(said < whole / 2, "headers after %.2f s of %.2f" % (said, whole))
        require(1 <= pings <= whole + 1, "%d pings in %.1f s" % (pings, whole))
        equal(blocks[-1], "data: [DONE]", "end")
        return "%d pings in %.1f s" % (pings, whole)


def check_an_error_ends_a_stream_as_an_event(build):
    with Daemon(build, "--backend", "ref") as d:
        for path, body in ((CHAT, {"messages": SAY, "modalities": ["image"]}), ("/v1/images/generations", DRAW)):
            with Stream(d, path, dict(body, stream=True, healthgpt={"timeout_ms": 1})) as s:
                equal(s.status, 200, "status")
                blocks = s.blocks()
            equal(json.loads(blocks[-1][6:])["error"]["code"], "deadline_exceeded", "last block")
            require("data: [DONE]" not in blocks, "[DONE] after an error")


def check_a_client_that_leaves_a_stream_of_choices_cancels_them(build):
    with Slow(build) as d:
        s = Stream(d, "/v1/images/generations", dict(DRAW, n=4, stream=True, partial_images=3))
        s.block()
        s.__exit__()
        d.wait_idle()
        equal(d.health()["requests"]["cancelled"], 4, "cancelled")


def check_a_thousand_waiting_streams_are_small(build):
    if is_sanitized(build):
        raise Skip("a sanitizer's memory is not ours")
    ask = {"messages": SAY, "stream": True, "max_tokens": 64}
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with Slow(build, "--backend", "ref", "--max-queue", "2000", "--max-queue-tokens", "10000000",
              "--max-connections", "1200") as d:
        # These keep the engine busy; those after them bring the heap to its working size.
        drawings = [Stream(d, "/v1/draw", dict(DRAW, stream=True, seed=i)) for i in range(48)]
        for _ in range(2):
            for s in [Stream(d, CHAT, ask) for _ in range(40)]:
                s.__exit__()
        before = d.status_kb("VmRSS")
        streams = [Stream(d, CHAT, ask) for _ in range(1000)]
        for s in streams:
            equal(s.block(), ": ok", "first block")
        each = (d.status_kb("VmRSS") - before) / 1000
        waiting = d.health()["queue"]["depth"]
        for s in streams + drawings:
            s.__exit__()
        d.wait_idle()
        require(waiting > 900, "only %d streams were waiting" % waiting)
        require(each <= 24, "%.1f KiB for each stream" % each)
        return "%.1f KiB each, %d waiting" % (each, waiting)
