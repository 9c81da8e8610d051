"""Host and Origin (T-04): which names are good on loopback, with --allowed-hosts, and beyond loopback."""
import json
import re
import socket

from harness import Daemon, equal, read_to_end, require

# Host, good on loopback, good with --allowed-hosts a.example,B.example:  (P stands for the port of the daemon)
HOSTS = [
    ("localhost", 1, 1), ("localhost:P", 1, 1), ("LOCALHOST", 1, 1), ("localhost:1", 1, 1), ("127.0.0.1", 1, 1),
    ("127.0.0.1:P", 1, 1), ("[::1]", 1, 1), ("[::1]:P", 1, 1), ("localhost:", 0, 0), ("localhost:x", 0, 0),
    ("localhost:80x", 0, 0), ("localhost:123456", 0, 0), ("localhost:80:80", 0, 0), ("localhost.", 0, 0),
    ("localhost.evil.example", 0, 0), ("evil.localhost", 0, 0), ("xlocalhost", 0, 0), ("127.0.0.1.evil.example", 0, 0),
    ("127.0.0.2", 0, 0), ("127.1", 0, 0), ("0x7f000001", 0, 0), ("2130706433", 0, 0), ("0.0.0.0", 0, 0),
    ("::1", 0, 0), ("[::1", 0, 0), ("[::ffff:127.0.0.1]", 0, 0), ("evil.example", 0, 0), ("", 0, 0),
    ("user@localhost", 0, 0), ("localhost/", 0, 0), ("localhost,evil.example", 0, 0), ("localhost evil.example", 0, 0),
    ("a.example", 0, 1), ("A.Example:443", 0, 1), ("b.example:P", 0, 1), ("a.example.evil.example", 0, 0),
    ("xa.example", 0, 0), ("a.example,b.example", 0, 0), (",", 0, 0), ("\xe4.example", 0, 0),
]
# Origin, good on loopback, good with the same list
ORIGINS = [
    (None, 1, 1), ("http://localhost", 1, 1), ("http://localhost:P", 1, 1), ("http://localhost:3000", 1, 1),
    ("https://localhost", 1, 1), ("HTTP://LOCALHOST", 1, 1), ("http://127.0.0.1:P", 1, 1), ("http://[::1]:P", 1, 1),
    ("null", 0, 0), ("", 0, 0), ("http://evil.example", 0, 0), ("https://evil.example:8080", 0, 0),
    ("http://localhost.evil.example", 0, 0), ("http://evil.example/localhost", 0, 0), ("http://localhost/", 0, 0),
    ("http://localhost@evil.example", 0, 0), ("http://evil.example#localhost", 0, 0), ("file://", 0, 0),
    ("file:///localhost", 0, 0), ("localhost", 0, 0), ("//localhost", 0, 0), ("ftp://localhost", 0, 0),
    ("chrome-extension://abcdefghijklmnop", 0, 0), ("http:localhost", 0, 0), ("http:///localhost", 0, 0),
    ("http://localhost:x", 0, 0), ("http://127.0.0.1.nip.example", 0, 0), ("http://", 0, 0),
    ("https://a.example", 0, 1), ("http://B.EXAMPLE:8443", 0, 1), ("https://a.example.evil.example", 0, 0),
    ("http://localhost http://evil.example", 0, 0),
]
ASK = b'{"question":"Hi?","max_tokens":1}'
NAMES = ("--allowed-hosts", "a.example, B.example")


def send(d, host, origin=None, more=()):
    """Status and error code of a question."""
    lines = [b"POST /v1/vqa HTTP/1.1", b"Host: " + host.replace(":P", ":%d" % d.port).encode("latin-1"),
             b"Content-Type: application/json", b"Content-Length: %d" % len(ASK), b"Connection: close"]
    if origin is not None:
        lines.append(b"Origin: " + origin.replace(":P", ":%d" % d.port).encode())
    with socket.create_connection(("127.0.0.1", d.port), 60) as s:
        s.sendall(b"\r\n".join(lines + list(more)) + b"\r\n\r\n" + ASK)
        got = read_to_end(s)
    head, _, body = got.partition(b"\r\n\r\n")
    status = int(re.match(rb"HTTP/1\.1 (\d+)", head).group(1))
    require(b"access-control-" not in head.lower(), "a CORS header: %r" % head)
    return status, json.loads(body).get("error", {}).get("code")


def hold(d, rows, column, ask, refusal):
    for row in rows:
        got = ask(d, row[0])
        equal(got, (200, None) if row[column] else refusal, "%r" % row[0])


def check_the_matrix_of_hosts(build):
    refusal = (403, "host_not_allowed")
    with Daemon(build) as d:
        hold(d, HOSTS, 1, send, refusal)
        equal(d.health()["ledger"]["accepted"], sum(h[1] for h in HOSTS), "questions computed")
    with Daemon(build, *NAMES) as d:
        hold(d, HOSTS, 2, send, refusal)
        equal(d.health()["ledger"]["accepted"], sum(h[2] for h in HOSTS), "questions computed")
    with Daemon(build, "--listen", "0.0.0.0:0", "--insecure", any_address=True) as d:
        hold(d, [(h[0], 1) for h in HOSTS], 1, send, refusal)
    with Daemon(build, "--listen", "0.0.0.0:0", "--insecure", *NAMES, any_address=True) as d:
        hold(d, HOSTS, 2, send, refusal)
    return "%d hosts x 4 ways to listen" % len(HOSTS)


def check_the_matrix_of_origins(build):
    refusal = (403, "origin_not_allowed")

    def ask(d, origin):
        return send(d, "localhost", origin)

    with Daemon(build) as d:
        hold(d, ORIGINS, 1, ask, refusal)
        equal(send(d, "localhost", "http://localhost", [b"Origin: http://localhost"]), refusal, "two Origins")
        status, headers, _ = d.request("OPTIONS", "/v1/vqa", headers={
            "Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
        equal(status, 403, "a preflight")
    with Daemon(build, *NAMES) as d:
        hold(d, ORIGINS, 2, ask, refusal)
    with Daemon(build, "--listen", "0.0.0.0:0", "--insecure", any_address=True) as d:
        hold(d, [(o[0], 1) for o in ORIGINS], 1, ask, refusal)
    return "%d origins x 3 ways to listen" % len(ORIGINS)
