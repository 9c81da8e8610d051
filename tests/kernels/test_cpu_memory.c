/* Blocks of a little more than whole huge pages take what was asked for, not the next huge page;
 * what reserve takes is said. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/panels.h"
#include "tests/test.h"

enum { N = 24, BYTES = (4 << 20) + 4096 };

static long resident_kb(void)
{
    char line[256];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    fclose(f);
    return kb;
}

static void a_block_takes_what_was_asked_for(void **state)
{
    void *block[N];
    (void)state;
    long before = resident_kb();
    for (int i = 0; i < N; i++) {
        block[i] = cpu_memory(BYTES);
        assert_non_null(block[i]);
        assert_int_equal((uintptr_t)block[i] % 64, 0);
        memset(block[i], 1, BYTES);
    }
    long taken = resident_kb() - before, asked = (long)N * (BYTES / 1024);
    for (int i = 0; i < N; i++)
        free(block[i]);
    if (taken > asked + asked / 4) /* the shadow of AddressSanitizer is an eighth */
        fail_msg("%ld KiB taken for %ld KiB", taken, asked);
}

static void nothing_and_too_much(void **state)
{
    (void)state;
    void *p = cpu_memory(0);
    assert_non_null(p);
    free(p);
    assert_null(cpu_memory(SIZE_MAX - 4096));
}

static void scratch_is_said(void **state)
{
    const struct hg_backend_options o = {.n_threads = 1};
    const struct hg_backend_limits small = {.max_rows = 64, .max_in = 256, .max_out = 512},
                                   wide = {.max_rows = 64, .max_in = 256, .max_out = 65536};
    struct hg_backend_memory memory;
    struct hg_backend *b;
    struct hg_error err = {0};
    (void)state;
    HG_TEST_OK(hg_backend_open("cpu", &o, &b, &err), err);
    HG_TEST_OK(b->ops->reserve(b, &wide, &err), err);
    b->ops->memory(b, &memory);
    assert_in_range(memory.scratch, 64 * 65536 * sizeof(float), 2 * 64 * 65536 * sizeof(float));
    assert_int_equal(memory.used, 0);
    HG_TEST_OK(b->ops->reserve(b, &small, &err), err);
    b->ops->memory(b, &memory);
    assert_in_range(memory.scratch, 64 * 512 * sizeof(float), 64 * 65536);
    hg_backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_takes_what_was_asked_for),
        cmocka_unit_test(nothing_and_too_much),
        cmocka_unit_test(scratch_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
