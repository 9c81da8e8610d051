#!/usr/bin/env python3
"""Run every test program of a build folder and the end-to-end checks; sum the results.

usage: run.py BUILD_DIR [name ...]     names choose programs by a part of their path; "e2e" the checks
Prints one line per program, failures in full, every skip with its reason, and as the last line
`N passed, N failed, N skipped`. A program that crashes, hangs, prints no result or is not built counts
as failed. Exit status 0 only when nothing failed and something passed. The sums are also appended to the
file $HG_TEST_SUMS, from which .ci/run adds up its own last line."""
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

# The slowest program takes half a minute on 2 idle cores, under a sanitizer 3 minutes; a loaded machine
# may take ten times as long.
TIMEOUT_S = int(os.environ.get("HG_TEST_TIMEOUT", "0"))
OK, BAD, SKIPPED = r"^ok \d+\b(?! #\s*SKIP)", r"^not ok \d+\b(?! #\s*SKIP)", r"^(?:not )?ok \d+ #\s*SKIP"


def timeout_of(build):
    return TIMEOUT_S or (1800 if "address" in build or "thread" in build else 600)


def programs(build):
    """(path, built) of each test that has a source."""
    found = []
    for folder, _, names in os.walk("tests"):
        found += [os.path.join(build, folder, n[:-2]) for n in names if re.fullmatch(r"test_.+\.c", n)]
    return sorted(found)


def run_group(command, seconds, **kw):
    """Output and exit code; after `seconds` the whole process group is killed."""
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                         start_new_session=True, **kw)
    try:
        out, code = p.communicate(timeout=seconds)[0], p.returncode
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, code = p.communicate()[0], None
    finally:
        if p.poll() is None:  # Ctrl-C: the group is not ours, so it was not told
            os.killpg(p.pid, signal.SIGKILL)
    text = out.decode("utf-8", "replace")
    if code is None:
        text += "\nTIMEOUT after %d s\n" % seconds
    elif code < 0:
        text += "\nKILLED by signal %d\n" % -code
    return text, code


def run_program(path, seconds, more_env=None):
    start = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", **(more_env or {}))
    env.setdefault("TSAN_OPTIONS", "halt_on_error=1")
    env.setdefault("LD_LIBRARY_PATH", os.path.abspath(path.split(os.sep + "tests" + os.sep)[0]))  # the simt backend
    if os.access(path, os.X_OK):
        text, code = run_group([path], seconds, env=env)
    else:
        text, code = "NOT BUILT\n", None
    return path, text, code, time.monotonic() - start


def count(text, code):
    """(passed, failed, skipped) of TAP output; what was planned and never reported has failed."""
    passed, failed, skipped = (len(re.findall(p, text, re.M | re.I)) for p in (OK, BAD, SKIPPED))
    total = sum(int(n) for n in re.findall(r"^1\.\.(\d+)", text, re.M))
    failed += max(0, total - passed - failed - skipped)
    if failed == 0 and (code != 0 or total == 0):
        failed = 1
    return passed, failed, skipped


def print_skips(text, n):
    reasons = re.findall(r"^(?:# )?(SKIP:? ?.*\S)", text, re.M)
    for line in reasons + ["SKIP: no reason was given"] * (n - len(reasons)):
        print("    " + line)


def run_e2e(build, seconds):
    text, code = run_group(["sh", os.path.join("tests", "e2e", "run.sh"), build], seconds)
    print(text, end="")
    m = re.findall(r"^e2e: (\d+) passed, (\d+) failed, (\d+) skipped$", text, re.M)
    if not m:
        # It did not come to its end: count what it did.
        return len(re.findall(r"^ok ", text, re.M)), 1 + len(re.findall(r"^FAIL ", text, re.M)), len(
            re.findall(r"^skip ", text, re.M))
    passed, failed, skipped = map(int, m[-1])
    return passed, failed or int(code != 0), skipped


def take_report():
    """$HG_TEST_SUMS, a file to append the sums to; hidden from the programs that run."""
    return os.environ.pop("HG_TEST_SUMS", None)


def finish(sums, report):
    """The last line, and the exit status."""
    if report:
        with open(report, "a") as f:
            f.write("%d %d %d\n" % tuple(sums))
    print("%d passed, %d failed, %d skipped" % tuple(sums))
    return 1 if sums[1] or not sums[0] else 0


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, names = sys.argv[1].rstrip("/"), sys.argv[2:]
    seconds, report = timeout_of(build), take_report()
    jobs = [p for p in programs(build) if not names or any(n in p for n in names)]
    sums = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, text, code, spent in pool.map(run_program, jobs, [seconds] * len(jobs)):
            result = count(text, code)
            sums = [a + b for a, b in zip(sums, result)]
            print("%-52s %4d passed %2d failed %2d skipped %6.1f s" %
                  ((os.path.relpath(path, build),) + result + (spent,)))
            print_skips(text, result[2])
            if result[1]:
                print(text)
            sys.stdout.flush()
    if not names or "e2e" in names:
        sums = [a + b for a, b in zip(sums, run_e2e(build, 2 * seconds))]
    return finish(sums, report)


if __name__ == "__main__":
    sys.exit(main())
