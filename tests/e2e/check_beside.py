"""tools/bench/beside.py: ours and another engine's bench in turns. The peer here is a script that prints what llama-bench
prints, with known speeds."""
import json
import os
import subprocess
import sys
import tempfile

from harness import require

SHAPE = (2, 64, 128, 300)  # layers, dim, ffn, vocabulary; heads of 16


def peer_of(folder, **changes):
    layers, dim, ffn, vocab = SHAPE
    row = {"build_commit": "abc", "model_type": "twin", "n_threads": 1,
           "model_n_params": layers * (4 * dim * dim + 3 * dim * ffn) + 2 * vocab * dim} | changes
    rows = [row | {"n_prompt": 16, "n_gen": 0, "avg_ts": 1e-3}, row | {"n_prompt": 2, "n_gen": 0, "avg_ts": 1e9},
            row | {"n_prompt": 0, "n_gen": 4, "avg_ts": 1e-3}]
    path = os.path.join(folder, "rows.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(rows, f)
    return f"cat {path}"


def run(build, folder, peer):
    command = [sys.executable, "tools/bench/beside.py", build, "--model", os.path.join(folder, "m"), "--threads", "1", "--prompt", "16",
               "--new", "4", "--batches", "1,2", "--rounds", "2", "--plugins", "none", "--peer", peer,
               "--json", os.path.join(folder, "rounds.json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def cells(text, first, batch=None):
    for line in text.splitlines():
        row = [c.strip() for c in line.strip("| ").split("|")]
        if row[0].startswith(first) and (batch is None or row[1] == batch):
            return row
    return []


def check_ours_beside_a_peer(build):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{build}/random-model", os.path.join(folder, "m"), *map(str, SHAPE), "16", "--ranks", "4,0"], check=True)
        code, out, err = run(build, folder, peer_of(folder))
        require(code == 0, f"exit {code}: {err}")
        with open(os.path.join(folder, "rounds.json"), encoding="utf-8") as f:
            rounds = json.load(f)
        ours = sorted(r["runs"]["int8"][0]["prefill_tokens_per_s"] for r in rounds)
        ratio = cells(out, "int8, none")[4].split(" ")[0]
        require(len(rounds) == 2 and abs(float(ratio) / (sum(ours) / 2 / 1e-3) - 1) < 1e-3, f"ratio {ratio} of {ours}")
        require(float(cells(out, "int8, none", "2")[6]) < 1 < float(cells(out, "int8, none", "1")[6]), out)
        require(cells(out, "peer (2 prompt tokens at once)", "2"), out)
        require(folder not in out, "the page names a folder of this machine")
        code, _, err = run(build, folder, peer_of(folder, model_n_params=10 ** 6))
        require(code != 0 and "another shape" in err, f"a peer of another shape: {code} {err}")
        code, _, err = run(build, folder, peer_of(folder, n_threads=3))
        require(code != 0 and "3 threads" in err, f"a peer with other threads: {code} {err}")
        code, _, err = run(build, folder, "false")
        require(code != 0 and "false ended with 1" in err, f"a peer that fails: {code} {err}")
