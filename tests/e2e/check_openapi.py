"""GET /openapi.json: it says what the daemon does. schemathesis (make clients) sends what it describes, and what it
does not, and holds the answers against it; without it that check is a counted skip."""
import json
import os
import re
import subprocess
import tempfile

from check_openai import python_with
from harness import Daemon, b64, equal, require, require_error, test_image

# 504 is the answer to "timeout_ms": 1.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""
# What the schema cannot say (an image that is one, some text in the last message) may be refused; a GET with a body is
# refused before its route is looked at.
LEFT_OUT = "positive_data_acceptance,unsupported_method"


def document(d):
    status, headers, data = d.request("GET", "/openapi.json")
    equal((status, headers["Content-Type"]), (200, "application/json"), "/openapi.json")
    return json.loads(data)


def check_every_route_of_the_document_is_there(build):
    with Daemon(build) as d:
        doc = document(d)
        equal(doc["openapi"], "3.1.0", "version")
        names = [op["operationId"] for path in doc["paths"].values() for m, op in path.items() if m in ("get", "post")]
        equal(len(names), len(set(names)), "operationId")
        refs = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(doc)))
        equal(refs - set(doc["components"]["schemas"]), set(), "schemas that are named and not there")
        for path, item in doc["paths"].items():
            path = path.replace("{id}", "healthgpt-demo")
            if "get" in item:
                equal(d.request("GET", path)[0], 200, path)
                equal(d.request("POST", path, "{}")[0], 405, "POST " + path)
                continue
            schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
            equal(d.request("GET", path)[0], 405, "GET " + path)
            for name in schema["required"]:
                status, _, reply = d.post(path, {})
                equal((status, reply["error"]["code"], reply["error"]["param"]), (400, "missing_text", name), path)
        return "%d routes" % len(doc["paths"])


def check_fields_of_the_document_are_the_fields_that_are_read(build):
    """Each property with a value of a wrong type is refused and named; what is not in it is told apart."""
    wrong = {"string": 7, "integer": "x", "number": "x", "boolean": "x", "object": 7}
    n = 0
    with Daemon(build) as d:
        for path, item in document(d)["paths"].items():
            if "post" not in item:
                continue
            schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
            for name, field in schema["properties"].items():
                kinds = [v.get("type") for v in field.get("anyOf", [field])]
                if kinds[0] not in wrong:
                    continue
                status, _, reply = d.post(path, {name: wrong[kinds[0]]})
                require_error(status, reply, 400, None, name)
                n += 1
            strict = schema.get("additionalProperties", True) is False
            status, _, reply = d.post(path, {"no_such_field": 1})
            require_error(status, reply, 400, "unknown_parameter" if strict else "missing_text")
    require(n > 60, "only %d fields were tried" % n)
    return "%d fields" % n


def check_strict_refuses_unknown_fields_everywhere(build):
    with Daemon(build, "--strict") as d:
        for path in ("/v1/chat/completions", "/v1/images/generations"):
            status, _, reply = d.post(path, {"prompt": "x", "messages": [], "no_such_field": 1})
            require_error(status, reply, 400)
        status, _, reply = d.post("/v1/images/generations", {"prompt": "Draw.", "no_such_field": 1})
        require_error(status, reply, 400, "unknown_parameter", "no_such_field")


def check_schemathesis_finds_no_violation(build):
    python = python_with("schemathesis")
    with tempfile.TemporaryDirectory() as folder, Daemon(build) as d:
        config = os.path.join(folder, "schemathesis.toml")
        with open(config, "w") as f:
            f.write(CONFIG)
        p = subprocess.run([os.path.join(os.path.dirname(python), "schemathesis"), "--config-file", config, "run",
                            "http://127.0.0.1:%d/openapi.json" % d.port, "--checks", "all", "--exclude-checks", LEFT_OUT,
                            "--max-examples", "30", "--seed", "1", "--continue-on-failure", "--request-timeout", "30"],
                           capture_output=True, text=True, timeout=240, cwd=folder)
        n = re.search(r"(\d+) generated", p.stdout)
        require(p.returncode == 0 and n, p.stdout[-1500:] + p.stderr[-300:])
        require(int(n.group(1)) > 500, "only %s requests" % n.group(1))
        # It has been through it all and still answers right.
        reply = d.post_ok("/v1/vqa", {"question": "What is shown?", "image": b64(test_image()), "max_tokens": 2})
        require(reply["text"], reply)
    return n.group(1) + " requests"
