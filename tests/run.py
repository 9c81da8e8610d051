#!/usr/bin/env python3
"""Run every test program of a build folder and the end-to-end checks; sum the results.

usage: run.py BUILD_DIR [-j N] [name ...]
Prints one line per program, the failures in full, every skip with its reason, and as the last line
`N passed, N failed, N skipped`. Exit status 0 only when nothing failed and something passed."""
import concurrent.futures
import os
import re
import subprocess
import sys
import time

TIMEOUT_S = 900


def programs(build):
    found = []
    for folder, _, names in os.walk(os.path.join(build, "tests")):
        found += [os.path.join(folder, n) for n in names if n.startswith("test_") and "." not in n]
    sources = {p for p in found if os.path.exists(os.path.relpath(p, build) + ".c")}
    return sorted(sources)


def run_program(path):
    start = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    env.setdefault("TSAN_OPTIONS", "halt_on_error=1")
    try:
        p = subprocess.run([path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                           timeout=TIMEOUT_S)
        text, code = p.stdout.decode("utf-8", "replace"), p.returncode
    except subprocess.TimeoutExpired as e:
        text, code = (e.stdout or b"").decode("utf-8", "replace") + "\nTIMEOUT", 124
    return path, text, code, time.monotonic() - start


def count(text, code):
    plan = re.search(r"^1\.\.(\d+)", text, re.M)
    skipped = len(re.findall(r"^(?:not )?ok \d+ #\s*SKIP", text, re.M | re.I))
    passed = len(re.findall(r"^ok \d+", text, re.M)) - len(re.findall(r"^ok \d+ #\s*SKIP", text, re.M | re.I))
    failed = len(re.findall(r"^not ok \d+", text, re.M)) - len(
        re.findall(r"^not ok \d+ #\s*SKIP", text, re.M | re.I))
    total = int(plan.group(1)) if plan else 0
    lost = max(0, total - passed - failed - skipped)
    failed += lost
    if (code != 0 and failed == 0) or total == 0:
        failed += 1
    return passed, failed, skipped


def run_e2e(build):
    script = os.path.join("tests", "e2e", "run.sh")
    if not os.path.exists(script):
        return 0, 1, 0
    p = subprocess.run(["sh", script, build], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = p.stdout.decode("utf-8", "replace")
    print(text, end="")
    m = re.search(r"^e2e: (\d+) passed, (\d+) failed, (\d+) skipped$", text, re.M)
    if not m:
        return 0, 1, 0
    passed, failed, skipped = map(int, m.groups())
    return passed, failed + (1 if p.returncode and not failed else 0), skipped


def main():
    build, names = sys.argv[1], sys.argv[2:]
    jobs = [p for p in programs(build) if not names or any(n in p for n in names)]
    sums = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, text, code, seconds in pool.map(run_program, jobs):
            result = count(text, code)
            sums = [a + b for a, b in zip(sums, result)]
            print("%-52s %4d passed %2d failed %2d skipped %6.1f s" %
                  ((os.path.relpath(path, build),) + result + (seconds,)), flush=True)
            for line in re.findall(r"^(?:# )?(SKIP:?.*)$", text, re.M):
                print("    " + line)
            if result[1]:
                print(text)
    if not names:
        sums = [a + b for a, b in zip(sums, run_e2e(build))]
    print("%d passed, %d failed, %d skipped" % tuple(sums))
    return 1 if sums[1] or not sums[0] else 0


sys.exit(main())
