#!/usr/bin/env python3
"""The form of the CUDA kernels, checked without a GPU: registers, spills, occupancy, wide loads, tensor cores.

usage: form.py [--nvcc NVCC] [--out DIR] [--rules FILE] ARCH ...    (80 90 ...)

Compiles kernels/cuda/*.cu to one cubin per architecture, as many at a time as there are processors, reads
registers, stack, spills and static shared memory from ptxas -v, the threads of a block from the cubin, and
counts instructions in it, then holds every kernel against its line of kernels/cuda/form.txt. Prints one
table; exit status 0 when every kernel keeps its line. A file is compiled again when it, a header that it
includes, the options or nvcc have changed (digests in DIR). The last line counts kernels times architectures
as checks; they are also appended to the file $HG_TEST_SUMS.

Blocks of a multiprocessor: what registers, shared memory (the dynamic part: `shared=` of the rule, computed
by the host compiler from the constants of the sources), threads and the architecture allow.

Instructions of sm_80..sm_120 are 16 bytes; the low 12 bits are the opcode, bits 73..75 the width of
a load or store (4: 4 bytes, 5: 8, 6: 16). The numbers were found by comparing with nvdisasm."""
import argparse
import collections
import concurrent.futures
import fnmatch
import glob
import hashlib
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
# Of a multiprocessor: most warps, most blocks, bytes of shared memory; most bytes of a block.
LIMITS = {80: (64, 32, 167936, 166912), 86: (48, 16, 102400, 101376), 89: (48, 24, 102400, 101376),
          90: (64, 32, 233472, 232448), 120: (48, 24, 102400, 101376)}
TABLE = ("LDG128", "STG128", "LDGSTS", "LDSM", "HMMA", "IMMA")
MAX_THREADS = 5  # attribute of .nv.info.<kernel>
SLOW = ("linear", "attention", "conv")  # to be compiled first


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


def block_threads(cubin):
    """Mangled kernel name -> threads of a block, from __launch_bounds__."""
    found = {}
    for name, data in sections(cubin):
        at = 0
        while name.startswith(".nv.info.") and at + 4 <= len(data):
            kind, attribute, size = struct.unpack_from("<BBH", data, at)
            if kind == 4 and attribute == MAX_THREADS:
                x, y, z = struct.unpack_from("<III", data, at + 4)
                found[name[9:]] = x * y * z
            at += 4 + (size if kind == 4 else 0)
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


def inputs_of(source, seen):
    """The file and, of this repository, all that it includes."""
    if source in seen or not os.path.exists(source):
        return seen
    seen.add(source)
    with open(source, encoding="utf-8") as f:
        for name in re.findall(r'^\s*#include "([^"]+)"', f.read(), re.M):
            inputs_of(name, seen)
    return seen


def digest_of(source, command, version):
    h = hashlib.sha256(repr((command, version)).encode())
    for name in sorted(inputs_of(source, set())):
        with open(name, "rb") as f:
            h.update(name.encode() + b"\0" + f.read())
    return h.hexdigest()


def compile_one(nvcc, version, source, arch, out):
    """The cubin and the messages of ptxas, from an earlier run when its inputs were the same."""
    base = os.path.join(out, f"{os.path.basename(source)[:-3]}.sm_{arch}")
    command = [nvcc, "-std=c++17", "-O3", "-I.", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin", source,
               "-o", base + ".cubin"]
    digest = digest_of(source, command, version)
    log = ""
    if os.path.exists(base + ".log"):
        with open(base + ".log", encoding="utf-8") as f:
            log = f.read()
    if log.split("\n")[0] != digest:
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if p.returncode != 0:
            raise SystemExit(f"form: {source} for sm_{arch}:\n{p.stdout}")
        log = digest + "\n" + p.stdout
        with open(base + ".log", "w", encoding="utf-8") as f:
            f.write(log)
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


def arguments(name):
    """Template arguments of kernel<a,b<c,d>>."""
    parts, depth = [""], 0
    for c in name[name.find("<") + 1:-1] if "<" in name else "":
        depth += (c == "<") - (c == ">")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


class Rules:
    """form.txt: lines "pattern limit ..." in their order, and headers for the terms of shared=."""

    def __init__(self, path):
        self.lines, self.headers = [], []
        for number, line in enumerate(open(path, encoding="utf-8"), 1):
            words = line.split("#")[0].split()
            if words[:1] == ["include"]:
                self.headers += words[1:]
            elif words:
                self.lines.append((words[0],) + self.read_limits(words[1:], f"{path}:{number}"))

    @staticmethod
    def read_limits(words, where):
        limits, shared = [], "0"
        for word in words:
            m = re.fullmatch(r"(\w+)(?:@(\d+))?(<=|>=)(\d+)", word)
            if word.startswith("shared="):
                shared = word[7:]
            elif m:
                limits.append((m.group(1), m.group(3), int(m.group(4)), int(m.group(2) or 0)))
            else:
                raise SystemExit(f"form: {where}: '{word}' is not like regs<=64, LDG128>=2 or regs@120<=64")
        return limits, shared

    def find(self, name):
        """(pattern, limits, term of the dynamic shared memory) of a kernel, or None."""
        return next((line for line in self.lines if fnmatch.fnmatchcase(name, line[0])), None)

    def shared_bytes(self, names):
        """Name -> bytes of dynamic shared memory: the host compiler knows the constants of the sources. {1} in
        a term is the kernel's first template argument."""
        terms = {}
        for name in names:
            term = self.find(name)[2] if self.find(name) else "0"
            for i, argument in enumerate(arguments(name), 1):
                term = term.replace("{%d}" % i, argument)
            terms[name] = term
        needed = sorted({t for t in terms.values() if not t.isdigit()})
        values = {}
        if needed:
            text = "".join('#include "%s"\n' % h for h in self.headers)
            text += "extern const int form_values[] = {%s};\n" % ", ".join("(int)(%s)" % t for t in needed)
            p = subprocess.run(["g++", "-x", "c++", "-std=c++17", "-w", "-DHG_SIMT", "-I.", "-Itests/simt", "-S", "-o", "-",
                                "-"], input=text, stdout=subprocess.PIPE, text=True)
            if p.returncode != 0:
                raise SystemExit("form: a term of shared= does not compile")
            listing = p.stdout[p.stdout.index("form_values:"):]
            found = re.findall(r"\.(?:long\t(\d+)|zero\t(\d+))", listing)[:len(needed)]
            values = {t: int(v or 0) for t, (v, _) in zip(needed, found)}
        return {n: values[t] if t in values else int(t) for n, t in terms.items()}


ALWAYS = (("spill", "<=", 0), ("stack", "<=", 0), ("LDL", "<=", 0), ("STL", "<=", 0), ("blocks", ">=", 1))


def broken(facts, limits, arch):
    """What a kernel of one architecture breaks; every kernel must fit, none may spill or use local memory, unless its line says
    what it may for that architecture (spill@120<=64)."""
    own = {(what, sign): n for what, sign, n in ALWAYS}
    for wanted in (0, arch):  # what is said for one architecture replaces what is said for all
        own.update({(what, sign): n for what, sign, n, only in limits if only == wanted})
    for (what, sign), n in own.items():
        if facts[what] > n if sign == "<=" else facts[what] < n:
            yield f"{what} {facts[what]}, wants {sign} {n}"


def resident_blocks(arch, facts):
    """Blocks that a multiprocessor holds; 0: the kernel cannot run there."""
    warps, most, memory, of_block = LIMITS[arch]
    threads = -(-(facts["threads"] or 1024) // 32)
    shared = facts["smem"] + facts["dynamic"]
    if shared > of_block:
        return 0
    by_registers = 65536 // (-(-max(1, facts["regs"]) * 32 // 256) * 256) // 4 * 4
    return min(most, warps // threads, by_registers // threads, memory // (shared + 1024))


def collect(args, sources):
    """(file, mangled name) -> {arch: Counter}."""
    version = subprocess.run([args.nvcc, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    jobs = [(s, a) for s in sources for a in args.arch]
    jobs.sort(key=lambda j: not os.path.basename(j[0]).startswith(SLOW))
    kernels = collections.OrderedDict()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda j: compile_one(args.nvcc, version, j[0], j[1], args.out), jobs))
    for (source, arch), (log, cubin) in sorted(zip(jobs, results), key=lambda r: (r[0][0], args.arch.index(r[0][1]))):
        counts, threads = instructions(cubin), block_threads(cubin)
        for name, facts in properties(log).items():
            facts.update(counts.get(name, {}))
            facts["threads"] = threads.get(name, 0)
            kernels.setdefault((os.path.basename(source), name), {})[arch] = facts
    return kernels


def add_occupancy(kernels, short, rules):
    dynamic = rules.shared_bytes(sorted({short[name] for _, name in kernels}))
    for (_, mangled), by_arch in kernels.items():
        for arch, facts in by_arch.items():
            facts["dynamic"] = dynamic[short[mangled]]
            facts["blocks"] = resident_blocks(arch, facts)


def report(kernels, rules, archs):
    short = demangle([name for _, name in kernels])
    add_occupancy(kernels, short, rules)
    used, failures, n_bad = set(), [], 0
    width = max([len(n) for n in short.values()] + [6])
    head = " ".join(f"{a:>4}" for a in archs)
    print(f"{'':>{width}}  {'registers for sm_':<{len(head)}}  {'blocks of an SM':<{len(head)}}  thr.   shared  least of all")
    print(f"{'kernel':<{width}}  {head}  {head}           +dynamic " + " ".join(f"{t:>6}" for t in TABLE))
    for (source, mangled), by_arch in kernels.items():
        name = short[mangled]
        rule = rules.find(name)
        used.add(rule and rule[0])
        bad = {a: list(broken(by_arch[a], rule[1], a) if rule else ["has no line in the rules"]) for a in by_arch}
        failures += [f"{name} ({source}) sm_{a}: {b}" for a in bad for b in bad[a]]
        n_bad += sum(bool(b) for b in bad.values())
        columns = [" ".join(f"{by_arch[a][what]:>4}" for a in archs) for what in ("regs", "blocks")]
        facts = by_arch[archs[-1]]
        least = " ".join(f"{min(f[t] for f in by_arch.values()):>6}" for t in TABLE)
        print(f"{name:<{width}}  {columns[0]}  {columns[1]}  {facts['threads'] or '-':>4} {facts['smem']:>5} {facts['dynamic']:>6} "
              f"{least}" + ("  BROKEN" if any(bad.values()) else ""))
    unused = [f"the line '{line[0]}' matches no kernel" for line in rules.lines if line[0] not in used and line[0] != "*"]
    for f in failures + unused:
        print("form: " + f)
    checks = len(kernels) * len(archs)
    return finish(checks - n_bad, n_bad + len(unused), 0)


def finish(passed, failed, skipped):
    if os.environ.get("HG_TEST_SUMS"):
        with open(os.environ["HG_TEST_SUMS"], "a", encoding="utf-8") as f:
            f.write(f"{passed} {failed} {skipped}\n")
    print(f"form: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--out", default="build/form")
    parser.add_argument("--rules", default="kernels/cuda/form.txt")
    parser.add_argument("arch", nargs="+", type=int, choices=sorted(LIMITS))
    args = parser.parse_args()
    if not shutil.which(args.nvcc):
        print("SKIP: the form of the CUDA kernels: nvcc is not found (set NVCC=)")
        return finish(0, 0, 1)
    os.makedirs(args.out, exist_ok=True)
    return report(collect(args, sorted(glob.glob("kernels/cuda/*.cu"))), Rules(args.rules), args.arch)


sys.exit(main())
