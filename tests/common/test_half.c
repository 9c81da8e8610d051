#include "tests/test.h"

#include <math.h>
#include <stdbool.h>

#include "common/half.h"

/* Value of a finite binary16 by its definition, in double arithmetic (exact). */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31;
    double mantissa = h & 1023;
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static bool is_nan16(uint16_t h)
{
    return (h & 0x7fff) > 0x7c00;
}

static void all_65536_halves_widen_to_their_value(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t h = (uint16_t)u;
        float f = hg_f16_to_f32(h);
        assert_int_equal(hg_float_bits(f) >> 31, u >> 15);
        if (is_nan16(h))
            assert_true(isnan(f));
        else if ((h & 0x7fff) == 0x7c00)
            assert_true(isinf(f));
        else
            assert_true((double)f == half_value(h));
    }
}

static void all_65536_halves_survive_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t back = hg_f32_to_f16(hg_f16_to_f32((uint16_t)u));
        if (is_nan16((uint16_t)u))
            assert_int_equal(back, u | 0x200);
        else
            assert_int_equal(back, u);
    }
}

/* Between neighbours a and b the midpoint goes to the even one, its float neighbours to the nearer.
 */
static void midpoints_round_to_even_and_their_neighbours_to_nearest(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 0x7c00; u++) {
        double a = half_value((uint16_t)u);
        double b = u == 0x7bff ? 65536.0 : half_value((uint16_t)(u + 1));
        float mid = (float)((a + b) / 2);
        assert_true((double)mid == (a + b) / 2);
        assert_int_equal(hg_f32_to_f16(mid), u + (u & 1));
        assert_int_equal(hg_f32_to_f16(nextafterf(mid, 0.0f)), u);
        assert_int_equal(hg_f32_to_f16(nextafterf(mid, INFINITY)), u + 1);
        assert_int_equal(hg_f32_to_f16(-mid), 0x8000 | (u + (u & 1)));
    }
}

static void narrowing_of_special_values(void **state)
{
    (void)state;
    assert_int_equal(hg_f32_to_f16(0.0f), 0);
    assert_int_equal(hg_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(hg_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(hg_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(hg_f32_to_f16(65504.0f), 0x7bff);
    assert_int_equal(hg_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(hg_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(hg_f32_to_f16(3.4e38f), 0x7c00);
    assert_int_equal(hg_f32_to_f16(0x1p-24f), 1);
    assert_int_equal(hg_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(hg_f32_to_f16(0x1.000002p-25f), 1);
    assert_int_equal(hg_f32_to_f16(0x1p-149f), 0);
    assert_true(is_nan16(hg_f32_to_f16(hg_bits_float(0x7f800001u))));
    assert_true(is_nan16(hg_f32_to_f16(hg_bits_float(0xffffffffu))));
}

static void bf16_rounds_to_even_and_keeps_nan(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t h = (uint16_t)u;
        float f = hg_bf16_to_f32(h);
        assert_int_equal(hg_float_bits(f), u << 16);
        assert_int_equal(hg_f32_to_bf16(f), isnan(f) ? u | 0x40 : u);
        if ((u & 0x7fff) >= 0x7f80)
            continue;
        assert_int_equal(hg_f32_to_bf16(hg_bits_float(u << 16 | 0x8000)), u + (u & 1));
        assert_int_equal(hg_f32_to_bf16(hg_bits_float(u << 16 | 0x7fff)), u);
        assert_int_equal(hg_f32_to_bf16(hg_bits_float(u << 16 | 0x8001)), u + 1);
    }
    assert_true(isnan(hg_bf16_to_f32(hg_f32_to_bf16(hg_bits_float(0x7f800001u)))));
}

/* Value of an E4M3 code that is not NaN, by its definition. */
static double e4m3_value(uint32_t u)
{
    int exponent = u >> 3 & 15, mantissa = u & 7;
    double v = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return u & 0x80 ? -v : v;
}

static void all_256_codes_of_e4m3_widen_and_come_back(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 256; u++) {
        float f = hg_e4m3_to_f32((uint8_t)u);
        assert_int_equal(hg_float_bits(f) >> 31, u >> 7);
        if ((u & 0x7f) == 0x7f) {
            assert_true(isnan(f));
            continue;
        }
        assert_true((double)f == e4m3_value(u));
        assert_int_equal(hg_f32_to_e4m3(f), u);
    }
}

static void e4m3_rounds_to_even_and_saturates(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 0x7e; u++) {
        float mid = (float)((e4m3_value(u) + e4m3_value(u + 1)) / 2);
        assert_int_equal(hg_f32_to_e4m3(mid), u + (u & 1));
        assert_int_equal(hg_f32_to_e4m3(nextafterf(mid, 0.0f)), u);
        assert_int_equal(hg_f32_to_e4m3(nextafterf(mid, INFINITY)), u + 1);
        assert_int_equal(hg_f32_to_e4m3(-mid), 0x80 | (u + (u & 1)));
    }
    static const float large[] = {448.00003f, 463.9f, 464, 479, 480, 1e30f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(hg_f32_to_e4m3(large[i]), 0x7e);
        assert_int_equal(hg_f32_to_e4m3(-large[i]), 0xfe);
    }
    assert_int_equal(hg_f32_to_e4m3(0x1p-149f), 0);
    assert_int_equal(hg_f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_65536_halves_widen_to_their_value),
        cmocka_unit_test(all_65536_halves_survive_a_round_trip),
        cmocka_unit_test(midpoints_round_to_even_and_their_neighbours_to_nearest),
        cmocka_unit_test(narrowing_of_special_values),
        cmocka_unit_test(bf16_rounds_to_even_and_keeps_nan),
        cmocka_unit_test(all_256_codes_of_e4m3_widen_and_come_back),
        cmocka_unit_test(e4m3_rounds_to_even_and_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
