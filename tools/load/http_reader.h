/* tools/load/http_reader.h - one HTTP/1.1 answer (RFC 9112) from bytes as they come, in any pieces.
 *
 * Knows Content-Length, chunked, and a body that ends with the connection. Bounded: a head of at
 * most HG_HTTP_MAX_HEAD bytes, a chunk line of at most 64. */
#ifndef HG_TOOLS_LOAD_HTTP_READER_H
#define HG_TOOLS_LOAD_HTTP_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_HTTP_MAX_HEAD = 16 << 10 };

enum hg_http_state {
    HG_HTTP_HEAD,
    HG_HTTP_BODY,    /* n_left bytes, or up to the end of the connection */
    HG_HTTP_SIZE,    /* the line before a chunk */
    HG_HTTP_CHUNK,   /* n_left bytes of one */
    HG_HTTP_AFTER,   /* its CRLF */
    HG_HTTP_TRAILER, /* lines after the last chunk, up to an empty one */
    HG_HTTP_DONE
};

struct hg_http_reader {
    enum hg_http_state state;
    int status;        /* 200, ...; 0 until the head is complete */
    int retry_after_s; /* -1: not said */
    bool keep_alive;   /* the connection may be used again */
    bool to_the_end;   /* the body ends with the connection */
    uint64_t n_left;
    struct hg_buf line; /* the head, then chunk and trailer lines */
};

void hg_http_reader_init(
    struct hg_http_reader *r); /* also: for the next answer, keeps the memory */
void hg_http_reader_deinit(struct hg_http_reader *r);

/* Read n bytes; those of the body are appended to `body`. *used < n only when the answer is
 * complete (state DONE) and more bytes followed it. BAD_FILE: not HTTP; TOO_LARGE: over a bound. */
enum hg_status hg_http_reader_feed(struct hg_http_reader *r, const char *data, size_t n,
                                   size_t *used, struct hg_buf *body, struct hg_error *err);

/* The connection has ended: OK when the answer is complete with it, else IO. */
enum hg_status hg_http_reader_end(struct hg_http_reader *r, struct hg_error *err);

#endif
