/* tests/common/test_region.c - places in a pool: alignment, reuse, merging, 64-bit sizes. */
#include "common/region.h"

#include "tests/test.h"

static void pieces_are_aligned_and_in_order(void **state)
{
    (void)state;
    struct hg_region r;
    uint64_t a, b, c;
    assert_int_equal(hg_region_init(&r, 1024 + 255, 256), HG_STATUS_OK);
    assert_int_equal(r.size, 1024);
    assert_true(hg_region_take(&r, 1, &a) && a == 0);
    assert_true(hg_region_take(&r, 256, &b) && b == 256);
    assert_true(hg_region_take(&r, 257, &c) && c == 512);
    assert_int_equal(r.used, 1024);
    assert_int_equal(hg_region_largest(&r), 0);
    assert_false(hg_region_take(&r, 0, &a)); /* nothing counts as one byte */
    hg_region_deinit(&r);
}

static void what_is_given_back_merges_with_its_neighbours(void **state)
{
    (void)state;
    struct hg_region r;
    uint64_t at[4], x;
    assert_int_equal(hg_region_init(&r, 1024, 256), HG_STATUS_OK);
    for (int i = 0; i < 4; i++)
        assert_true(hg_region_take(&r, 200, &at[i]));
    assert_true(hg_region_give(&r, at[1]));
    assert_false(hg_region_give(&r, at[1])); /* twice */
    assert_false(hg_region_give(&r, 1));     /* inside a piece */
    assert_false(hg_region_give(&r, 4096));
    assert_false(hg_region_take(&r, 257, &x)); /* 256 free bytes */
    assert_true(hg_region_give(&r, at[3]));
    assert_int_equal(hg_region_largest(&r), 256);
    assert_true(hg_region_give(&r, at[2])); /* joins both sides */
    assert_int_equal(hg_region_largest(&r), 768);
    assert_true(hg_region_take(&r, 768, &x) && x == 256);
    assert_true(hg_region_give(&r, x) && hg_region_give(&r, at[0]));
    assert_int_equal(r.n_pieces, 1);
    assert_int_equal(r.used, 0);
    hg_region_deinit(&r);
}

static void the_first_hole_that_fits_is_taken(void **state)
{
    (void)state;
    struct hg_region r;
    uint64_t at[8], x;
    assert_int_equal(hg_region_init(&r, 8 * 256, 256), HG_STATUS_OK);
    for (int i = 0; i < 8; i++)
        assert_true(hg_region_take(&r, 256, &at[i]));
    hg_region_give(&r, at[1]);
    hg_region_give(&r, at[3]);
    hg_region_give(&r, at[4]);
    hg_region_give(&r, at[6]);
    assert_true(hg_region_take(&r, 512, &x) && x == at[3]);
    assert_true(hg_region_take(&r, 10, &x) && x == at[1]);
    assert_true(hg_region_take(&r, 10, &x) && x == at[6]);
    hg_region_deinit(&r);
}

static void offsets_beyond_32_bits(void **state)
{
    (void)state;
    struct hg_region r;
    uint64_t a, b, tera = (uint64_t)1 << 40;
    assert_int_equal(hg_region_init(&r, 8 * tera, 256), HG_STATUS_OK);
    assert_true(hg_region_take(&r, 5 * tera + 1, &a) && a == 0);
    assert_true(hg_region_take(&r, tera, &b));
    assert_true(b == 5 * tera + 256);
    assert_false(hg_region_take(&r, UINT64_MAX, &a)); /* rounding up must not wrap */
    assert_false(hg_region_take(&r, UINT64_MAX - 300, &a));
    hg_region_deinit(&r);
    assert_int_equal(hg_region_init(&r, 100, 256), HG_STATUS_OK); /* too small for any piece */
    assert_false(hg_region_take(&r, 1, &a));
    hg_region_deinit(&r);
}

/* Random takes and gives against a map of every unit: no two pieces overlap, the sums agree. */
static void a_long_random_life_keeps_the_books(void **state)
{
    (void)state;
    enum { UNITS = 512, HELD = 200 };
    static unsigned char map[UNITS];
    struct {
        uint64_t at, n;
    } held[HELD];
    struct hg_region r;
    int n_held = 0, n_refused = 0;
    uint64_t x = 12345, used = 0;
    assert_int_equal(hg_region_init(&r, UNITS * 64, 64), HG_STATUS_OK);
    for (int step = 0; step < 20000; step++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        unsigned pick = (unsigned)(x >> 33);
        uint64_t units = 1 + pick / 7 % 12, at = 0;
        if (n_held < HELD && pick % 2 && hg_region_take(&r, units * 64 - pick % 63, &at)) {
            for (uint64_t u = at / 64; u < at / 64 + units; u++)
                assert_int_equal(map[u]++, 0);
            held[n_held].at = at;
            held[n_held++].n = units;
            used += units * 64;
        } else if (n_held > 0) {
            n_refused += (int)(pick % 2);
            int i = (int)(pick % (unsigned)n_held);
            assert_true(hg_region_give(&r, held[i].at));
            for (uint64_t u = held[i].at / 64; u < held[i].at / 64 + held[i].n; u++)
                map[u] = 0;
            used -= held[i].n * 64;
            held[i] = held[--n_held];
        }
        assert_int_equal(r.used, used);
    }
    assert_true(n_refused > 0); /* it was full now and then */
    hg_region_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_in_order),
        cmocka_unit_test(what_is_given_back_merges_with_its_neighbours),
        cmocka_unit_test(the_first_hole_that_fits_is_taken),
        cmocka_unit_test(offsets_beyond_32_bits),
        cmocka_unit_test(a_long_random_life_keeps_the_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
