/* common/status.c - names and numbers of the result codes, and the error text. */
#include "common/status.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

struct status_row {
    const char *text;
    int http;
    int exit_code;
};

static const struct status_row rows[HG_STATUS_COUNT] = {
#define STATUS_ROW(name, text, http, code) [HG_STATUS_##name] = {text, http, code},
    HG_STATUS_MAP(STATUS_ROW)
#undef STATUS_ROW
};

/* A status that is not in the list can only come from a bug of ours: treat it as INTERNAL. */
static const struct status_row *row_of(enum hg_status s)
{
    return (unsigned)s < HG_STATUS_COUNT ? &rows[s] : &rows[HG_STATUS_INTERNAL];
}

const char *hg_status_text(enum hg_status s)
{
    return row_of(s)->text;
}

int hg_status_http(enum hg_status s)
{
    return row_of(s)->http;
}

int hg_status_exit_code(enum hg_status s)
{
    return row_of(s)->exit_code;
}

/* Messages carry names out of untrusted files and travel into logs and JSON replies, so control
 * bytes and bytes that are not UTF-8 (also a sequence cut by the buffer) become '?'. */
static void make_printable(char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int len = hg_utf8_decode(s + i, n - i, &cp);
        if (len == 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            memset(s + i, '?', len ? (size_t)len : 1);
        }
        i += len ? (size_t)len : 1;
    }
}

enum hg_status hg_fail(struct hg_error *err, enum hg_status s, const char *format, ...)
{
    if (!err)
        return s;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n < 0)
        err->text[0] = '\0';
    make_printable(err->text);
    err->status = s;
    return s;
}
