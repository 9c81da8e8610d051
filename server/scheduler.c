/* server/scheduler.c - the engine thread's loop.
 *
 * DESIGN. One slot per running request. A turn of the loop:
 *   1 sweep     end what was cancelled, passed its deadline, or must go because of a stop
 *   2 admit     those that gave way, then queue head -> sequence, questions before pictures, which
 *               leave a quarter of the places to them and get every fifth turn; BUSY (no KV blocks)
 *               leaves it waiting, and so does an expectation that those who run will want them
 *   3 big       one vision pass or one render: large pieces are spread between steps, never stacked
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

#include "common/clock.h"
#include "common/log.h"
#include "server/engine.h"

/* Tokens that an answer is expected to have still: its limit is rarely met. */
enum { EXPECTED_ANSWER = 64 };
/* Questions that may pass a waiting picture. */
enum { BULK_FLOOR = 4 };

/* ---- ending ---------------------------------------------------------------------------------- */

/* Push END and drop the scheduler's reference. */
static void end_request(struct hg_scheduler *s, struct hg_request *r)
{
    enum hg_status status = r->result.error.status;
    if (status == HG_STATUS_DEVICE)
        atomic_store(&s->device_lost, true);
    if (status == HG_STATUS_NUMERIC)
        hg_engine_numeric_fault(s);
    atomic_fetch_add(status == HG_STATUS_OK          ? &s->n_done
                     : status == HG_STATUS_CANCELLED ? &s->n_cancelled
                                                     : &s->n_failed,
                     1);
    hg_request_end(r);
    /* Numbers only: no text, no pixels, no names ever reach the log. */
    hg_log(status == HG_STATUS_OK || status == HG_STATUS_CANCELLED ? HG_LOG_INFO : HG_LOG_WARN,
           "request %llu %s: %s, %d prompt + %d tokens, queue %.1f ms, first token %.1f ms, "
           "total %.1f ms",
           (unsigned long long)r->number, hg_task_name(r->task), hg_status_text(status),
           r->result.n_prompt, r->result.n_generated, r->result.queue_ms, r->result.first_token_ms,
           r->result.total_ms);
    hg_request_unref(r);
}

void hg_slot_close(struct hg_scheduler *s, int i)
{
    struct hg_slot *slot = &s->slots[i];
    struct hg_request *r = slot->req;
    if (slot->seq)
        r->result.n_generated = (int)hg_seq_n_generated(slot->seq);
    hg_seq_free(slot->seq);
    free(slot->codes);
    s->n_slots--;
    memmove(slot, slot + 1, (size_t)(s->n_slots - i) * sizeof *slot);
    s->slots[s->n_slots] = (struct hg_slot){0};
    atomic_store(&s->n_running, (size_t)s->n_slots);
    end_request(s, r);
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
    if (atomic_load(&s->canary_wrong))
        return hg_fail(err, HG_STATUS_ENGINE, "the canary is wrong: the server starts again");
    if (atomic_load(&r->cancelled))
        return hg_fail(err, HG_STATUS_CANCELLED, "the client has gone");
    if (stop != INT64_MAX && (waiting || now >= stop))
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

static struct hg_request *request_of(const struct hg_list *node)
{
    return HG_LIST_ENTRY((uintptr_t)node, struct hg_request, link);
}

static bool must_leave(const struct hg_list *node, void *ctx)
{
    struct sweep *w = ctx;
    return verdict(w->s, request_of(node), w->now, true, NULL) != HG_STATUS_OK;
}

static void sweep(struct hg_scheduler *s)
{
    struct hg_error err = {0};
    struct sweep w = {s, hg_now_ns()};
    struct hg_list gone;
    hg_list_init(&gone);
    hg_queue_sweep(&s->queue, must_leave, &w, &gone);
    while (!hg_list_empty(&gone)) {
        struct hg_request *r = request_of(gone.next);
        hg_list_remove(&r->link);
        verdict(s, r, w.now, true, &r->result.error);
        end_request(s, r);
    }
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        if (s->head[c] && verdict(s, s->head[c], w.now, true, &err) != HG_STATUS_OK) {
            s->head[c]->result.error = err;
            end_request(s, s->head[c]);
            s->head[c] = NULL;
        }
    for (int i = s->n_slots - 1; i >= 0; i--)
        if (verdict(s, s->slots[i].req, w.now, false, &err) != HG_STATUS_OK)
            hg_slot_fail(s, i, &err);
}

/* ---- admission ------------------------------------------------------------------------------- */

static void open_slot(struct hg_scheduler *s, struct hg_request *r, struct hg_seq *seq)
{
    struct hg_slot *slot = &s->slots[s->n_slots++];
    *slot = (struct hg_slot){.req = r, .seq = seq};
    hg_detok_init(&slot->detok, hg_model_tokenizer(s->model), false);
    atomic_store(&r->state, HG_REQUEST_RUNNING);
    atomic_store(&s->n_running, (size_t)s->n_slots);
    r->prepared = NULL; /* the sequence owns it now */
    r->result.n_prompt = r->n_prompt;
    r->result.n_found = hg_seq_n_found(seq);
    atomic_fetch_add(&s->n_found, (uint64_t)r->result.n_found);
    r->result.queue_ms = (double)(hg_now_ns() - r->submitted_ns) / 1e6;
}

/* Blocks that n_tokens more of a request are expected to take. */
static int blocks_to_come(const struct hg_request *r, int n_tokens)
{
    bool draws = r->task == HG_TASK_GENERATION;
    int n = draws || n_tokens < EXPECTED_ANSWER ? n_tokens : EXPECTED_ANSWER;
    return n / HG_BLOCK_TOKENS + 1;
}

/* Whether a request fits beside what the running ones are expected to take. */
static bool there_is_room(const struct hg_scheduler *s, const struct hg_request *r)
{
    int need = r->n_prompt / HG_BLOCK_TOKENS + blocks_to_come(r, r->max_tokens);
    for (int i = 0; i < s->n_slots; i++)
        if (s->slots[i].seq)
            need += blocks_to_come(s->slots[i].req, hg_seq_n_left(s->slots[i].seq));
    return s->n_slots == 0 || need <= hg_model_kv_free(s->model);
}

/* Those that gave way go on, the oldest first; false while one has to wait. */
static bool resume(struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++) {
        struct hg_error err = {0};
        if (!s->slots[i].seq || !hg_seq_preempted(s->slots[i].seq))
            continue;
        enum hg_status status = hg_seq_resume(s->slots[i].seq, &err);
        if (status == HG_STATUS_BUSY)
            return false;
        if (status != HG_STATUS_OK)
            hg_slot_fail(s, i--, &err);
    }
    return true;
}

static enum hg_class class_of(const struct hg_request *r)
{
    return r->task == HG_TASK_GENERATION ? HG_CLASS_BULK : HG_CLASS_INTERACTIVE;
}

/* Pictures run for long: a quarter of the places is kept from them, if there are two or more. */
static bool bulk_has_place(const struct hg_scheduler *s)
{
    int n = 0, most = s->options.max_batch - s->options.max_batch / 4;
    if (most == s->options.max_batch && most > 1)
        most--;
    for (int i = 0; i < s->n_slots; i++)
        n += class_of(s->slots[i].req) == HG_CLASS_BULK;
    return n < most;
}

/* Whose turn it is: questions first, but every BULK_FLOOR questions one picture; NULL: nobody's. */
static struct hg_request **next_head(struct hg_scheduler *s)
{
    for (int c = 0; c < HG_CLASS_COUNT; c++) {
        struct hg_list *node = s->head[c] ? NULL : hg_queue_pop(&s->queue, (enum hg_class)c);
        if (node)
            s->head[c] = request_of(node);
    }
    struct hg_request **first = &s->head[HG_CLASS_INTERACTIVE], **bulk = &s->head[HG_CLASS_BULK];
    bool bulk_may = *bulk && bulk_has_place(s);
    if (*first && !(bulk_may && s->n_interactive >= BULK_FLOOR))
        return first;
    return bulk_may ? bulk : NULL;
}

static bool somebody_waits(const struct hg_scheduler *s)
{
    return s->head[HG_CLASS_INTERACTIVE] || s->head[HG_CLASS_BULK];
}

static void admit(struct hg_scheduler *s)
{
    if (!resume(s))
        return;
    while (s->n_slots < s->options.max_batch) {
        struct hg_request **head = next_head(s), *r = head ? *head : NULL;
        if (!r || !there_is_room(s, r))
            return;
        struct hg_error err = {0};
        struct hg_seq *seq = NULL;
        enum hg_status status = hg_seq_create(s->model, r->prepared, &seq, &err);
        if (status == HG_STATUS_BUSY && (s->n_slots > 0 || hg_engine_want_quarantine(s)))
            return; /* blocks come back when a neighbour ends, or from the canary */
        *head = NULL;
        s->n_interactive = class_of(r) == HG_CLASS_BULK ? 0 : s->n_interactive + 1;
        if (status == HG_STATUS_OK) {
            open_slot(s, r, seq);
        } else { /* also BUSY on an empty machine: it can never fit */
            if (status == HG_STATUS_BUSY)
                err.status = HG_STATUS_TOO_LARGE;
            r->result.error = err;
            end_request(s, r);
        }
    }
}

/* ---- large pieces ---------------------------------------------------------------------------- */

static void render(struct hg_scheduler *s, int i)
{
    struct hg_slot *slot = &s->slots[i];
    struct hg_result *result = &slot->req->result;
    struct hg_error err = {0};
    if (hg_model_render(s->model, slot->codes, slot->n_codes, &result->image, &err) !=
        HG_STATUS_OK) {
        hg_slot_fail(s, i, &err);
        return;
    }
    result->codes = slot->codes;
    result->n_codes = slot->n_codes;
    slot->codes = NULL;
    hg_slot_close(s, i);
}

/* One vision pass or one render, the oldest first; false when there is none. */
static bool big_piece(struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++) {
        struct hg_slot *slot = &s->slots[i];
        struct hg_error err = {0};
        if (!slot->seq) {
            hg_heart_beat(s->options.heart, HG_PIECE_DRAW);
            render(s, i);
            return true;
        }
        if (slot->preview) {
            slot->preview = false;
            hg_heart_beat(s->options.heart, HG_PIECE_DRAW);
            if (hg_slot_preview(s, slot, &err) != HG_STATUS_OK)
                hg_slot_fail(s, i, &err);
            return true;
        }
        if (hg_seq_preempted(slot->seq) || !hg_seq_wants_vision(slot->seq))
            continue;
        hg_heart_beat(s->options.heart, HG_PIECE_VISION);
        if (hg_seq_encode_image(slot->seq, &err) != HG_STATUS_OK)
            hg_slot_fail(s, i, &err);
        return true;
    }
    return false;
}

static void *engine_main(void *ctx)
{
    struct hg_scheduler *s = ctx;
    for (;;) {
        hg_heart_beat(s->options.heart, HG_PIECE_TURN);
        while (s->n_slots == 0 && hg_model_steps_in_flight(s->model) > 0)
            hg_engine_step(s); /* of requests that have left */
        hg_engine_canary_now(s);
        if (s->n_slots == 0 && !somebody_waits(s))
            hg_engine_idle(s);
        sweep(s);
        if (s->n_slots == 0 && !somebody_waits(s) && hg_queue_closed(&s->queue) &&
            hg_queue_depth(&s->queue) == 0)
            break;
        admit(s);
        big_piece(s);
        hg_engine_step(s);
    }
    hg_heart_beat(s->options.heart, HG_PIECE_NONE);
    atomic_store(&s->finished, true);
    return NULL;
}

/* ---- face ------------------------------------------------------------------------------------ */

static void release(struct hg_scheduler *s)
{
    hg_queue_deinit(&s->queue);
    free(s->slots);
    free(s->items);
    free(s->tokens);
    hg_buf_deinit(&s->text);
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
    atomic_init(&s->stop_ns, INT64_MAX);
    hg_queue_init(&s->queue, (size_t)o->max_queue);
    hg_engine_canary_init(s);
    s->slots = calloc(n, sizeof *s->slots);
    s->items = calloc(n, sizeof *s->items);
    s->tokens = calloc(n, sizeof *s->tokens);
    if (!s->slots || !s->items || !s->tokens) {
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

enum hg_status hg_scheduler_submit(struct hg_scheduler *s, struct hg_request *r,
                                   struct hg_error *err)
{
    r->submitted_ns = hg_now_ns();
    if (r->timeout_ms <= 0 || r->timeout_ms > s->options.timeout_ms)
        r->timeout_ms = s->options.timeout_ms;
    r->deadline_ns = r->submitted_ns + r->timeout_ms * 1000000;
    atomic_store(&r->state, HG_REQUEST_QUEUED);
    r->position = (int)hg_queue_depth(&s->queue) + 1;
    hg_request_ref(r);
    enum hg_status status = hg_queue_push(&s->queue, &r->link, class_of(r));
    if (status == HG_STATUS_OK)
        return status;
    atomic_store(&r->state, HG_REQUEST_NEW);
    hg_request_unref(r);
    return status == HG_STATUS_BUSY
               ? hg_fail(err, status, "%d requests are waiting already: try again later",
                         s->options.max_queue)
               : hg_fail(err, status, "the server is shutting down");
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
                                       .n_canaries = atomic_load(&s->n_canaries),
                                       .n_numeric = atomic_load(&s->n_numeric),
                                       .n_quarantined = hg_model_kv_quarantined(s->model)};
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
    if (!r)
        return;
    r->result.error = *why;
    atomic_fetch_add(&s->n_failed, 1);
    hg_request_end(r);
}

static bool every_one(const struct hg_list *node, void *ctx)
{
    (void)node, (void)ctx;
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
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        abandon(s, s->head[c], why);
    while (!hg_list_empty(&waiting)) {
        struct hg_request *r = request_of(waiting.next);
        hg_list_remove(&r->link);
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
