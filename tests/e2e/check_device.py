"""Memory of the card, files that change while they are read, numbers that are not finite: what the programs say,
with which exit code, and who else notices. Cards are emulated (tests/simt)."""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from check_simt import needs_simt
from harness import DEMO, LOG_ALARMS, ROOT, Daemon, b64, cli_ok, equal, is_sanitized, require, require_error

CIRCLES = os.path.join(ROOT, "tests/data/demo/circles_3.png")
ABOUT = "Who are you?"


def run(build, program, *args, env=None, seconds=120):
    p = subprocess.run([os.path.join(ROOT, build, program)] + list(args), cwd=ROOT, env=dict(os.environ, **(env or {})),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds)
    err = p.stderr.decode("utf-8", "replace")
    require(not LOG_ALARMS.search(err), "sanitizer: " + err[-2000:])
    return p.returncode, p.stdout.decode(), err


# ---- memory of the card ----------------------------------------------------------------------------------

def ask_simt(build, megabytes, *args, env=None):
    return run(build, "healthgpt", "ask", "--backend", "simt", "--max-tokens", "1", "--verbose", ABOUT, *args,
               env=dict(env or {}, HG_SIMT_MEMORY=str(megabytes)))


def printed_pool(log):
    """Megabytes of: weights, plug-ins, KV cache, workspace, their sum; pool, used, free; and the tokens of the cache."""
    a = re.search(r"memory: weights ([\d.]+) MB \+ plug-ins ([\d.]+) MB \([\d.]+ comprehension, [\d.]+ generation\) \+ KV "
                  r"cache ([\d.]+) MB \((\d+) tokens\) \+ workspace ([\d.]+) MB = ([\d.]+) MB", log)
    b = re.search(r"memory: pool ([\d.]+) MB \(([\d.]+) of the card's free ([\d.]+) of ([\d.]+) MB\), ([\d.]+) MB used, "
                  r"([\d.]+) MB free", log)
    require(a and b, "no memory lines: " + log[-600:])
    parts, total = [float(a.group(i)) for i in (1, 2, 3, 5)], float(a.group(6))
    require(abs(sum(parts) - total) < 0.3, "the parts make the sum: " + a.group(0))
    pool, used, free = (float(b.group(i)) for i in (1, 5, 6))
    require(abs(total - used) < 0.2, "used %.1f MB, the parts make %.1f" % (used, total))
    require(abs(used + free - pool) < 0.2, b.group(0))
    return {"kv": parts[2], "tokens": int(a.group(4)), "pool": pool, "free": free, "share": float(b.group(2)),
            "card": float(b.group(4))}


def tight(build):
    """Megabytes of a card of which 0.90 is just too little for one context of the demo model."""
    code, _, err = ask_simt(build, 500, "--kv-tokens", "1024")
    equal(code, 0, "exit code: " + err[-400:])
    return int((printed_pool(err)["pool"] - printed_pool(err)["free"]) / 0.90)


def check_what_does_not_fit_is_refused_with_the_numbers(build):
    needs_simt(build)
    card = tight(build)
    code, _, err = ask_simt(build, card)
    equal(code, 75, "exit code: " + err[-400:])
    m = re.search(r"device memory: ([\d.]+) MB wanted \(weights ([\d.]+), workspace ([\d.]+), KV cache of one context "
                  r"([\d.]+)\), the pool has ([\d.]+) MB: 0\.90 of %d\.0 MB that were free of the card's %d\.0 MB\. Raise "
                  r"--gpu-memory-utilization, or lower --dtype, --max-batch, --kv-dtype" % (card, card), err)
    require(m, err[-500:])
    want, have = float(m.group(1)), float(m.group(5))
    require(abs(sum(float(m.group(i)) for i in (2, 3, 4)) - want) < 0.3, m.group(0))
    require(want > have, m.group(0))
    # What it says is so: the share that gives what is wanted is enough, in the flag and in the environment.
    enough = "%.3f" % (want / card + 0.003)
    for args, env in ((("--gpu-memory-utilization", enough), {}), ((), {"HEALTHGPT_GPU_MEMORY_UTILIZATION": enough})):
        code, _, err = ask_simt(build, card, *args, env=env)
        equal(code, 0, "with %s: %s" % (enough, err[-400:]))
        equal(printed_pool(err)["tokens"], 1024, "tokens of the cache")
    return m.group(0)[:100]


def check_every_smaller_card_is_refused_in_its_own_way(build):
    """Before weights are read ("at least"), while they are, while the workspace is taken: always with what to do."""
    needs_simt(build)
    seen = {}
    for card in range(tight(build), 0, -4):
        code, _, err = ask_simt(build, card)
        equal(code, 75, "exit code with %d MB: %s" % (card, err[-400:]))
        require("Raise --gpu-memory-utilization" in err and "%.1f" % card in err, err[-400:])
        kind = "at least" if "at least" in err else "bytes" if "bytes wanted" in err else "MB"
        seen[kind] = seen.get(kind, 0) + 1
    equal(sorted(seen), ["MB", "at least", "bytes"], "kinds of refusals")
    code, _, err = ask_simt(build, tight(build) + 5, "--kv-tokens", "65536")
    equal(code, 75, "exit code: " + err[-300:])
    require("KV cache of 65536 tokens" in err, err[-400:])
    return "%r" % seen


def check_shares_that_make_no_sense_are_refused(build):
    needs_simt(build)
    code, _, err = ask_simt(build, 100, env={"HEALTHGPT_GPU_MEMORY_UTILIZATION": "ninety"})
    equal(code, 64, "exit code: " + err[-300:])
    require("expected a share in 0.01..1, got ninety" in err, err[-300:])
    code, _, err = ask_simt(build, 100, "--gpu-memory-utilization", "1.5")
    equal(code, 64, "exit code: " + err[-300:])
    code, _, err = run(build, "healthgptd", "--gpu-memory-utilization", "7")
    equal(code, 64, "exit code: " + err[-300:])
    require('--gpu-memory-utilization: expected a number in 0.01..1, got "7"' in err, err[-300:])


def check_the_cache_takes_what_is_left(build):
    """Less than a context for each of 16 sequences fits: the cache fills the pool. With room for all it stops there."""
    needs_simt(build)
    notes, taken = [], tight(build) * 0.90  # with one context, which has 3 MB
    for room, share in ((20, 0.80), (120, 0.90)):
        card = int((taken + room) / share)
        with Daemon(build, "--backend", "simt", "--gpu-memory-utilization", str(share),
                    env={"HG_SIMT_MEMORY": str(card)}) as d:
            p = printed_pool(d.log_text())
        require(abs(p["share"] - share) < 0.005 and p["card"] == card, "%r" % p)
        if room == 120:
            equal(p["tokens"], 16 * 1024, "tokens: one context per sequence")
        else:
            require(1024 <= p["tokens"] < 16 * 1024, "%r" % p)
            require(p["free"] < 0.02 * p["pool"], "the pool is not filled: %r" % p)
        notes.append("%d MB card: %d tokens, %.1f of %.1f MB free" % (card, p["tokens"], p["free"], p["pool"]))
    return "; ".join(notes)


# ---- a device that is lost ------------------------------------------------------------------------------

def check_lost_device_flips_readiness_and_ends_a_stream(build):
    """The stream gets its error, /health says so with 503, new work is refused; the driver, which would not return from
    another call ("!"), is not called again; exit code 71."""
    needs_simt(build)
    seen = 0
    for attempt in range(4):
        with Daemon(build, "--backend", "simt", env={"HG_SIMT_FAULT": "launch:400!"}) as d:
            c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=60)
            c.connect()
            lines, _ = d.stream("/v1/vqa", {"question": ABOUT})
            require("error" in lines[-1] and lines[-1]["error"]["code"] == "device_error", "%r" % lines[-1])
            require(len(lines) > 2, "the device was lost before the first token")
            try:  # the daemon ends half a second later at most
                status, _, data = d.request("GET", "/health")
                equal(status, 503, "/health")
                equal(json.loads(data)["status"], "device_lost", "status")
                status, _, reply = d.post("/v1/vqa", {"question": ABOUT})
                equal(status, 503, "a request afterwards: %r" % reply)
                seen += 1
            except (ConnectionError, http.client.HTTPException, OSError):
                pass
            c.close()
            equal(d.process.wait(timeout=30), 71, "exit code: " + d.log_text()[-300:])
            d.ended = True
        if seen:
            return "seen at attempt %d, after %d tokens" % (attempt + 1, len(lines) - 2)
    require(False, "/health was never reached")


def check_lost_device_is_71_while_loading_and_later(build):
    needs_simt(build)
    for fault in ("copy:50!", "event:9!", "sync:1!", "launch:60!", "taken"):
        code, _, err = run(build, "healthgpt", "ask", "--backend", "simt", ABOUT, env={"HG_SIMT_FAULT": fault})
        equal(code, 71, "exit code with %s: %s" % (fault, err[-400:]))


def check_kernels_for_another_card_are_explained(build):
    needs_simt(build)
    for fault, words in (("image", ("no kernels for", "sm_90", "CUDA_ARCHS")), ("arch", ("capability 7.5", "8.0"))):
        code, _, err = run(build, "healthgpt", "ask", "--backend", "simt", ABOUT, env={"HG_SIMT_FAULT": fault})
        equal(code, 69, "exit code: " + err[-300:])
        for word in words:
            require(word in err, "%s: %s" % (word, err[-300:]))


# ---- files that change ------------------------------------------------------------------------------------

def maps(pid):
    try:
        with open("/proc/%d/maps" % pid) as f:
            return f.read()
    except OSError:
        return ""


def cut_while_loading(build, program, *args):
    """Stop the program when it has mapped the file that it reads last, cut that file, let it go on."""
    with tempfile.TemporaryDirectory() as top:
        model = os.path.join(top, "model")
        shutil.copytree(DEMO, model)
        path = os.path.join(model, "vqgan", "last.ckpt")
        p = subprocess.Popen([os.path.join(ROOT, build, program)] + list(args) + ["--model", model], cwd=ROOT,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while "vqgan/last.ckpt" not in maps(p.pid) and p.poll() is None and time.monotonic() < end:
            pass
        p.send_signal(signal.SIGSTOP)
        os.truncate(path, 4096)
        p.send_signal(signal.SIGCONT)
        try:
            _, err = p.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            return None, ""  # a daemon that had read everything before
        return p.returncode, err.decode("utf-8", "replace")


def check_file_cut_while_it_is_read_is_named(build):
    notes = []
    for program, args in (("healthgpt", ("ask", "--backend", "cpu", ABOUT)),
                          ("healthgptd", ("--backend", "cpu", "--listen", "127.0.0.1:0", "--ops-listen", ""))):
        for attempt in range(10):  # it may have read the file, or not yet its header, when it is stopped
            code, err = cut_while_loading(build, program, *args)
            if code == 65 and "was cut" in err:
                break
        equal(code, 65, "%s: exit code: %s" % (program, err[-400:]))
        m = re.search(r"^%s: vqgan/last\.ckpt: was cut or damaged while it was being read: no byte at (\d+) of the (\d+) "
                      r"that it had$" % program, err, re.M)
        require(m, err[-400:])
        equal(int(m.group(2)), os.path.getsize(os.path.join(DEMO, "vqgan", "last.ckpt")), "size")
        require(4096 <= int(m.group(1)) < int(m.group(2)), m.group(0))
        notes.append("%s at attempt %d" % (program, attempt + 1))
    return "; ".join(notes)


# ---- numbers that are not finite ---------------------------------------------------------------------------

def answer_ids(build, question, *args):
    reply = json.loads(cli_ok(build, "ask", question, "--top-logprobs", "1", "--json", "--backend", "cpu", *args))
    return [t[0]["id"] for t in reply["top_logprobs"]], reply["text"]


def copy_of_demo(top):
    model = os.path.join(top, "model")
    shutil.copytree(DEMO, model)
    os.remove(os.path.join(model, "canary.json"))  # it knows the checksum
    return model


def tensor_in(f, name):
    """Of a safetensors file: the tensor's entry, and where its F16 values begin."""
    n = struct.unpack("<Q", f.read(8))[0]
    t = json.loads(f.read(n))[name]
    equal(t["dtype"], "F16", "type of " + name)
    return t, 8 + n + t["data_offsets"][0]


def model_with_nan(top, token):
    """The demo model, the embedding row of one token filled with NaN."""
    model = copy_of_demo(top)
    with open(os.path.join(model, "llm", "model.safetensors"), "r+b") as f:
        t, at = tensor_in(f, "model.embed_tokens.weight")
        f.seek(at + token * t["shape"][1] * 2)
        f.write(b"\x00\x7e" * t["shape"][1])
    return model


def check_nan_in_one_answer_is_an_error_there_only(build):
    """NaN enters with the sixth token of one answer; the other requests, before, beside and behind, do not notice."""
    with open(CIRCLES, "rb") as f:
        other = {"question": "How many circles are there?", "image": b64(f.read()), "seed": 1}
    ids, _ = answer_ids(build, ABOUT)
    other_ids, other_text = answer_ids(build, other["question"], "--image", CIRCLES)
    at = next(i for i in range(5, len(ids)) if ids[i] not in ids[:i] and ids[i] not in other_ids)
    backends = ["cpu"] if is_sanitized(build) or not os.path.exists(os.path.join(ROOT, build, "libhealthgpt_simt.so")) \
        else ["cpu", "simt"]
    with tempfile.TemporaryDirectory() as top:
        model = model_with_nan(top, ids[at])
        for backend in backends:
            # room for two sequences: blocks and slots of the failed ones must serve the next
            with Daemon(build, "--backend", backend, "--model", model, "--max-batch", "2", "--kv-tokens", "512",
                        program="healthgptd-faults", env={"HG_FAULT": "any_values"}) as d:
                rounds = 1 if backend == "simt" else 2
                for _ in range(rounds):
                    with concurrent.futures.ThreadPoolExecutor(2) as pool:
                        good = pool.submit(d.post_ok, "/v1/vqa", other)
                        lines, _ = d.stream("/v1/vqa", {"question": ABOUT})
                        equal(good.result()["text"], other_text, backend + ": the neighbour")
                    equal(lines[-1]["error"]["code"], "numeric_fault", "%s: last line %r" % (backend, lines[-1]))
                    equal([line["type"] for line in lines[:-1]], ["queued", "prefill", "prefill"] + ["token"] * (at + 1),
                          backend + ": lines before the error")
                    status, _, reply = d.post("/v1/vqa", {"question": ABOUT})
                    require_error(status, reply, 500, "numeric_fault")
                    require("not finite" in reply["error"]["message"], "%r" % reply)
                h = d.wait_idle()
                equal((h["status"], h["requests"]["done"], h["requests"]["failed"]), ("ok", rounds, 2 * rounds), "health")
    return "on " + ", ".join(backends)


def check_nan_ends_the_command_with_70(build):
    """A NaN in a file is refused at load (check_weights_dir). Finite weights whose keys do not fit the f16 cache are not."""
    with tempfile.TemporaryDirectory() as top:
        model = copy_of_demo(top)
        with open(os.path.join(model, "llm", "model.safetensors"), "r+b") as f:
            t, at = tensor_in(f, "model.layers.0.self_attn.qkv_proj.weight")
            f.seek(at)
            f.write(b"\xff\x7b" * (t["shape"][0] * t["shape"][1]))  # 65504
        code, _, err = run(build, "healthgpt", "ask", "--backend", "cpu", "--model", model, ABOUT)
    equal(code, 70, "exit code: " + err[-300:])
    require("not finite" in err, err[-300:])
