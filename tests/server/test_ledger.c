/* tests/server/test_ledger.c - one end for each request; late ones are told once. */
#include "server/engine/ledger.h"

#include <unistd.h>

#include "common/log.h"
#include "server/engine/request.h"
#include "tests/test.h"

static const int64_t second = 1000000000;

static struct hg_ledger_entry entry(uint64_t number, const atomic_int *state)
{
    return (struct hg_ledger_entry){.number = number,
                                    .state = state,
                                    .opened_ns = 100 * second,
                                    .deadline_ns = (110 + (int64_t)number) * second};
}

static void a_request_ends_once(void **state)
{
    (void)state;
    atomic_int running = HG_REQUEST_RUNNING;
    struct hg_ledger l;
    struct hg_ledger_stats s;
    struct hg_ledger_entry a = entry(1, &running), b = entry(2, &running), c = entry(3, &running);
    hg_log_set(HG_LOG_OFF, false);
    hg_ledger_init(&l);
    assert_false(hg_ledger_end(&l, &a)); /* was never accepted */
    hg_ledger_open(&l, &a);
    hg_ledger_open(&l, &b);
    hg_ledger_open(&l, &c);
    hg_ledger_take_back(&l, &c);
    assert_true(hg_ledger_end(&l, &b));
    assert_false(hg_ledger_end(&l, &b));
    hg_ledger_stats(&l, &s);
    assert_int_equal(s.n_accepted, 2);
    assert_int_equal(s.n_ended, 1);
    assert_int_equal(s.n_open, 1);
    assert_int_equal(s.n_ended_twice, 2);
    assert_true(hg_ledger_end(&l, &a));
    hg_ledger_stats(&l, &s);
    assert_int_equal(s.n_open, 0);
    hg_ledger_deinit(&l);
}

static void a_late_request_is_told_once_with_state_and_age(void **state)
{
    (void)state;
    atomic_int running = HG_REQUEST_RUNNING, queued = HG_REQUEST_QUEUED;
    struct hg_ledger l;
    struct hg_ledger_stats s;
    struct hg_ledger_entry a = entry(1, &running), b = entry(2, &queued);
    char text[4096];
    int fd[2], saved = dup(STDERR_FILENO);
    hg_log_set(HG_LOG_INFO, false);
    hg_ledger_init(&l);
    hg_ledger_open(&l, &a);
    hg_ledger_open(&l, &b);
    assert_int_equal(pipe(fd), 0);
    dup2(fd[1], STDERR_FILENO); /* where the log goes */
    int n[] = {hg_ledger_check(&l, 140 * second, 30 * second),
               hg_ledger_check(&l, 141 * second, 30 * second),
               hg_ledger_check(&l, 141 * second, 30 * second),
               hg_ledger_check(&l, 999 * second, 30 * second)};
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd[1]);
    ssize_t got = read(fd[0], text, sizeof text - 1);
    close(fd[0]);
    assert_true(got > 0);
    text[got] = '\0';
    assert_int_equal(n[0], 0);
    assert_int_equal(n[1], 1);
    assert_int_equal(n[2], 0);
    assert_int_equal(n[3], 1);
    assert_non_null(strstr(text, "request 1 has not ended: running, accepted 41.0 s ago, 30.0 s "
                                 "after its deadline"));
    assert_non_null(strstr(text, "request 2 has not ended: queued, "));
    hg_ledger_stats(&l, &s);
    assert_int_equal(s.n_stalled, 2);
    hg_ledger_end(&l, &a);
    hg_ledger_end(&l, &b);
    assert_int_equal(hg_ledger_check(&l, 9999 * second, 0), 0);
    hg_ledger_deinit(&l);
}

static void many_late_requests_are_all_told(void **state)
{
    (void)state;
    enum { N = 100 };
    atomic_int running = HG_REQUEST_RUNNING;
    struct hg_ledger l;
    struct hg_ledger_entry e[N];
    hg_log_set(HG_LOG_OFF, false);
    hg_ledger_init(&l);
    for (int i = 0; i < N; i++) {
        e[i] = entry((uint64_t)i, &running);
        hg_ledger_open(&l, &e[i]);
    }
    int sum = 0, n;
    while ((n = hg_ledger_check(&l, 9999 * second, 0)) > 0)
        sum += n;
    assert_int_equal(sum, N);
    for (int i = 0; i < N; i++)
        assert_true(hg_ledger_end(&l, &e[i]));
    hg_ledger_deinit(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_ends_once),
        cmocka_unit_test(a_late_request_is_told_once_with_state_and_age),
        cmocka_unit_test(many_late_requests_are_all_told),
    };
    return cmocka_run_group_tests_name("server/engine/ledger", tests, NULL, NULL);
}
