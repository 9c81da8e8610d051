"""No URL is fetched (T-07) and no name becomes a path (T-08), whatever their form; strace sees it where it is there."""
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.parse

from harness import Daemon, Skip, b64, equal, require, test_image

# P: the port of a server that must never be asked
URLS = [
    "http://127.0.0.1:P/x.png", "https://127.0.0.1:P/x.png", "HTTP://127.0.0.1:P/x.png", "hTtP://127.0.0.1:P/",
    "http://localhost:P/x.png", "http://[::1]:P/x.png", "http://[::ffff:127.0.0.1]:P/", "http://0:P/", "http://127.1:P/",
    "http://2130706433:P/", "http://0x7f000001:P/", "http://0177.0.0.1:P/", "http://user@127.0.0.1:P/",
    "http://user:pass@127.0.0.1:P/", "http://example.com@127.0.0.1:P/", "http://127.0.0.1:P\\@example.com/",
    "http:\\\\127.0.0.1:P\\x.png", "http:/127.0.0.1:P/", "http:127.0.0.1:P", "//127.0.0.1:P/x.png", "http://127.0.0.1:P#a",
    "http://127.0.0.1:P/?a=data:image/png;base64,AAAA", " http://127.0.0.1:P/", "\thttp://127.0.0.1:P/",
    "http://127.0.0.1:P/\r\nX: y", "ht\ntp://127.0.0.1:P/", "http://127.0.0.1%3aP/", "http%3a//127.0.0.1:P/",
    "file:///etc/hostname", "file:/etc/hostname", "FILE:///etc/hostname", "file://localhost/etc/hostname",
    "file:///proc/self/environ", "file:///dev/zero", "/etc/hostname", "../../etc/hostname", "./x.png", "x.png", "~/x.png",
    "ftp://127.0.0.1:P/x.png", "sftp://127.0.0.1:P/", "gopher://127.0.0.1:P/_GET%20/", "dict://127.0.0.1:P/", "ldap://127.0.0.1:P/",
    "ws://127.0.0.1:P/", "jar:http://127.0.0.1:P/!/", "blob:http://127.0.0.1:P/0", "javascript:alert(1)", "about:blank",
    "s3://bucket/x.png", "gs://bucket/x.png", "cid:1", "urn:x:y", "unix:/tmp/x.sock", "php://filter/x", "data:",
    "data:,x", "data:text/html,<b>", "data:text/plain;base64,AAAA", "data:image/png,AAAA", "data:image/png;base64",
    "data:image/png;charset=utf-8,AAAA", "data:image/svg+xml;base64,PHN2Zy8+", "data:image/png;base64,http://127.0.0.1:P/",
    "data:image/png;base64,", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "data:image/png;base64,%41%41", "blob:", "",
]
NAMES = [
    "..", ".", "../demo", "..\\demo", "../../../../etc/passwd", "/etc/passwd", "/", "//", "\\", "demo/../demo", "demo/.",
    "./healthgpt-demo", "healthgpt-demo/", "healthgpt-demo/..", "healthgpt-demo\\..", "%2e%2e", "%2e%2e%2fdemo", "..%2f", "..%5c",
    "%252e%252e", "..%c0%af", "\x00", "healthgpt-demo\x00.txt", "healthgpt-demo%00", "healthgpt-demo\n", "healthgpt-demo\r\n",
    "healthgpt-demo ", " healthgpt-demo", "healthgpt-demo.", ".healthgpt-demo", "HEALTHGPT-DEMO", "healthgpt_demo",
    "healthgpt-demo:", "healthgpt-demo:x", "healthgpt-demo::comprehension", "healthgpt-demo:comprehension:generation",
    ":comprehension", "healthgpt-demo:../x", "h" * 64, "h" * 65, "h" * 5000, "\u202etdemo", "healthgpt\u2010demo",
    "healthgpt-d\u0435mo", "\uff0e\uff0e\uff0fdemo", "\ud83d\ude00", "$(id)", "`id`", "|id", ";id", "&& id", "%s%n", "${HOME}",
    "~root", "*", "?", "[a-z]*", "config/models/demo", "file:///etc/passwd", "http://127.0.0.1/", "C:\\demo", "\\\\host\\share",
    "CON", "-rf", "--help", "healthgpt-demo,healthgpt-demo", "null", "undefined", "{}", "<x>", "'", "\"",
]
JSON_TYPE = {"Content-Type": "application/json"}


class Listener:
    """A web server that counts who asks."""

    def __enter__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(test_image())

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def bodies(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    yield "/v1/vqa", {"question": "What?", "image": url, "max_tokens": 1}
    yield "/v1/vqa", {"question": "What?", "images": [b64(test_image()), url], "max_tokens": 1}
    yield "/v1/images/edits", {"prompt": "Draw.", "image": url}
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}],
                                   "max_tokens": 1}
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"},
                                                                             {"type": "image_url", "image_url": url}]}],
                                   "max_tokens": 1}


def ask_all_urls(d, port):
    n = disabled = 0
    for form in URLS:
        url = form.replace(":P", ":%d" % port).replace("%3aP", "%%3a%d" % port)
        for path, body in bodies(url):
            status, _, reply = d.post(path, body)
            equal(status, 400, "%s with %r: %.200r" % (path, url, reply))
            error = reply["error"]
            require("hostname" not in error["message"] and url[:65] not in error["message"] or len(url) < 12,
                    "%r is repeated: %r" % (url, error))
            disabled += error["code"] == "remote_url_disabled"
            n += 1
    require(disabled > n // 2, "only %d of %d are remote_url_disabled" % (disabled, n))
    return n


def ask_all_names(d):
    n = 0
    for name in NAMES:
        for path, body in (("/v1/chat/completions", {"model": name, "max_tokens": 1,
                                                     "messages": [{"role": "user", "content": "Hi?"}]}),
                           ("/v1/completions", {"model": name, "prompt": "Hi?", "max_tokens": 1}),
                           ("/v1/images/generations", {"model": name, "prompt": "Draw."})):
            status, _, reply = d.post(path, body)
            require(status in (400, 404), "%s, model %r: %d %.200r" % (path, name, status, reply))
            said = reply["error"]["message"]
            require(len(name) <= 64 or name not in said, "%.20r... is repeated: %r" % (name, reply))
            require(not re.search(r"[\x00-\x1f\x7f]", said), "control characters: %r" % said)
            n += 1
        for quoted in {urllib.parse.quote(name.encode("utf-8", "surrogatepass"), safe=""),
                       urllib.parse.quote(name.encode("utf-8", "surrogatepass"), safe="/")}:
            for path in ("/v1/models/%s", "/v1/models/%s/card"):
                if path % quoted in ("/v1/models/", "/v1/models//", "/v1/models///"):
                    continue
                status, _, data = d.request("GET", path % quoted)
                good = status == 200 and urllib.parse.unquote(quoted).strip("/") in ("", "healthgpt-demo")
                require(good or status in (400, 404, 414), "%s: %d %.200r" % (path % quoted, status, data))
                require(b"root:" not in data, "a file: %r" % data)
                n += 1
    return n


def check_no_url_is_fetched_and_no_name_is_a_path(build):
    with Listener() as web, Daemon(build) as d:
        n_urls, n_names = ask_all_urls(d, web.port), ask_all_names(d)
        equal(web.asked, [], "what was fetched")
        equal(d.post_ok("/v1/vqa", {"question": "Hi?", "max_tokens": 1})["finish_reason"], "length", "afterwards")
    require(len(URLS) >= 60 and len(NAMES) >= 60, "too few forms")
    return "%d URLs (%d requests), %d names (%d requests)" % (len(URLS), n_urls, len(NAMES), n_names)


def check_strace_sees_no_file_and_no_connection(build):
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "-o", os.devnull, "true"], stderr=subprocess.PIPE).returncode != 0:
        raise Skip("strace is not there, or may not trace")
    with tempfile.TemporaryDirectory() as folder, Listener() as web:
        path = os.path.join(folder, "calls")
        calls = "trace=open,openat,openat2,creat,connect,socket,execve,execveat,stat,statx,access,readlink,unlink,rename"
        with Daemon(build, "--threads", "1", under=[strace, "-f", "-qq", "-e", calls, "-o", path],
                    env={"ASAN_OPTIONS": "detect_leaks=0"}) as d:  # leaks are looked for by tracing, too
            try:
                d.post_ok("/v1/vqa", {"question": "What?", "image": b64(test_image()), "max_tokens": 1})  # all threads run
                with open(path) as f:
                    before = f.read()
                require("openat(" in before, "strace sees nothing")
                n = ask_all_urls(d, web.port) + ask_all_names(d)
                with open(path) as f:
                    after = f.read()[len(before):]
            finally:
                with open("/proc/%d/task/%d/children" % (d.process.pid, d.process.pid)) as f:
                    os.kill(int(f.read().split()[0]), signal.SIGTERM)  # strace itself takes none
                d.expect_end()
        equal(re.sub(r"(?m)^.*(exited|SIG|resumed).*\n?", "", after), "", "system calls of %d requests" % n)
        equal(web.asked, [], "what was fetched")
    return "%d requests, none of %d calls" % (n, calls.count(",") + 1)
