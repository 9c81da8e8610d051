"""The HTTP front: routes, methods, limits, framing that two parsers could read in two ways."""
import glob
import json
import os
import re

from harness import SHARED, Daemon, Fail, Skip, b64, equal, require, require_error, test_image

JSON_TYPE = {"Content-Type": "application/json"}


def check_routes_methods_and_types(build):
    with Daemon(build) as d:
        status, headers, data = d.request("GET", "/health")
        health = json.loads(data)
        equal((status, health["status"]), (200, "ok"), "/health")
        require(health["model"] and health["backend"] and health["notice"], "/health: %r" % health)
        equal(headers["X-Content-Type-Options"], "nosniff", "nosniff")
        equal(headers["Cache-Control"], "no-store", "Cache-Control")
        equal(d.request("HEAD", "/health")[0], 200, "HEAD")
        models = json.loads(d.request("GET", "/v1/models")[2])
        equal(models["data"][0]["id"], health["model"], "/v1/models")
        for path in ("/v1", "/v1/vqa/x", "/v1/chat", "/V1/VQA", "/v1/models/a/b"):
            status, _, data = d.request("GET", path)
            require_error(status, json.loads(data), 404, "unknown_route")
        for method, path, allow in (("GET", "/v1/vqa", "POST"), ("DELETE", "/v1/vqa", "POST"),
                                    ("POST", "/health", "GET, HEAD"), ("PUT", "/v1/models", "GET, HEAD")):
            status, headers, data = d.request(method, path)
            require_error(status, json.loads(data), 405, "method_not_allowed")
            equal(headers["Allow"], allow, "Allow")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
            status, _, data = d.request("POST", "/v1/vqa", "{}", {"Content-Type": kind})
            require_error(status, json.loads(data), 415, "unsupported_media_type")
        status, _, data = d.request("POST", "/v1/vqa", "{}", {"Content-Type": "application/json; charset=utf-8"})
        require_error(status, json.loads(data), 400, None, "question")


def check_large_bodies_get_413(build):
    with Daemon(build) as d:
        for size in (25 << 20, 40 << 20):
            status, _, data = d.request("POST", "/v1/vqa", b"x" * size, JSON_TYPE)
            require_error(status, json.loads(data), 413, "body_too_large")

        def chunks():
            for _ in range(26):
                yield b"y" * (1 << 20)
        status, _, data = d.request("POST", "/v1/vqa", chunks(), JSON_TYPE)
        require_error(status, json.loads(data), 413, "body_too_large")
        got = d.raw(b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        require(b" 413 " in got.split(b"\r\n")[0], "Expect: %r" % got[:100])
        big = {"question": "x", "image": "A" * (23 << 20)}
        status, _, reply = d.post("/v1/vqa", big)
        require_error(status, reply, 413, "image_too_large", "image")
        equal(d.health()["status"], "ok", "after large bodies")


def head(*lines, start="POST /v1/vqa HTTP/1.1", body=b"{}"):
    return "\r\n".join((start,) + lines).encode("latin-1") + b"\r\n\r\n" + body


FRAMING = [
    ("two lengths", head("Host: localhost", "Content-Length: 2", "Content-Length: 3"), 400),
    ("signed length", head("Host: localhost", "Content-Length: +2"), 400),
    ("length and chunked", head("Host: localhost", "Content-Length: 2", "Transfer-Encoding: chunked",
                                body=b"0\r\n\r\n"), 400),
    ("chunked twice", head("Host: localhost", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked",
                           body=b"0\r\n\r\n"), 400),
    ("unknown coding", head("Host: localhost", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    ("chunked in HTTP/1.0", head("Host: localhost", "Transfer-Encoding: chunked",
                                 start="POST /v1/vqa HTTP/1.0", body=b"0\r\n\r\n"), 400),
    ("no Host", head(start="GET /health HTTP/1.1", body=b""), 400),
    ("two Hosts", head("Host: localhost", "Host: localhost", start="GET /health HTTP/1.1", body=b""), 400),
    ("foreign Host", head("Host: evil.example", start="GET /health HTTP/1.1", body=b""), 403),
    ("encoded NUL", head("Host: localhost", start="GET /health%00x HTTP/1.1", body=b""), 400),
    ("header name with a bracket", head("Host: localhost", "X(y: 1", start="GET /health HTTP/1.1", body=b""), 400),
    ("GET with a body", head("Host: localhost", "Content-Length: 2", start="GET /health HTTP/1.1"), 400),
    ("strange Expect", head("Host: localhost", "Expect: banana", "Content-Length: 2"), 417),
    ("70 headers", head("Host: localhost", *["X-%d: 1" % i for i in range(70)], start="GET /health HTTP/1.1",
                        body=b""), 431),
    ("3000-byte target", head("Host: localhost", start="GET /%s HTTP/1.1" % ("a" * 3000), body=b""), 414),
    ("local Host with port", head("Host: 127.0.0.1:99", start="GET /health HTTP/1.1", body=b""), 200),
]


def check_ambiguous_framing_is_refused(build):
    with Daemon(build) as d:
        for name, data, expected in FRAMING:
            try:
                got = d.raw(data)
            except TimeoutError:
                raise Fail(name + ": neither an answer nor a close")
            m = re.match(rb"HTTP/1\.[01] (\d+)", got)
            require(m and int(m.group(1)) == expected, "%s: expected %d, got %r" % (name, expected, got[:120]))
            # libmicrohttpd 0.9.75 writes the head of its own refusals twice; what must not be there is
            # the answer to a second, smuggled request.
            equal(set(re.findall(rb"HTTP/1\.[01] (\d+)", got)), {m.group(1)}, name + ": one answer")
        equal(d.health()["status"], "ok", "after broken framing")
    return "%d cases" % len(FRAMING)


# Valid JSON that is refused: two values for one key, a NUL in a key.
REFUSED_JSON = ("y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json",
                "y_object_escaped_null_in_key.json")


def is_object(data):
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def check_json_test_suite_is_judged_rightly(build):
    """n_: no JSON, refused as such. y_: an object is read, so what is missing in it is what it is refused for. i_: either."""
    files = sorted(glob.glob(os.path.join(SHARED, "data/http/json_test_suite/test_parsing/*.json")))
    if not files:
        raise Skip("shared/data/http/json_test_suite is not there")
    n_read = 0
    with Daemon(build) as d:
        for path in files:
            name = os.path.basename(path)
            with open(path, "rb") as f:
                data = f.read()
            status, _, reply = d.post("/v1/vqa", data)
            code = require_error(status, reply, 400)["code"]
            if name[0] == "n" or name in REFUSED_JSON:
                equal(code, "invalid_json", name)
            elif name[0] == "y" and is_object(data):
                require(code in ("unknown_parameter", "missing_text"), "%s: %s" % (name, code))
                n_read += 1
            elif name[0] == "y":
                require(code in ("invalid_json", "invalid_type"), "%s: %s" % (name, code))
        equal(d.health()["status"], "ok", "after the suite")
    require(n_read > 5, "%d objects read" % n_read)
    return "%d files, %d of them objects that are read" % (len(files), n_read)


def check_keep_alive_serves_many_requests(build):
    import http.client
    with Daemon(build) as d:
        c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=60)
        for i in range(50):
            if i % 2:
                c.request("POST", "/v1/vqa", json.dumps({"question": "Hi?", "max_tokens": 1}), JSON_TYPE)
            else:
                c.request("GET", "/health")
            r = c.getresponse()
            equal(r.status, 200, "request %d" % i)
            r.read()
        c.close()


def check_form_fields_and_several_images(build):
    a, b = test_image(1), test_image(2)
    with Daemon(build) as d:
        status, _, two = d.form("/v1/vqa", [("image", a, "a.png"), ("image", b, "b.png"), ("question", "Compare."),
                                            ("max_tokens", "3"), ("temperature", "0")])
        equal(status, 200, two)
        as_json = d.post_ok("/v1/vqa", {"images": [b64(a), "data:image/png;base64," + b64(b)],
                                        "question": "Compare.", "max_tokens": 3})
        equal(two["text"], as_json["text"], "form and JSON give the same answer")
        equal(two["usage"]["prompt_tokens"], as_json["usage"]["prompt_tokens"], "form and JSON have the same prompt")
        status, _, reply = d.form("/v1/vqa", [("question", "x"), ("max_tokens", "seven")])
        require_error(status, reply, 400, "invalid_type", "max_tokens")
        status, _, reply = d.form("/v1/vqa", [("question", "x"), ("picture", a, "a.png")])
        require_error(status, reply, 400, "unknown_parameter", "picture")
        status, _, reply = d.form("/v1/vqa", [("question", b"\xff\xfe")])
        require_error(status, reply, 400, "invalid_value", "question")
        status, _, data = d.request("POST", "/v1/vqa", "junk", {"Content-Type": "multipart/form-data; boundary=B"})
        require_error(status, json.loads(data), 400, "invalid_form")
