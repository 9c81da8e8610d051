/* kernels/cuda/argmax.cu - lowest index of the largest value of each row; NaN counts as largest.
 *
 * x [n_rows, ldx] of D columns, fp32; index [n_rows] goes to the host. One block per row; value and
 * index of an element become one 64-bit number (the float's place in the order of floats above the
 * inverted index), so the answer is its maximum and the order of comparisons cannot matter. 16
 * bytes per load where rows start on them. Bound by bytes: 4 D read per row. Definition:
 * kernels/ref/argmax.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { MOST_THREADS = 512 };

/* ---- device helpers -------------------------------------------------------------------------- */

DEV uint64_t better(uint64_t best, float v, unsigned i)
{
    uint64_t rank = (uint64_t)(v != v ? 0xffffffffu : float_order(v)) << 32 | ~i;
    return rank > best ? rank : best;
}

/* ---- kernel ---------------------------------------------------------------------------------- */

template <bool vector>
static __global__ void __launch_bounds__(MOST_THREADS)
    argmax_kernel(const float *x, int64_t ldx, unsigned dim, int32_t *index)
{
    DYN_SMEM(uint64_t, scratch);
    uint64_t best = 0;
    x += blockIdx.x * ldx;
    unsigned n_groups = vector ? dim / 4 : 0;
    for (unsigned i = threadIdx.x; i < n_groups; i += blockDim.x) {
        float4 v = reinterpret_cast<const float4 *>(x)[i];
        best = better(best, v.x, i * 4);
        best = better(best, v.y, i * 4 + 1);
        best = better(best, v.z, i * 4 + 2);
        best = better(best, v.w, i * 4 + 3);
    }
    for (unsigned i = n_groups * 4 + threadIdx.x; i < dim; i += blockDim.x)
        best = better(best, x[i], i);
    best = block_max(best, scratch);
    if (threadIdx.x == 0)
        index[blockIdx.x] = (int32_t) ~(uint32_t)best;
}

/* ---- launcher -------------------------------------------------------------------------------- */

extern "C" enum hg_status cuda_argmax(struct hg_backend *b, const struct hg_argmax_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const float *x = static_cast<const float *>(a->x);
    int32_t *index = static_cast<int32_t *>(c->scratch.result);
    size_t bytes = (size_t)a->n_rows * sizeof *index, shared = 32 * sizeof(uint64_t);
    unsigned threads = cuda_threads(a->dim / 4, MOST_THREADS);
    if (a->n_rows == 0)
        return HG_STATUS_OK;
    if (bytes > c->scratch.result_bytes || a->dim < 1)
        return cuda_refuse("argmax: %d rows of %d, reserved %zu bytes of results", a->n_rows,
                           a->dim, c->scratch.result_bytes);
    if (a->ldx % 4 == 0 && cuda_aligned(x))
        LAUNCH((argmax_kernel<true>), (unsigned)a->n_rows, threads, shared, c->stream, x, a->ldx,
               (unsigned)a->dim, index);
    else
        LAUNCH((argmax_kernel<false>), (unsigned)a->n_rows, threads, shared, c->stream, x, a->ldx,
               (unsigned)a->dim, index);
    HG_TRY(cuda_status(c, "argmax"));
    return cuda_download(b, a->index, index, bytes);
}
