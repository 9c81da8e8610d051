/* server/engine.h - what scheduler.c, engine_step.c and engine_deliver.c share: the engine thread's
 * own state. Nobody else includes it. */
#ifndef HG_SERVER_ENGINE_H
#define HG_SERVER_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/queue.h"
#include "server/scheduler.h"

enum { HG_ENGINE_FAULTS = 3 };

/* When the canary runs; the rest is in server/canary.h. */
struct hg_engine_canary {
    int64_t next_ns; /* INT64_MAX: not by time */
    bool due, forced;
    int64_t not_before_ns;              /* forced, but there was no room */
    int64_t fault_ns[HG_ENGINE_FAULTS]; /* of the last numeric faults, the oldest first */
};

/* A running request. */
struct hg_slot {
    struct hg_request *req; /* NULL: free */
    struct hg_seq *seq;     /* NULL once the tokens are complete */
    struct hg_detok detok;
    int32_t *codes; /* complete image waiting to be rendered */
    size_t n_codes;
    int n_previews; /* that were due so far */
    bool preview;   /* one is to be rendered */
};

struct hg_scheduler {
    struct hg_model *model;
    struct hg_model_info info;
    struct hg_scheduler_options options;
    struct hg_queue queue;
    pthread_t thread;
    /* [engine thread] */
    struct hg_slot *slots; /* [max_batch], arrival order */
    int n_slots;
    struct hg_request *head[HG_CLASS_COUNT]; /* admitted next: waits for a place or KV blocks */
    int n_interactive; /* admitted one after the other while bulk was waiting */
    struct hg_step_item *items;
    struct hg_token *tokens;
    struct hg_buf text;
    /* shared */
    atomic_int_fast64_t stop_ns; /* running requests end at this time; INT64_MAX: no stop */
    atomic_size_t n_running;
    atomic_uint_fast64_t n_done, n_failed, n_cancelled, n_steps, n_tokens, n_ahead;
    atomic_uint_fast64_t n_preempted, n_found;
    struct hg_engine_canary canary; /* [engine thread] */
    atomic_uint_fast64_t n_canaries;
    atomic_uint_fast64_t n_numeric; /* requests that ended with a numeric fault */
    atomic_bool hung, canary_wrong;
    atomic_bool finished;    /* the thread has left its loop */
    atomic_bool device_lost; /* a request ended with a device error */
};

/* ---- scheduler.c ---- */
/* End the request of slot i with what its result says, or with an error; later slots move up. */
void hg_slot_close(struct hg_scheduler *s, int i);
void hg_slot_fail(struct hg_scheduler *s, int i, const struct hg_error *err);

/* ---- engine_canary.c ---- */
void hg_engine_canary_init(struct hg_scheduler *s);
/* A request has ended with a numeric fault. */
void hg_engine_numeric_fault(struct hg_scheduler *s);
/* Nothing to do: wait for requests, and try the canary when its time has come, a piece between two
 * looks at the queue. */
void hg_engine_idle(struct hg_scheduler *s);
/* One run of the canary at once: after too many faults, or when a request needs the blocks in
 * quarantine. Nothing when it is not wanted, or steps are in flight. */
void hg_engine_canary_now(struct hg_scheduler *s);
/* No block is free but in quarantine: have them tried. */
bool hg_engine_want_quarantine(struct hg_scheduler *s);

/* ---- engine_step.c ---- */
/* Make room, begin the steps that can be begun, end the oldest and hand out its tokens. */
void hg_engine_step(struct hg_scheduler *s);

/* ---- engine_deliver.c ---- */
/* The picture of a slot as far as it is drawn, to its stream. */
enum hg_status hg_slot_preview(struct hg_scheduler *s, struct hg_slot *slot, struct hg_error *err);
/* One token of a slot to its stream; a complete image's codes are kept and its sequence freed. */
enum hg_status hg_slot_deliver(struct hg_scheduler *s, struct hg_slot *slot,
                               const struct hg_token *t, struct hg_error *err);

#endif
