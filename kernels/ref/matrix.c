/* kernels/ref/matrix.c - stored matrices, prepared activation rows and their dot product.
 *
 * This file is the numerics rule of kernels/backend.h: which rounding a weight of each stored type
 * and the activation that meets it go through. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/ref/ref.h"

float ref_decode(const void *data, enum hg_dtype type, size_t i)
{
    switch (type) {
    case HG_DTYPE_F16:
        return hg_f16_to_f32(((const uint16_t *)data)[i]);
    case HG_DTYPE_BF16:
        return hg_bf16_to_f32(((const uint16_t *)data)[i]);
    case HG_DTYPE_F32:
    default:
        return ((const float *)data)[i];
    }
}

static float round_to(enum hg_dtype type, float v)
{
    switch (type) {
    case HG_DTYPE_F16:
        return hg_f16_to_f32(hg_f32_to_f16(v));
    case HG_DTYPE_BF16:
        return hg_bf16_to_f32(hg_f32_to_bf16(v));
    default:
        return v;
    }
}

enum hg_status ref_matrix_init(struct ref_matrix *m, int rows, int cols, enum hg_dtype type,
                               struct hg_error *err)
{
    memset(m, 0, sizeof *m);
    size_t n = (size_t)rows * (size_t)cols;
    m->rows = rows;
    m->cols = cols;
    m->type = type;
    if (type == HG_DTYPE_I8) {
        m->q = calloc(n, sizeof *m->q);
        m->scale = calloc((size_t)rows, sizeof *m->scale);
    } else {
        m->values = calloc(n, sizeof *m->values);
    }
    if (type == HG_DTYPE_I8 ? !m->q || !m->scale : !m->values) {
        ref_matrix_deinit(m);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "matrix [%d, %d] of %s", rows, cols,
                       hg_dtype_name(type));
    }
    return HG_STATUS_OK;
}

void ref_matrix_deinit(struct ref_matrix *m)
{
    free(m->values);
    free(m->q);
    free(m->scale);
    memset(m, 0, sizeof *m);
}

size_t ref_matrix_bytes(const struct ref_matrix *m)
{
    size_t n = (size_t)m->rows * (size_t)m->cols;
    return m->type == HG_DTYPE_I8 ? n + (size_t)m->rows * sizeof(float) : n * sizeof(float);
}

float ref_quantise(const float *x, int n, int8_t *q)
{
    float max = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
    }
    float scale = max / 127.0f;
    bool usable = finite && scale > 0;
    for (int i = 0; i < n; i++)
        q[i] = usable ? (int8_t)fminf(fmaxf(rintf(x[i] / scale), -127), 127) : 0;
    return finite ? scale : NAN;
}

enum hg_status ref_matrix_set(struct ref_matrix *m, int row0, int n_rows,
                              const struct hg_host_tensor *t, struct hg_error *err)
{
    size_t cols = (size_t)m->cols, first = (size_t)row0;
    if (m->type != HG_DTYPE_I8) {
        float *to = m->values + first * cols;
        for (size_t i = 0; i < (size_t)n_rows * cols; i++)
            to[i] = round_to(m->type, ref_decode(t->data, t->type, i));
        return HG_STATUS_OK;
    }
    float *row = malloc(cols * sizeof *row);
    if (!row)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "row of %zu weights", cols);
    for (size_t i = 0; i < (size_t)n_rows; i++) {
        for (size_t j = 0; j < cols; j++)
            row[j] = ref_decode(t->data, t->type, i * cols + j);
        m->scale[first + i] = ref_quantise(row, m->cols, m->q + (first + i) * cols);
    }
    free(row);
    return HG_STATUS_OK;
}

enum hg_status ref_row_init(struct ref_row *r, int cap, struct hg_error *err)
{
    size_t n = cap > 0 ? (size_t)cap : 1;
    memset(r, 0, sizeof *r);
    r->cap = cap;
    r->f32 = calloc(n, sizeof *r->f32);
    r->bf16 = calloc(n, sizeof *r->bf16);
    r->q = calloc(n, sizeof *r->q);
    if (r->f32 && r->bf16 && r->q)
        return HG_STATUS_OK;
    ref_row_deinit(r);
    return hg_fail(err, HG_STATUS_NO_MEMORY, "activation row of %d values", cap);
}

void ref_row_deinit(struct ref_row *r)
{
    free(r->f32);
    free(r->bf16);
    free(r->q);
    memset(r, 0, sizeof *r);
}

void ref_row_set(struct ref_row *r, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        r->f32[i] = x[i];
        r->bf16[i] = round_to(HG_DTYPE_BF16, x[i]);
    }
    r->scale = ref_quantise(x, n, r->q);
}

double ref_dot(const struct ref_matrix *m, int row, const struct ref_row *x)
{
    size_t at = (size_t)row * (size_t)m->cols;
    if (m->type == HG_DTYPE_I8) {
        int64_t sum = 0;
        for (int i = 0; i < m->cols; i++)
            sum += m->q[at + (size_t)i] * x->q[i];
        return (double)sum * x->scale * m->scale[row];
    }
    const float *v = m->type == HG_DTYPE_BF16 ? x->bf16 : x->f32;
    double sum = 0;
    for (int i = 0; i < m->cols; i++)
        sum += (double)m->values[at + (size_t)i] * v[i];
    return sum;
}
