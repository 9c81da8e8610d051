"""tests/run.py counts what it should: a test that says nothing, dies or hangs has failed."""
import os
import re
import subprocess
import sys
import tempfile

from harness import ROOT, equal, require

# script, (passed, failed, skipped) that it adds
PROGRAMS = {
    "good": ("echo 1..2; echo 'ok 1 - a'; echo 'ok 2 - b'", (2, 0, 0)),
    "bad": ("echo 1..2; echo 'ok 1 - a'; echo 'not ok 2 - b'; exit 1", (1, 1, 0)),
    "skips": ("echo '# SKIP: no data'; echo 1..2; echo 'ok 1 # SKIP a'; echo 'ok 2 - b'", (1, 0, 1)),
    "skips_all": ("echo 1..12; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo 'SKIP: no data'; "
                  "echo \"not ok $i # SKIP a\"; done", (0, 0, 12)),
    "skips_in_silence": ("echo 1..1; echo 'ok 1 # SKIP a'", (0, 0, 1)),
    "silent": (":", (0, 1, 0)),
    "empty_plan": ("echo 1..0", (0, 1, 0)),
    "crashes": ("kill -SEGV $$", (0, 1, 0)),
    "crashes_halfway": ("echo 1..3; echo 'ok 1 - a'; kill -ABRT $$", (1, 2, 0)),
    "exits_1_after_success": ("echo 1..1; echo 'ok 1 - a'; exit 1", (1, 1, 0)),
    "hangs": ("echo 1..1; echo 'ok 1 - a'; sleep 1000 & sleep 1000", (1, 1, 0)),
}


def check_runner_counts_crashes_hangs_and_silence(build):
    with tempfile.TemporaryDirectory() as d:
        os.makedirs(os.path.join(d, "tests", "e2e"))
        os.makedirs(os.path.join(d, "b", "tests"))
        for name, (script, _) in PROGRAMS.items():
            open(os.path.join(d, "tests", "test_%s.c" % name), "w").close()
            path = os.path.join(d, "b", "tests", "test_" + name)
            with open(path, "w") as f:
                f.write("#!/bin/sh\n" + script + "\n")
            os.chmod(path, 0o755)
        open(os.path.join(d, "tests", "test_not_built.c"), "w").close()
        with open(os.path.join(d, "tests", "e2e", "run.sh"), "w") as f:
            f.write("echo 'ok    one'; echo 'skip  two: no data'; exit 3\n")
        p = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "run.py"), "b"], cwd=d, timeout=120,
                           env=dict(os.environ, HG_TEST_TIMEOUT="6"), stdout=subprocess.PIPE)
        lines = p.stdout.decode().split("\n")
        for name, (_, expected) in PROGRAMS.items():
            line = [x for x in lines if x.startswith("tests/test_%s " % name)]
            got = re.search(r"(\d+) passed +(\d+) failed +(\d+) skipped", line[0])
            equal(tuple(map(int, got.groups())), expected, name)
        require("    SKIP: no data" in lines and "    SKIP: no reason was given" in lines, "reasons")
        require(any("TIMEOUT after 6 s" in x for x in lines) and any("KILLED by signal 11" in x for x in lines), "why")
        sums = [sum(e[i] for _, e in PROGRAMS.values()) for i in range(3)]
        # One program is not built; the end-to-end checks ended without their last line.
        equal(lines[-2:], ["%d passed, %d failed, %d skipped" % (sums[0] + 1, sums[1] + 2, sums[2] + 1), ""], "last line")
        equal(p.returncode, 1, "exit status")
