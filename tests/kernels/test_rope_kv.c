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
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
    float inv_freq[P / 2];
    for (int i = 0; i < P / 2; i++)
        inv_freq[i] = powf(100, -2.0f * (float)i / P);
    for (size_t k = 0; k < 4; k++) {
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
            /* an fp32 key may round to the other neighbour in a smaller cache: one key in hundreds
             * moves by 2^-8 of itself (bf16) or of the largest beside it (int8), a score by that
             * times q k / sqrt(P) */
            kt_compare(label, ts->at[i].name, got, want, N,
                       types[k] == HG_DTYPE_I8     ? 5e-3
                       : types[k] == HG_DTYPE_BF16 ? 5e-3
                       : types[k] == HG_DTYPE_F16  ? 1e-3
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
static void check_one_call(const struct kt_targets *ts, enum hg_dtype type)
{
    enum { P = 4, DIM = 12, T = 5 };
    static const int32_t table[] = {2, 0, 1, 3, 4, 5}; /* [3 sequences, 2 blocks] */
    static const int32_t pos[T] = {0, 15, 16, 3, 31}, seq[T] = {0, 0, 0, 1, 2};
    static const int32_t zero[T] = {0}, none[T] = {-1, -1, -1, -1, -1};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct kt_cache c;
        kt_cache_open(&c, b, 1, 1, P, type, 2, 6, NULL);
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
        assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        struct hg_attention_args at = {&plan, c.kv, 1, 1, 1, P, 1, 1, HG_ROUND_NEVER, dy, dy};
        at.y = kt_alloc_act(b, T * P);
        assert_int_equal(b->ops->attention(b, &at), HG_STATUS_OK); /* window 1: its own value */
        kt_download_act(b, y, at.y, T * P);
        for (int t = 0; t < T; t++) {
            double cached[P];
            kt_cached(type, x + t * DIM + 2 * P, P, cached);
            for (int j = 0; j < P; j++)
                want[t * P + j] = (float)cached[j];
        }
        if (type == HG_DTYPE_F32)
            kt_identical("own value", ts->at[i].name, y, want, T * P);
        else /* cuda cuts weight times scale to 17 bits */
            kt_compare("own value, int8", ts->at[i].name, y, want, T * P, 8e-6);
        at.layer = 0; /* still poisoned: nothing was written there */
        assert_int_equal(b->ops->attention(b, &at), HG_STATUS_OK);
        assert_int_equal(b->ops->step_end(b, NULL), HG_STATUS_OK);
        kt_download_act(b, y, at.y, T * P);
        for (int j = 0; j < T * P; j++)
            assert_true(isnan(y[j]));
        b->ops->free(b, at.y);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        kt_cache_close(&c);
    }
}

static void one_call_appends_for_many_sequences_and_only_its_layer(void **state)
{
    check_one_call(*state, HG_DTYPE_F32);
    check_one_call(*state, HG_DTYPE_I8);
}

/* ---- rows of int8 ------------------------------------------------------------------------------
 */

enum { MAX_P = 96 };

/* y[r][i] = the attention of query row r, whose q is q[i] for one-hot, over keys 0..pos. */
static void ask(struct kt_cache *c, int n_rows, const float *q, int pos, int window, float *y)
{
    struct hg_backend *b = c->b;
    int32_t at[MAX_P], seq[MAX_P], zero[MAX_P] = {0}, none[MAX_P], table[MAX_P] = {0};
    size_t n = (size_t)(n_rows * c->head_dim);
    for (int i = 0; i < n_rows; i++) {
        at[i] = pos;
        seq[i] = i; /* many sequences in one block: a sequence asks once per position */
        none[i] = -1;
    }
    struct hg_plan plan = {.n_tokens = n_rows,
                           .n_seqs = n_rows,
                           .max_blocks = 1,
                           .token = zero,
                           .pos = at,
                           .seq = seq,
                           .slot = none,
                           .table = zero,
                           .block_table = table};
    void *dq = kt_upload_act(b, q, n), *dy = kt_alloc_act(b, n);
    struct hg_attention_args a = {&plan, c->kv,          0,  1, 1, c->head_dim, window,
                                  1,     HG_ROUND_NEVER, dq, dy};
    assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(b->ops->attention(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->step_end(b, NULL), HG_STATUS_OK);
    kt_download_act(b, y, dy, n);
    b->ops->free(b, dq);
    b->ops->free(b, dy);
}

/* The bytes of a cached value: alone in the window its weight is 1 and the output is q * scale. */
static void read_value(struct kt_cache *c, int pos, float scale, int *q, double *scale_error)
{
    float zeros[MAX_P] = {0}, y[MAX_P];
    ask(c, 1, zeros, pos, 1, y);
    for (int i = 0; i < c->head_dim; i++) {
        q[i] = (int)lrintf(y[i] / scale);
        double error = fabs((double)y[i] / ((double)q[i] * scale) - 1);
        if (q[i] && error > *scale_error)
            *scale_error = error;
    }
}

/* The bytes of key 1, next to key 0 = 0: values are 0 and 1, so row i, which asks with
 * q = one-hot(i) * r, gets y = sigmoid(r k[i]), and k[i] = log(y / (1 - y)) / r. */
static void read_key(struct kt_cache *c, float scale, int *q)
{
    int dim = c->head_dim;
    float ratio = 4 / (127 * scale);
    float *hot = calloc((size_t)(dim * dim), sizeof *hot),
          *y = malloc(sizeof(float[MAX_P * MAX_P]));
    assert_non_null(hot);
    for (int i = 0; i < dim; i++)
        hot[i * dim + i] = ratio;
    ask(c, dim, hot, 1, 0, y);
    for (int i = 0; i < dim; i++) {
        double p = (double)y[i * dim];
        q[i] = (int)lrint(log(p / (1 - p)) / (double)(ratio * scale));
    }
    free(hot);
    free(y);
}

/* 16 bits of mantissa, so that every backend's linear hands them on as they are. */
static void fill_row(float *x, int dim, uint64_t seed, float unit)
{
    for (int i = 0; i < dim; i++)
        x[i] = (float)(kt_below(&seed, 65535) - 32767) / 32768 * unit;
}

static void check_rows(const struct kt_target *t, int dim, const float *row)
{
    struct kt_cache c;
    int want[MAX_P], got[MAX_P];
    int32_t table = 0;
    float x[2 * 3 * MAX_P] = {0}; /* tokens of [q | k | v] */
    double scale_error = 0;
    float scale = kt_quantise(row, dim, want);
    kt_cache_open(&c, t->b, 1, 1, dim, HG_DTYPE_I8, 1, 1, NULL);
    memcpy(x + 5 * dim, row, (size_t)dim * sizeof *row); /* value of token 1 */
    kt_cache_append(&c, 0, &table, 1, 0, 2, x, NULL);
    read_value(&c, 1, scale, got, &scale_error);
    assert_memory_equal(got, want, (size_t)dim * sizeof *want);
    /* its scale: an fp32 number, times a weight that cuda cuts to 17 bits */
    if (!(scale_error <= 8e-6))
        fail_msg("%s: head dim %d: a scale is off by %g", t->name, dim, scale_error);
    memcpy(x + 4 * dim, row, (size_t)dim * sizeof *row); /* key of token 1 */
    for (int i = 0; i < dim; i++)
        x[5 * dim + i] = 1;
    kt_cache_append(&c, 0, &table, 1, 0, 2, x, NULL);
    read_key(&c, scale, got);
    assert_memory_equal(got, want, (size_t)dim * sizeof *want);
    kt_cache_close(&c);
}

/* Where all backends quantise the same fp32 row, all keep the same bytes: those of the rule. */
static void int8_rows_hold_the_bytes_of_the_rule(void **state)
{
    static const int dims[] = {2, 24, 34, 40, 64, 96};
    struct kt_targets *ts = *state;
    float row[MAX_P];
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
            for (int unit = -12; unit <= 12; unit += 8) {
                fill_row(row, dims[k], k + 7, ldexpf(1, unit));
                check_rows(&ts->at[i], dims[k], row);
            }
            for (int j = 0; j < dims[k]; j++) /* scale 1: ties go to the even neighbour */
                row[j] = (float)(j % 11 - 5) + 0.5f;
            row[dims[k] - 1] = -127;
            check_rows(&ts->at[i], dims[k], row);
        }
}

/* A row of zeros is zeros; one value alone is 127 or -127 of its scale, however small it is. */
static void int8_rows_of_extreme_values(void **state)
{
    static const float values[] = {0, 1, -3e-30f, 1e30f, -3e38f};
    enum { P = 20 };
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            struct kt_cache c;
            int32_t table = 0;
            float x[3 * P] = {0}, zeros[P] = {0}, y[P];
            x[2 * P + 7] = values[k];
            kt_cache_open(&c, ts->at[i].b, 1, 1, P, HG_DTYPE_I8, 1, 1, NULL);
            kt_cache_append(&c, 0, &table, 1, 0, 1, x, NULL);
            ask(&c, 1, zeros, 0, 1, y);
            kt_compare("a single value", ts->at[i].name, y, x + 2 * P, P, 8e-6);
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
        cmocka_unit_test(int8_rows_hold_the_bytes_of_the_rule),
        cmocka_unit_test(int8_rows_of_extreme_values),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
