/* tests/server/test_policy.c - single decisions of the policy; test_policy_sim.c has the long run.
 */
#include "server/engine/policy.h"

#include "tests/test.h"

enum { MAX_QUEUE = 32 };

struct bench {
    struct hg_policy p;
    struct hg_job jobs[MAX_QUEUE * 2];
    int n;
};

static void open_bench(struct bench *b, int64_t max_tokens)
{
    struct hg_error err = {0};
    struct hg_policy_options o = {MAX_QUEUE, max_tokens, 16};
    *b = (struct bench){0};
    HG_TEST_OK(hg_policy_init(&b->p, &o, &err), err);
}

static struct hg_tenant tenant(uint64_t id, int weight)
{
    return (struct hg_tenant){.id = id, .weight = weight};
}

static struct hg_job *push(struct bench *b, struct hg_tenant who, enum hg_class cls, int64_t cost)
{
    struct hg_job *job = &b->jobs[b->n++];
    *job = (struct hg_job){.cls = cls, .cost = cost};
    hg_policy_push(&b->p, job, &who);
    return job;
}

static struct hg_policy_turn next(struct bench *b, int n_running, int n_held, int64_t parked)
{
    struct hg_policy_bulk bulk = {n_running, n_held, parked};
    return hg_policy_next(&b->p, &bulk);
}

static struct hg_job *take(struct bench *b)
{
    struct hg_policy_turn turn = next(b, 0, 0, 0);
    if (turn.job)
        hg_policy_take(&b->p, turn.job);
    return turn.job;
}

static int index_of(const struct bench *b, const struct hg_job *job)
{
    return (int)(job - b->jobs);
}

static enum hg_policy_verdict may(struct bench *b, struct hg_tenant who, int64_t cost)
{
    return hg_policy_may_wait(&b->p, &who, HG_CLASS_INTERACTIVE, cost, 1e9);
}

static void one_tenant_is_served_in_order(void **state)
{
    (void)state;
    struct bench b;
    static const int64_t costs[] = {10, 5000, 1, 300, 300};
    open_bench(&b, 0);
    for (int i = 0; i < 5; i++)
        push(&b, tenant(0, 0), HG_CLASS_INTERACTIVE, costs[i]);
    for (int i = 0; i < 5; i++)
        assert_int_equal(index_of(&b, take(&b)), i);
    assert_null(take(&b));
    hg_policy_deinit(&b.p);
}

static void the_next_one_stays_until_it_is_taken(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 2000);
    push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 2500);
    struct hg_job *first = next(&b, 0, 0, 0).job;
    push(&b, tenant(3, 1), HG_CLASS_INTERACTIVE, 1);
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(next(&b, 0, 0, 0).job, first);
    hg_policy_deinit(&b.p);
}

/* Eight of a before one of b: b does not wait for all of them. */
static void a_newcomer_waits_one_round(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    for (int i = 0; i < 8; i++)
        push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 128);
    assert_int_equal(index_of(&b, take(&b)), 0);
    struct hg_job *late = push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 128);
    const struct hg_job *second = take(&b), *third = take(&b);
    assert_true(second == late || third == late);
    hg_policy_deinit(&b.p);
}

static void weights_are_shares_of_the_tokens(void **state)
{
    (void)state;
    struct bench b;
    int64_t got[3] = {0};
    open_bench(&b, 0);
    for (int i = 0; i < 24; i++) { /* the second one's are smaller and more */
        push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 400);
        push(&b, tenant(2, 3), HG_CLASS_INTERACTIVE, 400);
    }
    for (int i = 0; i < 24; i++) {
        struct hg_job *job = take(&b);
        got[1 + index_of(&b, job) % 2] += job->cost;
    }
    assert_in_range(got[2] / 400, 17, 19); /* 18 of 24 */
    hg_policy_deinit(&b.p);
}

static void what_was_used_is_charged_in_the_end(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    struct hg_job *liar = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 100);
    for (int i = 0; i < 2; i++)
        push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 100);
    assert_ptr_equal(take(&b), liar);
    for (int i = 0; i < 12; i++)
        push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 100);
    hg_policy_end(&b.p, liar, 1100);
    int n_before = 0; /* of the other tenant's, until the debt of 1000 is worked off */
    while (index_of(&b, take(&b)) >= 3)
        n_before++;
    assert_in_range(n_before, 7, 12);
    hg_policy_deinit(&b.p);
}

/* Jobs that are taken before this one. */
static int takes_before(struct bench *b, const struct hg_job *awaited)
{
    int n = 0;
    while (take(b) != awaited)
        n++;
    return n;
}

static void debt_stays_while_others_work(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    struct hg_job *liar = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10);
    take(&b);
    for (int i = 0; i < 20; i++)
        push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 100);
    hg_policy_end(&b.p, liar, 1010); /* nothing of it waits */
    assert_in_range(takes_before(&b, push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10)), 9, 12);
    hg_policy_deinit(&b.p);
}

static void credit_ends_with_the_backlog(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    struct hg_job *big = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 1000);
    struct hg_job *small = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10);
    assert_ptr_equal(take(&b), big);
    hg_policy_end(&b.p, big, 0); /* 1000 tokens of credit */
    assert_ptr_equal(take(&b), small);
    struct hg_job *other = push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 100);
    for (int i = 0; i < 9; i++)
        push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 100);
    assert_in_range(takes_before(&b, other), 0, 1);
    hg_policy_deinit(&b.p);
}

static void the_latest_weight_holds(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10);
    push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 10);
    push(&b, tenant(1, 5), HG_CLASS_INTERACTIVE, 10);
    assert_int_equal(b.p.classes[HG_CLASS_INTERACTIVE].ring_weight, 6);
    for (int i = 0; i < 3; i++)
        take(&b);
    assert_int_equal(b.p.classes[HG_CLASS_INTERACTIVE].ring_weight, 0);
    hg_policy_deinit(&b.p);
}

static void debt_is_forgotten_when_all_work_is_done(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    struct hg_job *job = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10);
    take(&b);
    hg_policy_end(&b.p, job, 100000);
    struct hg_job *again = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 10);
    push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 10);
    assert_ptr_equal(take(&b), again);
    hg_policy_deinit(&b.p);
}

static void bulk_gets_every_fifth_turn(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    for (int i = 0; i < 12; i++)
        push(&b, tenant(0, 0), HG_CLASS_INTERACTIVE, 100);
    for (int i = 0; i < 3; i++)
        push(&b, tenant(0, 0), HG_CLASS_BULK, 1000);
    for (int i = 0; i < 15; i++)
        assert_int_equal(take(&b)->cls, i % 5 == 4 ? HG_CLASS_BULK : HG_CLASS_INTERACTIVE);
    hg_policy_deinit(&b.p);
}

/* Long questions: bulk's turn comes earlier, at a fifth of the tokens. */
static void bulk_gets_a_fifth_of_the_tokens(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    for (int i = 0; i < 3; i++)
        push(&b, tenant(0, 0), HG_CLASS_INTERACTIVE, 4000);
    push(&b, tenant(0, 0), HG_CLASS_BULK, 1000);
    assert_int_equal(take(&b)->cls, HG_CLASS_INTERACTIVE);
    assert_int_equal(take(&b)->cls, HG_CLASS_BULK);
    assert_int_equal(take(&b)->cls, HG_CLASS_INTERACTIVE);
    hg_policy_deinit(&b.p);
}

static void bulk_begins_and_goes_on_by_its_places(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    struct hg_job *bulk = push(&b, tenant(0, 0), HG_CLASS_BULK, 100);
    assert_null(next(&b, 12, 12, 0).job); /* three quarters of 16 places */
    assert_null(next(&b, 9, 12, 0).job);
    assert_ptr_equal(next(&b, 11, 11, 0).job, bulk);
    assert_true(next(&b, 3, 4, 50).parked); /* it goes on before another begins */
    assert_null(next(&b, 3, 4, 50).job);
    for (int i = 0; i < 5; i++)
        push(&b, tenant(0, 0), HG_CLASS_INTERACTIVE, 10);
    for (int i = 0; i < 4; i++)
        hg_policy_take(&b.p, next(&b, 0, 0, 100).job);
    assert_true(next(&b, 3, 12, 100).parked);  /* a fifth turn */
    assert_false(next(&b, 4, 12, 100).parked); /* but a quarter of the places has it already */
    assert_ptr_equal(next(&b, 3, 3, 0).job, bulk);
    hg_policy_resumed(&b.p);
    assert_false(next(&b, 3, 12, 100).parked);
    hg_policy_deinit(&b.p);
}

static void a_tenant_may_run_only_so_many(void **state)
{
    (void)state;
    struct bench b;
    struct hg_tenant few = {.id = 1, .weight = 1, .max_running = 2};
    open_bench(&b, 0);
    for (int i = 0; i < 4; i++)
        push(&b, few, i % 2 ? HG_CLASS_BULK : HG_CLASS_INTERACTIVE, 10);
    struct hg_job *a = take(&b), *c = take(&b);
    assert_non_null(a);
    assert_non_null(c);
    assert_null(take(&b));
    struct hg_job *other = push(&b, tenant(2, 1), HG_CLASS_INTERACTIVE, 10);
    assert_ptr_equal(take(&b), other);
    assert_null(take(&b));
    hg_policy_end(&b.p, a, 10);
    assert_non_null(take(&b));
    assert_null(take(&b));
    hg_policy_end(&b.p, c, 10);
    assert_non_null(take(&b));
    hg_policy_deinit(&b.p);
}

static void a_tenant_never_holds_more_than_it_leaves(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    for (int i = 0; i < MAX_QUEUE / 2; i++) {
        assert_int_equal(may(&b, tenant(1, 1), 1), HG_POLICY_WAIT);
        push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 1);
    }
    assert_int_equal(may(&b, tenant(1, 1), 1), HG_POLICY_TENANT_FULL);
    assert_int_equal(may(&b, tenant(2, 1), 1), HG_POLICY_WAIT);
    for (uint64_t id = 2; may(&b, tenant(id, 1), 1) == HG_POLICY_WAIT; id++)
        push(&b, tenant(id, 1), HG_CLASS_BULK, 1);
    assert_int_equal(b.p.n_waiting, MAX_QUEUE);
    assert_int_equal(may(&b, tenant(99, 1), 1), HG_POLICY_FULL);
    assert_int_equal(may(&b, tenant(1, 1), 1), HG_POLICY_TENANT_FULL);
    assert_int_equal(may(&b, tenant(0, 0), 1), HG_POLICY_FULL);
    hg_policy_deinit(&b.p);
}

static void tokens_are_bounded_like_requests(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1000);
    assert_int_equal(may(&b, tenant(1, 1), 5000), HG_POLICY_WAIT); /* alone: else it never could */
    push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 400);
    assert_int_equal(may(&b, tenant(1, 1), 200), HG_POLICY_WAIT);
    assert_int_equal(may(&b, tenant(1, 1), 201), HG_POLICY_TENANT_FULL);
    assert_int_equal(may(&b, tenant(2, 1), 600), HG_POLICY_WAIT);
    assert_int_equal(may(&b, tenant(2, 1), 601), HG_POLICY_FULL);
    hg_policy_deinit(&b.p);
}

static void removed_jobs_leave_no_trace(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1000);
    struct hg_job *a = push(&b, tenant(1, 1), HG_CLASS_INTERACTIVE, 300);
    struct hg_job *c = push(&b, tenant(1, 1), HG_CLASS_BULK, 300);
    hg_policy_remove(&b.p, a);
    assert_null(a->flow);
    assert_ptr_equal(take(&b), c);
    hg_policy_end(&b.p, c, 300);
    assert_int_equal(b.p.n_waiting + b.p.n_running, 0);
    assert_int_equal(b.p.waiting_tokens, 0);
    assert_int_equal(b.p.classes[0].ring_weight + b.p.classes[1].ring_weight, 0);
    hg_policy_deinit(&b.p);
}

/* More tenants come by than the table holds; those that come again are found or made anew. */
static void tenants_beyond_the_table_push_out_idle_ones(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 0);
    for (uint64_t id = 1; id < 5000; id++) {
        b.n = 0;
        struct hg_job *job = push(&b, tenant(id % 1500 + 1, 1), HG_CLASS_INTERACTIVE, 10);
        assert_ptr_equal(take(&b), job);
        hg_policy_end(&b.p, job, 10);
    }
    hg_policy_deinit(&b.p);
}

static void waits_follow_the_measured_speed(void **state)
{
    (void)state;
    struct bench b;
    struct hg_tenant a = tenant(1, 1), c = tenant(2, 1);
    open_bench(&b, 0);
    assert_true(hg_policy_wait_s(&b.p, &a, HG_CLASS_INTERACTIVE) == 0);
    for (int i = 0; i < 100; i++)
        hg_policy_worked(&b.p, 50, 0.5); /* 100 tokens a second */
    assert_true(hg_policy_rate(&b.p) > 99 && hg_policy_rate(&b.p) < 101);
    for (int i = 0; i < 10; i++)
        push(&b, a, HG_CLASS_INTERACTIVE, 1000);
    /* All that waits is its own; another key waits for a round of quanta only. */
    assert_true(hg_policy_wait_s(&b.p, &a, HG_CLASS_INTERACTIVE) > 99);
    assert_true(hg_policy_wait_s(&b.p, &c, HG_CLASS_INTERACTIVE) < 10);
    assert_true(hg_policy_retry_s(&b.p, &a, HG_CLASS_INTERACTIVE) > 20);
    assert_int_equal(hg_policy_may_wait(&b.p, &a, HG_CLASS_INTERACTIVE, 10, 60),
                     HG_POLICY_TOO_LATE);
    assert_int_equal(hg_policy_may_wait(&b.p, &c, HG_CLASS_INTERACTIVE, 10, 60), HG_POLICY_WAIT);
    for (int i = 0; i < 100; i++)
        hg_policy_worked(&b.p, 500, 0.5); /* it has become faster */
    assert_true(hg_policy_rate(&b.p) > 900);
    hg_policy_deinit(&b.p);
}

static void the_youngest_picture_gives_way_but_a_quarter_goes_on(void **state)
{
    (void)state;
    const enum hg_class I = HG_CLASS_INTERACTIVE, B = HG_CLASS_BULK;
    struct hg_policy_place places[] = {{B, false, 0}, {I, false, 0}, {B, false, 0},
                                       {B, true, 0},  {B, false, 2}, {I, false, 0}};
    assert_int_equal(hg_policy_victim(places, 6, 8), 2);   /* 3 run, 2 have to */
    assert_int_equal(hg_policy_victim(places, 6, 12), -1); /* 3 have to */
    assert_int_equal(hg_policy_victim(places, 2, 4), -1);
    assert_int_equal(hg_policy_victim(places, 0, 4), -1);
    assert_int_equal(hg_policy_bulk_most(1), 1);
    assert_int_equal(hg_policy_bulk_most(2), 1);
    assert_int_equal(hg_policy_bulk_most(16), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_tenant_is_served_in_order),
        cmocka_unit_test(the_next_one_stays_until_it_is_taken),
        cmocka_unit_test(a_newcomer_waits_one_round),
        cmocka_unit_test(weights_are_shares_of_the_tokens),
        cmocka_unit_test(what_was_used_is_charged_in_the_end),
        cmocka_unit_test(debt_stays_while_others_work),
        cmocka_unit_test(credit_ends_with_the_backlog),
        cmocka_unit_test(the_latest_weight_holds),
        cmocka_unit_test(debt_is_forgotten_when_all_work_is_done),
        cmocka_unit_test(bulk_gets_every_fifth_turn),
        cmocka_unit_test(bulk_gets_a_fifth_of_the_tokens),
        cmocka_unit_test(bulk_begins_and_goes_on_by_its_places),
        cmocka_unit_test(a_tenant_may_run_only_so_many),
        cmocka_unit_test(a_tenant_never_holds_more_than_it_leaves),
        cmocka_unit_test(tokens_are_bounded_like_requests),
        cmocka_unit_test(removed_jobs_leave_no_trace),
        cmocka_unit_test(tenants_beyond_the_table_push_out_idle_ones),
        cmocka_unit_test(waits_follow_the_measured_speed),
        cmocka_unit_test(the_youngest_picture_gives_way_but_a_quarter_goes_on),
    };
    return cmocka_run_group_tests_name("server/engine/policy", tests, NULL, NULL);
}
