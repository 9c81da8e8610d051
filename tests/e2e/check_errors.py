"""Every error code that the sources name is met once, with its status, in the one shape, leaking nothing (T-09)."""
import glob
import json
import os
import re
import signal
import socket
import subprocess
import time

from check_keys import KeyFile, auth, entry
from harness import ROOT, Daemon, b64, equal, require, require_error, test_image

JSON_TYPE = {"Content-Type": "application/json"}
ASK = {"question": "Hi?", "max_tokens": 1}
CHAT = {"messages": [{"role": "user", "content": "Hi?"}], "max_tokens": 1}
HEAD = b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

# Codes that no client can be answered with, and those that other checks are about.
ELSEWHERE = {
    "bad_model_file": "only at the start of the program", "not_found": "only at the start of the program",
    "cancelled": "nobody is left to read it", "client_closed": "nobody is left to read it",
    "io_error": "only at the start of the program", "unsupported": "only at the start of the program",
    "out_of_memory": "needs failing allocations", "engine_broken": "check_faults ends the engine",
    "audit_unavailable": "check_audit fills a disk", "invalid_audit_subject": "check_audit",
    "too_many_auth_failures": "check_rates",
    "idempotency_full": "test_idempotency: 256 drawings at once",
    "idempotency_key_in_use": "check_idempotency",
}


def codes():
    """Every code in server/*.c, by the ways in which they are set there."""
    found = set()
    for path in glob.glob(os.path.join(ROOT, "server", "**", "*.c"), recursive=True):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for form in (r'(?:\brefuse|_refuse|_error_set)\(\s*[^,;]*,\s*\w+\s*,\s*"([a-z_]+)"', r'->code,\s*sizeof[^,]*,\s*"([a-z_]+)"',
                     r'\[HG_STATUS_\w+\] = "([a-z_]+)"', r'\\"code\\":\s*\\"([a-z_]+)\\"'):
            found |= set(re.findall(form, text))
    return found


def json_post(path, value, **headers):
    return lambda d: d.request("POST", path, value if isinstance(value, bytes) else json.dumps(value),
                               dict(JSON_TYPE, **{k.replace("_", "-"): v for k, v in headers.items()}))[::2]


def raw(data):
    """Status and body of what comes for these bytes."""
    def send(d):
        got = d.raw(data, 60)
        m = re.match(rb"HTTP/1\.1 (\d+)", got)
        require(m, "no answer: %r" % got[:80])
        return int(m.group(1)), got.partition(b"\r\n\r\n")[2]
    return send


def form(parts, kind="multipart/form-data; boundary=B"):
    return lambda d: d.request("POST", "/v1/vqa", parts, {"Content-Type": kind})[::2]


def again_with_another_body(d):
    json_post("/v1/draw", {"prompt": "Draw."}, Idempotency_Key="used")(d)
    return json_post("/v1/draw", {"prompt": "Draw two."}, Idempotency_Key="used")(d)


# code, status, what meets it in a daemon of its own kind: options
PLAIN = [
    ("bad_http_request", 400, raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")),
    ("host_not_allowed", 403, raw(b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n")),
    ("origin_not_allowed", 403, json_post("/v1/vqa", ASK, Origin="http://evil.example")),
    ("body_too_large", 413, raw(HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")),
    ("too_many_chunks", 400, raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 65537 + b"0\r\n\r\n")),
    ("deadline_exceeded", 504, json_post("/v1/draw", {"prompt": "Draw.", "timeout_ms": 1})),
    ("idempotency_key_reused", 422, again_with_another_body),
    ("idempotency_with_stream", 400, json_post("/v1/draw", {"prompt": "Draw.", "stream": True}, Idempotency_Key="k")),
    ("invalid_idempotency_key", 400, json_post("/v1/draw", {"prompt": "Draw."}, Idempotency_Key="k" * 256)),
    ("image_too_large", 413, json_post("/v1/vqa", dict(ASK, image="A" * (23 << 20)))),
    ("invalid_form", 400, form(b"junk")),
    ("invalid_image", 400, json_post("/v1/vqa", dict(ASK, image=b64(b"no picture")))),
    ("invalid_json", 400, json_post("/v1/vqa", b'{"question":')),
    ("invalid_request", 400, json_post("/v1/vqa", dict(ASK, image="data:text/plain,x"))),
    ("invalid_type", 400, json_post("/v1/vqa", {"question": 7})),
    ("invalid_value", 400, json_post("/v1/vqa", dict(ASK, max_tokens=0))),
    ("method_not_allowed", 405, lambda d: d.request("PUT", "/v1/vqa", "{}", JSON_TYPE)[::2]),
    ("missing_image", 400, json_post("/v1/images/edits", {"prompt": "Draw."})),
    ("missing_text", 400, json_post("/v1/vqa", {})),
    ("model_not_found", 404, json_post("/v1/chat/completions", dict(CHAT, model="gpt-4"))),
    ("remote_url_disabled", 400, json_post("/v1/vqa", dict(ASK, image="http://127.0.0.1/x.png"))),
    ("text_too_large", 413, json_post("/v1/vqa", {"question": "x" * (257 << 10)})),
    ("text_too_long", 413, form(b'--B\r\nContent-Disposition: form-data; name="question"\r\n\r\n' + b"x" * (257 << 10)
                                + b"\r\n--B--\r\n")),
    ("too_large", 413, json_post("/v1/vqa", {"question": "pneumonia " * 10000})),
    ("too_many_images", 400, json_post("/v1/vqa", dict(ASK, images=[b64(test_image())] * 20))),
    ("too_many_messages", 400, json_post("/v1/chat/completions", dict(CHAT, messages=CHAT["messages"] * 600))),
    ("unknown_parameter", 400, json_post("/v1/vqa", dict(ASK, temprature=1))),
    ("unknown_route", 404, json_post("/v1/nothing", {})),
    ("unsupported_encoding", 415, json_post("/v1/vqa", ASK, Content_Encoding="gzip")),
    ("unsupported_media_type", 415, form(b"x", "text/plain")),
    ("unsupported_parameter", 400, json_post("/v1/chat/completions", dict(CHAT, tools=[{"type": "function"}]))),
    ("unsupported_value", 400, json_post("/v1/images/generations", {"prompt": "Draw.", "response_format": "url"})),
]


def meet(d, code, status, send, seen):
    got, body = send(d)
    # What libmicrohttpd has of a body that was refused early may stand in front of a second head.
    reply = json.loads(body)
    error = require_error(got, reply, status, code)
    require(re.fullmatch(r"[a-z_]+", error["type"]) and (status < 500 or error["type"] != "invalid_request_error"),
            "type of %s: %r" % (code, error["type"]))
    require(len(error["message"]) < 330, "a long message: " + error["message"])
    seen.add(code)


def meet_with_keys(build, seen):
    with KeyFile(entry("user"), entry("reader", role="reader"), entry("small", max_queued=1)) as keys:
        with Daemon(build, "--api-keys", keys.path, "--backend", "ref", "--threads", "1", "--max-batch", "1") as d:
            for code, status, headers in (("missing_api_key", 401, {}), ("invalid_api_key", 401, auth("nobody")),
                                          ("not_allowed", 403, auth("reader"))):
                meet(d, code, status, lambda d: d.request("POST", "/v1/vqa", "{}", dict(JSON_TYPE, **headers))[::2], seen)
            meet(d, "rate_limit_exceeded", 429, lambda d: crowd(d, auth("small")), seen)


def crowd(d, headers):
    """Streams of drawings until one is refused; its status and body."""
    held = []
    head = "".join("%s: %s\r\n" % h for h in headers.items())
    body = json.dumps({"prompt": "Draw.", "stream": True})
    try:
        for _ in range(100):
            s = socket.create_connection(("127.0.0.1", d.port), 60)
            held.append(s)
            s.sendall(("POST /v1/draw HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s"
                       % (head, len(body), body)).encode())
            got = s.recv(65536)
            if not got.startswith(b"HTTP/1.1 200"):
                return int(got[9:12]), got.partition(b"\r\n\r\n")[2]
    finally:
        for s in held:
            s.close()
    require(False, "nothing is refused")


def meet_failures(build, seen):
    for fault, code, status, end in (("nan_row:count=0", "numeric_fault", 500, 0), ("step_err:status=internal", "internal_error", 500, 0),
                                     ("step_err:status=device", "device_error", 503, 71)):
        with Daemon(build, program="healthgptd-faults", env={"HG_FAULT": fault}) as d:
            got, body = json_post("/v1/vqa", ASK)(d)
            error = json.loads(body)["error"]
            equal(error["code"], code, "%s: %d %r" % (fault, got, error))
            require(got >= 500, "%s: %d" % (fault, got))
            meet(d, code, got, lambda d: (got, body), seen)
            if end:
                equal(d.process.wait(60), end, fault)
                d.ended = True


def meet_loading(build, seen):
    """A daemon that never gets its model: it answers from the first second."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    p = subprocess.Popen([os.path.join(ROOT, build, "healthgptd-faults"), "--listen", "127.0.0.1:%d" % port, "--ops-listen", ""],
                         env=dict(os.environ, HG_FAULT="step_hang:piece=load"), stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        d = type("Loading", (), {"port": port, "request": Daemon.request})()
        end = time.monotonic() + 60
        while True:
            try:
                meet(d, "loading", 503, json_post("/v1/vqa", ASK), seen)
                return
            except ConnectionRefusedError:
                require(time.monotonic() < end and p.poll() is None, "it does not listen")
                time.sleep(0.01)
    finally:
        p.kill()
        p.wait()


def meet_slowness_and_end(build, seen):
    with Daemon(build, "--header-timeout-s", "1") as d:
        meet(d, "request_timeout", 408, raw(b"GET /health HT"), seen)
    with Daemon(build, "--max-queue", "1", "--backend", "ref", "--threads", "1", "--max-batch", "1") as d:
        meet(d, "queue_full", 503, lambda d: crowd(d, JSON_TYPE), seen)
    with Daemon(build, "--backend", "ref", "--threads", "1") as d:
        drawing = json.dumps({"prompt": "Draw.", "stream": True})
        with socket.create_connection(("127.0.0.1", d.port), 60) as s, \
                socket.create_connection(("127.0.0.1", d.port), 60) as kept:
            s.sendall(HEAD.replace(b"vqa", b"draw") + b"Content-Length: %d\r\n\r\n%s" % (len(drawing), drawing.encode()))
            require(s.recv(12) == b"HTTP/1.1 200", "the drawing has begun")
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            kept.recv(65536)
            d.process.send_signal(signal.SIGTERM)
            while "signal 15" not in d.log_text():
                time.sleep(0.005)
            kept.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            got = kept.recv(65536)
            meet(d, "shutting_down", 503, lambda d: (int(got[9:12]), got.partition(b"\r\n\r\n")[2]), seen)
        d.process.send_signal(signal.SIGTERM)
        d.expect_end()


def check_every_error_code_once(build):
    known, seen = codes(), set()
    require(len(known) >= 40, "codes: %r" % known)
    with Daemon(build) as d:
        for code, status, send in PLAIN:
            meet(d, code, status, send, seen)
        equal(d.health()["status"], "ok", "afterwards")
    meet_with_keys(build, seen)
    meet_failures(build, seen)
    meet_loading(build, seen)
    meet_slowness_and_end(build, seen)
    missing = known - seen - set(ELSEWHERE)
    equal(missing, set(), "codes that nothing here meets")
    equal(seen - known, set(), "codes that the sources do not name")
    equal(set(ELSEWHERE) & seen, set(), "codes that are met after all")
    return "%d codes met, %d elsewhere" % (len(seen), len(ELSEWHERE))
