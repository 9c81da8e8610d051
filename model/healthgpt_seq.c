/* model/healthgpt_seq.c - sequences and the step: integers planned here, arithmetic in the backend.
 */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "model/sampler.h"

struct hg_seq {
    struct hg_model *m;
    struct hg_prepared *p;
    const struct hg_task_profile *task;
    int32_t *blocks;
    int n_blocks;
    int n_cached;                      /* positions in the KV cache */
    int n_encoded;                     /* images through the vision tower */
    int32_t image_slot[HG_MAX_IMAGES]; /* feature slots; held until the prompt is cached */
    int n_image_slots;
    int32_t *generated; /* [max_tokens] */
    size_t n_generated;
    enum hg_finish finish;
};

static void release_features(struct hg_seq *s)
{
    struct hg_feature_pool *f = &s->m->features;
    for (int i = 0; i < s->n_image_slots; i++)
        f->free_slots[f->n_free++] = s->image_slot[i];
    s->n_image_slots = 0;
}

static enum hg_status acquire_features(struct hg_seq *s, struct hg_error *err)
{
    struct hg_feature_pool *f = &s->m->features;
    if (s->p->n_images > f->n_free)
        return hg_fail(err, HG_STATUS_BUSY, "image slots: %d needed, %d of %d free", s->p->n_images,
                       f->n_free, f->n_slots);
    for (int i = 0; i < s->p->n_images; i++)
        s->image_slot[i] = f->free_slots[--f->n_free];
    s->n_image_slots = s->p->n_images;
    return HG_STATUS_OK;
}

enum hg_status hg_seq_create(struct hg_model *m, struct hg_prepared *p, struct hg_seq **out,
                             struct hg_error *err)
{
    int n_blocks = hg_kv_cache_blocks_for(p->n_prompt + p->max_tokens);
    if (n_blocks > m->kv.n_blocks)
        return hg_fail(err, HG_STATUS_TOO_LARGE,
                       "prompt of %d + %d new tokens needs %d KV blocks, the cache has %d",
                       p->n_prompt, p->max_tokens, n_blocks, m->kv.n_blocks);
    struct hg_seq *s = calloc(1, sizeof *s);
    if (!s)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "sequence");
    enum hg_status status = HG_STATUS_OK;
    s->m = m;
    s->p = p;
    s->task = &m->tasks[p->task];
    s->blocks = calloc((size_t)n_blocks, sizeof *s->blocks);
    s->generated = calloc((size_t)p->max_tokens, sizeof *s->generated);
    if (!s->blocks || !s->generated) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "sequence of %d blocks", n_blocks);
        goto out;
    }
    HG_TRY_OUT(hg_kv_cache_acquire(&m->kv, n_blocks, s->blocks, err));
    s->n_blocks = n_blocks;
    HG_TRY_OUT(acquire_features(s, err));
    *out = s;
    return HG_STATUS_OK;
out:
    s->p = NULL; /* stays the caller's */
    hg_seq_free(s);
    return status;
}

void hg_seq_free(struct hg_seq *s)
{
    if (!s)
        return;
    release_features(s);
    hg_kv_cache_release(&s->m->kv, s->blocks, s->n_blocks);
    hg_prepared_free(s->p);
    free(s->blocks);
    free(s->generated);
    free(s);
}

bool hg_seq_wants_vision(const struct hg_seq *s)
{
    return s->n_encoded < s->p->n_images;
}

enum hg_status hg_seq_encode_image(struct hg_seq *s, struct hg_error *err)
{
    struct hg_model *m = s->m;
    if (!hg_seq_wants_vision(s))
        return hg_fail(err, HG_STATUS_INTERNAL, "no image left to encode");
    int side = m->vision_config.image_side, rows = m->n_image_rows;
    size_t n_pixels = (size_t)3 * (size_t)side * (size_t)side;
    const float *pixels = s->p->pixels + (size_t)s->n_encoded * n_pixels;
    HG_TRY(hg_vision_encode(m->vision, pixels, s->task->vision_layer, m->features.hidden, err));
    int64_t first = (int64_t)s->image_slot[s->n_encoded] * rows * m->llm_config.dim;
    void *y = hg_act_at(m->backend, m->features.rows, first);
    if (hg_projector_run(s->task->projector, m->features.hidden, rows, y) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_DEVICE, "projector failed");
    s->n_encoded++;
    return HG_STATUS_OK;
}

int hg_seq_n_waiting(const struct hg_seq *s)
{
    return s->n_cached < s->p->n_prompt ? s->p->n_prompt - s->n_cached : 0;
}

size_t hg_seq_n_generated(const struct hg_seq *s)
{
    return s->n_generated;
}

const int32_t *hg_seq_generated(const struct hg_seq *s)
{
    return s->generated;
}

enum hg_task hg_seq_task(const struct hg_seq *s)
{
    return s->p->task;
}

/* ---- the step ---------------------------------------------------------------------------------
 */

/* Token to feed at a position: a prompt id, a feature row of the pool, or what was generated. */
static int32_t token_at(const struct hg_seq *s, int position)
{
    if (position >= s->p->n_prompt)
        return s->generated[position - s->p->n_prompt];
    int32_t token = s->p->tokens[position];
    if (token >= 0)
        return token;
    int rows = s->m->n_image_rows;
    int image = (-1 - token) / rows, row = (-1 - token) % rows;
    return -1 - (s->image_slot[image] * rows + row);
}

static enum hg_status check_item(const struct hg_step_item *item, struct hg_error *err)
{
    const struct hg_seq *s = item->seq;
    int waiting = hg_seq_n_waiting(s);
    if (s->finish != HG_FINISH_NONE)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: a finished sequence");
    if (hg_seq_wants_vision(s))
        return hg_fail(err, HG_STATUS_INTERNAL, "step: image %d is not encoded", s->n_encoded);
    if (item->n_tokens < 1 || item->n_tokens > (waiting ? waiting : 1))
        return hg_fail(err, HG_STATUS_INTERNAL, "step: expected 1..%d tokens, got %d",
                       waiting ? waiting : 1, item->n_tokens);
    return HG_STATUS_OK;
}

/* One item's tokens into the plan, beginning at row t; returns the rows used. */
static int plan_item(struct hg_model *m, const struct hg_step_item *item, int index, int t)
{
    struct hg_step_tables *st = &m->step;
    const struct hg_seq *s = item->seq;
    memcpy(st->block_table + (size_t)index * (size_t)st->max_blocks, s->blocks,
           (size_t)s->n_blocks * sizeof *s->blocks);
    for (int i = 0; i < item->n_tokens; i++, t++) {
        st->token[t] = token_at(s, s->n_cached + i);
        st->pos[t] = s->n_cached + i;
        st->seq[t] = index;
        st->slot[t] = s->p->no_plugin ? -1 : s->task->slot;
        st->table[t] = s->task->set;
    }
    if (s->n_cached + item->n_tokens < s->p->n_prompt)
        return item->n_tokens; /* prefill goes on: no sample */
    int o = st->n_out++;
    int32_t lo = s->task->lo, hi = s->task->hi;
    if (s->p->sampling.unconstrained_image) {
        lo = 0;
        hi = s->task->n_rows;
    }
    st->out_row[o] = t - 1;
    st->out_table[o] = s->task->set;
    st->out_item[o] = index;
    hg_sampling_params(&s->p->sampling, m->llm_config.repetition_penalty, lo, hi, s->generated,
                       s->n_generated, &st->sample[o]);
    return item->n_tokens;
}

static enum hg_status plan_step(struct hg_model *m, const struct hg_step_item *items, size_t n,
                                struct hg_plan *plan, struct hg_error *err)
{
    struct hg_step_tables *st = &m->step;
    int64_t total = 0;
    if (n == 0 || n > (size_t)m->max_seqs)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: expected 1..%d sequences, got %zu",
                       m->max_seqs, n);
    for (size_t i = 0; i < n; i++) {
        HG_TRY(check_item(&items[i], err));
        total += items[i].n_tokens;
    }
    if (total > m->max_batch_tokens)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: at most %d tokens, got %lld",
                       m->max_batch_tokens, (long long)total);
    int t = 0, generated = 0;
    st->n_out = 0;
    for (int prompts = 0; prompts < 2; prompts++) { /* generated tokens come first */
        for (size_t i = 0; i < n; i++)
            if ((hg_seq_n_waiting(items[i].seq) > 0) == prompts)
                t += plan_item(m, &items[i], (int)i, t);
        generated = prompts ? generated : t;
    }
    *plan = (struct hg_plan){.n_tokens = t,
                             .n_prompt = t - generated,
                             .n_seqs = (int)n,
                             .n_out = st->n_out,
                             .max_blocks = st->max_blocks,
                             .token = st->token,
                             .pos = st->pos,
                             .seq = st->seq,
                             .slot = st->slot,
                             .table = st->table,
                             .block_table = st->block_table,
                             .out_row = st->out_row,
                             .out_table = st->out_table,
                             .sample = st->sample};
    return HG_STATUS_OK;
}

static enum hg_status run_plan(struct hg_model *m, const struct hg_plan *plan)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    struct hg_step_tables *st = &m->step;
    HG_TRY(ops->step_begin(m->backend, plan));
    HG_TRY(hg_llm_forward(m->llm, plan, m->kv.kv, m->features.rows));
    if (plan->n_out > 0) {
        HG_TRY(hg_llm_head(m->llm, plan, st->logits, st->ld_logits));
        HG_TRY(ops->sample(m->backend, &(struct hg_sample_args){.plan = plan,
                                                                .logits = st->logits,
                                                                .ld = st->ld_logits,
                                                                .result = st->result}));
    }
    HG_TRY(ops->step_end(m->backend));
    return ops->sync(m->backend);
}

static enum hg_finish finish_of(const struct hg_seq *s, int32_t id)
{
    const struct hg_sampling *sampling = &s->p->sampling;
    bool image = s->p->task == HG_TASK_GENERATION && !sampling->unconstrained_image;
    if (!image && !sampling->ignore_stop && hg_model_is_stop(s->m, id))
        return HG_FINISH_STOP;
    if (s->n_generated + 1 >= (size_t)s->p->max_tokens)
        return image ? HG_FINISH_IMAGE : HG_FINISH_LENGTH;
    return HG_FINISH_NONE;
}

/* Take over one sampled row: the sequence advances, the caller's token is filled. */
static void accept(struct hg_seq *s, const struct hg_sample_result *r, struct hg_token *token)
{
    if (!r->finite) {
        s->finish = token->finish = HG_FINISH_ERROR;
        return;
    }
    token->id = r->token;
    token->logprob = r->logprob;
    token->n_top = r->n_top;
    memcpy(token->top_id, r->top_id, sizeof token->top_id);
    memcpy(token->top_logprob, r->top_logprob, sizeof token->top_logprob);
    s->finish = token->finish = finish_of(s, r->token);
    if (token->finish != HG_FINISH_STOP)
        s->generated[s->n_generated++] = r->token;
}

enum hg_status hg_model_step(struct hg_model *m, const struct hg_step_item *items, size_t n,
                             struct hg_token *tokens, struct hg_error *err)
{
    struct hg_plan plan = {0};
    HG_TRY(plan_step(m, items, n, &plan, err));
    enum hg_status status = run_plan(m, &plan);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "step of %d tokens: %s", plan.n_tokens, hg_status_text(status));
    for (size_t i = 0; i < n; i++) {
        memset(&tokens[i], 0, sizeof tokens[i]);
        tokens[i].id = -1;
        items[i].seq->n_cached += items[i].n_tokens;
        if (hg_seq_n_waiting(items[i].seq) == 0)
            release_features(items[i].seq);
    }
    for (int o = 0; o < m->step.n_out; o++) {
        int i = m->step.out_item[o];
        accept(items[i].seq, &m->step.result[o], &tokens[i]);
    }
    return HG_STATUS_OK;
}

enum hg_status hg_model_last_logits(struct hg_model *m, size_t row, float *dst, size_t cap,
                                    size_t *n, int32_t *first_id, struct hg_error *err)
{
    if (row >= (size_t)m->step.n_out)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "logits: row %zu of %d", row, m->step.n_out);
    const struct hg_sample_params *p = &m->step.sample[row];
    size_t width = (size_t)(p->hi - p->lo);
    if (width > cap)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "logits: %zu values, room for %zu", width, cap);
    HG_TRY(m->backend->ops->download(
        m->backend, dst, m->step.logits + (int64_t)row * m->step.ld_logits, width * sizeof(float)));
    *n = width;
    *first_id = p->lo;
    return HG_STATUS_OK;
}
