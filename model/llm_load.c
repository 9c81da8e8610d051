/* model/llm_load.c - tensors of the language model and of its plug-ins -> packed weights.
 *
 * Both plug-ins are packed beside the base weight of every linear. Sets: the tables of a task are
 * those of its fusion file when that has them (reference.md 2.3), else the base model's. */
#include "model/llm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "model/hlora.h"

struct module { /* one stacked weight: the names of its parts and their outputs */
    const char *label;
    const char *names[HG_MAX_PARTS];
    int n_out[HG_MAX_PARTS];
    int n_parts, n_in;
    int pair; /* of hg_weight_desc */
    bool bias;
};

struct load {
    struct hg_llm *m;
    const struct hg_llm_source *source;
    struct hg_loader base;
    struct hg_loader task[HG_LLM_SETS];
};

static void reset_loaders(struct load *l)
{
    hg_loader_reset(&l->base);
    for (int s = 0; s < HG_LLM_SETS; s++)
        hg_loader_reset(&l->task[s]);
}

/* Base weight, bias and the adapters of every plug-in for one part of a module. */
static enum hg_status get_part(struct load *l, int layer, const struct module *mod, int part,
                               struct hg_weight_part *out, struct hg_error *err)
{
    char module[128], name[160];
    int n_out = mod->n_out[part];
    snprintf(module, sizeof module, "model.layers.%d.%s", layer, mod->names[part]);
    out->n_out = n_out;
    snprintf(name, sizeof name, "%s.weight", module);
    HG_TRY(hg_loader_linear(&l->base, name, n_out, mod->n_in, NULL, &out->w, err));
    if (mod->bias) {
        snprintf(name, sizeof name, "%s.bias", module);
        HG_TRY(hg_loader_get(&l->base, name, n_out, 0, NULL, &out->bias, err));
    }
    for (int s = 0; s < HG_LLM_SETS; s++) {
        if (!l->source->task[s])
            continue;
        HG_TRY(hg_hlora_get(&l->task[s], module, mod->n_in, n_out, l->source->alpha[s],
                            &out->adapters[s], err));
    }
    return HG_STATUS_OK;
}

static enum hg_status load_module(struct load *l, int layer, const struct module *mod,
                                  struct hg_weight **out, struct hg_error *err)
{
    char label[64];
    struct hg_weight_desc desc;
    memset(&desc, 0, sizeof desc);
    snprintf(label, sizeof label, "layer %d %s", layer, mod->label);
    desc.name = label;
    desc.n_in = mod->n_in;
    desc.n_parts = mod->n_parts;
    desc.store = l->source->store;
    desc.plugin = l->source->plugin;
    desc.pair = mod->pair;
    for (int p = 0; p < mod->n_parts; p++)
        HG_TRY(get_part(l, layer, mod, p, &desc.parts[p], err));
    struct hg_backend *b = l->m->backend;
    HG_TRY(b->ops->weight_create(b, &desc, out, err));
    l->m->weight_bytes += b->ops->weight_bytes(*out, -1);
    for (int s = 0; s < HG_LLM_SETS; s++)
        l->m->plugin_bytes[s] += b->ops->weight_bytes(*out, s);
    reset_loaders(l);
    return HG_STATUS_OK;
}

static enum hg_status load_layer(struct load *l, int i, struct hg_error *err)
{
    const struct hg_llm_config *c = &l->m->config;
    struct hg_llm_layer *layer = &l->m->layers[i];
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    struct module fused_qkv = {.label = "qkv",
                               .names = {"self_attn.qkv_proj"},
                               .n_out = {q + 2 * kv},
                               .n_parts = 1,
                               .n_in = c->dim,
                               .pair = c->head_dim};
    struct module split_qkv = {
        .label = "qkv",
        .names = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
        .n_out = {q, kv, kv},
        .n_parts = 3,
        .n_in = c->dim,
        .pair = c->head_dim,
        .bias = c->qkv_bias};
    struct module fused_up = {.label = "gate_up",
                              .names = {"mlp.gate_up_proj"},
                              .n_out = {2 * c->ffn_dim},
                              .n_parts = 1,
                              .n_in = c->dim,
                              .pair = 2 * c->ffn_dim};
    struct module split_up = {.label = "gate_up",
                              .names = {"mlp.gate_proj", "mlp.up_proj"},
                              .n_out = {c->ffn_dim, c->ffn_dim},
                              .n_parts = 2,
                              .n_in = c->dim,
                              .pair = 2 * c->ffn_dim};
    struct module o = {
        .label = "o", .names = {"self_attn.o_proj"}, .n_out = {c->dim}, .n_parts = 1, .n_in = q};
    struct module down = {.label = "down",
                          .names = {"mlp.down_proj"},
                          .n_out = {c->dim},
                          .n_parts = 1,
                          .n_in = c->ffn_dim};
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
    HG_TRY(hg_loader_vector(&l->base, name, c->dim, &layer->norm1, err));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
    HG_TRY(hg_loader_vector(&l->base, name, c->dim, &layer->norm2, err));
    /* a buffer that old checkpoints carry; the table is computed (hg_llm_inv_freq) */
    snprintf(name, sizeof name, "model.layers.%d.self_attn.rotary_emb.", i);
    hg_weights_ignore_prefix(l->source->base, name);
    HG_TRY(load_module(l, i, c->fused ? &fused_qkv : &split_qkv, &layer->qkv, err));
    HG_TRY(load_module(l, i, &o, &layer->o, err));
    HG_TRY(load_module(l, i, c->fused ? &fused_up : &split_up, &layer->gate_up, err));
    return load_module(l, i, &down, &layer->down, err);
}

static enum hg_status load_head(struct load *l, struct hg_loader *from, const char *name, int set,
                                struct hg_error *err)
{
    struct hg_llm *m = l->m;
    int64_t rows = 0;
    struct hg_weight_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.name = name;
    desc.n_in = m->config.dim;
    desc.n_parts = 1;
    desc.store = l->source->store;
    HG_TRY(hg_loader_linear(from, name, m->sets[set].rows, m->config.dim, &rows, &desc.parts[0].w,
                            err));
    desc.parts[0].n_out = (int)rows;
    HG_TRY(m->backend->ops->weight_create(m->backend, &desc, &m->sets[set].head, err));
    m->sets[set].owns_head = true;
    m->weight_bytes += m->backend->ops->weight_bytes(m->sets[set].head, -1);
    reset_loaders(l);
    return HG_STATUS_OK;
}

static enum hg_status load_tables(struct load *l, struct hg_loader *from, int set, int64_t rows,
                                  bool tied, struct hg_error *err)
{
    struct hg_llm *m = l->m;
    int64_t n = rows; /* a rehearsal goes on without the table */
    size_t bytes = 0;
    HG_TRY(hg_loader_matrix(from, "model.embed_tokens.weight", rows, m->config.dim, m->table_type,
                            &m->sets[set].table, &n, &bytes, err));
    m->sets[set].owns_table = true;
    m->sets[set].rows = (int)n;
    m->weight_bytes += bytes;
    if (tied) /* some files hold the copy all the same; transformers does not read it either */
        hg_weights_ignore_prefix(from->weights, "lm_head.weight");
    return load_head(l, from, tied ? "model.embed_tokens.weight" : "lm_head.weight", set, err);
}

static bool has_own(const struct load *l, int set, const char *name)
{
    const struct hg_weights *w = l->source->task[set];
    return w && hg_weights_find(w, name);
}

/* A set has the tables of its own plug-in files, or else those of the base model, which the first
 * such set owns. Base tables that no set needs are not loaded. */
static enum hg_status load_set_tables(struct load *l, struct hg_error *err)
{
    struct hg_llm *m = l->m;
    struct hg_llm_set *base = NULL;
    for (int s = 0; s < HG_LLM_SETS; s++) {
        struct hg_llm_set *set = &m->sets[s];
        if (!l->source->present[s])
            continue;
        if (has_own(l, s, "model.embed_tokens.weight")) {
            HG_TRY(load_tables(l, &l->task[s], s, -1, false, err));
        } else if (base) {
            set->table = base->table;
            set->head = base->head;
            set->rows = base->rows;
        } else {
            HG_TRY(load_tables(l, &l->base, s, m->config.vocab, m->config.tie_embeddings, err));
            base = set;
        }
    }
    if (!base) {
        hg_weights_ignore_prefix(l->source->base, "model.embed_tokens.weight");
        hg_weights_ignore_prefix(l->source->base, "lm_head.weight");
    }
    return HG_STATUS_OK;
}

static enum hg_status load_set_norms(struct load *l, struct hg_error *err)
{
    static const char name[] = "model.norm.weight";
    const struct hg_llm_set *base = NULL;
    for (int s = 0; s < HG_LLM_SETS; s++) {
        struct hg_llm_set *set = &l->m->sets[s];
        bool own = has_own(l, s, name);
        if (!l->source->present[s])
            continue;
        if (!own && base) {
            set->norm = base->norm;
            continue;
        }
        HG_TRY(hg_loader_vector(own ? &l->task[s] : &l->base, name, l->m->config.dim, &set->norm,
                                err));
        set->owns_norm = true;
        if (!own)
            base = set;
    }
    if (!base)
        hg_weights_ignore_prefix(l->source->base, name);
    return HG_STATUS_OK;
}

static enum hg_status load_sets(struct load *l, struct hg_error *err)
{
    HG_TRY(load_set_tables(l, err));
    HG_TRY(load_set_norms(l, err));
    for (int s = 0; s < HG_LLM_SETS; s++) {
        struct hg_llm_set *set = &l->m->sets[s];
        if (l->source->present[s])
            continue;
        *set = l->m->sets[1 - s];
        set->owns_table = set->owns_head = set->owns_norm = false;
    }
    return HG_STATUS_OK;
}

static float round_freq(float f, enum hg_rope_mode mode)
{
    if (mode == HG_ROPE_FP16)
        return hg_f16_to_f32(hg_f32_to_f16(f));
    if (mode == HG_ROPE_BF16)
        return hg_bf16_to_f32(hg_f32_to_bf16(f));
    return f;
}

void hg_llm_inv_freq(double theta, int head_dim, enum hg_rope_mode mode, float *out)
{
    for (int i = 0; i < head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)head_dim;
        float power = (float)pow(theta, (double)exponent);
        out[i] = round_freq(1.0f / power, mode);
    }
}

static enum hg_status load_rope(struct hg_llm *m, enum hg_rope_mode mode, struct hg_error *err)
{
    int n = m->config.head_dim / 2;
    float table[1024];
    void *p = NULL;
    if (n > (int)(sizeof table / sizeof *table))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "head_dim: expected at most 2048, got %d",
                       m->config.head_dim);
    hg_llm_inv_freq(m->config.rope_theta, m->config.head_dim, mode, table);
    HG_TRY(m->backend->ops->alloc(m->backend, (size_t)n * sizeof(float), &p, err));
    m->inv_freq = p;
    return m->backend->ops->upload(m->backend, p, table, (size_t)n * sizeof(float));
}

static enum hg_status alloc_act(struct hg_llm *m, int64_t n, void **out, struct hg_error *err)
{
    size_t bytes = (size_t)n * hg_dtype_bytes(m->backend->ops->act_type);
    m->workspace_bytes += bytes;
    return m->backend->ops->alloc(m->backend, bytes, out, err);
}

static enum hg_status alloc_workspace(struct hg_llm *m, int max_tokens, struct hg_error *err)
{
    const struct hg_llm_config *c = &m->config;
    int64_t t = max_tokens, width = (int64_t)c->n_heads * c->head_dim;
    HG_TRY(alloc_act(m, t * c->dim, &m->x, err));
    HG_TRY(alloc_act(m, t * width, &m->q, err));
    HG_TRY(alloc_act(m, t * width, &m->y, err));
    return alloc_act(m, t * c->ffn_dim, &m->hidden, err);
}

static enum hg_status load_all(struct load *l, struct hg_error *err)
{
    struct hg_llm *m = l->m;
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    if (!m->layers)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%d layers", m->config.n_layers);
    HG_TRY(load_sets(l, err));
    HG_TRY(load_rope(m, l->source->rope, err));
    for (int i = 0; i < m->config.n_layers; i++)
        HG_TRY(load_layer(l, i, err));
    return alloc_workspace(m, l->source->max_tokens, err);
}

enum hg_status hg_llm_load(struct hg_backend *b, const struct hg_llm_config *c,
                           const struct hg_llm_source *s, struct hg_llm **out, struct hg_error *err)
{
    struct hg_llm *m = calloc(1, sizeof *m);
    if (!m)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "language model");
    m->backend = b;
    m->config = *c;
    m->table_type = hg_dtype_beside(s->store);
    m->rounding = s->rounding;
    struct load l = {.m = m, .source = s, .base = {.backend = b, .weights = s->base}};
    l.base.cache = s->cache;
    for (int i = 0; i < HG_LLM_SETS; i++)
        l.task[i] = (struct hg_loader){.backend = b, .weights = s->task[i]};
    enum hg_status status = load_all(&l, err);
    reset_loaders(&l);
    if (status != HG_STATUS_OK) {
        hg_llm_free(m);
        return status;
    }
    *out = m;
    return HG_STATUS_OK;
}

static void free_set(struct hg_backend *b, struct hg_llm_set *s)
{
    if (s->owns_table)
        b->ops->free(b, s->table);
    if (s->owns_head)
        b->ops->weight_free(b, s->head);
    if (s->owns_norm)
        b->ops->free(b, s->norm);
}

void hg_llm_free(struct hg_llm *m)
{
    if (!m)
        return;
    struct hg_backend *b = m->backend;
    for (int i = 0; m->layers && i < m->config.n_layers; i++) {
        struct hg_llm_layer *l = &m->layers[i];
        struct hg_weight *weights[] = {l->qkv, l->o, l->gate_up, l->down};
        for (int k = 0; k < 4; k++)
            b->ops->weight_free(b, weights[k]);
        b->ops->free(b, l->norm1);
        b->ops->free(b, l->norm2);
    }
    for (int s = 0; s < HG_LLM_SETS; s++)
        free_set(b, &m->sets[s]);
    void *buffers[] = {m->inv_freq, m->x, m->q, m->y, m->hidden};
    for (int k = 0; k < 5; k++)
        b->ops->free(b, buffers[k]);
    free(m->layers);
    free(m);
}

static void at_least(int *limit, int value)
{
    if (*limit < value)
        *limit = value;
}

/* Largest first dimension of the tensors whose name ends in `suffix`. */
static int largest_rows(const struct hg_weights *w, const char *suffix)
{
    int64_t most = 0;
    size_t n = strlen(suffix);
    for (size_t i = 0; w && i < hg_weights_count(w); i++) {
        const struct hg_tensor *t = hg_weights_at(w, i, NULL);
        size_t len = strlen(t->name);
        if (t->n_dims > 0 && len >= n && strcmp(t->name + len - n, suffix) == 0 &&
            t->dims[0] > most && t->dims[0] <= INT32_MAX / 8)
            most = t->dims[0];
    }
    return (int)most;
}

void hg_llm_limits(const struct hg_llm_config *c, const struct hg_llm_source *s,
                   struct hg_backend_limits *limits)
{
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    int ins[] = {c->dim, q, c->ffn_dim};
    int outs[] = {q + 2 * kv, 2 * c->ffn_dim, c->dim, c->vocab};
    at_least(&limits->max_rows, s->max_tokens);
    for (int i = 0; i < 3; i++)
        at_least(&limits->max_in, ins[i]);
    for (int i = 0; i < 4; i++)
        at_least(&limits->max_out, outs[i]);
    at_least(&limits->max_context, c->max_positions);
    for (int i = 0; i < HG_LLM_SETS; i++) {
        at_least(&limits->max_out, largest_rows(s->task[i], "lm_head.weight"));
        at_least(&limits->max_rank, HG_MAX_PARTS * (largest_rows(s->task[i], "lora_A.weight") +
                                                    largest_rows(s->task[i], "lora_route.weight")));
    }
}
