/* model/healthgpt_step.c - the step: integers planned here, arithmetic in the backend.
 *
 * A step that was begun is a flight until it is ended. The plan's tables are free again when the
 * backend has the step; a flight keeps what the end needs: items, out rows, results. */
#include <string.h>

#include "common/fault.h"
#include "model/internal.h"
#include "model/prefix.h"
#include "model/sampler.h"

static struct hg_flight *flight_of(struct hg_model *m, int64_t step)
{
    return &m->step.flights[step % HG_STEPS_AHEAD];
}

/* ---- the plan -------------------------------------------------------------------------------- */

/* Token to feed at a position: a prompt id, a feature row of the pool, what was generated, or what
 * the step before is sampling. */
static int32_t token_at(const struct hg_seq *s, int position)
{
    if (position >= s->p->n_prompt) {
        size_t i = (size_t)(position - s->p->n_prompt);
        return i < s->n_generated ? s->generated[i] : HG_TOKEN_SAMPLED(s->last_out);
    }
    int32_t token = s->p->tokens[position];
    if (token >= 0)
        return token;
    int rows = s->m->n_image_rows;
    int image = (-1 - token) / rows, row = (-1 - token) % rows;
    return -1 - (s->image_slot[image] * rows + row);
}

static enum hg_status check_item(const struct hg_model *m, const struct hg_step_item *item,
                                 struct hg_error *err)
{
    const struct hg_seq *s = item->seq;
    int waiting = hg_seq_n_waiting(s);
    if (s->finish != HG_FINISH_NONE)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: a finished sequence");
    if (s->preempted)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: a preempted sequence");
    if (hg_seq_wants_vision(s))
        return hg_fail(err, HG_STATUS_INTERNAL, "step: an image is not encoded");
    if (item->n_tokens < 1 || item->n_tokens > (waiting ? waiting : 1))
        return hg_fail(err, HG_STATUS_INTERNAL, "step: expected 1..%d tokens, got %d",
                       waiting ? waiting : 1, item->n_tokens);
    if (hg_seq_n_left(s) < 1)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: all %d tokens of a sequence are on the way",
                       s->p->max_tokens);
    if (s->n_ahead == 0)
        return HG_STATUS_OK;
    if (!hg_seq_runs_ahead(s))
        return hg_fail(err, HG_STATUS_INTERNAL, "step: a sequence that has to know its token");
    if (s->last_step != m->step.n_begun)
        return hg_fail(err, HG_STATUS_INTERNAL,
                       "step: a token in flight that is not of the step begun last");
    return HG_STATUS_OK;
}

/* One item's tokens into the plan, beginning at row t; returns the rows used. */
static int plan_item(struct hg_model *m, struct hg_flight *f, const struct hg_step_item *item,
                     int index, int t)
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
    if (s->n_cached + item->n_tokens < hg_seq_n_known(s))
        return item->n_tokens; /* more is known: no sample */
    int o = f->n_out++;
    int32_t lo = s->task->lo, hi = s->task->hi;
    if (s->p->sampling.unconstrained_image) {
        lo = 0;
        hi = s->task->n_rows;
    }
    st->out_row[o] = t - 1;
    st->out_table[o] = s->task->set;
    f->out_item[o] = index;
    hg_sampling_params(&s->p->sampling, m->llm_config.repetition_penalty, lo, hi, s->generated,
                       s->n_generated, &st->sample[o]);
    st->sample[o].position += (uint64_t)s->n_ahead; /* the draw's number, also of unknown tokens */
    return item->n_tokens;
}

static enum hg_status plan_step(struct hg_model *m, struct hg_flight *f,
                                const struct hg_step_item *items, size_t n, struct hg_plan *plan,
                                struct hg_error *err)
{
    struct hg_step_tables *st = &m->step;
    int64_t total = 0;
    if (n == 0 || n > (size_t)m->max_seqs)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: expected 1..%d sequences, got %zu",
                       m->max_seqs, n);
    for (size_t i = 0; i < n; i++) {
        HG_TRY(check_item(m, &items[i], err));
        total += items[i].n_tokens;
    }
    if (total > m->max_batch_tokens)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: at most %d tokens, got %lld",
                       m->max_batch_tokens, (long long)total);
    for (size_t i = 0; i < n; i++)
        HG_TRY(hg_seq_reserve(items[i].seq, items[i].n_tokens, err));
    int t = 0, generated = 0;
    f->n_out = 0;
    for (int prompts = 0; prompts < 2; prompts++) { /* generated tokens come first */
        for (size_t i = 0; i < n; i++)
            if ((items[i].seq->n_cached < items[i].seq->p->n_prompt) == prompts)
                t += plan_item(m, f, &items[i], (int)i, t);
        generated = prompts ? generated : t;
    }
    *plan = (struct hg_plan){.n_tokens = t,
                             .n_prompt = t - generated,
                             .n_seqs = (int)n,
                             .n_out = f->n_out,
                             .max_blocks = st->max_blocks,
                             .token = st->token,
                             .pos = st->pos,
                             .seq = st->seq,
                             .slot = st->slot,
                             .table = st->table,
                             .block_table = st->block_table,
                             .out_row = st->out_row,
                             .out_table = st->out_table,
                             .sample = st->sample,
                             .result = f->result};
    return HG_STATUS_OK;
}

/* ---- the ops --------------------------------------------------------------------------------- */

static enum hg_status issue(struct hg_model *m, const struct hg_plan *plan)
{
    const struct hg_step_tables *st = &m->step;
    HG_TRY(hg_llm_forward(m->llm, plan, m->kv.kv, m->features.rows));
    if (plan->n_out == 0)
        return HG_STATUS_OK;
    HG_TRY(hg_llm_head(m->llm, plan, st->logits, st->ld_logits));
    return m->backend->ops->sample(
        m->backend,
        &(struct hg_sample_args){.plan = plan, .logits = st->logits, .ld = st->ld_logits});
}

/* Once more where a capture came to nothing, which it does at most once. */
static enum hg_status run_plan(struct hg_model *m, const struct hg_plan *plan, int64_t *number)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    *number = 0;
    while (*number == 0) {
        bool replayed = false;
        HG_TRY(ops->step_begin(m->backend, plan, &replayed));
        enum hg_status status = replayed ? HG_STATUS_OK : issue(m, plan);
        if (status != HG_STATUS_OK) {
            ops->step_end(m->backend, NULL);
            return status;
        }
        HG_TRY(ops->step_end(m->backend, number));
    }
    return HG_STATUS_OK;
}

/* ---- begin ----------------------------------------------------------------------------------- */

enum hg_status hg_model_step_begin(struct hg_model *m, const struct hg_step_item *items, size_t n,
                                   struct hg_error *err)
{
    struct hg_step_tables *st = &m->step;
    struct hg_flight *f = flight_of(m, st->n_begun + 1);
    struct hg_plan plan = {0};
    if (st->n_flights == HG_STEPS_AHEAD)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: %d are in flight already", HG_STEPS_AHEAD);
    HG_TRY(plan_step(m, f, items, n, &plan, err));
    enum hg_status status = run_plan(m, &plan, &f->number);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "step of %d tokens: %s", plan.n_tokens, hg_status_text(status));
    st->n_begun++;
    st->n_flights++;
    st->n_out = f->n_out;
    f->n_items = (int)n;
    memcpy(f->items, items, n * sizeof *items);
    for (size_t i = 0; i < n; i++)
        items[i].seq->n_cached += items[i].n_tokens;
    for (int o = 0; o < f->n_out; o++) {
        struct hg_seq *s = items[f->out_item[o]].seq;
        s->n_ahead++;
        s->last_step = st->n_begun;
        s->last_out = o;
    }
    return HG_STATUS_OK;
}

int hg_model_steps_in_flight(const struct hg_model *m)
{
    return m->step.n_flights;
}

/* ---- end ------------------------------------------------------------------------------------- */

static enum hg_finish finish_of(const struct hg_seq *s, int32_t id)
{
    bool image = hg_seq_is_image(s);
    if (!image && !s->p->sampling.ignore_stop && hg_model_is_stop(s->m, id))
        return HG_FINISH_STOP;
    if (s->n_generated + 1 >= (size_t)s->p->max_tokens)
        return image ? HG_FINISH_IMAGE : HG_FINISH_LENGTH;
    return HG_FINISH_NONE;
}

/* Take over one sampled row: the sequence advances, the caller's token is filled. */
static void accept(struct hg_seq *s, const struct hg_sample_result *r, struct hg_token *token)
{
    s->n_ahead--;
    if (s->finish != HG_FINISH_NONE)
        return; /* it ended with an error in an earlier step */
    if (!r->finite) {
        s->finish = token->finish = HG_FINISH_ERROR;
        hg_seq_distrust(s); /* whatever is in its blocks */
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

/* Nothing of the steps in flight has happened. */
static void take_back(struct hg_model *m)
{
    struct hg_step_tables *st = &m->step;
    for (; st->n_flights > 0; st->n_flights--) {
        const struct hg_flight *f = flight_of(m, st->n_begun - st->n_flights + 1);
        for (int i = 0; i < f->n_items; i++)
            if (f->items[i].seq)
                f->items[i].seq->n_cached -= f->items[i].n_tokens;
        for (int o = 0; o < f->n_out; o++)
            if (f->items[f->out_item[o]].seq)
                f->items[f->out_item[o]].seq->n_ahead--;
    }
}

enum hg_status hg_model_step_end(struct hg_model *m, struct hg_token *tokens, size_t *n,
                                 struct hg_error *err)
{
    struct hg_step_tables *st = &m->step;
    *n = 0;
    if (st->n_flights == 0)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: none is in flight");
    struct hg_flight *f = flight_of(m, st->n_begun - st->n_flights + 1);
    enum hg_status status = m->backend->ops->step_wait(m->backend, f->number);
    int64_t planted = 0;
    if (status == HG_STATUS_OK && hg_fault(HG_FAULT_STEP_ERR, &planted))
        status = (enum hg_status)planted;
    if (status != HG_STATUS_OK) {
        take_back(m);
        return hg_fail(err, status, "step of %d sequences: %s", f->n_items, hg_status_text(status));
    }
    st->n_flights--;
    *n = (size_t)f->n_items;
    for (int i = 0; i < f->n_items; i++) {
        struct hg_seq *s = f->items[i].seq;
        memset(&tokens[i], 0, sizeof tokens[i]);
        tokens[i].id = -1;
        tokens[i].seq = s;
        if (s && s->n_cached >= s->p->n_prompt)
            hg_seq_release_features(s);
    }
    for (int o = 0; o < f->n_out; o++) {
        int i = f->out_item[o];
        if (!f->items[i].seq)
            continue;
        if (hg_fault(HG_FAULT_NAN_ROW, NULL))
            f->result[o].finite = false;
        accept(f->items[i].seq, &f->result[o], &tokens[i]);
        /* Only now: a row that is finite has looked at every position before it. */
        if (f->items[i].seq->finish != HG_FINISH_ERROR)
            hg_prefix_publish(f->items[i].seq);
    }
    return HG_STATUS_OK;
}

void hg_flights_forget(struct hg_model *m, const struct hg_seq *s)
{
    for (int k = 0; k < m->step.n_flights; k++) {
        struct hg_flight *f = flight_of(m, m->step.n_begun - k);
        for (int i = 0; i < f->n_items; i++)
            if (f->items[i].seq == s)
                f->items[i].seq = NULL;
    }
}

bool hg_flights_hold(const struct hg_model *m, const struct hg_seq *s)
{
    for (int k = 0; k < m->step.n_flights; k++) {
        const struct hg_flight *f = &m->step.flights[(m->step.n_begun - k) % HG_STEPS_AHEAD];
        for (int i = 0; i < f->n_items; i++)
            if (f->items[i].seq == s)
                return true;
    }
    return false;
}

/* ---- in one ---------------------------------------------------------------------------------- */

enum hg_status hg_model_step(struct hg_model *m, const struct hg_step_item *items, size_t n,
                             struct hg_token *tokens, struct hg_error *err)
{
    size_t n_tokens = 0;
    if (m->step.n_flights > 0)
        return hg_fail(err, HG_STATUS_INTERNAL, "step: %d are in flight", m->step.n_flights);
    HG_TRY(hg_model_step_begin(m, items, n, err));
    return hg_model_step_end(m, tokens, &n_tokens, err);
}

/* The out row of the row-th item that sampled: generated tokens come first in a plan. */
static int out_of(const struct hg_flight *f, int row)
{
    for (int o = 0; o < f->n_out; o++) {
        int before = 0;
        for (int k = 0; k < f->n_out; k++)
            before += f->out_item[k] < f->out_item[o];
        if (before == row)
            return o;
    }
    return row;
}

enum hg_status hg_model_last_logits(struct hg_model *m, size_t row, float *dst, size_t cap,
                                    size_t *n, int32_t *first_id, struct hg_error *err)
{
    const struct hg_step_tables *st = &m->step;
    if (st->n_flights > 0)
        return hg_fail(err, HG_STATUS_INTERNAL, "logits: %d steps are in flight", st->n_flights);
    if (row >= (size_t)st->n_out)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "logits: row %zu of %d", row, st->n_out);
    int out = out_of(flight_of(m, st->n_begun), (int)row);
    const struct hg_sample_params *p = &st->sample[out];
    size_t width = (size_t)(p->hi - p->lo);
    if (width > cap)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "logits: %zu values, room for %zu", width, cap);
    HG_TRY(m->backend->ops->download(m->backend, dst, st->logits + (int64_t)out * st->ld_logits,
                                     width * sizeof(float)));
    *n = width;
    *first_id = p->lo;
    return HG_STATUS_OK;
}
