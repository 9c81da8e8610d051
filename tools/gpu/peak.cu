/* tools/gpu/peak.cu - what the card is and what it can do at most, as one JSON object.
 *
 * Read: 4 GB of random bytes (or a quarter of what is free) by 16-byte loads, each block a strided
 * share, nothing written. Copy: the same, counting bytes read and written. Launch: empty kernels
 * back to back on one stream. Times are CUDA events; median, 10th and 90th percentile of the
 * rounds. */
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

enum { ROUNDS = 31, THREADS = 512, UNROLL = 8, LAUNCHES = 1000 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "peak: %s: %s\n", #call, cudaGetErrorString(e_));                      \
            exit(71);                                                                              \
        }                                                                                          \
    } while (0)

__global__ void fill(uint4 *p, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        p[i] =
            make_uint4((uint32_t)z, (uint32_t)(z >> 32), (uint32_t)(z >> 13), (uint32_t)(z >> 45));
    }
}

/* The sum is almost never 1, so nothing is written, which the compiler cannot know. */
__global__ void __launch_bounds__(THREADS)
    read_all(const uint4 *__restrict__ p, size_t n, uint32_t *sink)
{
    uint32_t sum = 0;
    size_t tile = (size_t)THREADS * UNROLL;
    for (size_t base = blockIdx.x * tile; base < n; base += gridDim.x * tile) {
        uint4 v[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            size_t i = base + (size_t)u * THREADS + threadIdx.x;
            v[u] = i < n ? __ldg(p + i) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    if (sum == 1)
        atomicAdd(sink, sum);
}

__global__ void nothing()
{
}

struct times {
    float ms[ROUNDS];
};

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

template <typename Work> static times measure(Work work)
{
    times t;
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    for (int r = -3; r < ROUNDS; r++) {
        CHECK(cudaEventRecord(start));
        work();
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        if (r >= 0)
            CHECK(cudaEventElapsedTime(&t.ms[r], start, end));
    }
    qsort(t.ms, ROUNDS, sizeof(float), compare);
    return t;
}

/* Bytes per second: the slow tail has the low rate. */
static void print_rate(const char *name, const times &t, double bytes)
{
    printf(",\"%s\":%.0f,\"%s_p10\":%.0f,\"%s_p90\":%.0f", name, bytes / t.ms[ROUNDS / 2] * 1e3,
           name, bytes / t.ms[ROUNDS * 9 / 10] * 1e3, name, bytes / t.ms[ROUNDS / 10] * 1e3);
}

static int attribute(cudaDeviceAttr a)
{
    int v = 0;
    CHECK(cudaDeviceGetAttribute(&v, a, 0));
    return v;
}

int main()
{
    cudaDeviceProp props;
    size_t free_bytes = 0, total = 0, bytes = (size_t)4 << 30;
    int driver = 0, runtime = 0, sms = attribute(cudaDevAttrMultiProcessorCount);
    uint4 *a = nullptr, *b = nullptr;
    uint32_t *sink = nullptr;
    CHECK(cudaSetDevice(0));
    CHECK(cudaGetDeviceProperties(&props, 0));
    CHECK(cudaMemGetInfo(&free_bytes, &total));
    CHECK(cudaDriverGetVersion(&driver));
    CHECK(cudaRuntimeGetVersion(&runtime));
    if (bytes > free_bytes / 4)
        bytes = free_bytes / 4 / 4096 * 4096;
    CHECK(cudaMalloc(&a, bytes));
    CHECK(cudaMalloc(&b, bytes));
    CHECK(cudaMalloc(&sink, sizeof *sink));
    size_t n = bytes / sizeof(uint4);
    fill<<<sms * 8, THREADS>>>(a, n);
    times best, copy = measure([&] { cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, 0); });
    for (int per_sm = 1; per_sm <= 16;
         per_sm *= 2) { /* a ceiling is the best that some grid reaches */
        times t = measure([&] { read_all<<<sms * per_sm, THREADS>>>(a, n, sink); });
        if (per_sm == 1 || t.ms[ROUNDS / 2] < best.ms[ROUNDS / 2])
            best = t;
    }
    times launch = measure([&] {
        for (int i = 0; i < LAUNCHES; i++)
            nothing<<<1, 32>>>();
    });
    printf("{\"card\":\"%s\",\"capability\":\"%d.%d\",\"multiprocessors\":%d,\"l2_bytes\":%d,"
           "\"memory_bytes\":%zu,"
           "\"driver_cuda\":\"%d.%d\",\"runtime_cuda\":\"%d.%d\",\"stream_bytes\":%zu",
           props.name, attribute(cudaDevAttrComputeCapabilityMajor),
           attribute(cudaDevAttrComputeCapabilityMinor), sms, attribute(cudaDevAttrL2CacheSize),
           total, driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, bytes);
    print_rate("read", best, (double)bytes);
    print_rate("copy", copy, 2.0 * (double)bytes);
    printf(",\"launch_us\":%.3f}\n", launch.ms[ROUNDS / 2] / LAUNCHES * 1e3);
    return 0;
}
