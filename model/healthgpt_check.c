/* model/healthgpt_check.c - what can be wrong with a model's files, before minutes are spent on
 * packing them: do the pieces belong together, are they what the card expects, is every tensor
 * there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "model/dry_run.h"
#include "model/internal.h"
#include "model/load/expect.h"
#include "model/load/plugin_survey.h"
#include "model/load/published.h"
#include "model/model_path.h"

struct check {
    struct hg_model *m;
    struct hg_model_files *f;
    hg_model_finding_fn *fn;
    void *ctx;
    struct hg_plugin_survey plugin[HG_TASK_COUNT];
};

static void warn(void *ctx, const char *line)
{
    const struct check *c = ctx;
    if (c->fn)
        c->fn(c->ctx, false, line);
    else
        hg_log(HG_LOG_WARN, "%s", line);
}

static void wrong(void *ctx, const struct hg_error *why)
{
    const struct check *c = ctx;
    if (c->fn)
        c->fn(c->ctx, true, why->text);
}

/* ---- plug-ins -------------------------------------------------------------------------------- */

static int64_t expected_rank(const struct hg_model *m, int task)
{
    const struct hg_llm_config *l = &m->llm_config;
    const struct hg_published *p = hg_published_base(l->arch, l->dim, l->n_layers);
    int otherwise = !p ? 0 : task ? p->gen_rank : p->com_rank;
    return (int64_t)hg_expect_value(&m->card, hg_task_name((enum hg_task)task), "rank", otherwise);
}

static enum hg_status foreign_plugin(const struct check *c, int task, struct hg_error *err)
{
    const struct hg_plugin_survey *s = &c->plugin[task];
    const struct hg_llm_config *l = &c->m->llm_config;
    const struct hg_published *p =
        hg_published_plugin((int)(s->dim & 0xfffff), s->n_layers, s->fused);
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%.60s: a plug-in for another base: %d layers of width %lld, the base has %d of "
                   "%d%s%s%s%.110s",
                   c->m->card.tasks[task].hlora, s->n_layers, (long long)s->dim, l->n_layers,
                   l->dim, p ? "; it looks like the plug-in of " : "", p ? p->name : "",
                   s->bad[0] ? ": " : "", s->bad);
}

/* Ranks tell the two files of a model apart (reference.md 1: 64 and 256 in M3). */
static enum hg_status check_plugin(struct check *c, int task, struct hg_error *err)
{
    struct hg_plugin_survey *s = &c->plugin[task];
    const struct hg_task_card *t = &c->m->card.tasks[task];
    const char *other_name = hg_task_name((enum hg_task)(1 - task));
    hg_plugin_survey(c->f->task[task], &c->m->llm_config, s);
    if (s->n_lora == 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.100s: no H-LoRA tensors in it%s", t->hlora,
                       s->has_table ? ", but embeddings: it looks like the fusion file" : "");
    const struct hg_llm_config *l = &c->m->llm_config;
    bool like = s->dim == l->dim && s->n_layers == l->n_layers && s->fused == l->fused;
    if (!like) /* else the rehearsal says which tensor is wrong, and it may be the base's */
        return foreign_plugin(c, task, err);
    int64_t mine = expected_rank(c->m, task), other = expected_rank(c->m, 1 - task);
    if (mine > 0 && other > 0 && mine != other && s->rank == other)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%.80s: expected rank %lld for %s, got %lld: it looks like the %s plug-in; "
                       "are the two files swapped?",
                       t->hlora, (long long)mine, hg_task_name((enum hg_task)task),
                       (long long)s->rank, other_name);
    return HG_STATUS_OK;
}

static enum hg_status check_plugins(struct check *c, struct hg_error *err)
{
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (c->m->card.tasks[t].present && c->m->card.tasks[t].hlora[0])
            HG_TRY(check_plugin(c, t, err));
    return HG_STATUS_OK;
}

/* ---- what the card expects ------------------------------------------------------------------- */

static void check_expectations(struct check *c)
{
    const struct hg_model *m = c->m;
    int size = m->tokenizer ? hg_tokenizer_size(m->tokenizer) : 0;
    bool images = m->n_index > 0 && m->first_index_id > 0;
    struct hg_expect_facts facts = {.llm = &m->llm_config,
                                    .vision = m->card.has_vision ? &m->vision_config : NULL,
                                    .tokenizer_size = images && size ? m->n_text : size,
                                    .first_image_id = images ? m->first_index_id : 0,
                                    .size_with_images = images ? size : 0,
                                    .n_codes = m->n_index};
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        facts.rank[t] = (int)c->plugin[t].rank;
        facts.experts[t] = (int)c->plugin[t].n_experts;
    }
    hg_expect_compare(&m->card, &facts, warn, c);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void refuse_not_finite(struct hg_model_files *f)
{
    struct hg_weights *sets[] = {f->base, f->vision, f->vqgan, f->task[0], f->task[1]};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (sets[i])
            hg_weights_refuse_not_finite(sets[i], true);
}

static enum hg_status rehearse(struct check *c, const struct hg_model_options *o,
                               int64_t deadline_ns, struct hg_error *err)
{
    struct hg_dry_run dry;
    struct hg_model *m = c->m;
    const struct hg_llm_config *l = &m->llm_config;
    struct hg_kv_desc kv = {.n_layers = l->n_layers,
                            .n_kv_heads = l->n_kv_heads,
                            .head_dim = l->head_dim,
                            .type = HG_DTYPE_F16};
    hg_dry_run_init(&dry);
    dry.wrong = wrong;
    dry.ctx = c;
    dry.values = !o->any_values;
    dry.deadline_ns = deadline_ns;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        dry.whole[t] = c->f->task[t];
    m->backend = &dry.backend;
    enum hg_status status = hg_model_load_network(m, c->f, o, &kv, err);
    hg_model_free_network(m);
    m->backend = NULL;
    if (dry.n_wrong > 0) /* what came of it tells less */
        return hg_fail(err, dry.first.status, "%.290s%s", dry.first.text,
                       dry.n_wrong > 1 ? " (and more)" : "");
    if (status != HG_STATUS_OK && err)
        wrong(c, err);
    if (dry.late)
        warn(c, "the values of the weights were not all looked at: it has taken too long");
    return status;
}

enum hg_status hg_model_rehearse(struct hg_model *m, struct hg_model_files *f,
                                 const struct hg_model_options *o, int64_t deadline_ns,
                                 hg_model_finding_fn *fn, void *ctx, struct hg_error *err)
{
    struct check c = {.m = m, .f = f, .fn = fn, .ctx = ctx};
    struct hg_error why = {0};
    enum hg_status status = check_plugins(&c, &why);
    check_expectations(&c);
    if (status != HG_STATUS_OK) {
        wrong(&c, &why);
        return hg_fail(err, status, "%s", why.text);
    }
    if (!o->any_values)
        refuse_not_finite(f);
    status = rehearse(&c, o, deadline_ns, &why);
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "%s", why.text);
}

enum hg_status hg_model_check(const struct hg_model_options *o, int64_t deadline_ns,
                              hg_model_finding_fn *fn, void *ctx, struct hg_error *err)
{
    struct hg_model_files *f = calloc(1, sizeof *f);
    struct hg_model *m = calloc(1, sizeof *m);
    struct hg_error why = {0};
    enum hg_status status = HG_STATUS_NO_MEMORY;
    if (f && m) {
        status = hg_model_files_open(m, o, f, &why);
        if (status != HG_STATUS_OK && fn)
            fn(ctx, true, why.text);
        if (status == HG_STATUS_OK)
            status = hg_model_rehearse(m, f, o, deadline_ns, fn, ctx, &why);
        hg_model_files_close(f);
    }
    hg_model_free(m);
    free(f);
    return status == HG_STATUS_OK ? status
                                  : hg_fail(err, status, "%s", why.text[0] ? why.text : "model");
}

enum hg_status hg_model_check_task(const struct hg_model_options *o, enum hg_task t,
                                   struct hg_error *err)
{
    char path[HG_PLACE_CAP];
    struct hg_model_place place;
    struct hg_model_card *c = calloc(1, sizeof *c);
    enum hg_status status = HG_STATUS_NO_MEMORY;
    if (!c)
        return hg_fail(err, status, "model card");
    HG_TRY_OUT(hg_model_path_resolve(o->path, path, sizeof path, err));
    HG_TRY_OUT(hg_model_place(path, o->weights, &place, err));
    HG_TRY_OUT(hg_model_card_read(place.card, c, err));
    const struct hg_task_card *task = &c->tasks[t];
    if (!task->present || (task->unpublished[0] && hg_model_find(&place, c, HG_PART_HLORA + (int)t,
                                                                 path, NULL) != HG_STATUS_OK))
        status = hg_model_fail_task(c, (int)t, err);
out:
    free(c);
    return status;
}
