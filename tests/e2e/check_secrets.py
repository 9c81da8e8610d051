"""Secrets planted in everything a client can send are in no log, no metric, no crash report and no core (T-24)."""
import base64
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time

from harness import ROOT, Daemon, Skip, equal, is_sanitized, png, png_chunk, require
from check_keys import KeyFile, entry

MARK = "qZ7hIdDeN"  # each secret is MARK and where it stood
RGB = bytes(range(192)) * 64


def secret(where):
    return MARK + where


def picture():
    """A PNG with secrets in a text chunk, an unknown chunk and, as they are, in its pixels."""
    data = png(64, 64, (MARK + "pixels").encode() * 820)
    at = data.index(b"IDAT") - 4
    return (data[:at] + png_chunk(b"tEXt", b"Comment\0" + secret("text").encode())
            + png_chunk(b"prIv", secret("chunk").encode()) + data[at:])


def forbidden():
    """What must not be found: the mark, plain, in base64 (three alignments), in hex and as \\u escapes."""
    mark = MARK.encode()
    found = [mark, mark.lower(), mark.hex().encode(), "".join("\\u%04x" % c for c in mark).encode()]
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + mark + b"xx")
        found.append(text[4 if shift else 0:12])
    return found


def hold_clean(what, data):
    for needle in forbidden():
        at = data.find(needle)
        require(at < 0, "%s holds a secret: %r" % (what, data[max(0, at - 80):at + 80]))


def bodies():
    """(path, content type, body): questions, drawings, errors in every field, forms."""
    image = base64.b64encode(picture()).decode()
    text = secret("prompt")
    ask = {"question": text, "system": secret("system"), "image": image, "max_tokens": 2, "user": secret("user")}
    chat = {"model": secret("model"), "user": secret("user"), "max_tokens": 2, "stop": [secret("stop")],
            "messages": [{"role": "system", "content": secret("system")},
                         {"role": "user", "name": secret("name"), "content": [
                             {"type": "text", "text": text},
                             {"type": "image_url", "image_url": {"url": "data:image/png;base64," + image}}]}]}
    as_json = [
        ("/v1/vqa", ask), ("/v1/vqa", dict(ask, stream=True)), ("/v1/draw", {"prompt": text, "timeout_ms": 50}),
        ("/v1/vqa", {secret("field"): 1, "question": text}), ("/v1/vqa", {"question": [text]}),
        ("/v1/vqa", dict(ask, max_tokens=text)), ("/v1/vqa", dict(ask, temperature=[text])),
        ("/v1/vqa", dict(ask, image=secret("image"))), ("/v1/vqa", dict(ask, image="http://x/" + secret("url"))),
        ("/v1/vqa", dict(ask, image="file:///" + secret("path"))), ("/v1/vqa", {"question": text * 40000}),
        ("/v1/images/generations", {"prompt": text, "size": secret("size"), "timeout_ms": 50}),
        ("/v1/images/generations", {"prompt": text, "response_format": secret("format")}),
        ("/v1/images/edits", {"prompt": text, "image": image, "timeout_ms": 50}),
        ("/v1/chat/completions", chat), ("/v1/chat/completions", dict(chat, model="healthgpt-demo")),
        ("/v1/chat/completions", dict(chat, model="healthgpt-demo", stream=True)),
        ("/v1/chat/completions", dict(chat, tools=[{"type": secret("tool")}])),
        ("/v1/chat/completions", dict(chat, messages=[{"role": secret("role"), "content": text}])),
        ("/v1/completions", {"model": "healthgpt-demo", "prompt": text, "max_tokens": 1}),
    ]
    yield from ((path, "application/json", json.dumps(value).encode()) for path, value in as_json)
    yield "/v1/vqa", "application/json", b'{"question": "%s", bad' % text.encode()
    yield "/v1/vqa", "text/" + secret("type"), b"x"
    yield "/v1/" + secret("route"), "application/json", b"{}"
    yield "/v1/vqa?key=" + secret("query"), "application/json", json.dumps(ask).encode()
    part = ('--B\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: %s\r\n\r\n'
            % ("%s", secret("file"), secret("type"))).encode()
    for name in ("image", secret("field")):
        yield ("/v1/vqa", "multipart/form-data; boundary=B",
               (part % name.encode()) + picture() + b'\r\n--B\r\nContent-Disposition: form-data; name="question"\r\n\r\n'
               + text.encode() + b"\r\n--B--\r\n")
    yield "/v1/vqa", "multipart/form-data; boundary=" + secret("boundary"), b"--B\r\n"


def headers(kind, key="Bearer key-of-a"):
    return {"Content-Type": kind, "Authorization": key, "User-Agent": secret("agent"), "Referer": secret("referer"),
            "Cookie": secret("cookie"), "X-Patient": secret("header"), "X-Request-Id": "id-1",
            secret("header-name"): "1", "X-Forwarded-For": secret("for")}


def session(d):
    """Everything above, and what is refused on the way; status counts."""
    seen = {}
    for path, kind, body in bodies():
        for key in ("Bearer key-of-a", "Bearer " + secret("key"), secret("scheme")):
            status, _, _ = d.request("POST", path, body, headers(kind, key))
            seen[status] = seen.get(status, 0) + 1
    for data in (b"GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", b"%s /%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"GET / HTTP/1.1\r\n%s : %s\r\n\r\n", b"GET /%s%%00 HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n"):
        d.raw(data % (secret("raw").encode(), secret("raw2").encode()))
    cut = b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key-of-a\r\n" \
          b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + secret("cut").encode()
    with socket.create_connection(("127.0.0.1", d.port), 30) as s:
        s.sendall(cut)
    return seen


def operators(d):
    """Everything that the operators' port tells."""
    port = int(re.search(r"operators' port: http://127\.0\.0\.1:(\d+)", d.log_text()).group(1))
    for path in ("/metrics", "/readyz", "/livez", "/startupz", "/version", "/" + secret("route")):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        c.request("GET", path, headers={"Authorization": "Bearer key-of-a"})
        r = c.getresponse()
        data = r.read()
        require(r.status == (404 if MARK in path else 200) and data, "%s: %d" % (path, r.status))
        hold_clean(path, data)
        c.close()


def check_no_log_holds_what_clients_send(build):
    for more in ((), ("--log-json",)):
        with KeyFile(entry("a")) as keys, tempfile.TemporaryDirectory() as folder:
            audit = os.path.join(folder, "audit")
            with Daemon(build, "--api-keys", keys.path, "--audit-log", audit, "--ops-listen", "127.0.0.1:0", *more) as d:
                seen = session(d)
                operators(d)
                require({200, 400, 401, 404, 413, 415} <= set(seen), "answers: %r" % seen)
                _, _, health = d.request("GET", "/health")
                hold_clean("/health", health)
                d.process.send_signal(signal.SIGHUP)
                equal(d.stop(), 0, "exit code")
                d.ended = True
            log = d.log_text().encode()
            require(b"request" in log, "log: %r" % log[-300:])
            with open(audit, "rb") as f:
                lines = f.read()
            require(lines.count(b'"request"') >= 20, "audit log: %r" % lines[-300:])
            for name, data in (("the log", log), ("the audit log", lines)):
                hold_clean(name, data)
                require(b"key-of-a" not in data, name + " holds a key")
    return "%r, as text and as JSON" % seen


def check_a_planted_leak_is_found(build):
    """The search itself: each form of a secret is found in bytes that hold it."""
    image = base64.b64encode(picture())
    for data in (secret("x").encode(), b"body " + base64.b64encode(b"{" + MARK.encode() + b"}"),
                 image, MARK.encode().hex().encode(), picture()):
        try:
            hold_clean("this", data)
        except Exception:
            continue
        require(False, "not found in %r" % data[:80])


def check_failures_of_the_engine_tell_nothing(build):
    body = json.dumps({"question": secret("prompt"), "max_tokens": 3}).encode()
    for fault, code in (("nan_row:count=0", 0), ("step_err:status=device", 71)):
        d = Daemon(build, "--log-json", program="healthgptd-faults", env={"HG_FAULT": fault})
        status, _, answer = d.request("POST", "/v1/vqa", body, headers("application/json"))
        require(status >= 500, "%s: %d %r" % (fault, status, answer))
        hold_clean("the answer", answer)
        if code == 0:
            d.process.send_signal(signal.SIGTERM)
        equal(d.process.wait(60), code, fault)
        d.process.stdout.close()
        hold_clean("the log", d.log_text().encode())


def crash(build, sig, *more, limit=None, folder=None):
    """A daemon with secrets at work that gets the signal (None: its own fault); (dumped, log)."""
    fault = sig is None
    d = Daemon(build, "--backend", "ref", "--threads", "1", "--canary-interval-s", "0", *more,
               program="healthgptd-faults" if fault else "healthgptd", env={"HG_FAULT": "crash"} if fault else None,
               cwd=folder, preexec=(lambda: resource.setrlimit(resource.RLIMIT_CORE, limit)) if limit else None)
    drawing = json.dumps({"prompt": secret("prompt"), "stream": True, "image": base64.b64encode(picture()).decode()})
    with socket.create_connection(("127.0.0.1", d.port), 30) as s:
        s.sendall(("POST /v1/draw HTTP/1.1\r\nHost: localhost\r\nX-Patient: %s\r\nContent-Type: application/json\r\n"
                   "Content-Length: %d\r\n\r\n" % (secret("header"), len(drawing)) + drawing).encode())
        require(s.recv(12).startswith(b"HTTP/1.1 200"), "the drawing has begun")
        if fault:
            body = b'["' + secret("body").encode() + b'\\ud800"]'
            with socket.create_connection(("127.0.0.1", d.port), 30) as t:
                t.sendall(b"POST /v1/vqa?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\n\r\n" % (secret("query").encode(), len(body)) + body)
        else:
            d.process.send_signal(sig)
        _, state = os.waitpid(d.process.pid, 0)
    d.process.returncode = -os.WTERMSIG(state)
    d.process.stdout.close()
    require(os.WIFSIGNALED(state) and os.WTERMSIG(state) == (sig or signal.SIGSEGV), "ended with %#x" % state)
    return os.WCOREDUMP(state), d.log_text()


def check_a_crash_leaves_a_report_and_no_memory(build):
    if is_sanitized(build):
        raise Skip("sanitizers write reports of their own")
    n = 0
    for sig, name in ((signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (None, "SIGSEGV"), (signal.SIGFPE, "SIGFPE")):
        for more in ((), ("--log-json",)):
            with tempfile.TemporaryDirectory() as folder:
                dumped, log = crash(build, sig, *more, limit=(1 << 30, 1 << 30), folder=folder)
                require(not dumped and not os.listdir(folder), "a core dump: %r" % os.listdir(folder))
            hold_clean("the report", log.encode())
            m = re.search(r"crash: %s in thread ([\w-]+), version \S+, build ([0-9a-f]{16,})" % name, log)
            require(m, "report: %r" % log[-600:])
            frames = re.findall(r"[\w.-]+\+0x[0-9a-f]+", log)
            require(len(frames) >= 3 and any(f.startswith("healthgptd") for f in frames), "frames: %r" % frames)
            require(not re.search(r"0x[0-9a-f]{9,}", log), "an address: %r" % log[-600:])
            if more:
                report = json.loads(log.strip().split("\n")[-1])
                equal((report["level"], len(report["frames"])), ("fatal", len(frames)), "JSON report")
            n += 1
    return "%d crashes" % n


def check_core_dumps_can_be_allowed(build):
    """So that the check above can fail: with --core-dumps the kernel does write one here."""
    if is_sanitized(build):
        raise Skip("sanitizers turn them off themselves")
    with tempfile.TemporaryDirectory() as folder:
        dumped, log = crash(build, signal.SIGSEGV, "--core-dumps", limit=(1 << 32, 1 << 32), folder=folder)
        if not dumped:
            raise Skip("this kernel writes no core dumps (core_pattern)")
        require("crash: SIGSEGV" in log, "the report is written all the same")
        cores = os.listdir(folder)
        if cores:
            with open(os.path.join(folder, cores[0]), "rb") as f:
                require(MARK.encode() in f.read(), "the secrets were in memory, so a dump would have shown them")
    return "a dump of %s with the secrets in it" % (cores or "another program")
