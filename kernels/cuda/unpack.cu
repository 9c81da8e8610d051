/* kernels/cuda/unpack.cu - packed tiles back to plain rows, and what the trial of an algorithm
 * needs: see gemm.h. Bound by memory. */
#include "kernels/cuda/cuda_common.cuh"
extern "C" {
#include "kernels/cuda/gemm.h"
}

enum { UNPACK_THREADS = 256, COMPARE_BLOCKS = 64 };

/* A warp per tile and step; lane 4 g + q holds 16 bytes of rows g and g + 8: weight.h. */
__global__ void __launch_bounds__(UNPACK_THREADS)
    unpack_tiles(const uint4 *packed, int64_t n_units, int steps, int copies, char *to)
{
    int64_t unit = (int64_t)blockIdx.x * (UNPACK_THREADS / 32) + threadIdx.x / 32;
    if (unit >= n_units)
        return;
    int64_t tile = unit / steps, step = unit % steps;
    int lane = lane_id();
    uint4 a = load_stream(packed + unit * 64 + lane),
          b = load_stream(packed + unit * 64 + 32 + lane);
    int64_t pitch = (int64_t)steps * copies * STEP_BYTES;
    char *at =
        to + (tile * TILE_ROWS + lane / 4) * pitch + step * copies * STEP_BYTES + lane % 4 * 16;
    for (int i = 0; i < copies; i++) {
        *(uint4 *)(at + i * STEP_BYTES) = {a.x, a.z, b.x, b.z};
        *(uint4 *)(at + 8 * pitch + i * STEP_BYTES) = {a.y, a.w, b.y, b.w};
    }
}

/* Values of both signs and of 13 powers of two, so that every addition of their products rounds. */
__global__ void __launch_bounds__(UNPACK_THREADS) fill_trial(uint16_t *to, int64_t n, int bf16)
{
    int64_t i = (int64_t)blockIdx.x * UNPACK_THREADS + threadIdx.x;
    if (i >= n)
        return;
    uint32_t h = (uint32_t)i * 2654435761u;
    h = (h ^ h >> 15) * 2246822519u;
    h ^= h >> 13;
    uint32_t sign = h >> 16 & 0x8000u, below = (h >> 10) % 13;
    to[i] = (uint16_t)(sign | (bf16 ? (127 - below) << 7 | (h & 0x7fu)
                                    : (15 - below) << 10 | (h & 0x3ffu)));
}

__global__ void __launch_bounds__(UNPACK_THREADS)
    compare_words(const uint32_t *a, const uint32_t *b, int64_t n, int *differs)
{
    bool found = false;
    for (int64_t i = (int64_t)blockIdx.x * UNPACK_THREADS + threadIdx.x; i < n;
         i += COMPARE_BLOCKS * UNPACK_THREADS)
        found = found || a[i] != b[i];
    if (found)
        *differs = 1;
}

/* ---- launchers ------------------------------------------------------------------------------- */

extern "C" enum hg_status cuda_unpack(struct cuda_backend *c, const struct cuda_matrix *m, int tile,
                                      int n_tiles, int copies, void *to)
{
    int64_t units = (int64_t)n_tiles * m->steps;
    const uint4 *packed = (const uint4 *)m->data + (int64_t)tile * m->steps * 64;
    int steps = m->steps;
    char *rows = (char *)to;
    LAUNCH(unpack_tiles, (unsigned)((units + 7) / 8), UNPACK_THREADS, 0, c->stream, packed, units,
           steps, copies, rows);
    return cuda_status(c, "unpack");
}

extern "C" enum hg_status cuda_fill_trial(struct cuda_backend *c, uint16_t *to, int64_t n,
                                          bool bf16)
{
    int type = bf16;
    LAUNCH(fill_trial, (unsigned)((n + UNPACK_THREADS - 1) / UNPACK_THREADS), UNPACK_THREADS, 0,
           c->stream, to, n, type);
    return cuda_status(c, "trial");
}

extern "C" enum hg_status cuda_compare(struct cuda_backend *c, const float *a, const float *b,
                                       int64_t n, int *differs)
{
    const uint32_t *u = (const uint32_t *)a, *v = (const uint32_t *)b;
    LAUNCH(compare_words, COMPARE_BLOCKS, UNPACK_THREADS, 0, c->stream, u, v, n, differs);
    return cuda_status(c, "compare");
}
