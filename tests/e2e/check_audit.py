"""The audit log: what is in a line, what is not, the chain over restarts, kills and rotation, full disks and pipes."""
import base64
import fcntl
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import struct
import tempfile
import threading
import time

from check_keys import KeyFile, auth, entry
from harness import Daemon, Fail, b64, cli, equal, is_sanitized, png_rows, require, require_error, test_image
from opstool import OpsDaemon, until, value

ASK, DRAW, CHAT = "/v1/vqa", "/v1/draw", "/v1/chat/completions"
KEY = bytes(range(7, 47))


class Log:
    """A folder with a key, and the audit log that will be in it."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "audit.jsonl")
        self.key = os.path.join(self.folder.name, "key")
        with open(self.key, "wb") as f:
            f.write(KEY)
        self.args = ["--audit-log", self.path, "--audit-key-file", self.key]
        return self

    def __exit__(self, *exc):
        self.folder.cleanup()

    def read(self, path=None):
        with open(path or self.path, "rb") as f:
            return [json.loads(line) for line in f.read().splitlines()]

    def requests(self):
        return [x for x in self.read() if x["event"] == "request"]

    def wait_for(self, n, seconds=60):
        """Lines are written after the answer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.requests() if os.path.exists(self.path) else []
            if len(found) >= n:
                return found
            time.sleep(0.01)
        raise Fail("%d lines of requests, expected %d" % (len(found), n))


def mac(what, *parts):
    return hmac.new(hashlib.sha256(KEY).digest(), what + b"\0" + b"".join(parts), "sha256").hexdigest()


def text_mac(*texts):
    return mac(b"text", *[struct.pack("<Q", len(t)) + t for t in [x.encode() for x in texts]])


def pixel_mac(width, height, rgb):
    return mac(b"pixels", struct.pack("<QQ", width, height), rgb)


def picture_mac(png):
    rows = png_rows(png)
    rgb = b"".join(rows)
    return pixel_mac(struct.unpack(">I", png[16:20])[0], len(rows), rgb)


def check_lines_are_what_docs_audit_md_says(build):
    image = test_image(3)
    ask = {"question": "What is shown?", "system": "Be short.", "image": b64(image), "max_tokens": 6}
    chat = {"messages": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"},
                         {"role": "user", "content": "Three"}], "max_tokens": 3, "n": 2, "seed": 1, "temperature": 1.0,
            "safety_identifier": "someone@example.org", "healthgpt": {"plugin": "none"}}
    with KeyFile(entry("clinic-a")) as keys, Log() as log:
        with Daemon(build, "--api-keys", keys.path, *log.args) as d:
            def send(path, body, **more):
                status, _, data = d.request("POST", path, json.dumps(body), dict(auth("clinic-a"), **more))
                equal(status, 200, data[:300])
                return json.loads(data)

            answer = send(ASK, ask, **{"X-Audit-Subject": "case-17.A_b"})
            drawn = send(DRAW, {"prompt": "Draw a chest X-ray.", "seed": 4})
            said = send(CHAT, chat)
            log.wait_for(3)
        lines = log.read()
        equal([x["event"] for x in lines], ["start", "model", "request", "request", "request", "stop"], "events")
        equal([x["seq"] for x in lines], [1, 2, 3, 4, 5, 6], "seq")
        equal(lines[0]["fingerprint_key"], "file", "fingerprint_key")
        require(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[2]["ts"]), lines[2]["ts"])
        first, second, third = lines[2:5]
        model = {k: lines[1][k] for k in ("model", "weights_crc32c")}
        common = dict(model, event="request", key="clinic-a", outcome="done", code=None, status=200, delivered=True)
        for line in lines[2:5]:
            equal({k: line[k] for k in common}, common, "line %d" % line["seq"])
        image_rgb = b"".join(png_rows(image))
        equal([first[k] for k in ("subject", "route", "task", "plugin", "prompt_tokens", "completion_tokens")],
              ["case-17.A_b", ASK, "comprehension", "comprehension", answer["usage"]["prompt_tokens"],
               answer["usage"]["completion_tokens"]], "the question")
        equal(first["images"], [{"width": 64, "height": 64, "hmac": pixel_mac(64, 64, image_rgb)}], "images")
        equal((first["text_hmac"], first["output_hmac"]),
              (text_mac("Be short.", "What is shown?"), [text_mac(answer["text"])]), "fingerprints")
        equal([second[k] for k in ("subject", "task", "plugin", "completion_tokens", "images")],
              [None, "generation", "generation", 64, []], "the picture")
        png = base64.b64decode(drawn["image"]["b64_json"])
        equal((second["text_hmac"], second["output_hmac"]),
              (text_mac("", "Draw a chest X-ray."), [picture_mac(png)]), "fingerprints")
        equal([third[k] for k in ("subject", "plugin", "completion_tokens", "text_hmac")],
              ["hmac-" + text_mac("someone@example.org")[:32], "none", said["usage"]["completion_tokens"],
               text_mac("", "One", "Two", "Three")], "the chat")
        equal(third["output_hmac"], [text_mac(c["message"]["content"]) for c in said["choices"]], "its choices")
        raw = open(log.path, "rb").read().splitlines()
        for at, line in enumerate(raw):  # chain and mac, by the book
            fields = json.loads(line)
            equal(fields["prev"], hashlib.sha256(raw[at - 1]).hexdigest() if at else 64 * "0", "prev of line %d" % (at + 1))
            equal(fields["mac"], mac(b"line", line[:line.rindex(b',"mac"')]), "mac of line %d" % (at + 1))
        code, out, err = cli(build, "audit", "verify", "--key-file", log.key, log.path)
        equal((code, err), (0, ""), "verify")
        return out.split("\n")[0]


def check_lines_of_what_did_not_go_well(build):
    """Refused after its key was known: a line with the code. Nobody knows the key: none."""
    with KeyFile(entry("clinic-a"), entry("reader", role="reader")) as keys, Log() as log:
        with Daemon(build, "--api-keys", keys.path, *log.args) as d:
            def status_of(body, headers, method="POST", path=ASK):
                return d.request(method, path, body, headers)[0]

            json_type = {"Content-Type": "application/json"}
            equal(status_of('{"qestion": 1}', auth("clinic-a")), 400, "unknown field")
            equal(status_of("x", dict(auth("clinic-a"), **{"Content-Type": "text/plain"})), 415, "type")
            equal(status_of("{}", dict(auth("clinic-a"), **{"X-Audit-Subject": "a b"})), 400, "subject")
            equal(status_of('{"question": "A?", "max_tokens": 100000}', auth("clinic-a")), 413, "too long")
            equal(status_of("{}", auth("nobody")), 401, "unknown key")
            equal(status_of("{}", json_type), 401, "no key")
            equal(status_of("{}", auth("reader")), 403, "reader")
            equal(status_of(None, auth("reader"), "GET", "/v1/models"), 200, "a GET")
            # its client leaves: in the middle of a stream, and of a body
            body = json.dumps({"prompt": "Draw a chest X-ray.", "stream": True})
            with socket.create_connection(("127.0.0.1", d.port), 20) as s:
                s.sendall(("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key-of-clinic-a\r\n"
                           "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (DRAW, len(body), body)).encode())
                s.recv(100)
            log.wait_for(5)
            with socket.create_connection(("127.0.0.1", d.port), 20) as s:
                s.sendall(("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key-of-clinic-a\r\n"
                           "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{" % ASK).encode())
            lines = log.wait_for(6)
        # a line is written when its exchange is over, which is in no order
        equal(sorted((x["code"], x["status"]) for x in lines[:4]),
              [("invalid_audit_subject", 400), ("too_large", 413), ("unknown_parameter", 400),
               ("unsupported_media_type", 415)], "codes")
        equal({x["outcome"] for x in lines[:4]}, {"error"}, "outcome")
        equal({x["subject"] for x in lines}, {None}, "a bad subject is not in the log")
        require(lines[4]["outcome"] in ("cancelled", "done") and lines[4]["route"] == DRAW, "%r" % lines[4])
        require(not lines[4]["delivered"] or lines[4]["outcome"] == "done", "%r" % lines[4])
        equal((lines[5]["outcome"], lines[5]["code"]), ("cancelled", "client_gone"), "half a body")
        equal({x["key"] for x in lines}, {"clinic-a"}, "keys")
    return "stream: %s after %d tokens" % (lines[4]["outcome"], lines[4]["completion_tokens"])


def check_a_kept_answer_is_said_to_be_one(build):
    with Log() as log:
        with Daemon(build, *log.args) as d:
            body, headers = json.dumps({"prompt": "Draw a chest X-ray.", "seed": 3}), {
                "Content-Type": "application/json", "Idempotency-Key": "one-picture"}
            first, again = [d.request("POST", DRAW, body, headers) for _ in range(2)]
            equal((first[0], again[0], again[2]), (200, 200, first[2]), "the same answer")
            lines = log.wait_for(2)
        equal([(x["outcome"], x["code"], x.get("replayed"), x["completion_tokens"]) for x in lines],
              [("done", None, None, 64), ("done", None, True, 0)], "lines")


def check_planted_secrets_are_not_in_it(build):
    secrets = {"question": "zebraquestion7", "system": "zebrasystem7", "prompt": "zebraprompt7", "user": "zebrauser7",
               "stop": "zebrastop7", "subject": "zebra@subject7", "file": "zebrafile7.png", "header": "zebraheader7"}
    image = test_image(11)
    with KeyFile(entry("clinic-a")) as keys, Log() as log:
        with Daemon(build, "--api-keys", keys.path, *log.args) as d:
            headers = dict(auth("clinic-a"), **{"X-Request-Id": "id7", "X-Patient": secrets["header"],
                                                "User-Agent": secrets["header"]})
            body = {"question": secrets["question"], "system": secrets["system"], "image": b64(image), "max_tokens": 8,
                    "user": secrets["user"], "stop": [secrets["stop"]]}
            status, _, data = d.request("POST", ASK, json.dumps(body), headers)
            equal(status, 200, data[:300])
            secrets["answer"] = json.loads(data)["text"].strip()
            body = {"prompt": secrets["prompt"], "safety_identifier": secrets["subject"], "user": secrets["user"]}
            status, _, data = d.request("POST", "/v1/images/generations", json.dumps(body), headers)
            equal(status, 200, data[:300])
            body = {secrets["prompt"]: secrets["question"]}  # in an error message
            equal(d.request("POST", ASK, json.dumps(body), headers)[0], 400, "status")
            boundary = "zebraboundary7"
            form = ("--%s\r\nContent-Disposition: form-data; name=\"question\"\r\n\r\n%s\r\n--%s\r\nContent-Disposition: "
                    "form-data; name=\"image\"; filename=\"%s\"\r\n\r\n" % (boundary, secrets["question"], boundary,
                                                                        secrets["file"])).encode()
            status, _, data = d.request("POST", ASK, form + image + ("\r\n--%s--\r\n" % boundary).encode(), dict(
                headers, **{"Content-Type": "multipart/form-data; boundary=" + boundary}))
            equal(status, 200, data[:300])
            equal(len(log.wait_for(4)), 4, "lines")
        text = open(log.path, "rb").read()
        found = [k for k, v in secrets.items() if len(v) > 4 and v.encode() in text]
        equal(found, [], "in the audit log")
        for name, part in (("API key", b"key-of-clinic-a"), ("zebra", b"zebra"), ("picture", b64(image)[60:90].encode()),
                           ("its bytes", hashlib.sha256(image).hexdigest().encode()), ("audit key", KEY.hex().encode()),
                           ("a path", log.folder.name.encode())):
            require(part not in text, "%s is in the audit log" % name)
        image_digest = hashlib.sha256(b"".join(png_rows(image))).hexdigest().encode()
        require(image_digest not in text, "an unkeyed digest of the picture")


def ask_all(d, n, headers, results):
    for _ in range(n):
        try:
            status, _, _ = d.request("POST", ASK, json.dumps({"question": "A?", "max_tokens": 2}), headers)
        except (OSError, http.client.HTTPException) as e:
            status = type(e).__name__
        results.append(status)


def check_chain_over_rotation_kill_and_restart(build):
    """Rotated by SIGHUP under load, killed by SIGKILL, started again: one chain, and no line of an answer is missing."""
    n, threads = (8, 3) if is_sanitized(build) else (25, 3)
    with Log() as log:
        paths, results = [], []
        with Daemon(build, "--max-queue", "64", *log.args) as d:
            work = [threading.Thread(target=ask_all, args=(d, n, {"Content-Type": "application/json"}, results))
                    for _ in range(threads)]
            for t in work:
                t.start()
            for k in range(3):
                while len(results) < (k + 1) * n // 2:
                    time.sleep(0.005)
                paths.append(log.path + ".%d" % k)
                os.rename(log.path, paths[-1])
                d.process.send_signal(signal.SIGHUP)
                end = time.monotonic() + 60
                while not os.path.exists(log.path) or os.path.getsize(log.path) == 0:
                    require(time.monotonic() < end, "no new file after SIGHUP")
                    time.sleep(0.005)
            for t in work:
                t.join()
            equal(results, n * threads * [200], "answers")
            files = paths + [log.path]
            end = time.monotonic() + 60
            while sum(x["event"] == "request" for p in files for x in log.read(p)) < n * threads:
                require(time.monotonic() < end, "lines are missing")
                time.sleep(0.01)
            d.process.send_signal(signal.SIGKILL)
            d.process.wait(30)
            d.ended = True
        with Daemon(build, *log.args) as d:
            d.post_ok(ASK, {"question": "A?", "max_tokens": 2})
            require("audit log: goes on after seq" in d.log_text(), d.log_text()[-500:])
        code, out, err = cli(build, "audit", "verify", "--key-file", log.key, *files)
        equal((code, err), (0, ""), "verify")
        last = re.search(r"^last: (\d+:[0-9a-f]{64})$", out, re.M).group(1)
        place = re.search(r"audit log: ends with seq (\d+), hash ([0-9a-f]{64})", d.log_text())
        equal("%s:%s" % place.groups(), last, "what the daemon has noted")
        equal(cli(build, "audit", "verify", "--anchor", last, *files)[0], 0, "verify --anchor")
        lines = open(log.path, "rb").read().splitlines(True)
        with open(log.path, "wb") as f:
            f.writelines(lines[:-1])
        code, _, err = cli(build, "audit", "verify", "--anchor", last, *files)
        equal(code, 65, "a line at the end is missing: " + err)
        code, _, err = cli(build, "audit", "verify", *(files[:1] + files[2:]))
        equal(code, 65, "a file is missing: " + err)
    return out.split("\n")[0]


def check_audit_chain_detects_deletion(build):
    """And change, order, a cut: by the command, which names the line. tests/server/test_audit.c tries every byte."""
    with Log() as log:
        with Daemon(build, *log.args) as d:
            for _ in range(3):
                d.post_ok(ASK, {"question": "A?", "max_tokens": 2})
            log.wait_for(3)
        lines = open(log.path, "rb").read().splitlines(True)
        equal(len(lines), 6, "lines")
        changed = lines[3].replace(b'"outcome":"done"', b'"outcome":"none"')
        require(changed != lines[3], "%r" % lines[3])
        bad = [("deleted", lines[:3] + lines[4:], "line 4: seq 5, expected 4"),
               ("changed", lines[:3] + [changed] + lines[4:], "line 4: was changed"),
               ("swapped", lines[:3] + [lines[4], lines[3]] + lines[5:], "line 4: seq 5, expected 4"),
               ("beginning gone", lines[2:], "line 1: begins with seq 3"),
               ("cut", lines[:5] + [lines[5][:-9]], "cut off"),
               ("empty", [], "empty")]
        for name, content, expected in bad:
            with open(log.path, "wb") as f:
                f.writelines(content)
            code, out, err = cli(build, "audit", "verify", log.path)
            equal((code, out), (65, ""), name)
            require(expected in err, "%s: %r" % (name, err))
        equal(cli(build, "audit", "verify", log.path + ".absent")[0], 66, "a file that is not there")
        for args in ((), ("verify",), ("check", log.path), ("verify", "--anchor", "x", log.path)):
            equal(cli(build, "audit", *args)[0], 64, "usage %r" % (args,))


def check_full_disk_under_both_policies(build):
    ask = {"question": "A?", "max_tokens": 2}
    with OpsDaemon(build, "--audit-log", "/dev/full") as d:
        for _ in range(3):
            d.post_ok(ASK, ask)
        equal(d.ready(), (200, None), "/readyz")
        equal(value(d.metrics(), "healthgpt_audit_failing"), 1, "healthgpt_audit_failing")
        require("audit log: cannot be written: No space left on device; requests go on" in d.log_text(), d.log_text())
    with OpsDaemon(build, "--audit-log", "/dev/full", "--audit-fail", "closed") as d:
        wait_for_status(d, ask, 503)
        equal(d.ready(), (503, "audit_unavailable"), "/readyz")
        status, headers, reply = d.post(ASK, ask)
        require_error(status, reply, 503, "audit_unavailable")
        require("Retry-After" in headers, "%r" % headers)
        until(lambda: value(d.metrics(), "healthgpt_rejected_total", reason="audit_unavailable") >= 2, "refusals in /metrics")
        equal(d.health()["status"], "ok", "who does not ask for work is served")
        require("new requests are refused" in d.log_text(), d.log_text())


def wait_for_status(d, ask, status):
    end = time.monotonic() + 60
    while d.post(ASK, ask)[0] != status:
        require(time.monotonic() < end, "no %d" % status)


def check_full_pipe_under_both_policies(build):
    """Nobody reads: the engine goes on, or nothing is accepted; and all is well again when somebody does."""
    ask, notes = {"question": "A?", "max_tokens": 2}, []
    for policy in ("open", "closed"):
        with Log() as log:
            os.mkfifo(log.path, 0o600)
            reader = os.open(log.path, os.O_RDWR | os.O_NONBLOCK)
            fcntl.fcntl(reader, 1031, 4096)  # F_SETPIPE_SZ: one page, a few lines
            answered, data = 0, b""
            with Daemon(build, "--audit-fail", policy, *log.args) as d:
                if policy == "open":
                    for answered in range(1, 31):
                        d.post_ok(ASK, ask)
                else:
                    end = time.monotonic() + 60
                    while d.post(ASK, ask)[0] == 200:
                        answered += 1
                        require(time.monotonic() < end, "no refusal")
                    status, _, reply = d.post(ASK, ask)
                    require_error(status, reply, 503, "audit_unavailable")
                end = time.monotonic() + 60
                while data.count(b'"event":"request"') < answered:
                    require(time.monotonic() < end, "%d lines of %d" % (data.count(b"\n"), answered))
                    try:
                        data += os.read(reader, 65536)
                    except BlockingIOError:
                        time.sleep(0.01)
                if policy == "closed":
                    wait_for_status(d, ask, 200)
            try:
                while True:
                    data += os.read(reader, 65536)
            except BlockingIOError:
                os.close(reader)
            os.unlink(log.path)
            with open(log.path, "wb") as f:
                f.write(data)
            code, out, err = cli(build, "audit", "verify", "--key-file", log.key, log.path)
            equal((code, err), (0, ""), "what came out of the pipe")
            require(b'"lost"' not in data, "lines were lost")
            notes.append("%s: %d answers" % (policy, answered))
    return ", ".join(notes)


def check_audit_options_are_checked(build):
    with Log() as log:
        with open(log.key, "wb") as f:
            f.write(b"short")
        for args, part in ((["--audit-log", "/nonexistent/x"], "audit_log /nonexistent/x"),
                           (log.args, "expected at least 32 random bytes, got 5"),
                           (["--audit-fail", "maybe"], "expected one of open, closed")):
            try:
                with Daemon(build, *args):
                    require(False, "the daemon started with %r" % args)
            except Fail as e:
                require("did not start" in str(e) and part in str(e), "%r: %s" % (args, e))
        with Log() as other, Daemon(build, *other.args):
            try:
                with Daemon(build, *other.args):
                    require(False, "two daemons write to one log")
            except Fail as e:
                require("another process writes to it" in str(e), str(e))
