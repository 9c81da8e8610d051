/* kernels/cuda/to_rgb.cu - clamp to [-1, 1], (v + 1) / 2 * 255 in fp32, truncate; NaN becomes 0.
 *
 * x [n_pixels, 3] fp32; rgb, as many bytes, and one flag go to the host. A thread turns 4 values
 * (16 bytes) into 4 bytes; the last n % 4 values and unaligned inputs go one by one. Bound by
 * bytes: 4 read and 1 written per value. Every step rounds once, as in kernels/ref/to_rgb.c: no
 * multiply-add can be fused. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { THREADS = 256, BYTES_BEFORE_RGB = 16 /* the flag */ };

/* ---- device helpers -------------------------------------------------------------------------- */

DEV uint32_t byte_of(float x)
{
    float v = x != x ? -1 : fminf(fmaxf(x, -1), 1);
    return (uint32_t)((v + 1) / 2 * 255);
}

/* ---- kernel ---------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS)
    to_rgb_kernel(const float *x, int64_t n, int64_t n_groups, uint8_t *rgb, uint8_t *finite)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    bool good = true;
    if (i < n_groups) {
        float4 v = reinterpret_cast<const float4 *>(x)[i];
        good = is_finite(v.x) && is_finite(v.y) && is_finite(v.z) && is_finite(v.w);
        reinterpret_cast<uint32_t *>(rgb)[i] =
            byte_of(v.x) | byte_of(v.y) << 8 | byte_of(v.z) << 16 | byte_of(v.w) << 24;
    } else if (n_groups * 3 + i < n) { /* thread n_groups takes value 4 n_groups */
        int64_t k = n_groups * 3 + i;
        good = is_finite(x[k]);
        rgb[k] = (uint8_t)byte_of(x[k]);
    }
    if (!good)
        *finite = 0; /* all writers agree */
}

/* ---- launcher -------------------------------------------------------------------------------- */

extern "C" enum hg_status cuda_to_rgb(struct hg_backend *b, const struct hg_to_rgb_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const float *x = static_cast<const float *>(a->x);
    int64_t n = (int64_t)a->n_pixels * 3, n_groups = cuda_aligned(x) ? n / 4 : 0;
    uint8_t *finite = static_cast<uint8_t *>(c->scratch.result), *rgb = finite + BYTES_BEFORE_RGB;
    unsigned blocks = (unsigned)((n - n_groups * 3 + THREADS - 1) / THREADS);
    static_assert(sizeof *a->finite == 1, "the flag is downloaded as one byte");
    *a->finite = true;
    if (n == 0)
        return HG_STATUS_OK;
    if ((size_t)n + BYTES_BEFORE_RGB > c->scratch.result_bytes)
        return cuda_refuse("to_rgb: %d pixels, reserved %zu bytes of results", a->n_pixels,
                           c->scratch.result_bytes);
    HG_TRY(cuda_check(c, cudaMemsetAsync(finite, 1, 1, c->stream), "to_rgb"));
    LAUNCH(to_rgb_kernel, blocks, THREADS, 0, c->stream, x, n, n_groups, rgb, finite);
    HG_TRY(cuda_status(c, "to_rgb"));
    HG_TRY(cuda_download(b, a->rgb, rgb, (size_t)n));
    return cuda_download(b, a->finite, finite, 1);
}
