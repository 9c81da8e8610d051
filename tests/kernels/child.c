/* tests/kernels/child.c - see child.h. */
#include "tests/kernels/child.h"

#include <sys/wait.h>

int kt_code_of_child(void (*run)(const char *fault), const char *fault)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run(fault);
        fflush(NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("with %s the child ended with status %d", fault, status);
    return WEXITSTATUS(status);
}

void kt_in_child(void (*run)(const char *fault), const char *fault)
{
    int code = kt_code_of_child(run, fault);
    if (code != 0)
        fail_msg("with %s the child ended with code %d", fault, code);
}

int kt_find_simt(void **state)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    *state = hg_backend_open("simt", NULL, &b, &err) == HG_STATUS_OK ? "simt" : NULL;
    hg_backend_close(b);
    return 0;
}

void kt_need_simt(void **state)
{
    if (!*state)
        HG_TEST_SKIP("faults of a device: libhealthgpt_simt.so is not found");
}
