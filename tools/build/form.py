#!/usr/bin/env python3
"""The form of the CUDA kernels, checked without a GPU: registers, spills, wide loads, tensor cores.

usage: form.py [--nvcc NVCC] [--out DIR] [--rules FILE] ARCH ...    (80 90 ...)

Compiles kernels/cuda/*.cu to one cubin per architecture, reads registers, stack, spills and static
shared memory from ptxas -v and counts instructions in the cubins, then holds every kernel against
its line of kernels/cuda/form.txt. Prints one table; exit status 0 when every kernel keeps its line.

Instructions of sm_80..sm_120 are 16 bytes; the low 12 bits are the opcode, bits 73..75 the width of
a load or store (4: 4 bytes, 5: 8, 6: 16). The numbers were found by comparing with nvdisasm."""
import argparse
import collections
import concurrent.futures
import fnmatch
import glob
import os
import re
import shutil
import struct
import subprocess
import sys

OPCODES = {0x23C: "HMMA", 0x237: "IMMA", 0x981: "LDG", 0x986: "STG", 0x983: "LDL", 0x387: "STL",
           0x984: "LDS", 0x388: "STS", 0x988: "STS", 0x83B: "LDSM", 0xFAE: "LDGSTS", 0xF89: "SHFL",
           0xB1D: "BAR", 0x308: "MUFU"}
WIDTHS = {5: "64", 6: "128"}
WARPS = {80: 64, 90: 64}  # most warps of a multiprocessor; 48 elsewhere
TABLE = ("LDG128", "STG128", "LDGSTS", "LDSM", "HMMA", "IMMA")


def sections(data):
    """Names and contents of the sections of a 64-bit ELF file."""
    table, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    for h in headers:
        start = headers[names][4] + h[0]
        yield data[start:data.index(b"\0", start)].decode(), data[h[4]:h[4] + h[5]] if h[1] != 8 else b""


def instructions(cubin):
    """Mangled kernel name -> Counter of instruction names."""
    found = {}
    for name, text in sections(cubin):
        if not name.startswith(".text."):
            continue
        counts = found[name[6:]] = collections.Counter()
        for low, high in struct.iter_unpack("<QQ", text[:len(text) // 16 * 16]):
            op = OPCODES.get(low & 0xFFF)
            if op:
                counts[op] += 1
                counts[op + WIDTHS.get(high >> 9 & 7, "32")] += 1
    return found


def properties(log):
    """Mangled kernel name -> Counter of regs, stack, spill, smem from the messages of ptxas -v."""
    found, at = {}, None
    for line in log.split("\n"):
        entry = re.search(r"Compiling entry function '(\w+)'", line)
        if entry:
            at = found.setdefault(entry.group(1), collections.Counter())
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if frame and at is not None:
            at["stack"] += int(frame.group(1))
            at["spill"] += int(frame.group(2)) + int(frame.group(3))
        used = re.search(r"Used (\d+) registers", line)
        if used and at is not None:
            at["regs"] = int(used.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            at["smem"] = int(shared.group(1)) if shared else 0
    return found


def compile_one(nvcc, source, arch, out, newest):
    """The cubin and the messages of ptxas, from an earlier run where no source is newer."""
    base = os.path.join(out, f"{os.path.basename(source)[:-3]}.sm_{arch}")
    if not os.path.exists(base + ".log") or os.path.getmtime(base + ".log") < newest:
        p = subprocess.run([nvcc, "-std=c++17", "-O3", "-I.", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin",
                            source, "-o", base + ".cubin"], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
        if p.returncode != 0:
            raise SystemExit(f"form: {source} for sm_{arch}:\n{p.stdout}")
        with open(base + ".log", "w", encoding="utf-8") as f:
            f.write(p.stdout)
    with open(base + ".log", encoding="utf-8") as f:
        log = f.read()
    with open(base + ".cubin", "rb") as f:
        return log, f.read()


def demangle(names):
    """Short names: kernel and template arguments, without spaces."""
    tool = shutil.which("c++filt")
    if not tool or not names:
        return {n: n for n in names}
    lines = subprocess.run([tool], input="\n".join(names), stdout=subprocess.PIPE, text=True,
                           check=True).stdout.split("\n")
    short = {}
    for name, line in zip(names, lines):
        line, depth = re.sub(r"^void |\(anonymous namespace\)::", "", line), 0
        for i, c in enumerate(line):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                line = line[:i]
                break
        short[name] = line.replace(" ", "")
    return short


def read_rules(path):
    """[(pattern, [(what, "<=" or ">=", n)])] in the order of the file."""
    rules = []
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        limits = []
        for word in words[1:]:
            m = re.fullmatch(r"(\w+)(<=|>=)(\d+)", word)
            if not m:
                raise SystemExit(f"form: {path}:{number}: '{word}' is not like regs<=64 or LDG128>=2")
            limits.append((m.group(1), m.group(2), int(m.group(3))))
        rules.append((words[0], limits))
    return rules


def broken(facts, limits):
    """What a kernel of one architecture breaks; no kernel may spill or use local memory."""
    always = [("spill", "<=", 0), ("stack", "<=", 0), ("LDL", "<=", 0), ("STL", "<=", 0)]
    for what, sign, n in limits + [a for a in always if a[0] not in [x[0] for x in limits]]:
        if facts[what] > n if sign == "<=" else facts[what] < n:
            yield f"{what} {facts[what]}, wants {sign} {n}"


def resident_warps(arch, regs):
    """Warps of a multiprocessor that the registers allow (65536, in units of 256 a warp)."""
    return min(WARPS.get(arch, 48), 65536 // (max(1, -(-regs * 32 // 256)) * 256))


def collect(args, sources, newest):
    """(file, mangled name) -> {arch: Counter}."""
    jobs = [(s, a) for s in sources for a in args.arch]
    kernels = collections.OrderedDict()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = pool.map(lambda j: compile_one(args.nvcc, j[0], j[1], args.out, newest), jobs)
        for (source, arch), (log, cubin) in zip(jobs, results):
            counts = instructions(cubin)
            for name, facts in properties(log).items():
                facts.update(counts.get(name, {}))
                kernels.setdefault((os.path.basename(source), name), {})[arch] = facts
    return kernels


def report(kernels, rules, archs):
    short = demangle([name for _, name in kernels])
    used, failures = set(), []
    width = max([len(n) for n in short.values()] + [6])
    print(f"{'registers for sm_' :>{width}}  {' '.join(f'{a:>4}' for a in archs)}  warps  smem "
          + " ".join(f"{t:>6}" for t in TABLE))
    for (source, mangled), by_arch in kernels.items():
        name = short[mangled]
        rule = next((r for r in rules if fnmatch.fnmatchcase(name, r[0])), None)
        used.add(rule and rule[0])
        bad = [f"{name} ({source}) sm_{a}: {b}" for a in by_arch for b in
               (broken(by_arch[a], rule[1]) if rule else ["has no line in the rules"])]
        failures += bad
        regs = " ".join(f"{by_arch[a]['regs']:>4}" for a in archs)
        warps = min(resident_warps(a, by_arch[a]["regs"]) for a in by_arch)
        least = " ".join(f"{min(f[t] for f in by_arch.values()):>6}" for t in TABLE)
        print(f"{name:<{width}}  {regs}  {warps:>5} {max(f['smem'] for f in by_arch.values()):>5} {least}"
              + ("  BROKEN" if bad else ""))
    failures += [f"the line '{p}' matches no kernel" for p, _ in rules if p not in used and p != "*"]
    for f in failures:
        print("form: " + f)
    print(f"form: {len(kernels)} kernels, {len(archs)} architectures, {len(failures)} broken lines")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--out", default="build/form")
    parser.add_argument("--rules", default="kernels/cuda/form.txt")
    parser.add_argument("arch", nargs="+", type=int)
    args = parser.parse_args()
    if not shutil.which(args.nvcc):
        print("SKIP: the form of the CUDA kernels: nvcc is not found (set NVCC=)")
        print("form: 0 passed, 0 failed, 1 skipped")
        return 0
    os.makedirs(args.out, exist_ok=True)
    sources = sorted(glob.glob("kernels/cuda/*.cu"))
    headers = glob.glob("kernels/cuda/*.cuh") + glob.glob("kernels/cuda/*.h") + ["kernels/backend.h"]
    newest = max(os.path.getmtime(h) for h in headers)
    kernels = collections.OrderedDict()
    for s in sources:
        kernels.update(collect(args, [s], max(newest, os.path.getmtime(s))))
    return report(kernels, read_rules(args.rules), args.arch)


sys.exit(main())
