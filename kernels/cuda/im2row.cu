/* kernels/cuda/im2row.cu - square patches of planar pixels as rows in (c, ky, kx) order.
 *
 * pixels [images, C, side, side], y [images * grid^2, C * patch * patch], grid = side / patch,
 * fp32. One block per patch; a thread copies `width` neighbours of a pixel line: 4 (16 bytes) where
 * patch and side are multiples of 4, 2 where they are even (CLIP: patch 14), else 1, so stores are
 * contiguous over the block. Bound by bytes: 4 read and 4 written per value. Exact. Definition:
 * kernels/ref/im2row.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { MOST_THREADS = 256 };

/* ---- kernel ---------------------------------------------------------------------------------- */

template <typename T> /* float4, float2 or float: `width` pixels */
static __global__ void __launch_bounds__(MOST_THREADS)
    im2row_kernel(const float *pixels, float *y, int n_channels, int side, int patch)
{
    const unsigned width = sizeof(T) / sizeof(float);
    unsigned grid = (unsigned)(side / patch), line = (unsigned)patch / width;
    unsigned n = (unsigned)(n_channels * patch) * line; /* pieces of a row of y */
    unsigned px = blockIdx.x % grid, py = blockIdx.x / grid % grid;
    int64_t plane = (int64_t)side * side, image = blockIdx.x / (grid * grid);
    const float *from = pixels + image * n_channels * plane +
                        (int64_t)(py * (unsigned)patch) * side + px * (unsigned)patch;
    T *to = reinterpret_cast<T *>(y) + (int64_t)blockIdx.x * n;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
        unsigned kx = i % line * width, ky = i / line % (unsigned)patch,
                 c = i / line / (unsigned)patch;
        to[i] = *reinterpret_cast<const T *>(from + c * plane + (int64_t)ky * side + kx);
    }
}

/* ---- launcher -------------------------------------------------------------------------------- */

template <typename T> static void launch(struct cuda_backend *c, const struct hg_im2row_args *a)
{
    int grid = a->side / a->patch;
    int n = a->n_channels * a->patch * a->patch * (int)sizeof(float) / (int)sizeof(T);
    LAUNCH((im2row_kernel<T>), (unsigned)(a->n_images * grid * grid), cuda_threads(n, MOST_THREADS),
           0, c->stream, a->pixels, static_cast<float *>(a->y), a->n_channels, a->side, a->patch);
}

extern "C" enum hg_status cuda_im2row(struct hg_backend *b, const struct hg_im2row_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    bool aligned = cuda_aligned(a->pixels) && cuda_aligned(a->y);
    if (a->n_images == 0 || a->n_channels == 0 || a->side < a->patch)
        return HG_STATUS_OK;
    if (aligned && a->patch % 4 == 0 && a->side % 4 == 0)
        launch<float4>(c, a);
    else if (aligned && a->patch % 2 == 0 && a->side % 2 == 0)
        launch<float2>(c, a);
    else
        launch<float>(c, a);
    return cuda_status(c, "im2row");
}
