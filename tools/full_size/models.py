"""Tensors of the published models: names and shapes as reference.md 2 lists them, in the order in which their modules are made.
Deviations keep activations of order 1 through all layers, and let a token follow from the one before it, so that greedy decoding moves."""
import math
import struct

from containers import Tensor

VARIANTS = {
    "m3": dict(dim=3072, layers=32, heads=32, kv_heads=32, head_dim=96, ffn=8192, vocab=32064, fused=True, com=("com_hlora_weights.bin", 64),
               gen=("gen_hlora_weights.bin", 256), fusion=("fusion_layer_weights.bin", 40206), parameters=3821079552, shards=2, shard_bytes=5 * 10**9),
    "l14": dict(dim=5120, layers=40, heads=40, kv_heads=10, head_dim=128, ffn=17920, vocab=100352, fused=True,
                com=("com_hlora_weights_phi4.bin", 32), gen=None, fusion=None, parameters=14659507200, shards=6, shard_bytes=5 * 10**9),
    "xl32": dict(dim=5120, layers=64, heads=40, kv_heads=8, head_dim=128, ffn=27648, vocab=152064, fused=False,
                 com=("com_hlora_weights_QWEN_32B.bin", 32), gen=None, fusion=None, parameters=32763876352, shards=17, shard_bytes=4 * 10**9),
}
EXPERTS = 4


def modules(v):
    """Linears of a layer: (name, out, in, bias)."""
    d, kv = v["dim"], v["kv_heads"] * v["head_dim"]
    if v["fused"]:
        return [("self_attn.o_proj", d, d, 0), ("self_attn.qkv_proj", d + 2 * kv, d, 0), ("mlp.gate_up_proj", 2 * v["ffn"], d, 0),
                ("mlp.down_proj", d, v["ffn"], 0)]
    return [("self_attn.q_proj", d, d, 1), ("self_attn.k_proj", kv, d, 1), ("self_attn.v_proj", kv, d, 1), ("self_attn.o_proj", d, d, 0),
            ("mlp.gate_proj", v["ffn"], d, 0), ("mlp.up_proj", v["ffn"], d, 0), ("mlp.down_proj", d, v["ffn"], 0)]


def gain(v, module):
    """Of the outputs of a linear against its inputs: what goes into the residual is small, as there are many layers."""
    return 1.5 / math.sqrt(v["layers"]) if module.endswith(("o_proj", "down_proj")) else 1.0


def base(v):
    d, out = v["dim"], []
    out.append(Tensor("model.embed_tokens.weight", (v["vocab"], d), 1.0))
    for n in range(v["layers"]):
        for name, rows, cols, bias in modules(v):
            out.append(Tensor("model.layers.%d.%s.weight" % (n, name), (rows, cols), gain(v, name) / math.sqrt(cols)))
            if bias:
                out.append(Tensor("model.layers.%d.%s.bias" % (n, name), (rows,), 0.5))
        for name in ("input_layernorm", "post_attention_layernorm"):
            out.append(Tensor("model.layers.%d.%s.weight" % (n, name), (d,), 0.1, 1.0))
    out.append(Tensor("model.norm.weight", (d,), 0.1, 1.0))
    out.append(Tensor("lm_head.weight", (v["vocab"], d), 3 / math.sqrt(d)))
    return out


def plugin(v, rank):
    """H-LoRA and projector of a task. The scaling (8) and the gates (1/4 on average) are in B's deviation: a fifth of the base's."""
    out, prefix = [], "base_model.model.model."
    for n in range(v["layers"]):
        for name, rows, cols, _ in modules(v):
            at = "%slayers.%d.%s." % (prefix, n, name)
            out.append(Tensor(at + "lora_route.weight", (EXPERTS, cols), 1 / math.sqrt(cols)))
            out.append(Tensor(at + "lora_A.weight", (rank, cols), 1 / math.sqrt(cols)))
            out.append(Tensor(at + "lora_B.weight", (rows, rank), 0.1 * gain(v, name) / math.sqrt(rank)))
    for i, cols in ((0, 1024), (2, v["dim"])):
        out.append(Tensor("%smm_projector.%d.weight" % (prefix, i), (v["dim"], cols), 1 / math.sqrt(cols)))
        out.append(Tensor("%smm_projector.%d.bias" % (prefix, i), (v["dim"],), 0.1))
    return out


def fusion(v, rows):
    return [Tensor("base_model.model.model.embed_tokens.weight", (rows, v["dim"]), 1.0),
            Tensor("base_model.model.lm_head.weight", (rows, v["dim"]), 3 / math.sqrt(v["dim"]))]


# ---- CLIP ViT-L/14-336 with its text tower -----------------------------------------------------------------------------------------


def linear(out, name, rows, cols):
    out.append(Tensor(name + ".weight", (rows, cols), 1 / math.sqrt(cols), dtype="F32"))
    out.append(Tensor(name + ".bias", (rows,), 0.05, dtype="F32"))


def norm(out, name, n):
    out.append(Tensor(name + ".weight", (n,), 0.1, 1.0, dtype="F32"))
    out.append(Tensor(name + ".bias", (n,), 0.05, dtype="F32"))


def tower(out, prefix, d, ffn, layers):
    for n in range(layers):
        at = "%s.encoder.layers.%d." % (prefix, n)
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(out, at + "self_attn." + name, d, d)
        norm(out, at + "layer_norm1", d)
        linear(out, at + "mlp.fc1", ffn, d)
        linear(out, at + "mlp.fc2", d, ffn)
        norm(out, at + "layer_norm2", d)


def positions(name, n):
    return Tensor(name, (1, n), dtype="I64", values=struct.pack("<%dq" % n, *range(n)))


def clip():
    out = [Tensor("logit_scale", (), 0, 4.6, dtype="F32")]
    out.append(positions("text_model.embeddings.position_ids", 77))
    out.append(Tensor("text_model.embeddings.token_embedding.weight", (49408, 768), 0.02, dtype="F32"))
    out.append(Tensor("text_model.embeddings.position_embedding.weight", (77, 768), 0.02, dtype="F32"))
    tower(out, "text_model", 768, 3072, 12)
    norm(out, "text_model.final_layer_norm", 768)
    out.append(Tensor("vision_model.embeddings.class_embedding", (1024,), 0.5, dtype="F32"))
    out.append(positions("vision_model.embeddings.position_ids", 577))
    out.append(Tensor("vision_model.embeddings.patch_embedding.weight", (1024, 3, 14, 14), 1 / math.sqrt(588), dtype="F32"))
    out.append(Tensor("vision_model.embeddings.position_embedding.weight", (577, 1024), 0.2, dtype="F32"))
    norm(out, "vision_model.pre_layrnorm", 1024)
    tower(out, "vision_model", 1024, 4096, 24)
    norm(out, "vision_model.post_layernorm", 1024)
    out.append(Tensor("visual_projection.weight", (768, 1024), 0.03, dtype="F32"))
    out.append(Tensor("text_projection.weight", (768, 768), 0.03, dtype="F32"))
    return out


# ---- VQGAN f8-8192 with its loss -----------------------------------------------------------------------------------------------------


def conv(out, name, rows, cols, side):
    out.append(Tensor(name + ".weight", (rows, cols, side, side), 1 / math.sqrt(cols * side * side), dtype="F32"))
    out.append(Tensor(name + ".bias", (rows,), 0.02, dtype="F32"))


def resnet(out, name, rows, cols):
    norm(out, name + ".norm1", cols)
    conv(out, name + ".conv1", rows, cols, 3)
    norm(out, name + ".norm2", rows)
    conv(out, name + ".conv2", rows, rows, 3)
    if rows != cols:
        conv(out, name + ".nin_shortcut", rows, cols, 1)


def attention(out, name, n):
    norm(out, name + ".norm", n)
    for part in ("q", "k", "v", "proj_out"):
        conv(out, "%s.%s" % (name, part), n, n, 1)


def middle(out, name):
    resnet(out, name + ".mid.block_1", 512, 512)
    attention(out, name + ".mid.attn_1", 512)
    resnet(out, name + ".mid.block_2", 512, 512)


def encoder():
    out, width = [], 128
    conv(out, "encoder.conv_in", 128, 3, 3)
    for level, channels in enumerate((128, 128, 256, 512)):
        for i in range(2):
            resnet(out, "encoder.down.%d.block.%d" % (level, i), channels, width)
            width = channels
        for i in range(2 if level == 3 else 0):
            attention(out, "encoder.down.3.attn.%d" % i, width)
        if level < 3:
            conv(out, "encoder.down.%d.downsample.conv" % level, width, width, 3)
    middle(out, "encoder")
    norm(out, "encoder.norm_out", 512)
    conv(out, "encoder.conv_out", 256, 512, 3)
    return out


def decoder():
    out, width = [], 512
    conv(out, "decoder.conv_in", 512, 256, 3)
    middle(out, "decoder")
    for level, channels in ((3, 512), (2, 256), (1, 128), (0, 128)):
        for i in range(3):
            resnet(out, "decoder.up.%d.block.%d" % (level, i), channels, width)
            width = channels
        for i in range(3 if level == 3 else 0):
            attention(out, "decoder.up.3.attn.%d" % i, width)
        if level > 0:
            conv(out, "decoder.up.%d.upsample.conv" % level, width, width, 3)
    norm(out, "decoder.norm_out", 128)
    conv(out, "decoder.conv_out", 3, 128, 3)
    return out


def loss():
    """What training left behind: VGG16 of LPIPS and a discriminator. About 101 MB as in the published file; names beyond "loss." are ours."""
    out, width, n = [], 3, 0
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            conv(out, "loss.perceptual_loss.net.slice%d.%d" % (channels.bit_length() - 6, n), channels, width, 3)
            width, n = channels, n + 1
    for i, channels in enumerate((64, 128, 256, 512, 512)):
        out.append(Tensor("loss.perceptual_loss.lin%d.model.1.weight" % i, (1, channels, 1, 1), 0.1, 0.1, dtype="F32"))
    for i, (rows, cols) in enumerate(((64, 3), (128, 64), (256, 128), (512, 256), (512, 512), (424, 512), (1, 424))):
        out.append(Tensor("loss.discriminator.main.%d.weight" % i, (rows, cols, 4, 4), 0.02, dtype="F32"))
    return out


def vqgan():
    parts = [encoder(), decoder()]
    counts = [(len(p), sum(t.count for t in p)) for p in parts]
    if counts != [(126, 26345728), (168, 38316163)]:
        raise SystemExit("VQGAN: %r tensors and parameters: not those of reference.md 10.4" % counts)
    out = parts[0] + parts[1] + loss()
    conv(out, "quantize.proj", 8192, 256, 1)
    out.append(Tensor("quantize.embed.weight", (8192, 256), 1.0, dtype="F32"))
    conv(out, "quant_conv", 256, 256, 1)
    conv(out, "post_quant_conv", 256, 256, 1)
    return out
