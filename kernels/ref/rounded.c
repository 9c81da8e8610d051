/* kernels/ref/rounded.c - a linear and its epilogues with the rounding points of the reference's
 * FP16 run (hg_rounding in kernels/backend.h; reference.md 5.4, 5.7, 6, 8.4, 8.5).
 *
 * Every value that PyTorch keeps in a half tensor is on the grid of binary16 here; what its kernels
 * keep in fp32 inside is fp32 or better. */
#include <math.h>

#include "common/half.h"
#include "kernels/ref/ref.h"

float ref_half(double v)
{
    return hg_f16_to_f32(hg_f32_to_f16((float)v));
}

/* sum = h(sum + h(B z)), z_j = h(g h(h(A x) scaling)), g = h(softmax(h(R x))). x is in r->x. */
static void add_adapter(struct ref_backend *r, const struct ref_adapter *a, double *sum)
{
    int per_expert = a->rank / a->n_experts;
    for (int e = 0; e < a->n_experts; e++)
        r->gate[e] = ref_half(ref_dot(&a->route, e, &r->x));
    ref_softmax(r->gate, a->n_experts);
    for (int j = 0; j < a->rank; j++) {
        double g = ref_half(r->gate[j / per_expert]);
        double shrunk = ref_half((double)ref_half(ref_dot(&a->a, j, &r->x)) * a->scaling);
        r->row_out[j] = ref_half(g * shrunk);
    }
    ref_row_set(&r->z, r->row_out, a->rank);
    for (int i = 0; i < a->b.rows; i++)
        sum[i] = ref_half(sum[i] + ref_half(ref_dot(&a->b, i, &r->z)));
}

void ref_rounded_row(struct ref_backend *r, const struct hg_weight *w, const float *x, int lo,
                     int n, int32_t slot, double *sum)
{
    ref_row_set(&r->x, x, w->n_in);
    for (int i = 0; i < n; i++)
        sum[i] = ref_half(ref_dot(&w->w, lo + i, &r->x) + ref_half(w->bias[lo + i]));
    for (int p = 0; p < w->n_parts && slot >= 0; p++)
        if (w->parts[p].adapters[slot].rank)
            add_adapter(r, &w->parts[p].adapters[slot], sum + w->parts[p].row0);
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

void ref_rounded_finish(const struct hg_linear_args *a, int row, const double *sum)
{
    int n = a->w->n_out;
    float *y = (float *)a->y + row * a->ldy;
    const float *residual = (const float *)a->residual;
    for (int i = 0; i < (a->epilogue == HG_EPILOGUE_SWIGLU ? n / 2 : n); i++)
        switch (a->epilogue) {
        case HG_EPILOGUE_RESIDUAL:
            y[i] = ref_half((double)residual[row * a->ld_residual + i] + sum[i]);
            break;
        case HG_EPILOGUE_SWIGLU:
            y[i] = ref_half((double)ref_half(sum[i] * sigmoid(sum[i])) * sum[n / 2 + i]);
            break;
        case HG_EPILOGUE_QUICK_GELU:
            y[i] = ref_half(sum[i] * ref_half(sigmoid(ref_half((double)1.702F * sum[i]))));
            break;
        case HG_EPILOGUE_GELU:
            y[i] = ref_half(0.5 * sum[i] * (1 + erf(sum[i] * 0.70710678118654752440)));
            break;
        case HG_EPILOGUE_NONE:
        case HG_EPILOGUE_ROPE_KV: /* ref_rope_kv_row */
            y[i] = (float)sum[i];
            break;
        }
}

void ref_rounded_rotate(const double *x, const float *inv_freq, int32_t pos, int head_dim, float *y)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float angle = inv_freq[i] * (float)pos;
        double c = ref_half(cos((double)angle)), s = ref_half(sin((double)angle));
        y[i] = ref_half((double)ref_half(x[i] * c) + ref_half(-x[i + half] * s));
        y[i + half] = ref_half((double)ref_half(x[i + half] * c) + ref_half(x[i] * s));
    }
}
