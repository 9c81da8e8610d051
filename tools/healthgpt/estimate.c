/* tools/healthgpt/estimate.c - shapes from constants. */
#include "tools/healthgpt/estimate.h"

#include <string.h>

#include "model/load/expect.h"
#include "model/load/published.h"

/* Elements of the published VQGAN, encoder and decoder (reference.md 23, U6: 276 MB in fp32). */
static const int64_t VQGAN_ELEMENTS = 69000000;

static int number(const struct hg_model_card *c, const char *file, const char *key)
{
    double v = hg_expect_value(c, file, key, 0);
    return v > 0 && v < 1 << 30 ? (int)v : 0;
}

static void add_matrix(struct hg_inspect_sum *s, int64_t rows, int64_t cols)
{
    s->n_elements += rows * cols;
    s->n_matrix += rows * cols;
    s->n_rows += rows;
}

static void add_table(struct hg_inspect_sum *s, int64_t rows, int64_t cols)
{
    s->n_elements += rows * cols;
    s->n_table += rows * cols;
}

static bool read_llm(const struct hg_model_card *c, struct hg_llm_config *l)
{
    const char *file = "config.json";
    const struct hg_published *p = hg_published_named(c->name);
    memset(l, 0, sizeof *l);
    l->dim = number(c, file, "hidden_size");
    l->n_layers = number(c, file, "num_hidden_layers");
    l->n_heads = number(c, file, "num_attention_heads");
    l->n_kv_heads = number(c, file, "num_key_value_heads");
    l->head_dim = number(c, file, "head_dim");
    l->ffn_dim = number(c, file, "intermediate_size");
    l->vocab = number(c, file, "vocab_size");
    l->max_positions = number(c, file, "max_position_embeddings");
    l->fused = !p || p->fused;
    l->qkv_bias = !l->fused;
    return l->dim && l->n_layers && l->n_heads && l->n_kv_heads && l->head_dim && l->ffn_dim &&
           l->vocab && l->max_positions;
}

static void count_llm(const struct hg_llm_config *l, struct hg_inspect_sum *s)
{
    int64_t q = (int64_t)l->n_heads * l->head_dim, kv = (int64_t)l->n_kv_heads * l->head_dim;
    add_table(s, l->vocab, l->dim);
    add_matrix(s, l->vocab, l->dim);
    s->n_elements += l->dim;
    for (int i = 0; i < l->n_layers; i++) {
        add_matrix(s, q + 2 * kv, l->dim);
        add_matrix(s, l->dim, q);
        add_matrix(s, 2 * (int64_t)l->ffn_dim, l->dim);
        add_matrix(s, l->dim, l->ffn_dim);
        s->n_elements += 2 * (int64_t)l->dim + (l->qkv_bias ? q + 2 * kv : 0);
    }
}

/* A, B and the router of every linear, and the projector. */
static void count_plugin(const struct hg_model_card *c, int task, const struct hg_llm_config *l,
                         const struct hg_vision_config *v, struct hg_inspect_sum *s)
{
    static const char *const names[] = {"comprehension", "generation"};
    int64_t r = number(c, names[task], "rank"), e = number(c, names[task], "experts");
    int64_t q = (int64_t)l->n_heads * l->head_dim, kv = (int64_t)l->n_kv_heads * l->head_dim;
    int64_t n_qkv = l->fused ? 1 : 3, n_up = l->fused ? 1 : 2, d = l->dim, f = l->ffn_dim;
    int64_t ins = n_qkv * d + q + n_up * d + f, outs = q + 2 * kv + d + 2 * f + d;
    s->n_elements += l->n_layers * ((r + e) * ins + r * outs);
    if (v->dim)
        s->n_elements += (int64_t)v->dim * d + d + d * d + d;
}

static void count_vision(const struct hg_vision_config *v, struct hg_inspect_sum *s)
{
    int64_t d = v->dim, side = v->image_side / v->patch, f = v->ffn_dim;
    int64_t layer = 4 * (d * d + d) + 4 * d + 2 * d * f + f + d;
    s->n_elements +=
        d + d * 3 * v->patch * v->patch + (side * side + 1) * d + 4 * d + v->n_layers * layer;
}

static void read_vision(const struct hg_model_card *c, struct hg_vision_config *v)
{
    const char *file = "vision/config.json";
    *v = (struct hg_vision_config){.dim = number(c, file, "hidden_size"),
                                   .n_layers = number(c, file, "num_hidden_layers"),
                                   .image_side = number(c, file, "image_size"),
                                   .patch = number(c, file, "patch_size"),
                                   .n_channels = 3};
    v->ffn_dim = 4 * v->dim;
    if (!c->has_vision || !v->n_layers || !v->image_side || !v->patch)
        v->dim = 0;
}

/* As published: 16 bits, which is what a sum of files would say. */
static void finish(struct hg_inspect_parts *p)
{
    struct hg_inspect_sum *sums[] = {&p->llm, &p->vision, &p->vqgan, &p->plugins, &p->fusion};
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++) {
        sums[i]->n_parameters = sums[i]->n_elements;
        sums[i]->tensor_bytes = 2 * sums[i]->n_elements;
        sums[i]->by_type[HG_TENSOR_TYPE_BF16] = sums[i]->n_elements;
        hg_inspect_add(&p->all, sums[i]);
    }
}

bool hg_estimate(const struct hg_model_card *c, struct hg_inspect_parts *parts,
                 struct hg_llm_config *llm, struct hg_vision_config *vision)
{
    memset(parts, 0, sizeof *parts);
    if (!read_llm(c, llm))
        return false;
    read_vision(c, vision);
    count_llm(llm, &parts->llm);
    if (vision->dim)
        count_vision(vision, &parts->vision);
    for (int t = 0; t < HG_CARD_TASKS; t++)
        if (c->tasks[t].present && c->tasks[t].hlora[0])
            count_plugin(c, t, llm, vision, &parts->plugins);
    if (c->tasks[1].present && c->tasks[1].fusion[0]) {
        int64_t rows = number(c, "tokenizer", "size_with_images");
        add_table(&parts->fusion, rows, llm->dim);
        add_matrix(&parts->fusion, rows, llm->dim);
    }
    if (c->has_vqgan)
        parts->vqgan.n_elements = VQGAN_ELEMENTS;
    finish(parts);
    return true;
}
