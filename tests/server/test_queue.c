/* tests/server/test_queue.c - the bounded queue: order, refusal, sweep, close, threads. */
#include "server/queue.h"

#include "tests/test.h"

struct item {
    struct hg_list link;
    int value;
};

static struct item *item_of(struct hg_list *node)
{
    return HG_LIST_ENTRY(node, struct item, link);
}

static bool is_odd(const struct hg_list *node, void *ctx)
{
    const struct item *it = (const struct item *)(const void *)node; /* link is the first member */
    (void)ctx;
    return it->value % 2 == 1;
}

static void queue_pops_in_the_order_of_pushes(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[3] = {{.value = 0}, {.value = 1}, {.value = 2}};
    hg_queue_init(&q, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(hg_queue_push(&q, &items[i].link, HG_CLASS_BULK), HG_STATUS_OK);
    assert_int_equal(hg_queue_depth(&q), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(item_of(hg_queue_pop(&q, HG_CLASS_BULK))->value, i);
    assert_null(hg_queue_pop(&q, HG_CLASS_BULK));
    hg_queue_deinit(&q);
}

static void classes_wait_in_lines_of_their_own_under_one_bound(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[4];
    struct hg_list out;
    hg_list_init(&out);
    hg_queue_init(&q, 3);
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        assert_int_equal(hg_queue_push(&q, &items[i].link, (enum hg_class)(i % 2)),
                         i < 3 ? HG_STATUS_OK : HG_STATUS_BUSY);
    }
    assert_ptr_equal(hg_queue_pop(&q, HG_CLASS_INTERACTIVE), &items[0].link);
    assert_ptr_equal(hg_queue_pop(&q, HG_CLASS_BULK), &items[1].link);
    assert_null(hg_queue_pop(&q, HG_CLASS_BULK));
    assert_int_equal(hg_queue_push(&q, &items[3].link, HG_CLASS_BULK), HG_STATUS_OK);
    hg_queue_sweep(&q, is_odd, NULL, &out);
    assert_ptr_equal(out.next, &items[3].link);
    assert_ptr_equal(hg_queue_pop(&q, HG_CLASS_INTERACTIVE), &items[2].link);
    assert_int_equal(hg_queue_depth(&q), 0);
    hg_queue_deinit(&q);
}

static void queue_push_fails_when_full(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[3];
    hg_queue_init(&q, 2);
    assert_int_equal(hg_queue_push(&q, &items[0].link, HG_CLASS_BULK), HG_STATUS_OK);
    assert_int_equal(hg_queue_push(&q, &items[1].link, HG_CLASS_BULK), HG_STATUS_OK);
    assert_int_equal(hg_queue_push(&q, &items[2].link, HG_CLASS_BULK), HG_STATUS_BUSY);
    assert_int_equal(hg_queue_depth(&q), 2);
    assert_ptr_equal(hg_queue_pop(&q, HG_CLASS_BULK), &items[0].link);
    assert_int_equal(hg_queue_push(&q, &items[2].link, HG_CLASS_BULK), HG_STATUS_OK);
    hg_queue_pop(&q, HG_CLASS_BULK);
    hg_queue_pop(&q, HG_CLASS_BULK);
    hg_queue_deinit(&q);
}

static void queue_refuses_after_close_but_still_pops(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[2];
    hg_queue_init(&q, 4);
    hg_queue_push(&q, &items[0].link, HG_CLASS_BULK);
    hg_queue_close(&q);
    assert_int_equal(hg_queue_push(&q, &items[1].link, HG_CLASS_BULK), HG_STATUS_CANCELLED);
    hg_queue_wait(&q); /* must not block */
    assert_ptr_equal(hg_queue_pop(&q, HG_CLASS_BULK), &items[0].link);
    hg_queue_wait(&q);
    assert_null(hg_queue_pop(&q, HG_CLASS_BULK));
    hg_queue_deinit(&q);
}

static void sweep_takes_matches_and_keeps_order(void **state)
{
    (void)state;
    struct hg_queue q;
    struct item items[6];
    struct hg_list out;
    hg_list_init(&out);
    hg_queue_init(&q, 6);
    for (int i = 0; i < 6; i++) {
        items[i].value = i;
        hg_queue_push(&q, &items[i].link, HG_CLASS_BULK);
    }
    hg_queue_sweep(&q, is_odd, NULL, &out);
    assert_int_equal(hg_queue_depth(&q), 3);
    for (int i = 1; i < 6; i += 2) {
        assert_int_equal(item_of(out.next)->value, i);
        hg_list_remove(out.next);
    }
    assert_true(hg_list_empty(&out));
    for (int i = 0; i < 6; i += 2)
        assert_int_equal(item_of(hg_queue_pop(&q, HG_CLASS_BULK))->value, i);
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
    for (int i = 0; i < N_EACH; i++) {
        p->items[i].value = i;
        while (hg_queue_push(p->queue, &p->items[i].link, HG_CLASS_BULK) == HG_STATUS_BUSY)
            p->n_refused++;
    }
    return NULL;
}

static void queue_loses_nothing_between_threads(void **state)
{
    (void)state;
    struct hg_queue q;
    pthread_t threads[N_PRODUCERS];
    struct producer *producers = calloc(N_PRODUCERS, sizeof *producers);
    hg_queue_init(&q, 8);
    for (int i = 0; i < N_PRODUCERS; i++) {
        producers[i].queue = &q;
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (int n = 0; n < N_PRODUCERS * N_EACH;) {
        hg_queue_wait(&q);
        n += hg_queue_pop(&q, HG_CLASS_BULK) != NULL;
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
        cmocka_unit_test(classes_wait_in_lines_of_their_own_under_one_bound),
        cmocka_unit_test(queue_push_fails_when_full),
        cmocka_unit_test(queue_refuses_after_close_but_still_pops),
        cmocka_unit_test(sweep_takes_matches_and_keeps_order),
        cmocka_unit_test(queue_loses_nothing_between_threads),
    };
    return cmocka_run_group_tests_name("server/queue", tests, NULL, NULL);
}
