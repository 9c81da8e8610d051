#!/usr/bin/env python3
"""Goldens of model/vision.c and model/projector.c: transformers' CLIPVisionModel and a torch MLP in
double precision, on random weights that tests/model make alike.

    python tools/oracle/clip_oracle.py      writes tests/golden/vision
"""
import os

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from standard_weights import randomise, store
from weights import tensor

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/vision")
CONFIG = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=5, num_attention_heads=4,
              image_size=24, patch_size=8, hidden_act="quick_gelu", layer_norm_eps=1e-5)
PROJECTED, ROWS = 40, 9


def short(name):
    return name.removeprefix("vision_model.")


def main():
    torch.set_num_threads(1)
    model = CLIPVisionModel(CLIPVisionConfig(**CONFIG))
    model.set_attn_implementation("eager")
    randomise(model, short)
    mlp = torch.nn.Sequential(torch.nn.Linear(CONFIG["hidden_size"], PROJECTED), torch.nn.GELU(),
                              torch.nn.Linear(PROJECTED, PROJECTED))
    randomise(mlp, lambda name: "model.mm_projector." + name)
    pixels = torch.from_numpy(tensor("pixels", (1, 3, 24, 24), 2.0)).double()
    x = torch.from_numpy(tensor("features", (ROWS, CONFIG["hidden_size"]), 2.0)).double()
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states
        assert len(hidden) == CONFIG["num_hidden_layers"] + 1
        store(os.path.join(FOLDER, "tiny_clip.safetensors"), hidden__0=hidden[0][0, 1:],
              hidden__1=hidden[1][0, 1:], hidden__4=hidden[-2][0, 1:], projected=mlp(x))


main()
