/* Weights and caches of more than 2^31 elements, touched at both ends: a 32-bit offset would wrap.
 *
 * With $HG_TEST_LARGE=1 on a card (tools/gpu, stage offsets): an int8 weight of 2^31 + 2 M elements
 * (2 GiB; 4.3 GB on the host), and an f16 cache of 2^31 + 4 M elements each of K and V (8.6 GB).
 * Without it, or on the emulation, the same steps with small ones, which rehearse the test and
 * prove nothing about offsets. */
#include <math.h>

#include "tests/kernels/attention_case.h"
#include "tests/kernels/linear_case.h"

static bool is_large(const struct kt_target *t)
{
    const char *large = getenv("HG_TEST_LARGE");
    return large && strcmp(large, "1") == 0 && strncmp(t->name, "cuda", 4) == 0;
}

/* ---- weight ------------------------------------------------------------------------------------
 */

enum { ENDS = 16 /* outputs that are looked at, first and last */ };

/* Element i of row r: cheap to make, different in every row. */
static float element(int64_t r, int64_t i)
{
    return (float)((r * 31 + i * 7 + (r >> 7) * 3) % 61 - 30) / 64;
}

static uint16_t *make_weight(int64_t n, int64_t k)
{
    uint16_t *w = malloc((size_t)(n * k) * sizeof *w);
    assert_non_null(w);
    float row[61];
    uint16_t bits[61];
    for (int64_t i = 0; i < 61; i++)
        row[i] = (float)(i - 30) / 64;
    uint16_t *encoded = kt_encode(row, 61, HG_DTYPE_BF16);
    memcpy(bits, encoded, sizeof bits);
    free(encoded);
    for (int64_t r = 0; r < n; r++) {
        int64_t at = (r * 31 + (r >> 7) * 3) % 61;
        for (int64_t i = 0; i < k; i++, at = (at + 7) % 61)
            w[r * k + i] = bits[at];
    }
    return w;
}

static void check_row(const char *target, int64_t r, int64_t k, const float *x, float got)
{
    float *w = malloc((size_t)k * sizeof *w);
    assert_non_null(w);
    for (int64_t i = 0; i < k; i++)
        w[i] = element(r, i);
    float want = (float)kt_dot(HG_DTYPE_I8, w, x, (int)k);
    free(w);
    if (!(fabsf(got - want) <= 1e-5f * (1 + fabsf(want))))
        fail_msg("%s: output %lld is %.9g, expected %.9g", target, (long long)r, (double)got,
                 (double)want);
}

static void check_weight(const struct kt_target *t, int64_t n, int64_t k)
{
    struct hg_backend *b = t->b;
    struct hg_error err = {0};
    struct hg_weight *weight = NULL;
    float *x = kt_random((size_t)k, 1, 1), *y = malloc((size_t)n * sizeof *y);
    uint16_t *w = make_weight(n, k);
    const struct hg_backend_limits limits = {.max_rows = 256,
                                             .max_in = (int)k,
                                             .max_out = (int)n,
                                             .max_rank = 16,
                                             .max_context = 64,
                                             .max_conv = 1};
    struct hg_weight_desc d = {.name = "large", .n_in = (int)k, .n_parts = 1, .store = HG_DTYPE_I8};
    d.parts[0].w = (struct hg_host_tensor){.data = w, .type = HG_DTYPE_BF16};
    d.parts[0].n_out = (int)n;
    assert_non_null(y);
    HG_TEST_OK(b->ops->reserve(b, &limits, &err), err);
    HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
    free(w);
    void *dx = kt_upload_act(b, x, (size_t)k), *dy = kt_alloc_act(b, (size_t)n);
    struct hg_linear_args a = {.w = weight, .n_rows = 1, .x = dx, .ldx = k, .y = dy, .ldy = n};
    assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dy, (size_t)n);
    for (int64_t i = 0; i < ENDS; i++) {
        check_row(t->name, i, k, x, y[i]);
        check_row(t->name, n - 1 - i, k, x, y[n - 1 - i]);
    }
    for (int64_t r = ENDS; r < n; r += n / 97 + 1) /* and between */
        check_row(t->name, r, k, x, y[r]);
    printf("# %s: weight of %lld elements\n", t->name, (long long)(n * k));
    b->ops->free(b, dx);
    b->ops->free(b, dy);
    b->ops->weight_free(b, weight);
    free(x);
    free(y);
}

static void a_weight_beyond_2_31_elements_is_read_at_both_ends(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++)
        if (is_large(&ts->at[i]))
            check_weight(&ts->at[i], 262400, 8192);
        else
            check_weight(&ts->at[i], 200, 512);
}

/* ---- cache -------------------------------------------------------------------------------------
 */

/* A sequence whose first block is the pool's last and whose last block is its first. */
static void check_cache(const struct kt_target *t, int n_blocks, int heads)
{
    enum { P = 128, N = 3 * HG_BLOCK_TOKENS };
    size_t n = (size_t)(N * heads * P);
    struct kt_cache cache;
    struct kt_attention a;
    struct kt_attention_case c = {.n_heads = heads,
                                  .n_kv_heads = heads,
                                  .head_dim = P,
                                  .type = HG_DTYPE_F16,
                                  .n_seqs = 1,
                                  .len = {N},
                                  .n_query = {N}};
    kt_attention_init(&a, &c, 3);
    for (int i = 0; i < a.max_blocks; i++)
        a.table[i] = i % 2 ? i / 2 : n_blocks - 1 - i / 2;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    kt_attention_formula(&a, want);
    kt_cache_open_zero(&cache, t->b, heads, heads, P, HG_DTYPE_F16, 1, n_blocks, NULL);
    kt_attention_fill(&a, &cache);
    kt_attention_run(&a, &cache, NULL, N, got);
    kt_compare("cache, both ends", t->name, got, want, n, 2e-5);
    printf("# %s: cache of 2 x %lld elements\n", t->name,
           (long long)n_blocks * HG_BLOCK_TOKENS * heads * P);
    kt_cache_close(&cache);
    kt_attention_deinit(&a);
    free(want);
    free(got);
}

static void a_cache_beyond_2_31_elements_is_used_at_both_ends(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) /* 131072 blocks of 16 x 8 x 128: 2^31 */
        if (is_large(&ts->at[i]))
            check_cache(&ts->at[i], 131072 + 256, 8);
        else if (i == 0 || kt_is_cuda(&ts->at[i]))
            check_cache(&ts->at[i], 6, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cache_beyond_2_31_elements_is_used_at_both_ends),
        cmocka_unit_test(a_weight_beyond_2_31_elements_is_read_at_both_ends),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
