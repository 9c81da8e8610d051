/* kernels/cuda/copy_rows.cu - gather rows: y[i] = x[row[i]].
 *
 * x [?, ldx], y [n_rows, ldy], D columns, fp32. One block per row, 16 bytes per thread and turn, or
 * 4 where a row does not start on 16 bytes. Bound by bytes: 4 D read and 4 D written per row.
 * Exact. Definition: kernels/ref/copy_rows.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { MOST_THREADS = 256 };

/* ---- kernel ---------------------------------------------------------------------------------- */

template <typename T> /* float4 or float; dim, ldx and ldy count elements of T */
static __global__ void __launch_bounds__(MOST_THREADS)
    copy_rows_kernel(const T *x, int64_t ldx, const int32_t *row, T *y, int64_t ldy, int dim)
{
    const T *from = x + row[blockIdx.x] * ldx;
    T *to = y + blockIdx.x * ldy;
    for (int i = (int)threadIdx.x; i < dim; i += (int)blockDim.x)
        to[i] = from[i];
}

/* ---- launcher -------------------------------------------------------------------------------- */

extern "C" enum hg_status cuda_copy_rows(struct hg_backend *b, const struct hg_copy_rows_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const int32_t *row = NULL;
    unsigned rows = (unsigned)a->n_rows;
    if (a->n_rows == 0 || a->dim == 0)
        return HG_STATUS_OK;
    HG_TRY(cuda_table(c, a->row, a->n_rows, &row));
    if (a->dim % 4 == 0 && a->ldx % 4 == 0 && a->ldy % 4 == 0 && cuda_aligned(a->x) &&
        cuda_aligned(a->y))
        LAUNCH((copy_rows_kernel<float4>), rows, cuda_threads(a->dim / 4, MOST_THREADS), 0,
               c->stream, static_cast<const float4 *>(a->x), a->ldx / 4, row,
               static_cast<float4 *>(a->y), a->ldy / 4, a->dim / 4);
    else
        LAUNCH((copy_rows_kernel<float>), rows, cuda_threads(a->dim, MOST_THREADS), 0, c->stream,
               static_cast<const float *>(a->x), a->ldx, row, static_cast<float *>(a->y), a->ldy,
               a->dim);
    return cuda_status(c, "copy_rows");
}

extern "C" cudaError_t cuda_find_image(void)
{
    struct cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes,
                                 reinterpret_cast<const void *>(copy_rows_kernel<float>));
}
