#include "tests/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/pool.h"

enum { MAX_MEMBERS = 64 };

/* Plain counters on purpose: the barrier alone must order them (ThreadSanitizer watches). */
struct tally {
    int calls[MAX_MEMBERS];
    int n_members;
    pthread_t thread[MAX_MEMBERS];
};

static void count_call(void *ctx, int member, int n_members)
{
    struct tally *t = ctx;
    t->calls[member]++;
    t->thread[member] = pthread_self();
    if (member == 0)
        t->n_members = n_members;
}

static struct hg_pool *make_pool(int n)
{
    struct hg_pool *pool;
    struct hg_error err;
    HG_TEST_OK(hg_pool_create(n, &pool, &err), err);
    return pool;
}

static void every_member_is_called_once_per_run(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n++) {
        struct hg_pool *pool = make_pool(n);
        struct tally t = {0};
        assert_int_equal(hg_pool_size(pool), n);
        for (int run = 1; run <= 300; run++) {
            hg_pool_run(pool, count_call, &t);
            assert_int_equal(t.n_members, n);
            for (int i = 0; i < n; i++)
                assert_int_equal(t.calls[i], run);
        }
        assert_true(pthread_equal(t.thread[0], pthread_self()));
        hg_pool_destroy(pool);
    }
}

/* Nobody leaves before all have come: possible only with a thread for each. */
static void meet(void *ctx, int member, int n_members)
{
    (void)member;
    atomic_fetch_add((atomic_int *)ctx, 1);
    while (atomic_load((atomic_int *)ctx) % n_members != 0)
        sched_yield();
}

static void members_run_beside_each_other(void **state)
{
    (void)state;
    struct hg_pool *pool = make_pool(4);
    for (int run = 1; run <= 50; run++) {
        atomic_int n = 0;
        hg_pool_run(pool, meet, &n);
        assert_int_equal(atomic_load(&n), 4);
    }
    hg_pool_destroy(pool);
}

/* All on one processor: while the caller is on it the others cannot come, and it need not wait. */
static void the_caller_does_what_nobody_has_begun(void **state)
{
    (void)state;
    cpu_set_t before, one;
    int by_caller = 0;
    size_t first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    struct hg_pool *pool = make_pool(8);
    struct tally t = {0};
    for (int run = 1; run <= 300; run++) {
        hg_pool_run(pool, count_call, &t);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(t.calls[i], run);
            by_caller += i > 0 && pthread_equal(t.thread[i], pthread_self());
        }
    }
    hg_pool_destroy(pool);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    printf("the caller did %d of 2100 shares of others\n", by_caller);
    assert_true(by_caller > 0);
}

static void pool_of_one_runs_inline(void **state)
{
    (void)state;
    struct hg_pool *pool = make_pool(1);
    struct tally t = {0};
    hg_pool_run(pool, count_call, &t);
    assert_int_equal(t.calls[0], 1);
    assert_true(pthread_equal(t.thread[0], pthread_self()));
    hg_pool_destroy(pool);
}

static void members_that_fell_asleep_wake_up(void **state)
{
    (void)state;
    struct hg_pool *pool = make_pool(4);
    struct tally t = {0};
    for (int run = 1; run <= 40; run++) {
        /* Around the 50 us of spinning, so that waking meets falling asleep. */
        usleep((useconds_t)(run % 8 * 20));
        hg_pool_run(pool, count_call, &t);
        for (int i = 0; i < 4; i++)
            assert_int_equal(t.calls[i], run);
    }
    usleep(20000);
    hg_pool_run(pool, count_call, &t);
    assert_int_equal(t.calls[3], 41);
    hg_pool_destroy(pool);
}

static void sleep_late(void *ctx, int member, int n_members)
{
    (void)n_members;
    if (member == 1)
        usleep(3000);
    ((int *)ctx)[member] = 1;
}

static void run_waits_for_the_slowest_member(void **state)
{
    (void)state;
    struct hg_pool *pool = make_pool(3);
    for (int run = 0; run < 10; run++) {
        int done[3] = {0};
        hg_pool_run(pool, sleep_late, done);
        assert_true(done[0] && done[1] && done[2]);
    }
    hg_pool_destroy(pool);
}

static void idle_pool_can_be_destroyed_at_any_moment(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct hg_pool *pool = make_pool(1 + i % 5);
        struct tally t = {0};
        if (i % 3)
            hg_pool_run(pool, count_call, &t);
        usleep((useconds_t)(i % 4 * 40));
        hg_pool_destroy(pool);
    }
    hg_pool_destroy(NULL);
}

static void zero_threads_means_one_per_cpu_of_the_affinity_mask(void **state)
{
    (void)state;
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    int n = CPU_COUNT(&set) > MAX_MEMBERS ? MAX_MEMBERS : CPU_COUNT(&set);
    struct hg_pool *pool = make_pool(0);
    assert_int_equal(hg_pool_size(pool), n);
    hg_pool_destroy(pool);
}

static void bad_thread_counts_are_refused(void **state)
{
    (void)state;
    struct hg_pool *pool = (struct hg_pool *)&pool;
    struct hg_error err;
    HG_TEST_FAILS(hg_pool_create(-1, &pool, &err), HG_STATUS_BAD_REQUEST, err, "got -1");
    assert_null(pool);
    HG_TEST_FAILS(hg_pool_create(65, &pool, &err), HG_STATUS_BAD_REQUEST, err, "0 to 64");
}

static void nothing(void *ctx, int member, int n_members)
{
    (void)ctx;
    (void)member;
    (void)n_members;
}

/* Not a bound, a number to look at: what one fork-join costs on this machine. */
static void cost_of_an_empty_run_is_printed(void **state)
{
    (void)state;
    struct hg_pool *pool = make_pool(0);
    enum { N = 2000 };
    int64_t start = hg_now_ns();
    for (int i = 0; i < N; i++)
        hg_pool_run(pool, nothing, NULL);
    printf("%d members: %.2f us per empty run\n", hg_pool_size(pool),
           (double)(hg_now_ns() - start) / N / 1000);
    hg_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_is_called_once_per_run),
        cmocka_unit_test(members_run_beside_each_other),
        cmocka_unit_test(the_caller_does_what_nobody_has_begun),
        cmocka_unit_test(pool_of_one_runs_inline),
        cmocka_unit_test(members_that_fell_asleep_wake_up),
        cmocka_unit_test(run_waits_for_the_slowest_member),
        cmocka_unit_test(idle_pool_can_be_destroyed_at_any_moment),
        cmocka_unit_test(zero_threads_means_one_per_cpu_of_the_affinity_mask),
        cmocka_unit_test(bad_thread_counts_are_refused),
        cmocka_unit_test(cost_of_an_empty_run_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
