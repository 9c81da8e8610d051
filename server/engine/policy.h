/* server/engine/policy.h - who may wait, who is admitted next, who gives way. Decisions only: no
 * threads, no sockets, no clock. server/engine/queue holds one under its lock;
 * tests/server/test_policy_sim.c runs one in virtual time.
 *
 * CLASSES. Interactive before bulk; bulk never takes more than three quarters of the places. While
 * it has less than a quarter of them (one at least) it gets a turn after HG_POLICY_TURNS
 * interactive ones, or earlier when those were HG_POLICY_TURNS times as much work as its next job.
 * An interactive job that finds no place or no memory makes the youngest bulk one give way, down to
 * that quarter. KEYS. Within a class deficit round robin (Shreedhar and Varghese 1995) over the
 * tenants that wait, by tokens of work, HG_POLICY_QUANTUM tokens times the weight a round (less
 * than any job, so that a tenant with few short jobs has as many turns as one with a long line);
 * first in first out within a tenant. A job is charged what it is expected to cost when it is
 * admitted and corrected by what it used when it ends. Credit ends with the backlog; debt stays, is
 * worked off by the rounds that pass, and is forgotten when there is no work at all. BOUNDS.
 * Requests and tokens that wait, of all and of each tenant: its own limit, and never more than
 * there is room left (Choudhury and Hahne 1998), so that n greedy tenants leave 1 / (n + 1) of the
 * queue free; the one tenant of a server without keys may fill it. COST. A decision is O(tenants
 * that wait): rounds in which nobody can afford a job are given all at once; all else is O(1).
 * Memory is bounded by the options; nothing is allocated after init.
 */
#ifndef HG_SERVER_POLICY_H
#define HG_SERVER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/status.h"
#include "server/engine/tenant.h"

enum { HG_POLICY_QUANTUM = 16, HG_POLICY_TURNS = 4, HG_POLICY_MAX_YIELDS = 2 };

enum hg_class { HG_CLASS_INTERACTIVE, HG_CLASS_BULK, HG_CLASS_COUNT };

struct hg_policy_flow;

/* A request as the policy sees it, inside of the request. cls and cost are set before the push, the
 * rest is the policy's. */
struct hg_job {
    struct hg_list link, waiting; /* of the tenant's in its class; of all, oldest first */
    struct hg_policy_flow *flow;  /* from push to remove or end; else NULL */
    enum hg_class cls;
    int64_t cost; /* expected tokens of work, >= 1 */
};

struct hg_policy_options {
    size_t max_queue;         /* requests that wait */
    int64_t max_queue_tokens; /* 0: no bound */
    int max_batch;            /* places; jobs that gave way hold none */
};

struct hg_policy_class {
    struct hg_list ring; /* flows with a job that may be taken; the first has its turn */
    int n_ring;
    double rounds; /* quanta given to each */
    size_t n_waiting;
    int64_t waiting_tokens, ring_weight;
};

struct hg_policy {
    struct hg_policy_options options;
    struct hg_policy_class classes[HG_CLASS_COUNT];
    struct hg_policy_flow *flows;    /* [n_flows] */
    struct hg_list *buckets, unused; /* of flows: [n_buckets] by id; without a job, oldest first */
    size_t n_flows, n_buckets;
    struct hg_list waiting; /* all jobs that wait, oldest first */
    size_t n_waiting, n_running;
    int64_t waiting_tokens;
    int n_passed; /* interactive jobs taken, and their tokens, since the last turn of bulk */
    int64_t passed_tokens;
    uint64_t epoch;             /* counts the times without any work */
    double work_tokens, work_s; /* fading sums: tokens computed, and the time it took */
};

enum hg_status hg_policy_init(struct hg_policy *p, const struct hg_policy_options *o,
                              struct hg_error *err);
void hg_policy_deinit(struct hg_policy *p); /* jobs are left alone */

/* ---- waiting --------------------------------------------------------------------------------- */

enum hg_policy_verdict {
    HG_POLICY_WAIT,        /* it may wait */
    HG_POLICY_TENANT_FULL, /* too much of the tenant's waits: 429 */
    HG_POLICY_FULL,        /* too much waits: 503 */
    HG_POLICY_TOO_LATE     /* it would not begin within `patience_s`: 503 */
};

/* cost 0: not known yet, only what is sure to be refused is. */
enum hg_policy_verdict hg_policy_may_wait(const struct hg_policy *p, const struct hg_tenant *who,
                                          enum hg_class cls, int64_t cost, double patience_s);
/* After hg_policy_may_wait has said WAIT. The tenant's latest weight and limits hold. */
void hg_policy_push(struct hg_policy *p, struct hg_job *job, const struct hg_tenant *who);
void hg_policy_remove(struct hg_policy *p, struct hg_job *job); /* waits no longer, was not taken */

/* Seconds until a job pushed now would begin; 0: not known, or at once. */
double hg_policy_wait_s(const struct hg_policy *p, const struct hg_tenant *who, enum hg_class cls);
/* Seconds, 1..60, after which somebody who was refused may well come back: a quarter of the wait.
 */
double hg_policy_retry_s(const struct hg_policy *p, const struct hg_tenant *who, enum hg_class cls);

/* ---- running --------------------------------------------------------------------------------- */

struct hg_policy_turn {
    enum hg_class cls;
    struct hg_job *job; /* NULL: nobody, or a bulk job that was taken before and has given way */
    bool parked;        /* ... the latter */
};

/* What the engine holds of bulk. */
struct hg_policy_bulk {
    int n_running, n_held; /* the latter with those that gave way */
    int64_t parked; /* tokens that the oldest of those has still to compute; 0: there is none */
};

/* Whose turn it is; the same until something is pushed, taken, gives way or ends. A job that gave
 * way goes on before another of its class begins. */
struct hg_policy_turn hg_policy_next(struct hg_policy *p, const struct hg_policy_bulk *bulk);
void hg_policy_take(struct hg_policy *p, struct hg_job *job);
void hg_policy_resumed(struct hg_policy *p); /* bulk that gave way goes on */
void hg_policy_end(struct hg_policy *p, struct hg_job *job, int64_t used); /* of a taken job */

/* Engine time: `tokens` were computed in `seconds` with work at hand. */
void hg_policy_worked(struct hg_policy *p, int64_t tokens, double seconds);
double hg_policy_rate(const struct hg_policy *p); /* tokens per second; 0: not known yet */

/* A running sequence as far as giving way goes. */
struct hg_policy_place {
    enum hg_class cls;
    bool parked;  /* has given way already, or has nothing to give */
    int n_yields; /* to waiting interactive jobs so far */
};

/* Places of max_batch that bulk may take at most (three quarters; all but one of two or three), and
 * those that it keeps. */
int hg_policy_bulk_most(int max_batch);
int hg_policy_bulk_kept(int max_batch);
/* Which of n places (in the order of admission) gives way to an interactive job that waits: the
 * youngest bulk one that has not done so HG_POLICY_MAX_YIELDS times; -1: none, or those that run
 * are no more than bulk keeps. */
int hg_policy_victim(const struct hg_policy_place *places, int n, int max_batch);

#endif
