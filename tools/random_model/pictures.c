/* tools/random_model/pictures.c - see random_model.h. Names of the published files. */
#include <sys/stat.h>

#include "tools/random_model/random_model.h"

struct codec {
    int64_t channels[4]; /* of level 0 (most pixels) .. n_levels - 1 */
    int n_levels, n_blocks;
    int64_t embed, groups;
};

struct pictures pictures_of(const struct shape *s)
{
    if (s->wide_pictures)
        return (struct pictures){256, 1024, 12, 4, 112, 14, 256, 8};
    return s->small_pictures ? (struct pictures){64, 128, 3, 2, 32, 8, 64, 4}
                             : (struct pictures){1024, 4096, 24, 16, 336, 14, 8192, 32};
}

static struct codec codec_of(const struct shape *s)
{
    if (s->wide_pictures)
        return (struct codec){{64, 64, 128}, 3, 2, 32, 32};
    return s->small_pictures ? (struct codec){{32, 64}, 2, 2, 16, 32}
                             : (struct codec){{128, 128, 256, 512}, 4, 3, 256, 32};
}

/* ---- CLIP --------------------------------------------------------------------------------------
 */

static void add_pair(struct file *f, int64_t n, int64_t k, const char *module)
{
    if (k)
        ADD_MATRIX(f, n, k, "vision_model.%s.weight", module);
    else
        ADD_VECTOR(f, n, "vision_model.%s.weight", module);
    ADD_VECTOR(f, n, "vision_model.%s.bias", module);
}

static void write_vision(struct file *f, const struct pictures *p, const char *dir)
{
    static const char *const square[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    int64_t d = p->vision_dim, patches = p->side / p->patch * (p->side / p->patch);
    char name[NAME_CAP], folder[4000];
    snprintf(folder, sizeof folder, "%s/vision", dir);
    mkdir(folder, 0755);
    ADD_VECTOR(f, d, "vision_model.embeddings.class_embedding");
    ADD_CONV(f, d, 3, p->patch, "vision_model.embeddings.patch_embedding.weight");
    ADD_MATRIX(f, patches + 1, d, "vision_model.embeddings.position_embedding.weight");
    add_pair(f, d, 0, "pre_layrnorm");
    add_pair(f, d, 0, "post_layernorm");
    for (int i = 0; i < (int)p->vision_layers; i++) {
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "encoder.layers.%d.self_attn.%s", i, square[k]);
            add_pair(f, d, d, name);
        }
        for (int k = 1; k <= 2; k++) {
            snprintf(name, sizeof name, "encoder.layers.%d.layer_norm%d", i, k);
            add_pair(f, d, 0, name);
        }
        snprintf(name, sizeof name, "encoder.layers.%d.mlp.fc1", i);
        add_pair(f, p->vision_ffn, d, name);
        snprintf(name, sizeof name, "encoder.layers.%d.mlp.fc2", i);
        add_pair(f, d, p->vision_ffn, name);
    }
    save(f, folder, "model.safetensors");
    FILE *out = open_in(folder, "config.json");
    fprintf(
        out,
        "{\"model_type\":\"clip_vision_model\",\"hidden_act\":\"quick_gelu\",\"hidden_size\":%lld,"
        "\"intermediate_size\":%lld,\"num_hidden_layers\":%lld,\"num_attention_heads\":%lld,"
        "\"num_channels\":3,\"image_size\":%lld,\"patch_size\":%lld,\"layer_norm_eps\":1e-05}\n",
        (long long)d, (long long)p->vision_ffn, (long long)p->vision_layers,
        (long long)p->vision_heads, (long long)p->side, (long long)p->patch);
    close_file(out);
    out = open_in(folder, "preprocessor_config.json");
    fprintf(
        out,
        "{\"crop_size\":{\"height\":%lld,\"width\":%lld},\"size\":{\"shortest_edge\":%lld},"
        "\"do_center_crop\":true,\"do_convert_rgb\":true,\"do_normalize\":true,"
        "\"do_rescale\":true,\"do_resize\":true,\"image_mean\":[0.48,0.46,0.41],"
        "\"image_std\":[0.27,0.26,0.28],\"resample\":3,\"rescale_factor\":0.00392156862745098}\n",
        (long long)p->side, (long long)p->side, (long long)p->side);
    close_file(out);
}

/* Two layers, GELU between: features of the tower to embedding rows. */
void add_projector(struct file *f, const struct shape *s)
{
    struct pictures p = pictures_of(s);
    ADD_MATRIX(f, s->dim, p.vision_dim, "model.mm_projector.0.weight");
    ADD_VECTOR(f, s->dim, "model.mm_projector.0.bias");
    ADD_MATRIX(f, s->dim, s->dim, "model.mm_projector.2.weight");
    ADD_VECTOR(f, s->dim, "model.mm_projector.2.bias");
}

/* ---- VQGAN decoder
 * -------------------------------------------------------------------------------- */

static void add_conv(struct file *f, int64_t n, int64_t c, int64_t side, const char *node,
                     const char *module)
{
    ADD_CONV(f, n, c, side, "%s%s.weight", node, module);
    ADD_VECTOR(f, n, "%s%s.bias", node, module);
}

/* Ones would drown the codes at the beginning, and be white at the end. */
static void add_conv_unbiased(struct file *f, int64_t n, int64_t c, int64_t side, const char *node,
                              const char *module)
{
    add_conv(f, n, c, side, node, module);
    f->t[f->n - 1].zero = true;
}

static void add_norm(struct file *f, int64_t n, const char *node, const char *module)
{
    ADD_VECTOR(f, n, "%s%s.weight", node, module);
    ADD_VECTOR(f, n, "%s%s.bias", node, module);
}

static void add_block(struct file *f, int64_t n, int64_t c, const char *node)
{
    add_norm(f, c, node, ".norm1");
    add_conv(f, n, c, 3, node, ".conv1");
    add_norm(f, n, node, ".norm2");
    add_conv(f, n, n, 3, node, ".conv2");
    if (n != c)
        add_conv(f, n, c, 1, node, ".nin_shortcut");
}

static void add_attention(struct file *f, int64_t c, const char *node)
{
    static const char *const modules[] = {".q", ".k", ".v", ".proj_out"};
    add_norm(f, c, node, ".norm");
    for (int i = 0; i < 4; i++)
        add_conv(f, c, c, 1, node, modules[i]);
}

static void write_codec(struct file *f, const struct shape *s, const char *dir)
{
    struct codec v = codec_of(s);
    int64_t width = v.channels[v.n_levels - 1];
    char node[64];
    ADD_MATRIX(f, pictures_of(s).n_codes, v.embed, "quantize.embed.weight");
    add_conv_unbiased(f, v.embed, v.embed, 1, "post_quant_conv", "");
    add_conv_unbiased(f, width, v.embed, 3, "decoder", ".conv_in");
    add_block(f, width, width, "decoder.mid.block_1");
    add_attention(f, width, "decoder.mid.attn_1");
    add_block(f, width, width, "decoder.mid.block_2");
    for (int level = v.n_levels - 1; level >= 0; level--) {
        for (int i = 0; i < v.n_blocks; i++) {
            snprintf(node, sizeof node, "decoder.up.%d.block.%d", level, i);
            add_block(f, v.channels[level], width, node);
            width = v.channels[level];
            snprintf(node, sizeof node, "decoder.up.%d.attn.%d", level, i);
            if (level == v.n_levels - 1)
                add_attention(f, width, node);
        }
        snprintf(node, sizeof node, "decoder.up.%d.upsample", level);
        if (level > 0)
            add_conv(f, width, width, 3, node, ".conv");
    }
    add_norm(f, width, "decoder", ".norm_out");
    add_conv_unbiased(f, 3, width, 3, "decoder", ".conv_out");
    save(f, dir, "vqgan.safetensors");
}

void write_pictures(struct file *f, const struct shape *s, const char *dir)
{
    struct pictures p = pictures_of(s);
    write_vision(f, &p, dir);
    write_codec(f, s, dir);
}
