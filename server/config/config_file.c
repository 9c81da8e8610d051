/* server/config/config_file.c - the configuration file: a scanner that knows where it is and goes
 * on after an error. The file is one flat object; jansson decodes the values, one at a time, and is
 * asked for nothing else, because it stops at the first error and knows no positions of keys. */
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/utf8.h"
#include "server/config/config_table.h"
#include "server/json_text.h"

enum { GOT_CAP = 40, MAX_ROWS = 256 };

struct scan {
    struct hg_config_build *build;
    const char *name; /* of the file */
    const char *s;
    size_t n, at;
    size_t first[MAX_ROWS]; /* where a row's key stands, + 1; 0: nowhere yet */
};

struct piece {
    size_t at, n;
};

static void position(const struct scan *f, size_t at, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < at && i < f->n; i++) {
        if (f->s[i] == '\n') {
            (*line)++;
            *column = 1;
        } else if (((unsigned char)f->s[i] & 0xC0) != 0x80) {
            (*column)++;
        }
    }
}

static bool is_full(const struct scan *f)
{
    return f->build->n_errors >= HG_CONFIG_MAX_ERRORS;
}

/* KEY may be "": of the file as a whole. */
static void complain(const struct scan *f, size_t at, const char *key, const char *text)
{
    int line, column;
    if (is_full(f)) {
        f->build->n_errors++;
        return;
    }
    position(f, at, &line, &column);
    hg_config_error(f->build, "%s:%d:%d: %.64s%s%s", f->name, line, column, key, *key ? ": " : "",
                    text);
}

/* Past a comment that begins here; one that is not closed goes to the end. false: there is none. */
static bool skip_comment(struct scan *f)
{
    const char *s = f->s + f->at;
    size_t left = f->n - f->at;
    if (left < 2 || s[0] != '/' || (s[1] != '/' && s[1] != '*'))
        return false;
    const char *end =
        s[1] == '/' ? memchr(s, '\n', left) : memmem(s + 2, left - 2, "*/", strlen("*/"));
    f->at = !end ? f->n : (size_t)(end - f->s) + (s[1] == '*' ? 2 : 0);
    return true;
}

static void skip_space(struct scan *f)
{
    while (f->at < f->n) {
        if (strchr(" \t\r\n", f->s[f->at]))
            f->at++;
        else if (!skip_comment(f))
            return;
    }
}

static bool at_char(const struct scan *f, char c)
{
    return f->at < f->n && f->s[f->at] == c;
}

/* Past a string that opens here: behind its closing quote, or at the end of its line. */
static bool skip_string(struct scan *f)
{
    for (f->at++; f->at < f->n && f->s[f->at] != '\n'; f->at++) {
        if (f->s[f->at] == '\\' && f->at + 1 < f->n && f->s[f->at + 1] != '\n')
            f->at++;
        else if (f->s[f->at] == '"') {
            f->at++;
            return true;
        }
    }
    return false;
}

/* One value, or what stands in its place: up to the next comma, bracket or space outside strings;
 * an object or an array is taken whole. false: a string in it is not closed. */
static bool skip_value(struct scan *f)
{
    int depth = 0;
    do {
        if (at_char(f, '"')) {
            if (!skip_string(f))
                return false;
            continue;
        }
        if (skip_comment(f))
            continue;
        char c = f->at < f->n ? f->s[f->at] : '\0';
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        f->at += f->at < f->n;
    } while (f->at < f->n && (depth > 0 || !strchr(",}] \t\r\n\"/", f->s[f->at])));
    return true;
}

/* What was found, short and printable. */
static void shown(const struct scan *f, struct piece p, char out[GOT_CAP + 16])
{
    char c = p.n > 0 ? f->s[p.at] : '\0';
    if (p.n == 0) {
        snprintf(out, GOT_CAP + 16, "%s", p.at >= f->n ? "the end of the file" : "nothing");
    } else if (c == '{' || c == '[') {
        snprintf(out, GOT_CAP + 16, "an %s", c == '{' ? "object" : "array");
    } else {
        size_t n = p.n > GOT_CAP ? GOT_CAP : p.n;
        n = hg_utf8_valid_prefix(f->s + p.at, n);
        snprintf(out, GOT_CAP + 16, "%.*s%s", (int)n, f->s + p.at, n < p.n ? "..." : "");
    }
}

/* NULL: not a JSON value. */
static json_t *decode(const struct scan *f, struct piece p)
{
    json_t *v = NULL;
    if (p.n > 0 && hg_json_check_caps(f->s + p.at, p.n, NULL) == HG_STATUS_OK)
        v = json_loadb(f->s + p.at, p.n, JSON_DECODE_ANY, NULL);
    return v;
}

static size_t row_number(const struct hg_config_row *r)
{
    size_t n;
    return (size_t)(r - hg_config_rows(&n));
}

static void unknown_key(const struct scan *f, size_t at, const char *key)
{
    char text[160] = "unknown key";
    const char *near = is_full(f) ? NULL : hg_config_nearest(key);
    if (near)
        snprintf(text, sizeof text, "unknown key; did you mean %s?", near);
    complain(f, at, key, text);
}

static void take(struct scan *f, size_t key_at, const char *key, struct piece value)
{
    struct hg_config_build *b = f->build;
    char got[GOT_CAP + 16], text[512];
    if (strcmp(key, "$schema") == 0) /* for editors */
        return;
    const struct hg_config_row *r = hg_config_row_of_key(key);
    if (!r || row_number(r) >= MAX_ROWS) {
        unknown_key(f, key_at, key);
        return;
    }
    size_t *first = &f->first[row_number(r)];
    if (*first) {
        int line = 0, column;
        if (!is_full(f))
            position(f, *first - 1, &line, &column);
        snprintf(text, sizeof text, "given twice, first on line %d", line);
        complain(f, key_at, key, text);
        return;
    }
    *first = key_at + 1;
    json_t *v = decode(f, value);
    if (v && hg_config_put_json(&b->config, r, v)) {
        b->source[r->offset] = HG_CONFIG_FROM_FILE;
    } else {
        struct hg_buf expected = {0};
        hg_config_expected(r, true, &expected);
        shown(f, value, got);
        char choice[32];
        const char *near =
            json_is_string(v) ? hg_config_nearest_choice(r, json_string_value(v), choice) : NULL;
        snprintf(text, sizeof text, "expected %s, got %s%s%s%s", expected.data ? expected.data : "",
                 got, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        complain(f, value.at, key, text);
        hg_buf_deinit(&expected);
    }
    json_decref(v);
}

/* To the comma or the bracket that ends a member we could not read, or to the next line. */
static void recover(struct scan *f)
{
    while (f->at < f->n && !strchr(",}\n", f->s[f->at])) {
        bool is_text = at_char(f, '"');
        if (is_text && !skip_string(f))
            return;
        if (!is_text && !skip_comment(f))
            f->at++;
    }
}

static void expected_here(struct scan *f, const char *key, const char *what)
{
    char got[GOT_CAP + 16], text[128];
    struct scan probe = *f;
    if (is_full(f)) /* the file is scanned in linear time, whatever is in it */
        probe.at = probe.n;
    if (probe.at < probe.n)
        (void)skip_value(&probe);
    shown(f, (struct piece){f->at, probe.at - f->at}, got);
    snprintf(text, sizeof text, "expected %s, got %s", what, got);
    complain(f, f->at, key, text);
}

/* "key": value */
static void member(struct scan *f)
{
    struct piece k = {f->at, 0};
    char key[HG_CONFIG_TEXT_CAP];
    if (!at_char(f, '"')) {
        expected_here(f, "", "a key in double quotes");
        recover(f);
        return;
    }
    if (!skip_string(f)) {
        complain(f, k.at, "", "the text that begins here is not closed on its line");
        return;
    }
    k.n = f->at - k.at;
    json_t *decoded = decode(f, k);
    if (!decoded) {
        complain(f, k.at, "", "this is not a JSON text");
        recover(f);
        return;
    }
    snprintf(key, sizeof key, "%s", json_string_value(decoded));
    json_decref(decoded);
    skip_space(f);
    if (!at_char(f, ':')) {
        expected_here(f, key, "a colon after the key");
        recover(f);
        return;
    }
    f->at++;
    skip_space(f);
    struct piece v = {f->at, 0};
    if (at_char(f, ',') || at_char(f, '}')) {
        take(f, k.at, key, v);
        return;
    }
    if (!skip_value(f)) {
        complain(f, v.at, key, "the text that begins here is not closed on its line");
        return;
    }
    v.n = f->at - v.at;
    take(f, k.at, key, v);
}

/* Between two members. false: no more of them. */
static bool next_member(struct scan *f)
{
    for (skip_space(f); f->at < f->n && !strchr(",}\"", f->s[f->at]); skip_space(f)) {
        expected_here(f, "", "a comma or }");
        recover(f);
    }
    if (f->at >= f->n || at_char(f, '}'))
        return false;
    if (at_char(f, '"')) {
        complain(f, f->at, "", "expected a comma before this key");
        return true;
    }
    size_t comma = f->at++;
    skip_space(f);
    if (at_char(f, '}'))
        complain(f, comma, "", "a comma before the closing }");
    return f->at < f->n && !at_char(f, '}');
}

static void scan_object(struct scan *f)
{
    skip_space(f);
    if (!at_char(f, '{')) {
        expected_here(f, "", "one JSON object");
        return;
    }
    f->at++;
    skip_space(f);
    bool more = !at_char(f, '}') && f->at < f->n;
    while (more) {
        member(f);
        more = next_member(f);
    }
    if (!at_char(f, '}')) {
        complain(f, f->at, "", "expected the closing }, got the end of the file");
        return;
    }
    f->at++;
    skip_space(f);
    if (f->at < f->n)
        expected_here(f, "", "nothing after the closing }");
}

void hg_config_add_json(struct hg_config_build *b, const char *name, const char *s, size_t n)
{
    struct scan f = {.build = b, .name = name, .s = s, .n = n};
    if (n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0) { /* some editors begin a file so */
        f.s += 3;
        f.n -= 3;
    }
    const char *nul = memchr(f.s, '\0', f.n);
    size_t text = nul ? (size_t)(nul - f.s) : f.n, valid = hg_utf8_valid_prefix(f.s, text);
    if (valid < f.n) {
        complain(&f, valid, "", "this is not UTF-8 text");
        return;
    }
    scan_object(&f);
}

void hg_config_add_file(struct hg_config_build *b, const char *path)
{
    struct hg_buf text = {0};
    struct hg_error err = {0};
    if (hg_file_read(path, HG_CONFIG_MAX_BYTES, &text, &err) != HG_STATUS_OK)
        hg_config_error(b, "%s", err.text);
    else
        hg_config_add_json(b, path, text.data ? text.data : "", text.len);
    hg_buf_deinit(&text);
}
