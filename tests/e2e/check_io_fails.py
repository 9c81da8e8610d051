"""T-28, the other half: no descriptors, a log that cannot be written. Streams go on, the daemon too."""
import os
import re
import resource
import select
import socket
import subprocess
import threading
import time

from check_connections import SLOW, connect, draw, post, read_until
from harness import ROOT, Daemon, equal, require

ASK = {"question": "Hi?", "max_tokens": 2}


def n_files(d):
    return len(os.listdir("/proc/%d/fd" % d.process.pid))


def cpu_seconds(d):
    with open("/proc/%d/stat" % d.process.pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_no_descriptor_for_the_first_connection(build):
    """libmicrohttpd would ask for one without a pause; both ports, without any connection."""
    with Daemon(build, "--canary-interval-s", "0", "--ops-listen", "127.0.0.1:0") as d:
        ops = int(re.search(r"operators' port: http://127\.0\.0\.1:(\d+)", d.log_text()).group(1))
        limits = resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (n_files(d), limits[1]))
        waiting = [socket.create_connection(("127.0.0.1", port), 20) for port in (d.port, ops) for _ in range(4)]
        before, start = cpu_seconds(d), time.monotonic()
        time.sleep(1)
        busy = (cpu_seconds(d) - before) / (time.monotonic() - start)
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, limits)
        for s in waiting:
            s.close()
        equal(d.post_ok("/v1/vqa", ASK)["usage"]["completion_tokens"], 2, "with descriptors again")
        require(busy < 0.3, "without a descriptor for a connection it took %.2f of a core" % busy)
    return "%.2f of a core" % busy


def check_no_descriptors_left(build):
    with Daemon(build, *SLOW, "--canary-interval-s", "0") as d:
        limits = resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)
        kept = connect(d, post(ASK))
        read_until(kept, lambda g: b'"text"' in g)
        stream = connect(d, draw(1))
        got = read_until(stream, lambda g: b'"progress"' in g)
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (n_files(d), limits[1]))
        refused = [connect(d, post(ASK)) for _ in range(5)]
        # Neither an answer nor, mostly, a close; the daemon must not spin on accept() meanwhile, which one thread of it
        # would do with a whole core beside the one that draws.
        kept.sendall(post(ASK))
        require(b'"text"' in read_until(kept, lambda g: b'"text"' in g), "a connection that was there is served")
        got += read_until(stream, lambda g: b'"type":"done"' in g)
        require(b'"type":"image"' in got, "the stream went on to its end")
        stream.close()
        before, start = cpu_seconds(d), time.monotonic()
        time.sleep(0.5)
        busy = (cpu_seconds(d) - before) / (time.monotonic() - start)
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, limits)
        kept.close()
        for s in refused:
            s.close()
        equal(d.post_ok("/v1/vqa", ASK)["usage"]["completion_tokens"], 2, "with descriptors again")
        require(busy < 0.9, "idle without descriptors the daemon took %.2f of a core" % busy)
        h = d.wait_idle()
        equal(h["ledger"]["stalled"], 0, "stalled")
    return "%.2f of a core while it could not accept" % busy


def served(port):
    """A drawing as a stream and an answer, from a daemon that is no harness.Daemon."""
    class At:
        pass
    at = At()
    at.port = port
    s = connect(at, draw(2))
    got = read_until(s, lambda g: b'"type":"done"' in g)
    s.close()
    require(b'"type":"image"' in got, "the stream has its picture: %r" % got[-300:])
    s = connect(at, post(ASK) + post({"question": 1}))
    got = read_until(s, lambda g: b'"text"' in g and b'"error"' in g)
    s.close()
    # What belongs into the log and nowhere else.
    require(b" info " not in got and b"comprehension: ok" not in got, "log lines in an answer: %r" % got[:300])
    require(b'"text"' in got and b'"error"' in got, "an answer and a refusal: %r" % got[-300:])


def run_with_log(build, stderr, **kw):
    program = [os.path.join(ROOT, build, "healthgptd"), "--listen", "127.0.0.1:0", "--ops-listen", ""]
    p = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT, **kw)
    ready, _, _ = select.select([p.stdout], [], [], 60)
    line = p.stdout.readline().decode() if ready else ""
    m = re.search(r":(\d+) \(model", line)
    if not m:
        p.kill()
    require(m, "did not start: %r" % line)
    return p, int(m.group(1))


def end(p):
    p.terminate()
    equal(p.wait(60), 0, "exit code")
    p.stdout.close()


def check_log_on_a_full_disk(build):
    with open("/dev/full", "wb") as full:
        p, port = run_with_log(build, full)
    served(port)
    end(p)


def check_log_whose_reader_has_gone(build):
    p, port = run_with_log(build, subprocess.PIPE)
    p.stderr.close()
    served(port)
    end(p)


def check_log_that_nobody_reads(build):
    """A pipe that is full must not stop anything either."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    p, port = run_with_log(build, writer)
    os.close(writer)
    done = threading.Event()
    threading.Thread(target=lambda: (served(port), done.set()), daemon=True).start()
    require(done.wait(60), "a log that is not read holds up the daemon")
    os.close(reader)
    end(p)


def check_log_closed_from_the_start(build):
    p, port = run_with_log(build, None, preexec_fn=lambda: os.close(2))
    served(port)
    end(p)
