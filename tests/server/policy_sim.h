/* tests/server/policy_sim.h - an engine in virtual time around a policy: places, KV blocks, prompts
 * in chunks beside decoding, giving way. It does what server/engine/engine_admit.c and
 * engine_step.c do, with numbers in place of a model. */
#ifndef HG_TESTS_SERVER_POLICY_SIM_H
#define HG_TESTS_SERVER_POLICY_SIM_H

#include "server/engine/policy.h"

enum { SIM_MAX_KEYS = 64, SIM_MAX_PLACES = 64, SIM_BLOCK = 16, SIM_EXPECTED = 64 };

/* FIFO and PRIORITY are wrong on purpose: the oldest first whoever it is of; bulk only when no
 * question waits. NO_YIELD: fair, but nobody gives way to a question that waits. */
enum sim_rule { SIM_FAIR, SIM_FIFO, SIM_PRIORITY, SIM_NO_YIELD };

enum sim_state { SIM_FREE, SIM_WAITING, SIM_RUNNING, SIM_ENDED };

struct sim_job {
    struct hg_job job;
    enum sim_state state;
    int key, prompt, answer; /* tokens it will have */
    int n_prompt, n_answer;  /* computed */
    int n_redo;              /* of those, to be computed again */
    bool parked, cancelled;
    int n_yields;
    int64_t arrived, began, first;    /* ticks; first: its first token, 0 before */
    int64_t own_ahead, others_before; /* tokens of its key before it, itself included; tokens of
                                         other keys taken in its class until it came */
};

struct sim_key {
    struct hg_tenant who;
    int n_waiting, n_running, max_waiting_seen, max_running_seen;
    int64_t served[HG_CLASS_COUNT]; /* taken and corrected, as the policy charges */
    int64_t computed;               /* tokens */
    int64_t n_done, n_refused, wait_sum, n_first;
    double first_sum; /* ticks until the first token */
};

struct sim {
    struct hg_policy policy;
    enum sim_rule rule;
    uint64_t seed;
    int max_batch, kv_blocks, kv_used;
    struct sim_job *pool; /* [n_pool] */
    int n_pool, *unused, n_unused;
    struct sim_job *places[2 * SIM_MAX_PLACES];
    int n_places;
    struct sim_key keys[SIM_MAX_KEYS];
    int n_keys;
    int64_t now, n_steps; /* ticks: a step of decoding is 4, every 32 prompt tokens 1 more */
    int64_t taken[HG_CLASS_COUNT]; /* tokens, at admission */
    int64_t n_taken[HG_CLASS_COUNT];
    int64_t n_accepted, n_done, n_cancelled, n_computed, n_redone, n_given_up, used_told;
    int64_t n_yields, n_kv_yields;
    void (*on_take)(struct sim *s, struct sim_job *j, bool bulk_waited);
    void (*on_end)(struct sim *s, struct sim_job *j);
    void *ctx;
};

void sim_open(struct sim *s, enum sim_rule rule, int max_batch, int kv_blocks, size_t max_queue);
void sim_close(struct sim *s);                           /* fails the test unless all is back */
int sim_add_key(struct sim *s, struct hg_tenant limits); /* its number; the id is made */
/* NULL: refused. */
struct sim_job *sim_push(struct sim *s, int key, enum hg_class cls, int prompt, int answer);
void sim_cancel(struct sim *s, struct sim_job *j);
void sim_step(struct sim *s);
void sim_finish(struct sim *s); /* steps until nothing is left */
int sim_uniform(struct sim *s, int lo, int hi);
int sim_geometric(struct sim *s, int mean, int most);

#endif
