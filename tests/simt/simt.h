/* tests/simt/simt.h - CUDA C++ on a CPU: what kernels/cuda/cuda_common.cuh includes instead of the
 * CUDA headers.
 *
 * The .cu files are compiled by g++ as they are. A CUDA thread is a fiber; a block runs its warps
 * in turn, each until every lane waits or has ended. Collectives (shuffles, mma, ldmatrix,
 * __syncwarp) wait for all 32 lanes of a warp,
 * __syncthreads for all threads of a block; each remembers the place in the source, so that a
 * divergent one is found. What makes wrong kernels visible: shared and device memory start as 0xff
 * bytes (NaN), shared memory has exactly the size of the launch, cp.async delivers only at its
 * wait, threads and blocks run in one of three orders (simt_set_order) that must give the same
 * bits, and vector types keep their alignment for UBSan and ASan builds. Not modelled: memory
 * ordering between threads, bank conflicts, occupancy, timing, the rounding inside tensor cores. */
#ifndef HG_TESTS_SIMT_SIMT_H
#define HG_TESTS_SIMT_SIMT_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>

#include "cuda_runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) int2 {
    int32_t x, y;
};
struct alignas(16) int4 {
    int32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

namespace simt
{

enum { warp_size = 32, exchange_words = 12 };

/* What a running thread sees. */
struct Thread {
    uint3 index;
    unsigned lane;
    int parity; /* exchange buffer of the next collective: two, so that a fast lane cannot overwrite
                   what a slow one reads */
    uint32_t exchange[2][exchange_words];
};

typedef void warp_fn(Thread *const *lanes, int parity);

Thread &self();
const uint3 &block();
const dim3 &block_dim();
const dim3 &grid_dim();
unsigned char *shared_memory();

/* Wait for the warp; `whole`, if any, runs once when all lanes have come. Returns the lanes of the
 * warp. */
Thread *const *warp_sync(unsigned site, warp_fn *whole = nullptr);
void block_sync(unsigned site);
void spin(); /* a wait for another block: fails, because blocks run one after the other */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

void cp_async(void *dst, const void *src, int size, int filled);
void cp_async_commit();
void cp_async_wait(int pending);

void launch(cudaStream_t stream, const char *name, const void *kernel, dim3 grid, dim3 block,
            size_t shared, const std::function<void()> &body);

/* A call with arguments that are copied now, in the kernel's own types, as a launch does. */
template <typename... P, typename... A> std::function<void()> bind(void (*kernel)(P...), A... args)
{
    std::tuple<std::decay_t<P>...> own(args...);
    return [kernel, own] { std::apply(kernel, own); };
}

/* Deposit words and wait; the lanes' deposits are then in exchange[return value]. */
template <typename T> int deposit(unsigned site, const T &v, warp_fn *whole = nullptr)
{
    static_assert(sizeof(T) <= sizeof(uint32_t) * exchange_words, "exchange is too small");
    Thread &t = self();
    int p = t.parity;
    t.parity ^= 1;
    memcpy(t.exchange[p], &v, sizeof v);
    warp_sync(site, whole);
    return p;
}

template <typename T> T from_lane(unsigned site, const T &v, unsigned lane)
{
    Thread &t = self();
    int p = t.parity;
    t.parity ^= 1;
    memcpy(t.exchange[p], &v, sizeof v);
    Thread *const *lanes = warp_sync(site);
    T out;
    memcpy(&out, lanes[lane % warp_size]->exchange[p], sizeof out);
    return out;
}

void ldmatrix_x4(unsigned site, uint32_t (&r)[4], const void *row, bool transposed);
void mma_bf16(unsigned site, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f16(unsigned site, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_s8(unsigned site, int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
uint32_t ballot(unsigned site, bool v);

} // namespace simt

#define threadIdx (simt::self().index)
#define blockIdx (simt::block())
#define blockDim (simt::block_dim())
#define gridDim (simt::grid_dim())
#define __syncthreads() simt::block_sync(__COUNTER__)
#define __syncwarp() simt::warp_sync(__COUNTER__)

#endif
