#include "tests/test.h"

#include "common/arena.h"

static void pieces_are_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    struct hg_arena a = {0};
    unsigned char *last = NULL;
    size_t sum = 0, last_n = 0;
    for (size_t n = 1; n < 3000; n += 7) {
        unsigned char *p = hg_arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xa5, n);
        if (last)
            for (size_t i = 0; i < last_n; i++)
                assert_int_equal(last[i], 0xa5);
        last = p;
        last_n = n;
        sum += n;
    }
    assert_int_equal(a.used_bytes, sum);
    hg_arena_deinit(&a);
    assert_null(a.head);
    assert_int_equal(a.used_bytes, 0);
}

static void large_piece_after_small_ones(void **state)
{
    (void)state;
    struct hg_arena a = {0};
    char *small = hg_arena_alloc(&a, 10);
    char *large = hg_arena_alloc(&a, 5u << 20);
    assert_non_null(large);
    large[(5u << 20) - 1] = 'x';
    strcpy(small, "123456789");
    char *next = hg_arena_alloc(&a, 10);
    assert_non_null(next);
    assert_string_equal(small, "123456789");
    hg_arena_deinit(&a);
}

static void zero_bytes_give_a_piece_of_their_own(void **state)
{
    (void)state;
    struct hg_arena a = {0};
    void *p = hg_arena_alloc(&a, 0), *q = hg_arena_alloc(&a, 0);
    assert_non_null(p);
    assert_ptr_not_equal(p, q);
    hg_arena_deinit(&a);
    hg_arena_deinit(NULL);
}

static void impossible_sizes_give_null(void **state)
{
    (void)state;
    struct hg_arena a = {0};
    assert_null(hg_arena_alloc(&a, SIZE_MAX));
    assert_null(hg_arena_alloc(&a, SIZE_MAX / 2));
    assert_null(hg_arena_strndup(&a, "x", SIZE_MAX));
    assert_int_equal(a.used_bytes, 0);
    hg_arena_deinit(&a);
}

static void strndup_copies_and_terminates(void **state)
{
    (void)state;
    struct hg_arena a = {0};
    assert_string_equal(hg_arena_strndup(&a, "hello world", 5), "hello");
    assert_string_equal(hg_arena_strndup(&a, NULL, 0), "");
    hg_arena_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_zeroed_and_apart),
        cmocka_unit_test(large_piece_after_small_ones),
        cmocka_unit_test(zero_bytes_give_a_piece_of_their_own),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(strndup_copies_and_terminates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
