/* model/load/expect.c - a table of what can be expected, and where the found value is. */
#include "model/load/expect.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum from { FROM_LLM, FROM_VISION, FROM_FACTS, FROM_STOP_IDS };
enum kind { KIND_INT, KIND_FLOAT, KIND_DOUBLE, KIND_WINDOW };

static const struct row {
    const char *file, *key;
    enum from from;
    enum kind kind;
    size_t offset;
} rows[] = {
#define LLM(key, kind, member)                                                                     \
    {                                                                                              \
        "config.json", key, FROM_LLM, kind, offsetof(struct hg_llm_config, member)                 \
    }
    LLM("hidden_size", KIND_INT, dim),
    LLM("num_hidden_layers", KIND_INT, n_layers),
    LLM("num_attention_heads", KIND_INT, n_heads),
    LLM("num_key_value_heads", KIND_INT, n_kv_heads),
    LLM("head_dim", KIND_INT, head_dim),
    LLM("intermediate_size", KIND_INT, ffn_dim),
    LLM("vocab_size", KIND_INT, vocab),
    LLM("max_position_embeddings", KIND_INT, max_positions),
    LLM("sliding_window", KIND_WINDOW, sliding_window),
    LLM("rms_norm_eps", KIND_FLOAT, norm_eps),
    LLM("rope_theta", KIND_DOUBLE, rope_theta),
#undef LLM
    {"generation_config.json", "eos_token_id", FROM_STOP_IDS, KIND_INT, 0},
    {"generation_config.json", "repetition_penalty", FROM_LLM, KIND_FLOAT,
     offsetof(struct hg_llm_config, repetition_penalty)},
#define VISION(key, member)                                                                        \
    {                                                                                              \
        "vision/config.json", key, FROM_VISION, KIND_INT,                                          \
            offsetof(struct hg_vision_config, member)                                              \
    }
    VISION("hidden_size", dim),
    VISION("num_hidden_layers", n_layers),
    VISION("image_size", image_side),
    VISION("patch_size", patch),
#undef VISION
#define FACT(file, key, member)                                                                    \
    {                                                                                              \
        file, key, FROM_FACTS, KIND_INT, offsetof(struct hg_expect_facts, member)                  \
    }
    FACT("tokenizer", "size", tokenizer_size),
    FACT("tokenizer", "first_image_id", first_image_id),
    FACT("tokenizer", "size_with_images", size_with_images),
    FACT("vqgan", "codes", n_codes),
    FACT("comprehension", "rank", rank[0]),
    FACT("comprehension", "experts", experts[0]),
    FACT("generation", "rank", rank[1]),
    FACT("generation", "experts", experts[1]),
#undef FACT
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static const struct row *find_row(const char *file, const char *key)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].file, file) == 0 && strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum hg_status read_one(const struct hg_json_view *v, const char *file, const char *key,
                               const json_t *value, struct hg_model_card *c, struct hg_error *err)
{
    struct hg_expectation *e = &c->expect[c->n_expect];
    const struct row *row = find_row(file, key);
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (!row)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %.40s: %.40s: not a constant that is known",
                       v->where, file, key);
    if (c->n_expect == HG_MAX_EXPECT)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: more than %d constants", v->where,
                       HG_MAX_EXPECT);
    if (n < 1 || n > HG_MAX_EXPECTED || (n > 1 && row->from != FROM_STOP_IDS))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: %s: expected a number%s", v->where, file,
                       key, row->from == FROM_STOP_IDS ? " or up to four" : "");
    *e = (struct hg_expectation){.n = (int)n};
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_is_array(value) ? json_array_get(value, i) : value;
        e->value[i] = json_number_value(x);
        if (!json_is_number(x) || !(fabs(e->value[i]) <= 1e12))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: %s: expected a number", v->where, file,
                           key);
    }
    snprintf(e->file, sizeof e->file, "%s", file);
    snprintf(e->key, sizeof e->key, "%s", key);
    c->n_expect++;
    return HG_STATUS_OK;
}

enum hg_status hg_expect_parse(const struct hg_json_view *card, struct hg_model_card *c,
                               struct hg_error *err)
{
    struct hg_json_view v, file;
    const char *name, *key;
    json_t *keys, *value;
    HG_TRY(hg_json_object(card, "expect", HG_JSON_OPTIONAL, &v, err));
    if (!v.obj)
        return HG_STATUS_OK;
    json_object_foreach((json_t *)(uintptr_t)v.obj, name, keys)
    {
        HG_TRY(hg_json_object(&v, name, HG_JSON_REQUIRED, &file, err));
        json_object_foreach(keys, key, value) HG_TRY(read_one(&v, name, key, value, c, err));
    }
    return HG_STATUS_OK;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Phi-3's window is kept as keys that are seen, one more than its config says. */
static double value_at(const struct row *r, const void *base, const struct hg_llm_config *llm)
{
    const char *at = (const char *)base + r->offset;
    if (r->kind == KIND_FLOAT)
        return (double)*(const float *)(const void *)at;
    if (r->kind == KIND_DOUBLE)
        return *(const double *)(const void *)at;
    int n = *(const int *)(const void *)at;
    return n - (r->kind == KIND_WINDOW && n > 0 && llm->fused);
}

static bool has_stop_id(const struct hg_llm_config *c, double id)
{
    for (int i = 0; i < c->n_stop; i++)
        if (c->stop_ids[i] == id)
            return true;
    return false;
}

static bool same(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b));
}

/* True: they differ; the text says what was found. */
static bool differs(const struct hg_expectation *e, const struct row *r,
                    const struct hg_expect_facts *f, char got[96], double *want)
{
    *want = e->value[0];
    if (r->from == FROM_STOP_IDS) {
        size_t at = 0;
        got[0] = '\0';
        for (int i = 0; f->llm && i < f->llm->n_stop && at < 80; i++)
            at += (size_t)snprintf(got + at, 96 - at, "%s%d", i ? ", " : "", f->llm->stop_ids[i]);
        for (int i = 0; f->llm && i < e->n; i++) {
            *want = e->value[i];
            if (!has_stop_id(f->llm, *want))
                return true;
        }
        return false;
    }
    const void *base = r->from == FROM_LLM      ? (const void *)f->llm
                       : r->from == FROM_VISION ? (const void *)f->vision
                                                : (const void *)f;
    if (!base)
        return false;
    double v = value_at(r, base, f->llm);
    snprintf(got, 96, "%.10g", v);
    return !(r->from == FROM_FACTS && v == 0) && !same(v, *want);
}

int hg_expect_compare(const struct hg_model_card *c, const struct hg_expect_facts *facts,
                      hg_expect_fn *fn, void *ctx)
{
    int n = 0;
    for (int i = 0; i < c->n_expect; i++) {
        const struct hg_expectation *e = &c->expect[i];
        const struct row *r = find_row(e->file, e->key);
        char got[96], line[320];
        double want;
        if (!r || !differs(e, r, facts, got, &want))
            continue;
        snprintf(line, sizeof line, "%s: %s: expected %s%.10g (card %s), got %s", e->file, e->key,
                 e->n > 1 ? "among them " : "", want, c->name, got);
        fn(ctx, line);
        n++;
    }
    return n;
}

double hg_expect_value(const struct hg_model_card *c, const char *file, const char *key,
                       double otherwise)
{
    for (int i = 0; i < c->n_expect; i++)
        if (strcmp(c->expect[i].file, file) == 0 && strcmp(c->expect[i].key, key) == 0)
            return c->expect[i].value[0];
    return otherwise;
}
