/* server/engine/queue.c - mutex, condition, policy. */
#include "server/engine/queue.h"

#include <math.h>
#include <time.h>

enum hg_status hg_queue_init(struct hg_queue *q, const struct hg_policy_options *o,
                             struct hg_error *err)
{
    *q = (struct hg_queue){0};
    HG_TRY(hg_policy_init(&q->policy, o, err));
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t monotonic; /* the clock of hg_now_ns */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return HG_STATUS_OK;
}

void hg_queue_deinit(struct hg_queue *q)
{
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    hg_policy_deinit(&q->policy);
}

/* [lock] */
static void show(struct hg_queue *q)
{
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        atomic_store(&q->n_waiting_now[c], q->policy.classes[c].n_waiting);
    atomic_store(&q->tokens_now, q->policy.waiting_tokens);
}

void hg_queue_glance(const struct hg_queue *q, size_t n_waiting[HG_CLASS_COUNT], int64_t *tokens)
{
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        n_waiting[c] = atomic_load(&q->n_waiting_now[c]);
    *tokens = (int64_t)atomic_load(&q->tokens_now);
}

/* [lock] */
static enum hg_status may_push(struct hg_queue *q, const struct hg_tenant *who, enum hg_class cls,
                               int64_t cost, double patience_s, struct hg_error *err)
{
    const struct hg_policy *p = &q->policy;
    if (q->closed)
        return hg_fail(err, HG_STATUS_CANCELLED, "the server is shutting down");
    switch (hg_policy_may_wait(p, who, cls, cost, patience_s)) {
    case HG_POLICY_WAIT:
        return HG_STATUS_OK;
    case HG_POLICY_TENANT_FULL:
        return hg_fail(err, HG_STATUS_QUOTA,
                       "as much as one API key may have waiting is waiting: try again later");
    case HG_POLICY_TOO_LATE:
        return hg_fail(err, HG_STATUS_BUSY,
                       "it would wait for %.0f s, longer than its deadline: try again later",
                       hg_policy_wait_s(p, who, cls));
    case HG_POLICY_FULL:
        break;
    }
    return hg_fail(err, HG_STATUS_BUSY,
                   "%zu requests of %lld tokens are waiting already: try again later", p->n_waiting,
                   (long long)p->waiting_tokens);
}

enum hg_status hg_queue_push(struct hg_queue *q, struct hg_job *job, const struct hg_tenant *who,
                             double patience_s, int *depth, struct hg_error *err)
{
    pthread_mutex_lock(&q->lock);
    enum hg_status status = may_push(q, who, job->cls, job->cost, patience_s, err);
    if (status == HG_STATUS_OK) {
        hg_policy_push(&q->policy, job, who);
        show(q);
        if (depth)
            *depth = (int)q->policy.n_waiting;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->lock);
    return status;
}

enum hg_status hg_queue_check(struct hg_queue *q, const struct hg_tenant *who, enum hg_class cls,
                              struct hg_error *err)
{
    pthread_mutex_lock(&q->lock);
    enum hg_status status = may_push(q, who, cls, 1, INFINITY, err);
    pthread_mutex_unlock(&q->lock);
    return status;
}

double hg_queue_retry_s(struct hg_queue *q, const struct hg_tenant *who, enum hg_class cls)
{
    pthread_mutex_lock(&q->lock);
    double s = hg_policy_retry_s(&q->policy, who, cls);
    pthread_mutex_unlock(&q->lock);
    return s;
}

size_t hg_queue_depth(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->policy.n_waiting;
    pthread_mutex_unlock(&q->lock);
    return n;
}

int64_t hg_queue_tokens(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    int64_t n = q->policy.waiting_tokens;
    pthread_mutex_unlock(&q->lock);
    return n;
}

struct hg_policy_turn hg_queue_next(struct hg_queue *q, const struct hg_policy_bulk *bulk)
{
    pthread_mutex_lock(&q->lock);
    struct hg_policy_turn turn = hg_policy_next(&q->policy, bulk);
    pthread_mutex_unlock(&q->lock);
    return turn;
}

void hg_queue_take(struct hg_queue *q, struct hg_job *job)
{
    pthread_mutex_lock(&q->lock);
    hg_policy_take(&q->policy, job);
    show(q);
    pthread_mutex_unlock(&q->lock);
}

void hg_queue_resumed(struct hg_queue *q)
{
    pthread_mutex_lock(&q->lock);
    hg_policy_resumed(&q->policy);
    pthread_mutex_unlock(&q->lock);
}

void hg_queue_end(struct hg_queue *q, struct hg_job *job, int64_t used)
{
    pthread_mutex_lock(&q->lock);
    hg_policy_end(&q->policy, job, used);
    pthread_mutex_unlock(&q->lock);
}

void hg_queue_worked(struct hg_queue *q, int64_t tokens, double seconds)
{
    pthread_mutex_lock(&q->lock);
    hg_policy_worked(&q->policy, tokens, seconds);
    pthread_mutex_unlock(&q->lock);
}

bool hg_queue_wait_until(struct hg_queue *q, int64_t until_ns)
{
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    int late = 0;
    pthread_mutex_lock(&q->lock);
    while (q->policy.n_waiting == 0 && !q->closed && late == 0)
        late = until_ns == INT64_MAX ? pthread_cond_wait(&q->filled, &q->lock)
                                     : pthread_cond_timedwait(&q->filled, &q->lock, &until);
    bool there = q->policy.n_waiting > 0 || q->closed;
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

void hg_queue_sweep(struct hg_queue *q, hg_queue_match_fn *match, void *ctx, struct hg_list *out)
{
    pthread_mutex_lock(&q->lock);
    for (struct hg_list *node = q->policy.waiting.next, *next; node != &q->policy.waiting;
         node = next) {
        struct hg_job *job = HG_LIST_ENTRY(node, struct hg_job, waiting);
        next = node->next;
        if (!match(job, ctx))
            continue;
        hg_policy_remove(&q->policy, job);
        hg_list_push_back(out, &job->link);
    }
    show(q);
    pthread_mutex_unlock(&q->lock);
}
