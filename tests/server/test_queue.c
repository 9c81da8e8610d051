/* tests/server/test_queue.c - the bounded queue: order, refusals and their words, sweep, close,
 * threads. Who goes first is the policy's affair (test_policy.c). */
#include "server/engine/queue.h"

#include <math.h>

#include "common/clock.h"
#include "tests/test.h"

struct item {
    struct hg_job job;
    int value;
};

static const struct hg_tenant nobody = {0};

static struct item *item_of(struct hg_job *job)
{
    return (struct item *)(void *)job; /* the first member */
}

static bool is_odd(const struct hg_job *job, void *ctx)
{
    (void)ctx;
    return ((const struct item *)(const void *)job)->value % 2 == 1;
}

static void open_queue(struct hg_queue *q, size_t max_queue, int64_t max_tokens)
{
    struct hg_error err = {0};
    struct hg_policy_options o = {max_queue, max_tokens, 8};
    HG_TEST_OK(hg_queue_init(q, &o, &err), err);
}

static enum hg_status push(struct hg_queue *q, struct item *it, int value)
{
    *it = (struct item){.job = {.cls = HG_CLASS_BULK, .cost = 10}, .value = value};
    return hg_queue_push(q, &it->job, &nobody, INFINITY, NULL, NULL);
}

/* Take and end the next one. */
static struct item *pop(struct hg_queue *q)
{
    struct hg_policy_bulk none = {0};
    struct hg_job *job = hg_queue_next(q, &none).job;
    if (!job)
        return NULL;
    hg_queue_take(q, job);
    hg_queue_end(q, job, job->cost);
    return item_of(job);
}

static void queue_pops_in_the_order_of_pushes(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[3];
    open_queue(&q, 3, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(push(&q, &items[i], i), HG_STATUS_OK);
    assert_int_equal(hg_queue_depth(&q), 3);
    assert_int_equal(hg_queue_tokens(&q), 30);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pop(&q)->value, i);
    assert_null(pop(&q));
    assert_int_equal(hg_queue_tokens(&q), 0);
    hg_queue_deinit(&q);
}

static void queue_push_fails_when_full(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[3];
    struct hg_error err = {0};
    int depth = 0;
    open_queue(&q, 2, 0);
    assert_int_equal(push(&q, &items[0], 0), HG_STATUS_OK);
    items[1].job = (struct hg_job){.cls = HG_CLASS_BULK, .cost = 10};
    HG_TEST_OK(hg_queue_push(&q, &items[1].job, &nobody, INFINITY, &depth, &err), err);
    assert_int_equal(depth, 2);
    HG_TEST_FAILS(hg_queue_check(&q, &nobody, HG_CLASS_BULK, &err), HG_STATUS_BUSY, err,
                  "2 requests of 20 tokens");
    assert_int_equal(push(&q, &items[2], 2), HG_STATUS_BUSY);
    assert_int_equal(hg_queue_depth(&q), 2);
    assert_int_equal(pop(&q)->value, 0);
    assert_int_equal(push(&q, &items[2], 2), HG_STATUS_OK);
    pop(&q);
    pop(&q);
    hg_queue_deinit(&q);
}

static void refusals_say_whose_bound_it_was(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[4];
    struct hg_error err = {0};
    struct hg_tenant a = {.id = 1, .name = "a", .max_queued = 1}, b = {.id = 2, .name = "b"};
    open_queue(&q, 8, 100);
    for (int i = 0; i < 4; i++)
        items[i].job = (struct hg_job){.cls = HG_CLASS_INTERACTIVE, .cost = 30};
    HG_TEST_OK(hg_queue_push(&q, &items[0].job, &a, INFINITY, NULL, &err), err);
    HG_TEST_FAILS(hg_queue_push(&q, &items[1].job, &a, INFINITY, NULL, &err), HG_STATUS_QUOTA, err,
                  "one API key");
    HG_TEST_OK(hg_queue_check(&q, &b, HG_CLASS_INTERACTIVE, &err), err);
    items[1].job.cost = 71;
    HG_TEST_FAILS(hg_queue_push(&q, &items[1].job, &b, INFINITY, NULL, &err), HG_STATUS_BUSY, err,
                  "1 requests of 30 tokens");
    hg_queue_worked(&q, 30, 3); /* 10 tokens a second */
    HG_TEST_FAILS(hg_queue_push(&q, &items[2].job, &b, 2, NULL, &err), HG_STATUS_BUSY, err,
                  "wait for 3 s");
    HG_TEST_OK(hg_queue_push(&q, &items[2].job, &b, 4, NULL, &err), err);
    assert_non_null(pop(&q));
    assert_non_null(pop(&q));
    hg_queue_deinit(&q);
}

static void queue_refuses_after_close_but_still_pops(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[2];
    open_queue(&q, 4, 0);
    assert_false(hg_queue_wait_until(&q, hg_now_ns() + 1000000));
    push(&q, &items[0], 0);
    assert_true(hg_queue_wait_until(&q, hg_now_ns() - 1));
    hg_queue_close(&q);
    assert_int_equal(push(&q, &items[1], 1), HG_STATUS_CANCELLED);
    hg_queue_wait_until(&q, INT64_MAX); /* must not block */
    assert_int_equal(pop(&q)->value, 0);
    hg_queue_wait_until(&q, INT64_MAX);
    assert_null(pop(&q));
    hg_queue_deinit(&q);
}

static void sweep_takes_matches_and_keeps_order(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[6];
    struct hg_list out;
    hg_list_init(&out);
    open_queue(&q, 6, 0);
    for (int i = 0; i < 6; i++)
        push(&q, &items[i], i);
    hg_queue_sweep(&q, is_odd, NULL, &out);
    assert_int_equal(hg_queue_depth(&q), 3);
    for (int i = 1; i < 6; i += 2) {
        struct hg_job *job = HG_LIST_ENTRY(out.next, struct hg_job, link);
        assert_null(job->flow);
        assert_int_equal(item_of(job)->value, i);
        hg_list_remove(out.next);
    }
    assert_true(hg_list_empty(&out));
    for (int i = 0; i < 6; i += 2)
        assert_int_equal(pop(&q)->value, i);
    hg_queue_deinit(&q);
}

enum { N_PRODUCERS = 4, N_EACH = 2000 };

struct producer {
    struct hg_queue *queue;
    struct item items[N_EACH];
    int n_refused;
};

static void *produce(void *ctx)
{
    struct producer *p = ctx;
    for (int i = 0; i < N_EACH; i++)
        while (push(p->queue, &p->items[i], i) == HG_STATUS_BUSY)
            p->n_refused++;
    return NULL;
}

static void queue_loses_nothing_between_threads(void **state)
{
    (void)state;
    struct hg_queue q;
    struct producer *producers = calloc(N_PRODUCERS, sizeof *producers);
    pthread_t threads[N_PRODUCERS];
    assert_non_null(producers);
    open_queue(&q, 16, 0);
    for (int i = 0; i < N_PRODUCERS; i++) {
        producers[i].queue = &q;
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (int n = 0; n < N_PRODUCERS * N_EACH;) {
        hg_queue_wait_until(&q, INT64_MAX);
        n += pop(&q) != NULL;
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(hg_queue_depth(&q), 0);
    free(producers);
    hg_queue_deinit(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_pops_in_the_order_of_pushes),
        cmocka_unit_test(queue_push_fails_when_full),
        cmocka_unit_test(refusals_say_whose_bound_it_was),
        cmocka_unit_test(queue_refuses_after_close_but_still_pops),
        cmocka_unit_test(sweep_takes_matches_and_keeps_order),
        cmocka_unit_test(queue_loses_nothing_between_threads),
    };
    return cmocka_run_group_tests_name("server/engine/queue", tests, NULL, NULL);
}
