/* server/api/multipart.c - delimiters by one comparison per byte (a boundary holds no CR, so a
 * mismatch starts anew), Content-Disposition and Content-Type, nothing else. */
#include "server/api/multipart.h"

#include <stdio.h>
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

static bool printable(const char *s)
{
    while (*s >= 0x20 && *s < 0x7f)
        s++;
    return *s == '\0';
}

enum hg_status hg_multipart_boundary(const char *content_type, char *out, size_t cap,
                                     struct hg_error *err)
{
    if (!parameter(content_type, strlen(content_type), "boundary", out, cap) || out[0] == '\0' ||
        strlen(out) > 70 || !printable(out))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: no usable boundary parameter");
    return HG_STATUS_OK;
}

enum { PREAMBLE, DELIMITER, CLOSING, PADDING, NEWLINE, HEADERS, CONTENT, EPILOGUE };

void hg_multipart_begin(struct hg_multipart *m, const char *boundary,
                        const struct hg_part_sink *sink)
{
    /* The first delimiter may stand at the very start, without its CRLF. */
    *m = (struct hg_multipart){.sink = *sink, .state = PREAMBLE, .n_matched = 2, .n_implied = 2};
    m->n_mark = (size_t)snprintf(m->mark, sizeof m->mark, "\r\n--%.70s", boundary);
}

/* ---- headers --------------------------------------------------------------------------------- */

static bool starts(const char *s, size_t n, const char *key)
{
    return n >= strlen(key) && strncasecmp(s, key, strlen(key)) == 0;
}

static enum hg_status refuse_part(const struct hg_multipart *m, const char *what,
                                  struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: part %zu %s", m->n_parts + 1, what);
}

/* One header line; only Content-Disposition and Content-Type matter. */
static enum hg_status read_header(struct hg_multipart *m, struct hg_error *err)
{
    const char *s = m->line;
    size_t n = m->n_line;
    if (starts(s, n, "content-type:")) {
        size_t at = 13;
        while (at < n && (s[at] == ' ' || s[at] == '\t'))
            at++;
        m->head.is_image = starts(s + at, n - at, "image/");
    }
    if (!starts(s, n, "content-disposition:"))
        return HG_STATUS_OK;
    if (m->has_name)
        return refuse_part(m, "has two form-data names", err);
    char filename[256];
    m->has_name = parameter(s, n, "name", m->head.name, sizeof m->head.name);
    /* A file name is never used; a too long one still marks a file. */
    m->head.is_file = parameter(s, n, "filename", filename, sizeof filename) ||
                      memmem(s, n, "filename=", 9) != NULL;
    return HG_STATUS_OK;
}

static enum hg_status end_line(struct hg_multipart *m, struct hg_error *err)
{
    m->n_line -= 2; /* its CRLF */
    if (m->n_line > 0) {
        enum hg_status status = read_header(m, err);
        m->n_line = 0;
        return status;
    }
    if (!m->has_name)
        return refuse_part(m, "has no form-data name", err);
    /* The CRLF that ends the headers may open the delimiter of an empty part. */
    m->state = CONTENT;
    m->n_matched = m->n_implied = 2;
    return m->sink.begin(m->sink.ctx, &m->head) ? HG_STATUS_OK : HG_STATUS_CANCELLED;
}

static enum hg_status header_byte(struct hg_multipart *m, char c, struct hg_error *err)
{
    if (++m->n_headers > HG_MULTIPART_MAX_HEADERS || m->n_line == sizeof m->line)
        return refuse_part(m, "has too long headers", err);
    m->line[m->n_line++] = c;
    bool ends = c == '\n' && m->n_line > 1 && m->line[m->n_line - 2] == '\r';
    return ends ? end_line(m, err) : HG_STATUS_OK;
}

/* ---- delimiters ------------------------------------------------------------------------------ */

static enum hg_status delimiter_byte(struct hg_multipart *m, char c, struct hg_error *err)
{
    bool padding = c == ' ' || c == '\t';
    if (m->state == DELIMITER && c == '-') {
        m->state = CLOSING;
    } else if (m->state == CLOSING && c == '-') {
        m->state = EPILOGUE;
    } else if ((m->state == DELIMITER || m->state == PADDING) && padding) {
        m->state = PADDING;
    } else if ((m->state == DELIMITER || m->state == PADDING) && c == '\r') {
        m->state = NEWLINE;
    } else if (m->state == NEWLINE && c == '\n') {
        if (m->n_parts == HG_MULTIPART_MAX_PARTS)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: more than %d parts",
                           HG_MULTIPART_MAX_PARTS);
        m->state = HEADERS;
        m->head = (struct hg_part_head){0};
        m->has_name = false;
        m->n_headers = m->n_line = 0;
    } else {
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: broken delimiter line");
    }
    return HG_STATUS_OK;
}

static bool hand_on(struct hg_multipart *m, const char *s, size_t n)
{
    return m->state == PREAMBLE || n == 0 || m->sink.data(m->sink.ctx, s, n);
}

/* Content, or the preamble, up to a delimiter or the end of the piece; *used bytes were taken. */
static enum hg_status content_run(struct hg_multipart *m, const char *s, size_t n, size_t *used)
{
    size_t i = 0;
    while (i < n && m->n_matched < m->n_mark) {
        if (m->n_matched == 0) {
            const char *cr = memchr(s + i, '\r', n - i);
            size_t from = i;
            i = cr ? (size_t)(cr - s) : n;
            if (!hand_on(m, s + from, i - from))
                return HG_STATUS_CANCELLED;
        }
        while (i < n && m->n_matched < m->n_mark && s[i] == m->mark[m->n_matched]) {
            i++;
            m->n_matched++;
        }
        if (i == n || m->n_matched == m->n_mark)
            break;
        /* No delimiter: what looked like one is content, of this piece or of those before. */
        if (!hand_on(m, m->mark + m->n_implied, m->n_matched - m->n_implied))
            return HG_STATUS_CANCELLED;
        m->n_matched = m->n_implied = 0;
    }
    *used = i;
    if (m->n_matched < m->n_mark)
        return HG_STATUS_OK;
    bool part = m->state == CONTENT;
    m->state = DELIMITER;
    m->n_matched = m->n_implied = 0;
    m->n_parts += part;
    return !part || m->sink.end(m->sink.ctx) ? HG_STATUS_OK : HG_STATUS_CANCELLED;
}

enum hg_status hg_multipart_feed(struct hg_multipart *m, const char *s, size_t n,
                                 struct hg_error *err)
{
    for (size_t i = 0; i < n && m->state != EPILOGUE;) {
        size_t used = 1;
        if (m->state == PREAMBLE || m->state == CONTENT)
            HG_TRY(content_run(m, s + i, n - i, &used));
        else if (m->state == HEADERS)
            HG_TRY(header_byte(m, s[i], err));
        else
            HG_TRY(delimiter_byte(m, s[i], err));
        i += used;
    }
    return HG_STATUS_OK;
}

enum hg_status hg_multipart_end(struct hg_multipart *m, struct hg_error *err)
{
    if (m->state == PREAMBLE)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: boundary not found in the body");
    if (m->state == CONTENT || m->state == HEADERS)
        return refuse_part(m, "is not terminated", err);
    if (m->state != EPILOGUE)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "multipart: broken delimiter line");
    return HG_STATUS_OK;
}
