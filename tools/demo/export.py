"""Write the trained parts in the published layout (see docs/reference 2 and 7)."""
import json
import os
import zipfile

import torch
from safetensors.torch import save_file

import lm
import prompt
import vit
import vqgan

PREFIX = "base_model.model.model."
NOTICE = ("Demonstration only, not for clinical use. A toy model of about 5 million parameters trained on PneumoniaMNIST "
          "and on drawn phantoms; its answers and drawings must never be used for diagnosis or treatment.")
LICENSE = ("Weights CC BY 4.0. Trained on PneumoniaMNIST from MedMNIST v2 (Yang et al. 2023, CC BY 4.0), "
           "derived from Kermany et al. 2018 (CC BY 4.0), and on procedural phantoms.")


def _json(path, obj):
    with open(path, "w") as f:
        json.dump(obj, f, indent=1, ensure_ascii=False)
        f.write("\n")


def _half(t):
    return t.detach().to(torch.float16).contiguous()


def _brain(t):
    return t.detach().to(torch.bfloat16).contiguous().clone()


def save_torch(obj, path):
    """torch.save whose bytes do not depend on the path it is written to."""
    torch.save(obj, path)
    assert zipfile.is_zipfile(path)


def card():
    return {
        "format": 1, "name": "healthgpt-demo", "architecture": "healthgpt", "llm": "llm", "vision": "vision",
        "vqgan": {"path": "vqgan/last.ckpt", "norm_groups": vqgan.GROUPS, "grid": 8}, "template": "phi3_instruct",
        "rope_inv_freq": "fp32", "license": LICENSE, "notice": NOTICE,
        "tasks": {
            "comprehension": {"hlora": "com_hlora_weights.bin", "fusion": None, "alpha": lm.PLUGINS["com"]["alpha"],
                              "vision_layer": -2, "max_new_tokens": 64},
            "generation": {"hlora": "gen_hlora_weights.bin", "fusion": "fusion_layer_weights.bin",
                           "alpha": lm.PLUGINS["gen"]["alpha"], "vision_layer": 1, "max_new_tokens": 66}}}


def write_tokenizer(folder, model_bytes):
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(model_bytes)
    base = [t for t in prompt.added_tokens() if t[1] < prompt.N_BASE]
    _json(os.path.join(folder, "tokenizer_config.json"), {
        "add_bos_token": False, "add_eos_token": False,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": r,
                                          "single_word": False, "special": t != "</s>"} for t, i, r in base},
        "bos_token": "<s>", "chat_template": None, "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>",
        "legacy": False, "model_max_length": 1024, "pad_token": "<|endoftext|>", "padding_side": "left",
        "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False})
    special = lambda t: {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    _json(os.path.join(folder, "special_tokens_map.json"), {
        "bos_token": special("<s>"), "eos_token": special("<|endoftext|>"), "pad_token": special("<|endoftext|>"),
        "unk_token": special("<unk>")})
    _json(os.path.join(folder, "added_tokens.json"), {t: i for t, i, _ in base if i >= prompt.N_PIECES})


def write_llm(folder, model, model_bytes):
    os.makedirs(folder, exist_ok=True)
    eot, end = prompt.N_PIECES, prompt.END
    _json(os.path.join(folder, "config.json"), {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "embd_pdrop": 0.0, "eos_token_id": eot, "hidden_act": "silu", "hidden_size": lm.DIM, "initializer_range": 0.02,
        "intermediate_size": lm.FFN, "max_position_embeddings": 1024, "model_type": "phi3",
        "num_attention_heads": lm.HEADS, "num_hidden_layers": lm.LAYERS, "num_key_value_heads": lm.HEADS,
        "original_max_position_embeddings": 1024, "pad_token_id": eot, "resid_pdrop": 0.0, "rms_norm_eps": lm.EPS,
        "rope_scaling": None, "rope_theta": lm.THETA, "sliding_window": 1023, "tie_word_embeddings": False,
        "torch_dtype": "float16", "use_cache": True, "vocab_size": prompt.V_BASE})
    _json(os.path.join(folder, "generation_config.json"), {
        "bos_token_id": 1, "eos_token_id": [eot, eot + 1, end], "pad_token_id": eot})
    write_tokenizer(folder, model_bytes)
    table = lambda w: torch.cat([w[:prompt.N_BASE], w[:prompt.N_BASE].mean(0, keepdim=True).expand(prompt.V_BASE - prompt.N_BASE, -1)])
    out = {"model.embed_tokens.weight": _half(table(model.tables.embed.weight)),
           "lm_head.weight": _half(table(model.tables.head.weight)), "model.norm.weight": _half(model.norm.weight)}
    for n, layer in enumerate(model.layers):
        for k, p in layer.named_parameters():
            out["model.layers.%d.%s" % (n, k)] = _half(p)
    save_file(out, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def write_vision(folder, model):
    os.makedirs(folder, exist_ok=True)
    _json(os.path.join(folder, "config.json"), {
        "architectures": ["CLIPVisionModel"], "attention_dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": vit.DIM,
        "image_size": vit.SIZE, "intermediate_size": vit.FFN, "layer_norm_eps": 1e-5, "model_type": "clip_vision_model",
        "num_attention_heads": vit.HEADS, "num_channels": 3, "num_hidden_layers": vit.LAYERS, "patch_size": vit.PATCH,
        "projection_dim": vit.DIM, "torch_dtype": "float16"})
    _json(os.path.join(folder, "preprocessor_config.json"), {
        "crop_size": {"height": vit.SIZE, "width": vit.SIZE}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": list(vit.MEAN),
        "image_processor_type": "CLIPImageProcessor", "image_std": list(vit.STD), "resample": 3,
        "rescale_factor": 1 / 255, "size": {"shortest_edge": vit.SIZE}})
    save_file({"vision_model." + k: _half(v) for k, v in model.state_dict().items()},
              os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def write_vqgan(folder, model, step):
    os.makedirs(folder, exist_ok=True)
    save_torch({"epoch": 0, "global_step": step, "pytorch-lightning_version": "1.0.8",
                "state_dict": model.state_for_export()}, os.path.join(folder, "last.ckpt"))
    c = vqgan.DDCONFIG
    lines = ["model:", "  base_learning_rate: 4.5e-06", "  target: taming.models.vqgan.GumbelVQ", "  params:",
             "    kl_weight: 1.0e-08", "    embed_dim: %d" % c["z_channels"], "    n_embed: %d" % vqgan.CODES,
             "    monitor: val/rec_loss", "    ddconfig:"]
    for k, v in c.items():
        if isinstance(v, list):
            lines += ["      %s:" % k] + ["      - %d" % i for i in v] if v else ["      %s: []" % k]
        else:
            lines.append("      %s: %s" % (k, str(v).lower() if isinstance(v, bool) else v))
    lines += ["    lossconfig:", "      target: taming.modules.losses.vqperceptual.DummyLoss"]
    with open(os.path.join(folder, "model.yaml"), "w") as f:
        f.write("\n".join(lines) + "\n")


def export(out, base, com, gen, fusion, vision, codec, step, model_bytes):
    """All weight files and configurations of the demo model."""
    os.makedirs(out, exist_ok=True)
    _json(os.path.join(out, "healthgpt.json"), card())
    write_llm(os.path.join(out, "llm"), base, model_bytes)
    write_vision(os.path.join(out, "vision"), vision)
    write_vqgan(os.path.join(out, "vqgan"), codec, step)
    for name, plug in (("com", com), ("gen", gen)):
        save_torch({PREFIX + k: _brain(p) for k, p in plug.named()}, os.path.join(out, name + "_hlora_weights.bin"))
    save_torch({PREFIX + "embed_tokens.weight": _half(fusion.embed.weight), PREFIX.removesuffix("model.") + "lm_head.weight": _half(fusion.head.weight)},
               os.path.join(out, "fusion_layer_weights.bin"))
    write_vectors(os.path.join(out, "tokenizer_vectors.json"), prompt.Tokenizer(model_bytes))


TEXTS = [
    "Is there evidence of pneumonia?", "Yes", "No", "X-ray", "What modality is this?", " ", "  two  spaces ", "a", "\n",
    "line one\nline two", "\ttab", "Draw three circles.", "Draw a brain slice with a lesion on the left.", "1234567890",
    "64 by 64 pixels", "(A) pneumonia (B) normal", "Caf\u00e9 na\u00efve", "\u65e5\u672c\u8a9e", "\U0001fa7a stethoscope", "\u0440\u0435\u043d\u0442\u0433\u0435\u043d",
    "mark \u2581 in text", "<|end|> inside", "<|user|>\n  strip me", "a<|end|>  b", "a<|endoftext|>  b", "</s>   x", "<s>  x", "<unk>  x",
    "<idx_7>", "<idx_255><end_index>", "<start_index> <pixel_newline>", "<idx_256>", "<|assistant|>\n<start_index>",
    "<|placeholder1|><|placeholder6|>", "UPPER lower MiXeD", "tail space ", "...", "e\u0301 combining", "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~",
    "pneumonia pneumonia pneumonia", "zzzzqqqq", "\u00a0nbsp\u3000wide", "<|end|>\u00a0\u3000text", "A low rank plug-in with several experts.",
]


def write_vectors(path, tok):
    """Test vectors for the server's tokenizer: chunk ids and whole prompts (-200 = image)."""
    def whole(q, n, generate):
        ids = []
        for k, c in enumerate((prompt.template(q, n) + ("<start_index>" if generate else "")).split("<image>")):
            ids += ([-200] if k else []) + tok.chunk(c)
        return {"question": q, "images": n, "generate": generate, "ids": ids}
    prompts = [whole("Is there evidence of pneumonia?", 1, False), whole("Which image has more circles?", 2, False),
               whole("What is pneumonia?", 0, False), whole("Draw a chest X-ray with pneumonia.", 0, True),
               whole("Reconstruct the image.", 1, True), whole("  leading space", 1, False), whole("trailing space  ", 1, False),
               whole("Where is the lesion? (A) top left (B) top right (C) bottom left (D) bottom right", 1, False)]
    answers = [{"text": t, "ids": tok.answer(t)} for t in ("Yes", "No", "Clear lungs", "A drawing of three circles.", "Top left")]
    groups = {"chunks": [{"text": t, "ids": tok.chunk(t)} for t in TEXTS], "prompts": prompts, "answers": answers}
    with open(path, "w") as f:   # one vector per line
        f.write('{"comment": "chunks: ids of one chunk, leading mark included; prompts: -200 stands for an image"')
        for k, rows in groups.items():
            f.write(',\n "%s": [\n  ' % k + ",\n  ".join(json.dumps(r, ensure_ascii=False) for r in rows) + "]")
        f.write("}\n")
