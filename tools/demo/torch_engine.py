"""The exported model in PyTorch (FP32 arithmetic on the stored weights), driven like `healthgpt batch`.

A twin for development and for checking the export: it reads only the files of
the model folder, in the published names.
"""
import json
import os

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import lm
import prompt
import vit
import vqgan

PREFIX = "base_model.model.model."


def load_codec(folder):
    """VQGAN from vqgan/last.ckpt; the codebook comes from quantize.embed."""
    sd = torch.load(os.path.join(folder, "vqgan", "last.ckpt"), weights_only=True)["state_dict"]
    m = vqgan.VQGAN()
    m.load_state_dict({k: v for k, v in sd.items() if not k.startswith("quantize.")}, strict=False)
    m.cb.copy_(sd["quantize.embed.weight"])
    return m.eval()


def preprocess(path):
    """PNG -> [1,1,64,64] grey in 0..1: square padding, Pillow bicubic (drawings here are grey)."""
    im = Image.open(path).convert("RGB")
    w, h = im.size
    if w != h:
        side = max(w, h)
        canvas = Image.new("RGB", (side, side), (122, 116, 104))
        canvas.paste(im, ((side - w) // 2, (side - h) // 2))
        im = canvas
    if im.size != (64, 64):
        im = im.resize((64, 64), Image.BICUBIC)
    return torch.from_numpy(np.asarray(im)[..., 1].copy()).float()[None, None] / 255


class TorchEngine:
    def __init__(self, folder):
        torch.set_num_threads(1)
        with open(os.path.join(folder, "healthgpt.json")) as f:
            self.card = json.load(f)
        with open(os.path.join(folder, "llm", "tokenizer.model"), "rb") as f:
            self.tok = prompt.Tokenizer(f.read())
        self.base = lm.LM(prompt.V_BASE).eval()
        sd = load_file(os.path.join(folder, "llm", "model.safetensors"))
        name = lambda k: {"model.embed_tokens.weight": "tables.embed.weight", "lm_head.weight": "tables.head.weight"}.get(k, k.replace("model.", "", 1))
        self.base.load_state_dict({name(k): v.float() for k, v in sd.items()})
        self.tower = vit.ViT().eval()
        sd = load_file(os.path.join(folder, "vision", "model.safetensors"))
        self.tower.load_state_dict({k.replace("vision_model.", ""): v.float() for k, v in sd.items()})
        self.plugs, self.codec = {}, load_codec(folder)
        for kind, task in (("com", "comprehension"), ("gen", "generation")):
            sd = torch.load(os.path.join(folder, self.card["tasks"][task]["hlora"]), weights_only=True)
            plug = lm.Plugin(kind).eval()
            for k, p in plug.named():
                p.data = sd.pop(PREFIX + k).float()
            assert not sd, "unexpected tensors %s" % list(sd)
            self.plugs[kind] = plug
        sd = torch.load(os.path.join(folder, self.card["tasks"]["generation"]["fusion"]), weights_only=True)
        self.fusion = lm.Tables(prompt.V_FULL)
        self.fusion.embed.weight.data = sd[PREFIX + "embed_tokens.weight"].float()
        self.fusion.head.weight.data = sd[PREFIX.removesuffix("model.") + "lm_head.weight"].float()
        self.features = {}

    @torch.no_grad()
    def feature(self, path, layer):
        if (path, layer) not in self.features:
            self.features[path, layer] = self.tower.features(preprocess(path), layer)
        return self.features[path, layer]

    @torch.no_grad()
    def run(self, requests):
        """List of request dictionaries -> {id: answer dictionary}."""
        groups, out = {}, {}
        for r in requests:
            gen = r["task"] == "draw"
            ids = prompt.prompt_ids(self.tok, r["question"], len(r["images"]), gen)
            key = (gen, len(ids), len(r["images"]), r.get("plugin"), r.get("temperature", 0.0), r.get("max_tokens", 64))
            groups.setdefault(key, []).append((r, ids))
        for (gen, _, images, plugin, temperature, limit), rows in groups.items():
            for k in range(0, len(rows), 64):
                self._batch(rows[k:k + 64], gen, images, plugin != "none", temperature, limit, out)
        return out

    def _batch(self, rows, gen, images, plugged, temperature, limit, out):
        plug = self.plugs["gen" if gen else "com"]
        self.base.attach(plug if plugged else None)
        ids, tables = torch.tensor([i for _, i in rows]), self.fusion if gen else self.base.tables
        layer = self.card["tasks"]["generation" if gen else "comprehension"]["vision_layer"]
        feats = None
        if images:
            feats = plug.mm_projector(torch.cat([self.feature(p, layer) for r, _ in rows for p in r["images"]]))
        if gen:
            rng = torch.Generator().manual_seed(int(rows[0][0].get("seed", 0)))
            got = self.base.generate(ids, feats, tables, 64, temperature, True, rng) - prompt.IDX
            pixels = self.codec.decode(got)
            for (r, _), idx, px in zip(rows, got.tolist(), pixels):
                Image.fromarray((px[0] * 255).round().byte().numpy()).convert("RGB").save(r["output"])
                out[r["id"]] = {"id": r["id"], "output": r["output"], "indices": idx}
            return
        scores = []
        got = self.base.generate(ids, feats, tables, limit, 0.0, scores=scores)
        top = [torch.log_softmax(s[:, :prompt.N_BASE], -1).topk(20) for s in scores[:1]]
        for i, (r, _) in enumerate(rows):
            seq = got[i].tolist()
            stop = next((j for j, t in enumerate(seq) if t in (prompt.N_PIECES, prompt.N_PIECES + 1, prompt.END)), len(seq))
            first = [{"id": int(t), "logprob": float(v)} for t, v in zip(top[0].indices[i], top[0].values[i])]
            out[r["id"]] = {"id": r["id"], "text": self.tok.decode(seq[:stop]), "ids": seq[:stop], "top_logprobs": [first]}
