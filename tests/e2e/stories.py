"""stories260K (llama2.c) as a model folder: a Llama checkpoint in safetensors with a card, no tokenizer."""
import json
import os
import struct

from harness import SHARED, Skip

SOURCE = os.path.join(SHARED, "data", "weights_formats", "stories260K")


def half_split(data, n_heads, head_dim, row):
    """Rows of wq and wk from interleaved to half-split rotary pairs."""
    order = [h * head_dim + r for h in range(n_heads) for r in list(range(0, head_dim, 2)) + list(range(1, head_dim, 2))]
    return b"".join(data[i * row:(i + 1) * row] for i in order)


def tensors(data):
    dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", data)
    head, kv, at = dim // heads, kv_heads * (dim // heads), 28
    kinds = [("input_layernorm", (dim,), 0), ("self_attn.q_proj", (dim, dim), heads), ("self_attn.k_proj", (kv, dim), kv_heads),
             ("self_attn.v_proj", (kv, dim), 0), ("self_attn.o_proj", (dim, dim), 0), ("post_attention_layernorm", (dim,), 0),
             ("mlp.gate_proj", (hidden, dim), 0), ("mlp.down_proj", (dim, hidden), 0), ("mlp.up_proj", (hidden, dim), 0)]
    plan = [("model.embed_tokens", (vocab, dim), 0)]
    plan += [("model.layers.%d.%s" % (i, name), shape, n) for name, shape, n in kinds for i in range(layers)]
    found = []
    for name, shape, n_heads in plan + [("model.norm", (dim,), 0)]:
        n = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        part = data[at:at + n]
        at += n
        found.append((name + ".weight", shape, half_split(part, n_heads, head, 4 * dim) if n_heads else part))
    config = {"model_type": "llama", "hidden_size": dim, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "intermediate_size": hidden, "vocab_size": vocab, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": context, "hidden_act": "silu",
              "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 1}
    return found, config


def make(folder):
    """Returns its 257 known ids: the one that begins and 256 greedy ones."""
    if not os.path.exists(os.path.join(SOURCE, "stories260K.bin")):
        raise Skip("shared data stories260K is absent")
    with open(os.path.join(SOURCE, "stories260K.bin"), "rb") as f:
        found, config = tensors(f.read())
    os.makedirs(os.path.join(folder, "llm"), exist_ok=True)
    header, at = {}, 0
    for name, shape, data in found:
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "llm", "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in found))
    task = {"hlora": None, "fusion": None, "alpha": 1, "vision_layer": -2, "max_new_tokens": 256}
    card = {"format": 1, "name": "stories260K", "architecture": "healthgpt", "llm": "llm", "vision": None, "vqgan": None,
            "template": "phi3_instruct", "rope_inv_freq": "fp32", "license": "MIT", "notice": "stories",
            "tasks": {"comprehension": task, "generation": None}}
    for name, value in (("llm/config.json", config), ("llm/generation_config.json", {"eos_token_id": 1}), ("healthgpt.json", card)):
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f)
    with open(os.path.join(SOURCE, "golden_greedy.json")) as f:
        return [1] + json.load(f)["tokens"]


if __name__ == "__main__":
    import sys
    ids = make(sys.argv[1])
    with open(os.path.join(sys.argv[1], "selftest.jsonl"), "w") as f:
        f.write(json.dumps({"prompt_ids": ids[:1], "max_tokens": 256}) + "\n" + json.dumps({"text_ids": ids}) + "\n")
