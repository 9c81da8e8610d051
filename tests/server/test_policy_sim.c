/* tests/server/test_policy_sim.c - promises of the policy over long runs in virtual time: no
 * starvation, weighted shares, the floor of bulk, short waits for questions, every request once.
 * Each promise is broken by a rule that is wrong on purpose (policy_sim.h), or the test is worth
 * nothing. */
#include "tests/server/policy_sim.h"

#include <math.h>

#include "tests/test.h"

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- random arrivals ------------------------------------------------------------------------- */

enum { N_RANDOM_KEYS = 24, RANDOM_STEPS = 1000000, MAX_COST = 400 + SIM_EXPECTED };

struct random_run {
    int64_t slack; /* least of bound - others served, in tokens */
    int64_t n_checked, longest[HG_CLASS_COUNT], n_ended[HG_CLASS_COUNT];
    int most_answer; /* of questions; over SIM_EXPECTED: they use more than is expected */
};

/* Between arrival and its turn a job waits for the rounds that its key's work takes, in which each
 * other key takes its quantum and at most what one job exceeds it by; what runs when its key is
 * cancelled or ends short is given back, once per place. */
static void check_wait(struct sim *s, struct sim_job *j, bool bulk_waited)
{
    (void)bulk_waited;
    struct random_run *run = s->ctx;
    const struct sim_key *k = &s->keys[j->key];
    enum hg_class cls = j->job.cls;
    int64_t weights = 0, own = HG_POLICY_QUANTUM * (int64_t)k->who.weight;
    for (int i = 0; i < s->n_keys; i++)
        weights += i == j->key ? 0 : s->keys[i].who.weight;
    int64_t rounds = (j->own_ahead + own - 1) / own + 1;
    int64_t bound =
        rounds * HG_POLICY_QUANTUM * weights + (int64_t)(s->n_keys + s->max_batch) * MAX_COST;
    int64_t others = s->taken[cls] - k->served[cls] - j->others_before;
    if (k->who.max_running == 0) {
        run->slack = run->n_checked++ ? (bound - others < run->slack ? bound - others : run->slack)
                                      : bound - others;
        run->longest[cls] = max64(run->longest[cls], s->now - j->arrived);
    }
}

static void count_end(struct sim *s, struct sim_job *j)
{
    struct random_run *run = s->ctx;
    run->n_ended[j->job.cls]++;
    assert_true(j->cancelled || (j->n_answer == j->answer && j->n_prompt == j->prompt));
}

/* Half of all requests are of the first three keys. */
static int any_key(struct sim *s)
{
    return sim_uniform(s, 0, 1) ? sim_uniform(s, 0, 2) : sim_uniform(s, 0, s->n_keys - 1);
}

/* The load goes up and down, from a fifth to three times of what can be served. */
static void arrive(struct sim *s)
{
    static const int per_mille[] = {80, 400, 1000, 300, 60, 600};
    const struct random_run *run = s->ctx;
    int load = per_mille[s->n_steps / 20000 % 6];
    if (sim_uniform(s, 0, 999) < load)
        sim_push(s, any_key(s), HG_CLASS_INTERACTIVE, sim_uniform(s, 10, 400),
                 sim_geometric(s, run->most_answer / 2, run->most_answer));
    if (sim_uniform(s, 0, 999) < load / 6)
        sim_push(s, any_key(s), HG_CLASS_BULK, sim_uniform(s, 10, 60), sim_uniform(s, 32, 256));
    if (s->policy.n_waiting > 0 && sim_uniform(s, 0, 999) < 3) { /* the youngest leaves */
        struct hg_list *node = s->policy.waiting.prev;
        sim_cancel(s, (struct sim_job *)(void *)HG_LIST_ENTRY(node, struct hg_job, waiting));
    }
    if (s->n_places > 0 && sim_uniform(s, 0, 999) < 3)
        sim_cancel(s, s->places[sim_uniform(s, 0, s->n_places - 1)]);
}

static struct random_run run_random(enum sim_rule rule, int n_steps, int kv_blocks, int most_answer)
{
    struct sim s;
    struct random_run run = {.most_answer = most_answer};
    sim_open(&s, rule, 16, kv_blocks, 256);
    s.on_take = check_wait;
    s.on_end = count_end;
    s.ctx = &run;
    for (int k = 0; k < N_RANDOM_KEYS; k++)
        sim_add_key(&s, (struct hg_tenant){.weight = 1 + k % 4,
                                           .max_queued = k % 5 == 4 ? 3 : 0,
                                           .max_running = k % 7 == 6 ? 1 : 0});
    for (int i = 0; i < n_steps; i++) {
        arrive(&s);
        sim_step(&s);
    }
    sim_finish(&s);
    int64_t n_refused = 0;
    for (int k = 0; k < s.n_keys && rule == SIM_FAIR; k++) {
        const struct sim_key *key = &s.keys[k];
        n_refused += key->n_refused;
        assert_true(key->who.max_running == 0 || key->max_running_seen == key->who.max_running);
        assert_true(key->who.max_queued == 0 || key->max_waiting_seen == key->who.max_queued);
    }
    assert_int_equal(run.n_ended[0] + run.n_ended[1], s.n_accepted);
    if (rule == SIM_FAIR)
        printf(
            "# %lld steps: %lld accepted, %lld refused, %lld cancelled, %lld gave way to "
            "questions, %lld for blocks, %.1f %% computed twice; longest wait %lld / %lld ticks\n",
            (long long)s.n_steps, (long long)s.n_accepted, (long long)n_refused,
            (long long)s.n_cancelled, (long long)s.n_yields, (long long)s.n_kv_yields,
            100.0 * (double)s.n_redone / (double)s.n_computed, (long long)run.longest[0],
            (long long)run.longest[1]);
    sim_close(&s);
    return run;
}

static void random_arrivals_end_once_and_wait_no_longer_than_promised(void **state)
{
    (void)state;
    struct random_run run = run_random(SIM_FAIR, RANDOM_STEPS, 1 << 20, SIM_EXPECTED),
                      fifo = run_random(SIM_FIFO, RANDOM_STEPS / 10, 1 << 20, SIM_EXPECTED);
    printf("# closest to the bound of a wait: %lld tokens below it, %lld waits; first come first "
           "served: %lld below\n",
           (long long)run.slack, (long long)run.n_checked, (long long)fifo.slack);
    assert_true(run.n_checked > 20000);
    assert_true(run.slack >= 0);
    assert_true(fifo.slack < 0); /* the planted bug is seen */
    assert_true(run.n_ended[0] > 10000 && run.n_ended[1] > 3000);
}

static void a_small_cache_loses_nothing(void **state)
{
    (void)state;
    struct random_run run = run_random(SIM_FAIR, RANDOM_STEPS / 10, 60, 300);
    assert_true(run.n_ended[0] + run.n_ended[1] > 1000);
}

/* ---- shares ---------------------------------------------------------------------------------- */

enum { N_SHARE_KEYS = 10, SHARE_STEPS = 200000, SHARE_MAX_ANSWER = 300, SHARE_MAX_PROMPT = 400 };

/* The largest difference, over all windows and pairs of keys, of what they got by weight. */
struct shares {
    double low[N_SHARE_KEYS][N_SHARE_KEYS], high[N_SHARE_KEYS][N_SHARE_KEYS];
    double widest, bound; /* widest / bound of the worst pair */
};

static void watch_shares(const struct sim *s, struct shares *w)
{
    for (int a = 0; a < s->n_keys; a++)
        for (int b = 0; b < a; b++) {
            const struct sim_key *x = &s->keys[a], *y = &s->keys[b];
            double d = (double)x->served[0] / x->who.weight - (double)y->served[0] / y->who.weight;
            w->low[a][b] = fmin(w->low[a][b], d);
            w->high[a][b] = fmax(w->high[a][b], d);
        }
}

/* A key is off its rounds by a quantum, a job it cannot afford yet, and what its running jobs use
 * beyond what was expected of them. */
static double off_by(const struct sim *s, const struct sim_key *k)
{
    double over = (SHARE_MAX_ANSWER - SIM_EXPECTED) * fmin(k->max_running_seen, s->max_batch);
    return HG_POLICY_QUANTUM + (SHARE_MAX_PROMPT + SHARE_MAX_ANSWER + over) / k->who.weight;
}

static struct shares run_shares(enum sim_rule rule)
{
    struct sim s;
    struct shares w = {0};
    sim_open(&s, rule, 8, 1 << 20, 256);
    for (int k = 0; k < N_SHARE_KEYS; k++)
        sim_add_key(&s, (struct hg_tenant){.weight = 1 + k % 5});
    for (int i = 0; i < SHARE_STEPS; i++) {
        for (int k = 0; k < s.n_keys; k++)
            while (s.keys[k].n_waiting < 3 + k % 3)
                sim_push(&s, k, HG_CLASS_INTERACTIVE,
                         sim_uniform(&s, 10, k % 2 ? 60 : SHARE_MAX_PROMPT),
                         sim_geometric(&s, 60, SHARE_MAX_ANSWER));
        sim_step(&s);
        watch_shares(&s, &w);
    }
    for (int a = 0; a < s.n_keys; a++)
        for (int b = 0; b < a; b++) {
            double width = w.high[a][b] - w.low[a][b];
            double bound = off_by(&s, &s.keys[a]) + off_by(&s, &s.keys[b]);
            if (w.bound == 0 || width / bound > w.widest / w.bound) {
                w.widest = width;
                w.bound = bound;
            }
        }
    int64_t all = 0, weights = 0;
    for (int k = 0; k < s.n_keys; k++) {
        all += s.keys[k].served[0];
        weights += s.keys[k].who.weight;
    }
    for (int k = 0; k < s.n_keys && rule == SIM_FAIR; k++) {
        double share = (double)s.keys[k].served[0] / (double)all,
               fair = (double)s.keys[k].who.weight / (double)weights;
        assert_true(share > 0.99 * fair && share < 1.01 * fair); /* exact to 1 % */
    }
    sim_finish(&s);
    sim_close(&s);
    return w;
}

static void backlogged_keys_get_their_weight_in_every_window(void **state)
{
    (void)state;
    struct shares fair = run_shares(SIM_FAIR), fifo = run_shares(SIM_FIFO);
    printf("# widest difference in a window: %.0f tokens per weight, bound %.0f; first come first "
           "served: %.0f\n",
           fair.widest, fair.bound, fifo.widest);
    assert_true(fair.widest <= fair.bound);
    assert_true(fifo.widest > 2 * fifo.bound); /* the planted bug is seen */
}

/* ---- one greedy key -------------------------------------------------------------------------- */

struct greedy {
    double least_share; /* of a small key, of its fair share */
    double ttft_ratio;  /* slowest to fastest small key */
    double greedy_share;
};

/* 100 streams of one key against n_streams of each of nine, all started again when they end. With
 * few short ones a small key has hardly a line, and must have its turns all the same. */
static struct greedy run_greedy(enum sim_rule rule, int max_batch, int n_streams, int longest)
{
    struct sim s;
    struct greedy g = {.least_share = INFINITY};
    double fastest = INFINITY, slowest = 0;
    int64_t all = 0;
    sim_open(&s, rule, max_batch, 1 << 20, 256);
    for (int k = 0; k < 10; k++)
        sim_add_key(&s, (struct hg_tenant){.weight = 1});
    for (int i = 0; i < SHARE_STEPS; i++) {
        for (int k = 0; k < 10; k++)
            for (int n = k == 0 ? 100 : n_streams; s.keys[k].n_waiting + s.keys[k].n_running < n;)
                if (!sim_push(&s, k, HG_CLASS_INTERACTIVE, sim_uniform(&s, longest / 10, longest),
                              sim_geometric(&s, longest / 5, longest)))
                    break;
        sim_step(&s);
    }
    for (int k = 0; k < 10; k++)
        all += s.keys[k].computed;
    for (int k = 1; k < 10; k++) {
        double ttft = s.keys[k].first_sum / (double)s.keys[k].n_first;
        g.least_share = fmin(g.least_share, (double)s.keys[k].computed / ((double)all / 10));
        fastest = fmin(fastest, ttft);
        slowest = fmax(slowest, ttft);
    }
    g.ttft_ratio = slowest / fastest;
    g.greedy_share = (double)s.keys[0].computed / (double)all;
    sim_finish(&s);
    sim_close(&s);
    return g;
}

/* P-22 */
static void a_greedy_key_takes_nothing_from_nine_small_ones(void **state)
{
    (void)state;
    struct greedy fair = run_greedy(SIM_FAIR, 16, 6, 200), few = run_greedy(SIM_FAIR, 4, 3, 40),
                  fifo = run_greedy(SIM_FIFO, 16, 6, 200);
    printf("# small keys: at least %.2f of their fair share, slowest / fastest first token %.2f; "
           "greedy key %.0f %%; few short requests: %.2f, %.2f, %.0f %%; first come first served: "
           "%.2f, %.0f %%\n",
           fair.least_share, fair.ttft_ratio, 100 * fair.greedy_share, few.least_share,
           few.ttft_ratio, 100 * few.greedy_share, fifo.least_share, 100 * fifo.greedy_share);
    assert_true(fair.least_share >= 0.8 && few.least_share >= 0.8);
    assert_true(fair.ttft_ratio <= 3 && few.ttft_ratio <= 3);
    assert_true(fair.greedy_share < 0.12 && few.greedy_share < 0.12);
    assert_true(fifo.least_share < 0.8); /* the planted bug is seen */
}

/* ---- two classes ----------------------------------------------------------------------------- */

struct classes {
    double ttft, ttft_p99; /* of questions, in ticks */
    double bulk_share;     /* of the places, over time */
    int most_passed;       /* questions between two pictures while these have less than they keep */
    int64_t n_bulk;
    double redone;
};

enum { MAX_TTFTS = 200000 };

struct watch {
    int n_passed, most_passed, n_ttfts;
    double *ttfts;
};

static int n_bulk_running(const struct sim *s)
{
    int n = 0;
    for (int i = 0; i < s->n_places; i++)
        n += s->places[i]->job.cls == HG_CLASS_BULK && !s->places[i]->parked;
    return n;
}

static void watch_turns(struct sim *s, struct sim_job *j, bool bulk_waited)
{
    struct watch *w = s->ctx;
    bool could = bulk_waited && n_bulk_running(s) < hg_policy_bulk_kept(s->max_batch);
    w->n_passed = j->job.cls == HG_CLASS_BULK || !could ? 0 : w->n_passed + 1;
    w->most_passed = w->n_passed > w->most_passed ? w->n_passed : w->most_passed;
}

static void note_ttft(struct sim *s, struct sim_job *j)
{
    struct watch *w = s->ctx;
    if (j->job.cls == HG_CLASS_INTERACTIVE && w->n_ttfts < MAX_TTFTS)
        w->ttfts[w->n_ttfts++] = (double)(j->first - j->arrived);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* per_mille: questions a step, 1000 and above: always some waiting. bulk: pictures that wait. */
static struct classes run_classes(enum sim_rule rule, int per_mille, int bulk)
{
    struct sim s;
    struct watch w = {.ttfts = calloc(MAX_TTFTS, sizeof(double))};
    struct classes c = {0};
    assert_non_null(w.ttfts);
    sim_open(&s, rule, 16, 400, 256);
    s.on_take = watch_turns;
    s.on_end = note_ttft;
    s.ctx = &w;
    for (int k = 0; k < 4; k++)
        sim_add_key(&s, (struct hg_tenant){.weight = 1});
    for (int i = 0; i < SHARE_STEPS; i++) {
        for (int k = 0; k < 2 && s.policy.classes[HG_CLASS_BULK].n_waiting < (size_t)bulk; k++)
            sim_push(&s, k, HG_CLASS_BULK, 30, 256);
        while (per_mille >= 1000 && s.policy.classes[HG_CLASS_INTERACTIVE].n_waiting < 20)
            sim_push(&s, sim_uniform(&s, 0, 3), HG_CLASS_INTERACTIVE, 100,
                     sim_geometric(&s, 30, 90));
        if (sim_uniform(&s, 0, 999) < per_mille)
            sim_push(&s, sim_uniform(&s, 2, 3), HG_CLASS_INTERACTIVE, 100,
                     sim_geometric(&s, 30, 90));
        sim_step(&s);
        c.bulk_share += (double)n_bulk_running(&s) / s.max_batch / SHARE_STEPS;
    }
    c.redone = (double)s.n_redone / (double)s.n_computed;
    c.n_bulk = s.n_taken[HG_CLASS_BULK];
    sim_finish(&s);
    sim_close(&s);
    qsort(w.ttfts, (size_t)w.n_ttfts, sizeof w.ttfts[0], compare);
    for (int i = 0; i < w.n_ttfts; i++)
        c.ttft += w.ttfts[i] / w.n_ttfts;
    c.ttft_p99 = w.n_ttfts ? w.ttfts[w.n_ttfts * 99 / 100] : 0;
    c.most_passed = w.most_passed;
    free(w.ttfts);
    return c;
}

/* A few questions while pictures queue up for every place and every block. */
static void questions_stay_quick_under_a_load_of_pictures(void **state)
{
    (void)state;
    struct classes idle = run_classes(SIM_FAIR, 60, 0), fair = run_classes(SIM_FAIR, 60, 40),
                   fifo = run_classes(SIM_FIFO, 60, 40), stay = run_classes(SIM_NO_YIELD, 60, 40);
    printf(
        "# ticks to the first token, mean / p99: %.0f / %.0f alone, %.0f / %.0f beside pictures "
        "(%.1f %% computed twice); if nobody gave way %.0f / %.0f; first come first served %.0f / "
        "%.0f\n",
        idle.ttft, idle.ttft_p99, fair.ttft, fair.ttft_p99, 100 * fair.redone, stay.ttft,
        stay.ttft_p99, fifo.ttft, fifo.ttft_p99);
    assert_true(fair.ttft <=
                2 * idle.ttft + 12); /* twice, and a step with a full chunk of prompts */
    assert_true(fair.n_bulk > 500);
    assert_true(fifo.ttft > 4 * idle.ttft); /* the planted bug is seen */
}

/* More questions than can be answered, and pictures: these keep a quarter of the places. */
static void pictures_keep_their_floor_under_a_load_of_questions(void **state)
{
    (void)state;
    struct classes fair = run_classes(SIM_FAIR, 1000, 8),
                   never = run_classes(SIM_PRIORITY, 1000, 8);
    printf(
        "# bulk: %.1f %% of the places, at most %d questions between two; questions always first: "
        "%.1f %%\n",
        100 * fair.bulk_share, fair.most_passed, 100 * never.bulk_share);
    assert_true(fair.bulk_share >= 0.2);
    assert_true(fair.most_passed <= HG_POLICY_TURNS);
    assert_true(never.bulk_share < 0.1); /* the planted bug is seen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_arrivals_end_once_and_wait_no_longer_than_promised),
        cmocka_unit_test(a_small_cache_loses_nothing),
        cmocka_unit_test(backlogged_keys_get_their_weight_in_every_window),
        cmocka_unit_test(a_greedy_key_takes_nothing_from_nine_small_ones),
        cmocka_unit_test(questions_stay_quick_under_a_load_of_pictures),
        cmocka_unit_test(pictures_keep_their_floor_under_a_load_of_questions),
    };
    return cmocka_run_group_tests_name("server/policy_sim", tests, NULL, NULL);
}
