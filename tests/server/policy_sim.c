/* tests/server/policy_sim.c - the loop of the engine thread, with counters for arithmetic. */
#include "tests/server/policy_sim.h"

#include <math.h>

#include "tests/test.h"

enum { PROMPT_CHUNK = 1024, SHARED_CHUNK = 256, TICKS_PER_STEP = 4, TOKENS_PER_TICK = 32 };

static struct sim_job *job_of(struct hg_job *job)
{
    return (struct sim_job *)(void *)job; /* the first member */
}

/* splitmix64 */
static uint64_t draw(struct sim *s)
{
    uint64_t z = s->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int sim_uniform(struct sim *s, int lo, int hi)
{
    return lo + (int)(draw(s) >> 33) % (hi - lo + 1);
}

int sim_geometric(struct sim *s, int mean, int most)
{
    double u = ((double)(draw(s) >> 11) + 1) / 9007199254740993.0;
    double n = 1 - log(u) * (mean - 1);
    return n < most ? (int)n : most;
}

void sim_open(struct sim *s, enum sim_rule rule, int max_batch, int kv_blocks, size_t max_queue)
{
    struct hg_error err = {0};
    struct hg_policy_options o = {max_queue, 0, max_batch};
    *s = (struct sim){.rule = rule, .max_batch = max_batch, .kv_blocks = kv_blocks, .seed = 1};
    s->n_pool = s->n_unused = (int)max_queue + 2 * max_batch;
    s->pool = calloc((size_t)s->n_pool, sizeof *s->pool);
    s->unused = calloc((size_t)s->n_pool, sizeof *s->unused);
    assert_non_null(s->pool);
    assert_non_null(s->unused);
    for (int i = 0; i < s->n_pool; i++)
        s->unused[i] = i;
    HG_TEST_OK(hg_policy_init(&s->policy, &o, &err), err);
}

void sim_close(struct sim *s)
{
    const struct hg_policy *p = &s->policy;
    assert_int_equal(s->n_unused, s->n_pool);
    assert_int_equal(s->n_done + s->n_cancelled, s->n_accepted);
    assert_int_equal(s->kv_used, 0);
    assert_int_equal(p->n_waiting + p->n_running, 0);
    assert_int_equal(p->waiting_tokens, 0);
    /* Every token that was computed was asked for, computed again, or given up by a cancel. */
    int64_t computed = 0;
    for (int k = 0; k < s->n_keys; k++)
        computed += s->keys[k].computed;
    assert_int_equal(computed, s->n_computed + s->n_redone);
    assert_int_equal(s->used_told, s->n_computed);
    for (int c = 0; c < HG_CLASS_COUNT; c++) {
        assert_int_equal(p->classes[c].n_ring, 0);
        assert_int_equal(p->classes[c].ring_weight, 0);
        assert_int_equal(p->classes[c].waiting_tokens, 0);
    }
    hg_policy_deinit(&s->policy);
    free(s->pool);
    free(s->unused);
}

int sim_add_key(struct sim *s, struct hg_tenant limits)
{
    struct sim_key *k = &s->keys[s->n_keys];
    *k = (struct sim_key){.who = limits};
    k->who.id = 1000 + (uint64_t)s->n_keys;
    return s->n_keys++;
}

static int64_t taken_of_others(const struct sim *s, int key, enum hg_class cls)
{
    return s->taken[cls] - s->keys[key].served[cls];
}

struct sim_job *sim_push(struct sim *s, int key, enum hg_class cls, int prompt, int answer)
{
    struct sim_key *k = &s->keys[key];
    int expected = cls == HG_CLASS_BULK || answer < SIM_EXPECTED ? answer : SIM_EXPECTED;
    if (hg_policy_may_wait(&s->policy, &k->who, cls, prompt + expected, INFINITY) !=
        HG_POLICY_WAIT) {
        k->n_refused++;
        return NULL;
    }
    struct sim_job *j = &s->pool[s->unused[--s->n_unused]];
    *j = (struct sim_job){.job = {.cls = cls, .cost = prompt + expected},
                          .state = SIM_WAITING,
                          .key = key,
                          .prompt = prompt,
                          .answer = answer,
                          .arrived = s->now,
                          .others_before = taken_of_others(s, key, cls)};
    j->own_ahead = j->job.cost;
    for (struct hg_list *n = s->policy.waiting.next; n != &s->policy.waiting; n = n->next) {
        const struct hg_job *other = HG_LIST_ENTRY(n, struct hg_job, waiting);
        if (((const struct sim_job *)(const void *)other)->key == key && other->cls == cls)
            j->own_ahead += other->cost;
    }
    hg_policy_push(&s->policy, &j->job, &k->who);
    s->n_accepted++;
    k->n_waiting++;
    if (k->n_waiting > k->max_waiting_seen)
        k->max_waiting_seen = k->n_waiting;
    return j;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static int blocks_of(const struct sim_job *j)
{
    return j->parked ? 0 : (j->prompt + j->n_answer) / SIM_BLOCK + 1;
}

static void end(struct sim *s, struct sim_job *j)
{
    struct sim_key *k = &s->keys[j->key];
    assert_true(j->state == SIM_WAITING || j->state == SIM_RUNNING); /* once */
    if (j->state == SIM_RUNNING) {
        int at = 0, used = j->n_prompt + j->n_answer;
        while (s->places[at] != j)
            at++;
        s->n_places--;
        memmove(&s->places[at], &s->places[at + 1],
                (size_t)(s->n_places - at) * sizeof s->places[0]);
        s->kv_used -= blocks_of(j);
        hg_policy_end(&s->policy, &j->job, used);
        k->served[j->job.cls] += used - j->job.cost;
        s->used_told += used;
        s->taken[j->job.cls] += used - j->job.cost;
        k->n_running--;
    } else {
        hg_policy_remove(&s->policy, &j->job);
        k->n_waiting--;
    }
    j->state = SIM_ENDED;
    s->n_done += !j->cancelled;
    s->n_cancelled += j->cancelled;
    k->n_done += !j->cancelled;
    if (s->on_end)
        s->on_end(s, j);
    j->state = SIM_FREE;
    s->unused[s->n_unused++] = (int)(j - s->pool);
}

void sim_cancel(struct sim *s, struct sim_job *j)
{
    j->cancelled = true;
    end(s, j);
}

/* ---- admission (engine_admit.c) -------------------------------------------------------------- */

static int n_active(const struct sim *s)
{
    int n = 0;
    for (int i = 0; i < s->n_places; i++)
        n += !s->places[i]->parked;
    return n;
}

static void park(struct sim *s, struct sim_job *j)
{
    s->kv_used -= blocks_of(j);
    j->n_redo = j->n_prompt + j->n_answer;
    j->parked = true;
}

/* That a job is expected to take still. */
static int blocks_to_come(const struct sim_job *j)
{
    int n = j->answer - j->n_answer;
    return (j->job.cls == HG_CLASS_BULK || n < SIM_EXPECTED ? n : SIM_EXPECTED) / SIM_BLOCK + 1;
}

static bool fits(const struct sim *s, const struct sim_job *j)
{
    int need = (j->prompt + j->n_answer) / SIM_BLOCK + blocks_to_come(j);
    for (int i = 0; i < s->n_places; i++)
        if (!s->places[i]->parked)
            need += blocks_to_come(s->places[i]);
    return n_active(s) == 0 || need <= s->kv_blocks - s->kv_used;
}

static void resume(struct sim *s, struct sim_job *j)
{
    j->parked = false;
    s->kv_used += blocks_of(j);
}

static bool make_way(struct sim *s, const struct sim_job *j)
{
    struct hg_policy_place places[2 * SIM_MAX_PLACES];
    if (j->job.cls == HG_CLASS_BULK || s->rule != SIM_FAIR)
        return false;
    for (int i = 0; i < s->n_places; i++)
        places[i] = (struct hg_policy_place){s->places[i]->job.cls, s->places[i]->parked,
                                             s->places[i]->n_yields};
    int victim = hg_policy_victim(places, s->n_places, s->max_batch);
    if (victim < 0)
        return false;
    park(s, s->places[victim]);
    assert_true(++s->places[victim]->n_yields <= HG_POLICY_MAX_YIELDS);
    s->n_yields++;
    return true;
}

static bool begin(struct sim *s, struct sim_job *j)
{
    struct sim_key *k = &s->keys[j->key];
    if (n_active(s) >= s->max_batch || !fits(s, j))
        return make_way(s, j);
    assert_int_equal(j->state, SIM_WAITING);
    if (s->on_take)
        s->on_take(s, j, s->policy.classes[HG_CLASS_BULK].n_waiting > 0);
    hg_policy_take(&s->policy, &j->job);
    j->state = SIM_RUNNING;
    j->began = s->now;
    s->taken[j->job.cls] += j->job.cost;
    s->n_taken[j->job.cls]++;
    k->served[j->job.cls] += j->job.cost;
    k->n_waiting--;
    k->n_running++;
    k->wait_sum += s->now - j->arrived;
    if (k->n_running > k->max_running_seen)
        k->max_running_seen = k->n_running;
    s->kv_used += blocks_of(j);
    s->places[s->n_places++] = j;
    return true;
}

/* What the rule says; the wrong ones are here. */
static struct hg_policy_turn next(struct sim *s, const struct hg_policy_bulk *bulk)
{
    struct hg_policy_turn turn = {.cls = HG_CLASS_INTERACTIVE};
    struct hg_policy *p = &s->policy;
    if (s->rule == SIM_FIFO && bulk->parked == 0) {
        if (!hg_list_empty(&p->waiting))
            turn.job = HG_LIST_ENTRY(p->waiting.next, struct hg_job, waiting);
        return turn;
    }
    if (s->rule == SIM_PRIORITY)
        p->n_passed = 0, p->passed_tokens = INT64_MIN / 2; /* never due */
    return hg_policy_next(p, bulk);
}

static void admit(struct sim *s)
{
    for (bool more = true; more;) {
        struct sim_job *parked = NULL;
        struct hg_policy_bulk bulk = {0};
        for (int i = 0; i < s->n_places; i++) {
            struct sim_job *j = s->places[i];
            bulk.n_held += j->job.cls == HG_CLASS_BULK;
            bulk.n_running += j->job.cls == HG_CLASS_BULK && !j->parked;
            if (j->parked && j->job.cls == HG_CLASS_INTERACTIVE) {
                if (n_active(s) >= s->max_batch || !fits(s, j))
                    return;
                resume(s, j);
            }
            if (j->parked && !parked)
                parked = j;
        }
        bulk.parked = parked ? parked->answer - parked->n_answer + 1 : 0;
        struct hg_policy_turn turn = next(s, &bulk);
        if (turn.parked) {
            more = n_active(s) < s->max_batch && fits(s, parked);
            if (more) {
                resume(s, parked);
                hg_policy_resumed(&s->policy);
            }
        } else {
            more = turn.job && begin(s, job_of(turn.job));
        }
    }
}

/* ---- a step (engine_step.c) ------------------------------------------------------------------ */

static void count(struct sim *s, struct sim_job *j, int n)
{
    int again = n < j->n_redo ? n : j->n_redo;
    j->n_redo -= again;
    s->n_redone += again;
    s->n_computed += n - again;
    s->keys[j->key].computed += n;
}

/* One more token; false: no block for it, the job has given way itself. */
static bool decode(struct sim *s, int i)
{
    struct sim_job *j = s->places[i];
    while ((j->prompt + j->n_answer + 1) % SIM_BLOCK == 0 && s->kv_used >= s->kv_blocks) {
        int victim = -1;
        for (int k = s->n_places - 1; k >= i; k--)
            if (!s->places[k]->parked &&
                (victim < 0 || (j->job.cls == HG_CLASS_INTERACTIVE &&
                                s->places[victim]->job.cls == HG_CLASS_INTERACTIVE &&
                                s->places[k]->job.cls == HG_CLASS_BULK)))
                victim = k;
        park(s, s->places[victim]);
        s->n_kv_yields++;
        if (victim == i)
            return false;
    }
    s->kv_used -= blocks_of(j);
    j->n_answer++;
    s->kv_used += blocks_of(j);
    count(s, j, 1);
    if (j->first == 0) {
        j->first = s->now;
        s->keys[j->key].n_first++;
        s->keys[j->key].first_sum += (double)(s->now - j->arrived);
    }
    return true;
}

void sim_step(struct sim *s)
{
    int budget = PROMPT_CHUNK, n_prompt = 0;
    admit(s);
    s->n_steps++;
    for (int i = 0; i < s->n_places; i++) {
        struct sim_job *j = s->places[i];
        int redo = j->n_prompt == j->prompt ? j->n_redo : 0;
        if (j->parked || j->n_prompt < j->prompt || redo > 0)
            continue;
        budget = budget > SHARED_CHUNK ? SHARED_CHUNK : budget;
        decode(s, i);
    }
    for (int i = 0; i < s->n_places && budget > 0; i++) {
        struct sim_job *j = s->places[i];
        int missing = j->n_redo > 0 ? j->n_redo : j->prompt - j->n_prompt;
        if (j->parked || missing == 0)
            continue;
        int n = missing < budget ? missing : budget;
        if (j->n_redo == 0)
            j->n_prompt += n;
        count(s, j, n);
        budget -= n;
        n_prompt += n;
    }
    s->now += TICKS_PER_STEP + n_prompt / TOKENS_PER_TICK;
    for (int i = s->n_places - 1; i >= 0; i--)
        if (s->places[i]->n_answer >= s->places[i]->answer)
            end(s, s->places[i]);
}

void sim_finish(struct sim *s)
{
    int64_t until = s->n_steps + 10000000;
    while (s->n_places > 0 || s->policy.n_waiting > 0) {
        assert_true(s->n_steps < until);
        sim_step(s);
    }
}
