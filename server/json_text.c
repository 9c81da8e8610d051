/* server/json_text.c - structural caps, strict parsing, comment stripping, a writer. */
#include "server/json_text.h"

#include <math.h>
#include <string.h>

#include "common/base64.h"
#include "common/json_read.h"
#include "common/utf8.h"

/* End of the string that opens at s[i] (the index of its closing quote), or n when it never closes.
 */
static size_t string_end(const char *s, size_t n, size_t i)
{
    for (i++; i < n; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '"')
            return i;
    }
    return n;
}

enum hg_status hg_json_check_caps(const char *s, size_t n, struct hg_error *err)
{
    size_t depth = 0, nodes = 1;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '"') {
            i = string_end(s, n, i);
        } else if (c == '{' || c == '[') {
            nodes++;
            if (++depth > HG_JSON_MAX_DEPTH)
                return hg_fail(err, HG_STATUS_BAD_REQUEST, "JSON: nested deeper than %d levels",
                               HG_JSON_MAX_DEPTH);
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',') {
            nodes++;
        }
        if (nodes > HG_JSON_MAX_NODES)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "JSON: more than %d values",
                           HG_JSON_MAX_NODES);
    }
    return HG_STATUS_OK;
}

enum hg_status hg_json_body_parse(const char *s, size_t n, json_t **out, struct hg_error *err)
{
    *out = NULL;
    if (n == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "JSON: empty text at line 1, expected an object");
    HG_TRY(hg_json_check_caps(s, n, err));
    json_error_t e;
    enum hg_status status = hg_json_read(s, n, JSON_REJECT_DUPLICATES, out, &e);
    if (status == HG_STATUS_OK)
        return status;
    if (status == HG_STATUS_NO_MEMORY)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "JSON: out of memory");
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "JSON: not valid at line %d, column %d", e.line,
                   e.column);
}

void hg_json_strip_comments(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"') {
            i = string_end(s, n, i);
        } else if (s[i] == '/' && i + 1 < n && s[i + 1] == '/') {
            for (; i < n && s[i] != '\n'; i++)
                s[i] = ' ';
        } else if (s[i] == '/' && i + 1 < n && s[i + 1] == '*') {
            size_t end = i + 2;
            while (end + 1 < n && !(s[end] == '*' && s[end + 1] == '/'))
                end++;
            for (; i < n && i <= end + 1; i++)
                if (s[i] != '\n')
                    s[i] = ' ';
            i--;
        }
    }
}

/* ---- writer ---------------------------------------------------------------------------------- */

void hg_out_begin(struct hg_json_out *o, struct hg_buf *buf)
{
    *o = (struct hg_json_out){.buf = buf};
}

static void put(struct hg_json_out *o, const char *s, size_t n)
{
    if (!o->failed && hg_buf_append(o->buf, s, n) != HG_STATUS_OK)
        o->failed = true;
}

/* Bytes that need no escape are copied in runs; invalid UTF-8 becomes U+FFFD. */
static void put_quoted(struct hg_json_out *o, const char *s, size_t n)
{
    put(o, "\"", 1);
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int len = hg_utf8_decode(s + i, n - i, &cp);
        bool plain = len > 0 && cp >= 0x20 && cp != '"' && cp != '\\' && cp != 0x7f;
        if (!plain) {
            char esc[8] = "\\ufffd";
            if (len > 0)
                snprintf(esc, sizeof esc, "\\u%04x", (unsigned)cp);
            if (cp == '\n' && len)
                memcpy(esc, "\\n", 3);
            if ((cp == '"' || cp == '\\') && len)
                snprintf(esc, sizeof esc, "\\%c", (char)cp);
            put(o, s + start, i - start);
            put(o, esc, strlen(esc));
        }
        i += len > 0 ? (size_t)len : 1;
        if (!plain)
            start = i;
    }
    put(o, s + start, n - start);
    put(o, "\"", 1);
}

static void put_key(struct hg_json_out *o, const char *key)
{
    if (o->comma)
        put(o, ",", 1);
    o->comma = true;
    if (!key)
        return;
    put_quoted(o, key, strlen(key));
    put(o, ":", 1);
}

void hg_out_open(struct hg_json_out *o, const char *key, char bracket)
{
    put_key(o, key);
    put(o, &bracket, 1);
    o->comma = false;
}

void hg_out_close(struct hg_json_out *o, char bracket)
{
    put(o, &bracket, 1);
    o->comma = true;
}

void hg_out_string_n(struct hg_json_out *o, const char *key, const char *s, size_t n)
{
    put_key(o, key);
    put_quoted(o, s, n);
}

void hg_out_string(struct hg_json_out *o, const char *key, const char *s)
{
    if (s) {
        hg_out_string_n(o, key, s, strlen(s));
        return;
    }
    put_key(o, key);
    put(o, "null", 4);
}

void hg_out_int(struct hg_json_out *o, const char *key, int64_t v)
{
    put_key(o, key);
    if (!o->failed && hg_buf_printf(o->buf, "%lld", (long long)v) != HG_STATUS_OK)
        o->failed = true;
}

void hg_out_uint(struct hg_json_out *o, const char *key, uint64_t v)
{
    put_key(o, key);
    if (!o->failed && hg_buf_printf(o->buf, "%llu", (unsigned long long)v) != HG_STATUS_OK)
        o->failed = true;
}

void hg_out_real(struct hg_json_out *o, const char *key, double v, int digits)
{
    put_key(o, key);
    /* JSON knows no infinity; -9999 is what OpenAI's API writes for "impossible". */
    double shown = isfinite(v) ? v : -9999.0;
    char text[400]; /* the largest double has 309 digits before the point */
    int n = snprintf(text, sizeof text, "%.*f", digits, shown);
    if (n < 0 || (size_t)n >= sizeof text) {
        o->failed = true;
        return;
    }
    size_t len = (size_t)n;
    if (memchr(text, '.', len)) {
        while (text[len - 1] == '0')
            len--;
        len -= text[len - 1] == '.';
    }
    bool minus_zero = len == 2 && memcmp(text, "-0", 2) == 0;
    put(o, text + minus_zero, len - minus_zero);
}

void hg_out_bool(struct hg_json_out *o, const char *key, bool v)
{
    put_key(o, key);
    put(o, v ? "true" : "false", v ? 4 : 5);
}

void hg_out_raw(struct hg_json_out *o, const char *key, const char *json)
{
    put_key(o, key);
    put(o, json, strlen(json));
}

void hg_out_base64_after(struct hg_json_out *o, const char *key, const char *head, const void *data,
                         size_t n)
{
    put_key(o, key);
    put(o, "\"", 1);
    put(o, head, strlen(head));
    if (!o->failed && hg_base64_encode(data, n, o->buf) != HG_STATUS_OK)
        o->failed = true;
    put(o, "\"", 1);
}

void hg_out_base64(struct hg_json_out *o, const char *key, const void *data, size_t n)
{
    hg_out_base64_after(o, key, "", data, n);
}
