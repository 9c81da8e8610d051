"""Start, stop and what a service manager is told: $NOTIFY_SOCKET, SIGTERM in eight states, kill -9 and a new start."""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from check_connections import SLOW, connect, draw, post, read_until
from check_faults import worker_of
from harness import ROOT, Daemon, Skip, equal, is_sanitized, require
from opstool import Loading, OpsDaemon, get, until

def slow(build):
    """A drawing takes a while: with ref, or with a sanitizer in the way."""
    return ("--backend", "cpu", "--threads", "1", "--max-batch", "1") if is_sanitized(build) else SLOW


NEVER = 3600  # seconds; a bound that no machine is too slow for would be no bound


class Manager:
    """A service manager's socket, and the lines that came."""

    def __init__(self, abstract=False):
        self.folder = tempfile.TemporaryDirectory()
        self.name = "@healthgpt-test-%d-%d" % (os.getpid(), time.monotonic_ns()) if abstract else os.path.join(self.folder.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.setblocking(False)
        self.lines = []

    def env(self, watchdog_s=0):
        return dict({"NOTIFY_SOCKET": self.name}, **({"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {}))

    def read(self):
        while True:
            try:
                self.lines += self.socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self.lines

    def count(self, line):
        return self.read().count(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.folder.cleanup()


# ---- the service manager ----------------------------------------------------------------------------------

def check_service_manager_is_told_ready_and_stopping(build):
    for abstract in (False, True):
        with Manager(abstract) as m:
            with Daemon(build, env=m.env()) as d:
                until(lambda: m.count("READY=1"), "READY=1")
                equal(m.count("STOPPING=1"), 0, "before the signal")
                d.process.send_signal(signal.SIGTERM)
                d.expect_end()
            lines = m.read()
            equal((lines.count("READY=1"), lines.count("STOPPING=1"), lines.count("WATCHDOG=1")), (1, 1, 0), "lines")
            require(lines.index("EXTEND_TIMEOUT_USEC=30000000") < lines.index("READY=1") < lines.index("STOPPING=1"), lines)
            require(any(line.startswith("STATUS=loading: ") for line in lines), lines)


def check_service_manager_is_told_that_it_loads(build):
    with Manager() as m, Loading(build, env=m.env()) as d:
        until(lambda: m.count("EXTEND_TIMEOUT_USEC=30000000") >= 2, "more time, twice")
        require("STATUS=loading: 0 %" in m.lines, m.lines)
        equal(m.count("READY=1"), 0, "ready")
        d.process.send_signal(signal.SIGTERM)
        equal(d.process.wait(60), 0, "exit code")
        equal((m.count("READY=1"), m.count("STOPPING=1")), (0, 1), "lines")


def check_watchdog_is_fed_while_the_engine_goes_on(build):
    with Manager() as m, Daemon(build, *slow(build), env=m.env(watchdog_s=2)) as d:
        until(lambda: m.count("WATCHDOG=1") >= 3, "an idle engine")
        s = connect(d, draw(1))
        read_until(s, lambda g: b'"progress"' in g)
        fed = m.count("WATCHDOG=1")
        read_until(s, lambda g: b'"type":"done"' in g)
        s.close()
        until(lambda: m.count("WATCHDOG=1") >= fed + 2, "fed at work and after it")


def check_watchdog_is_not_fed_when_the_engine_hangs(build):
    with Manager() as m:
        env = dict(m.env(watchdog_s=1), HG_FAULT="step_hang:after=40,start=0")
        with OpsDaemon(build, "--step-timeout-s", "0", env=env, program="healthgptd-faults") as d:
            s = connect(d, draw(1))
            until(lambda: d.ready() == (503, "engine_stalled"), "the hang")
            fed = m.count("WATCHDOG=1")
            time.sleep(1.5)  # six times the interval: what must not come cannot be waited for
            equal(m.count("WATCHDOG=1"), fed, "fed though the engine hangs")
            s.close()
            d.process.kill()
            d.process.wait(60)
            d.ended = True


def check_watchdog_of_another_process_is_not_fed(build):
    with Manager() as m, Daemon(build, env=dict(m.env(watchdog_s=0.2), WATCHDOG_PID="1")):
        until(lambda: m.count("READY=1"), "READY=1")
        time.sleep(0.5)
        equal(m.count("WATCHDOG=1"), 0, "fed")


def check_a_socket_that_cannot_be_used_does_not_stop_it(build):
    for name in ("/nonexistent/notify", "nonsense", "@" + "x" * 200, ""):
        with Daemon(build, env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "nonsense"}) as d:
            equal(d.health()["status"], "ok", "health")


def check_systemd_unit_is_hard(build):
    if not shutil.which("systemd-analyze"):
        raise Skip("there is no systemd-analyze")
    unit = os.path.join(ROOT, "deploy", "healthgptd.service")
    p = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", unit], capture_output=True, text=True, timeout=60)
    m = re.search(r"Overall exposure level for healthgptd.service: ([\d.]+)", p.stdout)
    if not m:
        raise Skip("systemd-analyze cannot read a unit offline: " + p.stderr.strip()[:100])
    require(float(m.group(1)) <= 2.0, m.group(0))
    with open(unit) as f:
        text = f.read()
    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=60", "Restart=on-failure"):
        require("\n%s\n" % line in text, line)
    require(re.search(r"\nRestrictAddressFamilies=.*AF_UNIX", text), "the manager's socket can be reached")
    return "exposure " + m.group(1)


# ---- SIGTERM ----------------------------------------------------------------------------------------------

def ends_of(streams):
    """Everything that is left of each stream, read at the same time."""
    got = [b""] * len(streams)

    def read(i):
        got[i] = read_until(streams[i], lambda g: False)
    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(streams))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for s in streams:
        s.close()
    return got


def require_last_lines(texts, done=None):
    """Every accepted stream has its last line: done, or an error that says why."""
    n = sum(b'"type":"done"' in t for t in texts)
    for t in texts:
        require(b'"type":"done"' in t or (b'"type":"error"' in t and b'"shutting_down"' in t), "no last line: %r" % t[-200:])
    if done is not None:
        equal(n, done, "streams that were finished")
    return n


def running(d, n):
    until(lambda: d.health()["queue"]["running"] == n, "%d run" % n)


def check_sigterm_when_idle_ends_at_once(build):
    """The quickest of five: others use the machine too."""
    took = []
    for _ in range(5):
        with Daemon(build) as d:
            start = time.monotonic()
            d.process.send_signal(signal.SIGTERM)
            d.expect_end()
            took.append(time.monotonic() - start)
    require(min(took) <= (3 if is_sanitized(build) else 0.3), "%r" % took)
    return "%.0f ms" % (1e3 * min(took))


def check_sigterm_turns_readiness_within_100_ms(build):
    """The quickest of three, a stream running."""
    took = []
    for _ in range(3):
        with OpsDaemon(build, *slow(build)) as d:
            s = connect(d, draw(1))
            read_until(s, lambda g: b'"progress"' in g)
            start = time.monotonic()
            d.process.send_signal(signal.SIGTERM)
            until(lambda: d.ready()[0] == 503, "not ready")
            took.append(time.monotonic() - start)
            d.process.send_signal(signal.SIGTERM)
            require_last_lines(ends_of([s]))
            d.expect_end()
    require(min(took) <= (1 if is_sanitized(build) else 0.1), "%r" % took)
    return "%.1f ms" % (1e3 * min(took))


def check_sigterm_with_a_full_queue(build):
    """Streams have begun to answer and are finished, also those that wait; plain requests that wait are told to ask elsewhere."""
    with Daemon(build, *slow(build), "--max-queue", "6", "--max-queue-tokens", "100000", "--drain-s", str(NEVER)) as d:
        streams = [connect(d, draw(0))]
        running(d, 1)
        streams += [connect(d, draw(i)) for i in range(1, 4)]
        plain = [connect(d, draw(i, stream=False)) for i in range(4, 7)]
        until(lambda: d.health()["queue"]["depth"] == 6, "a full queue")
        d.process.send_signal(signal.SIGTERM)
        for s in plain:
            got = read_until(s, lambda g: b"}}" in g)
            require(b" 503 " in got and b'"shutting_down"' in got and b"Retry-After: " in got, "%r" % got[:300])
            s.close()
        require_last_lines(ends_of(streams), done=4)
        d.expect_end()


def check_sigterm_with_many_streams(build):
    with Daemon(build, *slow(build), "--max-batch", "16", "--drain-s", str(NEVER)) as d:
        streams = [connect(d, draw(i)) for i in range(3)] + [
            connect(d, post({"question": "Who are you?", "stream": True, "max_tokens": 20})) for _ in range(9)]
        begun = [read_until(s, lambda g: b'"prefill"' in g) for s in streams]  # or it is over
        until(lambda: d.health()["queue"]["depth"] == 0, "nobody waits")
        d.process.send_signal(signal.SIGTERM)
        require_last_lines([a + b for a, b in zip(begun, ends_of(streams))], done=12)
        d.expect_end()


def check_sigterm_while_loading(build):
    """Nothing was accepted: it leaves at once, though the loader hangs."""
    for sig in (signal.SIGTERM, signal.SIGINT):
        with Loading(build) as d:
            equal(get(d.ops_port, "/readyz")[2]["reason"], "loading", "/readyz")
            half = connect(d, b"POST /v1/vqa HTTP/1.1\r\nHost: local")
            d.process.send_signal(sig)
            equal(d.process.wait(60), 0, "exit code")
            half.close()


def check_sigterm_during_an_upload(build):
    """The rest of the body still comes: it is told why not. One whose rest never comes does not hold the end up."""
    whole = draw(1)
    with Daemon(build, *slow(build), "--drain-s", str(NEVER)) as d:
        running_stream = connect(d, draw(0))
        running(d, 1)
        upload, never = connect(d, whole[:-20]), connect(d, whole[:-20])
        until(lambda: d.health()["open"]["connections"] == 4, "all are connected, and who asks")
        d.process.send_signal(signal.SIGTERM)
        until(lambda: b'"shutting_down"' in d.request("POST", "/v1/vqa", b"{}", {"Content-Type": "application/json"})[2], "the drain")
        upload.sendall(whole[-20:])
        got = read_until(upload, lambda g: b"}}" in g)
        require(b" 503 " in got and b'"shutting_down"' in got and b"Retry-After: " in got, "%r" % got[:300])
        require_last_lines(ends_of([running_stream]), done=1)
        d.expect_end()
        upload.close()
        never.close()


def check_sigterm_twice_ends_the_grace(build):
    for second in (signal.SIGTERM, signal.SIGINT):
        with Daemon(build, "--backend", "ref", "--threads", "1", "--drain-s", str(NEVER)) as d:
            streams = [connect(d, draw(i)) for i in range(6)]
            running(d, 6)
            d.process.send_signal(signal.SIGTERM)
            until(lambda: d.request("GET", "/health")[0] == 503, "the drain")
            d.process.send_signal(second)
            n = require_last_lines(ends_of(streams))
            require(n < 6, "all six pictures were finished before the second signal")
            d.expect_end()


def check_sigterm_with_a_client_that_does_not_read(build):
    """Its answer is lost to it; the others' are not, and the end is not held up for the drain's hour."""
    with Daemon(build, "--send-timeout-s", "1", "--max-unsent-kib", "4", "--drain-s", str(NEVER)) as d:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", d.port))
        deaf.sendall(post({"prompt": "Draw a chest X-ray.", "seed": 1, "stream": True, "previews": 8}, "/v1/draw") * 40)
        good = [connect(d, draw(i)) for i in range(4)]
        begun = [read_until(s, lambda g: b'"progress"' in g) for s in good]
        d.process.send_signal(signal.SIGTERM)
        require_last_lines([a + b for a, b in zip(begun, ends_of(good))], done=4)
        d.expect_end()
        got = read_until(deaf, lambda g: False)
        require(got.count(b'"type":"done"') < 40, "it has read everything")
        deaf.close()


# ---- SIGKILL ----------------------------------------------------------------------------------------------

def check_twenty_kills_twenty_starts(build):
    """Ready means: a question is answered. No state is left behind, so every start is like the first."""
    took, texts = [], set()
    for i in range(5 if is_sanitized(build) else 20):
        start = time.monotonic()
        with Daemon(build) as d:
            texts.add(json.dumps(d.post_ok("/v1/vqa", {"question": "Who are you?", "max_tokens": 4})["text"]))
            took.append(time.monotonic() - start)
            s = connect(d, draw(i))
            read_until(s, lambda g: b'"queued"' in g)
            d.process.kill()
            d.process.wait(60)
            d.ended = True
            s.close()
    equal(len(texts), 1, "answers")
    median = statistics.median(took)
    require(median <= (10 if is_sanitized(build) else 1), "median %.2f s of %r" % (median, took))
    return "median %.0f ms, slowest %.0f ms to the first answer" % (1e3 * median, 1e3 * max(took))


def check_operators_port_comes_back_with_the_next_worker(build):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Daemon(build, "--supervise", "--backend", "cpu", "--ops-listen", "127.0.0.1:%d" % port) as d:
        equal(get(port, "/readyz")[2], {"status": "ready"}, "/readyz")
        os.kill(worker_of(d), signal.SIGKILL)

        def ready_again():
            try:
                return get(port, "/readyz")[0] == 200 and b"healthgpt_restarts 1\n" in get(port, "/metrics")[2]
            except OSError:
                return False  # between two workers
        until(ready_again, "the next worker")
        require("text" in d.post_ok("/v1/vqa", {"question": "Who are you?", "max_tokens": 2}), "an answer")
