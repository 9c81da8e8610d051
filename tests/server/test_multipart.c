/* tests/server/test_multipart.c - form bodies as curl and browsers send them, and broken ones. */
#include "server/api/multipart.h"

#include "common/buf.h"
#include "common/rng.h"
#include "server/http/http_gate.h"
#include "tests/test.h"

static void boundary_is_read_plain_and_quoted(void **state)
{
    (void)state;
    char b[80];
    struct hg_error err = {0};
    HG_TEST_OK(hg_multipart_boundary("multipart/form-data; boundary=----x1", b, sizeof b, &err),
               err);
    assert_string_equal(b, "----x1");
    HG_TEST_OK(
        hg_multipart_boundary("multipart/form-data; a=\";\"; boundary=\"q r\"", b, sizeof b, &err),
        err);
    assert_string_equal(b, "q r");
    HG_TEST_FAILS(hg_multipart_boundary("multipart/form-data", b, sizeof b, &err),
                  HG_STATUS_BAD_REQUEST, err, "boundary");
    HG_TEST_FAILS(hg_multipart_boundary("multipart/form-data; boundary=", b, sizeof b, &err),
                  HG_STATUS_BAD_REQUEST, err, "boundary");
}

static const char good[] = "--B\r\n"
                           "Content-Disposition: form-data; name=\"question\"\r\n\r\n"
                           "Is it?\r\n"
                           "--B\r\n"
                           "Content-Disposition: form-data; name=\"image\"; filename=\"x.png\"\r\n"
                           "Content-Type: image/png\r\n\r\n"
                           "\x89PNG\r\n--Cogus\r\n"
                           "--B\r\n"
                           "content-disposition: form-data; name=empty\r\n\r\n"
                           "\r\n"
                           "--B--\r\n";

/* ---- what a parser says, as one text --------------------------------------------------------- */

static bool seen_begin(void *ctx, const struct hg_part_head *h)
{
    return hg_buf_printf(ctx, "<%s%s%s|", h->name, h->is_file ? " file" : "",
                         h->is_image ? " image" : "") == HG_STATUS_OK;
}

static bool seen_data(void *ctx, const char *s, size_t n)
{
    return hg_buf_append(ctx, s, n) == HG_STATUS_OK;
}

static bool seen_end(void *ctx)
{
    return hg_buf_append_str(ctx, ">") == HG_STATUS_OK;
}

/* In pieces of 1..max_piece bytes, each in a block of its own, so that ASan sees an overrun. */
static enum hg_status read_form(const char *s, size_t n, size_t max_piece, uint64_t seed,
                                struct hg_buf *seen, struct hg_error *err)
{
    struct hg_multipart m;
    struct hg_part_sink sink = {seen_begin, seen_data, seen_end, seen};
    hg_buf_clear(seen);
    hg_multipart_begin(&m, "B", &sink);
    for (size_t at = 0; at < n;) {
        uint32_t r[4];
        hg_philox(seed, at, 0, r);
        size_t k = 1 + r[0] % max_piece;
        k = k < n - at ? k : n - at;
        char *piece = malloc(k);
        memcpy(piece, s + at, k);
        enum hg_status status = hg_multipart_feed(&m, piece, k, err);
        free(piece);
        HG_TRY(status);
        at += k;
    }
    return hg_multipart_end(&m, err);
}

static const char good_seen[] = "<question|Is it?>"
                                "<image file image|\x89PNG\r\n--Cogus>"
                                "<empty|>";

static void parts_are_found_with_their_bytes_in_any_pieces(void **state)
{
    (void)state;
    struct hg_buf seen = {0};
    struct hg_error err = {0};
    for (uint64_t seed = 0; seed < 2000; seed++) {
        size_t max_piece = seed < 2 ? 1 : seed % 5 == 0 ? sizeof good : 1 + seed % 17;
        HG_TEST_OK(read_form(good, sizeof good - 1, max_piece, seed, &seen, &err), err);
        assert_int_equal(seen.len, sizeof good_seen - 1);
        assert_memory_equal(seen.data, good_seen, seen.len);
    }
    /* Every cut into two. */
    for (size_t cut = 0; cut <= sizeof good - 1; cut++) {
        struct hg_multipart m;
        struct hg_part_sink sink = {seen_begin, seen_data, seen_end, &seen};
        hg_buf_clear(&seen);
        hg_multipart_begin(&m, "B", &sink);
        HG_TEST_OK(hg_multipart_feed(&m, good, cut, &err), err);
        HG_TEST_OK(hg_multipart_feed(&m, good + cut, sizeof good - 1 - cut, &err), err);
        HG_TEST_OK(hg_multipart_end(&m, &err), err);
        assert_memory_equal(seen.data, good_seen, sizeof good_seen - 1);
    }
    hg_buf_deinit(&seen);
}

struct form {
    const char *text, *seen; /* NULL: refused */
};

static const struct form forms[] = {
    {"", NULL},
    {"--", NULL},
    {"no boundary at all", NULL},
    {"--B", NULL},
    {"--B\r\n", NULL},
    {"--B-", NULL},
    {"--B\r\n\r\nno name\r\n--B--", NULL},
    {"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--", NULL},
    {"--B\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--B--", NULL},
    {"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nnever ends", NULL},
    {"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--B", NULL},
    {"--B\r\nContent-Disposition: form-data; name=\"a\"\r\nno empty line", NULL},
    {"--B\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b"
     "\r\n\r\nx\r\n--B--",
     NULL},
    {"--Bx\r\n", NULL},
    {"--B--", ""},
    {"a preamble\r\n--B--an epilogue\r\n--B\r\n", ""},
    {"--B \t\r\nContent-Disposition: form-data; name=a\r\n\r\n--B--", "<a|>"},
    {"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--B--", "<a|>"},
    {"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n\r\n--B--", "<a|\r\n>"},
    {"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n--\r\n-\r\r\n\r\n--B--",
     "<a|--\r\n-\r\r\n>"},
    {"--B\r\nContent-Disposition: form-data; name=a\r\nContent-Type:\t IMAGE/png\r\n\r\nx"
     "\r\n--B--",
     "<a image|x>"},
};

static void forms_are_read_or_refused_in_any_pieces(void **state)
{
    (void)state;
    struct hg_buf seen = {0};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const struct form *f = &forms[i];
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct hg_error err = {0};
            enum hg_status s = read_form(f->text, strlen(f->text), 1 + seed, seed, &seen, &err);
            if (s != (f->seen ? HG_STATUS_OK : HG_STATUS_BAD_REQUEST))
                fail_msg("%s: %s (%s)", f->text, hg_status_text(s), err.text);
            if (f->seen && strcmp(seen.data ? seen.data : "", f->seen) != 0)
                fail_msg("%s: read %s", f->text, seen.data);
        }
    }
    hg_buf_deinit(&seen);
}

static void caps_of_parts_and_headers_hold(void **state)
{
    (void)state;
    static const char part[] = "--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n";
    struct hg_buf form = {0}, seen = {0};
    struct hg_error err = {0};
    for (int i = 0; i < HG_MULTIPART_MAX_PARTS; i++)
        hg_buf_append_str(&form, part);
    size_t full = form.len;
    hg_buf_append_str(&form, "--B--");
    HG_TEST_OK(read_form(form.data, form.len, 64, 1, &seen, &err), err);
    form.len = full;
    hg_buf_append_str(&form, part);
    HG_TEST_FAILS(read_form(form.data, form.len, 64, 1, &seen, &err), HG_STATUS_BAD_REQUEST, err,
                  "more than 32 parts");
    /* A line, and all lines together. */
    hg_buf_clear(&form);
    hg_buf_append_str(&form, "--B\r\nX: ");
    for (int i = 0; i < HG_MULTIPART_MAX_LINE; i++)
        hg_buf_append_str(&form, "y");
    HG_TEST_FAILS(read_form(form.data, form.len, 64, 1, &seen, &err), HG_STATUS_BAD_REQUEST, err,
                  "too long headers");
    hg_buf_clear(&form);
    hg_buf_append_str(&form, "--B\r\n");
    for (int i = 0; i < HG_MULTIPART_MAX_HEADERS / 8 + 1; i++)
        hg_buf_append_str(&form, "X: yyy\r\n");
    HG_TEST_FAILS(read_form(form.data, form.len, 64, 1, &seen, &err), HG_STATUS_BAD_REQUEST, err,
                  "too long headers");
    hg_buf_deinit(&form);
    hg_buf_deinit(&seen);
}

static void mutated_forms_read_the_same_in_any_pieces(void **state)
{
    (void)state;
    size_t n = sizeof good - 1, n_parsed = 0;
    struct hg_buf whole = {0}, cut = {0};
    for (uint64_t seed = 0; seed < 20000; seed++) {
        uint32_t r[4];
        hg_philox(seed, 0, 0, r);
        char copy[sizeof good];
        size_t len = r[3] % 4 ? n : r[2] % (n + 1);
        memcpy(copy, good, len);
        if (len) {
            copy[r[0] % len] = (char)r[1];
            copy[r[2] % len] = "\r\n-B;\"= "[r[3] % 8];
        }
        struct hg_error err = {0}, err_cut = {0};
        enum hg_status s = read_form(copy, len, n + 1, seed, &whole, &err);
        enum hg_status again = read_form(copy, len, 1 + seed % 9, seed + 1, &cut, &err_cut);
        assert_int_equal(s, again);
        assert_string_equal(err.text, err_cut.text);
        assert_int_equal(whole.len, cut.len);
        if (whole.len)
            assert_memory_equal(whole.data, cut.data, whole.len);
        n_parsed += s == HG_STATUS_OK;
    }
    printf("20000 mutants, %zu still parse\n", n_parsed);
    assert_true(n_parsed > 0 && n_parsed < 20000);
    hg_buf_deinit(&whole);
    hg_buf_deinit(&cut);
}

static void gate_knows_local_hosts_and_bad_targets(void **state)
{
    (void)state;
    static const char *const local[] = {"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]",
                                        "[::1]:8080"};
    static const char *const foreign[] = {"",           "evil.example", "localhost.evil",
                                          "127.0.0.1x", "localhost:",   "localhost:80x",
                                          "127.0.0.2"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        assert_true(hg_http_host_is_good(local[i], ""));
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        assert_false(hg_http_host_is_good(foreign[i], ""));
    assert_false(hg_http_target("/v1/vqa?x=%20").bad);
    assert_true(hg_http_target("/v1/vqa%00b").bad);
    assert_true(hg_http_target("/a\tb").bad);
    char longer[2100];
    memset(longer, '/', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_true(hg_http_target(longer).bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boundary_is_read_plain_and_quoted),
        cmocka_unit_test(parts_are_found_with_their_bytes_in_any_pieces),
        cmocka_unit_test(forms_are_read_or_refused_in_any_pieces),
        cmocka_unit_test(caps_of_parts_and_headers_hold),
        cmocka_unit_test(mutated_forms_read_the_same_in_any_pieces),
        cmocka_unit_test(gate_knows_local_hosts_and_bad_targets),
    };
    return cmocka_run_group_tests_name("server/api/multipart", tests, NULL, NULL);
}
