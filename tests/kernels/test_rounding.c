/* hg_rounding: every op rounds where PyTorch's half kernels do (reference.md 4-6, 8, 19.6), to the
 * bit. Inputs lie on coarse grids, so that sums are exact in any order; formulas are written apart
 * from kernels/ref. And no backend flushes subnormal binary16 weights. */
#include <math.h>

#include "common/half.h"
#include "tests/kernels/parity.h"
#include "tests/kernels/rope_tables.h"

enum { K = 32, ROWS = 24, R = 12, E = 4, N = 10 };

static double h(double v)
{
    return kt_round(HG_DTYPE_F16, (double)(float)v);
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

/* n multiples of `step` in -range..range. */
static float *grid(size_t n, uint64_t seed, float step, int range)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = step * (float)(kt_below(&seed, 2 * range + 1) - range);
    return x;
}

static struct hg_backend *ref_of_targets(void **state)
{
    struct kt_targets *ts = *state;
    assert_true(ts->at[0].b->ops->rounds_fp16);
    for (int i = 1; i < ts->n; i++)
        assert_false(ts->at[i].b->ops->rounds_fp16); /* else it belongs into these tests */
    return ts->at[0].b;
}

/* One linear over ROWS rows; y on the host. desc.parts[0] is filled by the caller. */
static float *run_linear(struct hg_backend *b, struct hg_weight_desc *desc,
                         struct hg_linear_args *a, const float *x, int n_y)
{
    struct hg_weight *w = NULL;
    struct hg_error err = {0};
    size_t n = ROWS * (size_t)n_y;
    desc->name = "w";
    desc->n_in = K;
    desc->n_parts = 1;
    desc->store = HG_DTYPE_F16;
    HG_TEST_OK(b->ops->weight_create(b, desc, &w, &err), err);
    void *dx = kt_upload_act(b, x, ROWS * K), *dy = kt_alloc_act(b, n);
    float *y = calloc(n, sizeof *y);
    a->w = w;
    a->n_rows = ROWS;
    a->x = dx;
    a->ldx = K;
    a->y = dy;
    a->ldy = n_y;
    a->rounding = HG_ROUND_FP16;
    assert_int_equal(b->ops->linear(b, a), HG_STATUS_OK);
    kt_download_act(b, y, dy, n);
    b->ops->free(b, dx);
    b->ops->free(b, dy);
    b->ops->weight_free(b, w);
    return y;
}

static void same(const char *what, const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((double)got[i] != want[i])
            fail_msg("%s: value %zu: expected %.9g, got %.9g", what, i, want[i], (double)got[i]);
}

/* The quotient is rounded before its product with the weight: once would give other numbers. */
static void rmsnorm_rounds_twice(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    float *x = grid(ROWS * K, 1, 1.0f / 64, 200), *norm = kt_random(K, 2, 1.3f);
    float *identity = calloc(K * K, sizeof *identity);
    double want[ROWS * K], once[ROWS * K];
    int traps = 0;
    for (int i = 0; i < K; i++)
        identity[i * K + i] = 1;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < K; i++)
            sum += (double)x[r * K + i] * x[r * K + i];
        double inverse = 1 / sqrt(sum / K + (double)1e-5f);
        for (int i = 0; i < K; i++) {
            want[r * K + i] = h(h(norm[i]) * h(x[r * K + i] * inverse));
            once[r * K + i] = h(norm[i] * x[r * K + i] * inverse);
            traps += want[r * K + i] != once[r * K + i];
        }
    }
    assert_true(traps > 20);
    struct hg_weight_desc d = {.parts = {{.w = {identity, HG_DTYPE_F32}, .n_out = K}}};
    float *dev = kt_upload(b, norm, K * sizeof *norm);
    float *y = run_linear(b, &d, &(struct hg_linear_args){.norm = dev, .norm_eps = 1e-5f}, x, K);
    same("rmsnorm", y, want, ROWS * K);
    b->ops->free(b, dev);
    free(y);
    free(identity);
    free(norm);
    free(x);
}

struct lora {
    float *x, *w, *bias, *a, *b, *route;
    float scaling;
};

/* reference.md 6, one row at a time: rank R, E experts, N outputs. */
static void lora_row(const struct lora *l, const float *x, double *y)
{
    double gate[E], z[R], max = -INFINITY, sum = 0;
    for (int e = 0; e < E; e++) {
        double dot = 0;
        for (int i = 0; i < K; i++)
            dot += (double)l->route[e * K + i] * x[i];
        gate[e] = h(dot);
        max = fmax(max, gate[e]);
    }
    for (int e = 0; e < E; e++)
        sum += gate[e] = exp(gate[e] - max);
    for (int j = 0; j < R; j++) {
        double dot = 0;
        for (int i = 0; i < K; i++)
            dot += (double)l->a[j * K + i] * x[i];
        z[j] = h(h(gate[j / (R / E)] / sum) * h(h(dot) * l->scaling));
    }
    for (int o = 0; o < N; o++) {
        double base = h(l->bias[o]), add = 0;
        for (int i = 0; i < K; i++)
            base += (double)l->w[o * K + i] * x[i];
        for (int j = 0; j < R; j++)
            add += (double)l->b[o * R + j] * z[j];
        y[o] = h(h(base) + h(add));
    }
}

static void adapters_round_at_every_tensor_of_the_reference(void **state)
{
    static const float scalings[] = {8, 3.3f};
    struct hg_backend *b = ref_of_targets(state);
    for (int s = 0; s < 2; s++) {
        struct lora l = {.x = grid(ROWS * K, 3, 1.0f / 32, 90),
                         .w = grid(N * K, 4, 1.0f / 64, 60),
                         .bias = grid(N, 5, 1.0f / 16, 30),
                         .a = grid(R * K, 6, 1.0f / 128, 60),
                         .b = grid(N * R, 7, 1.0f / 64, 20),
                         .route = grid(E * K, 8, 1.0f / 64, 20),
                         .scaling = scalings[s]};
        struct hg_weight_desc d = {.parts = {{.w = {l.w, HG_DTYPE_F32},
                                              .bias = {l.bias, HG_DTYPE_F32},
                                              .n_out = N,
                                              .adapters = {[1] = {.a = {l.a, HG_DTYPE_F32},
                                                                  .b = {l.b, HG_DTYPE_F32},
                                                                  .route = {l.route, HG_DTYPE_F32},
                                                                  .rank = R,
                                                                  .n_experts = E,
                                                                  .scaling = l.scaling}}}}};
        int32_t slot[ROWS];
        double want[ROWS * N];
        for (int r = 0; r < ROWS; r++) {
            slot[r] = 1;
            lora_row(&l, l.x + r * K, want + r * N);
        }
        float *y = run_linear(b, &d, &(struct hg_linear_args){.slot = slot}, l.x, N);
        same("H-LoRA", y, want, ROWS * N);
        float *all[] = {y, l.x, l.w, l.bias, l.a, l.b, l.route};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
    }
}

static double epilogue(enum hg_epilogue e, double u, double up, double residual)
{
    switch (e) {
    case HG_EPILOGUE_RESIDUAL:
        return h(residual + u);
    case HG_EPILOGUE_SWIGLU:
        return h(up * h(u * sigmoid(u)));
    case HG_EPILOGUE_QUICK_GELU:
        return h(u * h(sigmoid(h((double)1.702f * u))));
    case HG_EPILOGUE_GELU:
        return h(0.5 * u * (1 + erf(u / sqrt(2))));
    default:
        return u;
    }
}

static void epilogues_round_between_their_kernels(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    float *x = grid(ROWS * K, 9, 1.0f / 32, 50), *w = grid(K * K, 10, 1.0f / 64, 20);
    float *residual = grid(ROWS * K, 11, 1.0f / 64, 500);
    void *dr = kt_upload_act(b, residual, ROWS * K);
    for (int e = HG_EPILOGUE_NONE; e <= HG_EPILOGUE_GELU; e++) {
        int n = e == HG_EPILOGUE_SWIGLU ? K / 2 : K;
        double want[ROWS * K], u[K];
        for (int r = 0; r < ROWS; r++) {
            for (int o = 0; o < K; o++) {
                double dot = 0;
                for (int i = 0; i < K; i++)
                    dot += (double)w[o * K + i] * x[r * K + i];
                u[o] = h(dot);
            }
            for (int o = 0; o < n; o++)
                want[r * n + o] = epilogue((enum hg_epilogue)e, u[o], u[(o + K / 2) % K],
                                           (double)residual[r * K + o]);
        }
        struct hg_weight_desc d = {.parts = {{.w = {w, HG_DTYPE_F32}, .n_out = K}}};
        struct hg_linear_args a = {
            .epilogue = (enum hg_epilogue)e, .residual = dr, .ld_residual = K};
        float *y = run_linear(b, &d, &a, x, n);
        char label[32];
        snprintf(label, sizeof label, "epilogue %d", e);
        same(label, y, want, ROWS * (size_t)n);
        free(y);
    }
    b->ops->free(b, dr);
    free(residual);
    free(w);
    free(x);
}

/* ---- attention ------------------------------------------------------------------------------- */

enum { P = 8, S = 7 };

/* Row t of S sees keys 0..last[t]; eager: q is scaled before the product in CLIP, after it else. */
static void attend(const float *qkv, int t, int last, bool eager, bool clip, float scale, double *y)
{
    double score[S], max = -INFINITY, sum = 0;
    for (int j = 0; j <= last; j++) {
        double dot = 0;
        for (int i = 0; i < P; i++) {
            double q = qkv[t * 3 * P + i];
            dot += (eager && clip ? h(q * scale) : q) * qkv[j * 3 * P + P + i];
        }
        score[j] = !eager ? dot * scale : clip ? h(dot) : h(h(dot) * scale);
        max = fmax(max, score[j]);
    }
    for (int j = 0; j <= last; j++)
        sum += score[j] = exp(score[j] - max);
    for (int i = 0; i < P; i++) {
        y[i] = 0;
        for (int j = 0; j <= last; j++) {
            double p = score[j] / sum;
            y[i] += (eager ? h(p) : p) * qkv[j * 3 * P + 2 * P + i];
        }
        y[i] = h(y[i]);
    }
}

static const enum hg_rounding both[] = {HG_ROUND_FP16, HG_ROUND_FP16_SDPA};
static const float scale = 0.35355339059327373f; /* 8^-0.5: no power of two */

static void full_attention_is_eager_or_fused(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    float *qkv = grid(S * 3 * P, 12, 1.0f / 64, 150), y[S * P];
    void *d = kt_upload_act(b, qkv, S * 3 * P), *dy = kt_alloc_act(b, S * P);
    double want[2][S * P];
    for (int k = 0; k < 2; k++) {
        struct hg_attention_full_args a = {.n_batch = 1,
                                           .n_rows = S,
                                           .n_heads = 1,
                                           .head_dim = P,
                                           .scale = scale,
                                           .rounding = both[k],
                                           .q = d,
                                           .k = hg_act_at(b, d, P),
                                           .v = hg_act_at(b, d, 2 * P),
                                           .ld = 3 * P,
                                           .y = dy};
        for (int t = 0; t < S; t++)
            attend(qkv, t, S - 1, k == 0, true, scale, want[k] + t * P);
        assert_int_equal(b->ops->attention_full(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, S * P);
        same(k ? "fused" : "eager", y, want[k], S * P);
    }
    assert_memory_not_equal(want[0], want[1], sizeof want[0]);
    b->ops->free(b, d);
    b->ops->free(b, dy);
    free(qkv);
}

/* One sequence of S tokens with the rotation of `inv_freq`; y[0] the rotated q, y[1] attention. */
static void causal(struct hg_backend *b, const float *qkv, const float *inv_freq, int pos0,
                   enum hg_rounding rounding, float q_out[S * P], float y[S * P])
{
    enum { BLOCKS = 8 };
    int32_t token[S] = {0}, pos[S], seq[S] = {0}, slot[S], table[S] = {0}, blocks[4096];
    struct hg_plan plan = {.n_tokens = S,
                           .n_prompt = S,
                           .n_seqs = 1,
                           .max_blocks = 4096,
                           .token = token,
                           .pos = pos,
                           .seq = seq,
                           .slot = slot,
                           .table = table,
                           .block_table = blocks};
    struct hg_kv_desc desc = {1, BLOCKS, 1, P, HG_DTYPE_F16};
    struct hg_kv *kv = NULL;
    struct hg_weight *w = NULL;
    struct hg_error err = {0};
    float identity[9 * P * P] = {0};
    for (int i = 0; i < 3 * P; i++)
        identity[i * 3 * P + i] = 1;
    for (int i = 0; i < S; i++) {
        pos[i] = pos0 + i;
        slot[i] = -1;
    }
    for (int i = 0; i < 4096; i++)
        blocks[i] = i % BLOCKS;
    struct hg_weight_desc d = {.name = "identity",
                               .n_in = 3 * P,
                               .n_parts = 1,
                               .store = HG_DTYPE_F16,
                               .parts = {{.w = {identity, HG_DTYPE_F32}, .n_out = 3 * P}}};
    HG_TEST_OK(b->ops->kv_create(b, &desc, &kv, &err), err);
    HG_TEST_OK(b->ops->weight_create(b, &d, &w, &err), err);
    void *freq = kt_upload(b, inv_freq, P / 2 * sizeof *inv_freq);
    void *x = kt_upload_act(b, qkv, S * 3 * P), *q = kt_alloc_act(b, S * P);
    void *dy = kt_alloc_act(b, S * P);
    struct hg_rope_kv rope = {&plan, freq, kv, 0, 1, 1, P};
    struct hg_linear_args l = {.w = w,
                               .n_rows = S,
                               .n_prompt = S,
                               .x = x,
                               .ldx = 3 * P,
                               .epilogue = HG_EPILOGUE_ROPE_KV,
                               .rounding = rounding,
                               .rope = &rope,
                               .y = q,
                               .ldy = P};
    struct hg_attention_args a = {&plan, kv, 0, 1, 1, P, 0, scale, rounding, q, dy};
    assert_int_equal(b->ops->linear(b, &l), HG_STATUS_OK);
    kt_download_act(b, q_out, q, S * P);
    if (pos0 == 0)
        assert_int_equal(b->ops->attention(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dy, S * P);
    void *all[] = {freq, x, q, dy};
    for (int i = 0; i < 4; i++)
        b->ops->free(b, all[i]);
    b->ops->weight_free(b, w);
    b->ops->kv_free(b, kv);
}

static void causal_attention_is_eager_or_fused(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    float *qkv = grid(S * 3 * P, 13, 1.0f / 64, 150), zero[P / 2] = {0}, q[S * P], y[S * P];
    double want[2][S * P];
    for (int k = 0; k < 2; k++) {
        causal(b, qkv, zero, 0, both[k], q, y);
        for (int t = 0; t < S; t++)
            attend(qkv, t, t, k == 0, false, scale, want[k] + t * P);
        same(k ? "fused" : "eager", y, want[k], S * P);
    }
    assert_memory_not_equal(want[0], want[1], sizeof want[0]);
    free(qkv);
}

/* The last four frequencies of each published table: those of L14 and XL32 are subnormal. */
static void rotation_rounds_cosine_products_and_sum(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        float *qkv = grid(S * 3 * P, 14 + k, 1.0f / 64, 150), freq[P / 2], q[S * P], y[S * P];
        double want[S * P];
        int pos0 = 2000, turned = 0;
        for (int i = 0; i < P / 2; i++)
            freq[i] = hg_f16_to_f32(tables[k].bits[tables[k].head_dim / 2 - P / 2 + i]);
        causal(b, qkv, freq, pos0, HG_ROUND_FP16, q, y);
        for (int t = 0; t < S; t++)
            for (int i = 0; i < P / 2; i++) {
                double angle = freq[i] * (float)(pos0 + t), c = h(cos(angle)), s = h(sin(angle));
                double x0 = qkv[t * 3 * P + i], x1 = qkv[t * 3 * P + P / 2 + i];
                want[t * P + i] = h(h(x0 * c) + h(-x1 * s));
                want[t * P + P / 2 + i] = h(h(x1 * c) + h(x0 * s));
                turned += want[t * P + i] != x0;
            }
        assert_true(turned > S); /* a flushed table would leave them where they are */
        same(tables[k].name, q, want, S * P);
        free(qkv);
    }
}

static void layernorm_rounds_once_at_its_end(void **state)
{
    struct hg_backend *b = ref_of_targets(state);
    float *x = grid(ROWS * K, 17, 1.0f / 64, 200), *w = kt_random(K, 18, 1), y[ROWS * K];
    float *bias = kt_random(K, 19, 1);
    void *dx = kt_upload_act(b, x, ROWS * K);
    float *dw = kt_upload(b, w, K * sizeof *w), *db = kt_upload(b, bias, K * sizeof *bias);
    double want[ROWS * K];
    struct hg_layernorm_args a = {ROWS, K, dx, dw, db, 1e-5f, HG_ROUND_FP16, dx};
    assert_int_equal(b->ops->layernorm(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dx, ROWS * K);
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, var = 0;
        for (int i = 0; i < K; i++)
            mean += x[r * K + i] / (double)K;
        for (int i = 0; i < K; i++)
            var += (x[r * K + i] - mean) * (x[r * K + i] - mean) / K;
        for (int i = 0; i < K; i++)
            want[r * K + i] =
                h((x[r * K + i] - mean) / sqrt(var + (double)1e-5f) * h(w[i]) + h(bias[i]));
    }
    same("layernorm", y, want, ROWS * K);
    b->ops->free(b, dx);
    b->ops->free(b, dw);
    b->ops->free(b, db);
    free(bias);
    free(w);
    free(x);
}

/* reference.md 17: subnormal FP16 weights are kept. 2^-24 is the smallest there is. */
static void subnormal_weights_are_not_flushed(void **state)
{
    struct kt_targets *ts = *state;
    enum { IN = 64, OUT = 40 };
    uint16_t bits[OUT * IN];
    float *x = grid(IN, 20, 1, 900), want[OUT] = {0}, y[OUT];
    for (int i = 0; i < OUT * IN; i++)
        bits[i] = (uint16_t)((i * 7919 % 1024) | (i % 3 ? 0 : 0x8000));
    for (int o = 0; o < OUT; o++) {
        double sum = 0;
        for (int i = 0; i < IN; i++)
            sum += (double)hg_f16_to_f32(bits[o * IN + i]) * x[i];
        want[o] = (float)sum;
    }
    for (int t = 0; t < ts->n; t++) {
        struct hg_backend *b = ts->at[t].b;
        struct hg_weight *w = NULL;
        struct hg_error err = {0};
        struct hg_weight_desc d = {.name = "subnormal",
                                   .n_in = IN,
                                   .n_parts = 1,
                                   .store = HG_DTYPE_F16,
                                   .parts = {{.w = {bits, HG_DTYPE_F16}, .n_out = OUT}}};
        HG_TEST_OK(b->ops->weight_create(b, &d, &w, &err), err);
        void *dx = kt_upload_act(b, x, IN), *dy = kt_alloc_act(b, OUT);
        struct hg_linear_args a = {.w = w, .n_rows = 1, .x = dx, .ldx = IN, .y = dy, .ldy = OUT};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, OUT);
        kt_compare("subnormal weights", ts->at[t].name, y, want, OUT, 1e-6);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        b->ops->weight_free(b, w);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_rounds_twice),
        cmocka_unit_test(adapters_round_at_every_tensor_of_the_reference),
        cmocka_unit_test(epilogues_round_between_their_kernels),
        cmocka_unit_test(full_attention_is_eager_or_fused),
        cmocka_unit_test(causal_attention_is_eager_or_fused),
        cmocka_unit_test(rotation_rounds_cosine_products_and_sum),
        cmocka_unit_test(layernorm_rounds_once_at_its_end),
        cmocka_unit_test(subnormal_weights_are_not_flushed),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
