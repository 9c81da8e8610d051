/* common/buf.c - growable byte buffer; capacity doubles, so n appends cost O(n) copies. */
#include "common/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_CAP = 64 };

void hg_buf_deinit(struct hg_buf *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (struct hg_buf){0};
}

void hg_buf_clear(struct hg_buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

enum hg_status hg_buf_reserve(struct hg_buf *b, size_t n)
{
    size_t need;
    if (__builtin_add_overflow(b->len, n, &need) || __builtin_add_overflow(need, 1u, &need))
        return HG_STATUS_NO_MEMORY;
    if (need <= b->cap)
        return HG_STATUS_OK;
    size_t cap = b->cap <= SIZE_MAX / 2 ? b->cap * 2 : SIZE_MAX;
    if (cap < need)
        cap = need;
    if (cap < MIN_CAP)
        cap = MIN_CAP;
    char *data = realloc(b->data, cap);
    if (!data)
        return HG_STATUS_NO_MEMORY;
    data[b->len] = '\0';
    b->data = data;
    b->cap = cap;
    return HG_STATUS_OK;
}

enum hg_status hg_buf_append(struct hg_buf *b, const void *data, size_t n)
{
    HG_TRY(hg_buf_reserve(b, n));
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return HG_STATUS_OK;
}

enum hg_status hg_buf_append_str(struct hg_buf *b, const char *s)
{
    return hg_buf_append(b, s, strlen(s));
}

enum hg_status hg_buf_printf(struct hg_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return HG_STATUS_INTERNAL;
    HG_TRY(hg_buf_reserve(b, (size_t)n));
    va_start(args, format);
    vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
    va_end(args);
    b->len += (size_t)n;
    return HG_STATUS_OK;
}
