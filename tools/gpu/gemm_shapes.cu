/* tools/gpu/gemm_shapes.cu - what cuBLASLt takes for the products of a decode step and of a
 * prefill.
 *
 *   gpu-gemm [--tiny] [LIBRARY ...]      the first library that opens is used; then the usual names
 *
 * y[M, N] = x[M, K] W[N, K]^T in bf16 with fp32 accumulation, for the linears of M3 and L14 and M
 * of 1..64, 700 and 768. Of up to 8 algorithms that the heuristic proposes the fastest counts.
 * Weights rotate over copies of at least 512 MiB together, so that no cache holds them; data are
 * random. One JSON object per line: microseconds (median, 10th and 90th percentile of the rounds),
 * bytes, flops.
 *
 * libcublasLt is opened at run time: it comes with CUDA or with torch, is far too large for
 * build/gpu, and its version does not matter, as these functions are the same in 12 and 13. */
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

enum { ROUNDS = 21, MAX_ALGORITHMS = 8 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "gpu-gemm: %s: %s\n", #call, cudaGetErrorString(e_));                  \
            exit(71);                                                                              \
        }                                                                                          \
    } while (0)
#define CHECK_BLAS(call)                                                                           \
    do {                                                                                           \
        cublasStatus_t e_ = (call);                                                                \
        if (e_ != CUBLAS_STATUS_SUCCESS) {                                                         \
            fprintf(stderr, "gpu-gemm: %s: cuBLAS status %d\n", #call, (int)e_);                   \
            exit(71);                                                                              \
        }                                                                                          \
    } while (0)

/* The functions that are needed, from the opened library. */
struct blas {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtGetVersion) version;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmul) matmul;
};

template <typename F> static void find(void *library, const char *name, F *out)
{
    *out = (F)dlsym(library, name);
    if (!*out) {
        fprintf(stderr, "gpu-gemm: the library has no %s\n", name);
        exit(69);
    }
}

static blas open_blas(int n, char **paths)
{
    static const char *const usual[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    void *library = nullptr;
    for (int i = 0; !library && i < n; i++)
        library = paths[i][0] == '-' ? nullptr : dlopen(paths[i], RTLD_NOW);
    for (int i = 0; !library && i < 3; i++)
        library = dlopen(usual[i], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "gpu-gemm: no libcublasLt: %s\n", dlerror());
        exit(69);
    }
    blas b;
    find(library, "cublasLtCreate", &b.create);
    find(library, "cublasLtGetVersion", &b.version);
    find(library, "cublasLtMatmulDescCreate", &b.desc_create);
    find(library, "cublasLtMatmulDescSetAttribute", &b.desc_set);
    find(library, "cublasLtMatmulDescDestroy", &b.desc_destroy);
    find(library, "cublasLtMatrixLayoutCreate", &b.layout_create);
    find(library, "cublasLtMatrixLayoutDestroy", &b.layout_destroy);
    find(library, "cublasLtMatmulPreferenceCreate", &b.preference_create);
    find(library, "cublasLtMatmulPreferenceSetAttribute", &b.preference_set);
    find(library, "cublasLtMatmulPreferenceDestroy", &b.preference_destroy);
    find(library, "cublasLtMatmulAlgoGetHeuristic", &b.heuristic);
    find(library, "cublasLtMatmul", &b.matmul);
    return b;
}

struct shape {
    const char *model, *name;
    int n, k;
};
static const shape shapes[] = {{"m3", "qkv", 9216, 3072},       {"m3", "o", 3072, 3072},
                               {"m3", "gate_up", 16384, 3072},  {"m3", "down", 3072, 8192},
                               {"l14", "qkv", 7680, 5120},      {"l14", "o", 5120, 5120},
                               {"l14", "gate_up", 35840, 5120}, {"l14", "down", 5120, 17920}};
static const shape tiny_shapes[] = {{"tiny", "qkv", 96, 64}};
static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 700, 768};

/* bf16 of random sign and mantissa, |v| in [2^-7, 2^-6). */
__global__ void fill(uint16_t *p, size_t n, uint64_t seed)
{
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        uint64_t z = (i + seed) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        p[i] = (uint16_t)(((z >> 40) & 0x807f) | 0x3c00);
    }
}

struct buffers {
    uint16_t *w, *x, *y;
    void *workspace;
    size_t w_elements, workspace_bytes;
};

struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
};

/* Column major: y^T[N, M] = (W^T)^T x^T, W^T and x^T being what lies in memory. */
static product make_product(const blas &b, int m, int n, int k)
{
    product p;
    cublasOperation_t t = CUBLAS_OP_T;
    CHECK_BLAS(b.desc_create(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK_BLAS(b.desc_set(p.desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t));
    CHECK_BLAS(b.layout_create(&p.w, CUDA_R_16BF, (uint64_t)k, (uint64_t)n, k));
    CHECK_BLAS(b.layout_create(&p.x, CUDA_R_16BF, (uint64_t)k, (uint64_t)m, k));
    CHECK_BLAS(b.layout_create(&p.y, CUDA_R_16BF, (uint64_t)n, (uint64_t)m, n));
    return p;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Microseconds per product, sorted rounds; each round goes over all copies of the weight. */
static std::vector<float> measure(const blas &b, cublasLtHandle_t handle, const product &p,
                                  const cublasLtMatmulAlgo_t *algo, const buffers &d, int n, int k,
                                  int rounds)
{
    const float one = 1, zero = 0;
    int copies = (int)(d.w_elements / ((size_t)n * k));
    std::vector<float> us((size_t)rounds);
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    for (int r = -1; r < rounds; r++) {
        CHECK(cudaEventRecord(start));
        for (int i = 0; i < copies; i++)
            CHECK_BLAS(b.matmul(handle, p.desc, &one, d.w + (size_t)i * n * k, p.w, d.x, p.x, &zero,
                                d.y, p.y, d.y, p.y, algo, d.workspace, d.workspace_bytes, 0));
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        float ms = 0;
        CHECK(cudaEventElapsedTime(&ms, start, end));
        if (r >= 0)
            us[(size_t)r] = ms * 1e3f / (float)copies;
    }
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(end));
    qsort(us.data(), us.size(), sizeof(float), compare);
    return us;
}

static void run_case(const blas &b, cublasLtHandle_t handle, const shape &s, int m,
                     const buffers &d)
{
    cublasLtMatmulHeuristicResult_t found[MAX_ALGORITHMS];
    cublasLtMatmulPreference_t preference;
    int n_found = 0, best = 0;
    product p = make_product(b, m, s.n, s.k);
    CHECK_BLAS(b.preference_create(&preference));
    CHECK_BLAS(b.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                &d.workspace_bytes, sizeof d.workspace_bytes));
    if (b.heuristic(handle, p.desc, p.w, p.x, p.y, p.y, preference, MAX_ALGORITHMS, found,
                    &n_found) != CUBLAS_STATUS_SUCCESS)
        n_found = 0; /* no algorithm for the shape: no line */
    float best_us = 0;
    for (int i = 0; i < n_found; i++) {
        float us = measure(b, handle, p, &found[i].algo, d, s.n, s.k, 3)[1];
        if (i == 0 || us < best_us) {
            best = i;
            best_us = us;
        }
    }
    if (n_found > 0) {
        std::vector<float> us = measure(b, handle, p, &found[best].algo, d, s.n, s.k, ROUNDS);
        double bytes = 2.0 * ((double)s.n * s.k + (double)m * (s.n + s.k));
        printf("{\"model\":\"%s\",\"shape\":\"%s\",\"n\":%d,\"k\":%d,\"type\":\"bf16\",\"rows\":%d,"
               "\"us\":%.3f,\"us_p10\":%.3f,\"us_p90\":%.3f,\"bytes\":%.0f,\"flops\":%.0f,"
               "\"algorithms\":%d}\n",
               s.model, s.name, s.n, s.k, m, us[ROUNDS / 2], us[ROUNDS / 10], us[ROUNDS * 9 / 10],
               bytes, 2.0 * m * s.n * s.k, n_found);
        fflush(stdout);
    }
    b.preference_destroy(preference);
    b.layout_destroy(p.w);
    b.layout_destroy(p.x);
    b.layout_destroy(p.y);
    b.desc_destroy(p.desc);
}

int main(int argc, char **argv)
{
    bool tiny = argc > 1 && strcmp(argv[1], "--tiny") == 0;
    const shape *all = tiny ? tiny_shapes : shapes;
    int n_shapes =
        (int)(tiny ? sizeof tiny_shapes / sizeof *tiny_shapes : sizeof shapes / sizeof *shapes);
    blas b = open_blas(argc - 1, argv + 1);
    buffers d = {};
    cublasLtHandle_t handle;
    size_t max_x = (size_t)768 * 17920, max_y = (size_t)768 * 35840;
    CHECK(cudaSetDevice(0));
    d.w_elements = tiny ? 96 * 64 * 2 : (size_t)280 << 20; /* 560 MiB, or one copy of the largest */
    d.workspace_bytes = (size_t)64 << 20;
    CHECK(cudaMalloc(&d.w, d.w_elements * 2));
    CHECK(cudaMalloc(&d.x, max_x * 2));
    CHECK(cudaMalloc(&d.y, max_y * 2));
    CHECK(cudaMalloc(&d.workspace, d.workspace_bytes));
    fill<<<512, 256>>>(d.w, d.w_elements, 1);
    fill<<<512, 256>>>(d.x, max_x, 1u << 30);
    CHECK(cudaDeviceSynchronize());
    CHECK_BLAS(b.create(&handle));
    printf("{\"cublaslt\":%zu}\n", b.version());
    for (int i = 0; i < n_shapes; i++)
        for (int m : rows)
            run_case(b, handle, all[i], m, d);
    return 0;
}
