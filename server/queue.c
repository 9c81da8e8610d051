/* server/queue.c - mutex, condition, intrusive list. */
#include "server/queue.h"

#include <time.h>

void hg_queue_init(struct hg_queue *q, size_t cap)
{
    *q = (struct hg_queue){.cap = cap};
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        hg_list_init(&q->items[c]);
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t monotonic; /* the clock of hg_now_ns */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void hg_queue_deinit(struct hg_queue *q)
{
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
}

enum hg_status hg_queue_push(struct hg_queue *q, struct hg_list *node, enum hg_class c)
{
    enum hg_status status = HG_STATUS_OK;
    pthread_mutex_lock(&q->lock);
    if (q->closed)
        status = HG_STATUS_CANCELLED;
    else if (q->n >= q->cap)
        status = HG_STATUS_BUSY;
    if (status == HG_STATUS_OK) {
        hg_list_push_back(&q->items[c], node);
        q->n++;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->lock);
    return status;
}

struct hg_list *hg_queue_pop(struct hg_queue *q, enum hg_class c)
{
    struct hg_list *node = NULL;
    pthread_mutex_lock(&q->lock);
    if (!hg_list_empty(&q->items[c])) {
        node = q->items[c].next;
        hg_list_remove(node);
        q->n--;
    }
    pthread_mutex_unlock(&q->lock);
    return node;
}

void hg_queue_wait(struct hg_queue *q)
{
    hg_queue_wait_until(q, INT64_MAX);
}

bool hg_queue_wait_until(struct hg_queue *q, int64_t until_ns)
{
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    int late = 0;
    pthread_mutex_lock(&q->lock);
    while (q->n == 0 && !q->closed && late == 0)
        late = until_ns == INT64_MAX ? pthread_cond_wait(&q->filled, &q->lock)
                                     : pthread_cond_timedwait(&q->filled, &q->lock, &until);
    bool there = q->n > 0 || q->closed;
    pthread_mutex_unlock(&q->lock);
    return there;
}

void hg_queue_close(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

bool hg_queue_closed(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool closed = q->closed;
    pthread_mutex_unlock(&q->lock);
    return closed;
}

size_t hg_queue_depth(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->n;
    pthread_mutex_unlock(&q->lock);
    return n;
}

/* [lock] */
static void sweep_line(struct hg_queue *q, struct hg_list *line, hg_queue_match_fn *match,
                       void *ctx, struct hg_list *out)
{
    for (struct hg_list *node = line->next, *next; node != line; node = next) {
        next = node->next;
        if (!match(node, ctx))
            continue;
        hg_list_remove(node);
        hg_list_push_back(out, node);
        q->n--;
    }
}

void hg_queue_sweep(struct hg_queue *q, hg_queue_match_fn *match, void *ctx, struct hg_list *out)
{
    pthread_mutex_lock(&q->lock);
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        sweep_line(q, &q->items[c], match, ctx, out);
    pthread_mutex_unlock(&q->lock);
}
