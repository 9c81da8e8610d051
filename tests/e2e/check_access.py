"""Every route with every method and every kind of credentials (T-05), out of /openapi.json."""
import json
import re
import socket

from check_keys import KeyFile, entry
from harness import Daemon, equal, read_to_end, require

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW")
# name, header lines, what it is: nobody, "reader" (GET and HEAD only) or "user"
CREDENTIALS = [
    ("no header", [], None), ("empty", ["Authorization:"], None), ("no key", ["Authorization: Bearer"], None),
    ("another scheme", ["Authorization: Basic a2V5LW9mLXVzZXI6"], None), ("bare key", ["Authorization: key-of-user"], None),
    ("wrong key", ["Authorization: Bearer key-of-nobody"], None), ("key cut", ["Authorization: Bearer key-of-use"], None),
    ("key and more", ["Authorization: Bearer key-of-userx"], None),
    ("key and a word", ["Authorization: Bearer key-of-user x"], None),
    ("key in other letters", ["Authorization: Bearer KEY-OF-USER"], None),
    ("another header", ["X-API-Key: key-of-user", "Proxy-Authorization: Bearer key-of-user"], None),
    ("a long key", ["Authorization: Bearer " + "k" * 4000], None), ("the digest", ["Authorization: Bearer %s"], None),
    ("reader", ["Authorization: Bearer key-of-reader"], "reader"), ("user", ["Authorization: Bearer key-of-user"], "user"),
    ("user, other letters", ["authorization: BEARER key-of-user"], "user"),
]
PUBLIC = ("/health", "/")
UNKNOWN = ("/v1", "/v1/keys", "/metrics", "/admin", "/health/x", "/v1/models/x/y/z", "/..%2fhealth", "/HEALTH", "/v1/%00x")


def routes(d):
    """(path, method) of every route, as the daemon itself tells: /openapi.json comes out of the table that it routes by."""
    doc = json.loads(d.request("GET", "/openapi.json", headers={"Authorization": "Bearer key-of-user"})[2])
    return [(path, method.upper()) for path, methods in doc["paths"].items() for method in methods if method != "parameters"]


def ask(d, method, path, lines, body=b"{}"):
    """The status of the answer."""
    head = ["%s %s HTTP/1.1" % (method, path), "Host: localhost", "Connection: close"] + lines
    if method not in ("GET", "HEAD"):
        head += ["Content-Type: application/json", "Content-Length: %d" % len(body)]
    with socket.create_connection(("127.0.0.1", d.port), 60) as s:
        s.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if method in ("GET", "HEAD") else body))
        got = read_to_end(s)
    m = re.match(rb"HTTP/1\.1 (\d{3}) ", got)
    require(m, "%s %s: %r" % (method, path, got[:80]))
    require(b"key-of" not in got, "an answer with a key: %r" % got)
    return int(m.group(1))


def expected(path, own, method, who):
    """The statuses that are right; own: the method of the route, None: there is no such route."""
    reads = method in ("GET", "HEAD")
    if path in PUBLIC and reads:
        return (200,)
    if who is None:
        return (401,)
    if who == "reader" and not reads:
        return (403,)
    if own is None:
        return (404, 400)
    if method != own and not (method == "HEAD" and own == "GET"):
        return (405,)
    return (200, 404) if own == "GET" else (400,)  # {} lacks what is needed; models/{id} may be unknown


def check_every_route_method_and_credential(build):
    n = 0
    with KeyFile(entry("user"), entry("reader", role="reader")) as keys:
        digest = entry("user")["sha256"]
        with Daemon(build, "--api-keys", keys.path, "--auth-failures-per-minute", "0") as d:
            table = routes(d)
            require(len(table) >= 5 and ("/health", "GET") in table, "routes: %r" % table)
            for path, own in table + [(u, None) for u in UNKNOWN]:
                for method in METHODS:
                    for name, lines, who in CREDENTIALS:
                        got = ask(d, method, path.replace("{id}", "healthgpt-demo"),
                                  [line.replace("%s", digest) for line in lines])
                        right = expected(path, own, method, who)
                        if path.endswith("%00x"):
                            right = (400,)  # the gate is before the keys
                        require(got in right, "%s %s with %s: expected %s, got %d" % (method, path, name, right, got))
                        n += 1
            h = d.health()
            equal(h["ledger"]["accepted"], 0, "requests that reached the engine")
    return "%d combinations of %d routes" % (n, len(table))


def check_no_body_is_read_without_a_key(build):
    """The refusal comes before the go-ahead for the body."""
    with KeyFile(entry("user")) as keys:
        with Daemon(build, "--api-keys", keys.path, "--auth-failures-per-minute", "0") as d:
            posts = [path for path, method in routes(d) if method == "POST"]
            for path in posts:
                for lines in ([], ["Authorization: Bearer key-of-nobody"]):
                    got = d.raw("\r\n".join(["POST %s HTTP/1.1" % path, "Host: localhost", "Expect: 100-continue",
                                             "Content-Type: application/json", "Content-Length: 20000000"] + lines
                                            ).encode() + b"\r\n\r\n")
                    require(got.startswith(b"HTTP/1.1 401 ") and b" 100 " not in got, "%s: %r" % (path, got[:80]))
    return "%d routes" % len(posts)
