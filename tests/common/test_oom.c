/* Memory runs out: each operation is repeated with its 1st, 2nd, 3rd, ... allocation failing (once
 * alone, once with all later ones), until it succeeds. Every failure must be reported, must free
 * what was taken, and must not crash. malloc is replaced for the whole process, libpng, zlib,
 * libjpeg and jansson included; sanitizers own malloc themselves, so under them this program only
 * skips. */
#include "tests/test.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/base64.h"
#include "common/image_io.h"
#include "common/json.h"
#include "common/pool.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CAN_REPLACE_MALLOC 0
#else
#define CAN_REPLACE_MALLOC 1
#endif

/* Countdown to the failing allocation; 0: never. Only the test's own thread counts. */
static _Thread_local long fail_at;
static _Thread_local bool fail_later_ones;
static _Thread_local long n_live; /* allocations minus frees while counting */
static _Thread_local bool counting;
static _Thread_local long n_refused;

#if CAN_REPLACE_MALLOC
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static bool refuse_now(void)
{
    if (!counting || fail_at == 0)
        return false;
    if (fail_at > 1) {
        fail_at--;
        return false;
    }
    if (!fail_later_ones)
        fail_at = 0;
    n_refused++;
    errno = ENOMEM; /* pthread_create relies on it */
    return true;
}

static void *counted(void *p)
{
    n_live += counting && p;
    return p;
}

void *malloc(size_t n)
{
    return refuse_now() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return refuse_now() ? NULL : counted(__libc_calloc(n, size));
}

void *aligned_alloc(size_t align, size_t n)
{
    return refuse_now() ? NULL : counted(__libc_memalign(align, n));
}

void *realloc(void *p, size_t n)
{
    if (refuse_now())
        return NULL;
    void *q = __libc_realloc(p, n);
    n_live += counting && !p && q;
    return q;
}

void free(void *p)
{
    n_live -= counting && p;
    __libc_free(p);
}
#endif

typedef enum hg_status operation_fn(void *ctx, struct hg_error *err);

/* libjpeg asks again with a smaller size after a single failure; jansson's lexer reports a string
 * that it cannot store as a syntax error. */
static bool acceptable(enum hg_status status, bool later_ones)
{
    return status == HG_STATUS_NO_MEMORY || status == HG_STATUS_BAD_FILE ||
           (status == HG_STATUS_OK && !later_ones);
}

/* Repeat with the k-th allocation failing until nothing fails any more. */
static void exhaust(const char *name, operation_fn *run, void *ctx, bool later_ones)
{
    enum { LIMIT = 100000 };
    for (long k = 1; k < LIMIT; k++) {
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
            printf("%s: %ld allocations, each failed once\n", name, k - 1);
            assert_true(k > 1);
            return;
        }
        if (!acceptable(status, later_ones))
            fail_msg("%s: allocation %ld failed: expected \"out of memory\", got \"%s\" (%s)", name,
                     k, hg_status_text(status), err.text);
    }
    fail_msg("%s: did not end", name);
}

static void exhaust_both_ways(const char *name, operation_fn *run, void *ctx)
{
    exhaust(name, run, ctx, false);
    exhaust(name, run, ctx, true);
}

static void skip_without_our_malloc(void)
{
    if (!CAN_REPLACE_MALLOC)
        HG_TEST_SKIP("malloc belongs to the sanitizer");
}

struct bytes {
    unsigned char *data;
    size_t n;
};

static enum hg_status decode(void *ctx, struct hg_error *err)
{
    struct bytes *b = ctx;
    struct hg_image im;
    enum hg_status status = hg_image_decode(b->data, b->n, &im, err);
    hg_image_deinit(&im);
    return status;
}

static void decoding_an_image(void **state)
{
    (void)state;
    skip_without_our_malloc();
    static const char *const names[] = {"palette.png", "rgb_alpha.png", "rgb420.jpg",
                                        "progressive.jpg", "cmyk.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[200];
        struct bytes b;
        snprintf(path, sizeof path, "tests/data/images/%s", names[i]);
        b.data = hg_test_read(hg_test_file(path), &b.n);
        exhaust_both_ways(names[i], decode, &b);
        free(b.data);
    }
}

static enum hg_status encode(void *ctx, struct hg_error *err)
{
    static const char *const text[] = {"Comment", "x", NULL};
    struct hg_buf b = {0};
    enum hg_status status = hg_image_encode_png(ctx, text, &b, err);
    hg_buf_deinit(&b);
    return status;
}

static void encoding_an_image(void **state)
{
    (void)state;
    skip_without_our_malloc();
    struct hg_image im;
    assert_int_equal(hg_image_init(&im, 64, 64, NULL), HG_STATUS_OK);
    exhaust_both_ways("encode_png", encode, &im);
    hg_image_deinit(&im);
}

static enum hg_status make_image(void *ctx, struct hg_error *err)
{
    struct hg_image im;
    (void)ctx;
    enum hg_status status = hg_image_init(&im, 5, 5, err);
    hg_image_deinit(&im);
    return status;
}

static enum hg_status fill_buffers(void *ctx, struct hg_error *err)
{
    struct hg_buf b = {0}, text = {0};
    enum hg_status status;
    (void)ctx;
    for (int i = 0; i < 100; i++)
        HG_TRY_OUT(hg_buf_printf(&b, "number %d", i));
    HG_TRY_OUT(hg_base64_encode(b.data, b.len, &text));
    HG_TRY_OUT(hg_base64_decode(text.data, text.len, 100000, &b, err));
out:
    hg_buf_deinit(&b);
    hg_buf_deinit(&text);
    return status;
}

static enum hg_status fill_arena(void *ctx, struct hg_error *err)
{
    struct hg_arena a = {0};
    enum hg_status status = HG_STATUS_OK;
    (void)ctx;
    (void)err;
    for (int i = 0; i < 500 && status == HG_STATUS_OK; i++)
        status = hg_arena_strndup(&a, "some text", 9) ? HG_STATUS_OK : HG_STATUS_NO_MEMORY;
    hg_arena_deinit(&a);
    return status;
}

static enum hg_status parse_json(void *ctx, struct hg_error *err)
{
    static const char text[] = "{\"a\": [1, 2.5, \"three\", {\"b\": null, \"c\": true}]}";
    json_t *doc;
    (void)ctx;
    enum hg_status status = hg_json_parse("x", text, sizeof text - 1, &doc, err);
    json_decref(doc);
    return status;
}

static void buffers_arenas_and_images(void **state)
{
    (void)state;
    skip_without_our_malloc();
    exhaust_both_ways("image_init", make_image, NULL);
    exhaust_both_ways("buf and base64", fill_buffers, NULL);
    exhaust_both_ways("arena", fill_arena, NULL);
}

static void parsing_json(void **state)
{
    (void)state;
    skip_without_our_malloc();
    exhaust_both_ways("json_parse", parse_json, NULL);
}

static long virtual_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld", &pages) != 1)
        fail_msg("cannot read /proc/self/statm");
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

/* 63 stacks do not fit: the threads that did start must be stopped again. */
static void pool_whose_threads_do_not_fit(void **state)
{
    (void)state;
    skip_without_our_malloc();
    struct rlimit before, low;
    struct hg_pool *pool;
    struct hg_error err;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)virtual_bytes() + (100u << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
    enum hg_status status = hg_pool_create(64, &pool, &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(status, HG_STATUS_NO_MEMORY);
    assert_null(pool);
    printf("%s\n", err.text);
    HG_TEST_OK(hg_pool_create(64, &pool, &err), err);
    hg_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_an_image), cmocka_unit_test(encoding_an_image),
        cmocka_unit_test(buffers_arenas_and_images), cmocka_unit_test(parsing_json),
        cmocka_unit_test(pool_whose_threads_do_not_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
