"""--log-json: one line per ended request, and nothing of a patient in it; X-Request-Id and traceparent."""
import json
import re

from check_connections import SLOW, connect, draw, post, read_until
from check_keys import KeyFile, entry
from harness import Daemon, b64, equal, require, test_image
from opstool import OpsDaemon, until

ASK, DRAW = "/v1/vqa", "/v1/draw"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WORK = {"plugin", "stream", "choices", "prompt_tokens", "cached_tokens", "completion_tokens", "images", "image_sizes", "queue_ms",
        "first_token_ms", "finish_reason"}
ALWAYS = {"time", "level", "event", "request_id", "route", "status", "key", "model", "total_ms", "error"}


def lines_of(d):
    """Every line is JSON; those of requests."""
    lines = [json.loads(line) for line in d.log_text().splitlines()]
    require(all({"time", "level"} <= set(line) for line in lines), "time and level")
    return [line for line in lines if line.get("event") == "request"]


def line_of(d, name):
    """The line of the request with this id, when it is there."""
    def find():
        found = [line for line in lines_of(d) if line["request_id"] == name]
        require(len(found) < 2, "two lines: %r" % found)
        return found[0] if found else None
    return until(find, "the line of " + name)


def send(d, name, path, body, **more):
    status, headers, data = d.request("POST", path, json.dumps(body), dict({"Content-Type": "application/json", "X-Request-Id": name}, **more))
    equal(headers["X-Request-Id"], name, "X-Request-Id")
    return status, data


def check_a_line_says_what_was_done(build):
    with Daemon(build, "--log-json") as d:
        ask = {"question": "Describe the image.", "image": b64(test_image(3, 48)), "max_tokens": 5}
        status, data = send(d, "ask-1", ASK, ask, traceparent="00-%s-%s-01" % (TRACE, PARENT))
        reply, line = json.loads(data), line_of(d, "ask-1")
        equal(set(line), ALWAYS | WORK | {"trace_id", "parent_id"}, "members")
        expected = {"level": "info", "route": ASK, "status": 200, "key": None, "model": "healthgpt-demo", "error": None, "trace_id": TRACE,
                    "parent_id": PARENT, "plugin": "comprehension", "stream": False, "choices": 1, "images": 1, "image_sizes": [[48, 48]],
                    "prompt_tokens": reply["usage"]["prompt_tokens"], "completion_tokens": reply["usage"]["completion_tokens"],
                    "cached_tokens": 0, "finish_reason": reply["finish_reason"]}
        equal({k: line[k] for k in expected}, expected, "the line")
        require(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line["time"])
        equal((line["queue_ms"], line["first_token_ms"]), (reply["timings"]["queue_ms"], reply["timings"]["first_token_ms"]), "times")
        require(line["total_ms"] >= reply["timings"]["total_ms"], "total")
        send(d, "draw-1", DRAW, {"prompt": "Draw a chest X-ray.", "stream": True})
        line = line_of(d, "draw-1")
        equal((line["plugin"], line["stream"], line["finish_reason"], line["drawn"]), ("generation", True, "stop", [64, 64]), "a drawing")
        require(line["completion_tokens"] >= 64, line)
        equal(len([1 for text in d.log_text().splitlines() if re.search("request [0-9]", text)]), 0, "the text log's lines")


def check_every_answer_has_an_id(build):
    """Also those that are refused early, and whatever the header holds."""
    with Daemon(build) as d:
        for name, taken in (("abc.DEF_9-", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False), ("\"><script>", False)):
            for method, path in (("GET", "/health"), ("GET", "/v1/models"), ("GET", "/nonsense"), ("DELETE", ASK)):
                _, headers, _ = d.request(method, path, headers={"X-Request-Id": name})
                got = headers["X-Request-Id"]
                require(got == name if taken else re.fullmatch(r"req-[0-9a-f]{16}", got), "%r became %r" % (name, got))
        made = {d.request("GET", "/v1/models")[1]["X-Request-Id"] for _ in range(20)}
        equal(len(made), 20, "different names")
        got = d.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n\r\n")
        require(re.search(rb"X-Request-Id: req-[0-9a-f]{16}\r\n", got), got[:300])
        got = d.raw(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nX-Request-Id: mine\r\n\r\n")
        require(got.startswith(b"HTTP/1.1 403") and b"X-Request-Id: mine\r\n" in got, got[:300])


def check_errors_have_their_code(build):
    with Daemon(build, "--log-json") as d:
        for name, path, body, status, code in (("e-1", ASK, {"question": 3}, 400, "invalid_type"), ("e-2", "/v1/none", {}, 404, "unknown_route"),
                                               ("e-3", ASK, {"question": "Hi?", "timeout_ms": 1, "image": b64(test_image(1))}, None, None)):
            got, _ = send(d, name, path, body, traceparent="00-nonsense")
            line = line_of(d, name)
            equal(line["status"], status or got, name)
            if code:
                equal((line["error"], line["route"]), (code, path if status == 400 else None), name)
            require("trace_id" not in line, "an invalid traceparent: %r" % line)
        equal(len(lines_of(d)), 3, "lines")


def check_a_client_that_leaves_has_a_line(build):
    with Daemon(build, *SLOW, "--log-json") as d:
        s = connect(d, draw(1).replace(b"Host:", b"X-Request-Id: gone-1\r\nHost:"))
        read_until(s, lambda g: b'"progress"' in g)
        s.close()
        line = line_of(d, "gone-1")
        equal((line["finish_reason"], line["level"]), ("cancelled", "info" if line["status"] == 200 else "warn"), "the line")
        require(0 < line["completion_tokens"] < 65 and line["prompt_tokens"] > 0, line)
        s = connect(d, post({"question": "Hi?"}).replace(b"Host:", b"X-Request-Id: gone-2\r\nHost:")[:-4])
        s.close()
        equal(line_of(d, "gone-2")["status"], 499, "half a body")


def check_secrets_are_in_no_line_and_no_metric(build):
    """T-24: text, names of files, headers, keys and addresses that are planted in every place."""
    secret, key = "SECRET-7f3a", "key-of-clinic"
    png = test_image(7)
    with KeyFile(entry("clinic")) as f:
        with OpsDaemon(build, "--log-json", "--api-keys", f.path) as d:
            head = {"Authorization": "Bearer " + key, "Content-Type": "application/json", "User-Agent": secret, "X-Forwarded-For": "203.0.113.77",
                    "X-Secret": secret, "Referer": "http://%s/" % secret, "Cookie": secret}
            bodies = [(ASK, {"question": secret, "system": secret, "max_tokens": 3}), (ASK, {"question": secret, "image": b64(png), "stream": True}),
                      (DRAW, {"prompt": secret, "stream": True}), (ASK, {"question": "Hi?", secret: 1}), (ASK, {"question": secret, "image": secret}),
                      (ASK, {"question": secret, "max_tokens": secret}), ("/v1/" + secret, {}), (ASK + "?q=" + secret, {"question": secret}),
                      ("/v1/chat/completions", {"model": secret, "messages": [{"role": "user", "content": secret}]}),
                      ("/v1/chat/completions", {"messages": [{"role": "user", "content": secret}], "max_tokens": 3, "user": secret})]
            for path, body in bodies:
                d.request("POST", path, json.dumps(body), head)
            d.request("POST", ASK, b"{\"question\": \"" + secret.encode(), head)
            form = ("--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"%s.png\"\r\n\r\n" % secret).encode() + png + (
                "\r\n--b\r\nContent-Disposition: form-data; name=\"question\"\r\n\r\n%s\r\n--b--\r\n" % secret).encode()
            d.request("POST", ASK, form, dict(head, **{"Content-Type": "multipart/form-data; boundary=b"}))
            d.request("GET", "/v1/models", headers={"Authorization": "Bearer wrong-" + secret})
            d.request("GET", "/v1/models", headers=dict(head, **{"X-Request-Id": secret + " !", "traceparent": secret}))
            until(lambda: len(lines_of(d)) == len(bodies) + 4, "the lines")
            page = d.ops("/metrics")[2].decode()
            lines = lines_of(d)
        equal({line["key"] for line in lines}, {"clinic", None}, "keys have names")
        for where, text in (("log", d.log_text()), ("metrics", page)):
            for word in (secret, key, "203.0.113.77", "127.0.0.1:%d/" % d.port, b64(png)[:40]):
                require(word not in text, "%r is in the %s" % (word, where))
        addresses = re.findall(r"\d+\.\d+\.\d+\.\d+", "".join(json.dumps(line) for line in lines))
        equal(addresses, [], "addresses in lines of requests")
