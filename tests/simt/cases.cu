/* tests/simt/cases.cu - see cases.h. */
#include "tests/simt/cases.h"

#include "kernels/cuda/cuda_common.cuh"

enum { N = CASE_THREADS };

static float buffer[N + 4];

/* ---- barriers -------------------------------------------------------------------------------- */

template <bool barrier> static __global__ void rotate(const float *x, float *y)
{
    DYN_SMEM(float, s);
    unsigned t = threadIdx.x;
    s[t] = x[t];
    if (barrier)
        __syncthreads();
    y[t] = s[(t + N - 1) % N];
}

static __global__ void return_before_barrier(float *y)
{
    if (threadIdx.x < 32)
        return;
    __syncthreads();
    y[threadIdx.x] = 1;
}

static __global__ void two_barriers(float *y)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" void case_missing_barrier(const float *x, float *y)
{
    LAUNCH((rotate<false>), 1, N, N * sizeof(float), 0, x, y);
}

extern "C" void case_barrier(const float *x, float *y)
{
    LAUNCH((rotate<true>), 1, N, N * sizeof(float), 0, x, y);
}

extern "C" void case_barrier_after_return(void)
{
    LAUNCH(return_before_barrier, 1, N, 0, 0, buffer);
}

extern "C" void case_barriers_at_two_places(void)
{
    LAUNCH(two_barriers, 1, N, 0, 0, buffer);
}

/* ---- collectives ----------------------------------------------------------------------------- */

static __global__ void shuffle(const float *x, float *y)
{
    float v = x[threadIdx.x];
    y[threadIdx.x] = shfl_xor(v, 5) + shfl(v, 3);
}

static __global__ void reduce(const float *x, float *y)
{
    DYN_SMEM(float, scratch);
    float sum = block_sum(x[threadIdx.x], scratch), max = block_max(x[threadIdx.x], scratch);
    if (threadIdx.x == N - 1) {
        y[0] = sum;
        y[1] = max;
    }
}

static __global__ void vote(const float *x, uint32_t *y)
{
    uint32_t bits = warp_ballot(x[threadIdx.x] < 0);
    if (lane_id() == 31)
        y[threadIdx.x / 32] = bits;
}

static __global__ void half_a_warp(float *y)
{
    if (lane_id() < 16)
        y[threadIdx.x] = shfl_xor(1.0f, 1);
}

static __global__ void two_collectives(float *y)
{
    if (lane_id() < 16)
        y[threadIdx.x] = shfl_xor(1.0f, 1);
    else
        y[threadIdx.x] = shfl(1.0f, 20);
}

extern "C" void case_shuffles(const float *x, float *y)
{
    LAUNCH(shuffle, 1, N, 0, 0, x, y);
}

extern "C" void case_reductions(const float *x, float *y)
{
    LAUNCH(reduce, 1, N, 32 * sizeof(float), 0, x, y);
}

extern "C" void case_ballot(const float *x, uint32_t *y)
{
    LAUNCH(vote, 1, N, 0, 0, x, y);
}

extern "C" void case_collective_of_half_a_warp(void)
{
    LAUNCH(half_a_warp, 1, N, 0, 0, buffer);
}

extern "C" void case_two_collectives_in_one_warp(void)
{
    LAUNCH(two_collectives, 1, N, 0, 0, buffer);
}

/* ---- cp.async -------------------------------------------------------------------------------- */

/* Thread t copies 4 values to its own place in shared memory, as group t / 32; pending groups are
 * left at the first read, none at the end when `finish`. */
enum { WHOLE, FIRST, NONE };

template <int waited, bool finish> static __global__ void copy(const float *x, float *y)
{
    DYN_SMEM(float, s);
    unsigned t = threadIdx.x;
    for (unsigned group = 0; group < 2; group++) {
        unsigned at = group * 128 + t * 4;
        cp_async16(s + at, x + at, true);
        cp_async_commit();
    }
    if (waited == WHOLE)
        cp_async_wait<0>();
    if (waited == FIRST)
        cp_async_wait<1>();
    for (unsigned group = 0; group < 2; group++)
        for (unsigned i = 0; i < 4; i++)
            y[group * 128 + t * 4 + i] = s[group * 128 + t * 4 + i];
    if (finish)
        cp_async_wait<0>();
}

static __global__ void zero_fill(const float *x, float *y)
{
    DYN_SMEM(float, s);
    unsigned at = threadIdx.x * 4;
    bool inside = threadIdx.x % 2 == 0;
    cp_async16(s + at, inside ? x + at : x, inside);
    cp_async_commit();
    cp_async_wait<0>();
    for (unsigned i = at; i < at + 4; i++)
        y[i] = s[i];
}

static __global__ void misaligned_copy(const float *x)
{
    DYN_SMEM(float, s);
    cp_async16(s + threadIdx.x * 4, x + 1, true);
    cp_async_commit();
    cp_async_wait<0>();
}

extern "C" void case_cp_async_waited(const float *x, float *y)
{
    LAUNCH((copy<WHOLE, true>), 1, 32, N * sizeof(float), 0, x, y);
}

extern "C" void case_cp_async_first_group_waited(const float *x, float *y)
{
    LAUNCH((copy<FIRST, true>), 1, 32, N * sizeof(float), 0, x, y);
}

extern "C" void case_cp_async_read_before_wait(const float *x, float *y)
{
    LAUNCH((copy<NONE, true>), 1, 32, N * sizeof(float), 0, x, y);
}

extern "C" void case_cp_async_in_flight_at_the_end(void)
{
    static float y[N];
    LAUNCH((copy<FIRST, false>), 1, 32, N * sizeof(float), 0, buffer, y);
}

extern "C" void case_cp_async_zero_fill(const float *x, float *y)
{
    LAUNCH(zero_fill, 1, N / 4, N * sizeof(float), 0, x, y);
}

extern "C" void case_cp_async_misaligned(void)
{
    LAUNCH(misaligned_copy, 1, 32, N * sizeof(float), 0, buffer);
}

/* ---- fragments ------------------------------------------------------------------------------- */

#define MULTIPLY(name, mma, T)                                                                     \
    static __global__ void name(const uint32_t *a, const uint32_t *b, T *c)                        \
    {                                                                                              \
        uint32_t ra[4], rb[2];                                                                     \
        T rc[4];                                                                                   \
        memcpy(ra, a + lane_id() * 4, sizeof ra);                                                  \
        memcpy(rb, b + lane_id() * 2, sizeof rb);                                                  \
        memcpy(rc, c + lane_id() * 4, sizeof rc);                                                  \
        mma(rc, ra, rb);                                                                           \
        memcpy(c + lane_id() * 4, rc, sizeof rc);                                                  \
    }                                                                                              \
    extern "C" void case_##mma(const uint32_t *a, const uint32_t *b, T *c)                         \
    {                                                                                              \
        LAUNCH(name, 1, 32, 0, 0, a, b, c);                                                        \
    }
MULTIPLY(multiply_bf16, mma_bf16, float)
MULTIPLY(multiply_f16, mma_f16, float)
MULTIPLY(multiply_s8, mma_s8, int32_t)
#undef MULTIPLY

static __global__ void load_matrices(const uint16_t *matrix, uint32_t *registers, int transposed,
                                     int off)
{
    DYN_SMEM(uint16_t, s); /* rows of 24, as a kernel would pad them */
    uint32_t r[4];
    for (unsigned i = lane_id(); i < 256; i += 32)
        s[i / 16 * 24 + i % 16] = matrix[i];
    __syncthreads();
    const uint16_t *row = s + lane_id() % 16 * 24 + lane_id() / 16 * 8 + off;
    if (transposed)
        ldmatrix_x4_transposed(r, row);
    else
        ldmatrix_x4(r, row);
    memcpy(registers + lane_id() * 4, r, sizeof r);
}

static __global__ void widen_bytes(const uint32_t *x, uint32_t *y)
{
    uint32_t v = x[threadIdx.x];
    y[threadIdx.x * 4 + 0] = bf16_of_s8(v, S8_0_1);
    y[threadIdx.x * 4 + 1] = bf16_of_s8(v, S8_2_3);
    y[threadIdx.x * 4 + 2] = bf16_of_s8(v, S8_0_2);
    y[threadIdx.x * 4 + 3] = bf16_of_s8(v, S8_1_3);
}

static __global__ void read_stream(const float *x, uint32_t *y)
{
    y[threadIdx.x] = load_stream(x + 2).x;
}

extern "C" void case_bf16_of_s8(const uint32_t *x, uint32_t *y)
{
    LAUNCH(widen_bytes, 1, N, 0, 0, x, y);
}

extern "C" void case_ldmatrix(const uint16_t *matrix, uint32_t *registers, int transposed)
{
    LAUNCH(load_matrices, 1, 32, 16 * 24 * 2, 0, matrix, registers, transposed, 0);
}

extern "C" void case_ldmatrix_misaligned(void)
{
    static uint16_t matrix[256];
    static uint32_t registers[128];
    LAUNCH(load_matrices, 1, 32, 16 * 24 * 2, 0, matrix, registers, 0, 4);
}

extern "C" void case_load_stream_misaligned(void)
{
    static uint32_t y[32];
    LAUNCH(read_stream, 1, 32, 0, 0, buffer, y);
}

/* ---- blocks and memory ----------------------------------------------------------------------- */

/* A chain: the block with ticket i adds i and hands the sum on. */
static __global__ void chain(int32_t *y, int *ticket, int *done, int *sum)
{
    DYN_SMEM(int, mine);
    if (threadIdx.x == 0)
        mine[0] = take_ticket(ticket);
    __syncthreads();
    if (threadIdx.x == 0) {
        SPIN_UNTIL(load_acquire(done) == mine[0]);
        y[mine[0]] = *sum;
        *sum += mine[0];
        release_add(done, 1);
    }
}

static __global__ void wait_for_last_block(int *flag)
{
    if (threadIdx.x == 0 && blockIdx.x == 0)
        SPIN_UNTIL(load_acquire(flag) != 0);
    if (threadIdx.x == 0 && blockIdx.x == gridDim.x - 1)
        release_add(flag, 1);
}

static __global__ void past_the_end(float *y)
{
    DYN_SMEM(float, s);
    s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x + 1];
}

static __global__ void nothing(float *y)
{
    y[threadIdx.x % N] = 1;
}

extern "C" void case_block_order(int32_t *y)
{
    int *counters = new int[3]();
    LAUNCH(chain, 64, 32, sizeof(int), 0, y, counters, counters + 1, counters + 2);
    delete[] counters;
}

extern "C" void case_spin_on_a_later_block(void)
{
    static int flag;
    LAUNCH(wait_for_last_block, 4, 32, 0, 0, &flag);
}

extern "C" void case_shared_memory_out_of_bounds(void)
{
    LAUNCH(past_the_end, 1, N, N * sizeof(float), 0, buffer);
}

extern "C" void case_too_much_shared_memory(void)
{
    LAUNCH(nothing, 1, 32, (48 << 10) + 1, 0, buffer);
}

static __global__ void increment(int32_t *x)
{
    x[threadIdx.x] += 1;
}

extern "C" void case_increment(struct simt_stream *stream, int32_t *x)
{
    LAUNCH(increment, 1, N, 0, stream, x);
}

extern "C" void case_33_threads(void)
{
    LAUNCH(nothing, 1, 33, 0, 0, buffer);
}

extern "C" void case_2048_threads(void)
{
    LAUNCH(nothing, 1, 2048, 0, 0, buffer);
}
