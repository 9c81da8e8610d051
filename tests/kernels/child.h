/* tests/kernels/child.h - cases on the emulated device in processes of their own, because a device
 * that is lost, and the environment that says how, last as long as the process. */
#ifndef HG_TESTS_KERNELS_CHILD_H
#define HG_TESTS_KERNELS_CHILD_H

#include <unistd.h>

#include "tests/kernels/parity.h"

/* Group setup: is the emulated backend there? and the skip when it is not. */
int kt_find_simt(void **state);
void kt_need_simt(void **state);

/* Runs a case in a child; its printed failure is the child's own. The second: returns its exit code
 * instead of failing. */
void kt_in_child(void (*run)(const char *fault), const char *fault);
int kt_code_of_child(void (*run)(const char *fault), const char *fault);

/* cmocka's assertions jump back into the parent's test, which the child must not go on with. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#endif
