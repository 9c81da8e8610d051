/* server/engine/scheduler.c - the engine thread's loop.
 *
 * DESIGN. One slot per running request. A turn of the loop:
 *   1 sweep     end what was cancelled, passed its deadline, or must go because of a stop
 *   2 admit     those that gave way, then whoever the policy names (server/engine/policy.h); see
 *               engine_admit.c
 *   3 piece     a piece of a picture that is to be seen or drawn, as much work as a prompt's chunk:
 *               engine_pieces.c
 *   4 room      blocks for what the step will add, the oldest first; where there are none the
 *               youngest sequence gives way (it will be computed again, to the same bits)
 *   5 step      every decoding sequence one token; prompts fill the rest of the token budget in
 *               arrival order, in short chunks while others decode, so that a long prompt costs the
 *               neighbours little time per token. While all of them are pictures being drawn, steps
 *               are begun ahead of the one that is waited for: nothing on the host depends on
 *               their tokens
 *   6 deliver   tokens to the streams; finished ones leave
 * A request's tokens do not depend on what else is in the batch, so the plan is free to change. */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/clock.h"
#include "common/log.h"
#include "server/engine/engine.h"

/* KV caches that may be waited for, by default. */
enum { QUEUED_CACHES = 4 };

/* ---- ending ---------------------------------------------------------------------------------- */

void hg_engine_end(struct hg_scheduler *s, struct hg_request *r)
{
    enum hg_status status = r->result.error.status;
    if (!hg_ledger_end(&s->ledger, &r->entry))
        return;
    const struct hg_result *u = &r->result;
    if (r->job.flow)
        hg_queue_end(&s->queue, &r->job, (int64_t)u->n_prompt - u->n_found + u->n_generated);
    if (status == HG_STATUS_DEVICE)
        atomic_store(&s->device_lost, true);
    if (status == HG_STATUS_NUMERIC)
        hg_engine_numeric_fault(s);
    atomic_fetch_add(status == HG_STATUS_OK          ? &s->n_done
                     : status == HG_STATUS_CANCELLED ? &s->n_cancelled
                                                     : &s->n_failed,
                     1);
    hg_request_end(r);
    if (hg_log_is_json()) { /* the line of the HTTP request says more (server/http/trace.h) */
        hg_request_unref(r);
        return;
    }
    /* Numbers only: no text, no pixels, no names ever reach the log. */
    hg_log(status == HG_STATUS_OK || status == HG_STATUS_CANCELLED ? HG_LOG_INFO : HG_LOG_WARN,
           "request %llu %s%s%s: %s, %d prompt + %d tokens, queue %.1f ms, first token %.1f ms, "
           "total %.1f ms",
           (unsigned long long)r->number, hg_task_name(r->task), r->tenant.id ? " of " : "",
           r->tenant.name, hg_status_text(status), u->n_prompt, u->n_generated, u->queue_ms,
           u->first_token_ms, u->total_ms);
    hg_request_unref(r);
}

void hg_slot_close(struct hg_scheduler *s, int i)
{
    struct hg_slot *slot = &s->slots[i];
    struct hg_request *r = slot->req;
    if (slot->seq)
        r->result.n_generated = (int)hg_seq_n_generated(slot->seq);
    hg_pieces_forget(s, slot);
    hg_seq_free(slot->seq);
    free(slot->codes);
    atomic_fetch_sub(&s->n_running_of[r->task], 1);
    s->n_slots--;
    memmove(slot, slot + 1, (size_t)(s->n_slots - i) * sizeof *slot);
    s->slots[s->n_slots] = (struct hg_slot){0};
    atomic_store(&s->n_running, (size_t)s->n_slots);
    hg_engine_end(s, r);
}

void hg_slot_fail(struct hg_scheduler *s, int i, const struct hg_error *err)
{
    s->slots[i].req->result.error = *err;
    hg_slot_close(s, i);
}

/* Why a request may not go on now; OK when it may. */
static enum hg_status verdict(struct hg_scheduler *s, const struct hg_request *r, int64_t now,
                              bool waiting, struct hg_error *err)
{
    int64_t stop = atomic_load(&s->stop_ns);
    if (atomic_load(&r->cancelled))
        return hg_fail(err, HG_STATUS_CANCELLED, "the client has gone");
    if (atomic_load(&s->canary_wrong))
        return hg_fail(err, HG_STATUS_ENGINE, "the canary is wrong: the server starts again");
    /* What waits and has not begun to answer is better asked elsewhere, now. */
    if (stop != INT64_MAX && ((waiting && !r->streams) || now >= stop))
        return hg_fail(err, HG_STATUS_CANCELLED, "the server is shutting down");
    if (now >= r->deadline_ns)
        return hg_fail(err, HG_STATUS_TIMEOUT, "not finished within %lld ms",
                       (long long)r->timeout_ms);
    return HG_STATUS_OK;
}

struct sweep {
    struct hg_scheduler *s;
    int64_t now;
};

static bool must_leave(const struct hg_job *job, void *ctx)
{
    struct sweep *w = ctx;
    const struct hg_request *r = HG_LIST_ENTRY((uintptr_t)job, struct hg_request, job);
    return verdict(w->s, r, w->now, true, NULL) != HG_STATUS_OK;
}

static void sweep(struct hg_scheduler *s)
{
    struct hg_error err = {0};
    struct sweep w = {s, hg_now_ns()};
    struct hg_list gone;
    hg_list_init(&gone);
    hg_queue_sweep(&s->queue, must_leave, &w, &gone);
    while (!hg_list_empty(&gone)) {
        struct hg_request *r = HG_LIST_ENTRY(gone.next, struct hg_request, job.link);
        hg_list_remove(&r->job.link);
        verdict(s, r, w.now, true, &r->result.error);
        hg_engine_end(s, r);
    }
    for (int i = s->n_slots - 1; i >= 0; i--)
        if (verdict(s, s->slots[i].req, w.now, false, &err) != HG_STATUS_OK)
            hg_slot_fail(s, i, &err);
}

/* ---- beginning ------------------------------------------------------------------------------- */

static enum hg_class class_of(enum hg_task task)
{
    return task == HG_TASK_GENERATION ? HG_CLASS_BULK : HG_CLASS_INTERACTIVE;
}

void hg_slot_open(struct hg_scheduler *s, struct hg_request *r, struct hg_seq *seq)
{
    struct hg_slot *slot = &s->slots[s->n_slots++];
    atomic_fetch_add(&s->n_running_of[r->task], 1);
    *slot = (struct hg_slot){.req = r, .seq = seq, .prefilled = -1, .stop.strings = &r->stop};
    hg_detok_init(&slot->detok, hg_model_tokenizer(s->model), false);
    atomic_store(&r->state, HG_REQUEST_RUNNING);
    atomic_store(&s->n_running, (size_t)s->n_slots);
    r->prepared = NULL; /* the sequence owns it now */
    r->result.n_prompt = r->n_prompt;
    r->result.n_found = hg_seq_n_found(seq);
    atomic_fetch_add(&s->n_found, (uint64_t)r->result.n_found);
    r->result.queue_ms = (double)(hg_now_ns() - r->submitted_ns) / 1e6;
    struct hg_error err = {0};
    if (hg_slot_prefill(slot, &err) != HG_STATUS_OK)
        hg_slot_fail(s, s->n_slots - 1, &err);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void *engine_main(void *ctx)
{
    struct hg_scheduler *s = ctx;
    prctl(PR_SET_NAME, "hg-engine");
    for (;;) {
        hg_heart_beat(s->options.heart, HG_PIECE_TURN);
        while (s->n_slots == 0 && hg_model_steps_in_flight(s->model) > 0)
            hg_engine_step(s); /* of requests that have left */
        hg_engine_canary_now(s);
        if (s->n_slots == 0 && hg_queue_depth(&s->queue) == 0)
            hg_engine_idle(s);
        int64_t start_ns = hg_now_ns();
        s->n_worked = 0;
        sweep(s);
        if (s->n_slots == 0 && hg_queue_closed(&s->queue) && hg_queue_depth(&s->queue) == 0)
            break;
        hg_engine_admit(s);
        hg_engine_piece(s);
        hg_engine_step(s);
        hg_queue_worked(&s->queue, s->n_worked, (double)(hg_now_ns() - start_ns) / 1e9);
    }
    hg_heart_beat(s->options.heart, HG_PIECE_NONE);
    atomic_store(&s->finished, true);
    return NULL;
}

/* ---- face ------------------------------------------------------------------------------------ */

static void release(struct hg_scheduler *s)
{
    hg_ledger_deinit(&s->ledger);
    hg_queue_deinit(&s->queue);
    free(s->slots);
    free(s->places);
    free(s->items);
    free(s->tokens);
    hg_buf_deinit(&s->text);
    hg_buf_deinit(&s->sent);
    free(s);
}

enum hg_status hg_scheduler_create(struct hg_model *m, const struct hg_scheduler_options *o,
                                   struct hg_scheduler **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "scheduler: out of memory");
    s->model = m;
    s->options = *o;
    hg_model_info(m, &s->info);
    if (s->options.max_batch > s->info.max_seqs)
        s->options.max_batch = s->info.max_seqs;
    size_t n = (size_t)(s->options.max_batch > 0 ? s->options.max_batch : 1);
    int64_t kv_tokens = s->info.kv_blocks * HG_BLOCK_TOKENS, most = o->max_queue_tokens;
    struct hg_policy_options p = {.max_queue = (size_t)o->max_queue,
                                  .max_queue_tokens = most ? most : QUEUED_CACHES * kv_tokens,
                                  .max_batch = (int)n};
    if (most < 0)
        p.max_queue_tokens = 0;
    s->max_queue_tokens = p.max_queue_tokens;
    atomic_init(&s->stop_ns, INT64_MAX);
    hg_pieces_tell(s);
    enum hg_status status = hg_queue_init(&s->queue, &p, err);
    if (status != HG_STATUS_OK) {
        free(s);
        return status;
    }
    hg_ledger_init(&s->ledger);
    hg_engine_canary_init(s);
    s->slots = calloc(2 * n, sizeof *s->slots);
    s->places = calloc(2 * n, sizeof *s->places);
    s->items = calloc(n, sizeof *s->items);
    s->tokens = calloc(n, sizeof *s->tokens);
    if (!s->slots || !s->places || !s->items || !s->tokens) {
        release(s);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "scheduler: out of memory");
    }
    if (pthread_create(&s->thread, NULL, engine_main, s) != 0) {
        release(s);
        return hg_fail(err, HG_STATUS_INTERNAL, "scheduler: cannot start the engine thread");
    }
    *out = s;
    return HG_STATUS_OK;
}

/* What is charged for before it is known. */
static int expected_tokens(const struct hg_request *r)
{
    bool draws = r->task == HG_TASK_GENERATION;
    return draws || r->max_tokens < HG_EXPECTED_ANSWER ? r->max_tokens : HG_EXPECTED_ANSWER;
}

enum hg_status hg_scheduler_submit(struct hg_scheduler *s, struct hg_request *r,
                                   struct hg_error *err)
{
    r->submitted_ns = hg_now_ns();
    if (r->timeout_ms <= 0 || r->timeout_ms > s->options.timeout_ms)
        r->timeout_ms = s->options.timeout_ms;
    r->deadline_ns = r->submitted_ns + r->timeout_ms * 1000000;
    r->job.cls = class_of(r->task);
    r->job.cost = r->n_prompt + expected_tokens(r);
    atomic_store(&r->state, HG_REQUEST_QUEUED);
    hg_request_ref(r);
    r->entry = (struct hg_ledger_entry){.number = r->number,
                                        .state = &r->state,
                                        .opened_ns = r->submitted_ns,
                                        .deadline_ns = r->deadline_ns};
    hg_ledger_open(&s->ledger, &r->entry);
    enum hg_status status = hg_queue_push(&s->queue, &r->job, &r->tenant,
                                          (double)r->timeout_ms / 1e3, &r->position, err);
    if (status == HG_STATUS_OK)
        return status;
    hg_ledger_take_back(&s->ledger, &r->entry);
    atomic_store(&r->state, HG_REQUEST_NEW);
    hg_request_unref(r);
    return status;
}

enum hg_status hg_scheduler_has_room(struct hg_scheduler *s, const struct hg_tenant *who,
                                     enum hg_task task, struct hg_error *err)
{
    return hg_queue_check(&s->queue, who, class_of(task), err);
}

double hg_scheduler_retry_s(struct hg_scheduler *s, const struct hg_tenant *who, enum hg_task task)
{
    return hg_queue_retry_s(&s->queue, who, class_of(task));
}

const struct hg_model_info *hg_scheduler_model_info(const struct hg_scheduler *s)
{
    return &s->info;
}

void hg_scheduler_stats(struct hg_scheduler *s, struct hg_scheduler_stats *out)
{
    *out = (struct hg_scheduler_stats){.queued = hg_queue_depth(&s->queue),
                                       .running = atomic_load(&s->n_running),
                                       .n_done = atomic_load(&s->n_done),
                                       .n_failed = atomic_load(&s->n_failed),
                                       .n_cancelled = atomic_load(&s->n_cancelled),
                                       .n_steps = atomic_load(&s->n_steps),
                                       .n_tokens = atomic_load(&s->n_tokens),
                                       .n_ahead = atomic_load(&s->n_ahead),
                                       .n_preempted = atomic_load(&s->n_preempted),
                                       .n_found = atomic_load(&s->n_found),
                                       .n_pieces = atomic_load(&s->n_pieces),
                                       .n_encoded = atomic_load(&s->n_encoded),
                                       .piece_work = hg_engine_piece_work(s),
                                       .kv_blocks = (size_t)s->info.kv_blocks,
                                       .kv_free = (size_t)hg_model_kv_free(s->model),
                                       .n_canaries = atomic_load(&s->n_canaries),
                                       .n_numeric = atomic_load(&s->n_numeric),
                                       .n_quarantined = hg_model_kv_quarantined(s->model)};
    out->queued_tokens = hg_queue_tokens(&s->queue);
    out->max_queued_tokens = s->queue.policy.options.max_queue_tokens;
    hg_ledger_stats(&s->ledger, &out->requests);
}

void hg_scheduler_glance(const struct hg_scheduler *s, struct hg_scheduler_glance *out)
{
    size_t waiting[HG_CLASS_COUNT];
    *out = (struct hg_scheduler_glance){.max_waiting_tokens = s->max_queue_tokens,
                                        .max_queue = (size_t)s->options.max_queue,
                                        .n_steps = atomic_load(&s->n_steps),
                                        .n_preempted = atomic_load(&s->n_preempted),
                                        .n_pieces = atomic_load(&s->n_pieces),
                                        .n_canaries = atomic_load(&s->n_canaries),
                                        .n_numeric = atomic_load(&s->n_numeric),
                                        .kv_blocks = (size_t)s->info.kv_blocks,
                                        .kv_free = (size_t)hg_model_kv_free(s->model),
                                        .n_quarantined = hg_model_kv_quarantined(s->model)};
    hg_queue_glance(&s->queue, waiting, &out->waiting_tokens);
    for (enum hg_task t = 0; t < HG_TASK_COUNT; t++) {
        out->waiting[t] = waiting[class_of(t)];
        out->running[t] = atomic_load(&s->n_running_of[t]);
    }
}

int hg_scheduler_check(struct hg_scheduler *s, int64_t now_ns, int64_t grace_ns)
{
    return hg_ledger_check(&s->ledger, now_ns, grace_ns);
}

void hg_scheduler_drain(struct hg_scheduler *s, int64_t grace_ms)
{
    atomic_store(&s->stop_ns, hg_now_ns() + grace_ms * 1000000);
    hg_queue_close(&s->queue);
}

bool hg_scheduler_drained(struct hg_scheduler *s)
{
    return atomic_load(&s->finished);
}

bool hg_scheduler_device_lost(struct hg_scheduler *s)
{
    return atomic_load(&s->device_lost);
}

const char *hg_scheduler_trouble(struct hg_scheduler *s)
{
    return atomic_load(&s->hung)           ? "engine_hung"
           : atomic_load(&s->canary_wrong) ? "canary_failed"
           : atomic_load(&s->device_lost)  ? "device_lost"
                                           : NULL;
}

bool hg_scheduler_hung(struct hg_scheduler *s)
{
    return atomic_load(&s->hung);
}

/* The engine keeps its references: it may still write to what it was working on. */
static void abandon(struct hg_scheduler *s, struct hg_request *r, const struct hg_error *why)
{
    if (!r || !hg_ledger_end(&s->ledger, &r->entry))
        return;
    r->result.error = *why;
    atomic_fetch_add(&s->n_failed, 1);
    hg_request_end(r);
}

static bool every_one(const struct hg_job *job, void *ctx)
{
    (void)job, (void)ctx;
    return true;
}

void hg_scheduler_abandon(struct hg_scheduler *s, const struct hg_error *why)
{
    struct hg_list waiting;
    hg_list_init(&waiting);
    atomic_store(&s->hung, true);
    hg_queue_close(&s->queue);
    hg_queue_sweep(&s->queue, every_one, NULL, &waiting);
    for (int i = 0; i < s->n_slots; i++)
        abandon(s, s->slots[i].req, why);
    while (!hg_list_empty(&waiting)) {
        struct hg_request *r = HG_LIST_ENTRY(waiting.next, struct hg_request, job.link);
        hg_list_remove(&r->job.link);
        abandon(s, r, why);
    }
}

void hg_scheduler_free(struct hg_scheduler *s)
{
    if (!s)
        return;
    hg_scheduler_drain(s, 0);
    pthread_join(s->thread, NULL);
    release(s);
}
