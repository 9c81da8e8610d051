/* kernels/cuda/vision_embed.cu - class row, patch rows, learned positions.
 *
 * y[i][0] = cls + pos[0], y[i][1 + p] = patches[i][p] + pos[1 + p]; cls [D], pos [1 + P, D],
 * patches [images * P, D], y [images * (1 + P), D], fp32. One block per row of y, 16 bytes per
 * thread and turn, or 4 where D is not a multiple of 4. Bound by bytes: 8 D read (pos from the L2
 * cache after the first image) and 4 D written per row. One fp32 addition, as in
 * kernels/ref/vision_embed.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { MOST_THREADS = 256 };

/* ---- kernel ---------------------------------------------------------------------------------- */

DEV float plus(float a, float b)
{
    return a + b;
}

DEV float4 plus(float4 a, float4 b)
{
    return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

template <typename T> /* float4 or float; dim counts elements of T */
static __global__ void __launch_bounds__(MOST_THREADS)
    vision_embed_kernel(const T *patches, const T *cls, const T *pos, T *y, int n_patches, int dim)
{
    int64_t image = blockIdx.x / (unsigned)(1 + n_patches),
            row = blockIdx.x % (unsigned)(1 + n_patches);
    const T *from = row == 0 ? cls : patches + (image * n_patches + row - 1) * dim;
    const T *add = pos + row * dim;
    T *to = y + (int64_t)blockIdx.x * dim;
    for (int i = (int)threadIdx.x; i < dim; i += (int)blockDim.x)
        to[i] = plus(from[i], add[i]);
}

/* ---- launcher -------------------------------------------------------------------------------- */

template <typename T>
static void launch(struct cuda_backend *c, const struct hg_vision_embed_args *a, int dim)
{
    LAUNCH((vision_embed_kernel<T>), (unsigned)(a->n_images * (1 + a->n_patches)),
           cuda_threads(dim, MOST_THREADS), 0, c->stream, static_cast<const T *>(a->patches),
           reinterpret_cast<const T *>(a->cls), reinterpret_cast<const T *>(a->pos),
           static_cast<T *>(a->y), a->n_patches, dim);
}

extern "C" enum hg_status cuda_vision_embed(struct hg_backend *b,
                                            const struct hg_vision_embed_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    if (a->n_images == 0 || a->dim == 0)
        return HG_STATUS_OK;
    if (a->dim % 4 == 0 && cuda_aligned(a->patches) && cuda_aligned(a->cls) &&
        cuda_aligned(a->pos) && cuda_aligned(a->y))
        launch<float4>(c, a, a->dim / 4);
    else
        launch<float>(c, a, a->dim);
    return cuda_status(c, "vision_embed");
}
