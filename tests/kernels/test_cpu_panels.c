/* Packing: what goes into the panels comes out again, and the padding is neutral. */
#include <math.h>

#include "kernels/cpu/panels.h"
#include "kernels/quantise.h"
#include "tests/kernels/parity.h"

static void check(int n_out, int n_in, enum hg_dtype type, enum hg_dtype host)
{
    struct hg_error err = {0};
    struct cpu_panels p;
    size_t n = (size_t)n_out * (size_t)n_in;
    float *x = kt_random(n, (uint64_t)n_out * 1000 + (uint64_t)n_in, 1.5f);
    float *row = aligned_alloc(64, cpu_panels_scratch(n_in));
    float *want = malloc((size_t)n_in * sizeof *want);
    void *encoded = kt_encode(x, n, host);
    struct hg_host_tensor t = {.data = encoded, .type = host};
    assert_non_null(row);
    assert_non_null(want);
    HG_TEST_OK(cpu_panels_init(&p, n_out, n_in, type, &err), err);
    assert_int_equal((uintptr_t)p.data % 64, 0);
    cpu_panels_set(&p, 0, n_out / 2, &t, 0, row); /* two calls: the order of rows does not matter */
    cpu_panels_set(&p, n_out / 2, n_out - n_out / 2, &t, n_out / 2, row);
    for (int o = 0; o < n_out; o++) {
        for (int i = 0; i < n_in; i++)
            row[i] = (float)kt_round(host, (double)x[(size_t)o * (size_t)n_in + (size_t)i]);
        kt_stored(type, row, n_in, want);
        for (int i = 0; i < n_in; i++)
            if (cpu_panels_get(&p, o, i) != want[i])
                fail_msg("[%d, %d] of %s from %s: element %d, %d is %.9g, expected %.9g", n_out,
                         n_in, hg_dtype_name(type), hg_dtype_name(host), o, i,
                         (double)cpu_panels_get(&p, o, i), (double)want[i]);
    }
    cpu_panels_deinit(&p);
    free(encoded);
    free(want);
    free(row);
    free(x);
}

/* A tensor that is quantised already packs to the bytes that its source packs to. */
static void check_quantised(int n_out, int n_in, enum hg_dtype type)
{
    struct hg_error err = {0};
    struct cpu_panels a, b;
    size_t n = (size_t)n_out * (size_t)n_in, code = hg_code_bytes(type, n_in);
    size_t scale = hg_scale_bytes(type, n_in);
    float *x = kt_random(n, (uint64_t)n_out * 77 + (uint64_t)n_in, 1.5f);
    void *scratch = aligned_alloc(64, cpu_panels_scratch(n_in));
    uint8_t *q = malloc((size_t)n_out * code), *s = malloc((size_t)n_out * scale);
    struct hg_host_tensor from = {.data = x, .type = HG_DTYPE_F32};
    struct hg_host_tensor done = {.data = q, .type = type, .scale = s};
    for (int o = 0; o < n_out; o++)
        hg_quantise_row(type, x + (size_t)o * (size_t)n_in, n_in, q + (size_t)o * code,
                        s + (size_t)o * scale);
    HG_TEST_OK(cpu_panels_init(&a, n_out, n_in, type, &err), err);
    HG_TEST_OK(cpu_panels_init(&b, n_out, n_in, type, &err), err);
    cpu_panels_set(&a, 0, n_out, &from, 0, scratch);
    cpu_panels_set(&b, 0, n_out, &done, 0, scratch);
    size_t scales = type == HG_DTYPE_I4 ? (size_t)hg_i4_groups(n_in) * 2 : 4;
    size_t data = cpu_panels_bytes(&a) - (size_t)a.n_pairs * CPU_PAIR * scales;
    assert_memory_equal(a.data, b.data, data);
    for (int o = 0; o < n_out; o++)
        for (int i = 0; i < n_in; i++)
            assert_true(cpu_panels_get(&a, o, i) == cpu_panels_get(&b, o, i));
    cpu_panels_deinit(&a);
    cpu_panels_deinit(&b);
    free(s);
    free(q);
    free(scratch);
    free(x);
}

static void quantised_tensors_pack_to_the_same_bytes(void **state)
{
    static const int shapes[][2] = {{1, 1}, {17, 5}, {33, 8}, {48, 130}, {95, 259}, {40, 1280}};
    static const enum hg_dtype types[] = {HG_DTYPE_I8, HG_DTYPE_F8, HG_DTYPE_I4};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < 3; t++)
            check_quantised(shapes[s][0], shapes[s][1], types[t]);
}

static void unpacking_gives_back_what_was_packed(void **state)
{
    static const int shapes[][2] = {{1, 1},  {16, 4},   {17, 5}, {32, 64},
                                    {33, 7}, {48, 130}, {95, 3}};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < KT_STORES; t++)
            for (size_t h = 0; h < 3; h++)
                check(shapes[s][0], shapes[s][1], kt_stores[t], kt_stores[h]);
}

static void odd_number_of_panels_costs_no_empty_one(void **state)
{
    struct hg_error err = {0};
    struct cpu_panels p;
    (void)state;
    HG_TEST_OK(cpu_panels_init(&p, 48, 10, HG_DTYPE_BF16, &err), err);
    assert_int_equal(cpu_panels_bytes(&p), 3 * 16 * 10 * 2);
    assert_int_equal(cpu_pair_width(&p, 0), 2);
    assert_int_equal(cpu_pair_width(&p, 1), 1);
    cpu_panels_deinit(&p);
}

static void sizes_that_overflow_are_refused(void **state)
{
    struct hg_error err = {0};
    struct cpu_panels p;
    (void)state;
    HG_TEST_FAILS(cpu_panels_init(&p, INT32_MAX, 4, HG_DTYPE_F32, &err), HG_STATUS_TOO_LARGE, err,
                  "2147483647 outputs");
    HG_TEST_FAILS(cpu_panels_init(&p, 4, 200000, HG_DTYPE_I8, &err), HG_STATUS_TOO_LARGE, err,
                  "200000 inputs");
    HG_TEST_FAILS(cpu_panels_init(&p, 0, 4, HG_DTYPE_F32, &err), HG_STATUS_TOO_LARGE, err, "0 out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacking_gives_back_what_was_packed),
        cmocka_unit_test(quantised_tensors_pack_to_the_same_bytes),
        cmocka_unit_test(odd_number_of_panels_costs_no_empty_one),
        cmocka_unit_test(sizes_that_overflow_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
