#!/usr/bin/env python3
"""Live parity: random models beside transformers' own modules and PyTorch twins (make parity-live).

    main.py build/release [--seed N] [--count N] [GROUP...]

Each group runs in a Python that has torch: $HG_PARITY_PYTHON, or build/venv-parity (make parity-venv), with the version of
transformers that the group asks for in tf-VERSION beside its bin. A group without its Python or version is skipped, and counted.
The same seed draws the same models. Nothing is exempt from token equality in fp32; strict numerics are compared by
reference.md 5.9: |dlogit| <= 0.06, and ids up to the first step whose two best logits are closer than 0.05."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
GROUPS = {"phi3": "4.41.0", "qwen2": "4.49.0", "clip": "4.41.0", "clip-sdpa": "4.49.0", "projector": None, "vqgan": None}


def environment(python, version):
    """The environment for one version of transformers, or the reason why there is none."""
    env = dict(os.environ, PYTHONPATH=str(HERE), OMP_NUM_THREADS="2", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    if version:
        env["PYTHONPATH"] = "%s:%s" % (python.parents[1] / ("tf-" + version), HERE)
    probe = "import torch" + ("\nimport transformers\nprint(transformers.__version__)" if version else "")
    if not python.exists():
        return None, "%s is not there: make parity-venv, or HG_PARITY_PYTHON" % python.name
    p = subprocess.run([python, "-c", probe], env=env, capture_output=True, text=True)
    if p.returncode:
        return None, p.stderr.strip().splitlines()[-1]
    if version and p.stdout.strip() != version:
        return None, "needs transformers %s, got %s" % (version, p.stdout.strip())
    return env, None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("build", type=pathlib.Path)
    ap.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    ap.add_argument("--seed", type=int, default=6)
    ap.add_argument("--count", type=int, default=20)
    a = ap.parse_intermixed_args()
    python = pathlib.Path(os.environ.get("HG_PARITY_PYTHON", ROOT / "build/venv-parity/bin/python")).absolute()
    passed = failed = skipped = 0
    for group, version in GROUPS.items():
        if a.groups and group not in a.groups:
            continue
        env, why = environment(python, version)
        if why:
            print("SKIP %s: %s" % (group, why))
            skipped += 1
            continue
        command = [python, HERE / "groups.py", (a.build / "forward").absolute(), group, str(a.seed), str(a.count)]
        ok = subprocess.run(command, env=env).returncode == 0
        passed, failed = passed + ok, failed + (not ok)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed or not passed + skipped else 0


if __name__ == "__main__":
    sys.exit(main())
