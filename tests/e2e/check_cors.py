"""Pages of other sites: nobody may ask unless --cors-origins lists where the page is from."""
import json
import subprocess

from check_keys import KeyFile, entry
from harness import ROOT, Daemon, equal, require, require_error

VIEWER = "https://viewer.example"
ORIGINS = ("--cors-origins", VIEWER + ", http://localhost:3000")
CHAT = "/v1/chat/completions"
ASK = json.dumps({"messages": [{"role": "user", "content": "Hi?"}], "max_tokens": 1})
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def ask(d, origin, **headers):
    return d.request("POST", CHAT, ASK, dict({"Content-Type": "application/json", "Origin": origin}, **headers))


def check_a_listed_page_may_ask(build):
    with Daemon(build, *ORIGINS) as d:
        for origin in (VIEWER, "http://localhost:3000"):
            status, headers, _ = d.request("OPTIONS", CHAT, None, dict(PREFLIGHT, Origin=origin))
            equal(status, 204, "preflight of " + origin)
            equal(headers["Access-Control-Allow-Origin"], origin, "origin")
            require("Authorization" in headers["Access-Control-Allow-Headers"], dict(headers))
            equal(headers["Access-Control-Allow-Methods"], "POST", "methods")
            status, headers, _ = ask(d, origin)
            equal((status, headers["Access-Control-Allow-Origin"], headers["Vary"]), (200, origin, "Origin"), "answer")
            require("Access-Control-Allow-Credentials" not in headers, "credentials")
        # Errors too, or the page would not see why.
        status, headers, _ = d.request("POST", CHAT, "{}", {"Content-Type": "application/json", "Origin": VIEWER})
        equal((status, headers["Access-Control-Allow-Origin"]), (400, VIEWER), "an error")


def check_all_others_may_not(build):
    with Daemon(build, *ORIGINS) as d:
        for origin in ("https://evil.example", VIEWER + ".evil.example", VIEWER + ":8443", "http://viewer.example", "null",
                       VIEWER + "/", "https://viewer.exampl"):
            status, headers, data = ask(d, origin)
            require_error(status, json.loads(data), 403, "origin_not_allowed")
            require("Access-Control-Allow-Origin" not in headers, origin)
            status, headers, _ = d.request("OPTIONS", CHAT, None, dict(PREFLIGHT, Origin=origin))
            require(status == 403 and "Access-Control-Allow-Origin" not in headers, "%s: %d" % (origin, status))
        status, _, data = d.request("OPTIONS", "/v1/nothing", None, dict(PREFLIGHT, Origin=VIEWER))
        require_error(status, json.loads(data), 404, "unknown_route")
        status, headers, _ = d.request("OPTIONS", CHAT, None, {"Origin": VIEWER})
        equal(status, 405, "OPTIONS without a method to ask for")
    with Daemon(build) as d:
        status, headers, _ = d.request("OPTIONS", CHAT, None, dict(PREFLIGHT, Origin="http://localhost"))
        equal((status, headers.get("Access-Control-Allow-Origin")), (405, None), "without the option")


def check_a_listed_page_needs_a_key_as_well(build):
    with KeyFile(entry("a")) as f, Daemon(build, "--api-keys", f.path, *ORIGINS) as d:
        status, headers, _ = d.request("OPTIONS", CHAT, None, dict(PREFLIGHT, Origin=VIEWER))
        equal(status, 204, "preflights have no key")
        status, headers, data = ask(d, VIEWER)
        require_error(status, json.loads(data), 401, "missing_api_key")
        equal(headers["Access-Control-Allow-Origin"], VIEWER, "the page can read that")
        equal(ask(d, VIEWER, Authorization="Bearer key-of-a")[0], 200, "with its key")


def check_what_is_no_origin_is_told(build):
    for bad in ("*", "viewer.example", "https://", "https://a.example/x", VIEWER + ",ftp://b"):
        p = subprocess.run([ROOT + "/" + build + "/healthgptd", "--listen", "127.0.0.1:0", "--ops-listen", "",
                            "--cors-origins", bad], capture_output=True, text=True, timeout=30)
        equal(p.returncode, 64, "exit code with " + bad)
        require("cors_origins: expected origins" in p.stderr, p.stderr)
