/* tools/bench/peak.c - read bandwidth and multiply-add rates.
 *
 * Times are taken inside the workers (latest end minus earliest start): a clock on another thread
 * of a busy two-core machine once made two workers look 1.8 times faster than the hardware. */
#include "tools/bench/peak.h"

#include <stdint.h>

#include "common/clock.h"

enum { MAX_MEMBERS = 64, ROUNDS = 1000000, CHAINS = 12, PASSES = 7 };

struct job {
    const uint64_t *data;
    size_t n; /* words */
    enum peak_kind kind;
    int64_t start[MAX_MEMBERS], end[MAX_MEMBERS];
    uint64_t sink[MAX_MEMBERS];
};

static double seconds(const struct job *j, int n)
{
    int64_t start = j->start[0], end = j->end[0];
    for (int i = 1; i < n; i++) {
        start = j->start[i] < start ? j->start[i] : start;
        end = j->end[i] > end ? j->end[i] : end;
    }
    return (double)(end - start) * 1e-9;
}

static void read_member(void *ctx, int member, int n_members)
{
    struct job *j = ctx;
    size_t from = j->n * (size_t)member / (size_t)n_members;
    size_t to = j->n * ((size_t)member + 1) / (size_t)n_members;
    uint64_t lane[32] = {0};
    j->start[member] = hg_now_ns();
    for (size_t i = from; i + 32 <= to; i += 32)
        for (size_t l = 0; l < 32; l++)
            lane[l] ^= j->data[i + l];
    j->end[member] = hg_now_ns();
    for (int l = 0; l < 32; l++)
        j->sink[member] ^= lane[l];
}

/* A limit is what the machine can do, so the fastest pass counts. */
static double fastest(struct hg_pool *pool, hg_pool_fn *fn, struct job *j)
{
    double best = 0;
    for (int i = 0; i < PASSES; i++) {
        hg_pool_run(pool, fn, j);
        double s = seconds(j, hg_pool_size(pool));
        best = i == 0 || s < best ? s : best;
    }
    return best;
}

double peak_read(struct hg_pool *pool, const void *data, size_t bytes)
{
    struct job j = {.data = data, .n = bytes / sizeof(uint64_t)};
    return (double)bytes / fastest(pool, read_member, &j);
}

#if defined(__x86_64__)
/* 12 independent chains hide the latency of every one of the three instructions. */
#define CHAIN(instruction)                                                                         \
    instruction                                                                                    \
        " %%zmm13, %%zmm12, %%zmm0\n" instruction " %%zmm13, %%zmm12, %%zmm1\n" instruction        \
        " %%zmm13, %%zmm12, %%zmm2\n" instruction " %%zmm13, %%zmm12, %%zmm3\n" instruction        \
        " %%zmm13, %%zmm12, %%zmm4\n" instruction " %%zmm13, %%zmm12, %%zmm5\n" instruction        \
        " %%zmm13, %%zmm12, %%zmm6\n" instruction " %%zmm13, %%zmm12, %%zmm7\n" instruction        \
        " %%zmm13, %%zmm12, %%zmm8\n" instruction " %%zmm13, %%zmm12, %%zmm9\n" instruction        \
        " %%zmm13, %%zmm12, %%zmm10\n" instruction " %%zmm13, %%zmm12, %%zmm11\n"
#define CLEAR(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n"
#define LOOP(instruction)                                                                          \
    __asm__ volatile(CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7)       \
                         CLEAR(8) CLEAR(9) CLEAR(10) CLEAR(11) CLEAR(12)                           \
                             CLEAR(13) "1:\n" CHAIN(instruction) "dec %0\n jnz 1b\n"               \
                     : "+r"(n)                                                                     \
                     :                                                                             \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",       \
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13")

static void ops_member(void *ctx, int member, int n_members)
{
    struct job *j = ctx;
    int64_t n = ROUNDS;
    (void)n_members;
    j->start[member] = hg_now_ns();
    if (j->kind == PEAK_FP32)
        LOOP("vfmadd231ps");
    else if (j->kind == PEAK_BF16)
        LOOP("vdpbf16ps");
    else
        LOOP("vpdpbusd");
    j->end[member] = hg_now_ns();
}

double peak_ops(struct hg_pool *pool, enum peak_kind kind)
{
    static const double per_instruction[] = {32, 64, 128};
    struct job j = {.kind = kind};
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") ||
        (kind == PEAK_BF16 && !__builtin_cpu_supports("avx512bf16")) ||
        (kind == PEAK_INT8 && !__builtin_cpu_supports("avx512vnni")))
        return 0;
    double best = fastest(pool, ops_member, &j);
    return per_instruction[kind] * CHAINS * ROUNDS * hg_pool_size(pool) / best;
}
#else
double peak_ops(struct hg_pool *pool, enum peak_kind kind)
{
    (void)pool;
    (void)kind;
    return 0;
}
#endif
