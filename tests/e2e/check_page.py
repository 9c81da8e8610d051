"""The page of GET /: what is sent, and that nothing outside it is needed or allowed. What it does is in check_browser."""
import base64
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess

from check_faults import until
from check_keys import KeyFile, auth, entry
from harness import ROOT, Daemon, equal, require, require_error

NOTICE = ("Research use only. Not a medical device. Not cleared or approved by any authority. "
          "Output must not be used for diagnosis or treatment.")
POLICY = {"default-src": "'none'", "img-src": "blob: data:", "connect-src": "'self'", "base-uri": "'none'",
          "form-action": "'none'", "frame-ancestors": "'none'", "require-trusted-types-for": "'script'"}


def get(d, method="GET", **headers):
    status, got, body = d.request(method, "/", headers=headers)
    return status, {k.lower(): v for k, v in got.items()}, body


def element(page, name):
    """The text of the only element of that name."""
    found = re.findall(r"<%s\b([^>]*)>(.*?)</%s>" % (name, name), page, re.S)
    equal(len(found), 1, "<%s> elements" % name)
    equal(found[0][0], "", "attributes of <%s>" % name)
    return found[0][1]


def check_the_page_is_one_document_with_nothing_outside(build):
    with Daemon(build) as d:
        status, headers, body = get(d)
        equal(status, 200, "GET /")
        equal(headers["content-type"], "text/html; charset=utf-8", "Content-Type")
        require(len(body) <= 40000, "the page has %d bytes" % len(body))
        equal(int(headers["content-length"]), len(body), "Content-Length")
        page = body.decode("utf-8")
        outside = set(re.findall(r"\b\w+://[^\s'\"<)]+", page)) - {"http://www.w3.org/2000/svg"}
        equal(outside, set(), "addresses in the page")
        equal(set(re.findall(r"\b(?:src|href|action|data|poster|srcset)=\"(?!data:image/svg)[^\"]*", page)), set(), "links")
        require(not re.search(r"@import|url\(|\son\w+\s*=\s*[\"']|javascript:|style=\"", page), "handlers, imports or inline style")
        require(not re.search(r"\beval\(|innerHTML|outerHTML|document\.write|localStorage|sessionStorage|cookie", page),
                "what the page must not use")
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        for name in ("script", "style"):
            digest = base64.b64encode(hashlib.sha256(element(page, name).encode()).digest()).decode()
            equal(policy.pop(name + "-src"), "'sha256-%s'" % digest, name + "-src")
        equal(policy, POLICY, "the rest of the policy")
        equal((headers["x-content-type-options"], headers["cache-control"], headers["referrer-policy"]),
              ("nosniff", "no-store", "no-referrer"), "headers")
        return "%d bytes" % len(body)


def check_the_page_answers_head_and_only_reads(build):
    with Daemon(build) as d:
        _, want, body = get(d)
        status, headers, none = get(d, "HEAD")
        equal((status, none), (200, b""), "HEAD /")
        for name in ("content-length", "content-type", "content-security-policy"):
            equal(headers[name], want[name], name)
        raw = d.raw(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        equal(raw.partition(b"\r\n\r\n")[2], b"", "body of HEAD")
        status, headers, reply = get(d, "POST")
        require_error(status, json.loads(reply), 405, "method_not_allowed")
        equal(headers["allow"], "GET, HEAD", "Allow")
        status, _, reply = get(d, Host="clinic.example")
        require_error(status, json.loads(reply), 403, "host_not_allowed")
        equal(get(d)[2], body, "the same page again")


def check_the_page_can_be_left_out(build):
    with Daemon(build, "--no-page") as d:
        for method in ("GET", "POST"):
            status, _, reply = get(d, method)
            require_error(status, json.loads(reply), 404, "unknown_route")
        equal(d.health()["status"], "ok", "/health without the page")
    with KeyFile(entry("a")) as keys, Daemon(build, "--no-page", "--api-keys", keys.path) as d:
        status, _, reply = get(d)
        require_error(status, json.loads(reply), 401, "missing_api_key")


def check_the_page_needs_no_key_and_gives_none_away(build):
    with KeyFile(entry("a")) as keys, Daemon(build, "--api-keys", keys.path) as d:
        status, _, body = get(d)
        equal(status, 200, "GET / without a key")
        status, _, with_key = get(d, **auth("a"))
        equal((status, with_key), (200, body), "GET / with a key")
        for path in ("/v1/models", "/page.js", "//"):
            status, _, reply = d.request("GET", path)
            require_error(status, json.loads(reply), 401, "missing_api_key")


def check_the_page_is_there_while_the_model_loads(build):
    """As on a big model's start: the port is open, the work is refused."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    p = subprocess.Popen([os.path.join(ROOT, build, "healthgptd-faults"), "--listen", "127.0.0.1:%d" % port, "--ops-listen", ""],
                         env=dict(os.environ, HG_FAULT="step_hang:piece=load"), stderr=subprocess.DEVNULL)
    try:
        def ask(path):
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read()

        def listens():
            try:
                return ask("/")
            except ConnectionRefusedError:
                return None
        until(listens, "the port is open")
        status, body = ask("/")
        equal(status, 200, "GET / while loading")
        require(b"</html>" in body, "the page: %r" % body[:100])
        status, reply = ask("/v1/models")
        require_error(status, json.loads(reply), 503, "loading")
    finally:
        p.kill()
        p.wait()


def check_the_notice_is_worded_once(build):
    with Daemon(build) as d:
        text = re.sub(r"<[^>]+>", "", get(d)[2].decode())
        require(NOTICE in re.sub(r"\s+", " ", text), "the page's notice")
        card = json.loads(d.request("GET", "/v1/models/%s/card" % d.health()["model"])[2])
        equal(card["intended_use"], NOTICE, "intended_use of the model card")
    for program in ("healthgpt", "healthgptd"):
        out = subprocess.run([os.path.join(ROOT, build, program), "--version"], stdout=subprocess.PIPE, check=True).stdout.decode()
        require(re.fullmatch(program + r" \d+\.\d+\.\d+\n" + re.escape(NOTICE) + "\n", out), "%s --version: %r" % (program, out))
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        require(NOTICE in re.sub(r"\s+", " ", f.read()), "README.md")
