"""GET /metrics: both formats, and that the figures are those of what was done."""
import json
import os
import re
import socket
import time

from check_connections import SLOW, connect, draw, read_until
from harness import b64, equal, require, test_image
from opstool import OpsDaemon, parse, until, value

# vllm/v1/metrics/loggers.py
BUCKETS = {
    "vllm:time_to_first_token_seconds": (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
                                         40, 80, 160, 640, 2560),
    "vllm:inter_token_latency_seconds": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
    "vllm:e2e_request_latency_seconds": (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680),
    "vllm:iteration_tokens_total": (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
}
# Every name of ecosystem.md 3.6: three vLLM dashboards, the KEDA trigger, the endpoint picker.
ALIASES = """num_requests_running num_requests_waiting kv_cache_usage_perc lora_requests_info cache_config_info prompt_tokens_total
generation_tokens_total request_success_total time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket
e2e_request_latency_seconds_bucket request_queue_time_seconds_bucket request_prefill_time_seconds_bucket
request_decode_time_seconds_bucket request_inference_time_seconds_bucket request_prompt_tokens_bucket
request_generation_tokens_bucket request_max_num_generation_tokens_bucket iteration_tokens_total_bucket num_preemptions_total
prefix_cache_queries_total prefix_cache_hits_total""".split()
ASK, DRAW = "/v1/vqa", "/v1/draw"


def check_both_formats_hold_the_same(build):
    with OpsDaemon(build) as d:
        d.post_ok(ASK, {"question": "Who are you?", "max_tokens": 3})
        pages = []
        for accept, kind in (({}, "text/plain; version=0.0.4; charset=utf-8"),
                             ({"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"},
                              "application/openmetrics-text; version=1.0.0; charset=utf-8")):
            code, headers, body = d.ops("/metrics", accept)
            equal((code, headers["Content-Type"]), (200, kind), "type")
            pages.append(parse(body.decode(), bool(accept)))
        changing = re.compile("process_|healthgpt_connections")
        a, b = ({k: v for k, v in p.items() if not changing.match(k[0])} for p in pages)
        equal(sorted(a), sorted(b), "samples")
        equal([k for k in a if a[k] != b[k]], [], "values that differ")
        return "%d samples, %d bytes" % (len(a), len(body))


def check_every_alias_is_there_with_the_labels_of_vllm(build):
    with OpsDaemon(build) as d:
        page = d.metrics()
        for name in ALIASES:
            own = {} if name == "lora_requests_info" else {"model_name": "healthgpt-demo", "engine": "0"}
            value(page, "vllm:" + name, **own)
        for family, bounds in BUCKETS.items():
            got = sorted(float(dict(labels)["le"]) for name, labels in page if name == family + "_bucket")
            equal(got, list(bounds) + [float("inf")], "bounds of " + family)
        equal(value(page, "vllm:cache_config_info", block_size="16", num_gpu_blocks="1024"), 1, "cache_config_info")
        for reason in ("stop", "length", "abort", "error"):
            equal(value(page, "vllm:request_success_total", finished_reason=reason), 0, reason)


def check_counts_are_those_of_the_work(build):
    """Against what the answers say of themselves."""
    with OpsDaemon(build) as d:
        image = b64(test_image(3))
        asks = [d.post_ok(ASK, {"question": "Describe the image.", "image": image, "max_tokens": n}) for n in (3, 12, 12)]
        drawn = [d.post_ok(DRAW, {"prompt": "Draw a chest X-ray.", "seed": 5})]
        lines, _ = d.stream(DRAW, {"prompt": "Draw a chest X-ray.", "seed": 6, "previews": 3})
        drawn.append(lines[-1])
        previews = sum(line["type"] == "preview" for line in lines)
        require(previews > 0, "previews: %r" % [line["type"] for line in lines][:9])
        for path, body in ((ASK, {"question": 3}), ("/v1/nonsense", {}), ("/v1/more-nonsense", {})):
            d.post(path, body)
        # An exchange is counted when it is over, a moment after its last byte was sent.
        until(lambda: value(d.metrics(), "healthgpt_requests_total") == 8, "eight exchanges")
        page = d.metrics()
        usage = [r["usage"] for r in asks + drawn]
        prompt, generated = (sum(u[k] for u in usage) for k in ("prompt_tokens", "completion_tokens"))
        texts = sum(r["usage"]["completion_tokens"] for r in asks)
        cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usage)
        expected = [
            (prompt, "vllm:prompt_tokens_total", {}), (generated, "vllm:generation_tokens_total", {}),
            (prompt, "vllm:prefix_cache_queries_total", {}), (cached, "vllm:prefix_cache_hits_total", {}),
            (cached, "healthgpt_cached_tokens_total", {}),
            (texts, "healthgpt_tokens_total", {"plugin": "comprehension", "kind": "text"}),
            (generated - texts, "healthgpt_tokens_total", {"plugin": "generation", "kind": "image"}),
            (5, "vllm:e2e_request_latency_seconds_count", {}), (5, "vllm:time_to_first_token_seconds_count", {}),
            (generated, "vllm:request_generation_tokens_sum", {}), (prompt, "vllm:request_prompt_tokens_sum", {}),
            (sum(r["finish_reason"] == "length" for r in asks), "vllm:request_success_total", {"finished_reason": "length"}),
            (5, "vllm:request_success_total", {}),
            (3, "healthgpt_images_seen_total", {}), (2, "healthgpt_images_drawn_total", {}), (2, "healthgpt_image_seconds_count", {}),
            (previews, "healthgpt_previews_total", {}),
            (3, "healthgpt_requests_total", {"route": ASK, "code": "200"}), (1, "healthgpt_requests_total", {"route": ASK, "code": "400"}),
            (2, "healthgpt_requests_total", {"route": DRAW, "code": "200"}), (2, "healthgpt_requests_total", {"route": "other", "code": "404"}),
            (3, "healthgpt_rejected_total", {}), (2, "healthgpt_queue_seconds_count", {"plugin": "generation"}),
            (3, "healthgpt_first_token_seconds_count", {"plugin": "comprehension"}),
            (0, "healthgpt_numeric_faults_total", {}), (0, "healthgpt_preemptions_total", {}),
        ]
        wrong = [(name, labels, want, value(page, name, **labels)) for want, name, labels in expected
                 if value(page, name, **labels) != want]
        equal(wrong, [], "name, labels, expected, got")
        require(cached > 0, "nothing was found in the cache")
        steps = value(page, "healthgpt_steps_total")
        equal(steps, value(page, "vllm:iteration_tokens_total_count"), "steps")
        require(value(page, "healthgpt_step_sequences_total") >= steps, "sequences of steps")
        spent = sum(r["timings"]["total_ms"] for r in asks + drawn) / 1e3
        got = value(page, "vllm:e2e_request_latency_seconds_sum")
        require(abs(got - spent) < 1e-4, "seconds: %r, of the answers %r" % (got, spent))
        return "%d prompt and %d generated tokens of 5 requests" % (prompt, generated)


def check_counters_only_grow(build):
    """And nothing that a client sends becomes a label."""
    with OpsDaemon(build) as d:
        before = d.metrics()
        secret = "SECRET-7f3a"
        d.post(ASK, {"question": secret, "system": secret, "max_tokens": 2})
        d.request("GET", "/" + secret, headers={"X-Request-Id": secret, "Authorization": "Bearer " + secret, "User-Agent": secret})
        text = d.ops("/metrics")[2].decode()
        require(secret not in text, "a client's text")
        after = parse(text)
        for key, v in before.items():
            if re.search("_total|_bucket|_count|_sum", key[0]):
                require(after[key] >= v, "%r: %r, then %r" % (key, v, after[key]))
        equal(sorted(k for k in after if k not in before and k[0] != "healthgpt_requests_total"), [], "new series")


def check_running_plugins_are_named(build):
    with OpsDaemon(build, *SLOW) as d:
        def adapters(page):
            found = [(dict(labels), v) for (name, labels), v in page.items() if name == "vllm:lora_requests_info"]
            equal(len(found), 1, "series")
            return found[0][0]["running_lora_adapters"], found[0][0]["waiting_lora_adapters"], found[0][1]
        start = time.time()
        quiet = adapters(d.metrics())
        equal(quiet[:2], ("", ""), "when idle")
        streams = [connect(d, draw(i)) for i in range(2)]
        busy = until(lambda: [a for a in [adapters(d.metrics())] if a[:2] == ("generation", "generation")], "one runs, one waits")[0]
        require(quiet[2] <= busy[2] and start - 60 < busy[2] < time.time() + 60, "times: %r %r" % (quiet, busy))
        equal(adapters(d.metrics())[2], busy[2], "the time without a change")
        for s in streams:
            s.close()
        until(lambda: adapters(d.metrics())[:2] == ("", ""), "idle again")
        page = d.metrics()
        equal(value(page, "healthgpt_client_disconnects_total"), 2, "clients that left")
        equal(value(page, "vllm:request_success_total", finished_reason="abort"), 2, "aborted")


def check_cuts_are_counted(build):
    with OpsDaemon(build, "--header-timeout-s", "1") as d:
        s = connect(d, b"GET /hea")
        until(lambda: value(d.metrics(), "healthgpt_connections_cut_total", reason="slow_header") == 1, "the cut")
        s.close()


def check_process_figures_are_those_of_the_kernel(build):
    with OpsDaemon(build) as d:
        page = d.metrics()
        rss = d.status_kb("VmRSS") * 1024
        require(0.5 * rss < value(page, "process_resident_memory_bytes") < 2 * rss, "resident: %r" % rss)
        files = len(os.listdir("/proc/%d/fd" % d.process.pid))
        require(abs(value(page, "process_open_fds") - files) <= 3, "descriptors: %d, %r" % (files, value(page, "process_open_fds")))
        require(abs(value(page, "process_start_time_seconds") - time.time()) < 120, "start")
        require(value(page, "process_cpu_seconds_total") > 0, "cpu")
        require(value(page, "process_max_fds") >= 1024, "most descriptors")


def check_a_scraper_that_stays_is_served(build):
    """Many scrapes over one connection while requests run; every page is whole."""
    with OpsDaemon(build) as d:
        s = connect(d, draw(1))
        with socket.create_connection(("127.0.0.1", d.ops_port), 60) as c:
            f = c.makefile("rb")
            for _ in range(50):
                c.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = {}
                equal(f.readline(), b"HTTP/1.1 200 OK\r\n", "status")
                for line in iter(f.readline, b"\r\n"):
                    name, _, text = line.decode().partition(": ")
                    head[name.lower()] = text.strip()
                parse(f.read(int(head["content-length"])).decode())
        require(b'"type":"done"' in read_until(s, lambda g: b'"type":"done"' in g), "the stream")
        s.close()
        equal(json.loads(d.request("GET", "/health")[2])["status"], "ok", "health")
