/* server/multipart.c - find delimiters with memmem, read Content-Disposition, keep nothing else. */
#include "server/multipart.h"

#include <string.h>
#include <strings.h>

/* The value of parameter `name` in "a; name=value; b=\"v\"" into out; false when absent or unfit.
 */
static bool parameter(const char *s, size_t n, const char *name, char *out, size_t cap)
{
    size_t k = strlen(name), i = 0;
    bool quoted = false;
    for (; i < n; i++) {
        if (s[i] == '"')
            quoted = !quoted;
        if (quoted || s[i] != ';')
            continue;
        size_t at = i + 1;
        while (at < n && (s[at] == ' ' || s[at] == '\t'))
            at++;
        if (n - at <= k || strncasecmp(s + at, name, k) != 0 || s[at + k] != '=')
            continue;
        at += k + 1;
        bool q = at < n && s[at] == '"';
        size_t end = at += q;
        while (end < n && (q ? s[end] != '"' : s[end] != ';' && s[end] != ' '))
            end++;
        if (end - at >= cap || (q && end == n))
            return false;
        memcpy(out, s + at, end - at);
        out[end - at] = '\0';
        return true;
    }
    return false;
}

enum hg_status hg_multipart_boundary(const char *content_type, char *out, size_t cap,
                                     struct hg_error *err)
{
    if (!parameter(content_type, strlen(content_type), "boundary", out, cap) || out[0] == '\0' ||
        strlen(out) > 70)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: no usable boundary parameter");
    return HG_STATUS_OK;
}

/* One header line; only Content-Disposition matters. */
static void read_header(const char *s, size_t n, struct hg_part *part, bool *has_name)
{
    static const char key[] = "content-disposition:";
    if (n < sizeof key - 1 || strncasecmp(s, key, sizeof key - 1) != 0)
        return;
    char filename[256];
    *has_name = parameter(s, n, "name", part->name, sizeof part->name);
    /* A file name is never used; a too long one still marks a file. */
    part->is_file = parameter(s, n, "filename", filename, sizeof filename) ||
                    memmem(s, n, "filename=", 9) != NULL;
}

/* Headers up to the empty line; returns where the content starts, or NULL. */
static const char *read_headers(const char *s, const char *end, struct hg_part *part)
{
    bool has_name = false;
    for (;;) {
        const char *eol = memmem(s, (size_t)(end - s), "\r\n", 2);
        if (!eol)
            return NULL;
        if (eol == s)
            return has_name ? eol + 2 : NULL;
        read_header(s, (size_t)(eol - s), part, &has_name);
        s = eol + 2;
    }
}

enum hg_status hg_multipart_parse(const char *boundary, const char *body, size_t n,
                                  struct hg_multipart *out, struct hg_error *err)
{
    char mark[80] = "\r\n--";
    size_t k = strlen(boundary);
    out->n_parts = 0;
    if (k == 0 || k > 70)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: no usable boundary parameter");
    memcpy(mark + 4, boundary, k + 1);
    size_t mark_len = k + 4;
    const char *end = body + n;
    /* The first delimiter may stand at the very start, without its CRLF. */
    const char *at = n >= mark_len - 2 && memcmp(body, mark + 2, mark_len - 2) == 0
                         ? body + mark_len - 2
                         : memmem(body, n, mark, mark_len);
    if (!at)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: boundary not found in the body");
    if (at != body + mark_len - 2)
        at += mark_len;
    while (!(end - at >= 2 && memcmp(at, "--", 2) == 0)) {
        while (at < end && (*at == ' ' || *at == '\t')) /* transport padding */
            at++;
        if (end - at < 2 || memcmp(at, "\r\n", 2) != 0)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: broken delimiter line");
        if (out->n_parts == HG_MULTIPART_MAX_PARTS)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: more than %d parts",
                           HG_MULTIPART_MAX_PARTS);
        struct hg_part *part = &out->parts[out->n_parts];
        *part = (struct hg_part){0};
        part->data = read_headers(at + 2, end, part);
        if (!part->data)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: part %zu has no form-data name",
                           out->n_parts + 1);
        /* The CRLF that ends the headers may open the delimiter of an empty part. */
        const char *from = part->data - 2;
        const char *next = memmem(from, (size_t)(end - from), mark, mark_len);
        if (!next)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: part %zu is not terminated",
                           out->n_parts + 1);
        part->n = next > part->data ? (size_t)(next - part->data) : 0;
        out->n_parts++;
        at = next + mark_len;
    }
    return HG_STATUS_OK;
}
