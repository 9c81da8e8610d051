#include "tests/test.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* Run one hg_log call with stderr in a pipe; the line lands in `line`. */
static char line[8192];
static int pipe_ends[2], real_stderr;

static void capture(void)
{
    assert_int_equal(pipe2(pipe_ends, O_NONBLOCK), 0);
    real_stderr = dup(2);
    dup2(pipe_ends[1], 2);
}

static void release(void)
{
    dup2(real_stderr, 2);
    close(real_stderr);
    ssize_t n = read(pipe_ends[0], line, sizeof line - 1);
    line[n > 0 ? n : 0] = 0;
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

static void text_line_has_time_level_and_message(void **state)
{
    (void)state;
    hg_log_set(HG_LOG_INFO, 0);
    capture();
    hg_log(HG_LOG_WARN, "queue %d of %s", 3, "x");
    release();
    assert_int_equal(line[4], '-');
    assert_int_equal(line[23], 'Z');
    assert_string_equal(line + 24, " warn  queue 3 of x\n");
}

static void lower_levels_are_silent(void **state)
{
    (void)state;
    hg_log_set(HG_LOG_WARN, 0);
    capture();
    hg_log(HG_LOG_INFO, "no");
    release();
    assert_string_equal(line, "");
    hg_log_set(HG_LOG_OFF, 0);
    capture();
    hg_log(HG_LOG_ERROR, "no");
    hg_log(HG_LOG_OFF, "no");
    release();
    assert_string_equal(line, "");
}

static void client_bytes_cannot_forge_a_line(void **state)
{
    (void)state;
    hg_log_set(HG_LOG_INFO, 0);
    capture();
    hg_log(HG_LOG_INFO, "%s", "a\n2026 ERROR \x1b[31m\xff\xc2\x9b\xe2\x80\xa8\\ \xc3\xa9");
    release();
    assert_string_equal(line + 24,
                        " info  a\\u000a2026 ERROR \\u001b[31m\\xff\\u009b\\u2028\\\\ \xc3\xa9\n");
}

static void json_line_parses_whatever_the_message(void **state)
{
    (void)state;
    hg_log_set(HG_LOG_INFO, 1);
    for (int c = 1; c < 256; c++) {
        char text[] = {'<', (char)c, '"', '\\', '>', 0};
        capture();
        hg_log(HG_LOG_ERROR, "%s", text);
        release();
        json_t *doc = json_loads(line, 0, NULL);
        assert_non_null(doc);
        assert_string_equal(json_string_value(json_object_get(doc, "level")), "error");
        const char *message = json_string_value(json_object_get(doc, "message"));
        if (c < 0x80)
            assert_string_equal(message, text);
        json_decref(doc);
    }
    hg_log_set(HG_LOG_INFO, 0);
}

static void long_message_is_cut_to_one_line(void **state)
{
    (void)state;
    char *text = malloc(100001);
    memset(text, '\n', 100000);
    text[100000] = 0;
    for (int json = 0; json < 2; json++) {
        hg_log_set(HG_LOG_INFO, json);
        capture();
        hg_log(HG_LOG_INFO, "%s", text);
        release();
        size_t n = strlen(line);
        assert_in_range(n, 1000, 4096);
        assert_ptr_equal(strchr(line, '\n'), line + n - 1);
        json_t *doc = json_loads(line, 0, NULL);
        assert_int_equal(doc != NULL, json);
        json_decref(doc);
    }
    hg_log_set(HG_LOG_INFO, 0);
    free(text);
}

enum { N_THREADS = 4, N_LINES = 2000 };

static void *log_much(void *arg)
{
    for (int i = 0; i < N_LINES; i++)
        hg_log(HG_LOG_INFO, "%s", "0123456789012345678901234567890123456789");
    return arg;
}

/* A pipe that blocks, as a daemon's is. Every line is in it or counted. */
static void full_pipe_drops_lines_instead_of_blocking(void **state)
{
    (void)state;
    pthread_t threads[N_THREADS];
    static char got[1 << 20];
    uint64_t before = hg_log_dropped(), n_there = 0;
    hg_log_set(HG_LOG_INFO, 0);
    capture();
    assert_int_equal(fcntl(pipe_ends[1], F_SETFL, 0), 0);
    alarm(60); /* who waits for a reader waits for ever */
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_much, NULL), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    alarm(0);
    ssize_t n = read(pipe_ends[0], got, sizeof got);
    for (ssize_t i = 0; i < n; i++)
        n_there += got[i] == '\n';
    release();
    uint64_t dropped = hg_log_dropped() - before;
    printf("%d lines, %d in the pipe, %d dropped\n", N_THREADS * N_LINES, (int)n_there,
           (int)dropped);
    assert_true(n_there > 0 && dropped > 0);
    assert_int_equal(n_there + dropped, N_THREADS * N_LINES);
}

static void clock_never_runs_backwards(void **state)
{
    (void)state;
    int64_t last = hg_now_ns();
    for (int i = 0; i < 10000; i++) {
        int64_t now = hg_now_ns();
        assert_true(now >= last);
        last = now;
    }
    assert_true(hg_now_ms() * 1e6 >= (double)last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_line_has_time_level_and_message),
        cmocka_unit_test(lower_levels_are_silent),
        cmocka_unit_test(client_bytes_cannot_forge_a_line),
        cmocka_unit_test(json_line_parses_whatever_the_message),
        cmocka_unit_test(long_message_is_cut_to_one_line),
        cmocka_unit_test(full_pipe_drops_lines_instead_of_blocking),
        cmocka_unit_test(clock_never_runs_backwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
