"""Framing: tests/http/*.case, each in three positions; what is read in two ways must not be read at all (T-01)."""
import os
import sys

from harness import ROOT, Daemon, Skip, equal, require

sys.path.insert(0, os.path.join(ROOT, "tests", "http"))
import cases  # noqa: E402


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
