#!/usr/bin/env python3
"""The whole sweep of shapes on the emulated cuda kernels, in three orders of threads; sums as run.py.

usage: full.py BUILD_DIR

Runs each kernel test program with HG_TEST_FULL=1 on backend simt with HG_SIMT_ORDER 0, 1 and 2: against
ref within its bounds, and the digests of all that was computed must be equal in the three orders. Then
260 greedy tokens of random tiny models of the three layouts (M3: fused, MHA 96, two plug-ins; L14: fused,
grouped heads of 128; XL32: split, biased, grouped) against PyTorch's goldens. One line per program; as the
last line `N passed, N failed, N skipped`, also appended to $HG_TEST_SUMS."""
import concurrent.futures
import os
import re
import sys

import run

ORDERS = ("0", "1", "2")
# Programs about another backend, or whose checks start no kernel.
ELSEWHERE = {"test_backend", "test_cpu_panels", "test_cpu_simd", "test_cpu_threads", "test_cuda_faults", "test_cuda_pool", "test_oom"}
LAYOUTS = ("phi3_mha_p96", "phi3_gqa5_p128", "qwen2_gqa5_p64", "qwen2_gqa4_p128")
SLOWEST_FIRST = ("test_llm_parity", "test_invariance", "test_attention", "test_hlora", "test_linear")


def jobs_of(build):
    """(name, what, path, environment) of every run, slow ones first."""
    jobs = []
    folder = os.path.join("tests", "kernels")
    for name in sorted(n[:-2] for n in os.listdir(folder) if re.fullmatch(r"test_.+\.c", n)):
        if name not in ELSEWHERE:
            jobs += [(name, "order " + o, os.path.join(build, folder, name), {"HG_SIMT_ORDER": o}) for o in ORDERS]
    path = os.path.join(build, "tests", "parity", "test_llm_parity")
    jobs += [("test_llm_parity", m, path, {"HG_TEST_MODEL": m, "HG_SIMT_ORDER": "0"}) for m in LAYOUTS]
    rank = {n: i for i, n in enumerate(SLOWEST_FIRST)}
    return sorted(jobs, key=lambda j: rank.get(j[0], len(rank)))


def run_job(job, seconds):
    name, what, path, env = job
    env = dict(env, HG_TEST_FULL="1", HG_TEST_BACKEND="simt")
    _, text, code, spent = run.run_program(path, seconds, env)
    return name, what, text, run.count(text, code), spent


def compare(digests):
    """One check per program that says what it computed (kt_teardown): the same bits in its three runs."""
    sums = [0, 0, 0]
    for name, found in sorted(digests.items()):
        same = len(found) == len(ORDERS) and len(set(found)) == 1 and found[0] is not None
        sums[0 if same else 1] += 1
        if not same:
            print("%s: other bits in another order of threads: %s" % (name, found))
    print("%-52s %4d passed %2d failed %2d skipped" % (("equal bits in %d orders" % len(ORDERS),) + tuple(sums)))
    return sums


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build = sys.argv[1].rstrip("/")
    report, seconds = run.take_report(), run.timeout_of(build)
    sums, digests = [0, 0, 0], {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for name, what, text, result, spent in pool.map(run_job, jobs_of(build), [seconds] * 1000):
            sums = [a + b for a, b in zip(sums, result)]
            print("%-34s %-17s %4d passed %2d failed %2d skipped %6.1f s" % ((name, what) + result + (spent,)))
            run.print_skips(text, result[2])
            if result[1]:
                print(text[-20000:])
            digest = re.search(r"^# digest (\w+) of (\d+) values$", text, re.M)
            if digest:
                digests.setdefault(name, []).append(digest.group(1) if int(digest.group(2)) else None)
            sys.stdout.flush()
    sums = [a + b for a, b in zip(sums, compare(digests))]
    return run.finish(sums, report)


if __name__ == "__main__":
    sys.exit(main())
