/* tools/healthgpt/bench_quant_run.c - questions through a model, step by step, without a scheduler.
 *
 * A prompt is computed alone, then its sequence decodes with the others. Rows do not depend on
 * their company (the order rule of kernels/backend.h), so neither does a result. */
#include <stdlib.h>
#include <string.h>

#include "tools/healthgpt/bench_quant.h"
#include "tools/healthgpt/terminal.h"

enum { MAX_LANES = 64, DEFAULT_TOKENS = 64 };

struct lane {
    struct hg_seq *seq; /* NULL: free */
    size_t item, k, max;
};

struct runner {
    const struct hg_quant_run *r;
    struct hg_model_info info;
    struct lane lanes[MAX_LANES];
    float *logits; /* [n_vocab] */
    size_t n_begun, n_done;
};

void hg_quant_ids_free(struct hg_quant_ids *ids, size_t n)
{
    for (size_t i = 0; ids && i < n; i++)
        free(ids[i].at);
    free(ids);
}

static void show(const struct runner *u)
{
    if (!hg_terminal_can_redraw(stderr))
        return;
    bool last = u->n_done == u->r->set->n;
    fprintf(stderr, "\r%-32s %zu of %zu%s", u->r->label, u->n_done, u->r->set->n,
            last ? "\r\033[K" : "");
    fflush(stderr);
}

/* ---- prompts --------------------------------------------------------------------------------- */

static enum hg_status prepare(const struct runner *u, const struct hg_quant_item *q, size_t max,
                              struct hg_prepared **out, struct hg_error *err)
{
    struct hg_image images[HG_QUANT_IMAGES] = {0};
    struct hg_turn turn = {.question = q->question,
                           .n_question = q->question ? strlen(q->question) : 0,
                           .n_images = q->n_images};
    struct hg_request_input in = {.task = q->task,
                                  .turns = &turn,
                                  .n_turns = 1,
                                  .images = images,
                                  .n_images = (size_t)q->n_images};
    enum hg_status status = HG_STATUS_OK;
    hg_sampling_default(&in.sampling);
    in.sampling.ignore_stop = u->r->forced != NULL;
    in.sampling.max_tokens = q->task == HG_TASK_GENERATION ? 0 : (int)max;
    for (int i = 0; i < q->n_images; i++)
        HG_TRY_OUT(hg_image_read(q->images[i], &images[i], err));
    size_t n_prompt = q->kind == HG_QUANT_TEXT ? 1 : q->n_ids;
    status = q->ids ? hg_model_prepare_ids(u->r->model, &in, q->ids, n_prompt, out, err)
                    : hg_model_prepare(u->r->model, &in, out, err);
out:
    for (int i = 0; i < q->n_images; i++)
        hg_image_deinit(&images[i]);
    return status;
}

static void close_lane(struct runner *u, struct lane *l)
{
    hg_seq_free(l->seq);
    l->seq = NULL;
    u->n_done++;
    show(u);
}

/* What a step gave lane l, row `row` of those that sampled. */
static enum hg_status take(struct runner *u, struct lane *l, const struct hg_token *t, size_t row,
                           struct hg_error *err)
{
    const struct hg_quant_run *r = u->r;
    const struct hg_quant_ids *forced = r->forced ? &r->forced[l->item] : NULL;
    size_t n = 0;
    int32_t first = 0;
    if (t->finish == HG_FINISH_ERROR)
        return hg_fail(err, HG_STATUS_NUMERIC, "%s: item %zu: not finite", r->label, l->item);
    if (r->position) {
        HG_TRY(hg_model_last_logits(r->model, row, u->logits, (size_t)u->info.n_vocab, &n, &first,
                                    err));
        HG_TRY(r->position(r->ctx, l->item, l->k, t->id, u->logits, n, first, err));
    }
    if (r->own)
        r->own[l->item].at[r->own[l->item].n++] = t->id;
    l->k++;
    if (forced && l->k < forced->n && t->finish == HG_FINISH_NONE)
        HG_TRY(hg_seq_force(l->seq, forced->at[l->k - 1], err));
    if (t->finish != HG_FINISH_NONE || (forced && l->k >= forced->n))
        close_lane(u, l);
    return HG_STATUS_OK;
}

/* Item `item` into lane l, as far as its first token. */
static enum hg_status begin(struct runner *u, struct lane *l, size_t item, struct hg_error *err)
{
    const struct hg_quant_run *r = u->r;
    const struct hg_quant_item *q = &r->set->items[item];
    struct hg_prepared *p = NULL;
    size_t max = r->forced ? r->forced[item].n : q->max_tokens ? (size_t)q->max_tokens : 0;
    if (r->forced && max == 0) {
        u->n_done++;
        return HG_STATUS_OK;
    }
    HG_TRY(prepare(u, q, max ? max : DEFAULT_TOKENS, &p, err));
    *l = (struct lane){.item = item, .max = (size_t)hg_prepared_max_tokens(p)};
    if (r->own) {
        r->own[item].n = 0;
        r->own[item].at = malloc((l->max + 1) * sizeof *r->own[item].at);
        if (!r->own[item].at) {
            hg_prepared_free(p);
            return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
        }
    }
    int room = hg_prepared_n_prompt(p) + (int)l->max;
    enum hg_status status = hg_seq_create(r->model, p, &l->seq, err);
    if (status == HG_STATUS_OK) /* all blocks at once: no step has to give way */
        status = hg_seq_reserve(l->seq, room - hg_seq_n_found(l->seq), err);
    else
        hg_prepared_free(p);
    if (status != HG_STATUS_OK) {
        hg_seq_free(l->seq);
        l->seq = NULL;
        if (r->own) {
            free(r->own[item].at);
            r->own[item].at = NULL;
        }
        return status;
    }
    while (hg_seq_wants_vision(l->seq))
        HG_TRY(hg_seq_encode_image(l->seq, err));
    struct hg_token t = {.id = -1};
    while (hg_seq_n_waiting(l->seq) > 0) {
        int n = hg_seq_n_waiting(l->seq), most = u->info.max_batch_tokens;
        struct hg_step_item step = {l->seq, n < most ? n : most};
        HG_TRY(hg_model_step(r->model, &step, 1, &t, err));
    }
    return take(u, l, &t, 0, err);
}

static enum hg_status decode(struct runner *u, struct hg_error *err)
{
    struct hg_step_item items[MAX_LANES];
    struct hg_token tokens[MAX_LANES];
    struct lane *who[MAX_LANES];
    size_t n = 0;
    for (int i = 0; i < MAX_LANES; i++)
        if (u->lanes[i].seq) {
            who[n] = &u->lanes[i];
            items[n++] = (struct hg_step_item){u->lanes[i].seq, 1};
        }
    if (n == 0)
        return HG_STATUS_OK;
    HG_TRY(hg_model_step(u->r->model, items, n, tokens, err));
    /* all rows first: a lane that is closed may not be asked for its row any more */
    for (size_t i = 0; i < n; i++)
        HG_TRY(take(u, who[i], &tokens[i], i, err));
    return HG_STATUS_OK;
}

static bool any(const struct runner *u)
{
    for (int i = 0; i < MAX_LANES; i++)
        if (u->lanes[i].seq)
            return true;
    return false;
}

static enum hg_status run_all(struct runner *u, struct hg_error *err)
{
    const struct hg_quant_run *r = u->r;
    int n_lanes = u->info.max_seqs < MAX_LANES ? u->info.max_seqs : MAX_LANES;
    while (u->n_done < r->set->n) {
        for (int i = 0; i < n_lanes && u->n_begun < r->set->n; i++) {
            if (u->lanes[i].seq)
                continue;
            while (u->n_begun < r->set->n && r->only && !r->only[u->n_begun]) {
                u->n_begun++;
                u->n_done++;
            }
            if (u->n_begun == r->set->n)
                break;
            enum hg_status status = begin(u, &u->lanes[i], u->n_begun, err);
            if (status == HG_STATUS_BUSY && any(u)) /* blocks come back */
                break;
            if (status != HG_STATUS_OK)
                return status;
            u->n_begun++;
        }
        HG_TRY(decode(u, err));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_quant_run(const struct hg_quant_run *r, struct hg_error *err)
{
    struct runner *u = calloc(1, sizeof *u);
    if (!u)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
    u->r = r;
    hg_model_info(r->model, &u->info);
    u->logits = malloc((size_t)u->info.n_vocab * sizeof *u->logits);
    enum hg_status status =
        u->logits ? run_all(u, err) : hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
    for (int i = 0; i < MAX_LANES; i++)
        hg_seq_free(u->lanes[i].seq);
    free(u->logits);
    free(u);
    return status;
}
