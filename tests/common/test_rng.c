#include "tests/test.h"

#include <math.h>

#include "common/rng.h"

struct known_answer {
    uint64_t seed, position, lane;
    uint32_t out[4];
};

/* philox4x32-10 lines of kat_vectors in the Random123 distribution (Salmon et al., SC11):
 * zeros, ones, and digits of pi. */
static const struct known_answer known[] = {
    {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {0x299f31d0a4093822,
     0x85a308d3243f6a88,
     0x0370734413198a2e,
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void philox_matches_the_published_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        hg_philox(known[i].seed, known[i].position, known[i].lane, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void uniform_is_the_top_53_bits(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        uint32_t r[4];
        hg_philox(42, i, 7, r);
        uint64_t bits = ((uint64_t)r[0] << 32 | r[1]) >> 11;
        double u = hg_uniform(42, i, 7);
        assert_true(u == ldexp((double)bits, -53));
        assert_true(u >= 0 && u < 1);
    }
}

/* Chi-square with 255 degrees of freedom: mean 255, deviation 22.6. The draws are fixed, so the
 * bound (5 deviations) can never fail by chance. */
static double chi_square_of(int axis)
{
    enum { N = 1 << 18, BINS = 256 };
    static int count[BINS];
    memset(count, 0, sizeof count);
    for (uint64_t i = 0; i < N; i++) {
        double u = hg_uniform(axis == 0 ? i : 1, axis == 1 ? i : 2, axis == 2 ? i : 3);
        count[(int)(u * BINS)]++;
    }
    double expected = (double)N / BINS, sum = 0;
    for (int b = 0; b < BINS; b++)
        sum += (count[b] - expected) * (count[b] - expected) / expected;
    return sum;
}

static void draws_are_uniform_along_seed_position_and_lane(void **state)
{
    (void)state;
    for (int axis = 0; axis < 3; axis++) {
        double chi = chi_square_of(axis);
        printf("axis %d: chi-square %.1f (255 +- 22.6)\n", axis, chi);
        assert_true(chi > 255 - 113 && chi < 255 + 113);
    }
}

static void neighbouring_draws_are_uncorrelated(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, before = hg_uniform(5, 0, 0) - 0.5;
    for (uint64_t i = 1; i <= N; i++) {
        double u = hg_uniform(5, i, 0) - 0.5;
        sum += u * before;
        before = u;
    }
    double r = sum / N * 12;
    printf("lag-1 correlation %.5f (deviation %.5f)\n", r, 1 / sqrt(N));
    assert_true(fabs(r) < 5 / sqrt(N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_matches_the_published_vectors),
        cmocka_unit_test(uniform_is_the_top_53_bits),
        cmocka_unit_test(draws_are_uniform_along_seed_position_and_lane),
        cmocka_unit_test(neighbouring_draws_are_uncorrelated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
