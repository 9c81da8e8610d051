/* tests/common/oom.h - memory runs out: an operation is repeated with its 1st, 2nd, 3rd, ...
 * allocation failing (once alone, once with all later ones), until it succeeds. Every failure must
 * be reported, must free what was taken, and must not crash. */
#ifndef HG_TESTS_COMMON_OOM_H
#define HG_TESTS_COMMON_OOM_H

#include "tests/common/fail_malloc.h"
#include "tests/test.h"

typedef enum hg_status operation_fn(void *ctx, struct hg_error *err);

/* libjpeg asks again with a smaller size after a single failure; jansson's lexer reports a string
 * that it cannot store as a syntax error. */
static bool acceptable(enum hg_status status, bool later_ones)
{
    return status == HG_STATUS_NO_MEMORY || status == HG_STATUS_BAD_FILE ||
           (status == HG_STATUS_OK && !later_ones);
}

static bool text_needed; /* a failure without a message is a failure of the test */

/* Repeat with the k-th allocation failing, k = 1, 1 + step, ..., until nothing fails any more. */
static void exhaust(const char *name, operation_fn *run, void *ctx, bool later_ones, long step)
{
    enum { LIMIT = 100000 };
    for (long k = 1; k < LIMIT; k += step) {
        struct hg_error err = {.text = "no text"};
        fail_at = k;
        fail_later_ones = later_ones;
        n_live = n_refused = 0;
        counting = true;
        enum hg_status status = run(ctx, &err);
        counting = false;
        if (n_live != 0)
            fail_msg("%s: allocation %ld failed: %ld blocks leaked", name, k, n_live);
        if (n_refused == 0) {
            assert_int_equal(status, HG_STATUS_OK);
            printf("%s: %ld allocations, one in %ld failed\n", name, k - 1, step);
            assert_true(k > 1);
            return;
        }
        if (text_needed && status != HG_STATUS_OK && strcmp(err.text, "no text") == 0)
            fail_msg("%s: allocation %ld failed: \"%s\" without a message", name, k,
                     hg_status_text(status));
        if (!acceptable(status, later_ones))
            fail_msg("%s: allocation %ld failed: expected \"out of memory\", got \"%s\" (%s)", name,
                     k, hg_status_text(status), err.text);
    }
    fail_msg("%s: did not end", name);
}

static void exhaust_both_ways(const char *name, operation_fn *run, void *ctx, long step)
{
    exhaust(name, run, ctx, false, step);
    exhaust(name, run, ctx, true, step);
}

static void skip_without_our_malloc(void)
{
    if (!CAN_REPLACE_MALLOC)
        HG_TEST_SKIP("malloc belongs to the sanitizer");
}

#endif
