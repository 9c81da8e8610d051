/* kernels/ref/attention_full.c - every row of a group attends to all rows of the group. */
#include <stdlib.h>

#include "kernels/ref/ref.h"

static void attend(const struct hg_attention_full_args *a, int64_t group, int row, int head,
                   double *score)
{
    int dim = a->head_dim;
    int64_t at = (int64_t)head * dim;
    const float *q = (const float *)a->q + (group + row) * a->ld + at;
    const float *k = (const float *)a->k + group * a->ld + at;
    const float *v = (const float *)a->v + group * a->ld + at;
    float *y = (float *)a->y + (group + row) * a->n_heads * dim + at;
    bool eager = a->rounding == HG_ROUND_FP16;

    for (int j = 0; j < a->n_rows; j++) {
        double dot = 0;
        for (int i = 0; i < dim; i++)
            dot += (eager ? (double)ref_half(q[i] * a->scale) : (double)q[i]) * k[j * a->ld + i];
        score[j] = eager ? ref_half(dot) : dot * a->scale;
    }
    ref_softmax(score, a->n_rows);
    for (int j = 0; eager && j < a->n_rows; j++)
        score[j] = ref_half(score[j]);
    for (int i = 0; i < dim; i++) {
        double sum = 0;
        for (int j = 0; j < a->n_rows; j++)
            sum += score[j] * v[j * a->ld + i];
        y[i] = a->rounding ? ref_half(sum) : (float)sum;
    }
}

enum hg_status ref_attention_full(struct hg_backend *b, const struct hg_attention_full_args *a)
{
    (void)b;
    double *score = malloc((size_t)(a->n_rows > 0 ? a->n_rows : 1) * sizeof *score);
    if (!score)
        return HG_STATUS_NO_MEMORY;
    for (int i = 0; i < a->n_batch; i++)
        for (int row = 0; row < a->n_rows; row++)
            for (int h = 0; h < a->n_heads; h++)
                attend(a, (int64_t)i * a->n_rows, row, h, score);
    free(score);
    return HG_STATUS_OK;
}
