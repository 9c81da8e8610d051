/* tests/server/test_lifter.c - lifting and parsing is parsing and decoding, in any pieces. */
#include "server/api/lifter.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/rng.h"
#include "server/api/body.h"
#include "server/api/data_uri.h"
#include "tests/server/lift_same.h"
#include "tests/test.h"

/* A lifter with what it fills. */
struct lift {
    struct hg_lifter lifter;
    struct hg_buf text;
    struct hg_image_list images;
    struct hg_api_error error;
    size_t n_taken; /* bytes that were fed when it refused */
};

static void lift_free(struct lift *l)
{
    hg_image_list_clear(&l->images);
    hg_buf_deinit(&l->text);
}

/* Pieces of 1..max_piece bytes, each in a block of its own, so that ASan sees an overrun. */
static bool lift_with(struct lift *l, size_t max_bytes, size_t max_text, const char *s, size_t n,
                      size_t max_piece, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    l->images.max_bytes = max_bytes;
    l->images.max_images = HG_REQUEST_MAX_IMAGES;
    hg_lifter_begin(&l->lifter, &l->text, &l->images, max_text);
    for (size_t at = 0; at < n; at = l->n_taken) {
        uint32_t r[4];
        hg_philox(seed, at, 0, r);
        size_t k = 1 + r[0] % max_piece;
        k = k < n - at ? k : n - at;
        char *piece = malloc(k);
        memcpy(piece, s + at, k);
        bool ok = hg_lifter_feed(&l->lifter, piece, k, &l->error);
        free(piece);
        l->n_taken = at + k;
        if (!ok)
            return false;
    }
    return hg_lifter_end(&l->lifter, &l->error);
}

static bool lift(struct lift *l, const char *s, size_t n, size_t max_piece, uint64_t seed)
{
    return lift_with(l, 1 << 20, 1 << 20, s, n, max_piece, seed);
}

/* ---- single bodies --------------------------------------------------------------------------- */

struct lifted {
    const char *body, *text, *bytes, *where; /* text NULL: refused, `bytes` is the code */
};

#define PNG_URI "data:image/png;base64,"
#define A64 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define A256 A64 A64 A64 A64

static const struct lifted cases[] = {
    /* What is lifted: text, bytes, place. */
    {"{\"image\":\"" PNG_URI "aGVsbG8=\"}", "{\"image\":\"\\u00010\"}", "hello", "image"},
    {"{\"question\":\"" PNG_URI "aGk=\"}", "{\"question\":\"\\u00010\"}", "hi", "question"},
    {"{\"image\":\"DATA:Image/JPEG;x=1;BASE64,aGVs\"}", "{\"image\":\"\\u00010\"}", "hel", "image"},
    {"{\"im\\u0061ge\":\"data:image\\/png;base64,\\u0061\\u0047\\/\\u002f\"}",
     "{\"im\\u0061ge\":\"\\u00010\"}", "h\x6f\xff", "image"},
    {"{\"image\":\"\\u0064\\u0061ta:image\\u002Fpng;base64\\u002c\"}", "{\"image\":\"\\u00010\"}",
     "", "image"},
    {"{\"messages\":[1,{\"content\":[{\"image_url\":{\"detail\":\"low\",\"url\":\"" PNG_URI
     "aGVsbG8=\"}}]}]}",
     "{\"messages\":[1,{\"content\":[{\"image_url\":{\"detail\":\"low\",\"url\":\"\\u00010\"}}]}]}",
     "hello", "messages[1].content[0].image_url.url"},
    {"[[[],[\"a\",\"" PNG_URI "aGVsbG8=\"]]]", "[[[],[\"a\",\"\\u00010\"]]]", "hello", "[0][1][1]"},
    {"{\"a\\\"b\":{\"\":\"" PNG_URI "aGVsbG8=\"}}", "{\"a\\\"b\":{\"\":\"\\u00010\"}}", "hello",
     "?."},
    {"\"" PNG_URI "aGVsbG8=\"", "\"\\u00010\"", "hello", "body"},
    /* What stays. */
    {"{\"image\":\"aGVsbG8=\"}", "{\"image\":\"aGVsbG8=\"}", NULL, NULL},
    {"{\"image\":\"http:\\/\\/x\"}", "{\"image\":\"http:\\/\\/x\"}", NULL, NULL},
    {"{\"image\":\"data:image/png,abc\"}", "{\"image\":\"data:image/png,abc\"}", NULL, NULL},
    {"{\"image\":\"data:image/png;base64\"}", "{\"image\":\"data:image/png;base64\"}", NULL, NULL},
    {"{\"image\":\"data:text/plain;base64,aGk=\"}", "{\"image\":\"data:text/plain;base64,aGk=\"}",
     NULL, NULL},
    {"{\"question\":\"" A256 A64 "\"}", "{\"question\":\"" A256 A64 "\"}", NULL, NULL},
    {"{\"data:image/png;base64,aGk=\":\"image\"}", "{\"data:image/png;base64,aGk=\":\"image\"}",
     NULL, NULL},
    {"{\"q\":\" " PNG_URI "aGk=\"}", "{\"q\":\" " PNG_URI "aGk=\"}", NULL, NULL},
    {"{\"q\":\"a\\\\\\\",[{\",\"r\":1}", "{\"q\":\"a\\\\\\\",[{\",\"r\":1}", NULL, NULL},
    {"{\"image\":\"\\u12\"}", "{\"image\":\"\\u12\"}", NULL, NULL}, /* no JSON: jansson says so */
    {"{\"image\":\"\\x\"}", "{\"image\":\"\\x\"}", NULL, NULL},
    {"{\"image\":\"" PNG_URI "aGVs", "{\"image\":\"\\u00010", "hel", "image"},
    {"{\"image\":\"dat", "{\"image\":\"dat", NULL, NULL},
    {"", "", NULL, NULL},
    {"{\"image\":\"data:image/p\nng;base64,aGk=\"}", "{\"image\":\"data:image/p\nng;base64,aGk=\"}",
     NULL, NULL}, /* no JSON either */
    {"{\"image\":\"data:image/\xff;base64,aGk=\"}", "{\"image\":\"data:image/\xff;base64,aGk=\"}",
     NULL, NULL},
    /* What is refused. */
    {"{\"image\":\"\\u00010\"}", NULL, "invalid_json", ""},
    {"{\"\\u0001\":1}", NULL, "invalid_json", ""},
    {"{\"image\":\"\x01"
     "0\"}",
     NULL, "invalid_json", ""},
    {"{\"image\":\"" PNG_URI "aGVsbG8\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGVsb\\nG8=\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGVs bG8=\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGVs\nbG8=\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGVsbG9=\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGVsbG8=aGVs\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "a===\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG=s\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aGk==\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG-_\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG\\u0100\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG\xc3\xa9\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG\\x\"}", NULL, "invalid_request", "image"},
    {"{\"image\":\"" PNG_URI "aG\\u00\"}", NULL, "invalid_request", "image"},
    {"{\"images\":[\"\",\"" A256 "!!!!\"]}", NULL, "invalid_request", "images[1]"},
};

static void pictures_are_lifted_and_all_else_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct lifted *c = &cases[i];
        for (uint64_t seed = 0; seed < 24; seed++) {
            struct lift l;
            bool ok = lift(&l, c->body, strlen(c->body), 1 + seed * 2, seed);
            if (ok != (c->text != NULL))
                fail_msg("%s: %s", c->body, ok ? "taken" : l.error.text);
            if (!ok && (strcmp(l.error.code, c->bytes) != 0 || l.error.http != 400 ||
                        strcmp(l.error.param, c->where) != 0))
                fail_msg("%s: %s [%s] %s", c->body, l.error.code, l.error.param, l.error.text);
            if (ok && strcmp(l.text.data ? l.text.data : "", c->text) != 0)
                fail_msg("%s: left %s", c->body, l.text.data);
            if (ok) {
                assert_int_equal(l.images.n, c->bytes != NULL);
                if (c->bytes) {
                    assert_int_equal(l.images.items[0].n, strlen(c->bytes));
                    assert_memory_equal(l.images.items[0].data ? l.images.items[0].data
                                                               : (unsigned char *)"",
                                        c->bytes, strlen(c->bytes));
                    assert_string_equal(l.images.items[0].where, c->where);
                }
            }
            lift_free(&l);
        }
    }
    printf("%zu bodies in 24 cuts each\n", sizeof cases / sizeof cases[0]);
}

/* Long base64 under the four keys and their arrays, nowhere else. */
static void plain_base64_is_lifted_under_its_keys(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
        bool lifted;
    } places[] = {
        {"{\"image\":\"", "\"}", true},
        {"{\"b64_json\":\"", "\"}", true},
        {"{\"data\":\"", "\"}", true},
        {"{\"images\":[\"x\",\"", "\"]}", true},
        {"{\"a\":[{\"images\":[[\"", "\"]]}]}", true},
        {"{\"url\":\"", "\"}", false},
        {"{\"image\":{\"x\":\"", "\"}}", false},
        {"{\"image\":1,\"x\":\"", "\"}", false},
        {"{\"Image\":\"", "\"}", false},
        {"{\"images\":[],\"x\":[\"", "\"]}", false},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        for (int n = HG_LIFTER_HEAD - 4; n <= HG_LIFTER_HEAD + 4; n += 4) {
            struct hg_buf body = {0};
            struct lift l;
            hg_buf_append_str(&body, places[i].before);
            for (int k = 0; k < n; k++)
                hg_buf_append(&body, &"aGVs"[k % 4], 1);
            hg_buf_append_str(&body, places[i].after);
            assert_true(lift(&l, body.data, body.len, 7, (uint64_t)n));
            bool lifted = places[i].lifted && n >= HG_LIFTER_HEAD;
            assert_int_equal(l.images.n, lifted);
            if (lifted) {
                assert_int_equal(l.images.items[0].n, n / 4 * 3);
                assert_memory_equal(l.images.items[0].data + n / 4 * 3 - 3, "hel", 3);
            } else {
                assert_string_equal(l.text.data, body.data);
            }
            lift_free(&l);
            hg_buf_deinit(&body);
        }
}

/* json_encode of PHP writes every slash as \/, also those of base64. */
static void php_escaped_data_uri(void **state)
{
    (void)state;
    unsigned char bytes[3000];
    struct hg_buf text = {0}, body = {0};
    struct lift l;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + (i >> 3)) | 0xfc; /* many slashes */
    assert_int_equal(hg_base64_encode(bytes, sizeof bytes, &text), HG_STATUS_OK);
    hg_buf_append_str(&body, "{\"image\":\"data:image\\/png;base64,");
    size_t n_slashes = 0;
    for (size_t i = 0; i < text.len; i++) {
        n_slashes += text.data[i] == '/';
        hg_buf_append(&body, text.data[i] == '/' ? "\\/" : &text.data[i],
                      text.data[i] == '/' ? 2 : 1);
    }
    hg_buf_append_str(&body, "\",\"prompt\":\"a\\/b\"}");
    assert_true(n_slashes > 100);
    for (size_t piece = 1; piece < 9000; piece = piece * 3 + 1) {
        if (!lift(&l, body.data, body.len, piece, piece))
            fail_msg("%s", l.error.text);
        assert_int_equal(l.images.items[0].n, sizeof bytes);
        assert_memory_equal(l.images.items[0].data, bytes, sizeof bytes);
        assert_string_equal(l.text.data, "{\"image\":\"\\u00010\",\"prompt\":\"a\\/b\"}");
        lift_free(&l);
    }
    hg_buf_deinit(&text);
    hg_buf_deinit(&body);
}

/* ---- caps ------------------------------------------------------------------------------------ */

/* At the character that makes it too large, for every size modulo 3. */
static void too_large_is_said_at_the_character(void **state)
{
    (void)state;
    static const char start[] = "{\"image\":\"" PNG_URI;
    for (size_t cap = 30; cap < 33; cap++)
        for (size_t n = cap - 2; n <= cap + 40; n++) {
            struct hg_buf body = {0};
            struct lift l;
            unsigned char bytes[100] = {1, 2, 3};
            hg_buf_append_str(&body, start);
            hg_base64_encode(bytes, n, &body);
            hg_buf_append_str(&body, "\"}");
            bool ok = lift_with(&l, cap, 1000, body.data, body.len, 1, 0);
            assert_int_equal(ok, n <= cap);
            if (!ok) {
                assert_int_equal(l.error.http, 413);
                assert_string_equal(l.error.code, "image_too_large");
                assert_string_equal(l.error.param, "image");
                /* the quantum that holds byte cap + 1 has just been completed */
                assert_int_equal(l.n_taken, sizeof start - 1 + (cap / 3 + 1) * 4);
                assert_true(l.images.items[0].n <= cap);
            }
            lift_free(&l);
            /* In one piece the same. */
            assert_int_equal(lift_with(&l, cap, 1000, body.data, body.len, body.len, 0), ok);
            lift_free(&l);
            hg_buf_deinit(&body);
        }
}

static void caps_of_text_images_depth_and_values_hold(void **state)
{
    (void)state;
    struct lift l;
    static const char body[] = "{\"q\":\"0123456789\"}";
    assert_true(lift_with(&l, 10, sizeof body - 1, body, sizeof body - 1, 1, 0));
    lift_free(&l);
    assert_false(lift_with(&l, 10, sizeof body - 2, body, sizeof body - 1, 1, 0));
    assert_int_equal(l.error.http, 413);
    assert_int_equal(l.n_taken, sizeof body - 1);
    lift_free(&l);

    struct hg_buf b = {0};
    hg_buf_append_str(&b, "[");
    for (int i = 0; i <= HG_REQUEST_MAX_IMAGES; i++)
        hg_buf_append_str(&b, i ? ",\"" PNG_URI "aGk=\"" : "\"" PNG_URI "aGk=\"");
    hg_buf_append_str(&b, "]");
    assert_false(lift(&l, b.data, b.len, 1, 0));
    assert_string_equal(l.error.code, "too_many_images");
    assert_int_equal(l.error.http, 400);
    assert_string_equal(l.error.param, "[4]");
    assert_int_equal(b.len - l.n_taken, sizeof "aGk=\"]" - 1);
    lift_free(&l);

    for (int depth = HG_JSON_MAX_DEPTH; depth <= HG_JSON_MAX_DEPTH + 1; depth++)
        for (int array = 0; array < 2; array++) {
            hg_buf_clear(&b);
            for (int i = 0; i < depth; i++)
                hg_buf_append_str(&b, array ? "[" : "{\"a\":");
            assert_int_equal(lift(&l, b.data, b.len, 3, 0), depth <= HG_JSON_MAX_DEPTH);
            assert_int_equal(hg_json_check_caps(b.data, b.len, NULL) == HG_STATUS_OK,
                             depth <= HG_JSON_MAX_DEPTH);
            lift_free(&l);
        }
    for (int n = HG_JSON_MAX_NODES - 2; n <= HG_JSON_MAX_NODES; n++) {
        hg_buf_clear(&b);
        hg_buf_append_str(&b, "[0");
        for (int i = 0; i < n - 1; i++)
            hg_buf_append_str(&b, ",0");
        bool fits = hg_json_check_caps(b.data, b.len, NULL) == HG_STATUS_OK;
        assert_int_equal(lift(&l, b.data, b.len, 99, 0), fits);
        assert_int_equal(fits, n < HG_JSON_MAX_NODES);
        lift_free(&l);
    }
    hg_buf_deinit(&b);
}

/* ---- the property ---------------------------------------------------------------------------- */

struct maker {
    uint64_t seed, n;
    struct hg_buf out;
    int n_images;
};

static uint32_t draw(struct maker *m, uint32_t below)
{
    uint32_t r[4];
    hg_philox(m->seed, m->n++, 7, r);
    return r[0] % below;
}

/* Every character may be written as it is or escaped, as encoders do. */
static void make_chars(struct maker *m, const char *s, size_t n, uint32_t one_in)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool must = c == '"' || c == '\\' || (unsigned char)c < 0x20;
        bool escape = (unsigned char)c < 0x80 && draw(m, one_in) == 0;
        if (c == '/' && draw(m, 3) == 0)
            hg_buf_append_str(&m->out, "\\/");
        else if (must || escape)
            hg_buf_printf(&m->out, draw(m, 2) ? "\\u%04x" : "\\u%04X", (unsigned)c);
        else
            hg_buf_append(&m->out, &c, 1);
    }
}

static void make_picture(struct maker *m)
{
    static const char *const heads[] = {"", PNG_URI, "DATA:image/jpeg;BASE64,",
                                        "data:image/png;name=a;base64,"};
    unsigned char bytes[700];
    struct hg_buf text = {0};
    size_t n = draw(m, 4) ? draw(m, sizeof bytes) : draw(m, 4);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)draw(m, 256);
    hg_buf_append_str(&text, heads[draw(m, 4)]);
    hg_base64_encode(bytes, n, &text);
    hg_buf_append_str(&m->out, "\"");
    make_chars(m, text.data ? text.data : "", text.len, draw(m, 2) ? 1000000 : 20);
    hg_buf_append_str(&m->out, "\"");
    hg_buf_deinit(&text);
    m->n_images++;
}

static void make_text(struct maker *m)
{
    static const char *const texts[] = {"",
                                        "a",
                                        "Is it?",
                                        "[{\",:\\",
                                        "data:",
                                        "data:image",
                                        "http://x",
                                        "caf\xc3\xa9 \xf0\x9f\x98\x80",
                                        "image",
                                        "\n\t\"\"\"",
                                        "images",
                                        "aGVsbG8=",
                                        "data:image/png,x",
                                        "data:text/plain;base64,aGk="};
    const char *s = texts[draw(m, sizeof texts / sizeof texts[0])];
    hg_buf_append_str(&m->out, "\"");
    make_chars(m, s, strlen(s), 8);
    hg_buf_append_str(&m->out, "\"");
}

static void make_space(struct maker *m)
{
    if (draw(m, 4) == 0)
        hg_buf_append_str(&m->out, draw(m, 2) ? " " : "\r\n\t");
}

static void make_value(struct maker *m, int depth)
{
    static const char *const keys[] = {"image", "images", "b64_json", "data", "url", "image_url"};
    static const char *const plain[] = {"null", "true", "-1.5e3", "[]", "{}", "0"};
    uint32_t what = draw(m, depth > 0 ? 8 : 5);
    make_space(m);
    if (what >= 5) {
        bool array = what == 5;
        hg_buf_append_str(&m->out, array ? "[" : "{");
        uint32_t n = draw(m, 5);
        for (uint32_t i = 0; i < n; i++) {
            if (i)
                hg_buf_append_str(&m->out, ",");
            if (!array) {
                hg_buf_append_str(&m->out, "\"");
                const char *key = keys[draw(m, 6)];
                make_chars(m, key, strlen(key), 12);
                hg_buf_append_str(&m->out, "\"");
                make_space(m);
                hg_buf_append_str(&m->out, ":");
            }
            make_value(m, depth - 1);
        }
        hg_buf_append_str(&m->out, array ? "]" : "}");
    } else if (what >= 3 && m->n_images < HG_REQUEST_MAX_IMAGES) {
        make_picture(m);
    } else if (what >= 1) {
        make_text(m);
    } else {
        hg_buf_append_str(&m->out, plain[draw(m, 6)]);
    }
    make_space(m);
}

static void lifter_equals_jansson(void **state)
{
    (void)state;
    size_t n_lifted = 0, n_images = 0, n_bodies = 6000;
    for (uint64_t seed = 0; seed < n_bodies; seed++) {
        struct maker m = {.seed = seed};
        struct lift l;
        hg_buf_append_str(&m.out, "{\"x\":");
        make_value(&m, 6);
        hg_buf_append_str(&m.out, "}");
        json_t *whole = json_loadb(m.out.data, m.out.len, 0, NULL);
        assert_non_null(whole);
        size_t max_piece = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 1 + seed % 50 : m.out.len;
        if (!lift(&l, m.out.data, m.out.len, max_piece, seed))
            fail_msg("%s: %s", m.out.data, l.error.text);
        json_t *lifted = json_loadb(l.text.data, l.text.len, 0, NULL);
        if (!lifted)
            fail_msg("%s: left %s", m.out.data, l.text.data);
        size_t before = n_lifted;
        if (!lift_same(&l.images, lifted, whole, &n_lifted))
            fail_msg("%s: not what %s says", l.text.data, m.out.data);
        assert_true(n_lifted - before <= l.images.n); /* a duplicate key hides some */
        n_images += (size_t)m.n_images;
        json_decref(lifted);
        json_decref(whole);
        lift_free(&l);
        hg_buf_deinit(&m.out);
    }
    printf("%zu bodies, %zu pictures, %zu of them lifted\n", n_bodies, n_images, n_lifted);
    assert_true(n_lifted > n_bodies / 4 && n_lifted < n_images);
}

/* Damaged bodies: the same verdict and text in any pieces, and whatever jansson still takes holds
 * no picture as text. */
static void damaged_bodies_have_one_verdict(void **state)
{
    (void)state;
    size_t n_taken = 0, n = 20000;
    for (uint64_t seed = 0; seed < n; seed++) {
        struct maker m = {.seed = seed * 3 + 1};
        struct lift a, b;
        make_value(&m, 4);
        for (uint32_t i = draw(&m, 4); m.out.len && i > 0; i--)
            m.out.data[draw(&m, (uint32_t)m.out.len)] =
                draw(&m, 3) ? "\"\\[]{},:/u=+01\x01"[draw(&m, 16)] : (char)draw(&m, 256);
        bool ok = lift(&a, m.out.data, m.out.len, m.out.len + 1, 0);
        assert_int_equal(ok, lift(&b, m.out.data, m.out.len, 1 + seed % 7, seed));
        assert_string_equal(a.error.text, b.error.text);
        assert_int_equal(a.images.n, b.images.n);
        if (ok) {
            n_taken++;
            assert_int_equal(a.text.len, b.text.len);
            if (a.text.len)
                assert_memory_equal(a.text.data, b.text.data, a.text.len);
        }
        lift_free(&a);
        lift_free(&b);
        hg_buf_deinit(&m.out);
    }
    printf("%zu damaged bodies, %zu taken\n", n, n_taken);
    assert_true(n_taken > n / 20 && n_taken < n);
}

/* ---- speed ----------------------------------------------------------------------------------- */

enum { LARGE = 12 << 20, PIECE = 32 << 10 };

static double seconds_lifted(const struct hg_buf *body)
{
    struct hg_body b;
    struct hg_api_error e;
    int64_t from = hg_now_ns();
    assert_true(hg_body_begin(&b, "application/json", &e));
    for (size_t at = 0; at < body->len; at += PIECE)
        assert_true(
            hg_body_feed(&b, body->data + at, body->len - at < PIECE ? body->len - at : PIECE, &e));
    assert_true(hg_body_end(&b, &e));
    json_t *root = NULL;
    assert_int_equal(hg_json_body_parse(b.text.data, b.text.len, &root, NULL), HG_STATUS_OK);
    double s = (double)(hg_now_ns() - from) / 1e9;
    assert_int_equal(b.images.items[0].n, LARGE);
    json_decref(root);
    hg_body_deinit(&b);
    return s;
}

/* As it was before: the body collected, given to jansson, the string decoded. */
static double seconds_collected(const struct hg_buf *body)
{
    struct hg_buf all = {0}, bytes = {0};
    json_t *root = NULL;
    int64_t from = hg_now_ns();
    for (size_t at = 0; at < body->len; at += PIECE)
        hg_buf_append(&all, body->data + at, body->len - at < PIECE ? body->len - at : PIECE);
    assert_int_equal(hg_json_body_parse(all.data, all.len, &root, NULL), HG_STATUS_OK);
    const json_t *v = json_object_get(root, "image");
    assert_int_equal(
        hg_image_uri_decode(json_string_value(v), json_string_length(v), LARGE, &bytes, NULL),
        HG_STATUS_OK);
    double s = (double)(hg_now_ns() - from) / 1e9;
    assert_int_equal(bytes.len, LARGE);
    json_decref(root);
    hg_buf_deinit(&all);
    hg_buf_deinit(&bytes);
    return s;
}

/* The bound is a ratio of two measurements beside each other: a loaded machine slows both. */
static void lifting_is_faster_than_collecting(void **state)
{
    (void)state;
    struct hg_buf body = {0};
    unsigned char *bytes = malloc(LARGE);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    hg_buf_append_str(&body, "{\"question\":\"What?\",\"image\":\"" PNG_URI);
    assert_int_equal(hg_base64_encode(bytes, LARGE, &body), HG_STATUS_OK);
    hg_buf_append_str(&body, "\"}");
    double lifted = 1e9, collected = 1e9;
    for (int i = 0; i < 5; i++) {
        double a = seconds_lifted(&body), b = seconds_collected(&body);
        lifted = a < lifted ? a : lifted;
        collected = b < collected ? b : collected;
    }
    double mb = (double)body.len / 1e6;
    printf(
        "base64 of a %.0f MB body: %.0f MB/s lifted, %.0f MB/s collected and parsed: %.1f times\n",
        mb, mb / lifted, mb / collected, collected / lifted);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(collected > 2 * lifted);
#endif
    free(bytes);
    hg_buf_deinit(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_lifted_and_all_else_stays),
        cmocka_unit_test(plain_base64_is_lifted_under_its_keys),
        cmocka_unit_test(php_escaped_data_uri),
        cmocka_unit_test(too_large_is_said_at_the_character),
        cmocka_unit_test(caps_of_text_images_depth_and_values_hold),
        cmocka_unit_test(lifter_equals_jansson),
        cmocka_unit_test(damaged_bodies_have_one_verdict),
        cmocka_unit_test(lifting_is_faster_than_collecting),
    };
    return cmocka_run_group_tests_name("server/api/lifter", tests, NULL, NULL);
}
