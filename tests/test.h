/* tests/test.h - what every test program includes: cmocka and a few helpers of the house. */
#ifndef HG_TESTS_TEST_H
#define HG_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/status.h"

/* Path of a file or folder of the shared data ("data/medmnist/..."), in a static buffer, or NULL
 * when it is not there. The folder is $HG_SHARED, else ../shared beside the checkout. */
const char *hg_test_shared(const char *name);

/* Path of a file of the checkout ("tests/golden/x"); the tests run from the root of the checkout or
 * find it through $HG_ROOT. Static buffer. */
const char *hg_test_file(const char *name);

/* $HG_TEST_BACKEND: run the kernel and parity tests on this backend alone ("cuda", "simt"), beside
 * `ref`; a backend that cannot be opened then fails them. NULL: the usual ones. */
const char *hg_test_backend(void);

/* $HG_TEST_FULL is 1: tables of shapes are run whole (make test-simt-full) instead of in part. */
bool hg_test_full(void);

/* Read a whole file or fail the test. Free with free(). */
unsigned char *hg_test_read(const char *path, size_t *n);

/* Count a skip with its reason and leave the test. */
#define HG_TEST_SKIP(...)                                                                          \
    do {                                                                                           \
        printf("SKIP: " __VA_ARGS__);                                                              \
        printf("\n");                                                                              \
        skip();                                                                                    \
    } while (0)

/* A call that must succeed; prints the error text when it does not. `err` is a struct hg_error. */
#define HG_TEST_OK(call, err)                                                                      \
    do {                                                                                           \
        enum hg_status hg_test_status_ = (call);                                                   \
        if (hg_test_status_ != HG_STATUS_OK)                                                       \
            fail_msg("%s: %s: %s", #call, hg_status_text(hg_test_status_), (err).text);            \
    } while (0)

/* A call that must fail with this status and a text that contains `part`. */
#define HG_TEST_FAILS(call, status, err, part)                                                     \
    do {                                                                                           \
        enum hg_status hg_test_status_ = (call);                                                   \
        if (hg_test_status_ != (status))                                                           \
            fail_msg("%s: expected \"%s\", got \"%s\" (%s)", #call, hg_status_text(status),        \
                     hg_status_text(hg_test_status_), (err).text);                                 \
        if (!strstr((err).text, (part)))                                                           \
            fail_msg("%s: text \"%s\" does not name \"%s\"", #call, (err).text, (part));           \
    } while (0)

#endif
