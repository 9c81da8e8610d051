/* tests/model/load/test_meter.c - the progress of loading as lines of the log. */
#include "model/load/meter.h"

#include <unistd.h>

#include "tests/test.h"

static char text[4096];
static int old_stderr;
static FILE *taken;

static void take_stderr(void)
{
    fflush(stderr);
    taken = tmpfile();
    assert_non_null(taken);
    old_stderr = dup(STDERR_FILENO);
    dup2(fileno(taken), STDERR_FILENO);
}

static int give_stderr_back(void)
{
    dup2(old_stderr, STDERR_FILENO);
    close(old_stderr);
    rewind(taken);
    size_t n = fread(text, 1, sizeof text - 1, taken);
    text[n] = '\0';
    fclose(taken);
    int lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    return lines;
}

static void a_line_is_written_once_a_second_at_most(void **state)
{
    (void)state;
    struct hg_load_meter m;
    take_stderr();
    hg_load_meter_start(&m, 8000000000u);
    for (int i = 0; i < 1000; i++)
        hg_load_meter_add(&m, 1000000);
    assert_int_equal(give_stderr_back(), 0);
    take_stderr();
    m.start_ns -= 2000000000;
    m.told_ns -= 1000000000; /* a second ago */
    for (int i = 0; i < 1000; i++)
        hg_load_meter_add(&m, 1000000);
    assert_int_equal(give_stderr_back(), 1);
    assert_non_null(strstr(text, "loading: 13 %, 1.00 of 8.00 GB of weights, 0.50 GB/s"));
}

static void the_last_line_has_the_sum(void **state)
{
    (void)state;
    struct hg_load_meter m;
    take_stderr();
    hg_load_meter_start(&m, 100);
    hg_load_meter_add(&m, 5000000);
    hg_load_meter_end(&m, 0x1234abcd);
    assert_int_equal(give_stderr_back(), 1);
    assert_non_null(strstr(text, "loaded: 0.005 GB of weights in 0.00 s, "));
    assert_non_null(strstr(text, "crc32c 1234abcd"));
}

static void the_share_can_be_read_meanwhile(void **state)
{
    (void)state;
    struct hg_load_meter m;
    double left_s = -1;
    hg_load_meter_start(&m, 400);
    assert_true(hg_load_meter_share(&left_s) == 0 && left_s == 0);
    usleep(2000);
    hg_load_meter_add(&m, 100);
    assert_true(hg_load_meter_share(&left_s) == 0.25);
    assert_true(left_s >= 3 * 0.002);
    take_stderr();
    hg_load_meter_end(&m, 0); /* some of it was not wanted */
    give_stderr_back();
    assert_true(hg_load_meter_share(&left_s) == 1 && left_s == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_written_once_a_second_at_most),
        cmocka_unit_test(the_last_line_has_the_sum),
        cmocka_unit_test(the_share_can_be_read_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
