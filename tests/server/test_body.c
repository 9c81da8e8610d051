/* tests/server/test_body.c - JSON and form bodies in pieces, their caps, and what a refusal leaves.
 */
#include "server/api/body.h"

#include <dirent.h>

#include "server/json_text.h"
#include "tests/test.h"

static const char form_type[] = "multipart/form-data; boundary=B";

static bool feed_in_pieces(struct hg_body *b, const char *type, const char *s, size_t n,
                           size_t piece, struct hg_api_error *e)
{
    memset(e, 0, sizeof *e);
    if (!hg_body_begin(b, type, e))
        return false;
    for (size_t at = 0; at < n; at += piece)
        if (!hg_body_feed(b, s + at, piece < n - at ? piece : n - at, e))
            return false;
    return hg_body_end(b, e);
}

static void require_empty(const struct hg_body *b)
{
    assert_true(!b->text.data && b->images.n == 0 && !b->parser && b->n_parts == 0);
    for (size_t i = 0; i < HG_REQUEST_MAX_IMAGES; i++)
        assert_null(b->images.items[i].data);
}

static void json_leaves_text_and_pictures(void **state)
{
    (void)state;
    static const char json[] = "{\"images\":[\"data:image/png;base64,aGVsbG8=\",\"x\"],"
                               "\"image\":\"data:image/png;base64,aGk=\"}";
    for (size_t piece = 1; piece < sizeof json; piece++) {
        struct hg_body b;
        struct hg_api_error e;
        if (!feed_in_pieces(&b, "application/json; charset=utf-8", json, sizeof json - 1, piece,
                            &e))
            fail_msg("%s", e.text);
        assert_int_equal(b.kind, HG_BODY_JSON);
        assert_string_equal(b.text.data,
                            "{\"images\":[\"\\u00010\",\"x\"],\"image\":\"\\u00011\"}");
        assert_int_equal(b.n_bytes, sizeof json - 1);
        assert_int_equal(b.n_pieces, (sizeof json - 2) / piece + 1);
        assert_ptr_equal(hg_body_image(&b,
                                       "\x01"
                                       "1",
                                       2),
                         &b.images.items[1]);
        assert_string_equal(b.images.items[1].where, "image");
        assert_null(hg_body_image(&b,
                                  "\x01"
                                  "2",
                                  2));
        assert_null(hg_body_image(&b, "\x01", 1));
        assert_null(hg_body_image(&b,
                                  "\x01"
                                  "00",
                                  3));
        assert_null(hg_body_image(&b, "10", 2));
        assert_null(hg_body_image(NULL,
                                  "\x01"
                                  "0",
                                  2));
        assert_false(hg_body_feed(&b, "x", 1, &e)); /* it has ended */
        require_empty(&b);
        hg_body_deinit(&b);
    }
}

static void form_leaves_texts_and_pictures(void **state)
{
    (void)state;
    static const char form[] = "--B\r\nContent-Disposition: form-data; name=question\r\n\r\nIs it?"
                               "\r\n--B\r\nContent-Disposition: form-data; name=\"image[]\"\r\n\r\n"
                               "\x89PNG\r\n--B\r\nContent-Disposition: form-data; name=seed\r\n\r\n"
                               "7\r\n--B\r\nContent-Disposition: form-data; name=x; filename=y\r\n"
                               "Content-Type: image/jpeg\r\n\r\n\r\n--B\r\nContent-Disposition: "
                               "form-data; name=f; filename=g\r\n\r\ntext\r\n--B--";
    for (size_t piece = 1; piece < sizeof form; piece += piece < 40 ? 1 : 17) {
        struct hg_body b;
        struct hg_api_error e;
        if (!feed_in_pieces(&b, form_type, form, sizeof form - 1, piece, &e))
            fail_msg("%s", e.text);
        assert_int_equal(b.kind, HG_BODY_FORM);
        assert_int_equal(b.n_parts, 5);
        assert_string_equal(b.text.data, "Is it?7text");
        assert_string_equal(b.parts[0].name, "question");
        assert_int_equal(b.parts[0].image, -1);
        assert_int_equal(b.parts[1].image, 0);
        assert_int_equal(b.parts[2].at, 6);
        assert_int_equal(b.parts[2].n, 1);
        assert_int_equal(b.parts[3].image, 1);
        assert_true(b.parts[3].is_file);
        assert_true(b.parts[4].is_file && b.parts[4].image == -1);
        assert_int_equal(b.images.n, 2);
        assert_int_equal(b.images.items[0].n, 4);
        assert_memory_equal(b.images.items[0].data, "\x89PNG", 4);
        assert_int_equal(b.images.items[1].n, 0);
        hg_body_deinit(&b);
        require_empty(&b);
    }
}

struct bad {
    const char *type, *body;
    int http;
    const char *code, *param;
};

static const struct bad bad[] = {
    {"multipart/form-data", "", 400, "invalid_form", ""},
    {"multipart/form-data; boundary=\"a\rb\"", "", 400, "invalid_form", ""},
    {"multipart/form-data; boundary=B", "--B\r\n", 400, "invalid_form", ""},
    {"multipart/form-data; boundary=B", "", 400, "invalid_form", ""},
    {"application/json", "{\"image\":\"data:image/png;base64,a\"", 400, "invalid_request", "image"},
};

static void a_refusal_leaves_nothing(void **state)
{
    (void)state;
    struct hg_body b;
    struct hg_api_error e;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(feed_in_pieces(&b, bad[i].type, bad[i].body, strlen(bad[i].body), 1000, &e));
        assert_int_equal(e.http, bad[i].http);
        assert_string_equal(e.code, bad[i].code);
        assert_string_equal(e.param, bad[i].param);
        require_empty(&b);
        hg_body_deinit(&b);
    }
}

/* Parts of a form with n bytes each. */
static void add_part(struct hg_buf *form, const char *name, size_t n)
{
    hg_buf_printf(form, "\r\n--B\r\nContent-Disposition: form-data; name=%s\r\n\r\n", name);
    assert_int_equal(hg_buf_reserve(form, n), HG_STATUS_OK);
    memset(form->data + form->len, 'x', n);
    form->len += n;
}

static void require_refused(const char *type, const struct hg_buf *body, int http, const char *code,
                            const char *param)
{
    struct hg_body b;
    struct hg_api_error e;
    assert_false(feed_in_pieces(&b, type, body->data, body->len, 40000, &e));
    if (e.http != http || strcmp(e.code, code) != 0 || strcmp(e.param, param) != 0)
        fail_msg("got %d %s [%s] %s", e.http, e.code, e.param, e.text);
    require_empty(&b);
}

static void caps_of_bodies_hold(void **state)
{
    (void)state;
    struct hg_buf form = {0};
    struct hg_body b;
    struct hg_api_error e;
    add_part(&form, "question", HG_API_MAX_TEXT);
    add_part(&form, "image", HG_API_MAX_IMAGE_BYTES);
    hg_buf_append_str(&form, "\r\n--B--");
    assert_true(feed_in_pieces(&b, form_type, form.data, form.len, 32768, &e));
    assert_int_equal(b.images.items[0].n, HG_API_MAX_IMAGE_BYTES);
    assert_int_equal(b.text.len, HG_API_MAX_TEXT);
    hg_body_deinit(&b);

    hg_buf_clear(&form);
    add_part(&form, "question", HG_API_MAX_TEXT + 1);
    require_refused(form_type, &form, 413, "text_too_long", "question");
    hg_buf_clear(&form);
    add_part(&form, "image", HG_API_MAX_IMAGE_BYTES + 1);
    require_refused(form_type, &form, 413, "image_too_large", "images[0]");
    hg_buf_clear(&form);
    for (int i = 0; i < 5; i++)
        add_part(&form, "image", 3);
    require_refused(form_type, &form, 400, "too_many_images", "images[4]");
    hg_buf_clear(&form);
    for (int i = 0; i < 5; i++)
        add_part(&form, "a", HG_BODY_MAX_TEXT / 5 + 1);
    require_refused(form_type, &form, 413, "body_too_large", "");
    hg_buf_clear(&form);
    for (int i = 0; i < 2; i++)
        add_part(&form, "image", HG_API_MAX_BODY / 2);
    require_refused(form_type, &form, 413, "body_too_large", "");
    /* JSON text. */
    hg_buf_clear(&form);
    hg_buf_append_str(&form, "{\"q\":\"");
    add_part(&form, "x", HG_BODY_MAX_TEXT);
    require_refused("application/json", &form, 413, "body_too_large", "");
    hg_buf_deinit(&form);
}

/* ---- JSONTestSuite (nst/JSONTestSuite) ------------------------------------------------------- */

/* Valid JSON that this server refuses: two values for one key, and a NUL in a key. */
static bool refused_by_us(const char *name)
{
    static const char *const names[] = {"y_object_duplicated_key.json",
                                        "y_object_duplicated_key_and_value.json",
                                        "y_object_escaped_null_in_key.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Through the lifter in pieces, then parsed: NULL when either refuses. */
static json_t *read_json(const char *s, size_t n, size_t piece)
{
    struct hg_body b;
    struct hg_api_error e;
    json_t *root = NULL;
    if (feed_in_pieces(&b, "application/json", s, n, piece, &e))
        hg_json_body_parse(b.text.data ? b.text.data : "", b.text.len, &root, NULL);
    else
        assert_int_equal(e.http, 400);
    hg_body_deinit(&b);
    return root;
}

/* n: refused. y: an object says what jansson alone says; no object is refused as a body. i: either,
 * but the same in any pieces. */
static bool try_suite_file(const char *name, const char *s, size_t n)
{
    json_t *whole = read_json(s, n, n + 1), *cut = read_json(s, n, 1 + n % 3);
    bool is_object = json_is_object(whole);
    if (!whole != !cut || (whole && !json_equal(whole, cut)))
        fail_msg("%s: one verdict whole, another in pieces", name);
    if (name[0] == 'n' && whole)
        fail_msg("%s: taken", name);
    json_t *plain = json_loadb(s, n, 0, NULL);
    if (name[0] == 'y' && json_is_object(plain) && !refused_by_us(name) &&
        (!whole || !json_equal(whole, plain)))
        fail_msg("%s: not parsed", name);
    if (refused_by_us(name))
        assert_null(whole);
    json_decref(plain);
    json_decref(whole);
    json_decref(cut);
    return is_object;
}

static void json_test_suite_is_judged_rightly(void **state)
{
    (void)state;
    const char *path = hg_test_shared("data/http/json_test_suite/test_parsing");
    if (!path)
        HG_TEST_SKIP("../shared/data/http/json_test_suite is not there");
    char folder[1024], file[2048];
    static const char kinds[] = "nyi";
    size_t n_files[3] = {0}, n_objects = 0;
    snprintf(folder, sizeof folder, "%s", path);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry = readdir(d); entry; entry = readdir(d)) {
        const char *kind = strchr(kinds, entry->d_name[0]);
        size_t n;
        if (!kind || entry->d_name[1] != '_')
            continue;
        snprintf(file, sizeof file, "%s/%s", folder, entry->d_name);
        char *s = (char *)hg_test_read(file, &n);
        n_objects += try_suite_file(entry->d_name, s, n);
        n_files[kind - kinds]++;
        free(s);
    }
    closedir(d);
    printf("%zu n_ refused, %zu y_ and %zu i_ judged, %zu objects\n", n_files[0], n_files[1],
           n_files[2], n_objects);
    assert_true(n_files[0] > 150 && n_files[1] > 80 && n_files[2] > 20 && n_objects > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_leaves_text_and_pictures),
        cmocka_unit_test(form_leaves_texts_and_pictures),
        cmocka_unit_test(a_refusal_leaves_nothing),
        cmocka_unit_test(caps_of_bodies_hold),
        cmocka_unit_test(json_test_suite_is_judged_rightly),
    };
    return cmocka_run_group_tests_name("server/api/body", tests, NULL, NULL);
}
