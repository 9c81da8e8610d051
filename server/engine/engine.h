/* server/engine/engine.h - what scheduler.c, engine_admit.c, engine_step.c, engine_pieces.c and
 * engine_deliver.c share: the engine thread's own state. Nobody else includes it. */
#ifndef HG_SERVER_ENGINE_H
#define HG_SERVER_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/engine/queue.h"
#include "server/engine/scheduler.h"

/* Tokens that an answer is expected to have still: its limit is rarely met. */
enum { HG_EXPECTED_ANSWER = 64 };
/* Prompt tokens per step while other sequences decode: a chunk. */
enum { HG_SHARED_PREFILL = 256 };
enum { HG_ENGINE_FAULTS = 3 };

/* When the canary runs; the rest is in server/engine/canary.h. */
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
    struct hg_stop stop;
    int32_t *codes; /* complete image waiting to be rendered */
    size_t n_codes;
    int n_previews;   /* that were due so far */
    bool preview;     /* one is to be rendered */
    int n_yields;     /* to questions that waited */
    int prefilled;    /* prompt positions that were last reported, -1: none */
    int64_t token_ns; /* when its last token was handed out; 0: none */
};

/* Pictures on their way, a piece between two steps. */
struct hg_pieces {
    struct hg_request *drawn; /* whose picture is under way in the VQGAN; NULL: nobody's */
    bool preview;             /* it is one, of n_codes tokens */
    int n_codes;
    int n_seen; /* pieces of vision in a row that a picture to be drawn has let pass */
};

struct hg_scheduler {
    struct hg_model *model;
    struct hg_model_info info;
    struct hg_scheduler_options options;
    int64_t max_queue_tokens; /* that hold; 0: no bound */
    struct hg_queue queue;
    struct hg_ledger ledger; /* from submit to end_request */
    pthread_t thread;
    /* [engine thread] */
    struct hg_slot *slots; /* [2 max_batch], order of admission: running, or having given way */
    int n_slots;
    struct hg_policy_place *places; /* [2 max_batch] */
    bool hold_steps;                /* begin none: a picture is to give way */
    int64_t n_worked;               /* tokens of steps begun in this turn */
    struct hg_pieces pieces;
    struct hg_step_item *items;
    int n_items_of[HG_TASK_COUNT]; /* of the step that is planned */
    struct hg_token *tokens;
    struct hg_buf text, sent; /* of one token: as it is, and without what is held back */
    /* shared */
    atomic_int_fast64_t stop_ns; /* running requests end at this time; INT64_MAX: no stop */
    atomic_size_t n_running, n_running_of[HG_TASK_COUNT];
    atomic_uint_fast64_t n_done, n_failed, n_cancelled, n_steps, n_tokens, n_ahead;
    atomic_uint_fast64_t n_preempted, n_found, n_pieces, n_encoded;
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

/* The sequence of a request that was taken from the queue gets a slot. */
void hg_slot_open(struct hg_scheduler *s, struct hg_request *r, struct hg_seq *seq);
/* Push END and drop the scheduler's reference. */
void hg_engine_end(struct hg_scheduler *s, struct hg_request *r);

/* ---- engine_admit.c ---- */
/* Those that gave way go on, and those that wait begin, as far as there is room. */
void hg_engine_admit(struct hg_scheduler *s);
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

/* ---- engine_pieces.c ---- */
/* What a multiply-add of the vision tower (wide activations) and of the VQGAN (fp32 throughout)
 * costs beside one of a prompt: 1.9 and 4.1 on an H100, 2.2 and 2.1 on a Zen 5, at published sizes.
 */
enum { HG_SEEN_COST = 2, HG_DRAWN_COST = 4 };
/* Of a piece, in multiply-adds of a prompt. */
int64_t hg_engine_piece_work(const struct hg_scheduler *s);
/* One piece of a picture to be seen or drawn, if there is one. */
void hg_engine_piece(struct hg_scheduler *s);
/* To the log: how many pieces a picture takes, and whether one operation is more than a piece. */
void hg_pieces_tell(const struct hg_scheduler *s);
/* The request of a slot leaves: nothing of it stays under way. */
void hg_pieces_forget(struct hg_scheduler *s, const struct hg_slot *slot);

/* ---- engine_deliver.c ---- */
/* How much of its prompt is computed, to its stream: a few times per prompt, always going up. */
enum hg_status hg_slot_prefill(struct hg_slot *slot, struct hg_error *err);
/* One token of a slot to its stream; a complete image's codes are kept and its sequence freed. */
enum hg_status hg_slot_deliver(struct hg_scheduler *s, struct hg_slot *slot,
                               const struct hg_token *t, struct hg_error *err);

#endif
