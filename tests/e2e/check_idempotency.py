"""Idempotency-Key on the routes that draw: sent again, a request is answered with what was computed before."""
import concurrent.futures
import http.client
import json
import time

from check_connections import SLOW
from check_keys import KeyFile, auth, entry
from harness import Daemon, equal, require, require_error, test_image

DRAW = {"prompt": "Draw a chest X-ray."}  # no seed: two drawings are two pictures
JSON_TYPE = {"Content-Type": "application/json"}


def draw(d, key, body=None, path="/v1/images/generations", headers=None):
    head = dict(headers or JSON_TYPE, **({"Idempotency-Key": key} if key is not None else {}))
    return d.request("POST", path, json.dumps(body or DRAW), head)


def begin(d, key, body=None, path="/v1/images/generations"):
    c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=120)
    c.request("POST", path, json.dumps(body or DRAW), dict(JSON_TYPE, **{"Idempotency-Key": key}))
    return c


def is_replay(headers):
    return headers.get("Idempotent-Replayed") == "true"


def require_new(got):
    equal(got[0], 200, got[2][:300])
    require(not is_replay(got[1]), "not a replay: %r" % got[1])
    return got[2]


def require_replay(got, data):
    equal(got[0], 200, got[2][:300])
    require(is_replay(got[1]) and got[1].get("X-Synthetic-Image") == "true", "headers of a replay: %r" % got[1])
    equal(got[2], data, "the bytes of the first answer")


def n_drawn(d):
    return d.health()["requests"]["done"]


def wait_for_work(d):
    while d.health()["open"]["requests"] == 0:
        time.sleep(0.005)


def check_idempotent_image_409_then_cached(build):
    with Daemon(build, *SLOW) as d:
        first = begin(d, "key 1")
        wait_for_work(d)
        n_conflicts, (status, headers, data) = 0, draw(d, "key 1")
        while status != 200:
            require_error(status, json.loads(data), 409, "idempotency_key_in_use")
            n_conflicts += 1
            time.sleep(0.005)
            status, headers, data = draw(d, "key 1")
        require_replay((status, headers, data), first.getresponse().read())
        require(n_conflicts > 0, "the second came while the first was computed")
        equal(n_drawn(d), 1, "drawings")
        first.close()
    return "%d times 409" % n_conflicts


def check_the_same_again_is_answered_without_work(build):
    with Daemon(build) as d:
        for path in ("/v1/images/generations", "/v1/draw"):
            data = require_new(draw(d, "a-" + path, path=path))
            before = n_drawn(d)
            for _ in range(3):
                require_replay(draw(d, "a-" + path, path=path), data)
            equal(n_drawn(d), before, "drawings")
            require(require_new(draw(d, "b-" + path, path=path)) != data, "another key is another picture")
            require_new(draw(d, None, path=path))
        status, _, data = draw(d, "a-/v1/draw", dict(DRAW, prompt="Draw two."), "/v1/draw")
        require_error(status, json.loads(data), 422, "idempotency_key_reused")
        status, _, data = draw(d, "a-/v1/draw")
        require_error(status, json.loads(data), 422, "idempotency_key_reused")


def check_forms_differ_in_their_boundary_only(build):
    def form(boundary, picture):
        b = boundary.encode()
        return (b"--" + b + b"\r\nContent-Disposition: form-data; name=prompt\r\n\r\nBrighter.\r\n--" + b
                + b"\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n" + picture
                + b"\r\n--" + b + b"--\r\n")

    def edit(d, boundary, picture):
        return d.request("POST", "/v1/images/edits", form(boundary, picture), {
            "Content-Type": "multipart/form-data; boundary=" + boundary, "Idempotency-Key": "edit"})
    with Daemon(build) as d:
        data = require_new(edit(d, "one", test_image(1)))
        require_replay(edit(d, "another", test_image(1)), data)
        status, _, data = edit(d, "one", test_image(2))
        require_error(status, json.loads(data), 422, "idempotency_key_reused")


def check_failures_are_not_kept(build):
    with Daemon(build, *SLOW) as d:
        status, _, data = draw(d, "k", dict(DRAW, timeout_ms=1), "/v1/draw")
        require_error(status, json.loads(data), 504, "deadline_exceeded")
        c = begin(d, "k")  # another question with the key that failed; its client leaves
        wait_for_work(d)
        c.close()
        d.wait_idle()
        while True:  # until the server has seen that the connection is gone
            status, headers, data = draw(d, "k", path="/v1/draw")
            if status == 200:
                break
            require(status in (409, 422), "%d %r" % (status, data))
            time.sleep(0.005)
        require(not is_replay(headers), "computed anew")
        status, _, data = draw(d, "bad", {"prompt": 1})
        require_error(status, json.loads(data), 400, "invalid_type")
        require_new(draw(d, "bad"))


def check_what_a_key_may_be_and_where(build):
    with Daemon(build) as d:
        for key in ("", "k" * 256, "caf\xe9"):
            status, _, data = draw(d, key)
            require_error(status, json.loads(data), 400, "invalid_idempotency_key")
        require_new(draw(d, "k" * 255))
        status, _, data = draw(d, "s", dict(DRAW, stream=True))
        require_error(status, json.loads(data), 400, "idempotency_with_stream")
        for _ in range(2):  # elsewhere it means nothing
            status, headers, data = draw(d, "q", {"question": "Hi?", "max_tokens": 2}, "/v1/vqa")
            equal(status, 200, data)
            require(not is_replay(headers), "a question is computed")


def check_a_key_belongs_to_its_tenant(build):
    with KeyFile(entry("a"), entry("b")) as keys, Daemon(build, "--api-keys", keys.path) as d:
        data = require_new(draw(d, "k", headers=auth("a")))
        other = require_new(draw(d, "k", headers=auth("b")))
        require(other != data, "two pictures")
        require_replay(draw(d, "k", headers=auth("a")), data)
        require_replay(draw(d, "k", headers=auth("b")), other)


def check_the_oldest_answers_go(build):
    """256 are kept: the first is there until the 257th has come."""
    with Daemon(build) as d:
        first = require_new(draw(d, "first"))
        second = require_new(draw(d, "second"))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda i: draw(d, "k%d" % i), range(254)):
                require_new(got)
        require_replay(draw(d, "first"), first)
        require_new(draw(d, "one more"))
        require_replay(draw(d, "second"), second)
        require(require_new(draw(d, "first")) != first, "computed anew")
