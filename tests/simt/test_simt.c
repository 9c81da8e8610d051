/* The emulation of tests/simt: right kernels give what plain loops give, in every order of threads;
 * planted bugs end the process with a message, or show as outputs that depend on the order. */
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/half.h"
#include "tests/simt/cases.h"
#include "tests/simt/cuda_runtime.h"
#include "tests/test.h"

enum { N = CASE_THREADS };

static _Alignas(16) float x[N];

static int fill(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i * 37 % 101) - 50;
    return 0;
}

static bool poisoned(float v)
{
    return hg_float_bits(v) == 0xffffffffu;
}

/* ---- right kernels --------------------------------------------------------------------------- */

static void each_order(void (*check)(void))
{
    for (int order = 0; order < 3; order++) {
        simt_set_order(order);
        check();
    }
    simt_set_order(0);
}

static void check_collectives(void)
{
    float y[N], sums[2] = {0, 0}, sum = 0, max = -INFINITY;
    uint32_t bits[N / 32] = {0};
    case_shuffles(x, y);
    for (int i = 0; i < N; i++) {
        assert_true(y[i] == x[i ^ 5] + x[i / 32 * 32 + 3]);
        sum += x[i];
        max = fmaxf(max, x[i]);
    }
    case_reductions(x, sums);
    assert_true(sums[0] == sum && sums[1] == max);
    case_ballot(x, bits);
    for (int i = 0; i < N; i++)
        assert_int_equal(bits[i / 32] >> i % 32 & 1, x[i] < 0);
    case_barrier(x, y);
    for (int i = 0; i < N; i++)
        assert_true(y[i] == x[(i + N - 1) % N]);
}

static void collectives_and_barriers_work_in_every_order(void **state)
{
    (void)state;
    each_order(check_collectives);
}

static void check_copies(void)
{
    float y[N];
    case_cp_async_waited(x, y);
    assert_memory_equal(y, x, sizeof y);
    case_cp_async_zero_fill(x, y);
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (i / 4 % 2 ? 0 : x[i]));
    case_cp_async_first_group_waited(x, y);
    assert_memory_equal(y, x, sizeof y / 2);
    for (int i = N / 2; i < N; i++)
        assert_true(poisoned(y[i]));
}

static void copies_land_when_their_group_is_waited_for(void **state)
{
    (void)state;
    each_order(check_copies);
}

static void check_chain(void)
{
    int32_t y[64];
    case_block_order(y);
    for (int i = 0; i < 64; i++)
        assert_int_equal(y[i], i * (i - 1) / 2);
}

static void blocks_may_wait_for_lower_tickets(void **state)
{
    (void)state;
    each_order(check_chain);
}

/* ---- fragments, by the tables of the PTX manual ---------------------------------------------- */

/* Element i of lane l: its row and column. `per` elements of a register: 2 or 4. */
static void place_a(int per, int l, int i, int *row, int *k)
{
    *row = l / 4 + (i / per % 2 ? 8 : 0);
    *k = l % 4 * per + i % per + (i >= 2 * per ? 4 * per : 0);
}

static void place_b(int per, int l, int i, int *k, int *column)
{
    *k = l % 4 * per + i % per + (i >= per ? 4 * per : 0);
    *column = l / 4;
}

static void place_c(int l, int i, int *row, int *column)
{
    *row = l / 4 + (i < 2 ? 0 : 8);
    *column = l % 4 * 2 + i % 2;
}

typedef uint32_t encode_fn(float v);

static uint32_t encode_bf16(float v)
{
    return hg_f32_to_bf16(v);
}

static uint32_t encode_f16(float v)
{
    return hg_f32_to_f16(v);
}

static uint32_t encode_s8(float v)
{
    return (uint8_t)(int8_t)v;
}

/* Small integers, so that every order of additions gives the same sum. */
static float value_a(int row, int k)
{
    return (float)((row * 31 + k * 7) % 23 - 11);
}

static float value_b(int k, int column)
{
    return (float)((k * 5 + column * 13) % 19 - 9);
}

static void pack_fragments(int per, encode_fn *encode, uint32_t *a, uint32_t *b)
{
    int bits = 32 / per, r = 0, c = 0;
    memset(a, 0, 32 * 4 * sizeof *a);
    memset(b, 0, 32 * 2 * sizeof *b);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 4 * per; i++) {
            place_a(per, l, i, &r, &c);
            a[l * 4 + i / per] |= encode(value_a(r, c)) << i % per * bits;
        }
        for (int i = 0; i < 2 * per; i++) {
            place_b(per, l, i, &r, &c);
            b[l * 2 + i / per] |= encode(value_b(r, c)) << i % per * bits;
        }
    }
}

static float product(int depth, int row, int column)
{
    float sum = 0;
    for (int k = 0; k < depth; k++)
        sum += value_a(row, k) * value_b(k, column);
    return sum;
}

static void check_floats(encode_fn *encode,
                         void (*run)(const uint32_t *, const uint32_t *, float *))
{
    uint32_t a[32 * 4], b[32 * 2];
    float c[32 * 4];
    int row = 0, column = 0;
    pack_fragments(2, encode, a, b);
    for (int i = 0; i < 32 * 4; i++)
        c[i] = (float)i;
    run(a, b, c);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            place_c(l, i, &row, &column);
            assert_true(c[l * 4 + i] == (float)(l * 4 + i) + product(16, row, column));
        }
}

static void mma_of_16_bit_floats_is_the_product(void **state)
{
    (void)state;
    check_floats(encode_bf16, case_mma_bf16);
    check_floats(encode_f16, case_mma_f16);
}

static void mma_of_int8_is_the_product(void **state)
{
    (void)state;
    uint32_t a[32 * 4], b[32 * 2];
    int32_t c[32 * 4];
    int row = 0, column = 0;
    pack_fragments(4, encode_s8, a, b);
    for (int i = 0; i < 32 * 4; i++)
        c[i] = i;
    case_mma_s8(a, b, c);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            place_c(l, i, &row, &column);
            assert_int_equal(c[l * 4 + i], l * 4 + i + (int)product(32, row, column));
        }
}

static void every_int8_becomes_the_same_bf16(void **state)
{
    (void)state;
    static const int place[4][2] = {{0, 1}, {2, 3}, {0, 2}, {1, 3}};
    uint32_t words[N], y[N * 4];
    for (uint32_t i = 0; i < N; i++) /* every byte in every place */
        words[i] = i | (i + 64) % 256 << 8 | (i + 128) % 256 << 16 | (i * 7 + 1) % 256 << 24;
    case_bf16_of_s8(words, y);
    for (int i = 0; i < N * 4; i++)
        for (int half = 0; half < 2; half++) {
            int byte = (int8_t)(words[i / 4] >> 8 * place[i % 4][half]);
            uint16_t got = (uint16_t)(y[i] >> 16 * half);
            if (hg_bf16_to_f32(got) != (float)byte)
                fail_msg("int8 %d becomes %g", byte, (double)hg_bf16_to_f32(got));
        }
}

/* A tile that ldmatrix loads is the A operand of mma; transposed, rows and columns change places.
 */
static void ldmatrix_gives_the_fragment_of_a(void **state)
{
    (void)state;
    uint16_t matrix[256];
    uint32_t r[32 * 4];
    for (int i = 0; i < 256; i++)
        matrix[i] = (uint16_t)(i * 257 + 3);
    for (int transposed = 0; transposed < 2; transposed++) {
        case_ldmatrix(matrix, r, transposed);
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 8; i++) {
                int row = l / 4, column = l % 4 * 2 + i % 2;
                int down = i / 2 % 2 * 8, right = i / 4 * 8;
                int at = transposed ? (down + column) * 16 + right + row
                                    : (down + row) * 16 + right + column;
                assert_int_equal(r[l * 4 + i / 2] >> i % 2 * 16 & 0xffff, matrix[at]);
            }
    }
}

/* ---- planted bugs that show in the output ---------------------------------------------------- */

static void a_missing_barrier_shows_in_another_order(void **state)
{
    (void)state;
    float y[N];
    int n_wrong[3] = {0};
    for (int order = 0; order < 3; order++) {
        simt_set_order(order);
        case_missing_barrier(x, y);
        for (int i = 0; i < N; i++)
            n_wrong[order] += !(y[i] == x[(i + N - 1) % N]);
    }
    simt_set_order(0);
    printf("  wrong values: ascending %d, descending %d, shuffled %d of %d\n", n_wrong[0],
           n_wrong[1], n_wrong[2], N);
    assert_int_equal(n_wrong[0], 1); /* only the first thread reads what comes later */
    assert_int_equal(n_wrong[1], N - 1);
    assert_true(n_wrong[2] > N / 4);
}

static void a_copy_that_is_not_waited_for_reads_poison(void **state)
{
    (void)state;
    float y[N];
    case_cp_async_read_before_wait(x, y);
    for (int i = 0; i < N; i++)
        assert_true(poisoned(y[i]));
}

/* ---- planted bugs that end the process ------------------------------------------------------- */

/* Runs it in a child; its standard error ends up in `text`. Returns false when it ended well. */
static bool dies(void (*run)(void), char *text, size_t cap)
{
    int ends[2], status = 0;
    size_t n = 0;
    ssize_t got = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        run();
        _exit(0);
    }
    close(ends[1]);
    while (n < cap - 1 && (got = read(ends[0], text + n, cap - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void planted_bugs_end_the_process_with_their_name(void **state)
{
    (void)state;
    static const struct {
        void (*run)(void);
        const char *message;
    } bugs[] = {
        {case_barrier_after_return,
         "return_before_barrier, block (0, 0, 0): divergent __syncthreads: 32 of 256"},
        {case_barriers_at_two_places, "divergent __syncthreads: threads wait at different places"},
        {case_collective_of_half_a_warp, "divergent collective: 16 of 32 lanes"},
        {case_two_collectives_in_one_warp, "wait at different collectives"},
        {case_cp_async_in_flight_at_the_end, "ends with 1 copies of cp.async in flight"},
        {case_cp_async_misaligned, "cp.async of 16 bytes is misaligned"},
        {case_ldmatrix_misaligned, "ldmatrix row is misaligned"},
        {case_load_stream_misaligned, "load_stream is misaligned"},
        {case_spin_on_a_later_block, "waits for a block that has not run"},
        {case_too_much_shared_memory, "49153 bytes of shared memory, allowed 49152"},
        {case_33_threads, "33 threads in a block"},
        {case_2048_threads, "2048 threads in a block"},
    };
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++) {
        char text[8192];
        if (!dies(bugs[i].run, text, sizeof text))
            fail_msg("the kernel with \"%s\" ended well", bugs[i].message);
        if (!strstr(text, bugs[i].message))
            fail_msg("expected \"%s\", got \"%s\"", bugs[i].message, text);
    }
}

static void shared_memory_past_its_end_is_found_by_asan(void **state)
{
    (void)state;
#ifndef __SANITIZE_ADDRESS__
    HG_TEST_SKIP("shared memory past its end: needs AddressSanitizer (make test-asan)");
#else
    static char text[1 << 16];
    assert_true(dies(case_shared_memory_out_of_bounds, text, sizeof text));
    if (!strstr(text, "heap-buffer-overflow") || !strstr(text, "past_the_end"))
        fail_msg("expected a heap-buffer-overflow in past_the_end, got \"%.2000s\"", text);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_and_barriers_work_in_every_order),
        cmocka_unit_test(copies_land_when_their_group_is_waited_for),
        cmocka_unit_test(blocks_may_wait_for_lower_tickets),
        cmocka_unit_test(mma_of_16_bit_floats_is_the_product),
        cmocka_unit_test(mma_of_int8_is_the_product),
        cmocka_unit_test(every_int8_becomes_the_same_bf16),
        cmocka_unit_test(ldmatrix_gives_the_fragment_of_a),
        cmocka_unit_test(a_missing_barrier_shows_in_another_order),
        cmocka_unit_test(a_copy_that_is_not_waited_for_reads_poison),
        cmocka_unit_test(planted_bugs_end_the_process_with_their_name),
        cmocka_unit_test(shared_memory_past_its_end_is_found_by_asan),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
