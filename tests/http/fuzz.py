#!/usr/bin/env python3
"""Mutated requests against a daemon, mostly of a sanitizer build: fuzz.py BUILD_DIR [COUNT [SEED]]

First a planted bug must be found (a build that cannot fail tests nothing), then COUNT mutants (150,000) must not find
one: no sanitizer line, no end of the daemon, no answer 500, the good client served all the time, every accepted request
ended. SEED: of the clock, if not given; it is printed. The sums go to $HG_TEST_SUMS as those of tests/run.py do."""
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import LOG_ALARMS, Daemon, counts, check, equal, require  # noqa: E402

# Small queues and no patience with the log: what is looked for is in front of the engine.
OPTIONS = ("--canary-interval-s", "0")


def h1mut(build, d, count, seed, *more):
    p = subprocess.run([os.path.join(ROOT, build, "h1mut"), "--good", str(d.port), "--count", str(count), "--seed", str(seed)]
                       + list(more or ("--port", str(d.port))), cwd=ROOT, stdout=subprocess.PIPE)
    return p.returncode, p.stdout.decode("utf-8", "replace")


def finds_the_planted_bug(build, fault, sign):
    """`sign`: what stands in the log when it is found, or None: the daemon only ends."""
    d = Daemon(build, *OPTIONS, program="healthgptd-faults", env={"HG_FAULT": fault})
    code, said = h1mut(build, d, 40000, 1)
    d.process.kill() if d.process.poll() is None and code == 0 else None
    ended = d.process.wait(60)
    log = d.log_text()
    d.process.stdout.close()
    require(code == 1 and "FINDING" in said, "h1mut has not noticed: " + said)
    require(ended != 0 and (sign is None or (sign in log and LOG_ALARMS.search(log))),
            "exit %d, log: %s" % (ended, log[-800:]))
    return said.split("\n")[-3][:100] if said.count("\n") > 2 else ""


def finds_nothing(build, count, seed):
    with Daemon(build, *OPTIONS) as d:
        code, said = h1mut(build, d, count, seed)
        require(code == 0, "seed %d: %s\n%s" % (seed, said, d.log_text()[-3000:]))
        h = d.wait_idle()
        equal((h["ledger"]["accepted"], h["ledger"]["ended_twice"]), (h["ledger"]["ended"], 0), "ledger")
        require(h["ledger"]["accepted"] > count // 100, "only %d requests reached the engine" % h["ledger"]["accepted"])
        equal(h["kv"]["blocks"], h["kv"]["free"], "KV blocks")
    return said.strip().split("\n")[-1]


def finds_nothing_at_the_operators_port(build, count, seed):
    with Daemon(build, *OPTIONS, "--ops-listen", "127.0.0.1:0") as d:
        port = re.search(r"operators' port: http://127\.0\.0\.1:(\d+)", d.log_text()).group(1)
        code, said = h1mut(build, d, count, seed, "--port", port, "--seeds", "tests/http/seeds_ops")
        require(code == 0, "seed %d: %s\n%s" % (seed, said, d.log_text()[-3000:]))
    return said.strip().split("\n")[-1]


def main():
    build = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 150000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    if "address" in build:
        check("a planted overread is found", finds_the_planted_bug, build, "overread:count=0", "heap-buffer-overflow")
    check("%d mutants find nothing" % count, finds_nothing, build, count, seed)
    check("%d at the operators' port" % (count // 5), finds_nothing_at_the_operators_port, build, count // 5, seed)
    print("fuzz-http: %(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    if os.environ.get("HG_TEST_SUMS"):
        with open(os.environ["HG_TEST_SUMS"], "a") as f:
            f.write("%(passed)d %(failed)d %(skipped)d\n" % counts)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
