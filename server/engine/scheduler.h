/* server/engine/scheduler.h - the one engine thread: the only place that sees request and model
 * together.
 *
 * Continuous batching: each turn admits from the bounded queue, does at most one piece of a
 * picture (to see or to draw, as much work as a chunk of a prompt), then one step over every
 * running sequence of both tasks; up to HG_STEPS_AHEAD of them are begun ahead while all are
 * drawing. A sequence takes KV blocks as it grows; when there are none left the youngest gives way
 * and goes on later. Cancellation and deadlines are looked at between steps. From create to free
 * the model's [engine] functions belong to this thread. Everything here but create and free is
 * thread-safe. */
#ifndef HG_SERVER_SCHEDULER_H
#define HG_SERVER_SCHEDULER_H

#include <stdint.h>

#include "common/status.h"
#include "model/healthgpt.h"
#include "server/engine/canary.h"
#include "server/engine/request.h"
#include "server/engine/watchdog.h"

struct hg_scheduler;

struct hg_scheduler_options {
    int max_batch;              /* sequences that run together */
    int max_queue;              /* waiting requests */
    int64_t timeout_ms;         /* per request, waiting included */
    int64_t max_queue_tokens;   /* of waiting requests; 0: four KV caches, below 0: no bound */
    struct hg_heart *heart;     /* NULL: nobody watches */
    struct hg_canary *canary;   /* that has run once, NULL: none; the engine thread's from create to
                                   free */
    int64_t canary_interval_ms; /* of the idle engine; 0: only after numeric faults */
};

struct hg_scheduler_stats {
    size_t queued, running;
    int64_t queued_tokens, max_queued_tokens; /* the latter 0: no bound */
    uint64_t n_done, n_failed, n_cancelled, n_steps, n_tokens;
    uint64_t n_ahead;              /* steps begun while others were in flight */
    uint64_t n_preempted, n_found; /* sequences that gave way; prompt tokens found in the cache */
    size_t kv_blocks, kv_free;     /* free: those kept for a prompt that may come again included */
    struct hg_ledger_stats requests;
    uint64_t n_pieces;   /* of pictures */
    uint64_t n_encoded;  /* pictures through the tower: once for all that want them at a time */
    int64_t piece_work;  /* what one may cost, in multiply-adds of a prompt */
    uint64_t n_canaries; /* complete runs of the canary, beside the first */
    uint64_t n_numeric;  /* of n_failed: values that were not finite */
    int n_quarantined;   /* KV blocks that wait for the canary */
};

enum hg_status hg_scheduler_create(struct hg_model *m, const struct hg_scheduler_options *o,
                                   struct hg_scheduler **out, struct hg_error *err);
/* Drains without grace, joins the thread and releases. NULL is fine. */
void hg_scheduler_free(struct hg_scheduler *s);

/* Takes a reference of its own on success. BUSY: the queue is full, or the request would begin too
 * late. QUOTA: enough of its tenant is waiting. CANCELLED: stopping. */
enum hg_status hg_scheduler_submit(struct hg_scheduler *s, struct hg_request *r,
                                   struct hg_error *err);
/* The same answers, as far as they are known before a body is read. */
enum hg_status hg_scheduler_has_room(struct hg_scheduler *s, const struct hg_tenant *who,
                                     enum hg_task task, struct hg_error *err);
/* Seconds after which somebody who was refused may try again, from the measured speed. */
double hg_scheduler_retry_s(struct hg_scheduler *s, const struct hg_tenant *who, enum hg_task task);
/* The model's facts as they were before the engine thread took over (hg_model_info would read
 * counters that it is changing). */
const struct hg_model_info *hg_scheduler_model_info(const struct hg_scheduler *s);
void hg_scheduler_stats(struct hg_scheduler *s, struct hg_scheduler_stats *out);

/* What metrics and readiness are made of, without any lock: each figure as it was a moment ago. */
struct hg_scheduler_glance {
    size_t waiting[HG_TASK_COUNT], running[HG_TASK_COUNT];
    int64_t waiting_tokens, max_waiting_tokens; /* the latter 0: no bound */
    size_t max_queue;
    uint64_t n_steps, n_preempted, n_pieces, n_canaries, n_numeric;
    size_t kv_blocks, kv_free;
    int n_quarantined;
};
void hg_scheduler_glance(const struct hg_scheduler *s, struct hg_scheduler_glance *out);

/* Tell of requests that have not ended grace_ns after their deadline (once each); their number. */
int hg_scheduler_check(struct hg_scheduler *s, int64_t now_ns, int64_t grace_ns);

/* Refuse new requests, end the waiting ones with CANCELLED but for streams, whose answers have
 * begun and which nobody else can take over; let those and the running ones finish for grace_ms,
 * then end them too. Does not wait; a later call may change the grace. */
void hg_scheduler_drain(struct hg_scheduler *s, int64_t grace_ms);
bool hg_scheduler_drained(struct hg_scheduler *s); /* every request has ended */
/* A request ended with a device error. CUDA errors stick to the process: only a new one can go on.
 */
bool hg_scheduler_device_lost(struct hg_scheduler *s);
/* NULL while all is well; else why nothing more is accepted and the process has to end:
 * "device_lost", "engine_hung", "canary_failed". */
const char *hg_scheduler_trouble(struct hg_scheduler *s);
bool hg_scheduler_hung(struct hg_scheduler *s); /* the engine thread will not come back */
/* [watchdog] The engine thread hangs in a piece of work and was condemned
 * (server/engine/watchdog.h): end every request with *why, accept no more. The scheduler cannot be
 * freed any more. */
void hg_scheduler_abandon(struct hg_scheduler *s, const struct hg_error *why);

#endif
