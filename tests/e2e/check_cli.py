"""The command line: ask, draw, batch, tokenize, inspect, usage."""
import base64
import json
import os
import re
import struct
import shutil
import tempfile
import xml.dom.minidom

from harness import (DEMO, SHARED, Daemon, Skip, cli, cli_ok, edit_json, equal, png_texts, require, require_synthetic,
                     test_image)


def image_file(folder, seed=0):
    path = os.path.join(folder, "in%d.png" % seed)
    with open(path, "wb") as f:
        f.write(test_image(seed))
    return path


def check_help_and_version_of_both_programs(build):
    out = cli_ok(build, "--help")
    for command in ("ask", "draw", "batch", "inspect", "tokenize", "detokenize", "bench"):
        require(command in out, "--help names " + command)
        text = cli_ok(build, command, "--help")
        require("usage: healthgpt " + command in text, command + " --help")
        equal(cli_ok(build, command, "-h"), text, command + " -h")
        equal(cli_ok(build, "help", command), text, "help " + command)
        require(not re.search(r"[ \t]\n", text), "no blank ends a line of %s --help" % command)
    equal(cli_ok(build, "-h"), out, "-h")
    require(cli_ok(build, "--version").startswith("healthgpt "), "--version")


def check_usage_errors_exit_64(build):
    for args in ([], ["nonsense"], ["ask"], ["ask", ""], ["ask", "a", "b"], ["ask", "--bogus", "q"],
                 ["ask", "q", "--seed"], ["ask", "q", "--temperature", "3"], ["ask", "q", "--seed", "x"],
                 ["ask", "q", "--json=1"], ["draw"], ["inspect"], ["ask", "q", "--image"], ["help", "nonsense"],
                 ["tokenize", "--json-lines", "x"], ["detokenize", "--json-lines", "1"]):
        code, out, err = cli(build, *args)
        equal(code, 64, "%r: %s" % (args, err))
        require(err and not out, "%r: message on stderr only" % args)


def check_ask_streams_an_answer_and_repeats_it(build):
    with tempfile.TemporaryDirectory() as d:
        args = ["ask", "--image", image_file(d), "What is shown?", "--max-tokens", "6"]
        first = cli_ok(build, *args)
        require(first.endswith("\n"), "the answer ends the line")
        equal(cli_ok(build, *args), first, "greedy answers are the same")
        reply = json.loads(cli_ok(build, *args, "--json", "--top-logprobs", "3"))
        equal(reply["text"] + "\n", first, "--json text")
        require(all(len(t) == 3 for t in reply["top_logprobs"]), "three alternatives each")
        best = [t[0]["logprob"] >= t[1]["logprob"] >= t[2]["logprob"] for t in reply["top_logprobs"]]
        require(all(best), "alternatives are sorted")


def check_sampling_depends_on_the_seed_only(build):
    texts = [json.loads(cli_ok(build, "ask", "Say something.", "--max-tokens", "12", "--temperature", "1.5",
                               "--seed", s, "--json"))["text"] for s in ("1", "1", "2")]
    equal(texts[0], texts[1], "same seed")
    require(texts[0] != texts[2], "another seed gives another text")


def check_draw_writes_a_marked_png(build):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "x.png")
        args = ["draw", "Draw a chest X-ray with pneumonia.", "-o", path, "--seed", "5"]
        equal(cli_ok(build, *args).strip(), path, "the path is printed")
        with open(path, "rb") as f:
            first = f.read()
        require_synthetic(first)
        reply = json.loads(cli_ok(build, *args, "--json"))
        with open(path, "rb") as f:
            equal(f.read(), first, "the same seed draws the same bytes")
        equal(reply["temperature"], 0.9, "text alone is sampled")
        equal(len(reply["indices"]) * 64, reply["width"] * reply["height"], "one index per 8x8 pixels")
        recon = json.loads(cli_ok(build, "draw", "--image", image_file(d), "Reconstruct the image.", "-o",
                                  path, "--json"))
        equal(recon["temperature"], 0, "with an image it is greedy")
        png_texts(open(path, "rb").read())


def check_output_that_cannot_be_written_is_an_error(build):
    code, _, err = cli(build, "draw", "Draw a chest X-ray.", "-o", "/nonexistent-folder/x.png")
    require(code not in (0, 64), "exit %d" % code)
    require("/nonexistent-folder" in err, "the message names the path: " + err)


def batch(build, lines, *args):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    out = cli_ok(build, "batch", *args, stdin=text.encode())
    return [json.loads(line) for line in out.splitlines()]


def check_batch_answers_in_order_and_like_single_requests(build):
    with tempfile.TemporaryDirectory() as d:
        lines = []
        for i in range(6):
            lines.append({"id": "a%d" % i, "task": "ask", "images": [image_file(d, i)], "max_tokens": 5 + i,
                          "question": "Question %d?" % i, "top_logprobs": 2, "temperature": 0})
            lines.append({"id": i, "task": "draw", "images": [], "question": "Draw a chest X-ray.",
                          "seed": i, "temperature": 0.9, "output": os.path.join(d, "o%d.png" % i)})
        together = batch(build, lines)
        pictures = [open(os.path.join(d, "o%d.png" % i), "rb").read() for i in range(6)]
        equal([r["id"] for r in together], [line["id"] for line in lines], "order")
        alone = batch(build, lines, "--max-batch", "1")
        equal(together, alone, "the same answers whatever runs beside them")
        for i in range(6):
            equal(open(os.path.join(d, "o%d.png" % i), "rb").read(), pictures[i], "the same pictures")
        for reply, line in zip(together, lines):
            if "text" in reply:
                require(len(reply["ids"]) <= line["max_tokens"], "max_tokens")
                equal(len(reply["top_logprobs"]), len(reply["ids"]), "alternatives for each token")
                require(reply["finish"] in ("stop", "length"), "finish")
        one = json.loads(cli_ok(build, "ask", "--image", lines[0]["images"][0], "Question 0?", "--max-tokens",
                                "5", "--json"))
        equal(one["text"], together[0]["text"], "ask gives what batch gives")
        return "12 requests, batch 16 = batch 1"


def check_batch_goes_on_after_bad_lines(build):
    lines = [{"id": 1, "question": "Hello?", "max_tokens": 2}, "not json", "[]",
             {"id": 2, "question": ""}, {"id": 3, "question": "x", "bogus": 1},
             {"id": 4, "question": "x", "images": ["/nonexistent.png"]}, {"id": 5, "task": "sing", "question": "x"},
             {"id": {"k": [1]}, "question": "x", "max_tokens": -1}, {"id": 6}, "",
             {"id": 7, "question": "Hello?", "max_tokens": 2, "plugin": "none"}]
    out = batch(build, lines)
    equal([r["id"] for r in out], [1, None, None, 2, 3, 4, 5, {"k": [1]}, 6, 7], "ids")
    equal(["error" in r for r in out], [False] + [True] * 8 + [False], "errors")
    require(all(r["error"]["message"] for r in out if "error" in r), "messages")


def check_tokenize_and_back(build):
    texts = ["Is there pneumonia?", "a  b", "Lesion size: 3.5 cm", "\u00e9\u4e2d \U0001f600", "line\nbreak\ttab"]
    stdin = "".join(json.dumps(t) + "\n" for t in texts).encode()
    ids = cli_ok(build, "tokenize", "--json-lines", stdin=stdin)
    back = cli_ok(build, "detokenize", "--json-lines", stdin=ids.encode())
    equal([json.loads(line) for line in back.splitlines()], texts, "round trip")
    equal(cli_ok(build, "tokenize", texts[0]).split(), [str(i) for i in json.loads(ids.splitlines()[0])], "plain form")
    equal(cli_ok(build, "tokenize", "--tokenizer", os.path.join(DEMO, "llm"), texts[0]),
          cli_ok(build, "tokenize", texts[0]), "--tokenizer FOLDER")
    plain = json.loads(cli_ok(build, "tokenize", "--json-lines", stdin=b'"<|end|>"\n'))
    special = json.loads(cli_ok(build, "tokenize", "--json-lines", "--special", stdin=b'"<|end|>"\n'))
    require(len(plain) > len(special), "user text yields no special token: %r, %r" % (plain, special))
    code, _, err = cli(build, "detokenize", "99999999")
    equal(code, 64, err)


def check_tokenizer_files(build):
    """A rank file of tiktoken, with the regex that is asked for; a broken file is named with its line."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "some.tiktoken")
        tokens = [bytes([i]) for i in range(256)] + [b"12", b"ab"]
        with open(path, "wb") as f:
            f.writelines(b"%s %d\n" % (base64.b64encode(t), i) for i, t in enumerate(tokens))
        for regex, want in ((None, "256 49 50 257"), ("gpt2", "256 256 257"), ("qwen2", "49 50 49 50 257")):
            options = ["--tokenizer", path] + (["--regex", regex] if regex else [])
            ids = cli_ok(build, "tokenize", *options, "1212ab").strip()
            equal(ids, want, regex)
            equal(cli_ok(build, "detokenize", *options, ids), "1212ab\n", "back")
        out = cli_ok(build, "tokenize", "--tokenizer", path, "--time", "1212ab")
        require(re.fullmatch(r"6 bytes, 4 ids, [\d.]+ ms of processor time, [\d.]+ MB/s\n", out), out)
        code, _, err = cli(build, "tokenize", "--tokenizer", path, "--regex", "o200k", "x")
        require(code == 64 and "gpt2, qwen2 or cl100k" in err, "%d %s" % (code, err))
        with open(path, "ab") as f:
            f.write(b"YWI= 300\n")
        code, _, err = cli(build, "tokenize", "--tokenizer", path, "x")
        require(code not in (0, 64) and "some.tiktoken: line 259" in err, "%d %s" % (code, err))


def check_inspect_shows_a_whole_folder(build):
    doc = json.loads(cli_ok(build, "inspect", "--json", "--tensors", DEMO))
    equal(doc["missing"], [], "missing")
    names = [t["name"] for f in doc["files"] for t in f["tensors"]]
    require(len(names) == doc["n_tensors"] > 100, "every tensor is listed")
    sizes = [doc["memory"][t] for t in ("int4", "int8", "bf16", "f32")]
    require(sizes == sorted(set(sizes)) and doc["memory"]["fp8"] == doc["memory"]["int8"], "memory by type")
    text = cli_ok(build, "inspect", DEMO)
    require("safetensors" in text and "KV cache per token" in text, "text form")
    require("healthgpt-demo: phi3" in text and "F16 2.1M" in text, "variant and dtypes")
    require("missing" not in text, "nothing is missing")
    # What is foretold is near what the loader takes; rows of a small model are padded.
    with Daemon(build, "--dtype", "f16") as d:
        m = re.search(r"weights ([\d.]+) MB \+ plug-ins ([\d.]+) MB \(.*\) \+ KV cache ([\d.]+) MB", d.log_text())
        taken = float(m.group(1)) + float(m.group(2))
        require(0.8 < doc["memory"]["f16"] / 1e6 / taken < 1.2, "%r, taken %.1f MB" % (doc["memory"], taken))
        equal(round(doc["memory"]["kv_bytes_f16"] / 1e6, 1), float(m.group(3)), "KV cache")


def crc32c(data):
    """Bit by bit, as RFC 3720 defines it."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def check_checksums_are_those_of_the_bytes_in_the_file(build):
    path = os.path.join(DEMO, "vision", "model.safetensors")
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(n))
        data = f.read()
    doc = json.loads(cli_ok(build, "inspect", "--json", "--checksums", path))
    sums = {t["name"]: t["crc32c"] for t in doc["files"][0]["tensors"]}
    equal(sorted(sums), sorted(name for name in header if name != "__metadata__"), "tensors")
    small = [name for name, t in header.items() if name in sums and t["data_offsets"][1] - t["data_offsets"][0] < 20000]
    require(len(small) > 10, "too few tensors to compare")
    for name in small:
        begin, end = header[name]["data_offsets"]
        equal(sums[name], "%08x" % crc32c(data[begin:end]), name)
    text = cli_ok(build, "inspect", "--checksums", path)
    require("crc32c " + sums[small[0]] in text, "text form")
    return "%d of %d tensors" % (len(small), len(sums))


def check_inspect_works_on_what_is_incomplete(build):
    with tempfile.TemporaryDirectory() as d:
        copy = os.path.join(d, "m")
        shutil.copytree(DEMO, copy)
        os.remove(os.path.join(copy, "gen_hlora_weights.bin"))
        shard = os.path.join(copy, "llm", "model.safetensors")
        os.truncate(shard, os.path.getsize(shard) // 2)
        code, out, _ = cli(build, "inspect", "--json", copy)
        doc = json.loads(out)
        require(code == 65, "exit %d tells that it will not load" % code)
        require(any("gen_hlora_weights.bin" in m for m in doc["missing"]), "names what is missing")
        require(any("error" in f for f in doc["files"]), "names what is unreadable")
        single = json.loads(cli_ok(build, "inspect", "--json", os.path.join(DEMO, "com_hlora_weights.bin")))
        equal(single["files"][0]["n_tensors"], single["n_tensors"], "a single file")
        equal(cli(build, "inspect", os.path.join(d, "nothing"))[0], 66, "no such path")
        shutil.rmtree(copy)
        shutil.copytree(DEMO, copy)
        edit_json(os.path.join(copy, "llm", "config.json"), num_hidden_layers=6)
        code, out, _ = cli(build, "inspect", copy)
        require(code == 65 and "llm: tensor model.layers.4.self_attn.qkv_proj.weight: missing" in out, out[-900:])
        edit_json(os.path.join(copy, "llm", "config.json"), num_hidden_layers=4, intermediate_size=448)
        code, out, _ = cli(build, "inspect", copy)
        require(code == 65 and "mlp.down_proj.weight: expected [192, 448], got [192, 512]" in out, out[-900:])


def check_inspect_works_on_files_that_are_not_ours(build):
    folder = os.path.join(SHARED, "data", "weights_formats")
    if not os.path.isdir(folder):
        raise Skip("shared/data/weights_formats is not there")
    text = cli(build, "inspect", os.path.join(folder, "burn"))[1]
    require("mnist.pt" in text and "torch zip" in text and "F32 376.9k" in text, text)
    hostile = [os.path.join(d, n) for d, _, names in os.walk(os.path.join(folder, "hostile_pickles")) for n in names]
    for path in hostile:
        code, _, err = cli(build, "inspect", path)
        require(code in (0, 65) and not err, "%s: exit %d, %s" % (path, code, err))
    return "%d hostile files" % len(hostile)


def check_selftest_questions_of_the_demo_model(build):
    path = os.path.join(DEMO, "selftest.jsonl")
    if not os.path.exists(path):
        raise Skip("config/models/demo/selftest.jsonl is not there")
    with open(path) as f:
        lines = [json.loads(line) for line in f if line.strip()]
    out = batch(build, lines)
    wrong = [(line["id"], r.get("text"), line["expect"]) for r, line in zip(out, lines)
             if "expect" in line and r.get("text", "").strip() != line["expect"]]
    # The expected texts are the labels, not what the model said once: a small model may miss some.
    right = len(lines) - len(wrong)
    require(right >= 0.85 * len(lines), "%d of %d right: %r" % (right, len(lines), wrong[:3]))
    return "%d of %d answers right" % (right, len(lines))


def check_bench_reports_speed(build):
    out = cli_ok(build, "bench", "--json", "--prompt-tokens", "64", "--max-tokens", "8", "--max-batch", "4")
    rows = [json.loads(line) for line in out.splitlines()]
    equal([r["sequences"] for r in rows], [1, 4], "one sequence, then all")
    out = cli_ok(build, "bench", "--json", "--prompt-tokens", "8", "--max-tokens", "4", "--batches", "1", "--images")
    pictures = json.loads(out.splitlines()[-1])  # every round encodes: nothing is taken from the caches
    require(pictures["vision_ms"] > 0 and pictures["draw_ms"] > 0, "pictures: %r" % pictures)
    code, out, err = cli(build, "bench", "--prompt-tokens", "100000")
    require(code == 65 and not out and "100000 tokens" in err, "an error is all that is printed: %r %r" % (out, err))
    require(all(r["prefill_tokens_per_s"] > 0 and r["decode_tokens_per_s"] > 0 for r in rows), "rates")
    return "decode %.0f t/s alone, %.0f t/s in a batch of 4" % tuple(r["decode_tokens_per_s"] for r in rows)


def check_bench_plots_shares_of_a_floor_of_known_bytes(build):
    """The floor's bytes by hand: f16 linears of 4 layers (D 192, F 512), a head, one plug-in in bf16, the f16 cache."""
    d, f, layers, rank = 192, 512, 4, 32
    linears = ((3 * d, d), (d, d), (2 * f, d), (d, f))
    base = layers * sum(n * k for n, k in linears)
    plugin = layers * sum(rank * (n + k) + 4 * k for n, k in linears)
    head = 832 * d
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bars <&>.svg")
        out = cli_ok(build, "bench", "--json", "--backend", "cpu", "--prompt-tokens", "64", "--max-tokens", "8", "--batches", "1,4",
                     "--plugins", "none,comprehension", "--plot", path)
        rows = [json.loads(line) for line in out.splitlines()]
        cache = [r["sequences"] * (64 + 8 / 2) * layers * 2 * d * 2 for r in rows]
        want = [2 * (base + head + (r["plugin"] != "none") * plugin) + c for r, c in zip(rows, cache)]
        for r, bytes_of in zip(rows, want):  # routers are padded to panels of 16 rows: 6 % here, nothing in a large model
            require(0.99 * bytes_of <= r["step_bytes"] <= 1.08 * bytes_of, "%r: expected about %.0f bytes" % (r, bytes_of))
            require(abs(r["floor_ms"] - r["step_bytes"] / r["read_bytes_per_s"] * 1e3) < 1e-3, "the floor: %r" % r)
        bars = xml.dom.minidom.parse(path).getElementsByTagName("rect")
        equal(len(bars), 1 + 4, "a background and a bar for each row")
    code, out, err = cli(build, "bench", "--prompt-tokens", "8", "--max-tokens", "2", "--plot", "/nonexistent/x.svg")
    require(code == 74 and "/nonexistent/x.svg" in err, "%d %s" % (code, err))
