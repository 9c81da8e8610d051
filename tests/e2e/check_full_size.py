"""Models of full size as names and shapes (tools/full_size): published sizes to the byte, and what inspect makes of them. `make
full-size` fills them with values and loads them."""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile

from harness import ROOT, cli, cli_ok, equal, require

TOOLS = os.path.join(ROOT, "tools", "full_size")
sys.path.append(TOOLS)
import check as programme  # noqa: E402
import containers  # noqa: E402
import models  # noqa: E402


def shapes(variant, folder, *options):
    p = subprocess.run([sys.executable, os.path.join(TOOLS, "write.py"), variant, folder, "--data", ""] + list(options),
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    require(p.returncode == 0, "write.py: exit %d: %s" % (p.returncode, p.stdout[-500:]))


def inspected(build, folder):
    """What inspect says; it may miss the tokenizer, which is data from elsewhere, and nothing else."""
    code, out, err = cli(build, "inspect", "--json", folder)
    require(code in (0, 65), "inspect: exit %d: %s" % (code, err[-500:]))
    doc = json.loads(out)
    equal([m for m in doc["missing"] if "tokenizer" not in m], [], "missing")
    return doc


def check_m3_has_the_published_sizes(build):
    with tempfile.TemporaryDirectory() as folder:
        shapes("m3", folder)
        sizes = {n: os.path.getsize(os.path.join(folder, "llm", n)) for n in os.listdir(os.path.join(folder, "llm"))}
        equal(sizes["model-00001-of-00002.safetensors"], 4972489328, "first shard")
        equal(sizes["model-00002-of-00002.safetensors"], 2669692552, "second shard")
        doc = inspected(build, folder)
        equal(sum(f["dtypes"]["BF16"] for f in doc["files"][:2]), 3821079552, "parameters")
        for dtype in ("bf16", "int8", "int4"):
            want = programme.expected_weights("m3", 32, dtype)
            require(abs(doc["memory"][dtype] / want - 1) < 0.03, "memory of %s: %r, by the shapes %r" % (dtype, doc["memory"][dtype], want))
    return "%d tensors" % doc["n_tensors"]


def check_xl32_has_17_shards(build):
    with tempfile.TemporaryDirectory() as folder:
        shapes("xl32", folder)
        doc = inspected(build, folder)
    equal(len([f for f in doc["files"] if f["file"].startswith("llm/")]), 17, "shards")
    equal((doc["llm"]["n_kv_heads"], doc["llm"]["n_heads"], doc["llm"]["n_layers"]), (8, 40, 64), "heads and layers")
    equal(sorted(doc["tasks"]), ["comprehension"], "tasks")
    return "int4 %.1f GB" % (doc["memory"]["int4"] / 1e9)


def check_values_are_the_same_for_a_seed(build):
    fill = os.path.join(ROOT, build, "full-size-fill")
    tensors = [containers.Tensor("a.weight", (300, 1000), 0.5), containers.Tensor("b", (7,), 0.1, 1.0, "F32"), models.positions("c", 77)]
    sums = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in (1, 1, 2):
            path = os.path.join(folder, "x.bin")
            containers.save_torch(containers.Writer(fill, seed), path, tensors)
            with open(path, "rb") as f:
                sums.append(hashlib.sha256(f.read()).hexdigest())
        equal(zipfile.ZipFile(path).testzip(), None, "members with a wrong CRC-32")
        doc = json.loads(cli_ok(build, "inspect", "--json", "--tensors", path))
        equal([(t["name"], t["dtype"], t["shape"]) for t in doc["files"][0]["tensors"]],
              [("a.weight", "BF16", [300, 1000]), ("b", "F32", [7]), ("c", "I64", [1, 77])], "tensors")
    require(sums[0] == sums[1] != sums[2], "files of seeds 1, 1, 2: %r" % sums)
