"""The sizes printed at start are what is used, and a thousand requests add nothing."""
import http.client
import json
import os
import re
import subprocess
import tempfile

from harness import DEMO, ROOT, Daemon, Skip, b64, equal, is_sanitized, require, test_image

MB = 1e6
# Beside what is printed the process measured 26 MB: program and libraries 5, tokenizer, thread stacks and scratch of the
# cpu backend, which is not in the sum. A second copy of the f32 weights of the demo model would be 26 MB more.
BASE_MB = 34
# Two sizes of the KV cache must differ in use as they differ in print, but for heap noise.
NOISE_MB = 3


def printed_mb(d):
    m = re.search(r"memory: weights ([\d.]+) MB \+ plug-ins ([\d.]+) MB \(.*\) \+ KV cache ([\d.]+) MB \((\d+) tokens\) \+ "
                  r"workspace ([\d.]+) MB = ([\d.]+) MB", d.log_text())
    require(m, "no memory line: " + d.log_text()[-300:])
    parts = [float(m.group(i)) for i in (1, 2, 3, 5)]
    require(abs(sum(parts) - float(m.group(6))) < 0.3, "the parts make the sum: " + m.group(0))
    return float(m.group(6)), float(m.group(3)), int(m.group(4))


def rounds(d, n, start=0):
    """Answers, pictures, refusals, streams: n requests over one connection."""
    c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=120)
    picture = b64(test_image())
    for i in range(start, start + n):
        path, body, expected = "/v1/vqa", {"question": "Hi?", "max_tokens": 1}, 200
        if i % 2:
            body, expected = {"question": "x", "image": b64(b"no picture" * 50)}, 400
        elif i % 20 == 0:
            body["image"] = picture
        elif i % 100 == 2:
            path, body = "/v1/draw", {"prompt": "Draw a chest X-ray.", "seed": i}
        elif i % 10 == 4:
            body["stream"] = True
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        equal(r.status, expected, "request %d" % i)
        r.read()
    c.close()


def check_peak_memory_is_what_was_printed(build):
    if is_sanitized(build):
        raise Skip("a sanitizer's shadow memory and quarantine are not ours")
    sizes = []
    for tokens in (16384, 49152):
        with Daemon(build, "--max-batch", "64", "--kv-tokens", str(tokens), "--dtype", "f32") as d:
            total, kv, got_tokens = printed_mb(d)
            equal(got_tokens, tokens, "tokens of the KV cache")
            rounds(d, 100)
            sizes.append((total, d.status_kb("VmHWM") * 1024 / MB))
    note = "printed %.1f MB, peak %.1f MB; printed %.1f MB, peak %.1f MB" % (sizes[0] + sizes[1])
    for total, peak in sizes:
        require(total <= peak <= total + BASE_MB, note)
    apart = abs((sizes[1][1] - sizes[0][1]) - (sizes[1][0] - sizes[0][0]))
    require(apart < NOISE_MB, "the KV caches differ by %.1f MB from what was printed: %s" % (apart, note))
    return note


def check_thousand_requests_do_not_grow_the_process(build):
    with Daemon(build) as d:  # under LeakSanitizer the exit code tells what was lost
        rounds(d, 200)
        before = d.status_kb("VmRSS")
        rounds(d, 100 if "thread" in build else 1000, 200)
        growth = d.status_kb("VmRSS") - before
        equal(d.wait_idle()["requests"]["failed"], 0, "failed")
        if is_sanitized(build):
            return "sanitized, the size is not judged"
        # 1 MiB: a leak of one event, body or picture per request would be 5 MB and more.
        require(growth < 1024, "grew by %d KiB" % growth)
    return "%d KiB after 1000 requests" % growth


def check_no_weight_file_is_resident_beside_what_was_packed(build):
    """A model of 170 MB: what was packed is given back at once, so the peak has no second copy."""
    if is_sanitized(build):
        raise Skip("a sanitizer's shadow memory and quarantine are not ours")
    with tempfile.TemporaryDirectory() as model:
        subprocess.run([os.path.join(ROOT, build, "random-model"), model, "6", "1024", "2816", "6000", "64"], check=True,
                       stdout=subprocess.DEVNULL)
        files = sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(model) for n in names) / MB
        with Daemon(build, "--model", model, "--backend", "cpu", "--max-batch", "4", "--kv-tokens", "1024") as d:
            total, peak = printed_mb(d)[0], d.status_kb("VmHWM") * 1024 / MB
    note = "files %.0f MB, printed %.1f MB, peak %.1f MB" % (files, total, peak)
    require(files > 120, note)
    # Its largest tensor has 12 MB, and is mapped while it is packed.
    require(peak < total + BASE_MB + 20, note)
    return note
