/* server/queue.h - the bounded queue between the HTTP threads and the engine thread: one line per
 * class, one bound for all.
 *
 * Refusing is normal: a full queue answers BUSY at once and the client is told when to come back.
 * `lock` guards every field; the node belongs to the queue from a successful push to its pop. */
#ifndef HG_SERVER_QUEUE_H
#define HG_SERVER_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/status.h"

enum hg_class { HG_CLASS_INTERACTIVE, HG_CLASS_BULK, HG_CLASS_COUNT };

struct hg_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct hg_list items[HG_CLASS_COUNT];
    size_t n, cap;
    bool closed; /* nothing is accepted any more */
};

void hg_queue_init(struct hg_queue *q, size_t cap);
void hg_queue_deinit(struct hg_queue *q); /* must be empty */

/* BUSY when full, CANCELLED when closed. */
enum hg_status hg_queue_push(struct hg_queue *q, struct hg_list *node, enum hg_class c);
struct hg_list *hg_queue_pop(struct hg_queue *q, enum hg_class c); /* oldest, or NULL */
/* Block until there is something to pop or the queue is closed. */
void hg_queue_wait(struct hg_queue *q);
/* The same, but at most until that time (hg_now_ns); false: it came. INT64_MAX: never. */
bool hg_queue_wait_until(struct hg_queue *q, int64_t until_ns);
void hg_queue_close(struct hg_queue *q);
bool hg_queue_closed(struct hg_queue *q);
size_t hg_queue_depth(struct hg_queue *q);

/* Take out every node for which `match` holds and append it to `out` (an initialised list head). */
typedef bool hg_queue_match_fn(const struct hg_list *node, void *ctx);
void hg_queue_sweep(struct hg_queue *q, hg_queue_match_fn *match, void *ctx, struct hg_list *out);

#endif
