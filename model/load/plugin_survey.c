/* model/load/plugin_survey.c - the shapes of lora_A [rank, in], lora_B [out, rank], lora_route
 * [experts, in] of every adapted module (reference.md 2.3). */
#include "model/load/plugin_survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "model.layers.7.mlp.down_proj.lora_A.weight" -> 7, "down_proj", 'A'; false: no lora tensor. */
static bool parse_name(const char *name, int *layer, char module[32], char *side)
{
    static const char prefix[] = "model.layers.";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return false;
    long n = strtol(name + sizeof prefix - 1, &end, 10);
    const char *lora = strstr(end, ".lora_");
    const char *dot = strchr(end + (*end == '.'), '.'); /* behind "self_attn" or "mlp" */
    if (n < 0 || n > 100000 || !lora || !dot || dot >= lora || lora - dot - 1 >= 32)
        return false;
    *layer = (int)n;
    snprintf(module, 32, "%.*s", (int)(lora - dot - 1), dot + 1);
    *side = lora[6]; /* A, B, r */
    return true;
}

/* Inputs and outputs of a module; 0: the base has no such module. */
static void shape_of(const struct hg_llm_config *c, const char *module, int64_t *in, int64_t *out)
{
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    const struct {
        const char *name;
        int64_t in, out;
        int fused; /* -1: in both layouts */
    } rows[] = {
        {"qkv_proj", c->dim, q + 2 * kv, 1},
        {"gate_up_proj", c->dim, 2 * (int64_t)c->ffn_dim, 1},
        {"q_proj", c->dim, q, 0},
        {"k_proj", c->dim, kv, 0},
        {"v_proj", c->dim, kv, 0},
        {"gate_proj", c->dim, c->ffn_dim, 0},
        {"up_proj", c->dim, c->ffn_dim, 0},
        {"o_proj", q, c->dim, -1},
        {"down_proj", c->ffn_dim, c->dim, -1},
    };
    *in = *out = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, module) == 0 && (rows[i].fused < 0 || rows[i].fused == c->fused)) {
            *in = rows[i].in;
            *out = rows[i].out;
        }
}

static void compare(struct hg_plugin_survey *p, const struct hg_tensor *t, const char *module,
                    char side, const struct hg_llm_config *c)
{
    int64_t in, out;
    if (p->bad[0] || t->n_dims != 2)
        return;
    shape_of(c, module, &in, &out);
    int64_t want = side == 'B' ? out : in, got = side == 'B' ? t->dims[0] : t->dims[1];
    if (in == 0)
        snprintf(p->bad, sizeof p->bad, "%.90s: the base has no %.20s", t->name, module);
    else if (want != got)
        snprintf(p->bad, sizeof p->bad, "%.90s: expected %lld %s, got %lld", t->name,
                 (long long)want, side == 'B' ? "rows" : "columns", (long long)got);
}

void hg_plugin_survey(const struct hg_weights *w, const struct hg_llm_config *c,
                      struct hg_plugin_survey *p)
{
    *p = (struct hg_plugin_survey){0};
    for (size_t i = 0; i < hg_weights_count(w); i++) {
        const struct hg_tensor *t = hg_weights_at(w, i, NULL);
        char module[32], side;
        int layer;
        p->has_table |= strcmp(t->name, "model.embed_tokens.weight") == 0;
        if (!parse_name(t->name, &layer, module, &side))
            continue;
        p->n_layers = layer + 1 > p->n_layers ? layer + 1 : p->n_layers;
        p->n_lora += side == 'A';
        bool fused = strcmp(module, "qkv_proj") == 0,
             first = fused || strcmp(module, "q_proj") == 0;
        p->fused |= fused;
        if (first && t->n_dims == 2 && side == 'A') {
            p->rank = t->dims[0];
            p->dim = t->dims[1];
        } else if (first && t->n_dims == 2 && side == 'r') {
            p->n_experts = t->dims[0];
        }
        if (c)
            compare(p, t, module, side, c);
    }
}
