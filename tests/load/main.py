#!/usr/bin/env python3
"""What the engine promises under load, measured: `make load-check`.

usage: main.py BUILD_DIR [--only NAME,...] [--json FILE]
Each line is a promise, what was measured and whether it holds; the last line sums up. What is compared is measured in turns,
several times, each time when the machine is quiet if that comes soon; the best of each counts, because others can only make
it slower. Takes about ten minutes on two idle cores, and says how much of the machine others took."""
import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import equal_bytes
import machine
from loadtool import endless_model, finish, load, start, total
from harness import ROOT, Daemon, cli_ok, equal, require
from opstool import OpsDaemon

BIG_MODEL = os.path.join(ROOT, "build", "bench-model")
rows = []


def row(promise, measured, holds, note=""):
    """holds: True, False, or None for a figure without a bound."""
    rows.append({"promise": promise, "measured": measured, "holds": holds, "note": note})
    print("%-5s %-58s %s%s" % ("info" if holds is None else "ok" if holds else "MISS", promise, measured, "; " + note if note else ""),
          flush=True)


def quiet_load(build, d, *args):
    machine.wait_quiet(5)
    return load(build, d, *args)


def bench(build, *args):
    """Lines of `healthgpt bench` by (plug-in, sequences)."""
    machine.wait_quiet(5)
    out = cli_ok(build, "bench", "--json", *(str(a) for a in args), timeout=900)
    return {(r["plugin"], r["sequences"]): r for r in map(json.loads, out.splitlines()) if "plugin" in r}


# ---- equal bytes -------------------------------------------------------------------------------------------------------

def check_bytes(build):
    compared, differ, gave_way = equal_bytes.run(build, 250, 1000, say=lambda text: print("      " + text, flush=True))
    row("same bytes in any company", "%d of %d answers differ; %d sequences gave way" % (differ, compared, gave_way),
        differ == 0 and compared >= 1000)


# ---- batching ----------------------------------------------------------------------------------------------------------

def check_streams(build):
    """Aggregate tokens per second over HTTP, 32 streams against one."""
    rates = {1: [], 32: []}
    with tempfile.TemporaryDirectory() as folder, \
            Daemon(build, "--model", endless_model(folder), "--max-batch", "32", "--max-queue", "256") as d:
        for _ in range(5):
            for n, out in rates.items():
                r = quiet_load(build, d, "--concurrency", n, "--ask", 0, "--text", 1, "--words", 1, "--tokens", 200, "--duration", 3,
                         "--warmup", 0.5)
                equal(r["errors"] + r["refused"], 0, "errors and refusals")
                out.append(total(r, "tokens_per_s"))
    one, many = max(rates[1]), max(rates[32])
    row("32 streams of the demo model over HTTP >= 5x one", "%.2fx (%.0f -> %.0f tokens/s)" % (many / one, one, many), many >= 5 * one)


def best_steps(build, rounds, *args):
    """The quickest tenth of the decode steps, in ms, by (plug-in, sequences): the best round of each."""
    best = {}
    for _ in range(rounds):
        for key, r in bench(build, *args).items():
            best[key] = min(best.get(key, r["step_ms_p10"]), r["step_ms_p10"])
    return best


def step_ratio(build, batch, rounds, *args):
    """(tokens per second in a batch) / (of one sequence), and the two steps in ms."""
    ms = best_steps(build, rounds, "--batches", "1,%d" % batch, *args)
    one, many = ms["comprehension", 1], ms["comprehension", batch]
    return batch * one / many, one, many


def check_engine(build):
    """The same without HTTP: the step alone."""
    for kind in ("f16", "bf16", "int8"):
        ratio, one, many = step_ratio(build, 32, 7, "--prompt-tokens", 64, "--max-tokens", 64, "--dtype", kind)
        row("a step of 32, demo model as %s" % kind, "%.2fx of one (%.3f -> %.3f ms)" % (ratio, one, many), ratio >= 5 if kind == "f16" else None)


def check_big(build):
    if not os.path.exists(os.path.join(BIG_MODEL, "healthgpt.json")):
        subprocess.run([os.path.join(ROOT, build, "random-model"), BIG_MODEL, "12", "2048", "5632", "8192"], check=True)
    for kind in ("bf16", "int8"):
        ratio, one, many = step_ratio(build, 8, 4, "--model", BIG_MODEL, "--dtype", kind, "--prompt-tokens", 64, "--max-tokens", 24,
                                      "--kv-tokens", 4096)
        row("a step of 8, random model of 1.3 GB as %s >= 4x" % kind, "%.2fx (%.1f -> %.1f ms)" % (ratio, one, many), ratio >= 4)


def check_mixed(build):
    """One step of both tasks against a step of each half."""
    for args, name, half in (((), "demo model", 16), ((), "demo model", 4), (("--model", BIG_MODEL, "--kv-tokens", 4096), "1.3 GB", 4)):
        ms = best_steps(build, 3 if args else 9, "--batches", "%d,%d" % (half, 2 * half), "--plugins", "comprehension,generation,mixed",
                        "--prompt-tokens", 64, "--max-tokens", 24 if args else 64, *args)
        halves, both = ms["comprehension", half] + ms["generation", half], ms["mixed", 2 * half]
        row("mixed batch of %d, %s <= 1.05x its two halves" % (2 * half, name), "%.2fx (%.3f -> %.3f ms)" % (both / halves, halves, both),
            both <= 1.05 * halves)


# ---- latency -----------------------------------------------------------------------------------------------------------

SHORT = ("--ask", 0, "--text", 1, "--words", "1", "--tokens", 4, "--concurrency", 1, "--count", 60)


def step_ms(d, seconds):
    """Mean time of a step while the daemon is busy."""
    before = d.health()["engine"]["steps"]
    begin = time.monotonic()
    time.sleep(seconds)
    return 1e3 * (time.monotonic() - begin) / max(d.health()["engine"]["steps"] - before, 1)


def check_first_token_beside_pictures(build):
    idle, busy, steps = [], [], []
    with Daemon(build, "--max-batch", "32", "--max-queue", "256", "--forget") as d:
        load(build, d, *SHORT)
        for i in range(5):
            idle.append(quiet_load(build, d, *SHORT, "--seed", 10 + i)["kinds"]["text"]["first_token_ms"]["p50"])
            pictures = start(build, d, "--concurrency", 16, "--ask", 0, "--draw", 1, "--duration", 3)
            time.sleep(0.5)
            steps.append(step_ms(d, 0.5))
            busy.append(load(build, d, *SHORT, "--seed", 10 + i)["kinds"]["text"]["first_token_ms"]["p50"])
            equal(finish(pictures)["errors"], 0, "errors")
    a, b, s = min(idle), min(busy), min(steps)
    row("first token beside 16 pictures <= 2x idle + a step", "%.2f ms, idle %.2f, step %.2f" % (b, a, s), b <= 2 * a + s)


def check_second_question(build):
    """New picture, then another question about the same: the server's own time to the first token."""
    from harness import b64, test_image
    first, second = [], []
    with Daemon(build) as d:
        for i in range(80):
            for out, question in ((first, "What is shown in this image?"), (second, "Is there evidence of pneumonia?")):
                r = d.post_ok("/v1/vqa", {"question": question, "image": b64(test_image(i)), "max_tokens": 4})
                out.append(r["timings"]["first_token_ms"])
    a, b = statistics.median(first[10:]), statistics.median(second[10:])
    row("second question about a picture <= 0.3x the first", "%.2fx (%.2f -> %.2f ms)" % (b / a, a, b), b <= 0.3 * a)


# ---- overload ----------------------------------------------------------------------------------------------------------

OVERLOAD = ("--ask", 2, "--draw", 3, "--text", 1, "--deadline-ms", 4000, "--pictures", 8)


def check_overload(build):
    with Daemon(build, "--max-queue", "32", "--max-batch", "16") as d:
        r = quiet_load(build, d, *OVERLOAD, "--concurrency", 46, "--duration", 4, "--warmup", 1)
        capacity = total(r, "requests_per_s")
        good, waits = {}, {}
        for factor in (1, 20, 1, 20):
            r = quiet_load(build, d, *OVERLOAD, "--rate", factor * capacity, "--duration", 6, "--warmup", 1, "--max-open", 20000)
            equal(r["errors"], 0, "errors %r" % r["codes"])
            good.setdefault(factor, []).append(total(r, "good_requests_per_s"))
            if factor == 20:
                refused = r["statuses"]["503"]
                equal(refused["retry_after"], refused["ms"]["n"], "Retry-After")
                waits.setdefault("ms", []).append(refused["ms"]["p99"])
                waits.setdefault("late", []).append(r["late_ms"]["p99"])
        d.wait_idle()
    a, b = max(good[1]), max(good[20])
    row("good answers at 20x load >= 0.9x of those at 1x", "%.2fx (%.0f -> %.0f per second; 1x is %.0f)" % (b / a, a, b, capacity), b >= 0.9 * a)
    row("refusals at 20x load, p99 <= 20 ms", "%.1f ms" % min(waits["ms"]), min(waits["ms"]) <= 20,
        "the generator itself sent p99 %.1f ms late, which is in it" % min(waits["late"]))


def check_soak(build):
    """Resident size over a minute of good requests, clients that leave, and refused bodies."""
    seconds, points, stop = 60, [], threading.Event()
    with Daemon(build, "--max-queue", "64") as d:
        def bad_ones():
            while not stop.is_set():
                for body in (b"{", b'{"question":1}', b'{"question":"x","image":"' + b"A" * 4000 + b'"}', b"[" * 5000):
                    d.post("/v1/vqa", body)
                time.sleep(0.05)
        mix = ("--rate", 80, "--ask", 4, "--text", 3, "--draw", 2, "--edit", 1, "--abandon", "0.12", "--streamed", "0.7")
        others = threading.Thread(target=bad_ones)
        others.start()
        # A full queue is the most that there can be at a time, and the heap of each thread has to see it.
        load(build, d, *mix[2:], "--rate", 400, "--duration", 10)
        load(build, d, *mix, "--duration", 20)
        p, begin = start(build, d, *mix, "--duration", seconds, "--seed", 2), time.monotonic()
        while p.poll() is None:
            points.append((time.monotonic() - begin, d.status_kb("VmRSS") / 1024))
            time.sleep(0.25)
        stop.set()
        others.join()
        r = finish(p)
        equal(r["errors"], 0, "errors %r" % r["codes"])
        equal(d.wait_idle()["requests"]["failed"], 0, "failed")
    t, y = [x[0] for x in points], [x[1] for x in points]
    mt, my = statistics.mean(t), statistics.mean(y)
    slope = 60 * sum((a - mt) * (b - my) for a, b in points) / sum((a - mt) ** 2 for a in t)
    row("resident size grows <= 1 MiB a minute", "%+.2f MiB a minute (%.1f -> %.1f MiB, %d requests, %d left)" %
        (slope, y[0], y[-1], r["due"], r["left"]), slope <= 1)


# ---- the operators' port -------------------------------------------------------------------------------------------------

def ask_often(port, path, per_s, stop, out):
    """(seconds, status) of each request on one connection, `per_s` a second, until `stop` is set."""
    c, due = http.client.HTTPConnection("127.0.0.1", port, timeout=60), time.monotonic()
    while not stop.is_set():
        start = time.monotonic()
        c.request("GET", path)
        r = c.getresponse()
        r.read()
        out.append((time.monotonic() - start, r.status))
        due += 1 / per_s
        time.sleep(max(0, due - time.monotonic()))
    c.close()


def while_asking(port, path, per_s, work):
    """The answers to `path` while `work` runs."""
    stop, out = threading.Event(), []
    t = threading.Thread(target=ask_often, args=(port, path, per_s, stop, out))
    t.start()
    try:
        work()
    finally:
        stop.set()
        t.join()
    return out


def p99_ms(answers):
    times = sorted(1e3 * s for s, _ in answers)
    return times[min(len(times) - 1, int(0.99 * len(times)))], times[-1]


def check_ops(build):
    with OpsDaemon(build, "--max-queue", "32", "--max-batch", "16") as d:
        r = quiet_load(build, d, *OVERLOAD, "--concurrency", 46, "--duration", 3, "--warmup", 1)
        rate = 20 * total(r, "requests_per_s")
        for path, per_s, most in (("/readyz", 100, 50), ("/metrics", 20, None)):
            answers = while_asking(d.ops_port, path, per_s, lambda: quiet_load(
                build, d, *OVERLOAD, "--rate", rate, "--duration", 6, "--max-open", 20000))
            p99, worst = p99_ms(answers)
            # readiness is about the queue too: a full one is told with 503
            odd = [status for _, status in answers if status not in ((200, 503) if most else (200,))]
            row("%s at 20x load, %d/s%s" % (path, per_s, ", p99 <= 50 ms, 0 errors" if most else ", 0 errors"),
                "p99 %.1f ms, longest %.1f ms, %d answers" % (p99, worst, len(answers)),
                not odd and (most is None or p99 <= most))
    with OpsDaemon(build, "--max-connections", "64") as d:
        held = [socket.create_connection(("127.0.0.1", d.port), 60) for _ in range(100)]
        answers = while_asking(d.ops_port, "/readyz", 200, lambda: time.sleep(5))
        p99, worst = p99_ms(answers)
        row("/readyz with no connection left on the main port, p99 <= 50 ms", "p99 %.1f ms, longest %.1f ms, %d answers" %
            (p99, worst, len(answers)), p99 <= 50 and {status for _, status in answers} == {200})
        for s in held:
            s.close()
    p = subprocess.run([os.path.join(ROOT, build, "tests", "server", "test_metrics")], capture_output=True, text=True, cwd=ROOT)
    row("a page of /metrics is made in < 1 ms", re.search(r"# (a page .*)", p.stdout).group(1), p.returncode == 0)


def check_allocations(build):
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    p = subprocess.run([os.path.join(ROOT, build, "tests", "server", "test_no_alloc")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       cwd=ROOT, env=env)
    text = p.stdout.decode()
    require("ok 1" in text or "not ok 1" in text, text[-500:])
    row("no allocation per token", "; ".join(line for line in text.splitlines() if "allocations in" in line), p.returncode == 0)


CHECKS = {name[6:]: function for name, function in list(globals().items()) if name.startswith("check_")}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--only", default=",".join(CHECKS), help="of " + ", ".join(CHECKS))
    p.add_argument("--json", help="write the lines there too")
    a = p.parse_args()
    failed = 0
    for name in a.only.split(","):
        try:
            others = machine.Others()
            CHECKS[name](a.build)
            print("      others took %.0f %% of the machine meanwhile" % (100 * others.share()), flush=True)
        except Exception as e:  # the others are still worth measuring
            failed += 1
            print("FAIL  %s: %s: %s" % (name, type(e).__name__, e), flush=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f, indent=1)
    misses = sum(r["holds"] is False for r in rows)
    print("load-check: %d hold, %d missed, %d could not be measured" % (sum(r["holds"] is True for r in rows), misses, failed))
    return 1 if misses or failed else 0


if __name__ == "__main__":
    sys.exit(main())
