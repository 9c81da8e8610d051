"""healthgpt-load from Python: run it against a daemon, read what it prints."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from harness import DEMO, ROOT, edit_json, require  # noqa: E402


def command(build, port, *args):
    return [os.path.join(ROOT, build, "healthgpt-load"), "--url", "127.0.0.1:%d" % port] + [str(a) for a in args]


def start(build, d, *args):
    """A load in the background; give it to `finish`."""
    return subprocess.Popen(command(build, d.port, "--json", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(p, timeout=900):
    out, err = p.communicate(timeout=timeout)
    require(p.returncode == 0, "healthgpt-load: exit %d: %s" % (p.returncode, err.decode("utf-8", "replace")[-500:]))
    return json.loads(out)


def load(build, d, *args, timeout=900):
    return finish(start(build, d, *args), timeout)


def answers(build, d, *args):
    """(number, kind, status, tokens, digest) of every answer, in the order of their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "digests")
        load(build, d, "--digests", path, *args)
        with open(path) as f:
            return [(int(n), kind, int(status), int(tokens), digest)
                    for n, kind, status, tokens, digest in (line.split() for line in f)]


def total(result, key):
    """Sum over the kinds of requests."""
    return sum(kind[key] for kind in result["kinds"].values())


def endless_model(folder):
    """The demo model without its stop tokens: answers are as long as max_tokens says."""
    path = os.path.join(folder, "endless")
    shutil.copytree(DEMO, path)
    edit_json(os.path.join(path, "llm", "config.json"), eos_token_id=2)
    edit_json(os.path.join(path, "llm", "generation_config.json"), eos_token_id=[2])
    return path
