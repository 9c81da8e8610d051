/* server/multipart.h - multipart/form-data (RFC 7578), the whole body in memory. Pure.
 *
 * MHD's own post processor is not used (CVE-2023-27371 in versions that distributions still ship).
 */
#ifndef HG_SERVER_MULTIPART_H
#define HG_SERVER_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

enum { HG_MULTIPART_MAX_PARTS = 32 };

struct hg_part {
    char name[64];
    bool is_file;     /* the part carries a filename */
    const char *data; /* points into the body */
    size_t n;
};

struct hg_multipart {
    struct hg_part parts[HG_MULTIPART_MAX_PARTS];
    size_t n_parts;
};

/* Boundary parameter of a Content-Type value into out (at most 70 characters by RFC 2046). */
enum hg_status hg_multipart_boundary(const char *content_type, char *out, size_t cap,
                                     struct hg_error *err);
enum hg_status hg_multipart_parse(const char *boundary, const char *body, size_t n,
                                  struct hg_multipart *out, struct hg_error *err);

#endif
