/* tests/server/gate.h - stop the engine thread where it would hand out the tokens of a step, so
 * that what a test does meanwhile happens in the middle of a request, on a machine of any speed. */
#ifndef HG_TESTS_SERVER_GATE_H
#define HG_TESTS_SERVER_GATE_H

#include <pthread.h>

#include "model/internal.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed, stopped;
    int n_tickets; /* steps that may pass a closed gate */
    const struct hg_backend_ops *real;
    struct hg_backend_ops ops;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void gate_close(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.closed = true;
    pthread_mutex_unlock(&gate.lock);
}

/* Until the engine thread has stopped there. */
static inline void gate_await(void)
{
    pthread_mutex_lock(&gate.lock);
    while (!gate.stopped)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

/* The closed gate lets the step that stands there pass; until the next one stands there. */
static inline void gate_step(void)
{
    gate_await();
    pthread_mutex_lock(&gate.lock);
    gate.n_tickets = 1;
    gate.stopped = false;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    gate_await();
}

static inline void gate_open(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.closed = false;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* [engine] */
static inline void gate_pass(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.stopped = true;
    pthread_cond_broadcast(&gate.changed);
    while (gate.closed && gate.n_tickets == 0)
        pthread_cond_wait(&gate.changed, &gate.lock);
    gate.n_tickets = 0;
    gate.stopped = false;
    pthread_mutex_unlock(&gate.lock);
}

/* ---- for a test that replaces nothing else of the backend -------------------------------------
 */

static inline enum hg_status gate_step_wait(struct hg_backend *b, int64_t step)
{
    gate_pass();
    return gate.real->step_wait(b, step);
}

/* Before the engine thread is started, and after it has ended. */
static inline void gate_put(struct hg_model *m)
{
    gate.real = m->backend->ops;
    gate.ops = *gate.real;
    gate.ops.step_wait = gate_step_wait;
    m->backend->ops = &gate.ops;
}

static inline void gate_remove(struct hg_model *m)
{
    m->backend->ops = gate.real;
}

#endif
