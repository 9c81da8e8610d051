/* tests/common/test_oom.c - memory runs out in images, JSON, buffers and the pool. */
#include <sys/resource.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/base64.h"
#include "common/image_io.h"
#include "common/json.h"
#include "common/json_read.h"
#include "common/pool.h"
#include "tests/common/oom.h"

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
        exhaust_both_ways(names[i], decode, &b, 1);
        free(b.data);
    }
}

static enum hg_status encode(void *ctx, struct hg_error *err)
{
    static const char *const text[] = {"Comment", "x", NULL};
    const struct hg_png_options o = {.text = text, .xmp = "<x/>"};
    struct hg_buf b = {0};
    enum hg_status status = hg_image_encode_png(ctx, &o, &b, err);
    hg_buf_deinit(&b);
    return status;
}

static void encoding_an_image(void **state)
{
    (void)state;
    skip_without_our_malloc();
    struct hg_image im;
    assert_int_equal(hg_image_init(&im, 64, 64, NULL), HG_STATUS_OK);
    exhaust_both_ways("encode_png", encode, &im, 1);
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
    exhaust_both_ways("image_init", make_image, NULL, 1);
    exhaust_both_ways("buf and base64", fill_buffers, NULL, 1);
    exhaust_both_ways("arena", fill_arena, NULL, 1);
}

static void parsing_json(void **state)
{
    (void)state;
    skip_without_our_malloc();
    exhaust_both_ways("json_parse", parse_json, NULL, 1);
}

/* A string that grows jansson's buffer at its last byte, its closing quote, or before. */
static enum hg_status read_string(void *ctx, struct hg_error *err)
{
    const size_t *n = ctx;
    char text[256] = "{\"k\":\"";
    json_t *doc;
    json_error_t e;
    size_t start = strlen(text);
    memset(text + start, 'a', *n);
    memcpy(text + start + *n, "\"}", 3);
    enum hg_status status = hg_json_read(text, start + *n + 2, 0, &doc, &e);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "%s", hg_status_text(status));
    if (json_string_length(json_object_get(doc, "k")) != *n)
        status = hg_fail(err, HG_STATUS_INTERNAL, "the string lost a byte");
    json_decref(doc);
    return status;
}

static void reading_json_strings_of_every_length(void **state)
{
    (void)state;
    skip_without_our_malloc();
    for (size_t n = 0; n < 140; n++)
        exhaust_both_ways("json_read", read_string, &n, 1);
}

/* No JSON at its end: everything is freed again, in whatever order, and soon. */
static void json_that_ends_badly_is_freed(void **state)
{
    (void)state;
    struct hg_buf text = {0};
    json_t *doc;
    json_error_t e;
    hg_buf_append_str(&text, "{\"a\":[");
    for (int i = 0; i < 20000; i++)
        hg_buf_printf(&text, "%s{\"k%d\":\"%d\"}", i ? "," : "", i, i);
    fail_at = n_live = 0;
    counting = true;
    enum hg_status status = hg_json_read(text.data, text.len, 0, &doc, &e);
    counting = false;
    assert_int_equal(status, HG_STATUS_BAD_REQUEST);
    assert_int_equal(n_live, 0);
    hg_buf_append_str(&text, "]}");
    assert_int_equal(hg_json_read(text.data, text.len, 0, &doc, &e), HG_STATUS_OK);
    assert_int_equal(json_array_size(json_object_get(doc, "a")), 20000);
    json_decref(doc);
    hg_buf_deinit(&text);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoding_an_image),
                                       cmocka_unit_test(encoding_an_image),
                                       cmocka_unit_test(buffers_arenas_and_images),
                                       cmocka_unit_test(parsing_json),
                                       cmocka_unit_test(reading_json_strings_of_every_length),
                                       cmocka_unit_test(json_that_ends_badly_is_freed),
                                       cmocka_unit_test(pool_whose_threads_do_not_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
