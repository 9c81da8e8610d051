/* kernels/ref/linear.c - optional RMSNorm, base weight, H-LoRA adapters, epilogue; row by row. */
#include <math.h>

#include "kernels/ref/ref.h"

void ref_base_row(struct ref_backend *r, const struct hg_weight *w, const float *x, int lo, int n,
                  double *sum)
{
    ref_row_set(&r->x, x, w->n_in);
    for (int i = 0; i < n; i++)
        sum[i] = ref_dot(&w->w, lo + i, &r->x) + w->bias[lo + i];
}

/* sum += B (gate * scaling * (A x)) over the rows of the part; see reference.md 6. x is in r->x. */
static void add_adapter(struct ref_backend *r, const struct ref_adapter *a, double *sum)
{
    int per_expert = a->rank / a->n_experts;
    for (int e = 0; e < a->n_experts; e++)
        r->gate[e] = ref_dot(&a->route, e, &r->x);
    ref_softmax(r->gate, a->n_experts);
    for (int j = 0; j < a->rank; j++)
        r->row_out[j] = (float)(r->gate[j / per_expert] * a->scaling * ref_dot(&a->a, j, &r->x));
    ref_row_set(&r->z, r->row_out, a->rank);
    for (int i = 0; i < a->b.rows; i++)
        sum[i] += ref_dot(&a->b, i, &r->z);
}

static void linear_row(struct ref_backend *r, const struct hg_weight *w, const float *x,
                       int32_t slot, double *sum)
{
    ref_base_row(r, w, x, 0, w->n_out, sum);
    for (int p = 0; p < w->n_parts && slot >= 0; p++)
        if (w->parts[p].adapters[slot].rank)
            add_adapter(r, &w->parts[p].adapters[slot], sum + w->parts[p].row0);
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

static void finish_row(struct ref_backend *r, const struct hg_linear_args *a, int row,
                       const double *sum)
{
    int n = a->w->n_out;
    float *y = (float *)a->y + row * a->ldy;
    const float *residual = (const float *)a->residual;
    switch (a->epilogue) {
    case HG_EPILOGUE_NONE:
        for (int i = 0; i < n; i++)
            y[i] = (float)sum[i];
        break;
    case HG_EPILOGUE_RESIDUAL:
        for (int i = 0; i < n; i++)
            y[i] = (float)(residual[row * a->ld_residual + i] + sum[i]);
        break;
    case HG_EPILOGUE_SWIGLU:
        for (int i = 0; i < n / 2; i++)
            y[i] = (float)(sum[i] * sigmoid(sum[i]) * sum[n / 2 + i]);
        break;
    case HG_EPILOGUE_QUICK_GELU:
        for (int i = 0; i < n; i++)
            y[i] = (float)(sum[i] * sigmoid(1.702 * sum[i]));
        break;
    case HG_EPILOGUE_GELU:
        for (int i = 0; i < n; i++)
            y[i] = (float)(0.5 * sum[i] * (1 + erf(sum[i] * 0.70710678118654752440)));
        break;
    case HG_EPILOGUE_ROPE_KV:
        ref_rope_kv_row(r, a->rope, row, a->rounding, sum, y);
        break;
    }
}

static int weight_rank(const struct hg_weight *w, int32_t slot)
{
    int sum = 0;
    for (int p = 0; p < w->n_parts && slot >= 0; p++)
        sum += w->parts[p].adapters[slot].rank + w->parts[p].adapters[slot].n_experts;
    return sum;
}

static enum hg_status check(const struct ref_backend *r, const struct hg_linear_args *a)
{
    const struct hg_weight *w = a->w;
    const struct hg_backend_limits *l = &r->limits;
    if (a->n_rows > l->max_rows || w->n_in > l->max_in || w->n_out > l->max_out)
        return ref_refuse("linear: %d rows of [%d, %d] exceed the reserved %d rows of [%d, %d]",
                          a->n_rows, w->n_out, w->n_in, l->max_rows, l->max_out, l->max_in);
    for (int i = 0; a->slot && i < a->n_rows; i++)
        if (a->slot[i] < -1 || a->slot[i] >= HG_MAX_PLUGINS ||
            weight_rank(w, a->slot[i]) > l->max_rank)
            return ref_refuse("linear: row %d: slot %d, reserved rank %d", i, a->slot[i],
                              l->max_rank);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->n_out % 2)
        return ref_refuse("linear: SwiGLU of %d outputs", w->n_out);
    if (a->epilogue != HG_EPILOGUE_ROPE_KV)
        return HG_STATUS_OK;
    const struct hg_rope_kv *k = a->rope;
    if (a->n_rows != k->plan->n_tokens || k->head_dim % 2 ||
        w->n_out != (k->n_heads + 2 * k->n_kv_heads) * k->head_dim)
        return ref_refuse("linear: %d rows of %d outputs for %d tokens, %d + 2 * %d heads of %d",
                          a->n_rows, w->n_out, k->plan->n_tokens, k->n_heads, k->n_kv_heads,
                          k->head_dim);
    return HG_STATUS_OK;
}

enum hg_status ref_linear(struct hg_backend *b, const struct hg_linear_args *a)
{
    struct ref_backend *r = ref_of(b);
    HG_TRY(check(r, a));
    for (int i = 0; i < a->n_rows; i++) {
        const float *x = (const float *)a->x + i * a->ldx;
        if (a->norm) {
            ref_rmsnorm(x, a->norm, a->norm_eps, a->w->n_in, a->rounding, r->normed);
            x = r->normed;
        }
        int32_t slot = a->slot ? a->slot[i] : -1;
        if (a->rounding)
            ref_rounded_row(r, a->w, x, 0, a->w->n_out, slot, r->sum);
        else
            linear_row(r, a->w, x, slot, r->sum);
        if (a->rounding && a->epilogue != HG_EPILOGUE_ROPE_KV)
            ref_rounded_finish(a, i, r->sum);
        else
            finish_row(r, a, i, r->sum);
    }
    return HG_STATUS_OK;
}
