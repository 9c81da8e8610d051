"""Rates of an API key, and of those who have none. What they hold to is tested in virtual time: tests/server/test_rate.c.

The machine may be slow, so that buckets fill while they are emptied: requests are sent until one is refused."""
import json
import signal
import time

from check_keys import KeyFile, ask, ask_ok, auth, entry
from harness import Daemon, equal, require, require_error

CHEAP = {"question": "Hi?", "max_tokens": 1}


def until_refused(d, name, body, most=400):
    """Answers that were let in, and the refusal."""
    for n in range(most):
        status, headers, reply = ask(d, name, body)
        if status != 200:
            return n, status, headers, reply
    require(False, "%d requests and no refusal" % most)


def wait_as_told(headers, most):
    seconds = int(headers["Retry-After"])
    require(1 <= seconds <= most, "Retry-After: %d" % seconds)
    time.sleep(seconds)  # what the client was told is what is tested


def check_requests_per_minute(build):
    with KeyFile(entry("a", requests_per_minute=30, burst=4), entry("b")) as f, Daemon(build, "--api-keys", f.path) as d:
        status, headers, _ = ask(d, "a", CHEAP)
        equal((status, headers["x-ratelimit-limit-requests"]), (200, "30"), "headers of the first answer")
        require(headers["x-ratelimit-remaining-requests"] in ("3", "4"), "%r" % headers)
        require(headers["x-ratelimit-reset-requests"].endswith("s"), "%r" % headers)
        require("x-ratelimit-limit-tokens" not in headers, "there is no limit of tokens")
        n, status, headers, reply = until_refused(d, "a", CHEAP)
        require(n >= 3, "only %d of a burst were let in" % n)
        require_error(status, reply, 429, "rate_limit_exceeded")
        require("30 requests per minute, 4 at once" in reply["error"]["message"], reply["error"]["message"])
        require(headers["x-ratelimit-remaining-requests"] in ("0", "1"), "%r" % headers)
        equal(d.request("GET", "/v1/models", headers=auth("a"))[0], 200, "a GET is not counted")
        _, headers_b, _ = ask(d, "b", CHEAP)
        equal([h for h in headers_b if h.lower().startswith("x-ratelimit")], [], "a key without rates")
        wait_as_told(headers, 2)
        ask_ok(d, "a", CHEAP)
        # A new key file does not fill anything.
        until_refused(d, "a", CHEAP)
        f.write(json.dumps({"keys": [entry("a", requests_per_minute=1, burst=4)]}))
        before = d.log_text().count("SIGHUP: 1 API keys")
        d.process.send_signal(signal.SIGHUP)
        while d.log_text().count("SIGHUP: 1 API keys") == before:
            time.sleep(0.005)
        status, headers, reply = ask(d, "a", CHEAP)
        require_error(status, reply, 429, "rate_limit_exceeded")
        require(1 <= int(headers["Retry-After"]) <= 60, "Retry-After: %s" % headers["Retry-After"])
    return "%d let in at first" % (n + 1)


def check_tokens_per_minute(build):
    """The most that a request can cost is taken, and what it did not cost is given back."""
    limit = 120
    with KeyFile(entry("a", tokens_per_minute=limit)) as f, Daemon(build, "--api-keys", f.path) as d:
        def left():
            return int(d.request("GET", "/v1/models", headers=auth("a"))[1]["x-ratelimit-remaining-tokens"])

        start = time.monotonic()
        equal(left(), limit, "at first")
        status, headers, reply = ask(d, "a", dict(CHEAP, max_tokens=60))
        equal(status, 200, reply)
        usage = reply["usage"]
        used = usage["prompt_tokens"] + usage["completion_tokens"]
        require(used < usage["prompt_tokens"] + 60, "the answer is short: %r" % usage)
        require(int(headers["x-ratelimit-remaining-tokens"]) <= limit - usage["prompt_tokens"] - 60 +
                (time.monotonic() - start) * limit / 60 + 1, "taken: %r" % headers)
        end = time.monotonic() + 60
        while left() < limit - used - 2:  # settled behind the answer
            require(time.monotonic() < end, "not given back: %d left" % left())
        require(left() <= min(limit, limit - used + 2 + (time.monotonic() - start) * limit / 60 + 1), "%d left" % left())
        n, status, headers, reply = until_refused(d, "a", CHEAP)
        require_error(status, reply, 429, "rate_limit_exceeded")
        require("120 tokens per minute" in reply["error"]["message"], reply["error"]["message"])
        wait_as_told(headers, 60)
        ask_ok(d, "a", CHEAP)
    return "%d requests, then %s s" % (n + 1, headers["Retry-After"])


def check_failures_without_a_key_have_a_budget(build):
    with KeyFile(entry("a")) as f, Daemon(build, "--api-keys", f.path, "--auth-failures-per-minute", "12") as d:
        seen = []
        while not seen or seen[-1] == 401:
            require(len(seen) < 400, "no end of 401")
            name = "guess-%d" % len(seen)
            status, headers, reply = ask(d, name, CHEAP) if len(seen) % 2 else ask(d, "", CHEAP)
            seen.append(status)
        require(len(seen) > 12, "refused after %d" % len(seen))
        require_error(status, reply, 429, "too_many_auth_failures")
        require(1 <= int(headers["Retry-After"]) <= 5, "Retry-After: %s" % headers["Retry-After"])
        ask_ok(d, "a", CHEAP)  # who has a key is not kept out by those who have not
        equal(d.request("GET", "/health")[0], 200, "/health")
    return "%d times 401" % (len(seen) - 1)
