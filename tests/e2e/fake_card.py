"""Programs of a machine with a GPU that does not exist: for each name that tools/gpu/check.py calls, output in the form of the
real program. It lets the parts of the programme run that only a card reaches: tables, floors, gates, lines, plot. The figures
are made up, and only ever lie in a temporary folder."""
import json
import os
import sys

FIELDS = {"name": "Made-up Card", "driver_version": "1.2.3", "clocks.sm": "1500 MHz", "clocks.mem": "2600 MHz"}


def show(**row):
    print(json.dumps(row))


def option(args, name, default=""):
    return args[args.index(name) + 1] if name in args else default


def times(us):
    return dict(us=us, us_p10=0.9 * us, us_p90=1.1 * us)


def nvidia_smi(args):
    fields = args[0].split("=")[1].split(",")
    print(", ".join(FIELDS.get(f, "7") for f in fields))


def kernel_bench(args):
    for rows in (1, 64):
        for shape in ("qkv", "o", "gate_up", "down"):
            for adapters in ("none", "com", "gen"):
                show(op="linear", model="m3", shape=shape, n=9216, k=3072, type="bf16", rows=rows, adapters=adapters, weights=9,
                     bytes=57e6, flops=57e6 * rows, **times(20))
    for op, shape, rows in (("attention", "mha32x96", 1), ("attention", "mha32x96", 8), ("prefill_attention", "mha32x96", 700),
                            ("dense_attention", "clip", 577)):
        show(op=op, shape=shape, type="f16", context=1024, rows=rows, bytes=1e8, flops=1e9, **times(50))


def healthgpt(args):
    dtype, kv = option(args, "--dtype"), option(args, "--kv-dtype")
    if dtype == "int4":  # as a build without it
        sys.exit("healthgpt bench: dtype: expected auto or f32, got \"int4\"")
    for plugin in option(args, "--plugins").split(","):
        for n in map(int, option(args, "--batches").split(",")):
            step = 2.5 + 0.1 * n + (plugin != "none") * 0.2
            if plugin == "mixed" and n == 1:
                continue
            show(plugin=plugin, sequences=n, prompt_tokens=int(option(args, "--prompt-tokens")),
                 new_tokens=int(option(args, "--max-tokens")), dtype=dtype, kv_dtype=kv, prefill_ms=11.0 * n, total_ms=200.0,
                 step_ms_p10=0.95 * step, step_ms_p50=step, step_ms_p90=1.05 * step, step_bytes=7.5e9)
    if "--images" in args:
        show(vision_side=336, vision_ms=1.5, drawn_side=256, draw_ms=2.5)


def greedy(args):
    show(task=args[3], prompt=[1], steps=[{"id": 1, "top": [[1, -0.5]]}])


def gemm(args):
    show(cublaslt=130000)
    for rows in (1, 64):
        show(model="m3", shape="qkv", n=9216, k=3072, type="bf16", rows=rows, bytes=57e6, flops=1e9, algorithms=8, **times(25))


def torch(args):
    """The Python that has torch, and its scripts."""
    script = os.path.basename(args[0])
    if script == "torch_parity.py":
        show(task=json.loads(sys.stdin.readline())["task"], tokens=1, prompt=1, equal=1, largest_gap=0, worst_logprob=1e-4,
             bound=0.05, ok=True)
    elif args[0] == "-c":
        print("/made/up")
    elif args[1] == "gemm":
        show(what="gemm", ms=1.4, flops=7.8e14, torch="2")
    elif args[1] == "attention":
        show(what="decode", shape="mha32x96", sequences=8, rows=8, keys=1024, torch="2", **times(80))
    else:
        kinds = ("compiled",) if args[1] == "compiled" else ("eager", "graph")
        ms = {k + tail: 5.0 for k in kinds for tail in ("_ms", "_ms_p10", "_ms_p90")}
        show(what="decode", shape=args[2], plugin="comprehension", sequences=1, context=732, torch="2", **ms)


def ncu(args):
    print('"1","hlora_linear","dram__bytes_read.sum","Mbyte","56.5"\n"1","hlora_linear","dram__bytes_write.sum","Kbyte","400"')
    kernel_bench(args)


def random_model(args):
    os.makedirs(args[0], exist_ok=True)


def peak(args):
    show(card="Made-up Card", read=4.2e12, copy=4.0e12, launch_us=1.3)


def test(args):
    print("1..1\nok 1 - made up")


PROGRAMS = {"nvidia-smi": nvidia_smi, "kernel-bench": kernel_bench, "healthgpt": healthgpt, "greedy": greedy, "gpu-gemm": gemm,
            "torch-python": torch, "ncu": ncu, "random-model": random_model, "gpu-peak": peak, "compute-sanitizer": test}


def main():
    name = os.path.basename(sys.argv[0])
    PROGRAMS.get(name, test)(sys.argv[1:])


if __name__ == "__main__":
    main()
