/* kernels/cuda/read_rate.cu - how fast plain reading of the card's memory is: what `healthgpt
 * bench` calls the floor of a step is bytes over this rate.
 *
 * A quarter of the free memory, at most 2 GB, is read by 16-byte loads, 8 in flight per thread,
 * each block a strided share; nothing is written. The best of some grids and rounds.
 * tools/gpu/peak.cu measures the same in more detail. On the emulation 0: it has no memory of a
 * card. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { READ_THREADS = 512, READ_UNROLL = 8, READ_ROUNDS = 12 };

static __global__ void __launch_bounds__(READ_THREADS) fill_kernel(uint4 *p, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * READ_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * READ_THREADS + threadIdx.x; i < n; i += step) {
        uint64_t z = (uint64_t)(i + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z ^= z >> 27;
        p[i] = uint4{(uint32_t)z, (uint32_t)(z >> 32), (uint32_t)(z >> 13), (uint32_t)(z >> 41)};
    }
}

/* The sum is almost never 1, so nothing is written, which the compiler cannot know. */
static __global__ void __launch_bounds__(READ_THREADS)
    read_rate_kernel(const uint4 *p, int64_t n, uint32_t *sink)
{
    uint32_t sum = 0;
    const int64_t tile = READ_THREADS * READ_UNROLL;
    for (int64_t base = blockIdx.x * tile; base < n; base += gridDim.x * tile) {
        uint4 v[READ_UNROLL];
        UNROLL_FOR (int u = 0; u < READ_UNROLL; u++) {
            int64_t i = base + u * READ_THREADS + threadIdx.x;
            v[u] = i < n ? p[i] : uint4{0, 0, 0, 0};
        }
        UNROLL_FOR (int u = 0; u < READ_UNROLL; u++)
            sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    if (sum == 1)
        *sink = sum;
}

#ifdef HG_SIMT
/* The kernels run once, for the sake of the emulation's checks; there is no time to take. */
extern "C" double cuda_read_rate(struct hg_backend *b)
{
    struct cuda_backend *c = cuda_of(b);
    const int64_t n = 5000;
    void *p = NULL;
    if (cudaMalloc(&p, (n + 1) * sizeof(uint4)) != cudaSuccess)
        return 0;
    uint4 *data = (uint4 *)p;
    LAUNCH(fill_kernel, 2, READ_THREADS, 0, c->stream, data, n);
    LAUNCH(read_rate_kernel, 2, READ_THREADS, 0, c->stream, data, n, (uint32_t *)(data + n));
    cudaStreamSynchronize(c->stream);
    cudaFree(p);
    return 0;
}
#else
static float best_ms(struct cuda_backend *c, const uint4 *p, int64_t n, uint32_t *sink)
{
    cudaEvent_t start, end;
    float best = 0;
    if (cudaEventCreate(&start) != cudaSuccess)
        return 0;
    if (cudaEventCreate(&end) == cudaSuccess) {
        for (int r = 0; r < READ_ROUNDS; r++) {
            float ms = 0;
            cudaEventRecord(start, c->stream);
            LAUNCH(read_rate_kernel, (unsigned)(c->n_sms << r % 4), READ_THREADS, 0, c->stream, p,
                   n, sink);
            cudaEventRecord(end, c->stream);
            if (cudaEventSynchronize(end) == cudaSuccess &&
                cudaEventElapsedTime(&ms, start, end) == cudaSuccess && (best == 0 || ms < best))
                best = ms;
        }
        cudaEventDestroy(end);
    }
    cudaEventDestroy(start);
    return best;
}

extern "C" double cuda_read_rate(struct hg_backend *b)
{
    struct cuda_backend *c = cuda_of(b);
    size_t free_bytes = 0, total = 0;
    void *p = NULL;
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess)
        return 0;
    size_t bytes =
        free_bytes / 4 < (size_t)2 << 30 ? free_bytes / 4 / 4096 * 4096 : (size_t)2 << 30;
    if (bytes < (size_t)64 << 20 || cudaMalloc(&p, bytes + 4096) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    LAUNCH(fill_kernel, (unsigned)c->n_sms * 4, READ_THREADS, 0, c->stream, (uint4 *)p,
           (int64_t)(bytes / 16)); /* random: zeros are read faster */
    float ms = best_ms(c, (const uint4 *)p, (int64_t)(bytes / 16), (uint32_t *)((char *)p + bytes));
    cudaFree(p);
    return ms > 0 ? (double)bytes / ms * 1e3 : 0;
}
#endif
