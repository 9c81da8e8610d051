/* tools/healthgpt/doctor_plugins.c - is the H-LoRA file that of this base and of this task?
 *
 * Shapes tell (reference.md 2.3): lora_A [rank, in], lora_B [out, rank], lora_route [experts, in]
 * for every adapted module. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/load/weights.h"
#include "tools/healthgpt/doctor_model.h"

struct plugin {
    int n_lora, n_layers;         /* lora_A tensors; 1 + the highest layer */
    int64_t dim, rank, n_experts; /* of the first attention module */
    bool fused, has_table;
    char bad[160]; /* the first tensor that does not fit the base; "": all do */
};

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

static void compare(struct plugin *p, const struct hg_tensor *t, const char *module, char side,
                    const struct hg_llm_config *c)
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

/* c NULL: nothing to compare with. */
static void survey(const struct hg_weights *w, const struct hg_llm_config *c, struct plugin *p)
{
    *p = (struct plugin){0};
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

static enum hg_status open_one(const char *path, struct hg_weights **w)
{
    HG_TRY(hg_weights_create(w, NULL));
    return hg_weights_add_file(*w, path, NULL);
}

bool hg_doctor_plugin_looks(const char *path, const struct hg_doctor_variant **out, int *dim)
{
    struct hg_weights *w = NULL;
    struct plugin p = {0};
    if (open_one(path, &w) == HG_STATUS_OK)
        survey(w, NULL, &p);
    hg_weights_free(w);
    *dim = p.dim > 0 && p.dim < 1 << 20 ? (int)p.dim : 0;
    *out = hg_doctor_variant_of_plugin(*dim, p.n_layers, p.fused);
    return p.n_lora > 0;
}

static const char *name_of(const struct hg_doctor_variant *v)
{
    return v ? v->name : "no published model";
}

/* Every published plug-in scales by alpha / rank * experts = 8 (reference.md 0, fact 7). */
static void check_rank(struct hg_doctor_model *m, int task, const struct plugin *p)
{
    static const char *const names[] = {"comprehension", "generation"};
    const struct hg_task_card *t = &m->card.tasks[task];
    const struct hg_doctor_variant *v = m->variant;
    int64_t mine = v ? (task ? v->gen_rank : v->com_rank) : 0;
    int64_t other = v ? (task ? v->com_rank : v->gen_rank) : 0;
    double scale = p->rank > 0 ? (double)t->alpha * (double)p->n_experts / (double)p->rank : 0;
    if (mine && p->rank == other && other != mine)
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "plugin_swapped",
                            "%.120s: rank %lld is that of the other task's plug-in (%s wants "
                            "%lld)\nchange the two names in healthgpt.json",
                            t->hlora, (long long)p->rank, names[task], (long long)mine);
    else if (scale != 8)
        HG_DOCTOR_WARN_NOTE(m->d, "plugin_scale",
                            "%.120s: alpha %g, rank %lld and %lld experts scale by %g, every "
                            "published plug-in by 8\nsee whether alpha in healthgpt.json is right, "
                            "or the plug-ins of the two tasks are swapped",
                            t->hlora, (double)t->alpha, (long long)p->rank, (long long)p->n_experts,
                            scale);
    else
        HG_DOCTOR_OK_NOTE(m->d, "plugin", "%.120s: fits the base, rank %lld, %lld experts",
                          t->hlora, (long long)p->rank, (long long)p->n_experts);
}

void hg_doctor_plugin(struct hg_doctor_model *m, int task)
{
    const struct hg_task_card *t = &m->card.tasks[task];
    char path[HG_DOCTOR_PATH], source[256];
    struct hg_weights *w = NULL;
    struct plugin p;
    if (!m->has_llm || !hg_doctor_path(m, t->hlora, path))
        return;
    if (open_one(path, &w) == HG_STATUS_OK) {
        survey(w, &m->llm, &p);
        const struct hg_doctor_variant *looks =
            hg_doctor_variant_of_plugin((int)(p.dim & 0xfffff), p.n_layers, p.fused);
        hg_doctor_source(m, task ? HG_DOCTOR_GEN : HG_DOCTOR_COM, source);
        if (p.n_lora == 0)
            HG_DOCTOR_FAIL_NOTE(
                m->d, HG_STATUS_BAD_FILE, "plugin_kind",
                "%.120s: no H-LoRA in it%s\nthe plug-in comes from %s", t->hlora,
                p.has_table ? " but embeddings: this looks like the fusion file" : "", source);
        else if (p.bad[0] || p.n_layers != m->llm.n_layers)
            HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "plugin_base",
                                "%.100s: a plug-in for another base (%s, %d layers of %lld; the "
                                "base: %s, %d of %d): %s\nthe right one: %s",
                                t->hlora, name_of(looks), p.n_layers, (long long)p.dim,
                                name_of(m->variant), m->llm.n_layers, m->llm.dim,
                                p.bad[0] ? p.bad : "other number of layers", source);
        else
            check_rank(m, task, &p);
    }
    hg_weights_free(w);
}
