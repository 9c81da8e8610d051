/* tools/healthgpt/inspect_llm.c - the names and shapes of model/llm_load.c, looked up only. */
#include "tools/healthgpt/inspect_llm.h"

#include <stdio.h>
#include <string.h>

#include "model/load/weights.h"

struct check {
    struct hg_weights *w;
    char (*lines)[HG_INSPECT_LINE];
    size_t n, cap;
};

static void add_line(struct check *c, const char *text)
{
    if (c->n < c->cap)
        snprintf(c->lines[c->n], HG_INSPECT_LINE, "%.*s", HG_INSPECT_LINE - 1, text);
    c->n++;
}

/* cols 0: a vector of `rows`; rows -1: any number. */
static void want(struct check *c, const char *name, int64_t rows, int64_t cols)
{
    const int64_t dims[2] = {rows, cols};
    const struct hg_tensor *t;
    struct hg_error err = {0};
    if (hg_weights_get(c->w, name, cols ? 2 : 1, dims, &t, &err) == HG_STATUS_OK)
        return;
    const char *text = strstr(err.text, "tensor "); /* without the path in front */
    add_line(c, text ? text : err.text);
}

static void want_module(struct check *c, int layer, const char *module, int64_t rows, int64_t cols,
                        bool bias)
{
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, module);
    want(c, name, rows, cols);
    if (!bias)
        return;
    snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, module);
    want(c, name, rows, 0);
}

static void want_layer(struct check *c, const struct hg_llm_config *m, int i)
{
    int q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    want_module(c, i, "input_layernorm", m->dim, 0, false);
    want_module(c, i, "post_attention_layernorm", m->dim, 0, false);
    if (m->fused) {
        want_module(c, i, "self_attn.qkv_proj", q + 2 * kv, m->dim, false);
        want_module(c, i, "mlp.gate_up_proj", 2 * m->ffn_dim, m->dim, false);
    } else {
        want_module(c, i, "self_attn.q_proj", q, m->dim, m->qkv_bias);
        want_module(c, i, "self_attn.k_proj", kv, m->dim, m->qkv_bias);
        want_module(c, i, "self_attn.v_proj", kv, m->dim, m->qkv_bias);
        want_module(c, i, "mlp.gate_proj", m->ffn_dim, m->dim, false);
        want_module(c, i, "mlp.up_proj", m->ffn_dim, m->dim, false);
    }
    want_module(c, i, "self_attn.o_proj", m->dim, q, false);
    want_module(c, i, "mlp.down_proj", m->dim, m->ffn_dim, false);
}

size_t hg_inspect_llm(const char *dir, const struct hg_llm_config *m, char lines[][HG_INSPECT_LINE],
                      size_t cap)
{
    struct check c = {.lines = lines, .cap = cap};
    struct hg_error err = {0};
    enum hg_status status = hg_weights_create(&c.w, &err);
    if (status == HG_STATUS_OK)
        status = hg_weights_add_dir(c.w, dir, &err);
    if (status != HG_STATUS_OK) {
        add_line(&c, err.text);
    } else {
        want(&c, "model.embed_tokens.weight", -1, m->dim);
        want(&c, "model.norm.weight", m->dim, 0);
        if (!m->tie_embeddings)
            want(&c, "lm_head.weight", -1, m->dim);
        for (int i = 0; i < m->n_layers; i++)
            want_layer(&c, m, i);
    }
    hg_weights_free(c.w);
    return c.n;
}
