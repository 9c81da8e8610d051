/* kernels/ref/matrix.c - stored matrices, prepared activation rows and their dot product.
 *
 * This file is the numerics rule of kernels/backend.h: which rounding a weight of each stored type
 * and the activation that meets it go through. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/quantise.h"
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

/* Scales of a row; 0: the type has none. */
static size_t n_scales(enum hg_dtype type, int cols)
{
    return type == HG_DTYPE_I4 ? (size_t)hg_i4_groups(cols) : hg_dtype_is_quantised(type) ? 1 : 0;
}

static bool is_integer(enum hg_dtype type)
{
    return type == HG_DTYPE_I8 || type == HG_DTYPE_I4;
}

enum hg_status ref_matrix_init(struct ref_matrix *m, int rows, int cols, enum hg_dtype type,
                               struct hg_error *err)
{
    memset(m, 0, sizeof *m);
    size_t n = (size_t)rows * (size_t)cols, scales = n_scales(type, cols);
    m->rows = rows;
    m->cols = cols;
    m->type = type;
    if (is_integer(type))
        m->q = calloc(n, sizeof *m->q);
    else
        m->values = calloc(n, sizeof *m->values);
    if (scales)
        m->scale = calloc((size_t)rows * scales, sizeof *m->scale);
    if ((!m->q && !m->values) || (scales && !m->scale)) {
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
    size_t n = (size_t)m->rows * (size_t)m->cols * (m->q ? 1 : sizeof(float));
    return n + (size_t)m->rows * n_scales(m->type, m->cols) * sizeof(float);
}

/* Row `row` from fp32; `code` is scratch [cols]. */
static void quantise_row(struct ref_matrix *m, size_t row, const float *x, uint8_t *code)
{
    size_t n = (size_t)m->cols;
    if (m->type == HG_DTYPE_I8) {
        m->scale[row] = hg_quantise_i8(x, m->cols, m->q + row * n);
        return;
    }
    if (m->type == HG_DTYPE_F8) {
        m->scale[row] = hg_quantise_f8(x, m->cols, code);
        for (size_t i = 0; i < n; i++)
            m->values[row * n + i] = hg_e4m3_to_f32(code[i]);
        return;
    }
    float *scale = m->scale + row * n_scales(m->type, m->cols);
    for (size_t i = 0; i < n; i += HG_I4_GROUP) {
        size_t len = n - i < HG_I4_GROUP ? n - i : HG_I4_GROUP;
        *scale++ = hg_f16_to_f32(hg_quantise_i4(x + i, (int)len, m->q + row * n + i));
    }
}

/* Row `row` from row `from` of a tensor that is quantised already. */
static void take_row(struct ref_matrix *m, size_t row, const struct hg_host_tensor *t, size_t from)
{
    size_t n = (size_t)m->cols, scales = n_scales(m->type, m->cols);
    const uint8_t *code = (const uint8_t *)t->data + from * hg_code_bytes(m->type, m->cols);
    for (size_t i = 0; i < n; i++) {
        if (m->type == HG_DTYPE_I8)
            m->q[row * n + i] = (int8_t)code[i];
        else if (m->type == HG_DTYPE_F8)
            m->values[row * n + i] = hg_e4m3_to_f32(code[i]);
        else
            m->q[row * n + i] = (int8_t)hg_i4_code(code, (int)i);
    }
    for (size_t i = 0; i < scales; i++)
        m->scale[row * scales + i] =
            m->type == HG_DTYPE_I4 ? hg_f16_to_f32(((const uint16_t *)t->scale)[from * scales + i])
                                   : ((const float *)t->scale)[from];
}

enum hg_status ref_matrix_set(struct ref_matrix *m, int row0, int n_rows,
                              const struct hg_host_tensor *t, struct hg_error *err)
{
    size_t cols = (size_t)m->cols, first = (size_t)row0;
    if (!hg_dtype_is_quantised(m->type)) {
        float *to = m->values + first * cols;
        for (size_t i = 0; i < (size_t)n_rows * cols; i++)
            to[i] = round_to(m->type, ref_decode(t->data, t->type, i));
        return HG_STATUS_OK;
    }
    if (hg_dtype_is_quantised(t->type)) {
        for (size_t i = 0; i < (size_t)n_rows; i++)
            take_row(m, first + i, t, i);
        return HG_STATUS_OK;
    }
    float *row = malloc(cols * sizeof *row);
    uint8_t *code = malloc(cols);
    for (size_t i = 0; row && code && i < (size_t)n_rows; i++) {
        for (size_t j = 0; j < cols; j++)
            row[j] = ref_decode(t->data, t->type, i * cols + j);
        quantise_row(m, first + i, row, code);
    }
    enum hg_status status = HG_STATUS_OK;
    if (!row || !code)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "row of %zu weights", cols);
    free(code);
    free(row);
    return status;
}

enum hg_status ref_row_init(struct ref_row *r, int cap, struct hg_error *err)
{
    size_t n = cap > 0 ? (size_t)cap : 1;
    memset(r, 0, sizeof *r);
    r->cap = cap;
    r->f32 = calloc(n, sizeof *r->f32);
    r->bf16 = calloc(n, sizeof *r->bf16);
    r->q = calloc(n, sizeof *r->q);
    r->group_q = calloc(n, sizeof *r->group_q);
    r->group_scale = calloc((size_t)hg_i4_groups((int)n), sizeof *r->group_scale);
    if (r->f32 && r->bf16 && r->q && r->group_q && r->group_scale)
        return HG_STATUS_OK;
    ref_row_deinit(r);
    return hg_fail(err, HG_STATUS_NO_MEMORY, "activation row of %d values", cap);
}

void ref_row_deinit(struct ref_row *r)
{
    free(r->f32);
    free(r->bf16);
    free(r->q);
    free(r->group_q);
    free(r->group_scale);
    memset(r, 0, sizeof *r);
}

void ref_row_set(struct ref_row *r, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        r->f32[i] = x[i];
        r->bf16[i] = round_to(HG_DTYPE_BF16, x[i]);
    }
    r->scale = hg_quantise_i8(x, n, r->q);
    for (int i = 0; i < n; i += HG_I4_GROUP)
        r->group_scale[i / HG_I4_GROUP] =
            hg_quantise_i8(x + i, n - i < HG_I4_GROUP ? n - i : HG_I4_GROUP, r->group_q + i);
}

static double dot_i8(const struct ref_matrix *m, size_t row, const struct ref_row *x)
{
    int64_t sum = 0;
    const int8_t *q = m->q + row * (size_t)m->cols;
    for (int i = 0; i < m->cols; i++)
        sum += q[i] * x->q[i];
    return (double)sum * x->scale * m->scale[row];
}

static double dot_i4(const struct ref_matrix *m, size_t row, const struct ref_row *x)
{
    double sum = 0;
    const int8_t *q = m->q + row * (size_t)m->cols;
    const float *scale = m->scale + row * n_scales(m->type, m->cols);
    for (int g = 0; g < hg_i4_groups(m->cols); g++) {
        int32_t of_group = 0;
        for (int i = g * HG_I4_GROUP; i < m->cols && i < (g + 1) * HG_I4_GROUP; i++)
            of_group += q[i] * x->group_q[i];
        sum += (double)of_group * x->group_scale[g] * scale[g];
    }
    return sum;
}

double ref_dot(const struct ref_matrix *m, int row, const struct ref_row *x)
{
    if (m->type == HG_DTYPE_I8)
        return dot_i8(m, (size_t)row, x);
    if (m->type == HG_DTYPE_I4)
        return dot_i4(m, (size_t)row, x);
    const float *v = m->type == HG_DTYPE_BF16 ? x->bf16 : x->f32;
    const float *w = m->values + (size_t)row * (size_t)m->cols;
    double sum = 0;
    for (int i = 0; i < m->cols; i++)
        sum += (double)w[i] * v[i];
    return m->scale ? sum * m->scale[row] : sum;
}
