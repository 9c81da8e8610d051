/* Rotary embedding and KV append: reference.md 5.4 tables, pairing, cache rounding, block tables.
 */
#include <math.h>

#include "common/half.h"
#include "tests/kernels/attention_case.h"
#include "tests/kernels/rope_tables.h"

/* The vectors themselves: theta^(-2i/P) in fp32, then fp16, subnormals kept. */
static void fp16_tables_of_the_reference_follow_from_theta(void **state)
{
    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (int i = 0; i < tables[k].head_dim / 2; i++) {
            float exact = (float)pow(tables[k].theta, -2.0 * i / tables[k].head_dim);
            float table = hg_f16_to_f32(tables[k].bits[i]);
            if ((double)table != kt_round(HG_DTYPE_F16, exact))
                fail_msg("%s entry %d: %.9g rounds to %.9g, table holds %.9g", tables[k].name, i,
                         exact, kt_round(HG_DTYPE_F16, exact), table);
        }
}

/* One head: out[i] = x[i] cos - x[i + P/2] sin, out[i + P/2] = x[i + P/2] cos + x[i] sin. */
static void rotate_formula(const float *x, const float *inv_freq, int pos, int dim, float *y)
{
    for (int i = 0; i < dim; i++) {
        int j = i % (dim / 2);
        volatile float angle = inv_freq[j] * (float)pos; /* an fp32 product on purpose */
        double other = i < dim / 2 ? -x[i + dim / 2] : x[i - dim / 2];
        y[i] = (float)(x[i] * cos(angle) + other * sin(angle));
    }
}

/* An fp32 table: the product of frequency and position is rounded to fp32 before cos and sin, which
 * at position 8191 moves the angle by up to 2.4e-4 rad. */
static void angle_is_an_fp32_product(void **state)
{
    struct kt_targets *ts = *state;
    enum { P = 96 };
    float inv_freq[P / 2], want[P], got[P];
    float *x = kt_random(3 * P, 8, 1);
    int32_t table[512] = {0};
    for (int i = 0; i < P / 2; i++)
        inv_freq[i] = (float)pow(1e4, -2.0 * i / P);
    rotate_formula(x, inv_freq, 8191, P, want);
    for (int t = 0; t < ts->n; t++) {
        struct kt_cache c;
        kt_cache_open(&c, ts->at[t].b, 1, 1, P, HG_DTYPE_F32, 1, 1, inv_freq);
        kt_cache_append(&c, 0, table, 512, 8191, 1, x, got);
        kt_compare("fp32 table position 8191", ts->at[t].name, got, want, P, 3e-7);
        kt_cache_close(&c);
    }
    free(x);
}

static void query_is_rotated_with_the_fp16_tables_at_far_positions(void **state)
{
    struct kt_targets *ts = *state;
    static const int positions[] = {0, 1, 15, 16, 600, 1600, 2047, 4095};
    for (size_t k = 0; k < 3; k++) {
        int dim = tables[k].head_dim, qkv_dim = 4 * dim;
        float inv_freq[64], want[256], got[256];
        for (int i = 0; i < dim / 2; i++)
            inv_freq[i] = hg_f16_to_f32(tables[k].bits[i]);
        float *x = kt_random((size_t)qkv_dim, k, 1);
        int32_t table[256];
        for (int i = 0; i < 256; i++)
            table[i] = 0;
        for (int t = 0; t < ts->n; t++) {
            struct kt_cache c;
            kt_cache_open(&c, ts->at[t].b, 2, 1, dim, HG_DTYPE_F32, 1, 1, inv_freq);
            for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
                char label[64];
                snprintf(label, sizeof label, "%s position %d", tables[k].name, positions[p]);
                for (int h = 0; h < 2; h++)
                    rotate_formula(x + h * dim, inv_freq, positions[p], dim, want + h * dim);
                kt_cache_append(&c, 0, table, 256, positions[p], 1, x, got);
                /* cos and sin rounded to fp32 and one rounding of the sum: 3 * 2^-24 */
                kt_compare(label, ts->at[t].name, got, want, (size_t)(2 * dim), 3e-7);
                /* cuda keeps an fp32 activation as two fp16 halves, 23 bits: within the bound only
                 */
                if (positions[p] == 0 && !kt_is_cuda(&ts->at[t]))
                    kt_identical(label, ts->at[t].name, got, x, (size_t)(2 * dim));
            }
            kt_cache_close(&c);
        }
        free(x);
    }
}

/* q, k, v go in, attention comes out: keys were rotated, values were not, both were rounded to the
 * cache's type and are found again through the block table. */
static void appended_keys_and_values_are_found_by_attention(void **state)
{
    struct kt_targets *ts = *state;
    enum { H = 4, G = 2, P = 24, S = 40, DIM = (H + 2 * G) * P };
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16};
    float inv_freq[P / 2];
    for (int i = 0; i < P / 2; i++)
        inv_freq[i] = powf(100, -2.0f * (float)i / P);
    for (size_t k = 0; k < 3; k++) {
        struct kt_attention_case ac = {.n_heads = H,
                                       .n_kv_heads = G,
                                       .head_dim = P,
                                       .type = types[k],
                                       .n_seqs = 2,
                                       .len = {S, 17},
                                       .n_query = {S, 17}};
        struct kt_attention plain, rotated;
        kt_attention_init(&plain, &ac, 5 + k);
        kt_attention_init(&rotated, &ac, 5 + k); /* what the cache should hold, and rotated q */
        for (int s = 0; s < 2; s++)
            for (int t = 0; t < ac.len[s]; t++)
                for (int h = 0; h < H + G; h++)
                    rotate_formula(plain.qkv[s] + t * DIM + h * P, inv_freq, t, P,
                                   rotated.qkv[s] + t * DIM + h * P);
        enum { N = (S + 17) * H * P };
        float *want = malloc(N * sizeof *want), *got = malloc(N * sizeof *got);
        kt_attention_formula(&rotated, want);
        for (int i = 0; i < ts->n; i++) {
            struct kt_cache c;
            kt_cache_open(&c, ts->at[i].b, H, G, P, types[k], 1, plain.n_blocks, inv_freq);
            kt_attention_fill(&plain, &c);
            kt_attention_run(&rotated, &c, NULL, S + 17, got);
            char label[64];
            snprintf(label, sizeof label, "append then attend, kv %s", hg_dtype_name(types[k]));
            /* an fp32 key may round to the other neighbour in a 16-bit cache: one key in hundreds
             * moves by 2^-8 (bf16) of itself, a score by that times q k / sqrt(P) */
            kt_compare(label, ts->at[i].name, got, want, N,
                       types[k] == HG_DTYPE_BF16  ? 5e-3
                       : types[k] == HG_DTYPE_F16 ? 1e-3
                                                  : 2e-5);
            kt_cache_close(&c);
        }
        free(want);
        free(got);
        kt_attention_deinit(&plain);
        kt_attention_deinit(&rotated);
    }
}

/* A batch of several sequences in one call writes each token to its own block and layer. */
static void one_call_appends_for_many_sequences_and_only_its_layer(void **state)
{
    struct kt_targets *ts = *state;
    enum { P = 4, DIM = 12, T = 5 };
    static const int32_t table[] = {2, 0, 1, 3, 4, 5}; /* [3 sequences, 2 blocks] */
    static const int32_t pos[T] = {0, 15, 16, 3, 31}, seq[T] = {0, 0, 0, 1, 2};
    static const int32_t zero[T] = {0}, none[T] = {-1, -1, -1, -1, -1};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct kt_cache c;
        kt_cache_open(&c, b, 1, 1, P, HG_DTYPE_F32, 2, 6, NULL);
        float x[T * DIM], y[T * P], want[T * P];
        for (int j = 0; j < T * DIM; j++)
            x[j] = (float)j;
        struct hg_plan plan = {.n_tokens = T,
                               .n_seqs = 3,
                               .max_blocks = 2,
                               .token = zero,
                               .pos = pos,
                               .seq = seq,
                               .slot = none,
                               .table = zero,
                               .block_table = table};
        struct hg_rope_kv rope = {&plan, c.inv_freq, c.kv, 1, 1, 1, P};
        void *dx = kt_upload_act(b, x, T * DIM), *dy = kt_alloc_act(b, T * P);
        struct hg_linear_args a = {.w = c.identity,
                                   .n_rows = T,
                                   .x = dx,
                                   .ldx = DIM,
                                   .epilogue = HG_EPILOGUE_ROPE_KV,
                                   .rope = &rope,
                                   .y = dy,
                                   .ldy = P};
        assert_int_equal(b->ops->step_begin(b, &plan), HG_STATUS_OK);
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        struct hg_attention_args at = {&plan, c.kv, 1, 1, 1, P, 1, 1, dy, dy};
        at.y = kt_alloc_act(b, T * P);
        assert_int_equal(b->ops->attention(b, &at), HG_STATUS_OK); /* window 1: its own value */
        kt_download_act(b, y, at.y, T * P);
        for (int j = 0; j < T * P; j++)
            want[j] = x[j / P * DIM + 2 * P + j % P];
        kt_identical("own value", ts->at[i].name, y, want, T * P);
        at.layer = 0; /* still poisoned: nothing was written there */
        assert_int_equal(b->ops->attention(b, &at), HG_STATUS_OK);
        assert_int_equal(b->ops->step_end(b), HG_STATUS_OK);
        kt_download_act(b, y, at.y, T * P);
        for (int j = 0; j < T * P; j++)
            assert_true(isnan(y[j]));
        b->ops->free(b, at.y);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        kt_cache_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp16_tables_of_the_reference_follow_from_theta),
        cmocka_unit_test(query_is_rotated_with_the_fp16_tables_at_far_positions),
        cmocka_unit_test(angle_is_an_fp32_product),
        cmocka_unit_test(appended_keys_and_values_are_found_by_attention),
        cmocka_unit_test(one_call_appends_for_many_sequences_and_only_its_layer),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
