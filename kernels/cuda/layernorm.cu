/* kernels/cuda/layernorm.cu - y = (x - mean) / sqrt(var + eps) * weight + bias, biased variance.
 *
 * x, y [n_rows, D] fp32, y may be x; weight, bias [D] fp32. One block per row, a thread takes
 * groups of 4 neighbours (16 bytes, or element by element where D is not a multiple of 4; the
 * grouping and so the sums are the same). Three passes over the row: mean, centred squares, output;
 * the second and third hit the L1 cache, so the bound is bytes: 4 D read and 4 D written per row.
 * fp32 sums of a fixed order: groups, threads, warps. Definition: kernels/ref/layernorm.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { MOST_THREADS = 256 };

/* ---- device helpers -------------------------------------------------------------------------- */

/* Elements i..i+3 of a row of n; those past its end are `fill`. */
template <bool vector> DEV float4 load4(const float *x, int i, int n, float fill)
{
    if (vector)
        return *reinterpret_cast<const float4 *>(x + i);
    float4 v = {x[i], fill, fill, fill};
    if (i + 1 < n)
        v.y = x[i + 1];
    if (i + 2 < n)
        v.z = x[i + 2];
    if (i + 3 < n)
        v.w = x[i + 3];
    return v;
}

template <bool vector> DEV void store4(float *y, int i, int n, float4 v)
{
    if (vector) {
        *reinterpret_cast<float4 *>(y + i) = v;
        return;
    }
    y[i] = v.x;
    if (i + 1 < n)
        y[i + 1] = v.y;
    if (i + 2 < n)
        y[i + 2] = v.z;
    if (i + 3 < n)
        y[i + 3] = v.w;
}

DEV float sum4(float4 v)
{
    return (v.x + v.y) + (v.z + v.w);
}

/* ---- kernel ---------------------------------------------------------------------------------- */

template <bool vector>
static __global__ void __launch_bounds__(MOST_THREADS)
    layernorm_kernel(const float *x, const float *weight, const float *bias, float eps, float *y,
                     int dim)
{
    DYN_SMEM(float, scratch);
    int first = (int)threadIdx.x * 4, step = (int)blockDim.x * 4;
    float sum = 0, squares = 0;
    x += (int64_t)blockIdx.x * dim;
    y += (int64_t)blockIdx.x * dim;
    for (int i = first; i < dim; i += step)
        sum += sum4(load4<vector>(x, i, dim, 0));
    float mean = block_sum(sum, scratch) / (float)dim;
    for (int i = first; i < dim; i += step) {
        float4 v = load4<vector>(x, i, dim, mean);
        float4 d = {v.x - mean, v.y - mean, v.z - mean, v.w - mean};
        squares += sum4({d.x * d.x, d.y * d.y, d.z * d.z, d.w * d.w});
    }
    float inverse = 1 / sqrtf(block_sum(squares, scratch) / (float)dim + eps);
    for (int i = first; i < dim; i += step) {
        float4 v = load4<vector>(x, i, dim, 0), w = load4<vector>(weight, i, dim, 0);
        float4 shift = load4<vector>(bias, i, dim, 0);
        store4<vector>(
            y, i, dim,
            {(v.x - mean) * inverse * w.x + shift.x, (v.y - mean) * inverse * w.y + shift.y,
             (v.z - mean) * inverse * w.z + shift.z, (v.w - mean) * inverse * w.w + shift.w});
    }
}

/* ---- launcher -------------------------------------------------------------------------------- */

extern "C" enum hg_status cuda_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const float *x = static_cast<const float *>(a->x);
    float *y = static_cast<float *>(a->y);
    unsigned threads = cuda_threads(a->dim / 4 + 1, MOST_THREADS), rows = (unsigned)a->n_rows;
    size_t shared = 32 * sizeof(float);
    if (a->n_rows == 0 || a->dim == 0)
        return HG_STATUS_OK;
    if (a->dim % 4 == 0 && cuda_aligned(x) && cuda_aligned(y) && cuda_aligned(a->weight) &&
        cuda_aligned(a->bias))
        LAUNCH((layernorm_kernel<true>), rows, threads, shared, c->stream, x, a->weight, a->bias,
               a->eps, y, a->dim);
    else
        LAUNCH((layernorm_kernel<false>), rows, threads, shared, c->stream, x, a->weight, a->bias,
               a->eps, y, a->dim);
    return cuda_status(c, "layernorm");
}
