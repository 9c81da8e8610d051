/* server/api/multipart.h - multipart/form-data (RFC 7578), read while it arrives. Pure.
 *
 * Nothing of a part's content is kept here but the few bytes that may begin a delimiter; the owner
 * gets it in pieces. The result does not depend on how the body is cut into pieces. MHD's own post
 * processor is not used (CVE-2023-27371 in versions that distributions still ship). */
#ifndef HG_SERVER_MULTIPART_H
#define HG_SERVER_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

enum { HG_MULTIPART_MAX_PARTS = 32, HG_MULTIPART_MAX_LINE = 1024, HG_MULTIPART_MAX_HEADERS = 4096 };

struct hg_part_head {
    char name[64];
    bool is_file;  /* the part carries a filename, which is not kept */
    bool is_image; /* its Content-Type begins with image/ */
};

/* Called in this order; false stops the parser with HG_STATUS_CANCELLED, the owner knows why. */
struct hg_part_sink {
    bool (*begin)(void *ctx, const struct hg_part_head *head);
    bool (*data)(void *ctx, const char *bytes, size_t n);
    bool (*end)(void *ctx);
    void *ctx;
};

struct hg_multipart {
    struct hg_part_sink sink;
    char mark[80]; /* "\r\n--" and the boundary */
    size_t n_mark;
    int state;
    size_t n_matched; /* bytes of the mark that stood at the end of the last piece */
    size_t n_implied; /* of them: not the part's own, never handed on */
    size_t n_parts, n_headers, n_line;
    bool has_name;
    struct hg_part_head head;
    char line[HG_MULTIPART_MAX_LINE];
};

/* Boundary parameter of a Content-Type value into out (at most 70 characters by RFC 2046). */
enum hg_status hg_multipart_boundary(const char *content_type, char *out, size_t cap,
                                     struct hg_error *err);
void hg_multipart_begin(struct hg_multipart *m, const char *boundary,
                        const struct hg_part_sink *sink);
/* BAD_REQUEST: no form, more parts than MAX_PARTS, or headers over their caps. After a failure
 * nothing more may be fed. */
enum hg_status hg_multipart_feed(struct hg_multipart *m, const char *s, size_t n,
                                 struct hg_error *err);
/* BAD_REQUEST unless the closing delimiter was there. */
enum hg_status hg_multipart_end(struct hg_multipart *m, struct hg_error *err);

#endif
