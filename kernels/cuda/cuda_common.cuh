/* kernels/cuda/cuda_common.cuh - everything in our kernels that is not plain C++: the only file
 * with PTX.
 *
 * nvcc takes the first half, g++ with HG_SIMT the second (tests/simt), so that the same kernels run
 * in a CI without a GPU. Rules for kernel files that follow from it: LAUNCH instead of <<<>>>,
 * shared memory through DYN_SMEM only, collectives in warp-uniform flow with all 32 lanes, no
 * return before a barrier, blocks of a multiple of 32 threads, and a block waits (SPIN_UNTIL) only
 * for blocks with a lower ticket.
 *
 * Fragments of mma m16n8k16 (PTX manual), lane = 4 g + q: A registers hold rows g, g + 8, g, g + 8
 * at k = 2 q, 2 q + 1
 * (+ 8 for the last two); B column g at k = 2 q, 2 q + 1 and + 8; C rows g, g, g + 8, g + 8,
 * columns 2 q, 2 q + 1, ... */
#ifndef HG_KERNELS_CUDA_COMMON_CUH
#define HG_KERNELS_CUDA_COMMON_CUH

#include <stdint.h>
#include <string.h>

#ifndef HG_SIMT
/* ---- the GPU
 * ------------------------------------------------------------------------------------------------
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define UNROLL _Pragma("unroll")
#define UNROLL_FOR(...) _Pragma("unroll") for (__VA_ARGS__) /* clang-format knows it */
#define DEV static __device__ __forceinline__
#define ROLLED_FOR(...) _Pragma("unroll 1") for (__VA_ARGS__)
#define DYN_SMEM(T, name)                                                                          \
    extern __shared__ __align__(128) unsigned char hg_shared_memory[];                             \
    T *name = reinterpret_cast<T *>(hg_shared_memory)
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    (kernel)<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define SPIN_UNTIL(condition)                                                                      \
    while (!(condition)) {                                                                         \
    }

/* A launch whose blocks may start while the kernel before it ends (programmatic dependent launch);
 * every block of such a kernel calls grid_wait() before it touches what others write, or ends.
 * early: false on devices before sm_90, which have no such launch. */
template <typename... P, typename... A>
static inline void launch_early(bool early, void (*kernel)(P...), dim3 grid, unsigned block,
                                size_t shared, cudaStream_t stream, A... args)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    cudaLaunchKernelEx(&config, kernel, args...);
}
#define LAUNCH_EARLY(early, kernel, grid, block, shared, stream, ...)                              \
    launch_early(early, kernel, grid, block, shared, stream, __VA_ARGS__)

/* Everything written by the kernels before this one is visible. */
DEV void grid_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* Once every block has said so or ended, the next kernel's blocks take what room there is. */
DEV void grid_let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
/* A hint; address and bytes in multiples of 16. */
DEV void prefetch_l2(const void *p, uint32_t bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes));
#else
    (void)p, (void)bytes;
#endif
}

DEV unsigned lane_id()
{
    return threadIdx.x % 32;
}
template <typename T> DEV T shfl_xor(T v, unsigned mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
template <typename T> DEV T shfl(T v, unsigned lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}
DEV uint32_t warp_ballot(bool v)
{
    return __ballot_sync(0xffffffffu, v);
}
DEV float div_rn(float a, float b)
{
    return __fdiv_rn(a, b);
}

DEV float bf16_to_f32(uint16_t v)
{
    return __uint_as_float((uint32_t)v << 16);
}
DEV uint16_t f32_to_bf16(float v)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
DEV float f16_to_f32(uint16_t v)
{
    return __half2float(__ushort_as_half(v));
}
DEV uint16_t f32_to_f16(float v)
{
    return __half_as_ushort(__float2half_rn(v));
}
/* Two values in one word, by one instruction; the first in the lower half. */
DEV uint32_t pack_f16(float low, float high)
{
    uint32_t v;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}
DEV uint32_t pack_bf16(float low, float high)
{
    uint32_t v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}

/* Nibble i of `which` says which byte of high:low becomes byte i. */
DEV uint32_t byte_perm(uint32_t low, uint32_t high, uint32_t which)
{
    return __byte_perm(low, high, which);
}
/* Sums of two pairs of bf16. */
DEV uint32_t add_bf16x2(uint32_t a, uint32_t b)
{
    uint32_t v;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return v;
}

/* 16 bytes that are read once: past the L1 cache. */
DEV uint4 load_stream(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

DEV void cp_async16(void *shared, const void *global, bool inside)
{
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    int n = inside ? 16 : 0; /* the rest is filled with zeros */
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(n)
                 : "memory");
}
DEV void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending> DEV void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

DEV void ldmatrix_x4(uint32_t (&r)[4], const void *shared)
{
    uint32_t from = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}
DEV void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *shared)
{
    uint32_t from = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

#define HG_MMA(shape, types, constraint)                                                           \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                       \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                                 \
                 "{%0, %1, %2, %3};"                                                               \
                 : "+" constraint(c[0]), "+" constraint(c[1]), "+" constraint(c[2]),               \
                   "+" constraint(c[3])                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
DEV void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    HG_MMA("m16n8k16", "f32.bf16.bf16.f32", "f");
}
DEV void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    HG_MMA("m16n8k16", "f32.f16.f16.f32", "f");
}
DEV void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    HG_MMA("m16n8k32", "s32.s8.s8.s32", "r");
}
#undef HG_MMA

/* Order between blocks: writes before release_add are seen after load_acquire has seen its sum. */
DEV int take_ticket(int *p)
{
    return atomicAdd(p, 1);
}
DEV int release_add(int *p, int v)
{
    int old;
    asm volatile("atom.add.acq_rel.gpu.s32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}
DEV int load_acquire(const int *p)
{
    int v;
    asm volatile("ld.acquire.gpu.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

#else
/* ---- the emulation
 * ------------------------------------------------------------------------------------------ */
#include "simt.h"

#define UNROLL
#define UNROLL_FOR(...) for (__VA_ARGS__)
#define DEV static inline
#define ROLLED_FOR(...) for (__VA_ARGS__)
#define DYN_SMEM(T, name) T *name = reinterpret_cast<T *>(simt::shared_memory())
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    simt::launch(stream, #kernel, (const void *)(kernel), grid, block, shared,                     \
                 simt::bind(kernel, __VA_ARGS__))
#define LAUNCH_EARLY(early, kernel, grid, block, shared, stream, ...)                              \
    ((void)(early), LAUNCH(kernel, grid, block, shared, stream, __VA_ARGS__))
#define SPIN_UNTIL(condition)                                                                      \
    while (!(condition))                                                                           \
    simt::spin()

DEV void grid_wait()
{
}
DEV void grid_let_next_start()
{
}
DEV void prefetch_l2(const void *p, uint32_t bytes)
{
    if ((uintptr_t)p % 16 || bytes % 16)
        simt::fail("prefetch_l2 is misaligned");
}

DEV unsigned lane_id()
{
    return simt::self().lane;
}
template <typename T> DEV T shfl_xor(T v, unsigned mask)
{
    return simt::from_lane(__COUNTER__, v, simt::self().lane ^ mask);
}
template <typename T> DEV T shfl(T v, unsigned lane)
{
    return simt::from_lane(__COUNTER__, v, lane);
}
DEV uint32_t warp_ballot(bool v)
{
    return simt::ballot(__COUNTER__, v);
}
DEV float div_rn(float a, float b)
{
    return a / b;
}

extern "C" {
#include "common/half.h"
}
DEV float bf16_to_f32(uint16_t v)
{
    return hg_bf16_to_f32(v);
}
DEV uint16_t f32_to_bf16(float v)
{
    return hg_f32_to_bf16(v);
}
DEV float f16_to_f32(uint16_t v)
{
    return hg_f16_to_f32(v);
}
DEV uint16_t f32_to_f16(float v)
{
    return hg_f32_to_f16(v);
}
DEV uint32_t pack_f16(float low, float high)
{
    return hg_f32_to_f16(low) | (uint32_t)hg_f32_to_f16(high) << 16;
}
DEV uint32_t pack_bf16(float low, float high)
{
    return hg_f32_to_bf16(low) | (uint32_t)hg_f32_to_bf16(high) << 16;
}

DEV uint32_t byte_perm(uint32_t low, uint32_t high, uint32_t which)
{
    uint64_t from = low | (uint64_t)high << 32;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v |= (uint32_t)(from >> (which >> 4 * i & 7) * 8 & 255) << 8 * i;
    return v;
}
DEV uint32_t add_bf16x2(uint32_t a, uint32_t b)
{
    return pack_bf16(hg_bf16_to_f32((uint16_t)a) + hg_bf16_to_f32((uint16_t)b),
                     hg_bf16_to_f32((uint16_t)(a >> 16)) + hg_bf16_to_f32((uint16_t)(b >> 16)));
}
DEV uint4 load_stream(const void *p)
{
    if ((uintptr_t)p % 16)
        simt::fail("load_stream is misaligned");
    return *(const uint4 *)p;
}
DEV void cp_async16(void *shared, const void *global, bool inside)
{
    simt::cp_async(shared, global, 16, inside ? 16 : 0);
}
DEV void cp_async_commit()
{
    simt::cp_async_commit();
}
template <int pending> DEV void cp_async_wait()
{
    simt::cp_async_wait(pending);
}
DEV void ldmatrix_x4(uint32_t (&r)[4], const void *shared)
{
    simt::ldmatrix_x4(__COUNTER__, r, shared, false);
}
DEV void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *shared)
{
    simt::ldmatrix_x4(__COUNTER__, r, shared, true);
}
DEV void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    simt::mma_bf16(__COUNTER__, c, a, b);
}
DEV void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    simt::mma_f16(__COUNTER__, c, a, b);
}
DEV void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    simt::mma_s8(__COUNTER__, c, a, b);
}
DEV int take_ticket(int *p)
{
    return (*p)++;
}
DEV int release_add(int *p, int v)
{
    int old = *p;
    *p += v;
    return old;
}
DEV int load_acquire(const int *p)
{
    return *p;
}
#endif

/* ---- both
 * ---------------------------------------------------------------------------------------------------
 */

/* Two of four int8 as two bf16, exact: the low 7 bits make 128 + n, the sign bit turns the -128
 * that is then added into -256. which: the bytes, 4 means 0x43. */
enum { S8_0_1 = 0x4140, S8_2_3 = 0x4342, S8_0_2 = 0x4240, S8_1_3 = 0x4341 };
DEV uint32_t bf16_of_s8(uint32_t four, uint32_t which)
{
    uint32_t wide = byte_perm(four, 0x43, which);
    return add_bf16x2(wide & 0xff7fff7fu, (wide & 0x00800080u) | 0xc300c300u);
}
DEV uint32_t pack2(uint16_t low, uint16_t high)
{
    return low | (uint32_t)high << 16;
}
DEV bool is_finite(float v)
{
    return v - v == 0;
}
DEV uint32_t float_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}
DEV float float_of(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}
/* Unsigned integers in the order of the floats, +0 and -0 equal; NaN has no place in it. */
DEV uint32_t float_order(float v)
{
    uint32_t u = float_bits(v + 0.0f);
    return u >> 31 ? ~u : u | 0x80000000u;
}

/* Sum and maximum over a warp; every lane gets it; the order is fixed. max ignores NaN. */
template <typename T> DEV T warp_sum(T v)
{
    UNROLL for (unsigned m = 16; m > 0; m /= 2) v += shfl_xor(v, m);
    return v;
}
DEV float warp_max(float v)
{
    UNROLL for (unsigned m = 16; m > 0; m /= 2) v = fmaxf(v, shfl_xor(v, m));
    return v;
}

/* The same over a block of up to 1024 threads; scratch: 32 values of shared memory, reusable after
 * the return. */
template <typename T> DEV T block_sum(T v, T *scratch)
{
    unsigned n_warps = blockDim.x / 32;
    v = warp_sum(v);
    if (lane_id() == 0)
        scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_sum(lane_id() < n_warps ? scratch[lane_id()] : T(0));
    __syncthreads();
    return v;
}
DEV float block_max(float v, float *scratch)
{
    unsigned n_warps = blockDim.x / 32;
    v = warp_max(v);
    if (lane_id() == 0)
        scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_max(lane_id() < n_warps ? scratch[lane_id()] : -INFINITY);
    __syncthreads();
    return v;
}
DEV uint64_t warp_max(uint64_t v)
{
    UNROLL for (unsigned m = 16; m > 0; m /= 2)
    {
        uint64_t other = shfl_xor(v, m);
        v = other > v ? other : v;
    }
    return v;
}
DEV uint64_t block_max(uint64_t v, uint64_t *scratch)
{
    unsigned n_warps = blockDim.x / 32;
    v = warp_max(v);
    if (lane_id() == 0)
        scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_max(lane_id() < n_warps ? scratch[lane_id()] : uint64_t(0));
    __syncthreads();
    return v;
}

#endif
