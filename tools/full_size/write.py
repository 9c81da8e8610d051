#!/usr/bin/env python3
"""write.py VARIANT DIR [--fill PROGRAM] [--seed N] [--layers N] [--data DIR] - a model of random weights as the published one is laid out:
m3, l14 or xl32, every folder, file, name, shape and size. Without --fill the weights are holes: names and shapes alone, no disk used.
The tokenizers come from the data beside the project (--data, else $HG_SHARED/data); without it there are none. See docs/models.md."""
import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import containers
import models
import vocabularies

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Published sizes, in units of the listings (reference.md 2): a file that is not as large within a unit's half is not what was meant.
PUBLISHED = {
    "m3": {"llm/model-00001-of-00002.safetensors": (4.97, 1e9), "llm/model-00002-of-00002.safetensors": (2.67, 1e9),
           "com_hlora_weights.bin": (231, 1e6), "gen_hlora_weights.bin": (835, 1e6), "fusion_layer_weights.bin": (494, 1e6),
           "vision/pytorch_model.bin": (1.71, 1e9), "llm/generation_config.json": (172, 1)},
    "l14": {"com_hlora_weights_phi4.bin": (297, 1e6), "vision/pytorch_model.bin": (1.71, 1e9)},
    "xl32": {"com_hlora_weights_QWEN_32B.bin": (630, 1e6), "vision/pytorch_model.bin": (1.71, 1e9), "llm/generation_config.json": (243, 1)},
}


def put(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        if isinstance(value, str):
            f.write(value)
        else:
            json.dump(value, f, indent=2)
            f.write("\n")


def llm_config(variant, v):
    common = {"attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": v["dim"], "initializer_range": 0.02,
              "intermediate_size": v["ffn"], "num_attention_heads": v["heads"], "num_hidden_layers": v["layers"],
              "num_key_value_heads": v["kv_heads"], "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
              "vocab_size": v["vocab"]}
    own = {
        "m3": {"_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "bos_token_id": 1,
               "embd_pdrop": 0.0, "eos_token_id": 32000, "max_position_embeddings": 4096, "model_type": "phi3",
               "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
               "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "transformers_version": "4.40.2"},
        "l14": {"_name_or_path": "microsoft/phi-4", "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "bos_token_id": 100257,
                "embd_pdrop": 0.0, "eos_token_id": 100265, "max_position_embeddings": 16384, "model_type": "phi3",
                "original_max_position_embeddings": 16384, "pad_token_id": 100349, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
                "rope_scaling": None, "rope_theta": 250000, "sliding_window": None, "transformers_version": "4.47.0"},
        "xl32": {"architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645, "max_position_embeddings": 32768,
                 "max_window_layers": 70, "model_type": "qwen2", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                 "sliding_window": 131072, "transformers_version": "4.43.1", "use_sliding_window": False},
    }
    return dict(sorted({**common, **own[variant]}.items()))


GENERATION = {
    "m3": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [32000, 32001, 32007], "pad_token_id": 32000,
           "transformers_version": "4.39.3"},
    "l14": {"_from_model_config": True, "bos_token_id": 100257, "eos_token_id": 100265, "pad_token_id": 100349,
            "transformers_version": "4.47.0"},
    "xl32": {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
             "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0"},
}

CLIP_CONFIG = {
    "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 768,
    "text_config": {"hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
                    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
                    "projection_dim": 768, "vocab_size": 49408},
    "torch_dtype": "float32",
    "vision_config": {"hidden_act": "quick_gelu", "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
                      "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
                      "projection_dim": 768},
}
PREPROCESSOR = {"crop_size": 336, "do_center_crop": True, "do_normalize": True, "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 336}
MODEL_YAML = """model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.GumbelVQ
  params:
    kl_weight: 1.0e-08
    embed_dim: 256
    n_embed: 8192
    monitor: val/rec_loss
    ddconfig:
      double_z: false
      z_channels: 256
      resolution: 256
      in_channels: 3
      out_ch: 3
      ch: 128
      ch_mult: [1, 1, 2, 4]
      num_res_blocks: 2
      attn_resolutions: [32]
      dropout: 0.0
"""


def lightning(state):
    """The rest of a checkpoint of PyTorch Lightning: a class as the key of a dictionary, and objects that nobody may construct."""
    checkpoint = containers.fake("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", "class")
    callback = {"monitor": "val/rec_loss", "best_model_score": 0.4, "best_model_path": "checkpoints/last.ckpt", "current_score": None}
    return {"epoch": 8, "global_step": 1000000, "pytorch-lightning_version": "1.0.8", "callbacks": {checkpoint: callback},
            "lr_schedulers": [], "state_dict": state, "hparams_name": "kwargs", "watched": {checkpoint()}}


def card(variant, folder):
    """The variant's card, so that the folder is a model by itself."""
    models_at = os.path.join(ROOT, "config", "models")
    for name in ("healthgpt-%s.json" % variant, "healthgpt-%s/healthgpt.json" % variant):
        path = os.path.join(models_at, name)
        if os.path.isfile(path):
            with open(path) as f:
                put(folder, "healthgpt.json", f.read())
            return


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("variant", choices=sorted(models.VARIANTS))
    p.add_argument("dir")
    p.add_argument("--fill")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--layers", type=int, help="only so many layers, at full width, in as many shards")
    p.add_argument("--data", default=os.path.join(os.environ.get("HG_SHARED", os.path.join(ROOT, "..", "shared")), "data"))
    return p.parse_args()


def write_llm(writer, a, v):
    folder = os.path.join(a.dir, "llm")
    tensors = models.base(v)
    if not a.layers and sum(t.count for t in tensors) != v["parameters"]:
        sys.exit("%s: %d parameters, expected %d" % (a.variant, sum(t.count for t in tensors), v["parameters"]))
    put(folder, "config.json", llm_config(a.variant, v))
    put(folder, "generation_config.json", GENERATION[a.variant])
    if not vocabularies.install(a.variant, a.data, folder):
        print("no tokenizer: its data is not in %s" % (a.data or "$HG_SHARED/data"))
    shards = containers.split_into(tensors, v["shards"]) if a.layers else containers.split(tensors, v["shard_bytes"])
    containers.save_sharded(writer, folder, shards)


def write_rest(writer, a, v):
    vision = os.path.join(a.dir, "vision")
    containers.save_torch(writer, os.path.join(vision, "pytorch_model.bin"), models.clip())
    put(vision, "config.json", CLIP_CONFIG)
    put(vision, "preprocessor_config.json", PREPROCESSOR)
    for task in ("com", "gen"):
        if v[task]:
            containers.save_torch(writer, os.path.join(a.dir, v[task][0]), models.plugin(v, v[task][1]))
    if v["fusion"]:
        containers.save_torch(writer, os.path.join(a.dir, v["fusion"][0]), models.fusion(v, v["fusion"][1]))
        codec = os.path.join(a.dir, "vqgan")
        os.makedirs(codec, exist_ok=True)
        containers.save_torch(writer, os.path.join(codec, "last.ckpt"), models.vqgan(), lightning)
        put(codec, "model.yaml", MODEL_YAML)


def check_sizes(a):
    wrong = []
    for name, (size, unit) in PUBLISHED[a.variant].items():
        got = os.path.getsize(os.path.join(a.dir, name)) / unit
        if abs(got - size) > (0.005 if size < 100 else 0.5):
            wrong.append("%s: %.3f, published %g (units of %g bytes)" % (name, got, size, unit))
    if a.variant == "m3":
        size = os.path.getsize(os.path.join(a.dir, "vqgan", "last.ckpt")) / 1e6
        if not 376 <= size <= 377:
            wrong.append("vqgan/last.ckpt: %.1f MB, published 376-377" % size)
    if wrong:
        sys.exit("sizes: " + "; ".join(wrong))


def main():
    a = parse()
    v, start = dict(models.VARIANTS[a.variant]), time.time()
    if a.layers:
        v["layers"] = a.layers
    for name in ("llm", "vision"):
        os.makedirs(os.path.join(a.dir, name), exist_ok=True)
    writer = containers.Writer(os.path.abspath(a.fill) if a.fill else None, a.seed)
    write_llm(writer, a, v)
    write_rest(writer, a, v)
    card(a.variant, a.dir)
    if not a.layers:
        check_sizes(a)
    took = time.time() - start
    print("%s: %d files, %.2f GB%s in %.1f s (%.0f MB/s)" % (a.dir, writer.n_files, writer.bytes / 1e9, "" if a.fill else " of holes", took,
                                                           writer.bytes / 1e6 / took))


if __name__ == "__main__":
    main()
