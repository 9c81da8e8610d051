"""Goldens of the demo model, from its published-format files to tokens: tests/golden/demo/<mode>.json.

Modes: fp32 (logits compared within 1e-3, 256 greedy ids equal) and fp16, the reference's own run: every
tensor and every op in FP16, rotary frequencies rounded to FP16; there each step's gap between the two
best logits is kept, because ids must agree only up to the first step with a gap under 0.05
(reference.md 5.9). The picture is a formula (picture()), so that no file is needed."""
import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from llm import LLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "config/models/demo"
OUT = ROOT / "tests/golden/demo"
QUESTIONS = {0: "Is there evidence of pneumonia?", 1: "Reconstruct the image."}
N_TOKENS, KEPT_ROWS = {0: 256, 1: 64}, {0: (0, 1, 100, 255), 1: (0, 1, 30, 63)}


def picture(width=52, height=44):
    y, x = np.mgrid[0:height, 0:width]
    lungs = 200 - 130 * np.exp(-((np.abs(x - 26) - 12)**2 / 60 + (y - 22)**2 / 160))
    return np.stack([np.floor(lungs + ((3 * x + 5 * y) % 7)).astype(np.uint8)] * 3, -1)


def preprocess(rgb, config):
    h, w = rgb.shape[:2]
    side = max(h, w)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = (122, 116, 104)
    top, left = (side - h) // 2, (side - w) // 2
    square[top:top + h, left:left + w] = rgb
    n = config["size"]["shortest_edge"] if isinstance(config["size"], dict) else config["size"]
    small = np.asarray(Image.fromarray(square).resize((n, n), Image.BICUBIC))
    v = (small.astype(np.float64) * (1 / 255)).astype(np.float32)
    v = (v - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return torch.from_numpy(v.transpose(2, 0, 1))[None]


def strip(name):
    return name.removeprefix("base_model.model.")


def load():
    card = json.loads((MODEL / "healthgpt.json").read_text())
    base = {k: v.float() for k, v in load_file(MODEL / "llm/model.safetensors").items()}
    plugs, tables, projectors = {}, {}, {}
    for slot, task in enumerate(("comprehension", "generation")):
        t, d = card["tasks"][task], {}
        for name in (t["hlora"], t["fusion"]):
            if name:
                d.update(torch.load(MODEL / name, map_location="cpu", weights_only=True))
        d = {strip(k): v.float() for k, v in d.items()}
        plugs[slot] = ({k: v for k, v in d.items() if "lora_" in k}, t["alpha"])
        tables[slot] = {k: v for k, v in d.items() if k.endswith(("embed_tokens.weight", "lm_head.weight"))}
        projectors[slot] = [d["model.mm_projector.%s" % n] for n in ("0.weight", "0.bias", "2.weight", "2.bias")]
    return card, base, plugs, tables, projectors


def vision_tower():
    import transformers

    config = json.loads((MODEL / "vision/config.json").read_text())
    tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(
        **{k: v for k, v in config.items() if k not in ("model_type", "architectures", "torch_dtype")},
        attn_implementation="eager")).eval()
    w = load_file(MODEL / "vision/model.safetensors")
    state = tower.state_dict()
    prefix = "" if any(k.startswith("vision_model.") for k in state) else "vision_model."
    state.update({k.removeprefix(prefix): v.float() for k, v in w.items() if "position_ids" not in k})
    tower.load_state_dict(state)
    return tower


def features(tower, pixels, layer, projector):
    hidden = tower(pixels, output_hidden_states=True).hidden_states[layer][0, 1:]
    w0, b0, w2, b2 = (p.to(hidden.dtype) for p in projector)
    y = torch.nn.functional.gelu(hidden @ w0.T + b0)
    return y @ w2.T + b2


def prompt_ids(slot):
    sys.path.insert(0, str(ROOT / "tools/demo"))
    import prompt

    tok = prompt.Tokenizer((MODEL / "llm/tokenizer.model").read_bytes())
    ids = prompt.prompt_ids(tok, QUESTIONS[slot], 1, slot == 1)
    first = ids.index(-1)
    return prompt, ids[:first] + [-200] + [i for i in ids[first:] if i >= 0]


@torch.no_grad()
def run(mode):
    half = mode == "fp16"
    card, base, plugs, tables, projectors = load()
    config = json.loads((MODEL / "llm/config.json").read_text())
    model = LLM(config, base, plugs, tables, half, "fp16" if half else card["rope_inv_freq"])
    tower = vision_tower()
    pixels = preprocess(picture(), json.loads((MODEL / "vision/preprocessor_config.json").read_text()))
    if half:
        tower, pixels = tower.half(), pixels.half()
    out = []
    for slot, task in enumerate(("comprehension", "generation")):
        constants, ids = prompt_ids(slot)
        rows = features(tower, pixels, card["tasks"][task]["vision_layer"], projectors[slot])
        at = ids.index(-200)
        x = torch.cat([model.embed(torch.tensor(ids[:at]), slot), rows,
                       model.embed(torch.tensor(ids[at + 1:]), slot)])
        lo, hi = (0, constants.START) if slot == 0 else (constants.IDX, constants.END_INDEX)
        tokens, logits = model.greedy(x, slot, N_TOKENS[slot], lo, hi)
        top = logits.topk(2, -1).values
        entry = {"question": QUESTIONS[slot], "prompt": ids, "ids": tokens,
                 "gaps": [round(g, 4) for g in (top[:, 0] - top[:, 1]).tolist()]}
        rows = (0, 1, 2, 10) if half else KEPT_ROWS[slot]
        entry["logits"] = {str(r): [round(v, 5) for v in logits[r].tolist()] for r in rows}
        print("demo %s %s: smallest gap %.4f" % (mode, task, (top[:, 0] - top[:, 1]).min()))
        out.append(entry)
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for mode in ("fp32", "fp16"):
        (OUT / (mode + ".json")).write_text(json.dumps(run(mode), separators=(",", ":")) + "\n")
