#include "tools/load/http_reader.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_LINE = 64, MAX_TRAILER = 4 << 10 };

void hg_http_reader_init(struct hg_http_reader *r)
{
    struct hg_buf line = r->line;
    hg_buf_clear(&line);
    *r = (struct hg_http_reader){.retry_after_s = -1, .keep_alive = true, .line = line};
}

void hg_http_reader_deinit(struct hg_http_reader *r)
{
    hg_buf_deinit(&r->line);
}

static bool has_token(const char *value, const char *token)
{
    return strcasestr(value, token) != NULL;
}

/* One "Name: value" line of the head, NUL-terminated. */
static enum hg_status read_field(struct hg_http_reader *r, char *line, bool *chunked,
                                 int64_t *length, struct hg_error *err)
{
    char *value = strchr(line, ':');
    if (!value || value == line)
        return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: a header line without a name");
    *value++ = '\0';
    value += strspn(value, " \t");
    if (strcasecmp(line, "Content-Length") == 0) {
        char *end;
        unsigned long long v = strtoull(value, &end, 10);
        if (end == value || *end || *value == '-' || v > INT64_MAX)
            return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: Content-Length is no number");
        *length = (int64_t)v;
    } else if (strcasecmp(line, "Transfer-Encoding") == 0) {
        *chunked = has_token(value, "chunked");
    } else if (strcasecmp(line, "Connection") == 0) {
        r->keep_alive = !has_token(value, "close");
    } else if (strcasecmp(line, "Retry-After") == 0) {
        r->retry_after_s = (int)strtol(value, NULL, 10);
    }
    return HG_STATUS_OK;
}

/* The head is in r->line, its empty line too. */
static enum hg_status read_head(struct hg_http_reader *r, struct hg_error *err)
{
    char *at = r->line.data, *next;
    bool chunked = false;
    int64_t length = -1;
    if (strncmp(at, "HTTP/1.1 ", 9) != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: the answer does not begin with HTTP/1.1");
    r->status = (int)strtol(at + 9, NULL, 10);
    if (r->status < 100 || r->status > 999)
        return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: expected a status of three digits");
    for (at = strstr(at, "\r\n") + 2; (next = strstr(at, "\r\n")) != at; at = next + 2) {
        *next = '\0';
        HG_TRY(read_field(r, at, &chunked, &length, err));
    }
    hg_buf_clear(&r->line);
    bool empty = r->status == 204 || r->status == 304;
    if (r->status < 200) { /* 100 Continue: the real head follows */
        r->status = 0;
        return HG_STATUS_OK;
    }
    r->state = chunked ? HG_HTTP_SIZE : HG_HTTP_BODY;
    r->to_the_end = !chunked && length < 0 && !empty;
    r->n_left = length > 0 ? (uint64_t)length : 0;
    if (r->to_the_end)
        r->keep_alive = false;
    else if (!chunked && r->n_left == 0)
        r->state = HG_HTTP_DONE;
    return HG_STATUS_OK;
}

/* Append up to and with the next LF, at most `most` bytes of line; true when the line is there. */
static enum hg_status take_line(struct hg_http_reader *r, const char *data, size_t n, size_t most,
                                size_t *used, bool *complete, struct hg_error *err)
{
    const char *lf = memchr(data, '\n', n);
    *used = lf ? (size_t)(lf - data) + 1 : n;
    *complete = lf != NULL;
    if (r->line.len + *used > most)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "HTTP: a %s of more than %zu bytes",
                       r->state == HG_HTTP_HEAD ? "head" : "line", most);
    if (hg_buf_append(&r->line, data, *used) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "HTTP: out of memory");
    if (memchr(r->line.data + r->line.len - *used, '\0', *used))
        return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: a NUL byte in the framing");
    return HG_STATUS_OK;
}

static enum hg_status read_size(struct hg_http_reader *r, struct hg_error *err)
{
    char *end;
    unsigned long long v = strtoull(r->line.data, &end, 16);
    if (end == r->line.data || (*end != '\r' && *end != ';') || *r->line.data == '-' ||
        v > INT64_MAX)
        return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: expected the size of a chunk");
    hg_buf_clear(&r->line);
    r->n_left = v;
    r->state = v ? HG_HTTP_CHUNK : HG_HTTP_TRAILER;
    return HG_STATUS_OK;
}

/* Lines of framing: the head, chunk sizes, what stands after a chunk, trailers. */
static enum hg_status feed_line(struct hg_http_reader *r, const char *data, size_t n, size_t *used,
                                struct hg_error *err)
{
    size_t most = r->state == HG_HTTP_HEAD      ? HG_HTTP_MAX_HEAD
                  : r->state == HG_HTTP_TRAILER ? MAX_TRAILER
                                                : MAX_LINE;
    bool complete;
    HG_TRY(take_line(r, data, n, most, used, &complete, err));
    if (!complete)
        return HG_STATUS_OK;
    const char *s = r->line.data;
    size_t len = r->line.len;
    bool empty = len == 2 && s[0] == '\r';
    switch (r->state) {
    case HG_HTTP_HEAD:
        return len >= 4 && memcmp(s + len - 4, "\r\n\r\n", 4) == 0 ? read_head(r, err)
                                                                   : HG_STATUS_OK;
    case HG_HTTP_SIZE:
        return read_size(r, err);
    case HG_HTTP_AFTER:
        if (!empty)
            return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: a chunk is longer than it said");
        r->state = HG_HTTP_SIZE;
        break;
    default:
        if (empty)
            r->state = HG_HTTP_DONE;
    }
    hg_buf_clear(&r->line);
    return HG_STATUS_OK;
}

static enum hg_status feed_body(struct hg_http_reader *r, const char *data, size_t n, size_t *used,
                                struct hg_buf *body, struct hg_error *err)
{
    *used = !r->to_the_end && r->n_left < n ? (size_t)r->n_left : n;
    if (hg_buf_append(body, data, *used) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "HTTP: out of memory");
    if (r->to_the_end)
        return HG_STATUS_OK;
    r->n_left -= *used;
    if (r->n_left == 0)
        r->state = r->state == HG_HTTP_CHUNK ? HG_HTTP_AFTER : HG_HTTP_DONE;
    return HG_STATUS_OK;
}

enum hg_status hg_http_reader_feed(struct hg_http_reader *r, const char *data, size_t n,
                                   size_t *used, struct hg_buf *body, struct hg_error *err)
{
    *used = 0;
    while (*used < n && r->state != HG_HTTP_DONE) {
        size_t k = 0;
        bool bytes = r->state == HG_HTTP_BODY || r->state == HG_HTTP_CHUNK;
        HG_TRY(bytes ? feed_body(r, data + *used, n - *used, &k, body, err)
                     : feed_line(r, data + *used, n - *used, &k, err));
        *used += k;
    }
    return HG_STATUS_OK;
}

enum hg_status hg_http_reader_end(struct hg_http_reader *r, struct hg_error *err)
{
    if (r->state == HG_HTTP_BODY && r->to_the_end)
        r->state = HG_HTTP_DONE;
    return r->state == HG_HTTP_DONE
               ? HG_STATUS_OK
               : hg_fail(err, HG_STATUS_IO, "the connection ended in the middle of an answer");
}
