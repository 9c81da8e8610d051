"""The official openai package against the daemon (tests/clients/openai_calls.py), one check per call. It runs in an
interpreter that has it: $HG_CLIENTS_PYTHON, or build/venv-clients (make clients); without one each is a counted skip."""
import json
import os
import subprocess
import tempfile

from check_keys import KeyFile, entry
from harness import ROOT, Daemon, Fail, Skip, test_image

SCRIPT = os.path.join(ROOT, "tests", "clients", "openai_calls.py")
CALLS = ("chat_with_an_image", "streaming_chat", "streaming_helper", "async_client", "multi_turn_with_system",
         "choices_and_seeds", "stop_strings", "log_probabilities", "chat_draws", "images_generate",
         "images_stream_with_partials", "images_edit", "images_edit_json", "text_completion", "models", "typed_errors",
         "rate_limit")
results = {}


def python_with(package):
    """An interpreter that can import it, or Skip."""
    for path in (os.environ.get("HG_CLIENTS_PYTHON"), os.path.join(ROOT, "build", "venv-clients", "bin", "python")):
        if path and os.path.exists(path) and subprocess.run([path, "-c", "import " + package],
                                                            capture_output=True).returncode == 0:
            return path
    raise Skip("no interpreter with the package %s: make clients" % package)


def run(build):
    python = python_with("openai")
    # max_queued 4: the last call wants to be refused; the others send at most four at once.
    with tempfile.NamedTemporaryFile(suffix=".png") as image, KeyFile(entry("a", max_queued=4)) as keys, \
            Daemon(build, "--api-keys", keys.path) as d:
        image.write(test_image(4))
        image.flush()
        p = subprocess.run([python, SCRIPT, "http://127.0.0.1:%d" % d.port, "key-of-a", image.name], capture_output=True, text=True, timeout=120)
        for line in p.stdout.splitlines():
            r = json.loads(line)
            results[r["name"]] = r["error"]
        if p.returncode != 0:
            raise Fail("the script ended with %d: %s" % (p.returncode, p.stderr[-800:]))
    missing = set(CALLS) ^ set(results)
    if missing:
        raise Fail("calls and their list differ: %s" % sorted(missing))


def make(name):
    def check(build):
        if not results:
            run(build)
        if results[name]:
            raise Fail(results[name])
    return check


for call in CALLS:
    globals()["check_" + call] = make(call)
