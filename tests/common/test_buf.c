#include "tests/test.h"

#include "common/buf.h"

/* Sanitizers abort on impossible sizes unless they are told to return NULL as malloc does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void empty_buffer_needs_no_memory(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    hg_buf_clear(&b);
    assert_null(b.data);
    hg_buf_deinit(&b);
    hg_buf_deinit(NULL);
}

static void appends_grow_and_stay_terminated(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(hg_buf_append(&b, "abc", 3), HG_STATUS_OK);
        assert_int_equal(b.data[b.len], 0);
    }
    assert_int_equal(b.len, 30000);
    for (size_t i = 0; i < b.len; i++)
        assert_int_equal(b.data[i], "abc"[i % 3]);
    size_t cap = b.cap;
    hg_buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_int_equal(b.cap, cap);
    assert_string_equal(b.data, "");
    hg_buf_deinit(&b);
    assert_null(b.data);
}

static void empty_append_is_fine(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    assert_int_equal(hg_buf_append(&b, NULL, 0), HG_STATUS_OK);
    assert_int_equal(hg_buf_append_str(&b, ""), HG_STATUS_OK);
    assert_int_equal(hg_buf_printf(&b, "%s", ""), HG_STATUS_OK);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    hg_buf_deinit(&b);
}

static void printf_appends_across_a_growth(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    for (int i = 0; i < 500; i++)
        assert_int_equal(hg_buf_printf(&b, "%d,", i), HG_STATUS_OK);
    assert_memory_equal(b.data, "0,1,2,3,", 8);
    assert_string_equal(b.data + b.len - 8, "498,499,");
    hg_buf_deinit(&b);
}

/* An impossible size must fail before any memory is touched, and change nothing. */
static void overflowing_sizes_fail_and_change_nothing(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    assert_int_equal(hg_buf_append_str(&b, "keep"), HG_STATUS_OK);
    struct hg_buf before = b;
    assert_int_equal(hg_buf_reserve(&b, SIZE_MAX), HG_STATUS_NO_MEMORY);
    assert_int_equal(hg_buf_reserve(&b, SIZE_MAX - 4), HG_STATUS_NO_MEMORY);
    assert_int_equal(hg_buf_reserve(&b, SIZE_MAX - 5), HG_STATUS_NO_MEMORY);
    assert_memory_equal(&b, &before, sizeof b);
    assert_string_equal(b.data, "keep");
    hg_buf_deinit(&b);
}

static void reserve_makes_room_in_place(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    assert_int_equal(hg_buf_reserve(&b, 1000), HG_STATUS_OK);
    const char *data = b.data;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(hg_buf_append(&b, "x", 1), HG_STATUS_OK);
    assert_ptr_equal(b.data, data);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_buffer_needs_no_memory),
        cmocka_unit_test(appends_grow_and_stay_terminated),
        cmocka_unit_test(empty_append_is_fine),
        cmocka_unit_test(printf_appends_across_a_growth),
        cmocka_unit_test(overflowing_sizes_fail_and_change_nothing),
        cmocka_unit_test(reserve_makes_room_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
