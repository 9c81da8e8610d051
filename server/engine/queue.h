/* server/engine/queue.h - the bounded queue between the HTTP threads and the engine thread: a
 * policy (server/engine/policy.h) under a lock, and a condition to wait for work.
 *
 * Refusing is normal: a full queue answers at once and the client is told when to come back. A job
 * belongs to the queue from a successful push until it is swept out or ended. `lock` guards every
 * field. */
#ifndef HG_SERVER_QUEUE_H
#define HG_SERVER_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/status.h"
#include "server/engine/policy.h"

struct hg_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct hg_policy policy;
    bool closed; /* nothing is accepted any more */
    /* Written under the lock, read without it. */
    atomic_size_t n_waiting_now[HG_CLASS_COUNT];
    atomic_int_fast64_t tokens_now;
};

enum hg_status hg_queue_init(struct hg_queue *q, const struct hg_policy_options *o,
                             struct hg_error *err);
void hg_queue_deinit(struct hg_queue *q); /* must be empty */

/* [any] QUOTA: too much of this tenant waits. BUSY: too much waits, or it would wait for longer
 * than patience_s. CANCELLED: closed. *depth (NULL: no matter): requests that wait now, this one
 * among them. */
enum hg_status hg_queue_push(struct hg_queue *q, struct hg_job *job, const struct hg_tenant *who,
                             double patience_s, int *depth, struct hg_error *err);
/* [any] Whether a push could succeed, for a job whose cost is not known yet. */
enum hg_status hg_queue_check(struct hg_queue *q, const struct hg_tenant *who, enum hg_class cls,
                              struct hg_error *err);
double hg_queue_retry_s(struct hg_queue *q, const struct hg_tenant *who, enum hg_class cls);
size_t hg_queue_depth(struct hg_queue *q); /* requests that wait */
int64_t hg_queue_tokens(struct hg_queue *q);
/* The same by class, without the lock: what it was a moment ago. */
void hg_queue_glance(const struct hg_queue *q, size_t n_waiting[HG_CLASS_COUNT], int64_t *tokens);

/* [engine] hg_policy_next and so on, under the lock. */
struct hg_policy_turn hg_queue_next(struct hg_queue *q, const struct hg_policy_bulk *bulk);
void hg_queue_take(struct hg_queue *q, struct hg_job *job);
void hg_queue_resumed(struct hg_queue *q);
void hg_queue_end(struct hg_queue *q, struct hg_job *job, int64_t used);
void hg_queue_worked(struct hg_queue *q, int64_t tokens, double seconds);

/* [engine] Block until something waits or the queue is closed, at most until that time (hg_now_ns,
 * INT64_MAX: never); false: it came. */
bool hg_queue_wait_until(struct hg_queue *q, int64_t until_ns);
void hg_queue_close(struct hg_queue *q);
bool hg_queue_closed(struct hg_queue *q);

/* [engine] Take out every job for which `match` holds, oldest first, and append its `link` to `out`
 * (an initialised list head). */
typedef bool hg_queue_match_fn(const struct hg_job *job, void *ctx);
void hg_queue_sweep(struct hg_queue *q, hg_queue_match_fn *match, void *ctx, struct hg_list *out);

#endif
