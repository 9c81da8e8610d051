"""What the results say: one line per figure, the gates of the design, a plot of the shares."""
import plot

# (what, gate, goal, how to read it; larger is better?) for a card that reads 4.2 TB/s (H200): performance.md 3.3
GATES = (("M3 bf16 B=1 step, ms", 3.1, 2.4, lambda f: f.step("model", "comprehension", 1), False),
         ("M3 fp8 B=1 step, ms", 2.0, 1.5, lambda f: f.step("dtypes", "comprehension", 1, "fp8"), False),
         ("M3 bf16, int8 KV, B=32 step, ms", 5.5, 4.2, lambda f: f.step("dtypes", "comprehension", 32, "bf16", "int8"), False),
         ("L14 bf16 B=1 step, ms", 9.6, 7.9, lambda f: f.step("l14", "comprehension", 1), False),
         ("H-LoRA generation M3 B=1, % more", 20, 13, lambda f: f.overhead("model", "generation"), False),
         ("H-LoRA comprehension M3 B=1, % more", 8, 4, lambda f: f.overhead("model", "comprehension"), False),
         ("H-LoRA comprehension L14 B=1, % more", 8, 4, lambda f: f.overhead("l14", "comprehension"), False),
         ("mixed B=8 against two steps of 4, times", 1.4, 1.55, lambda f: f.row("model", "mixed", 8)["against_halves"], True),
         ("prefill 700 comprehension M3, ms", 13.5, 10, lambda f: f.row("model", "comprehension", 1)["prefill_one_ms"], False),
         ("CLIP, 23 layers, 1 picture, ms", 2.3, 1.2, lambda f: f.stage("image")["pictures"]["vision_ms"], False),
         ("a picture, prompt 700, B=1, s", 3.4, 2.65, lambda f: f.row("image", "generation", 1)["image_ms"] / 1e3, False))


class Figures:
    """The results, asked by name; KeyError where a stage has not brought them."""

    def __init__(self, results):
        self.stages = results["stages"]

    def stage(self, name):
        return self.stages[name]

    def row(self, stage, plugin, sequences, dtype="bf16", kv="auto"):
        for r in self.stages[stage].get("runs", []):
            if (r["plugin"], r["sequences"], r["dtype"], r["kv_dtype"]) == (plugin, sequences, dtype, kv):
                return r
        raise KeyError(plugin)

    def step(self, *args):
        return self.row(*args)["step_ms_p50"]

    def overhead(self, stage, plugin):
        return 100 * (self.step(stage, plugin, 1) / self.step(stage, "none", 1) - 1)


def is_measured(stage):
    """Did the stage bring figures (on the emulation "cases" is a number)?"""
    return any(isinstance(stage.get(k), list) and stage[k] for k in ("runs", "cases", "rows"))


def gate_table(results):
    if results["backend"] != "cuda":
        return []
    figures, table = Figures(results), []
    for what, gate, goal, read, larger in GATES:
        try:
            value = read(figures)
        except (KeyError, TypeError):
            continue
        good = [value >= v if larger else value <= v for v in (goal, gate)]
        table.append("%-40s %9.2f %7g %7g  %s" % (what, value, gate, goal, "goal" if good[0] else "gate" if good[1] else "MISSED"))
    head = ["", "%-40s %9s %7s %7s" % ("gates (for an H200)", "measured", "gate", "goal")]
    return head + table if table else []


# ---- one line per figure ---------------------------------------------------------------------------------

def line(what, value, p10, p90, unit, floor, **more):
    spread = None if p10 is None else [p10, p90]
    return dict(more, what=what, value=value, unit=unit, spread=spread, floor=floor,
                percent=100 * floor / value if floor and value else None)


def kernel_lines(stage):
    for c in stage.get("cases", []):
        linear = c["op"] == "linear"
        yield line("%s %s" % (c["op"], " ".join(filter(None, (c.get("model"), c["shape"])))), c["us"], c["us_p10"], c["us_p90"],
                   "us", c.get("floor_us"), B=c["rows"], ctx=None if linear else c["context"], dtype=c["type"],
                   adapters=c.get("adapters"))


def run_lines(name, stage):
    for r in stage.get("runs", []):
        if "step_ms_p50" not in r:
            continue
        common = dict(B=r["sequences"], ctx=r["prompt_tokens"] + r["new_tokens"] / 2, dtype=r["dtype"], kv_dtype=r["kv_dtype"],
                      adapters=r["plugin"])
        yield line(name + " step", r["step_ms_p50"], r["step_ms_p10"], r["step_ms_p90"], "ms", r.get("step_floor_ms"), **common)
        yield line(name + " prefill", r["prefill_one_ms"], None, None, "ms", r.get("prefill_floor_ms"),
                   **dict(common, ctx=r["prompt_tokens"]))
        if r.get("image_ms"):
            yield line("whole picture", r["image_ms"], None, None, "ms", r.get("image_floor_ms"), **common)
    for key, what in (("vision", "CLIP and projector"), ("draw", "VQGAN decoder")):
        p = stage.get("pictures")
        if p:
            yield line(what, p[key + "_ms"], None, None, "ms", p.get(key + "_floor_ms"), B=1, ctx=None, dtype="bf16", adapters=None)


def torch_lines(name, stage):
    for r in stage.get("rows", []):
        for kind in ("eager", "graph", "compiled"):
            if r.get(kind + "_ms"):
                yield line("torch %s %s" % (kind, r["what"]), r[kind + "_ms"], r[kind + "_ms_p10"], r[kind + "_ms_p90"], "ms", None,
                           B=r["sequences"], ctx=r.get("context", r.get("tokens")), dtype="bf16", adapters=r["plugin"],
                           ours=r.get("ours_ms"))
        if "us" in r:
            yield line("torch sdpa %s %s" % (r["what"], r["shape"]), r["us"], r["us_p10"], r["us_p90"], "us", None, B=r["rows"],
                       ctx=r["keys"], dtype="f16", adapters=None)


def lines(results):
    """Every figure with what it needs to be read alone: commit, card, driver, clocks, B, ctx, dtype, adapters, floor, percent,
    spread (10th and 90th percentile)."""
    if results["backend"] != "cuda":
        return []
    stages = results["stages"]
    card = stages.get("machine", {}).get("card", {})
    found = []
    for name, stage in stages.items():
        if not is_measured(stage):
            continue
        if name == "bench":
            own = list(kernel_lines(stage))
        elif name == "cublaslt":
            own = [line("cuBLASLt %s %s" % (c["model"], c["shape"]), c["us"], c["us_p10"], c["us_p90"], "us", None, B=c["rows"],
                        ctx=None, dtype=c["type"], adapters="none") for c in stage["cases"]]
        elif "rows" in stage:
            own = list(torch_lines(name, stage))
        else:
            own = list(run_lines(name, stage))
        at = stage.get("clocks") or {}
        found += [dict(row, stage=name, commit=results["commit"], card=results["card"], driver=card.get("driver_version"),
                       clocks=[at.get("clocks.sm"), at.get("clocks.mem")]) for row in own]
    return found


# ---- plot ------------------------------------------------------------------------------------------------

def bars(results):
    out = []
    for row in lines(results):
        some = row["dtype"] == "bf16" and row["B"] in (1, 8, 64) and row["adapters"] in ("none", "gen")
        wanted = row["stage"] != "bench" or some or "attention" in row["what"]
        if row["percent"] and wanted:
            label = " ".join(str(v) for v in (row["what"], row["dtype"] if row["dtype"] != "bf16" else "", row["adapters"] or "",
                                              "B=%s" % row["B"]) if v)
            out.append((label, row["percent"] / 100, "%.4g %s" % (row["value"], row["unit"])))
    return out


def write_plot(results, path):
    """The path, or None where nothing was measured."""
    found = bars(results)
    if not found:
        return None
    with open(path, "w") as f:
        f.write(plot.svg("%s, %s: share of the floor" % (results["card"], results["commit"]), found))
    return path
