/* tests/common/test_fault.c - the text of $HG_FAULT. The library has no fault points, so they are
 * compiled in here. */
#define HG_FAULTS 1
#include "common/fault.c" // NOLINT(bugprone-suspicious-include)

#include "tests/test.h"

static void plant_ok(const char *text, int this_start)
{
    struct hg_error err = {0};
    HG_TEST_OK(hg_fault_init(text, this_start, &err), err);
}

/* As many of n passes as fail, as bits. */
static unsigned passes(enum hg_fault_point point, int n)
{
    unsigned bits = 0;
    for (int i = 0; i < n; i++)
        bits |= (unsigned)hg_fault(point, NULL) << i;
    return bits;
}

static void nothing_is_planted_by_default(void **state)
{
    (void)state;
    plant_ok(NULL, 0);
    hg_fault_arm();
    for (int p = 0; p < HG_FAULT_COUNT; p++)
        assert_int_equal(passes((enum hg_fault_point)p, 3), 0);
}

static void after_and_count_choose_the_passes(void **state)
{
    (void)state;
    plant_ok("nan_row:after=2;kv_exhaust:after=1,count=3;step_err:count=0", 0);
    assert_int_equal(passes(HG_FAULT_NAN_ROW, 8), 0); /* asleep, and does not count */
    hg_fault_arm();
    assert_int_equal(passes(HG_FAULT_NAN_ROW, 8), 1 << 2);
    assert_int_equal(passes(HG_FAULT_KV_EXHAUST, 8), 7 << 1);
    assert_int_equal(passes(HG_FAULT_STEP_ERR, 8), 0xff);
    assert_int_equal(passes(HG_FAULT_SLOW_STEP, 8), 0);
}

static void values_are_read(void **state)
{
    (void)state;
    int64_t value = 0;
    plant_ok("slow_step:ms=250;step_err:status=device;step_hang:piece=draw,count=0", 0);
    hg_fault_arm();
    assert_true(hg_fault(HG_FAULT_SLOW_STEP, &value));
    assert_int_equal(value, 250);
    assert_true(hg_fault(HG_FAULT_STEP_ERR, &value));
    assert_int_equal(value, HG_STATUS_DEVICE);
    assert_false(hg_fault_at(HG_FAULT_STEP_HANG, 3));
    assert_true(hg_fault_at(HG_FAULT_STEP_HANG, 5));
    plant_ok("step_hang", 0);
    hg_fault_arm();
    assert_true(hg_fault_at(HG_FAULT_STEP_HANG, 3));
}

static void some_act_while_loading(void **state)
{
    (void)state;
    plant_ok("load_corrupt:after=1;step_hang:piece=load", 0);
    assert_int_equal(passes(HG_FAULT_LOAD_CORRUPT, 3), 2);
    assert_true(hg_fault_at(HG_FAULT_STEP_HANG, 2));
}

static void a_start_can_be_chosen(void **state)
{
    (void)state;
    plant_ok("load_corrupt:start=1", 0);
    assert_int_equal(passes(HG_FAULT_LOAD_CORRUPT, 2), 0);
    plant_ok("load_corrupt:start=1", 1);
    assert_int_equal(passes(HG_FAULT_LOAD_CORRUPT, 2), 1);
}

static void what_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    static const char *const bad[] = {"nan",
                                      "nan_row:after",
                                      "nan_row:after=x",
                                      "nan_row:after=-1",
                                      "nan_row:ms=3",
                                      "slow_step:status=device",
                                      "step_err:status=ok",
                                      "step_hang:piece=rest",
                                      "nan_row:after=1 ",
                                      "nan_row;bogus"};
    struct hg_error err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)

        HG_TEST_FAILS(hg_fault_init(bad[i], 0, &err), HG_STATUS_BAD_REQUEST, err, "HG_FAULT");
    char longest[600];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    HG_TEST_FAILS(hg_fault_init(longest, 0, &err), HG_STATUS_BAD_REQUEST, err, "too long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_planted_by_default),
        cmocka_unit_test(after_and_count_choose_the_passes),
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(some_act_while_loading),
        cmocka_unit_test(a_start_can_be_chosen),
        cmocka_unit_test(what_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests_name("common/fault", tests, NULL, NULL);
}
