/* Prompts through cuBLASLt (kernels/cuda/gemm.h), on the emulation's stand-in: that it is used, and
 * what happens without it or with algorithms that break THE ORDER RULE. The emulated device lives
 * as long as its library, so each case runs in a child process. */
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernels/linear_case.h"

enum { ROWS = 70, DIM = 48 };

static const struct kt_linear_case shape = {.n_rows = ROWS,
                                            .n_in = 100,
                                            .n_parts = 1,
                                            .n_out = {DIM},
                                            .rank = {{16, 8, 0, 4}},
                                            .n_experts = 4,
                                            .host = HG_DTYPE_F32,
                                            .store = HG_DTYPE_BF16,
                                            .bias = true,
                                            .norm = true};

struct outcome {
    long n_products;
    bool same; /* a prompt's rows have the bits of generated ones */
};

static struct outcome run(const char *fault)
{
    static float prompt[ROWS * DIM], generated[ROWS * DIM];
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    struct kt_linear l;
    setenv("HG_SIMT_FAULT", fault, 1);
    HG_TEST_OK(hg_backend_open("simt", 1, &b, &err), err);
    HG_TEST_OK(b->ops->reserve(b, &kt_limits, &err), err);
    kt_linear_init(&l, &shape, 1);
    kt_linear_run(&l, b, NULL, ROWS, generated);
    l.c.n_prompt = ROWS;
    kt_linear_run(&l, b, NULL, ROWS, prompt);
    void *library = dlopen("libhealthgpt_simt.so", RTLD_NOW | RTLD_NOLOAD);
    long (*count)(void) = NULL;
    *(void **)(void *)&count = library ? dlsym(library, "simt_gemm_count") : NULL;
    assert_non_null(count);
    struct outcome o = {count(), memcmp(prompt, generated, sizeof prompt) == 0};
    kt_linear_deinit(&l);
    b->ops->close(b);
    return o;
}

static struct outcome in_child(const char *fault)
{
    int ends[2], status = 0;
    struct outcome o = {-1, false};
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        o = run(fault);
        _exit(write(ends[1], &o, sizeof o) == (ssize_t)sizeof o ? 0 : 1);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], &o, sizeof o);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (n != (ssize_t)sizeof o || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("with \"%s\" the child ended with status %d", fault, status);
    return o;
}

static void need_simt(void)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    if (hg_backend_open("simt", 1, &b, &err) != HG_STATUS_OK)
        HG_TEST_SKIP("the stand-in of cuBLASLt: libhealthgpt_simt.so is not found");
    hg_backend_close(b);
}

/* The stand-in offers an algorithm first whose order depends on the number of rows: the trial must
 * pass it over. test_invariance holds the one that is taken to the rule. */
static void prompts_go_through_cublaslt(void **state)
{
    (void)state;
    need_simt();
    struct outcome o = in_child("");
    assert_true(o.n_products > 2); /* the trial's and the prompt's */
    assert_false(o.same);          /* fp32 sums in another order: the stand-in adds one by one */
}

static void without_the_library_our_kernels_do_all(void **state)
{
    (void)state;
    need_simt();
    struct outcome o = in_child("cublas");
    assert_int_equal(o.n_products, 0);
    assert_true(o.same);
}

static void an_algorithm_that_breaks_the_order_rule_is_not_taken(void **state)
{
    (void)state;
    need_simt();
    struct outcome o = in_child("gemm");
    assert_true(o.n_products > 0); /* the trial's only */
    assert_true(o.same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_go_through_cublaslt),
        cmocka_unit_test(without_the_library_our_kernels_do_all),
        cmocka_unit_test(an_algorithm_that_breaks_the_order_rule_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
