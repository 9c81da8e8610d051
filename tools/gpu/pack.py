#!/usr/bin/env python3
"""Collect what a machine with a GPU needs for check.py into one folder: no compiler, no packages.

usage: pack.py BUILD_DIR OUT       BUILD_DIR: build/release; OUT: build/gpu, made anew

bin/ programs (stripped), test programs and libhealthgpt_cuda.so; lib/ the shared libraries that they
need, but for those of libc; config/, tests/, shared/, tools/: the demo model, small test data, the
scripts; COMMIT. Prints the size."""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from check import commit_of_tree  # noqa: E402
from stages import ELSEWHERE  # noqa: E402

PROGRAMS = ("healthgpt", "kernel-bench", "random-model", "greedy")
BUILT = ("build/libhealthgpt_cuda.so", "build/cuda/gpu-peak")
OPTIONAL = ("build/cuda/gpu-gemm",)  # where CUDA came with cublasLt.h
LIBC = re.compile(r"^(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|util))\.so")
DATA = ("config/models/demo", "tests/golden/demo", "tests/golden/llm", "tests/data/demo", "tests/run.py", "tools/gpu")
STORIES = "data/weights_formats/stories260K"
MOST_MB = 60


def libraries(path):
    """Name -> path of the shared libraries of a program, those of libc left out."""
    text = subprocess.run(["ldd", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    missing = re.findall(r"(\S+) => not found", text)
    if missing:
        sys.exit("pack: %s needs %s" % (path, ", ".join(missing)))
    return {n: p for n, p in re.findall(r"(\S+) => (\S+)", text) if not LIBC.match(n)}


def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def tests(build):
    for folder in ("tests/kernels", "tests/parity"):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if re.fullmatch(r"test_.+\.c", name) and name[:-2] not in ELSEWHERE:
                yield os.path.join(build, folder, name[:-2]), os.path.join("bin", folder, name[:-2])


def main(build, out):
    shutil.rmtree(out, ignore_errors=True)
    needed = {}
    files = [(os.path.join(build, p), "bin/" + p) for p in PROGRAMS] + [
        (p, "bin/" + os.path.basename(p)) for p in BUILT + tuple(p for p in OPTIONAL if os.path.exists(p))]
    for source, name in files + list(tests(build)):
        target = os.path.join(out, name)
        copy(source, target)
        subprocess.run(["strip", target], check=True)
        needed.update(libraries(target))
    for name, path in needed.items():
        target = os.path.join(out, "lib", name)
        copy(os.path.realpath(path), target)
        subprocess.run(["strip", "--strip-unneeded", target], check=True)
    for name in DATA:
        copy(os.path.join(ROOT, name), os.path.join(out, name))
    stories = os.path.join(os.environ.get("HG_SHARED", os.path.join(ROOT, "..", "shared")), STORIES)
    if os.path.isdir(stories):
        for name in ("stories260K.bin", "golden_greedy.json"):
            copy(os.path.join(stories, name), os.path.join(out, "shared", STORIES, name))
    else:
        print("pack: no %s: that test will be skipped" % stories)
    with open(os.path.join(out, "COMMIT"), "w") as f:
        f.write(commit_of_tree() + "\n")
    size = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(out) for n in names)
    print("%s: %.1f MB, %d libraries, commit %s" % (out, size / 1e6, len(needed), commit_of_tree()))
    if size > MOST_MB * 1e6:
        sys.exit("pack: more than %d MB" % MOST_MB)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
