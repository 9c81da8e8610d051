"""Storage types (--dtype, --kv-dtype, --plugin-dtype): what bench --quant says, how they combine, what is refused."""
import json
import os
import subprocess
import tempfile
import zipfile

from check_kv_dtype import FOLDER, answers, compare
from check_simt import needs_simt
from harness import DEMO, ROOT, SHARED, Daemon, Skip, cli, cli_ok, equal, is_sanitized, png, require
import stories

SMALLEST = ("--dtype", "int4", "--kv-dtype", "int8", "--plugin-dtype", "int8")


def table(build, *args):
    """The report, and its rows by name."""
    report = json.loads(cli_ok(build, "bench", "--quant", "--json", *args))
    return report, {r["type"]: r for r in report["types"]}


def write_lines(folder, lines):
    path = os.path.join(folder, "questions.jsonl")
    with open(path, "w") as f:
        f.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return path


def pneumonia(folder):
    """The official test set of PneumoniaMNIST as questions; the label is the answer."""
    path = os.path.join(SHARED, "data", "medmnist", "pneumoniamnist.npz")
    if not os.path.exists(path):
        raise Skip("shared data medmnist is absent")
    with zipfile.ZipFile(path) as z:
        arrays = [z.read("test_%s.npy" % name) for name in ("images", "labels")]
    pixels, labels = (a[10 + int.from_bytes(a[8:10], "little"):] for a in arrays)
    equal((len(pixels), len(labels)), (624 * 784, 624), "size of the test set")
    lines = []
    for i, label in enumerate(labels):
        name = os.path.join(folder, "x%d.png" % i)
        with open(name, "wb") as f:
            f.write(png(28, 28, bytes(v for v in pixels[784 * i:784 * (i + 1)] for _ in range(3))))
        lines.append({"task": "ask", "images": [name], "question": "Is there evidence of pneumonia?", "max_tokens": 8,
                      "expect": ("No", "Yes")[label]})
    return write_lines(folder, lines)


def check_pneumonia_keeps_its_accuracy(build):
    """At most 0.5 points of accuracy for int8 and fp8, 1.5 for int4. Answers are greedy and do not depend on threads, so
    nothing here depends on the machine but its vector instructions: a near tie may fall the other way."""
    if is_sanitized(build):
        raise Skip("five thousand pictures take minutes under a sanitizer")
    with tempfile.TemporaryDirectory() as folder:
        _, rows = table(build, "--questions", pneumonia(folder), "--types", "bf16,int8,fp8,int4")
    right = {name: r["known"]["right"] for name, r in rows.items()}
    for r in rows.values():
        equal(r["known"]["questions"], 624, "questions")
    require(right["bf16"] >= 0.86 * 624, "bf16 answers %d of 624 right" % right["bf16"])
    for name, points in (("int8", 0.5), ("fp8", 0.5), ("int4", 1.5)):
        lost = 100 * (right["bf16"] - right[name]) / 624
        require(lost <= points, "%s loses %.2f points, allowed are %.1f" % (name, lost, points))
        require(0 < rows[name]["kl"]["bf16"]["comprehension"]["mean"] < 1e-3, "%s: %r" % (name, rows[name]["kl"]))
    return "right: %s" % ", ".join("%s %d" % item for item in right.items())


def check_table_of_the_demo_model(build):
    types = "f32,bf16,int8,int8/kv-int8,int8/plugins-int8,int4"
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.loads(line) for line in open(os.path.join(DEMO, "selftest.jsonl"))][::3]
        lines += [{"task": "draw", "question": "Draw a chest X-ray with pneumonia."}, {"text": "A chest X-ray shows the lungs."}]
        path = write_lines(folder, lines)
        report, rows = table(build, "--questions", path, "--types", types)
        again, _ = table(build, "--questions", path, "--types", types, "--threads", "1", "--max-batch", "3")
    # batch and threads change nothing but the time and the room for caches
    for a in report["types"], again["types"]:
        for row in a:
            del row["seconds"], row["all_bytes"]
    equal(again["types"], report["types"], "a second run, one thread, other batches")
    equal((report["questions"], report["picture_tokens"], report["truncated"]), (len(lines), 64, False), "what was asked")
    equal(list(rows), types.split(","), "types")
    kl = {name: r["kl"]["bf16"]["comprehension"]["mean"] for name, r in rows.items() if name != "bf16"}
    require(0 < kl["f32"] < kl["int8"] < kl["int4"] < 0.05, "divergence from bf16: %r" % kl)
    equal(rows["bf16"]["kl"]["bf16"], {}, "bf16 against itself")
    require(rows["bf16"]["kl"]["f32"]["generation"]["mean"] > 0, "bf16 against f32: %r" % rows["bf16"]["kl"])
    for name, r in rows.items():
        require(1 < r["perplexity"] < 1e4, "%s: perplexity %r" % (name, r["perplexity"]))
        equal(r["known"]["right"], r["known"]["questions"], name + ": known answers")
        equal(r["drawn_tokens"], 64, name + ": drawn tokens")
    require(rows["int8"]["linear_bytes"] < 0.52 * rows["bf16"]["linear_bytes"], "linears of int8")
    require(rows["int8/plugins-int8"]["plugin_bytes"] < 0.56 * rows["int8"]["plugin_bytes"], "plug-ins of int8")
    dim = json.loads(cli_ok(build, "inspect", "config/models/demo", "--json"))["llm"]["head_dim"]
    per_token = [rows[name]["kv_bytes_per_token"] for name in ("int8/kv-int8", "int8")]
    require(abs(per_token[0] / per_token[1] - (dim + 4) / (2 * dim)) < 1e-6, "KV bytes per token: %r" % per_token)
    return "KL from bf16: %s" % ", ".join("%s %.1e" % item for item in kl.items())


def check_stories_without_a_tokenizer(build):
    """The known 256 greedy ids come out of f32; their perplexity grows with the rounding."""
    with tempfile.TemporaryDirectory() as folder:
        ids = stories.make(folder)
        path = write_lines(folder, [{"prompt_ids": ids[:1], "max_tokens": 256}, {"text_ids": ids}])
        report, rows = table(build, "--model", folder, "--questions", path, "--types", "f32,int8,int4")
    equal(report["text_tokens"], 512, "tokens")
    equal(list(rows), ["f32", "int8", "int4", "bf16"], "bf16 joins, for all are held to it")
    p = {name: r["perplexity"] for name, r in rows.items()}
    require(p["f32"] < p["int8"] < p["int4"] < 1.3 * p["f32"], "perplexity %r" % p)
    return "perplexity %s" % ", ".join("%s %.4f" % item for item in p.items())


def check_all_types_combine_on_every_backend(build):
    """Each weight type with an int8 cache and int8 plug-ins; greedy answers may part at near ties only."""
    notes, backends = [], ["ref"]
    if not is_sanitized(build):
        needs_simt(build)
        backends.append("simt")
    for dtype in ("f32", "f16", "bf16", "int8", "fp8", "int4"):
        line = {"id": 0, "task": "ask", "question": "Who are you?", "max_tokens": 8, "top_logprobs": 20}
        if dtype == "int8":  # the emulation takes its time for a picture
            line = dict(line, images=[FOLDER + "chest_right.png"], question="What organ is shown?")
        types = ("--dtype", dtype, "--kv-dtype", "int8", "--plugin-dtype", "int8")
        cpu, worst = answers(build, [line], "--backend", "cpu", *types), 0
        for backend in backends:
            worst = max(worst, compare(cpu, answers(build, [line], "--backend", backend, *types))[3])
        notes.append("%s %.0e" % (dtype, worst))
    return "%s beside cpu, log probabilities: %s" % (" and ".join(backends), ", ".join(notes))


def check_wrong_types_are_named_and_a_near_one_offered(build):
    cases = (("--dtype", "fp16", "f16"), ("--dtype", "int9", "int8"), ("--kv-dtype", "bfloat16", "bf16"),
             ("--plugin-dtype", "i8", "int8"), ("--backend", "cdua", "cuda"))
    for option, value, meant in cases:
        for program in ("healthgptd", "healthgpt"):
            if program == "healthgpt" and option == "--backend":
                continue
            first = ["ask"] if program == "healthgpt" else []
            done = subprocess.run([os.path.join(ROOT, build, program)] + first + [option, value], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=60)
            code, err = done.returncode, done.stderr.decode()
            require(code != 0 and "%s: expected one of auto" % option in err, "%s %s: %s" % (program, option, err))
            require('got "%s"; did you mean %s?' % (value, meant) in err, "%s %s: %s" % (program, option, err))
    code, _, err = cli(build, "bench", "--quant", "--types", "bf16,int8/plugins-fp16")
    require(code != 0 and "--types: plugin_dtype: expected one of f32" in err and "did you mean f16?" in err, err)
    code, _, err = cli(build, "bench", "--types", "int8")
    require(code == 64 and "go with --quant" in err, err)
    with tempfile.TemporaryDirectory() as folder:
        for line, message in (("{", ":2: "), ({"task": "sing", "question": "x"}, ":2: task: expected"),
                              ({"task": "ask"}, ":2: expected one of question"),
                              ({"text_ids": [1, -4]}, ":2: text_ids: expected a list of token ids")):
            path = write_lines(folder, [{"question": "Who are you?"}, line])
            code, _, err = cli(build, "bench", "--quant", "--questions", path)
            require(code != 0 and path + message in err, "%r: %s" % (line, err))


def check_cuda_refuses_pairs_of_types_that_it_has_not(build):
    needs_simt(build)
    code, _, err = cli(build, "ask", "--backend", "simt", "--dtype", "int8", "--plugin-dtype", "f16", "hello")
    require(code != 0 and "adapters beside i8 weights in bf16 or i8, not in f16" in err, err)
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(folder, [{"question": "Who are you?", "max_tokens": 2}])
        _, rows = table(build, "--backend", "simt", "--questions", path, "--types", "bf16,int8/plugins-f16")
    require("not in f16" in rows["int8/plugins-f16"]["did_not_run"], "%r" % rows)


def check_types_stand_in_card_and_log(build):
    with Daemon(build, *SMALLEST) as d:
        name = json.loads(d.request("GET", "/v1/models")[2])["data"][0]["id"]
        status, _, card = d.request("GET", "/v1/models/%s/card" % name)
        equal(status, 200, str(card))
        card = json.loads(card)
        equal(card["storage"], {"weights": "int4", "plugins": "int8", "kv_cache": "int8"}, "storage")
        require("storage: weights int4, plug-ins int8, KV cache int8" in d.log_text(), d.log_text()[:2000])
        require("plug-ins 1.4 MB" in d.log_text(), d.log_text()[:2000])
