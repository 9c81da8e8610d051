"""What the checks of the operators' port share: daemons that have one, asking it, reading its metrics."""
import http.client
import json
import os
import re
import subprocess
import tempfile
import time

from harness import ROOT, Daemon, Fail, require

MAIN = r"main port: http://127\.0\.0\.1:(\d+),"
OPS = r"operators' port: http://127\.0\.0\.1:(\d+)"


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        require(time.monotonic() < end, "not within %d s: %s" % (seconds, what))
        time.sleep(0.005)


def get(port, path, headers=None, method="GET", timeout=60):
    """Status, headers, body; a JSON body is parsed."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path, None, headers or {})
        r = c.getresponse()
        body = r.read()
        if body and r.getheader("Content-Type") == "application/json":
            body = json.loads(body)
        return r.status, dict(r.getheaders()), body
    finally:
        c.close()


class OpsDaemon(Daemon):
    """With an operators' port, ops_port."""

    def __init__(self, build, *args, **kw):
        super().__init__(build, "--ops-listen", "127.0.0.1:0", *args, **kw)
        self.ops_port = int(re.search(OPS, self.log_text()).group(1))

    def ops(self, path, headers=None, **kw):
        return get(self.ops_port, path, headers, **kw)

    def ready(self):
        """Status and reason."""
        status, _, body = self.ops("/readyz")
        return status, body.get("reason")

    def metrics(self):
        return parse(self.ops("/metrics")[2].decode())


class Loading:
    """A daemon that is loading for ever: its loader hangs, and nobody watches it."""

    def __init__(self, build, *args, env=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [os.path.join(ROOT, build, "healthgptd-faults"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
             "--step-timeout-s", "0"] + list(args), stdout=subprocess.PIPE, stderr=self.log, cwd=ROOT,
            env=dict(os.environ, HG_FAULT="step_hang:piece=load", **(env or {})))
        self.port = int(until(lambda: re.search(MAIN, self.log_text()), "the main port").group(1))
        self.ops_port = int(re.search(OPS, self.log_text()).group(1))

    def log_text(self):
        n = self.log.fileno()
        return os.pread(n, os.fstat(n).st_size, 0).decode("utf-8", "replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        self.process.stdout.close()


# ---- metrics ----------------------------------------------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (\S+)" % NAME)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def labels_of(text):
    found, at = [], 0
    while at < len(text or ""):
        m = LABEL.match(text, at)
        require(m, "labels: %r" % text)
        found.append((m.group(1), m.group(2)))
        at = m.end()
    require(len(dict(found)) == len(found), "a label twice: %r" % text)
    return tuple(sorted(found))


def family_of(name, types):
    for suffix in ("", "_bucket", "_sum", "_count", "_total"):
        family = name[:len(name) - len(suffix)] if suffix and name.endswith(suffix) else name
        if family in types and (not suffix or family != name):
            return family
    raise Fail("a sample without a family: " + name)


def parse(text, is_open=False):
    """{(name, labels): value}; a strict reader of Prometheus text 0.0.4 and, is_open, of OpenMetrics 1.0."""
    types, values, last, closed = {}, {}, None, set()
    require(text.endswith("# EOF\n" if is_open else "\n"), "the last line")
    lines = text.split("\n")[:-2 if is_open else -1]
    for line in lines:
        m = re.fullmatch(r"# (HELP|TYPE) (%s) (.+)" % NAME, line)
        if m:
            if m.group(1) == "TYPE":
                require(m.group(2) not in types, "a second TYPE of " + m.group(2))
                require(m.group(3) in ("counter", "gauge", "histogram"), line)
                types[m.group(2)] = m.group(3)
            continue
        m = SAMPLE.fullmatch(line)
        require(m, "not a sample: %r" % line)
        key, family = (m.group(1), labels_of(m.group(2))), family_of(m.group(1), types)
        require(key not in values, "a sample twice: %r" % line)
        if family != last:  # a family's lines stand together
            require(family not in closed, "the family %s comes twice" % family)
            closed.add(last)
            last = family
        if is_open and types[family] == "counter":
            require(not family.endswith("_total") and m.group(1) == family + "_total", "OpenMetrics counter: " + line)
        if not is_open and types[family] == "counter":
            require(m.group(1) == family and family.endswith("_total"), "counter: " + line)
        values[key] = float(m.group(3))
    for family, kind in types.items():
        if kind == "histogram":
            check_histogram(family, values)
    return values


def check_histogram(family, values):
    sets = {}
    for (name, labels), value in values.items():
        if name == family + "_bucket":
            rest = tuple(x for x in labels if x[0] != "le")
            sets.setdefault(rest, []).append((float(dict(labels)["le"]), value))
    require(sets, "no buckets of " + family)
    for rest, buckets in sets.items():
        require([b for b, _ in buckets] == sorted(set(b for b, _ in buckets)), "bounds of " + family)
        require([n for _, n in buckets] == sorted(n for _, n in buckets), "buckets of %s add up" % family)
        require(buckets[-1][0] == float("inf"), "+Inf of " + family)
        require(buckets[-1][1] == values[(family + "_count", rest)], "count of " + family)
        require((values[(family + "_sum", rest)] > 0) or values[(family + "_count", rest)] == 0 or family.startswith(
            "vllm:request"), "sum of " + family)


def value(values, name, **labels):
    """Sum of the samples of that name that have these labels."""
    found = [v for (n, have), v in values.items() if n == name and set(labels.items()) <= set(have)]
    require(found, "no %s %r" % (name, labels))
    return sum(found)


GATEWAY = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:cache_config_info",
           "vllm:lora_requests_info")
