/* Dispatch, and the primitives of every instruction set against each other and against libm. */
#include <math.h>

#include "common/half.h"
#include "kernels/cpu/features.h"
#include "kernels/cpu/panels.h"
#include "tests/kernels/parity.h"

enum { MOST_ROWS = 30, LD = 40, MAX_TABLES = 8, GROUPS = 5 /* of I4: 77 k groups by 16 */ };

/* Scales of I4, the same in every test. */
static uint16_t w_scale[GROUPS * 32];
static float x_scale[MOST_ROWS * GROUPS];
static int32_t x_sum[MOST_ROWS * GROUPS];

/* Every table this machine can run, the emulations of missing VNNI and BF16 included. */
static int tables(struct cpu_simd *out)
{
    struct cpu_features here = cpu_features_here(), f = here;
    struct hg_error err = {0};
    int n = 0;
    HG_TEST_OK(cpu_select_from("scalar", &f, &out[n++], &err), err);
    if (here.avx2)
        HG_TEST_OK(cpu_select_from("avx2", &f, &out[n++], &err), err);
    for (int i = 0; i < 4 && here.avx512; i++) {
        f.vnni = (i & 1) != 0;
        f.bf16 = (i & 2) != 0;
        if ((f.vnni && !here.vnni) || (f.bf16 && !here.bf16))
            continue;
        HG_TEST_OK(cpu_select_from("avx512", &f, &out[n++], &err), err);
    }
    return n;
}

static void path_is_refused_where_the_processor_lacks_it(void **state)
{
    struct cpu_features none = {0}, old = {.avx2 = true};
    struct cpu_simd s;
    struct hg_error err = {0};
    (void)state;
    HG_TEST_FAILS(cpu_select_from("avx2", &none, &s, &err), HG_STATUS_UNSUPPORTED, err, "AVX2");
    HG_TEST_FAILS(cpu_select_from("avx512", &old, &s, &err), HG_STATUS_UNSUPPORTED, err, "AVX-512");
    HG_TEST_FAILS(cpu_select_from("sse", &old, &s, &err), HG_STATUS_BAD_REQUEST, err, "'sse'");
    HG_TEST_OK(cpu_select_from("auto", &none, &s, &err), err);
    assert_string_equal(s.name, "scalar");
}

static void auto_takes_the_best_that_is_there(void **state)
{
    struct cpu_features f = cpu_features_here();
    struct cpu_simd s;
    struct hg_error err = {0};
    (void)state;
    if (!f.avx512)
        HG_TEST_SKIP("this processor has no AVX-512");
    f.vnni = f.bf16 = false;
    HG_TEST_OK(cpu_select_from("auto", &f, &s, &err), err);
    assert_string_equal(s.name, "avx512");
    f.avx512 = false;
    HG_TEST_OK(cpu_select_from("auto", &f, &s, &err), err);
    assert_string_equal(s.name, "avx2");
}

/* Any mix of bytes is a valid operand but for NaN and infinity: small floats, all int8, E4M3 below
 * 2. Activations of I4 are from -127 on. */
static void fill(void *p, size_t bytes, enum cpu_form form, bool weights, uint64_t seed)
{
    bool f32 = form == CPU_FORM_F32 || (!weights && form != CPU_FORM_BF16);
    for (size_t i = 0; i < bytes / 4; i++) {
        float a = kt_uniform(&seed), b = kt_uniform(&seed);
        uint32_t pair = form == CPU_FORM_F16
                            ? hg_f32_to_f16(a) | (uint32_t)hg_f32_to_f16(b) << 16
                            : hg_f32_to_bf16(a) | (uint32_t)hg_f32_to_bf16(b) << 16;
        bool integers =
            form == CPU_FORM_I8 || form == CPU_FORM_I4 || (weights && form == CPU_FORM_I8_FLAT);
        ((uint32_t *)p)[i] = integers              ? (uint32_t)kt_next(&seed)
                             : f32                 ? hg_float_bits(a)
                             : form == CPU_FORM_F8 ? (uint32_t)kt_next(&seed) & 0xbfbfbfbf
                                                   : pair;
    }
}

static void run_tile(const struct cpu_simd *s, enum cpu_form form, int width, int n_k,
                     const void *w, const char *x, int row, int n_rows, int cut, float *acc)
{
    int64_t x_bytes = cpu_group_x_bytes(form);
    struct cpu_tile t = {.w = w,
                         .w_step = (int64_t)width * cpu_group_bytes(form),
                         .x = x + row * n_k * x_bytes,
                         .ldx = n_k * x_bytes,
                         .w_scale = w_scale,
                         .x_scale = x_scale + row * GROUPS,
                         .x_sum = x_sum + row * GROUPS,
                         .ld_scale = GROUPS,
                         .acc = acc,
                         .ld_acc = LD,
                         .n_k = cut,
                         .n_rows = n_rows,
                         .width = width,
                         .first = true};
    s->tile[form](&t);
    t.w = (const char *)w + cut * t.w_step;
    t.x = x + (row * n_k + cut) * x_bytes;
    t.w_scale += cut / CPU_I4_STEPS * width * CPU_LANES;
    t.x_scale += cut / CPU_I4_STEPS;
    t.x_sum += cut / CPU_I4_STEPS;
    t.n_k = n_k - cut;
    t.first = false;
    s->tile[form](&t);
}

/* Scales, and sums of the activations as a call expects them. */
static void fill_scales(char *x, int n_k)
{
    uint64_t seed = 9;
    memset(x_sum, 0, sizeof x_sum);
    for (int i = 0; i < GROUPS * 32; i++)
        w_scale[i] = hg_f32_to_f16(kt_uniform(&seed) / 1024);
    for (int r = 0; r < MOST_ROWS; r++) {
        for (int g = 0; g < GROUPS; g++)
            x_scale[r * GROUPS + g] = kt_uniform(&seed) / 1024;
        for (int i = 0; i < n_k * 8; i++) {
            int8_t *q = (int8_t *)x + r * n_k * 8 + i;
            *q = *q == -128 ? -127 : *q;
            x_sum[r * GROUPS + i / HG_I4_GROUP] += *q;
        }
    }
}

static void one_form(const struct cpu_simd *s, const struct cpu_simd *base, enum cpu_form form,
                     int width)
{
    static float want[MOST_ROWS * LD], got[MOST_ROWS * LD], alone[LD];
    int n_k = 77, n = 16 * width;
    size_t w_bytes = (size_t)n_k * 128, x_bytes = (size_t)n_k * 8 * MOST_ROWS;
    void *w = malloc(w_bytes);
    char *x = malloc(x_bytes);
    char label[80];
    assert_non_null(w);
    assert_non_null(x);
    fill(w, w_bytes, form, true, 7);
    fill(x, x_bytes, form, false, 8);
    if (form == CPU_FORM_I4)
        fill_scales(x, n_k);
    snprintf(label, sizeof label, "form %d width %d", (int)form, width);
    run_tile(base, form, width, n_k, w, x, 0, MOST_ROWS, n_k, want);
    for (int rows = 1; rows <= MOST_ROWS; rows++) {
        int cut = form == CPU_FORM_I4 ? (1 + rows % (GROUPS - 1)) * CPU_I4_STEPS : rows % 5 * 13;
        run_tile(s, form, width, n_k, w, x, 0, rows, cut, got);
        for (int r = 0; r < rows; r++) {
            run_tile(s, form, width, n_k, w, x, r, 1, n_k, alone);
            kt_identical(label, s->name, got + r * LD, alone, (size_t)n);
        }
    }
    for (int r = 0; r < MOST_ROWS; r++) {
        if (form == CPU_FORM_I8)
            assert_memory_equal(got + r * LD, want + r * LD, (size_t)n * sizeof *got);
        /* 154 products of at most 1, or 77 of at most 128 */
        float bound = form == CPU_FORM_I8_FLAT ? 128 * 1e-5f : 2e-5f;
        for (int i = 0; form != CPU_FORM_I8 && i < n; i++)
            if (!(fabsf(got[r * LD + i] - want[r * LD + i]) <= bound))
                fail_msg("%s on %s: row %d column %d is %.9g, scalar %.9g", label, s->name, r, i,
                         (double)got[r * LD + i], (double)want[r * LD + i]);
    }
    free(w);
    free(x);
}

static void tile_row_is_the_same_alone_in_any_batch_and_for_any_cut_of_k(void **state)
{
    struct cpu_simd t[MAX_TABLES];
    int n = tables(t);
    (void)state;
    for (int i = 0; i < n; i++)
        for (int form = 0; form < CPU_FORM_COUNT; form++)
            for (int width = 1; width <= 2; width++)
                one_form(&t[i], &t[0], (enum cpu_form)form, width);
}

/* Two panels anywhere in memory, the second before or after the first, as attention reads them. */
static void distant_panels(const struct cpu_simd *s, enum cpu_form form)
{
    enum { N_K = 21, GAP = 4096 };
    static char w[3 * GAP], x[N_K * 4 * MOST_ROWS];
    static float got[MOST_ROWS * LD], want[MOST_ROWS * LD];
    fill(w, sizeof w, form, true, 3);
    fill(x, sizeof x, form, false, 4);
    for (int rows = 1; rows <= MOST_ROWS; rows++)
        for (int64_t second = -GAP; second <= GAP; second += 2 * (int64_t)GAP) {
            struct cpu_tile t = {.w = w + GAP,
                                 .w_step = cpu_group_bytes(form),
                                 .x = x,
                                 .ldx = N_K * 4,
                                 .acc = want,
                                 .ld_acc = LD,
                                 .n_k = N_K,
                                 .n_rows = rows,
                                 .width = 1,
                                 .first = true};
            s->tile[form](&t);
            t.w = w + GAP + second;
            t.acc = want + CPU_LANES;
            s->tile[form](&t);
            t.w = w + GAP;
            t.acc = got;
            t.width = 2;
            t.second = second;
            s->tile[form](&t);
            for (int r = 0; r < rows; r++)
                kt_identical("distant panels", s->name, got + r * LD, want + r * LD, CPU_PAIR);
        }
}

static void two_distant_panels_are_two_tiles(void **state)
{
    static const enum cpu_form forms[] = {CPU_FORM_F32, CPU_FORM_F16, CPU_FORM_F8,
                                          CPU_FORM_BF16_FLAT, CPU_FORM_I8_FLAT};
    struct cpu_simd t[MAX_TABLES];
    int n = tables(t);
    (void)state;
    for (int i = 0; i < n; i++)
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
            distant_panels(&t[i], forms[f]);
}

static void exponential_is_within_two_ulp(void **state)
{
    struct cpu_simd t[MAX_TABLES];
    int n = tables(t);
    (void)state;
    for (int i = 0; i < n; i++) {
        double worst = 0;
        for (int k = 0; k < 200000; k += 16) {
            float s[16], x[16];
            for (int l = 0; l < 16; l++)
                s[l] = x[l] = -87.0f + (float)(k + l) * (87.0f / 200000);
            t[i].exp_sum(s, 16, 0);
            for (int l = 0; l < 16; l++) {
                double want = exp((double)x[l]);
                double ulp = ldexp(1, ilogb(want) - 23);
                worst = fmax(worst, fabs((double)s[l] - want) / ulp);
            }
        }
        printf("  exp on %s: worst error %.2f ulp on [-87, 0]\n", t[i].name, worst);
        assert_true(worst <= 2);
        float edge[16] = {-INFINITY, -200, NAN, 0};
        assert_true(isnan(t[i].exp_sum(edge, 16, 0)));
        assert_true(edge[0] == 0 && edge[1] == 0 && isnan(edge[2]) && edge[3] == 1);
    }
}

static void quantisation_is_exact_on_every_path(void **state)
{
    struct cpu_simd t[MAX_TABLES];
    int n = tables(t);
    (void)state;
    for (int len = 1; len < 70; len++) {
        float *x = kt_random((size_t)len, (uint64_t)len, 3);
        int want[70];
        float scale = kt_quantise(x, len, want);
        for (int i = 0; i < n; i++) {
            int8_t q[70];
            int32_t sum, total = 0;
            assert_true(t[i].quantise(x, len, q, &sum) == scale);
            for (int j = 0; j < len; j++) {
                assert_int_equal(q[j], want[j]);
                total += want[j];
            }
            assert_int_equal(sum, total);
        }
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(path_is_refused_where_the_processor_lacks_it),
        cmocka_unit_test(auto_takes_the_best_that_is_there),
        cmocka_unit_test(tile_row_is_the_same_alone_in_any_batch_and_for_any_cut_of_k),
        cmocka_unit_test(two_distant_panels_are_two_tiles),
        cmocka_unit_test(exponential_is_within_two_ulp),
        cmocka_unit_test(quantisation_is_exact_on_every_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
