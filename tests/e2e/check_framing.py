"""Framing: tests/http/*.case, each in three positions; what is read in two ways must not be read at all (T-01)."""
import concurrent.futures
import os
import socket
import sys

from harness import ROOT, Daemon, Skip, equal, require

sys.path.insert(0, os.path.join(ROOT, "tests", "http"))
import cases  # noqa: E402
import nginx  # noqa: E402


def check_every_case_in_three_positions(build):
    wanted = cases.read_cases()
    require(len(wanted) >= 120, "only %d cases" % len(wanted))
    with Daemon(build) as d:
        failures = cases.run(d.port, wanted)
        require(not failures, "%d failures, among them:\n%s" % (len(failures), "\n".join(failures[:20])))
        equal(d.health()["status"], "ok", "after the cases")
    return "%d cases x 3" % len(wanted)


def check_an_open_gate_is_noticed(build):
    """The same cases against a daemon whose gate lets everything pass: they must be able to fail."""
    wanted = [c for c in cases.read_cases() if c.statuses & {400, 403, 414, 417, 431, 505} and c.ends == ["close"]]
    with Daemon(build, program="healthgptd-faults", env={"HG_FAULT": "open_gate:count=0"}) as d:
        failures = cases.run(d.port, wanted, positions=("first",), seconds=0.1)
    smuggled = [f for f in failures if "questions computed" in f]
    require(len(failures) >= 60 and smuggled, "%d failures" % len(failures))
    return "%d of %d fail, in %d of them a second request runs" % (len(failures), len(wanted), len(smuggled))


def through(port, case):
    """Questions that were answered, for the case and what stands behind it."""
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as s:
            s.sendall(case.data + cases.BEHIND)
            got = cases.read_all(s)  # nginx ends what does not go on
    except (ConnectionResetError, BrokenPipeError):
        return 0
    return got.count(b'"finish_reason"')


def check_nginx_and_the_daemon_read_the_same(build):
    """Each question that is computed has its answer at a client of nginx: none was hidden in another request."""
    if not nginx.program():
        raise Skip("nginx is not there")
    wanted, told = cases.read_cases(), []
    for buffers in (True, False):
        with Daemon(build) as d, nginx.Nginx(d.port, buffers) as n:
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                answered = sum(pool.map(lambda c: through(n.port, c), wanted))
            h = d.wait_idle()
            computed = h["requests"]["done"]
            require(answered > 40, "only %d answers come through nginx" % answered)
            equal(computed, answered, "questions computed and answered (cancelled: %d)" % h["requests"]["cancelled"])
            told.append("%d" % answered)
    return "%d cases, %s questions, body buffered and not" % (len(wanted), " and ".join(told))
