#!/usr/bin/env python3
"""Train and export the demo model: all stages, two side by side, resumable.

    train.py --data DIR --work DIR --out DIR [--seed N] [--budget MIN]

A stage whose result lies in the work folder is not run again.  The VQGAN, the
CNNs and the base language model have one fixed seed; --seed chooses the vision
tower and both plug-ins.  --budget is minutes of CPU time per lane (two lanes); the
shares below sum to 80, the budget of the shipped weights.
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# lane, minutes of 80, result file, stages that must be ready before
STAGES = {
    "vqgan": ("a", 34, "vqgan_0.pt", ()),
    "tokens": ("a", 3, "tokens_0.pt", ("vqgan",)),
    "base": ("a", 12, "base.pt", ("tokens",)),
    "gen": ("a", 31, "gen_%d.pt", ("base", "vit")),
    "teacher": ("b", 5, "teacher.pt", ()),
    "judge": ("b", 4, "judge.pt", ()),
    "phantom_judge": ("b", 1.5, "phantom_judge.pt", ()),
    "vit": ("b", 23, "vit_%d.pt", ("teacher",)),
    "com": ("b", 32, "com_%d.pt", ("base", "vit")),
}


def result(work, stage, seed):
    name = STAGES[stage][2]
    return os.path.join(work, name % seed if "%" in name else name)


def run_stage(stage, a):
    """One stage in this process."""
    import judge
    import plugins
    import vit
    import vqgan
    log, minutes = lambda s: print(s, flush=True), STAGES[stage][1] * a.budget / 80
    {"vqgan": lambda: vqgan.train(a.data, a.work, 0, minutes, log=log),
     "tokens": lambda: plugins.load_tokens(a.data, a.work),
     "base": lambda: plugins.train_base(a.data, a.work, minutes, log),
     "gen": lambda: plugins.train_gen(a.data, a.work, a.seed, minutes, log),
     "teacher": lambda: judge.train_cnn(a.data, a.work, "teacher", 101, 32, minutes, log),
     "judge": lambda: judge.train_cnn(a.data, a.work, "judge", 202, 24, minutes, log),
     "phantom_judge": lambda: judge.train_phantom_judge(a.work, 303, minutes, log),
     "vit": lambda: vit.train(a.data, a.work, a.seed, minutes, log=log),
     "com": lambda: plugins.train_com(a.data, a.work, a.seed, minutes, log)}[stage]()
    open(result(a.work, stage, a.seed) + ".done", "w").close()


def export(a):
    import export as ex
    import plugins
    import vit
    import vqgan
    codec, ck = vqgan.load(a.work, 0)
    gen, tables = plugins.load_plugin(a.work, "gen", a.seed)
    with open(os.path.join(a.work, "tokenizer.model"), "rb") as f:
        model_bytes = f.read()
    ex.export(a.out, plugins.load_base(a.work), plugins.load_plugin(a.work, "com", a.seed)[0], gen, tables,
              vit.load(a.work, a.seed)[0], codec, ck["step"], model_bytes)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default=os.environ.get("DEMO_DATA", os.path.join(ROOT, "../shared/data")))
    p.add_argument("--work", default=os.environ.get("DEMO_WORK", os.path.join(ROOT, "build/demo")))
    p.add_argument("--out", default=os.path.join(ROOT, "config/models/demo"))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--budget", type=float, default=80)
    p.add_argument("--stage", choices=list(STAGES) + ["export"], help="run this stage only")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    if a.stage:
        return export(a) if a.stage == "export" else run_stage(a.stage, a)
    ready = {s for s in STAGES if os.path.exists(result(a.work, s, a.seed) + ".done")}
    busy, env = {}, dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    while len(ready) < len(STAGES):
        for stage, (lane, _, _, needs) in STAGES.items():
            if stage in ready or lane in busy or not set(needs) <= ready:
                continue
            print("start %s" % stage, flush=True)
            busy[lane] = stage, subprocess.Popen([sys.executable, __file__, "--stage", stage, "--data", a.data, "--work", a.work,
                                                  "--seed", str(a.seed), "--budget", str(a.budget)], env=env)
        for lane, (stage, proc) in list(busy.items()):
            if proc.poll() is not None:
                if proc.returncode:
                    sys.exit("stage %s failed" % stage)
                ready.add(stage)
                del busy[lane]
        time.sleep(0.5)
    export(a)


if __name__ == "__main__":
    main()
