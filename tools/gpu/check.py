#!/usr/bin/env python3
"""Check and measure the cuda backend on this machine; ends with tables, a plot and a results file.

usage: check.py [--backend cuda|simt] [--results DIR] [--scratch DIR] [--seconds N] [--only NAMES]
                [--resume | --fresh] [--plan] [--quick]

Runs the stages of stages.py with the programs of build/gpu (make gpu-pack), or, with --backend simt,
those of build/release on the CPU emulation: a rehearsal with tiny shapes that reports no speed. Every
stage has its own time limit and is saved when it ends; all together stop after --seconds (570 on a card).
A stage that succeeded for the same commit and card is not run again, so the same command goes on where an
earlier one was cut off (--resume says so; --fresh starts anew). --only takes a list of stages; --quick a
part of the tests; --plan prints what would run. The results file has a line for every figure (report.py),
with a plot of the shares beside it (.svg). Exit status 0 when no stage failed."""
import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import measure  # noqa: E402
import report  # noqa: E402
import stages  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))


class Context:
    """What a stage needs: where things are, how much time is left, what ran before."""

    def __init__(self, args):
        packed = os.path.join(ROOT, "COMMIT")  # this file may lie in the pack itself
        self.home = ROOT if os.path.exists(packed) else os.path.join(ROOT, "build", "gpu")
        self.simt = args.backend == "simt"
        self.backend, self.quick, self.scratch = args.backend, args.quick, os.path.abspath(args.scratch)
        self.end = time.monotonic() + args.seconds
        if self.simt:
            self.home = ROOT
        self.bin = os.path.join(ROOT, "build", "release") if self.simt else os.path.join(self.home, "bin")
        self.commit = self.read_commit()
        self.done, self.writers, self.wanted = {}, {}, ()
        self.torch_python = self.stage_end = None

    def read_commit(self):
        path = os.path.join(self.home, "COMMIT")
        if not self.simt and os.path.exists(path):
            return open(path).read().strip()
        return commit_of_tree()

    def left(self):
        """Seconds that are left to all, and to the stage that runs."""
        return min(self.end, self.stage_end or self.end) - time.monotonic()

    def cublas_folders(self):
        """Of the cuBLASLt that our library asks for, wherever torch or CUDA keep it."""
        if self.simt:
            return []
        if not hasattr(self, "found_cublas"):
            self.found_cublas = []  # the search below asks for an environment
            self.found_cublas = sorted({os.path.dirname(f) for f in measure.cublas_libraries(self)
                                        if f.endswith("libcublasLt.so.13")})
        return self.found_cublas

    def environment(self):
        """For our programs only: nvidia-smi and torch bring their own libraries."""
        shared = os.path.join(self.home, "shared")
        env = dict(os.environ, HG_TEST_BACKEND=self.backend, HG_ROOT=self.home,
                   LD_LIBRARY_PATH=os.pathsep.join([self.bin, os.path.join(self.home, "lib")] + self.cublas_folders()))
        if os.path.isdir(shared):
            env["HG_SHARED"] = shared
        env.setdefault("HG_SHARED", os.path.join(ROOT, "..", "shared"))
        return env

    def program(self, name):
        return os.path.join(self.bin, name)


def commit_of_tree():
    """abc1234, or abc1234-5f3a9c with the changes that are not committed."""
    def git(*args):
        return subprocess.run(("git",) + args, cwd=ROOT, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout
    try:
        commit = git("rev-parse", "--short=10", "HEAD").decode().strip()
        changes = git("diff", "HEAD")
    except OSError:
        return "unknown"
    if changes:
        import hashlib
        commit += "-" + hashlib.sha256(changes).hexdigest()[:6]
    return commit or "unknown"


def slug(text):
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "unknown"


def results_file(folder, card, commit):
    """The newest file of this card and commit, else a new name of today."""
    tail = "-%s-%s.json" % (slug(card), commit)
    os.makedirs(folder, exist_ok=True)
    old = sorted(n for n in os.listdir(folder) if n.endswith(tail))
    return os.path.join(folder, old[-1] if old else datetime.date.today().isoformat() + tail)


def load(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {"stages": {}}


def save(path, results):
    with open(path + ".new", "w") as f:
        json.dump(results, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)


def run_stage(name, function, limit, ctx):
    """The stage's dict: status, note, seconds, and what it measured."""
    start, result = time.monotonic(), {}
    try:
        ctx.stage_end = None
        if ctx.left() < stages.LEAST_S:
            raise stages.Skip("out of time; run the same command again to go on")
        ctx.stage_end = start + limit * (stages.SIMT_FACTOR if ctx.simt else 1)
        result = function(ctx) or {}
        result.setdefault("status", "ok")
    except stages.Skip as e:
        result = {"status": "skip", "note": str(e)}
    except stages.Fail as e:
        result = dict(e.data, status="FAIL", note=str(e))
    except Exception as e:  # a broken stage must not stop the others
        result = {"status": "FAIL", "note": "%s: %s" % (type(e).__name__, e)}
    result["seconds"] = round(time.monotonic() - start, 2)
    if not ctx.simt and report.is_measured(result):
        result["clocks"] = stages.clocks(ctx)
    print("%-10s %-5s %6.1f s  %s" % (name, result["status"], result["seconds"], result.get("note", "")), flush=True)
    return result


def print_tables(results):
    for name, result in results["stages"].items():
        for line in result.get("table", []):
            print(line)
    for line in report.gate_table(results):
        print(line)
    print("\n%-10s %-6s %8s  %s" % ("stage", "result", "seconds", "note"))
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    for name, _, _ in stages.ALL:
        r = results["stages"].get(name)
        if r:
            counts[r["status"]] += 1
            print("%-10s %-6s %8.1f  %s" % (name, r["status"], r["seconds"], r.get("note", "").split("\n")[0]))
    print("gpu-check %s: %d ok, %d failed, %d skipped" % (results["backend"], counts["ok"], counts["FAIL"], counts["skip"]))
    return counts["FAIL"]


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--backend", choices=("cuda", "simt"), default="cuda")
    p.add_argument("--results")
    p.add_argument("--scratch", default=os.path.join(ROOT, "build", "gpu-scratch"))
    p.add_argument("--seconds", type=float)
    p.add_argument("--only", default="")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--plan", action="store_true")
    args = p.parse_args(argv)
    # A rehearsal is no measurement: its file never lies among the results.
    default = os.path.join(ROOT, "build", "gpu-rehearsal") if args.backend == "simt" else os.path.join(ROOT, "bench", "results")
    args.results = args.results or default
    args.seconds = args.seconds or (3600 if args.backend == "simt" else 570)
    if args.backend == "simt" and os.path.realpath(args.results).startswith(os.path.realpath(os.path.join(ROOT, "bench"))):
        p.error("--backend simt: results of the emulation do not belong into bench/")
    unknown = set(filter(None, args.only.split(","))) - {stage[0] for stage in stages.ALL}
    if args.resume and args.fresh:
        p.error("--resume and --fresh exclude each other")
    if unknown:
        p.error("unknown stage: " + ", ".join(sorted(unknown)))
    return args


def main(argv):
    args = parse(argv)
    ctx = Context(args)
    wanted = set(filter(None, args.only.split(",")))
    if not os.path.isdir(ctx.bin):
        sys.exit("gpu-check: %s is not there: make gpu-pack" % ctx.bin)
    card = "simt" if ctx.simt else stages.card_name(ctx)
    card += "-quick" if args.quick else ""
    path = results_file(args.results, card, ctx.commit)
    results = {"stages": {}} if args.fresh else load(path)
    results.update(format=2, backend=ctx.backend, card=card, commit=ctx.commit, quick=args.quick)
    ctx.done = results["stages"]
    print("gpu-check: backend %s, card %s, commit %s\nresults: %s" % (ctx.backend, card, ctx.commit, path), flush=True)
    if ctx.simt:
        print("a rehearsal on the CPU emulation: it shows that the programme runs, and no speed of a GPU")
    jobs = []
    for name, function, limit in stages.ALL:
        if wanted and name not in wanted:
            continue
        if ctx.done.get(name, {}).get("status") == "ok":
            print("%-10s done before" % name)
        elif args.plan:
            print("%-10s would run: %s" % (name, function.__doc__.split("\n")[0]))
        else:
            jobs.append((name, function, limit))
    if args.plan:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clean_up runs
    try:
        ctx.wanted = [job[0] for job in jobs]
        stages.prepare(ctx, ctx.wanted)
        for name, function, limit in jobs:
            ctx.done[name] = run_stage(name, function, limit, ctx)
            results["updated"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            results["lines"] = report.lines(results)
            save(path, results)
    finally:
        stages.clean_up(ctx)
    failed = print_tables(results)
    plot = report.write_plot(results, path[:-5] + ".svg")
    if plot:
        print("plot: " + plot)
    print("results: " + path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
