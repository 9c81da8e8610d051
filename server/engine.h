/* server/engine.h - what scheduler.c, engine_admit.c, engine_step.c and engine_deliver.c share: the
 * engine thread's own state. Nobody else includes it. */
#ifndef HG_SERVER_ENGINE_H
#define HG_SERVER_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/queue.h"
#include "server/scheduler.h"

/* Tokens that an answer is expected to have still: its limit is rarely met. */
enum { HG_EXPECTED_ANSWER = 64 };

/* A running request. */
struct hg_slot {
    struct hg_request *req; /* NULL: free */
    struct hg_seq *seq;     /* NULL once the tokens are complete */
    struct hg_detok detok;
    int32_t *codes; /* complete image waiting to be rendered */
    size_t n_codes;
    int n_previews; /* that were due so far */
    bool preview;   /* one is to be rendered */
    int n_yields;   /* to questions that waited */
};

struct hg_scheduler {
    struct hg_model *model;
    struct hg_model_info info;
    struct hg_scheduler_options options;
    struct hg_queue queue;
    struct hg_ledger ledger; /* from submit to end_request */
    pthread_t thread;
    /* [engine thread] */
    struct hg_slot *slots; /* [2 max_batch], order of admission: running, or having given way */
    int n_slots;
    struct hg_policy_place *places; /* [2 max_batch] */
    bool hold_steps;                /* begin none: a picture is to give way */
    int64_t n_worked;               /* tokens of steps begun in this turn */
    struct hg_step_item *items;
    struct hg_token *tokens;
    struct hg_buf text;
    /* shared */
    atomic_int_fast64_t stop_ns; /* running requests end at this time; INT64_MAX: no stop */
    atomic_size_t n_running;
    atomic_uint_fast64_t n_done, n_failed, n_cancelled, n_steps, n_tokens, n_ahead;
    atomic_uint_fast64_t n_preempted, n_found;
    atomic_bool finished;    /* the thread has left its loop */
    atomic_bool device_lost; /* a request ended with a device error */
};

/* ---- scheduler.c ---- */
/* End the request of slot i with what its result says, or with an error; later slots move up. */
void hg_slot_close(struct hg_scheduler *s, int i);
void hg_slot_fail(struct hg_scheduler *s, int i, const struct hg_error *err);

/* The sequence of a request that was taken from the queue gets a slot. */
void hg_slot_open(struct hg_scheduler *s, struct hg_request *r, struct hg_seq *seq);
/* Push END and drop the scheduler's reference. */
void hg_engine_end(struct hg_scheduler *s, struct hg_request *r);

/* ---- engine_admit.c ---- */
/* Those that gave way go on, and those that wait begin, as far as there is room. */
void hg_engine_admit(struct hg_scheduler *s);

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
