#include "tests/kernels/head_case.h"

#include <math.h>

void kt_head_init(struct kt_head *h, int n_tokens, int dim, int n_out, enum hg_dtype store,
                  uint64_t seed)
{
    memset(h, 0, sizeof *h);
    h->n_tokens = n_tokens;
    h->dim = dim;
    h->n_out = n_out;
    h->store = store;
    h->n_vocab[0] = 61;
    h->n_vocab[1] = 90;
    h->ld = 93;
    h->x = kt_random((size_t)(n_tokens * dim), kt_next(&seed), 1);
    for (int s = 0; s < 2; s++) {
        h->norm[s] = kt_random((size_t)dim, kt_next(&seed), 0.7f);
        h->head[s] =
            kt_random((size_t)(h->n_vocab[s] * dim), kt_next(&seed), 1 / sqrtf((float)dim));
    }
    for (int i = 0; i < n_out; i++) {
        int s = kt_below(&seed, 2), a = kt_below(&seed, h->n_vocab[s]);
        h->row[i] = kt_below(&seed, n_tokens);
        h->set[i] = s * 2;
        h->lo[i] = i % 3 ? a : 0;
        h->hi[i] = i % 3 ? a + 1 + kt_below(&seed, h->n_vocab[s] - a) : h->n_vocab[s];
    }
}

void kt_head_deinit(struct kt_head *h)
{
    free(h->x);
    free(h->norm[0]);
    free(h->norm[1]);
    free(h->head[0]);
    free(h->head[1]);
}

void kt_head_run(const struct kt_head *h, struct hg_backend *b, const int *pick, int n, float *y)
{
    const struct hg_backend_ops *ops = b->ops;
    struct hg_error err = {0};
    struct hg_weight *w[2] = {NULL, NULL};
    for (int s = 0; s < 2; s++) {
        struct hg_weight_desc d = {.name = "head", .n_in = h->dim, .n_parts = 1};
        d.parts[0].w = (struct hg_host_tensor){.data = h->head[s], .type = HG_DTYPE_F32};
        d.parts[0].n_out = h->n_vocab[s];
        d.store = h->store;
        HG_TEST_OK(ops->weight_create(b, &d, &w[s], &err), err);
    }
    int32_t row[64], set[64], zero[64] = {0};
    struct hg_sample_params sample[64] = {{0}};
    for (int i = 0; i < n; i++) {
        int at = pick ? pick[i] : i;
        row[i] = h->row[at];
        set[i] = h->set[at];
        sample[i].lo = h->lo[at];
        sample[i].hi = h->hi[at];
        sample[i].top_p = sample[i].repetition_penalty = 1;
    }
    struct hg_plan plan = {.n_tokens = h->n_tokens,
                           .n_seqs = 1,
                           .n_out = n,
                           .max_blocks = 1,
                           .token = zero,
                           .pos = zero,
                           .seq = zero,
                           .slot = zero,
                           .table = zero,
                           .block_table = zero,
                           .out_row = row,
                           .out_table = set,
                           .sample = sample};
    size_t n_logits = (size_t)n * (size_t)h->ld;
    memset(y, 0, n_logits * sizeof *y);
    void *x = kt_upload_act(b, h->x, (size_t)(h->n_tokens * h->dim));
    void *norm0 = kt_upload(b, h->norm[0], (size_t)h->dim * sizeof(float));
    void *norm1 = kt_upload(b, h->norm[1], (size_t)h->dim * sizeof(float));
    float *logits = kt_upload(b, y, n_logits * sizeof *y);
    struct hg_head_args a = {
        &plan,  x,    {norm0, NULL, norm1, NULL}, 1e-5f, HG_ROUND_NEVER, {w[0], NULL, w[1], NULL},
        logits, h->ld};
    assert_int_equal(ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(ops->head(b, &a), HG_STATUS_OK);
    assert_int_equal(ops->step_end(b, NULL), HG_STATUS_OK);
    assert_int_equal(ops->sync(b), HG_STATUS_OK);
    assert_int_equal(ops->download(b, y, logits, n_logits * sizeof *y), HG_STATUS_OK);
    assert_int_equal(ops->sync(b), HG_STATUS_OK);
    kt_note(b, y, n_logits);
    ops->free(b, x);
    ops->free(b, norm0);
    ops->free(b, norm1);
    ops->free(b, logits);
    ops->weight_free(b, w[0]);
    ops->weight_free(b, w[1]);
}

void kt_head_formula(const struct kt_head *h, float *y)
{
    float *x = malloc((size_t)h->dim * sizeof *x);
    assert_non_null(x);
    memset(y, 0, (size_t)h->n_out * (size_t)h->ld * sizeof *y);
    for (int i = 0; i < h->n_out; i++) {
        const float *from = h->x + h->row[i] * h->dim;
        double square = 0;
        for (int j = 0; j < h->dim; j++)
            square += (double)from[j] * from[j];
        for (int j = 0; j < h->dim; j++)
            x[j] = (float)(from[j] / sqrt(square / h->dim + 1e-5f) * h->norm[h->set[i] / 2][j]);
        for (int v = h->lo[i]; v < h->hi[i]; v++)
            y[i * h->ld + v - h->lo[i]] =
                (float)kt_dot(h->store, h->head[h->set[i] / 2] + v * h->dim, x, h->dim);
    }
    free(x);
}
