"""The daemon with fault points ($HG_FAULT, common/fault.h): for each point what clients see, who else notices, how the
process ends; the canary; the supervisor and sockets that are handed over."""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from check_daemon import ASK, DRAW, essence, jobs, open_stream, read_to_end
from check_device import answer_ids, model_with_nan
from harness import DEMO, ROOT, Daemon, Fail, edit_json, equal, is_sanitized, require, require_error, test_image, until, b64

ABOUT = {"question": "Who are you?", "max_tokens": 12}
PLAIN = {}  # answers of a daemon without faults


class Faulty(Daemon):
    def __init__(self, build, fault, *args, **kw):
        super().__init__(build, *args, env=dict(kw.pop("env", {}), HG_FAULT=fault), program="healthgptd-faults", **kw)

    def ends_with(self, code, seconds=60):
        equal(self.process.wait(seconds), code, "exit code: " + self.log_text()[-600:])
        self.ended = True


def engine(d):
    return d.health()["engine"]


def post_all(d, work):
    with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(lambda w: d.post(*w), work))


def work_of(build):
    return jobs(1 if is_sanitized(build) else 2)


def plain(build):
    """What each piece of work gives alone, without faults."""
    if build not in PLAIN:
        with Daemon(build, "--backend", "cpu") as d:
            PLAIN[build] = [essence(d.post_ok(*w)) for w in work_of(build)]
    return PLAIN[build]


def limit(build):
    return "3" if is_sanitized(build) else "1"


def run_program(build, program, *args, env=None):
    p = subprocess.run([os.path.join(ROOT, build, program), "--listen", "127.0.0.1:0", "--ops-listen", ""] + list(args), cwd=ROOT,
                       env=dict(os.environ, **(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    return p.returncode, p.stdout.decode(), p.stderr.decode("utf-8", "replace")


def check_step_hang_while_loading_ends_with_70(build):
    """Its limit is 30 times that of a step."""
    code, out, err = run_program(build, "healthgptd-faults", "--step-timeout-s", "0.05",
                                 env={"HG_FAULT": "step_hang:piece=load"})
    equal(code, 70, "exit code")
    require(re.search(r"a piece of work \(load\) takes longer than [1-9]", err), err[-300:])
    equal(out, "", "it never says that it listens")


# ---- the points -------------------------------------------------------------------------------------------

def check_fault_points_are_in_the_fault_build_only(build):
    names = [b"\0step_hang\0", b"\0load_corrupt\0", b"\0HG_FAULT: no point"]
    for program, there in (("healthgptd", False), ("healthgpt", False), ("healthgptd-faults", True)):
        with open(os.path.join(ROOT, build, program), "rb") as f:
            data = f.read()
        for name in names:
            # whole strings: debug information holds the names of the enum, in capitals
            equal(name in data, there, "%r in %s" % (name, program))


def check_fault_that_cannot_be_read_is_refused(build):
    code, _, err = run_program(build, "healthgptd-faults", env={"HG_FAULT": "nan_row:afte=3"})
    equal(code, 64, err)
    require('option "afte"' in err, err)


def check_nan_row_fails_one_request_of_a_mixed_batch(build):
    """On cpu; tests/model/test_numeric.c has real NaNs, on ref and simt as well."""
    work, want = work_of(build), plain(build)
    with Faulty(build, "nan_row:after=%d" % (len(work) * 3), "--backend", "cpu") as d:
        replies = post_all(d, work)
        bad = [i for i, r in enumerate(replies) if r[0] != 200]
        equal(len(bad), 1, "failed requests")
        require_error(replies[bad[0]][0], replies[bad[0]][2], 500, "numeric_fault")
        for i, r in enumerate(replies):
            if i != bad[0]:
                equal(essence(r[2]), want[i], "neighbour %d" % i)
        until(lambda: engine(d)["canaries"] >= 1 and engine(d)["quarantined_blocks"] == 0, "the canary")
        equal(engine(d)["numeric_faults"], 1, "numeric faults")
        equal(essence(d.post_ok(*work[bad[0]])), want[bad[0]], "the same request again")
    return "request %d of %d" % (bad[0] + 1, len(work))


def check_nan_row_leaves_nothing_in_the_caches(build):
    ask = {"question": "Describe the image.", "image": b64(test_image(5))}
    with Faulty(build, "nan_row:after=1") as d:  # its second token, when its prompt is in the cache
        status, _, reply = d.post(ASK, ask)
        require_error(status, reply, 500, "numeric_fault")
        first, again = d.post_ok(ASK, ask), d.post_ok(ASK, ask)
        cached = [r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in (first, again)]
        equal(cached[0], 0, "tokens found after the fault")
        require(cached[1] >= 64, "tokens found after a good one: %r" % cached)
        equal(first["text"], again["text"], "text")


def check_quarantined_blocks_are_given_to_a_request_that_needs_them(build):
    """A cache of 13 blocks: the next picture needs those in quarantine, so the canary has its turn before it."""
    draw = {"prompt": "Draw a chest X-ray.", "seed": 1}
    with Faulty(build, "nan_row:after=60", "--kv-tokens", "112", "--max-batch", "2") as d:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            bad, good = pool.map(lambda _: d.post(DRAW, draw), range(2))
        equal(sorted((bad[0], good[0])), [200, 500], "statuses")
        require(engine(d)["canaries"] >= 1, "%r" % engine(d))
        equal(engine(d)["numeric_faults"], 1, "numeric faults")


def check_three_numeric_faults_call_the_canary_at_once(build):
    """NaN in the row of a token that one answer meets, and the canary does not."""
    ids, _ = answer_ids(build, ABOUT["question"])
    with tempfile.TemporaryDirectory() as top:
        with Faulty(build, "any_values", "--model", model_with_nan(top, ids[5]), "--backend", "cpu") as d:
            for _ in range(3):
                require("canary: wanted at once" not in d.log_text(), "too early")
                status, _, reply = d.post(ASK, ABOUT)
                require_error(status, reply, 500, "numeric_fault")
            until(lambda: engine(d)["canaries"] >= 1 and engine(d)["quarantined_blocks"] == 0, "the canary")
            require("canary: wanted at once: 3 numeric faults in" in d.log_text(), d.log_text()[-400:])
            equal((d.health()["status"], engine(d)["numeric_faults"]), ("ok", 3), "health")


def check_step_err_fails_the_step_and_the_daemon_goes_on(build):
    with Faulty(build, "step_err:after=3") as d:
        status, _, reply = d.post(ASK, ABOUT)
        require_error(status, reply, 500, "internal_error")
        equal([essence(d.post_ok(*w)) for w in work_of(build)], plain(build), "afterwards")
        h = d.health()
        equal((h["status"], h["requests"]["failed"]), ("ok", 1), "health")


def check_step_err_of_the_device_ends_with_71(build):
    with Faulty(build, "step_err:after=3,status=device") as d:
        lines, _ = d.stream(ASK, ABOUT)
        equal([line["type"] for line in lines if line["type"] != "prefill"], ["queued"] + ["token"] * 3 + ["error"], "lines")
        equal(lines[-1]["error"]["code"], "device_error", "code")
        d.ends_with(71)


def check_kv_exhaust_makes_a_request_give_way_with_the_same_bytes(build):
    """A picture takes blocks when it is admitted and as it grows: from the third time on there are none, twelve times."""
    draw = next(w for w in work_of(build) if w[0] == DRAW)
    with Faulty(build, "kv_exhaust:after=2,count=12", "--backend", "cpu") as d:
        equal(essence(d.post_ok(*draw)), plain(build)[work_of(build).index(draw)], "the picture")
        require(engine(d)["preempted"] > 0, "it did not give way")
        equal([essence(r[2]) for r in post_all(d, work_of(build))], plain(build), "afterwards")
        equal(d.health()["requests"]["failed"], 0, "failed")
        return "gave way %d times" % engine(d)["preempted"]


def check_slow_step_is_slow_and_right(build):
    with Faulty(build, "slow_step:after=2,ms=300,count=2", "--step-timeout-s", "10") as d:
        start = time.monotonic()
        text = d.post_ok(ASK, ABOUT)["text"]
        took = time.monotonic() - start
        require(took >= 0.6, "two steps of 300 ms took %.2f s" % took)
        equal(d.post_ok(ASK, ABOUT)["text"], text, "text")
        equal(d.health()["status"], "ok", "status")


def check_step_hang_ends_every_request_and_the_process(build):
    """One stream runs, one plain request runs, one waits: all hear of it; the log names piece and age; exit code 70."""
    with Faulty(build, "step_hang:after=40", "--step-timeout-s", limit(build), "--max-batch", "2") as d:
        stream, got = open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": 1})
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            plain_ones = [pool.submit(d.post, DRAW, {"prompt": "Draw a chest X-ray.", "seed": i}) for i in range(8)]
            text = read_to_end(stream, got)
            replies = [p.result() for p in plain_ones]
        last = json.loads([line for line in text.split(b"\r\n") if b'"type":"error"' in line][-1])
        equal(last["error"]["code"], "engine_broken", "the stream's last line")
        for status, _, reply in replies:
            require_error(status, reply, 503, "engine_broken")
            require(re.search(r"a piece of work \(step\) takes longer than [1-9]", reply["error"]["message"]), reply)
        d.ends_with(70)
        log = d.log_text()
        require(re.search(r"error watchdog: the engine hangs: a piece of work \(step\) takes longer than [1-9]\d*\.\d s",
                          log), log[-500:])


def check_load_corrupt_is_seen_by_the_canary(build):
    """A bit of the vision tower, of a projector, of the language model, of the VQGAN."""
    notes = []
    for after in (3,) if is_sanitized(build) else (3, 15, 26, 36, 48):
        code, out, err = run_program(build, "healthgptd-faults", "--backend", "cpu",
                                     env={"HG_FAULT": "load_corrupt:after=%d" % after})
        equal(code, 70, "tensor %d: exit code: %s" % (after, err[-300:]))
        equal(out, "", "it never says that it listens")
        m = re.search(r"canary: (\w+): (?:token \d+: )?(expected|a value is not finite)", err)
        require(m, err[-300:])
        notes.append("%d: %s" % (after, m.group(1)))
    return ", ".join(notes)


# ---- the canary -------------------------------------------------------------------------------------------

def check_canary_file_is_compared_at_start(build):
    with tempfile.TemporaryDirectory() as top:
        model = os.path.join(top, "model")
        shutil.copytree(DEMO, model)
        path = os.path.join(model, "canary.json")
        with Daemon(build, "--model", model, "--backend", "cpu") as d:
            require("canary: right, as in canary.json" in d.log_text(), d.log_text()[-400:])
        with open(path) as f:
            ids = json.load(f)["generation"]["ids"]
        edit_json(path, generation={"ids": [ids[0], ids[1] + 1] + ids[2:], "logprobs": [-3.84447, 0, 0, 0]})
        code, _, err = run_program(build, "healthgptd", "--model", model, "--backend", "cpu")
        equal(code, 70, err)
        require("canary: generation: token 1: expected id %d" % (ids[1] + 1) in err, err[-300:])
        edit_json(path, weights_crc32c=1)
        code, _, err = run_program(build, "healthgptd", "--model", model, "--backend", "cpu")
        equal(code, 65, err)
        require("canary.json: it is of weights with the CRC-32C 00000001" in err, err[-300:])
        # int4 weights are other weights; without the file the first run is the measure
        os.remove(path)
        with Daemon(build, "--model", model, "--backend", "cpu", "--dtype", "int4") as d:
            require(re.search(r"canary: right, \d+ ms", d.log_text()), d.log_text()[-400:])


def check_idle_canary_runs_and_answers_are_the_same(build):
    work, want = work_of(build)[:2], plain(build)[:2]
    with Daemon(build, "--canary-interval-s", "1", "--backend", "cpu") as d:
        equal([essence(d.post_ok(*w)) for w in work], want, "before")
        until(lambda: engine(d)["canaries"] >= 1, "a run")
        equal([essence(d.post_ok(*w)) for w in work], want, "after")


def check_idle_canary_that_is_wrong_ends_the_process(build):
    with Faulty(build, "nan_row", "--canary-interval-s", "1", "--backend", "cpu") as d:
        d.ends_with(70)
        log = d.log_text()
        require("canary: text: token 0: a value is not finite" in log, log[-400:])
        require("canary_failed: to be started again" in log, log[-400:])


# ---- the supervisor ---------------------------------------------------------------------------------------

def worker_of(d):
    """The supervisor's child, or None."""
    with open("/proc/%d/task/%d/children" % (d.process.pid, d.process.pid)) as f:
        pids = f.read().split()
    return int(pids[0]) if pids else None


def gone(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def check_supervisor_keeps_the_socket_while_there_is_no_worker(build):
    """The worker is killed while the supervisor is stopped: who connects then is answered by the next worker."""
    with Daemon(build, "--supervise", "--backend", "cpu") as d:
        text = d.post_ok(ASK, ABOUT)["text"]
        worker = worker_of(d)
        d.process.send_signal(signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        until(lambda: gone(worker), "the end of the worker")
        body = json.dumps(ABOUT).encode()
        s = socket.create_connection(("127.0.0.1", d.port), 60)
        s.sendall(b"POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        d.process.send_signal(signal.SIGCONT)
        head, _, data = read_to_end(s, b"").partition(b"\r\n\r\n")
        s.close()
        require(head.startswith(b"HTTP/1.1 200"), head)
        equal(json.loads(data)["text"], text, "text")
        equal(engine(d)["restarts"], 1, "restarts")
        require(worker_of(d) != worker, "the same worker")
        require("the worker ended with 137: it is started again (1 of" in d.log_text(), d.log_text()[-500:])


def check_supervisor_restarts_a_worker_that_hangs(build):
    with Faulty(build, "step_hang:after=20,start=0", "--step-timeout-s", limit(build), "--supervise") as d:
        first, second = d.post_ok(ASK, ABOUT), d.post(ASK, ABOUT)
        require_error(second[0], second[2], 503, "engine_broken")
        worker = worker_of(d)
        until(lambda: worker is None or gone(worker), "the end of the worker")
        third = d.post_ok(ASK, ABOUT)  # in the backlog until the next one has loaded
        equal(third["text"], first["text"], "text")
        equal(engine(d)["restarts"], 1, "restarts")


def check_supervisor_gives_up(build):
    code, out, err = run_program(build, "healthgptd-faults", "--supervise", "--max-restarts", "1", "--backend", "cpu",
                                 env={"HG_FAULT": "load_corrupt:after=26"})
    equal(code, 70, "exit code: " + err[-400:])
    equal(out, "", "it never listens")
    equal(len(re.findall(r"supervisor: the worker ended with 70", err)), 2, "ends")
    require("given up (1 of at most 1 restarts in 600 s)" in err, err[-400:])


def check_supervisor_ends_with_the_code_of_a_worker_that_cannot_be_helped(build):
    code, _, err = run_program(build, "healthgptd", "--supervise", "--model", "/nonexistent")
    equal(code, 66, err)
    require("supervisor:" not in err, err)
    code, _, err = run_program(build, "healthgptd", "--supervise", "--max-queue", "0")
    equal(code, 64, err)


def check_supervisor_passes_sigterm_on_once(build):
    with Daemon(build, "--supervise", "--backend", "cpu") as d:
        stream, got = open_stream(d, DRAW, {"prompt": "Draw a chest X-ray.", "seed": 1})
        d.process.send_signal(signal.SIGTERM)
        text = read_to_end(stream, got)
        require(b'"type":"done"' in text, "cut: %r" % text[-200:])
        d.expect_end()
        equal(len(re.findall("draining for at most", d.log_text())), 1, "drains")
        try:
            socket.create_connection(("127.0.0.1", d.port), 5).close()
        except ConnectionRefusedError:
            return
        raise Fail("the port is still open")


def check_worker_does_not_outlive_its_supervisor(build):
    with Daemon(build, "--supervise", "--backend", "cpu") as d:
        worker = worker_of(d)
        d.process.kill()
        d.process.wait(30)
        d.ended = True
        until(lambda: gone(worker), "the end of the worker")


# ---- sockets of a service manager -------------------------------------------------------------------------

def activated(build, listener, n="1", *args):
    """As systemd does it: descriptor 3 and two variables, the pid being the daemon's."""
    script = 'exec 3<&%d; LISTEN_FDS=%s LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec "$@"' % (listener.fileno(), n)
    return subprocess.Popen(["sh", "-c", script, "sh", os.path.join(ROOT, build, "healthgptd"), "--backend", "cpu",
                             "--ops-listen", ""]
                            + list(args), cwd=ROOT, pass_fds=(listener.fileno(),), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def check_socket_of_a_service_manager_is_taken(build):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        early = socket.create_connection(("127.0.0.1", port), 60)
        early.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        for extra in ((), ("--supervise",)):
            p = activated(build, listener, "1", *extra)
            line = p.stdout.readline().decode()
            require("listening on http://127.0.0.1:%d " % port in line, line)
            if early:
                require(read_to_end(early, b"").startswith(b"HTTP/1.1 200"), "who came before it")
                early.close()
                early = None
            p.send_signal(signal.SIGTERM)
            p.communicate(timeout=60)
            equal(p.returncode, 0, "exit code")
            # The service manager has the socket still: nobody is refused (the next start would answer).
            socket.create_connection(("127.0.0.1", port), 5).close()


def check_sockets_that_make_no_sense_are_refused(build):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        p = activated(build, listener, "2")
        err = p.communicate(timeout=60)[1].decode()
        equal(p.returncode, 64, err)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        p = activated(build, datagram)
        err = p.communicate(timeout=60)[1].decode()
        equal(p.returncode, 64, err)
        require("expected a listening TCP socket" in err, err)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        p = activated(build, listener)
        err = p.communicate(timeout=60)[1].decode()
        equal(p.returncode, 64, err)
        require("0.0.0.0 is not loopback" in err, err)
