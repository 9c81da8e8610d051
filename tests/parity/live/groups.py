"""groups.py FORWARD GROUP SEED COUNT - one group of tests/parity/live/main.py, in a Python with torch."""
import random
import sys

import numpy as np
import torch

from draw import Folder, Plugged, Tally, answers, double_sums, forward, gaps, plug_in, save_llm, unit_gain, write_card
from twins import VQGAN, projector, vqgan_shapes

LOGITS, STRICT, CERTAIN = 1e-3, 0.06, 0.05  # issue; reference.md 5.9 (a), (b)
EXACT = "strict first steps equal to the bit, sums in double"
PHI3 = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
QWEN2 = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def raw(path, array, kind="<f4"):
    path.write_bytes(np.ascontiguousarray(np.asarray(array), kind).tobytes())
    return str(path)


# ---- language models


def llm_config(rng, case):
    p = rng.choice([32, 48, 64, 80, 96, 128])
    kv = rng.choice([1, 2, 3])
    group = rng.choice([1, 1, 2, 4, 5] if p < 96 else [1, 2])
    c = dict(num_attention_heads=kv * group, num_key_value_heads=kv, hidden_size=p * kv * group,
             intermediate_size=rng.randrange(40, 400), num_hidden_layers=rng.choice([1, 2, 3, 4]), vocab_size=rng.randrange(65, 900),
             rope_theta=rng.choice([1e4, 2.5e5, 1e6, float(rng.randrange(500, 90000))]), rms_norm_eps=rng.choice([1e-5, 1e-6]),
             max_position_embeddings=rng.choice([512, 4096]), initializer_range=0.02, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    if case == 0:  # the window of the published model, past its edge
        c.update(num_attention_heads=2, num_key_value_heads=2, hidden_size=64, num_hidden_layers=2, max_position_embeddings=4096)
    return c


def phi3(rng, case):
    import transformers

    c = llm_config(rng, case)
    c["sliding_window"] = 2047 if case == 0 else rng.choice([None, 3, rng.randrange(5, 60), 2047])
    config = transformers.Phi3Config(**c, attn_implementation="eager")
    return transformers.Phi3ForCausalLM(config), 2100 if case == 0 else rng.randrange(2, 90)


def qwen2(rng, case):
    import transformers

    c = llm_config(rng, case + 1)
    # 4.49 masks by sliding_window even where use_sliding_window is false; XL32's 131072 lies beyond its context
    config = transformers.Qwen2Config(**c, sliding_window=131072, use_sliding_window=False, attn_implementation="sdpa",
                                      tie_word_embeddings=rng.random() < 0.2)
    return transformers.Qwen2ForCausalLM(config), rng.randrange(2, 90)


def compare_strict(tally, ours, theirs, what):
    """reference.md 5.9: ids up to the first step that is not certain, logits as far as ids agree."""
    ids, logits = theirs
    gap = gaps(logits)
    same = next((i for i, (a, b) in enumerate(zip(ours[0], ids)) if a != b), len(ids))
    if same < len(ids) and gap[:same + 1].min() >= CERTAIN:
        tally.bad.append("%s: strict: token %d differs though all gaps are over %g" % (what, same, CERTAIN))
    rows = min(same + 1, len(ids))
    tally.share("strict equal bits", (ours[1][:rows] == logits[:rows]).sum().item(), logits[:rows].numel())
    tally.add("strict |dlogit|", (ours[1][:rows] - logits[:rows]).abs().max().item(), STRICT, what, same)
    tally.add("strict first step", (ours[1][0] - logits[0]).abs().max().item(), STRICT, what)


def llm_case(program, tally, make, linears, rng, case):
    g = torch.Generator().manual_seed(rng.randrange(1 << 31))
    model, n_prompt = make(rng, case)
    model = model.eval()
    unit_gain(model, g)
    with Folder() as d:
        stored = save_llm(model, d / "llm", rng)
        n, rows = model.config.vocab_size, [0, 0]
        rows[1] = 0 if model.config.tie_word_embeddings else rng.choice([0, n + rng.randrange(1, 40)])
        plugs, tables, tasks = {}, {}, []
        for slot in range(1 if rng.random() < 0.4 else 2):
            files, plugs[slot], tables[slot], alpha = plug_in(model, linears, slot, rows[slot], g, rng)
            torch.save(files, d / ("plug%d.bin" % slot))
            tasks.append(("plug%d.bin" % slot, alpha))
        write_card(d, "random", tasks + [None] * (2 - len(tasks)))
        n_new = 12 if case == 0 and n_prompt > 1000 else 40
        asked = [(None, 0)] + [(s, s) for s in plugs]
        sequences = [{"task": t, "plugin": s is not None, "ids": [rng.randrange(n) for _ in range(n_prompt)], "n_new": n_new}
                     for s, t in asked]
        base = {"kind": "llm", "model": str(d), "sequences": sequences}
        jobs = [dict(base, backend=b, dtype="f32") for b in ("ref", "cpu")] + [dict(base, backend="ref", numerics="strict")]
        ours = [answers(x) for x in forward(program, jobs)]
    plugged, what = Plugged(model, plugs, tables), "case %d" % case
    theirs = [plugged.greedy(q["ids"], s, n_new) for q, (s, _) in zip(sequences, asked)]
    smallest = min(gaps(t[1]).min().item() for t in theirs)
    for backend, mine in zip(("ref", "cpu"), ours):
        for (ids, logits), (their_ids, their_logits), (slot, _) in zip(mine, theirs, asked):
            tally.equal(ids, their_ids, gaps(their_logits), "%s %s plug-in %s" % (what, backend, slot))
            tally.add("fp32 |dlogit| " + backend, (logits - their_logits).abs().max().item(), LOGITS, what, len(ids))
    model.half()
    plugged.tables = {s: {k: v.half() for k, v in t.items()} for s, t in tables.items()}
    plugged.base = {k: v.half() for k, v in plugged.base.items()}
    for mine, q, (slot, _) in zip(ours[2], sequences, asked):
        compare_strict(tally, mine, plugged.greedy(q["ids"], slot, n_new), "%s plug-in %s" % (what, slot))
        with double_sums():
            first = plugged.greedy(q["ids"], slot, 1)[1][0]
        tally.share(EXACT, int((mine[1][0] == first).all()), 1)
    c = model.config
    print("# %s %d: D %d, heads %d / %d, F %d, V %d, layers %d, theta %g, eps %g, window %s, %s, plug-ins %d, prompt %d, gap %.1e" % (
        tally.group, case, c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.intermediate_size, c.vocab_size,
        c.num_hidden_layers, c.rope_theta, c.rms_norm_eps, c.sliding_window if tally.group == "phi3" else None, stored, len(plugs),
        n_prompt, smallest), flush=True)


def generate_case(program, tally, rng, case):
    """XL32's inherited settings: repetition penalty over generated ids only (embeddings go in), a list of stop ids."""
    g = torch.Generator().manual_seed(rng.randrange(1 << 31))
    model, n_prompt = qwen2(rng, case)
    unit_gain(model.eval(), g)
    ids, n_new = [rng.randrange(model.config.vocab_size) for _ in range(n_prompt)], 40
    settings = model.generation_config
    settings.repetition_penalty, settings.eos_token_id, settings.pad_token_id = rng.choice([1.05, 1.3, 2.0]), None, 0

    def run():
        x = model.get_input_embeddings()(torch.tensor([ids]))
        with torch.no_grad():
            return model.generate(inputs_embeds=x, attention_mask=torch.ones(1, n_prompt), do_sample=False, max_new_tokens=n_new)[0].tolist()

    with Folder() as d:
        save_llm(model, d / "llm", rng)
        stop = run()[rng.randrange(10, 40)]
        settings.eos_token_id = stop if case % 2 else [model.config.vocab_size - 1, stop]
        settings.save_pretrained(d / "llm")
        theirs = run()
        write_card(d, "generate", [(None, 0), None])
        jobs = [{"kind": "llm", "model": str(d), "backend": b, "dtype": "f32",
                 "sequences": [{"task": 0, "plugin": False, "ids": ids, "n_new": n_new, "stop": True}]} for b in ("ref", "cpu")]
        for job, data in zip(jobs, forward(program, jobs)):
            mine = answers(data)[0][0].tolist()
            tally.equal(mine, theirs, None, "generate %d %s" % (case, job["backend"]))
            tally.add("generate()", 0, 0, "", len(mine))


# ---- pieces


def clip_case(program, tally, attention, rng, case):
    import transformers

    g = torch.Generator().manual_seed(rng.randrange(1 << 31))
    heads, patch, grid = rng.choice([1, 2, 3, 4]), rng.choice([4, 7, 8, 14, 16]), rng.choice([1, 2, 3, 5, 7])
    c = transformers.CLIPVisionConfig(
        hidden_size=heads * rng.choice([16, 24, 32, 64, 80]), num_attention_heads=heads, intermediate_size=rng.randrange(30, 300),
        num_hidden_layers=rng.choice([2, 3, 4, 5]), image_size=patch * grid, patch_size=patch, hidden_act="quick_gelu",
        layer_norm_eps=rng.choice([1e-5, 1e-6]), attn_implementation=attention)
    if attention == "eager":
        c.attn_implementation = None
    model = transformers.CLIPVisionModel(c).eval()
    unit_gain(model, g)
    pixels = torch.randn(1, 3, patch * grid, patch * grid, generator=g)
    with Folder() as d:
        save_clip(model, d / "clip", rng)
        base = {"kind": "vision", "model": str(d / "clip"), "pixels": raw(d / "pixels", pixels), "sdpa": attention == "sdpa"}
        jobs = [dict(base, layer=layer, **how) for layer in (-2, 1) for how in
                ({"backend": "ref"}, {"backend": "cpu"}, {"backend": "ref", "numerics": "strict"})]
        ours = [np.frombuffer(x, "<f4") for x in forward(program, jobs)]
    for half in (False, True):
        if half:
            model, pixels = model.half(), pixels.half()
        with torch.no_grad():
            states = model(pixels, output_hidden_states=True).hidden_states
        for job, mine in zip(jobs, ours):
            if half != ("numerics" in job):
                continue
            theirs = states[job["layer"]][0, 1:].float().numpy()
            off, size = np.abs(mine.reshape(theirs.shape) - theirs), np.linalg.norm(theirs)
            if half:
                tally.add("strict rel. L2", float(np.linalg.norm(off) / size), 2e-3, "case %d" % case, theirs.shape[0])
                tally.add("strict |d|", float(off.max()), 0.06, "case %d" % case)
            else:
                tally.add("fp32 |d| " + job["backend"], float(off.max()), LOGITS, "case %d" % case, theirs.shape[0])


def save_clip(model, folder, rng):
    """The public tower is fp32, in pytorch_model.bin or in safetensors."""
    model.save_pretrained(folder, safe_serialization=rng.random() < 0.5)


def projector_case(program, tally, rng, case):
    g = torch.Generator().manual_seed(rng.randrange(1 << 31))
    n_in, n_out, rows = rng.randrange(3, 200), rng.randrange(3, 300), rng.randrange(1, 40)
    shapes = {"0.weight": (n_out, n_in), "0.bias": (n_out,), "2.weight": (n_out, n_out), "2.bias": (n_out,)}
    w = {"model.mm_projector." + k: torch.randn(s, generator=g) * (s[1] ** -0.5 if len(s) > 1 else 0.1) for k, s in shapes.items()}
    w = {k: v.to(torch.bfloat16) for k, v in w.items()}
    x = torch.randn(rows, n_in, generator=g).half().float()
    with Folder() as d:
        torch.save({"base_model.model." + k: v for k, v in w.items()}, d / "p.bin")
        base = {"kind": "projector", "weights": str(d / "p.bin"), "n_in": n_in, "n_out": n_out, "rows": rows, "x": raw(d / "x", x)}
        jobs = [dict(base, backend="ref"), dict(base, backend="cpu"), dict(base, backend="ref", numerics="strict")]
        ours = [torch.from_numpy(np.frombuffer(y, "<f4").copy()).reshape(rows, n_out) for y in forward(program, jobs)]
    exact = projector({k: v.double() for k, v in w.items()}, x.double())
    half = projector({k: v.float().half() for k, v in w.items()}, x.half()).float()
    for backend, y in zip(("ref", "cpu"), ours):
        tally.add("fp32 |d| " + backend, (y - exact).abs().max().item(), LOGITS, "case %d" % case, rows)
    tally.add("strict |d|", (ours[2] - half).abs().max().item(), 0.01, "case %d" % case, rows)


def vqgan_case(program, tally, rng, case):
    g = torch.Generator().manual_seed(rng.randrange(1 << 31))
    levels, groups = rng.choice([1, 2, 3, 4]), rng.choice([2, 4, 8])
    s = dict(groups=groups, ch=groups * rng.choice([2, 3, 4]), mult=[rng.choice([1, 1, 2, 4]) for _ in range(levels)],
             blocks=rng.choice([1, 2]), z=rng.randrange(4, 24), codes=rng.randrange(8, 120))
    s["attn"] = [i for i in range(levels) if rng.random() < 0.4]
    grid = rng.choice([2, 4, 5, 8])
    side = grid << (levels - 1)
    w = {}
    for name, shape in vqgan_shapes(s).items():
        t = torch.randn(shape, generator=g)
        gain = 1 + 0.1 * t if "norm" in name and name.endswith("weight") else 0.1 * t
        w[name] = gain if len(shape) == 1 else t * t[0].numel() ** -0.5
    codes = [rng.randrange(s["codes"]) for _ in range(grid * grid)]
    rgb = torch.randint(0, 256, (side, side, 3), generator=g)
    with Folder() as d:
        torch.save({"epoch": 3, "state_dict": dict(w, **{"loss.discriminator.main.0.weight": torch.zeros(2, 3, 4, 4)}),
                    "callbacks": {}, "optimizer_states": []}, d / "last.ckpt")
        base = {"weights": str(d / "last.ckpt"), "grid": grid, "groups": groups, "rgb": raw(d / "rgb", rgb, "u1"), "codes": codes}
        jobs = [dict(base, kind=k, backend=b) for k in ("decode", "encode") for b in ("ref", "cpu")]
        ours = forward(program, jobs)
    twin = VQGAN({k: v.double() for k, v in w.items()}, s)
    exact, scores = twin.levels(torch.tensor(codes), grid).numpy(), twin.scores(rgb.double())
    best = scores.argmax(0).numpy()
    for job, data in zip(jobs, ours):
        what = "case %d %s %s" % (case, job["kind"], job["backend"])
        if job["kind"] == "encode":
            tally.equal(np.frombuffer(data, "<i4"), best, gaps(scores.T), what)
            tally.add("codes " + job["backend"], 0, 0, what, len(best))
            continue
        mine = np.frombuffer(data, "u1").reshape(exact.shape).astype(float)
        beyond = np.maximum(mine - exact, exact - (mine + 1)).clip(0)  # how far from being its truncation
        tally.add("levels " + job["backend"], float(beyond.max()), 1e-2, what, mine.size)


def run(program, group, seed, count):
    tally = Tally(group)
    cases = {"phi3": lambda r, i: llm_case(program, tally, phi3, PHI3, r, i),
             "qwen2": lambda r, i: (llm_case(program, tally, qwen2, QWEN2, r, i), i % 4 or generate_case(program, tally, r, i // 4)),
             "clip": lambda r, i: clip_case(program, tally, "eager", r, i),
             "clip-sdpa": lambda r, i: clip_case(program, tally, "sdpa", r, i),
             "projector": lambda r, i: projector_case(program, tally, r, i),
             "vqgan": lambda r, i: vqgan_case(program, tally, r, i)}
    for i in range(count):
        cases[group](random.Random("%s %d %d" % (group, seed, i)), i)
    if count >= 10 and EXACT in tally.shares and not tally.shares[EXACT][0]:
        tally.bad.append("strict: no first step is equal to the bit: a rounding point is missing")
    return tally.end()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(0 if run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) else 1)
