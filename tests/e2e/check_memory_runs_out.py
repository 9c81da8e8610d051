"""T-28: memory runs out in a daemon that is serving (tests/preload/fail_malloc.c). At every 7th allocation of each kind of
request one fails, then it and all later ones of that request: the daemon goes on, the next request is right, nothing
is left open."""
import http.client
import json
import mmap
import os
import struct
import tempfile
import threading
import time

from check_guard import NOBODY, Watch
from harness import ROOT, Daemon, Fail, Skip, b64, equal, is_sanitized, require, test_image

STEP = int(os.environ.get("HG_OOM_STEP", "7"))  # 1: every point, a minute
OUT_S = 0.05  # so long memory is out at most
SECONDS = 240 / STEP  # for all of it; what is left of a sweep then is told
FIELDS = ("armed", "k", "later_ones", "n_asked", "n_refused", "n_live")


class Control:
    """The struct that the preloaded library shares with us."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "control")
        with open(self.path, "w+b") as f:
            f.write(bytes(8 * len(FIELDS)))
            f.flush()
            self.map = mmap.mmap(f.fileno(), 8 * len(FIELDS))

    def get(self, name):
        return struct.unpack_from("q", self.map, 8 * FIELDS.index(name))[0]

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("q", self.map, 8 * FIELDS.index(name), value)

    def arm(self, k, later_ones):
        self.set(k=k, later_ones=later_ones, n_asked=0, n_refused=0)
        self.set(armed=1)

    def disarm(self):
        self.set(armed=0)


def form(parts):
    out = b"".join(b"--B\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n" % p for p in parts)
    return out + b"--B--\r\n", "multipart/form-data; boundary=B"


def as_json(value):
    return json.dumps(value).encode(), "application/json"


def requests():
    """Name, path, (body, type) and maybe an Idempotency-Key."""
    picture = test_image()
    uri = "data:image/png;base64," + b64(picture)
    ask = {"question": "What is shown?", "max_tokens": 3, "image": uri}
    return (
        ("vqa", "/v1/vqa", as_json(ask)),
        ("form", "/v1/vqa", form([(b"question", b"What is shown?"), (b"image", picture), (b"max_tokens", b"3")])),
        ("stream", "/v1/vqa", as_json(dict(ask, stream=True, top_logprobs=2))),
        ("draw stream", "/v1/draw", as_json({"prompt": "Draw a chest X-ray.", "seed": 1, "stream": True, "previews": 1})),
        ("chat stream", "/v1/chat/completions", as_json({
            "model": "healthgpt-demo", "max_tokens": 3, "stream": True, "logprobs": True, "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What is shown?"},
                                             {"type": "image_url", "image_url": {"url": uri}}]}]})),
        ("chat, 2 choices", "/v1/chat/completions", as_json({
            "model": "healthgpt-demo", "max_tokens": 3, "n": 2, "seed": 1, "temperature": 1,
            "messages": [{"role": "user", "content": "Hi?"}]})),
        ("images", "/v1/images/generations", as_json({"prompt": "Draw a chest X-ray.", "seed": 1})),
        ("edits", "/v1/images/edits", form([(b"prompt", b"Brighter."), (b"image", picture)])),
        # Its answer is kept by the first of these, so that memory runs out while it is given once more.
        ("kept edits", "/v1/images/edits", form([(b"prompt", b"Darker."), (b"image", picture)]) + ("kept",)),
        ("bad field", "/v1/vqa", as_json(dict(ask, temperature=9))),
        ("bad picture", "/v1/vqa", as_json(dict(ask, image=uri[:200]))),
        ("no route", "/v1/nothing", as_json({})),
    )


def send(d, path, body, kind, key=None):
    """Status and body; None for a connection that was closed before a whole answer was there."""
    c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=30)
    try:
        c.request("POST", path, body, dict({"Content-Type": kind}, **({"Idempotency-Key": key} if key else {})))
        r = c.getresponse()
        return r.status, r.read()
    except TimeoutError:
        raise Fail("neither an answer nor a close")
    except (http.client.HTTPException, OSError):
        return None
    finally:
        c.close()


def what_counts(answer):
    """Of an answer, what must be the same every time: no clocks, no numbers of requests, no padding."""
    status, data = answer
    kept = []
    for line in data.split(b"\n"):
        line = line[6:] if line.startswith(b"data: ") else line
        value = json.loads(line) if line.startswith(b"{") else {"end": line.decode()}
        for name in ("timings", "healthgpt", "id", "created", "usage", "obfuscation"):
            value.pop(name, None)
        if value.get("type") not in ("queued", "prefill", "progress"):
            kept.append(value)
    return status, kept


def require_fit(name, k, answer, right):
    """A failure is told or seen, never an answer that looks right and is not."""
    where = "%s, allocation %d" % (name, k)
    if answer is None:
        return "closed"
    status, data = answer
    if status == right[0] and data.endswith(b"\n"):
        lines = what_counts(answer)[1]
        if lines == right[1]:
            return "right"
        last = [x for x in lines if x != {"end": ""}]
        if status == 200 and last and "error" in last[-1]:
            equal(last[-1]["error"]["code"], "out_of_memory", where)
            return "error"
    require(status in (503, 500), "%s: %d %.300r" % (where, status, data))
    equal(json.loads(data)["error"]["code"], "out_of_memory", where)
    return "error"


def n_allocations(d, control, path, body):
    """Of a request that is left alone."""
    control.arm(0, 0)
    send(d, path, *body)
    control.disarm()
    return control.get("n_asked")


def send_short_of_memory(d, control, k, later_ones, path, body):
    """Without memory libmicrohttpd cannot poll, so nobody is answered before there is some again: OUT_S after the first
    allocation that failed."""
    answered = threading.Event()

    def give_back():
        while not answered.is_set() and control.get("n_refused") == 0:
            answered.wait(0.001)
        answered.wait(OUT_S)
        control.disarm()
    control.arm(k, later_ones)
    helper = threading.Thread(target=give_back)
    helper.start()
    try:
        return send(d, path, *body)
    finally:
        answered.set()
        helper.join()


def blocks_at_rest(control, watch):
    """Blocks of the heap with nobody there. The answer of /health is freed a moment after we have it: what holds for
    a tenth of a second counts."""
    watch.wait(lambda h: h["open"] == NOBODY)
    n, since = control.get("n_live"), time.monotonic()
    end = since + 10
    while time.monotonic() < min(end, since + 0.1):
        time.sleep(0.001)
        if control.get("n_live") != n:
            n, since = control.get("n_live"), time.monotonic()
    return n


def sweep(d, control, watch, until, case, later_ones, rights, usual):
    name, path, body = case
    counts, n_points = {}, 0
    n = max(n_allocations(d, control, path, body) for _ in range(3))
    for k in range(1, n + 1, STEP):
        where = "%s%s, allocation %d" % (name, "+" if later_ones else "", k)
        if time.monotonic() > until:
            return n_points, counts, False
        try:
            answer = send_short_of_memory(d, control, k, later_ones, path, body)
        except Fail as e:
            raise Fail("%s: %s; %r" % (where, e, watch.look()))
        require(d.process.poll() is None, "%s: the daemon has died: %s" % (where, d.log_text()[-1500:]))
        how = require_fit(name, k, answer, rights[name])
        h, _ = watch.wait(lambda h: dict(h["open"], working=0) == dict(NOBODY, working=0))
        equal(h["status"], "ok", where + ": health")
        again = send(d, *usual[1:2], *usual[2])
        require(again and what_counts(again) == rights[usual[0]], "%s: the next request: %.300r" % (where, again))
        if control.get("n_refused"):  # a run may get by with fewer
            n_points += 1
            counts[how] = counts.get(how, 0) + 1
    return n_points, counts, True


def check_memory_runs_out(build):
    library = os.path.join(ROOT, build, "preload", "fail_malloc.so")
    if is_sanitized(build):
        raise Skip("malloc belongs to the sanitizer")
    require(os.path.exists(library), "not built: " + library)
    notes, n_points = [], 0
    with tempfile.TemporaryDirectory() as folder:
        control = Control(folder)
        env = {"LD_PRELOAD": library, "HG_FAIL_CONTROL": control.path}
        with Daemon(build, "--canary-interval-s", "0", "--ping-s", "1", "--log-json", "--audit-log",
                    os.path.join(folder, "audit"), env=env) as d:
            watch = Watch(d)
            cases, until = requests(), time.monotonic() + SECONDS
            rights = {}
            for name, path, body in cases:
                for _ in range(2):  # the second time the caches are warm
                    answer = send(d, path, *body)
                require(answer, name)
                rights[name] = what_counts(answer)
            base = blocks_at_rest(control, watch)
            for case in cases:
                for later_ones in (0, 1):
                    n, counts, whole = sweep(d, control, watch, until, case, later_ones, rights, cases[0])
                    notes.append("%s%s: %d%s %s" % (case[0], "+" if later_ones else "", n, "" if whole else " (cut short)",
                                                    counts))
                    n_points += n
                    again = send(d, case[1], *case[2])
                    require(again and what_counts(again) == rights[case[0]], "%s: once more: %.300r" % (case[0], again))
            end = time.monotonic() + 30
            while blocks_at_rest(control, watch) != base and time.monotonic() < end:
                pass
            equal(blocks_at_rest(control, watch), base, "blocks of the heap after all that")
            watch.close()
    print("\n".join("      " + n for n in notes))
    return "%d points, one in %d; not a block of the heap was lost" % (n_points, STEP)
