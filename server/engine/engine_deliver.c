/* server/engine/engine_deliver.c - a token becomes events of its request's stream. */
#include <stdlib.h>

#include "common/clock.h"
#include "server/engine/engine.h"
#include "server/ops/metrics.h"

enum hg_status hg_slot_prefill(struct hg_slot *slot, struct hg_error *err)
{
    struct hg_request *r = slot->req;
    int64_t done = hg_seq_n_prefilled(slot->seq), total = r->n_prompt, last = slot->prefilled;
    bool due = last < 0 || done == total ||
               done * HG_REQUEST_MAX_PREFILLS / total > last * HG_REQUEST_MAX_PREFILLS / total;
    if (done <= last || !due) /* <: a sequence that gave way computes its prompt once more */
        return HG_STATUS_OK;
    struct hg_event e = {.type = HG_EVENT_PREFILL,
                         .done = (int)done,
                         .total = (int)total,
                         .n_found = r->result.n_found};
    slot->prefilled = (int)done;
    enum hg_status status = hg_stream_push(&r->stream, &e, NULL, 0, NULL);
    return status == HG_STATUS_OK ? status
                                  : hg_fail(err, status, "event: %s", hg_status_text(status));
}

/* *stopped: a stop string is complete, the answer ends before it. */
static enum hg_status push_token(struct hg_scheduler *s, struct hg_slot *slot,
                                 const struct hg_token *t, bool *stopped)
{
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_event e = {
        .type = HG_EVENT_TOKEN, .id = t->id, .logprob = t->logprob, .n_top = t->n_top};
    for (int k = 0; k < t->n_top; k++)
        tops[k] = (struct hg_top_token){t->top_id[k], t->top_logprob[k]};
    hg_buf_clear(&s->text);
    hg_buf_clear(&s->sent);
    HG_TRY(hg_detok_push(&slot->detok, t->id, &s->text));
    HG_TRY(hg_stop_push(&slot->stop, s->text.data, s->text.len, &s->sent, stopped));
    return hg_stream_push(&slot->req->stream, &e, s->sent.data, s->sent.len, tops);
}

/* Previews are due at equal distances, the picture itself being the last. */
static enum hg_status push_progress(struct hg_scheduler *s, struct hg_slot *slot)
{
    int total = s->info.grid_h * s->info.grid_w, done = (int)hg_seq_n_generated(slot->seq);
    int wanted = slot->req->n_previews;
    if (slot->n_previews < wanted && done < total &&
        done * (wanted + 1) >= total * (slot->n_previews + 1)) {
        slot->n_previews++;
        slot->preview = true;
    }
    struct hg_event e = {
        .type = HG_EVENT_PROGRESS, .done = done < total ? done : total, .total = total};
    double ms =
        (double)(hg_now_ns() - slot->req->submitted_ns) / 1e6 - slot->req->result.first_token_ms;
    if (done > 1)
        e.seconds_left = (float)(ms / 1e3 / (done - 1) * (total - e.done));
    return hg_stream_push(&slot->req->stream, &e, NULL, 0, NULL);
}

/* Text that was still held back: an incomplete character, the beginning of a stop string. */
static enum hg_status flush_text(struct hg_scheduler *s, struct hg_slot *slot)
{
    struct hg_event e = {.type = HG_EVENT_TOKEN, .id = -1};
    bool stopped;
    hg_buf_clear(&s->text);
    hg_buf_clear(&s->sent);
    HG_TRY(hg_detok_finish(&slot->detok, &s->text));
    HG_TRY(hg_stop_push(&slot->stop, s->text.data, s->text.len, &s->sent, &stopped));
    HG_TRY(hg_stop_finish(&slot->stop, &s->sent));
    return s->sent.len == 0
               ? HG_STATUS_OK
               : hg_stream_push(&slot->req->stream, &e, s->sent.data, s->sent.len, NULL);
}

/* The index tokens are complete: keep the codes, give the KV blocks back, render later. */
static enum hg_status finish_image(struct hg_scheduler *s, struct hg_slot *slot,
                                   struct hg_error *err)
{
    size_t cap = (size_t)s->info.grid_h * (size_t)s->info.grid_w;
    slot->codes = calloc(cap ? cap : 1, sizeof *slot->codes);
    if (!slot->codes)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "image tokens: out of memory");
    slot->req->result.n_generated = (int)hg_seq_n_generated(slot->seq);
    HG_TRY(hg_model_image_codes(s->model, hg_seq_generated(slot->seq),
                                hg_seq_n_generated(slot->seq), slot->codes, cap, &slot->n_codes,
                                err));
    hg_seq_free(slot->seq);
    slot->seq = NULL;
    return HG_STATUS_OK;
}

enum hg_status hg_slot_deliver(struct hg_scheduler *s, struct hg_slot *slot,
                               const struct hg_token *t, struct hg_error *err)
{
    struct hg_request *r = slot->req;
    bool draws = r->task == HG_TASK_GENERATION, stopped = false;
    enum hg_status status = HG_STATUS_OK;
    atomic_fetch_add(&s->n_tokens, 1);
    int64_t now = hg_now_ns();
    if (r->result.first_token_ms == 0)
        r->result.first_token_ms = (double)(now - r->submitted_ns) / 1e6;
    if (t->finish == HG_FINISH_ERROR)
        return hg_fail(err, HG_STATUS_NUMERIC, "the model produced a value that is not finite");
    if (t->finish != HG_FINISH_STOP)
        hg_metrics_token(r->task, slot->token_ns ? now - slot->token_ns : 0);
    slot->token_ns = now;
    if (draws)
        status = push_progress(s, slot);
    else if (t->finish != HG_FINISH_STOP)
        status = push_token(s, slot, t, &stopped);
    if (status == HG_STATUS_OK && t->finish != HG_FINISH_NONE && !draws && !stopped)
        status = flush_text(s, slot);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "event: %s", hg_status_text(status));
    r->result.finish = stopped ? HG_FINISH_STOP : t->finish;
    return draws && t->finish != HG_FINISH_NONE ? finish_image(s, slot, err) : HG_STATUS_OK;
}
