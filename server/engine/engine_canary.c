/* server/engine/engine_canary.c - when the engine tries its canary.
 *
 * By time: when the engine has been idle and the interval is over. As soon as it is idle, when the
 * start has left a part (hg_canary_start). After a numeric fault: as soon
 * as it is idle, until no block is in quarantine; and at once, requests waiting meanwhile (a dozen
 * steps and a vision pass), when the faults come thick or the quarantine holds blocks that a
 * request needs. A canary that is wrong ends every request and the process: its numbers are not to
 * be trusted. */
#include "common/clock.h"
#include "common/log.h"
#include "server/engine/engine.h"

/* Three faults within ten minutes are no accident of one request; a quarter of the blocks is what
 * the others can do without. Who comes within a moment of the last request should not wait. */
static const int64_t FAULT_WINDOW_NS = 600 * (int64_t)1000000000, MOMENT_NS = 100000000,
                     RETRY_NS = 1000000000;
enum { QUARANTINE_SHARE = 4 };

static void plan_next(struct hg_scheduler *s)
{
    int64_t interval = s->options.canary ? s->options.canary_interval_ms * 1000000 : 0;
    s->canary.next_ns = interval > 0 ? hg_now_ns() + interval : INT64_MAX;
}

static bool has_canary(const struct hg_scheduler *s)
{
    return s->options.canary && !hg_canary_is_blind(s->options.canary);
}

void hg_engine_canary_init(struct hg_scheduler *s)
{
    plan_next(s);
    s->canary.due = has_canary(s) && !hg_canary_is_complete(s->options.canary);
}

void hg_engine_numeric_fault(struct hg_scheduler *s)
{
    struct hg_engine_canary *c = &s->canary;
    int64_t now = hg_now_ns();
    atomic_fetch_add(&s->n_numeric, 1);
    for (int i = 1; i < HG_ENGINE_FAULTS; i++)
        c->fault_ns[i - 1] = c->fault_ns[i];
    c->fault_ns[HG_ENGINE_FAULTS - 1] = now;
    c->due = true;
    if (c->fault_ns[0] > 0 && now - c->fault_ns[0] < FAULT_WINDOW_NS) {
        hg_log(HG_LOG_WARN, "canary: wanted at once: %d numeric faults in %.0f s", HG_ENGINE_FAULTS,
               (double)(now - c->fault_ns[0]) / 1e9);
        c->forced = true;
    }
}

/* The process has to end: main sees it (hg_scheduler_trouble). */
static void give_alarm(struct hg_scheduler *s, const struct hg_error *err)
{
    hg_log(HG_LOG_ERROR, "%s: the results of this process cannot be trusted", err->text);
    atomic_store(err->status == HG_STATUS_DEVICE ? &s->device_lost : &s->canary_wrong, true);
    hg_scheduler_drain(s, 0);
}

/* Nobody to wait for. */
static void open_quarantine(struct hg_scheduler *s, const char *why)
{
    int n = hg_model_kv_quarantined(s->model);
    if (n > 0)
        hg_log(HG_LOG_WARN,
               "KV cache: %d blocks of a numeric fault are used again, zeroed and "
               "untried: %s",
               n, why);
    hg_model_trust_all(s->model);
    s->canary.due = false;
}

enum outcome { MORE, ENDED, CANNOT }; /* CANNOT: no room, now */

static enum outcome try_piece(struct hg_scheduler *s)
{
    struct hg_error err = {0};
    bool done = false;
    enum hg_status status = hg_canary_piece(s->options.canary, &done, &err);
    hg_heart_beat(s->options.heart, HG_PIECE_TURN);
    if (status == HG_STATUS_BUSY || status == HG_STATUS_NO_MEMORY)
        return CANNOT;
    if (status == HG_STATUS_OK && !done)
        return MORE;
    plan_next(s);
    s->canary.due = status == HG_STATUS_OK && hg_model_kv_quarantined(s->model) > 0;
    if (status == HG_STATUS_OK) {
        atomic_fetch_add(&s->n_canaries, 1);
        hg_log(HG_LOG_INFO, "canary: right");
    } else {
        give_alarm(s, &err);
    }
    return ENDED;
}

static bool nobody_asks(struct hg_scheduler *s)
{
    return hg_queue_depth(&s->queue) == 0 && !hg_queue_closed(&s->queue);
}

void hg_engine_idle(struct hg_scheduler *s)
{
    struct hg_engine_canary *c = &s->canary;
    int64_t moment = hg_now_ns() + MOMENT_NS;
    bool asked = false;
    if (c->due && !has_canary(s))
        open_quarantine(s, "there is no canary");
    while (!asked && !atomic_load(&s->canary_wrong)) {
        int64_t next = c->due || c->next_ns < moment ? moment : c->next_ns;
        bool wanted = has_canary(s) && (c->due || c->next_ns < INT64_MAX);
        hg_heart_beat(s->options.heart, HG_PIECE_NONE);
        asked = hg_queue_wait_until(&s->queue, wanted ? next : INT64_MAX);
        hg_heart_beat(s->options.heart, HG_PIECE_TURN);
        enum outcome o = asked ? ENDED : MORE;
        while (o == MORE && nobody_asks(s))
            o = try_piece(s);
        if (o == CANNOT) { /* on an empty machine: it is too small */
            open_quarantine(s, "there is no room for the canary");
            plan_next(s);
        }
    }
    if (s->options.canary)
        hg_canary_give_up(s->options.canary);
}

bool hg_engine_want_quarantine(struct hg_scheduler *s)
{
    if (hg_model_kv_quarantined(s->model) == 0)
        return false;
    s->canary.forced = true;
    return true;
}

void hg_engine_canary_now(struct hg_scheduler *s)
{
    struct hg_engine_canary *c = &s->canary;
    int64_t most = s->info.kv_blocks / QUARANTINE_SHARE;
    if (c->due && hg_model_kv_quarantined(s->model) > most)
        c->forced = true;
    if (!c->forced || hg_model_steps_in_flight(s->model) > 0 || atomic_load(&s->canary_wrong))
        return;
    c->forced = false;
    enum outcome o = has_canary(s) && hg_now_ns() >= c->not_before_ns ? MORE : CANNOT;
    if (o == MORE) {
        while (o == MORE)
            o = try_piece(s);
        if (o == CANNOT)
            c->not_before_ns = hg_now_ns() + RETRY_NS;
    }
    if (o == CANNOT && s->n_slots == 0)
        open_quarantine(s, "the canary cannot be tried");
}
