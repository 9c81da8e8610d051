/* tools/healthgpt/doctor_plugins.c - is the H-LoRA file that of this base and of this task?
 *
 * Shapes tell (reference.md 2.3): lora_A [rank, in], lora_B [out, rank], lora_route [experts, in]
 * for every adapted module. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/load/plugin_survey.h"
#include "model/load/weights.h"
#include "tools/healthgpt/doctor_model.h"

static enum hg_status open_one(const char *path, struct hg_weights **w)
{
    HG_TRY(hg_weights_create(w, NULL));
    return hg_weights_add_file(*w, path, NULL);
}

bool hg_doctor_plugin_looks(const char *path, const struct hg_published **out, int *dim)
{
    struct hg_weights *w = NULL;
    struct hg_plugin_survey p = {0};
    if (open_one(path, &w) == HG_STATUS_OK)
        hg_plugin_survey(w, NULL, &p);
    hg_weights_free(w);
    *dim = p.dim > 0 && p.dim < 1 << 20 ? (int)p.dim : 0;
    *out = hg_published_plugin(*dim, p.n_layers, p.fused);
    return p.n_lora > 0;
}

static const char *name_of(const struct hg_published *v)
{
    return v ? v->name : "no published model";
}

/* Every published plug-in scales by alpha / rank * experts = 8 (reference.md 0, fact 7). */
static void check_rank(struct hg_doctor_model *m, int task, const struct hg_plugin_survey *p)
{
    static const char *const names[] = {"comprehension", "generation"};
    const struct hg_task_card *t = &m->card.tasks[task];
    const struct hg_published *v = m->variant;
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
    struct hg_plugin_survey p;
    if (!m->has_llm || !hg_doctor_path(m, t->hlora, path))
        return;
    if (open_one(path, &w) == HG_STATUS_OK) {
        hg_plugin_survey(w, &m->llm, &p);
        const struct hg_published *looks =
            hg_published_plugin((int)(p.dim & 0xfffff), p.n_layers, p.fused);
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
