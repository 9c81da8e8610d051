/* tests/server/test_supervisor.c - which ends ask for a new start, when it comes, when not any
 * more. The processes themselves: tests/e2e/check_faults.py. */
#include "server/supervisor.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

static const int64_t SECOND = 1000000000;

static void restarts_come_later_and_later_and_end(void **state)
{
    (void)state;
    static const int64_t waits[] = {0, 1000, 2000, 5000, 10000, 30000, 30000};
    struct hg_restarts r = {.most = 7};
    int64_t now = 5 * SECOND;
    for (int i = 0; i < 7; i++, now += SECOND)
        assert_int_equal(hg_restarts_next(&r, now), waits[i]);
    assert_int_equal(hg_restarts_next(&r, now), -1);
    struct hg_restarts none = {.most = 0};
    assert_int_equal(hg_restarts_next(&none, now), -1);
}

static void old_restarts_are_forgotten(void **state)
{
    (void)state;
    struct hg_restarts r = {.most = 2};
    assert_int_equal(hg_restarts_next(&r, 0), 0);
    assert_int_equal(hg_restarts_next(&r, 500 * SECOND), 1000);
    assert_int_equal(hg_restarts_next(&r, 600 * SECOND), -1);
    assert_int_equal(hg_restarts_next(&r, 601 * SECOND), 1000); /* the first is out of the window */
    assert_int_equal(hg_restarts_next(&r, 602 * SECOND), -1);
    assert_int_equal(hg_restarts_next(&r, 5000 * SECOND), 0);
}

static void the_list_of_restarts_has_an_end(void **state)
{
    (void)state;
    struct hg_restarts r = {.most = 1000000};
    int n = 0;
    while (n < 1000 && hg_restarts_next(&r, SECOND) >= 0)
        n++;
    assert_int_equal(n, HG_MAX_RESTARTS);
}

/* How a child that leaves so looks to its parent. */
static int status_of(int code, int sig)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (sig)
            raise(sig);
        _exit(code);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void some_ends_ask_for_a_new_start(void **state)
{
    (void)state;
    static const int again[] = {70, 71, 75}, never[] = {0, 64, 65, 66, 69, 74};
    for (size_t i = 0; i < sizeof again / sizeof *again; i++)
        assert_true(hg_restart_helps(status_of(again[i], 0)));
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        assert_false(hg_restart_helps(status_of(never[i], 0)));
        assert_int_equal(hg_exit_code_of(status_of(never[i], 0)), never[i]);
    }
    assert_true(hg_restart_helps(status_of(0, SIGKILL)));
    assert_int_equal(hg_exit_code_of(status_of(0, SIGKILL)), 128 + SIGKILL);
}

static void a_worker_is_told_by_its_own_pid(void **state)
{
    (void)state;
    char text[64];
    assert_int_equal(hg_worker_self().number, -1);
    snprintf(text, sizeof text, "%ld 3 1", (long)getpid());
    setenv("HG_WORKER", text, 1);
    struct hg_worker w = hg_worker_self();
    assert_int_equal(w.number, 3);
    assert_true(w.shared);
    assert_int_equal(hg_worker_self().number, -1); /* its children are none */
    snprintf(text, sizeof text, "%ld 3 1", (long)getpid() + 1);
    setenv("HG_WORKER", text, 1);
    w = hg_worker_self();
    assert_int_equal(w.number, -1);
    assert_false(w.shared);
    setenv("HG_WORKER", "yes", 1);
    assert_int_equal(hg_worker_self().number, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restarts_come_later_and_later_and_end),
        cmocka_unit_test(old_restarts_are_forgotten),
        cmocka_unit_test(the_list_of_restarts_has_an_end),
        cmocka_unit_test(some_ends_ask_for_a_new_start),
        cmocka_unit_test(a_worker_is_told_by_its_own_pid),
    };
    return cmocka_run_group_tests_name("server/supervisor", tests, NULL, NULL);
}
