/* server/api/body.h - the body of a request, taken in while it arrives.
 *
 * What is left at the end is small: JSON text with "\u0001<index>" where a picture was, or the
 * short parts of a form; and the pictures as encoded bytes (server/api/image_bytes.h), in order of
 * arrival. No byte goes to a disk. Nothing is kept after a refusal. */
#ifndef HG_SERVER_BODY_H
#define HG_SERVER_BODY_H

#include <stdint.h>

#include "common/buf.h"
#include "common/sha256.h"
#include "server/api/api.h"
#include "server/api/image_bytes.h"
#include "server/api/multipart.h"

enum { HG_BODY_MAX_TEXT = 1 << 20 }; /* of JSON, or of a form's parts together */

enum hg_body_kind { HG_BODY_JSON, HG_BODY_FORM };

struct hg_body_part {
    char name[64];
    bool is_file;
    int image;    /* index of a picture, or -1: text */
    size_t at, n; /* its bytes in hg_body.text */
};

struct hg_body {
    enum hg_body_kind kind;
    struct hg_buf text;
    struct hg_body_part parts[HG_MULTIPART_MAX_PARTS]; /* of a form */
    size_t n_parts;
    struct hg_image_list images;
    uint64_t n_bytes, n_pieces;    /* fed */
    bool ended;                    /* hg_body_end has succeeded */
    struct hg_body_parser *parser; /* until the end */
};

/* A Content-Type of multipart/form-data makes a form, any other JSON. False: *e says why not.
 * Release with hg_body_deinit in any case. */
bool hg_body_begin(struct hg_body *b, const char *content_type, struct hg_api_error *e);
/* Bytes as they arrive, in any pieces. 413 over HG_API_MAX_BODY. After a refusal b is empty. */
bool hg_body_feed(struct hg_body *b, const char *s, size_t n, struct hg_api_error *e);
bool hg_body_end(struct hg_body *b, struct hg_api_error *e);
void hg_body_deinit(struct hg_body *b); /* pictures are zeroed; b is empty; NULL is fine */

/* SHA-256 of what an ended body says: the text, and each part and picture. Two forms that differ
 * only in their boundary, which clients draw anew each time, say the same. `salt` comes first. */
void hg_body_digest(const struct hg_body *b, const char *salt, uint8_t out[HG_SHA256_BYTES]);

/* A whole body at once: tests, tools. */
bool hg_body_read(struct hg_body *b, const char *content_type, const char *s, size_t n,
                  struct hg_api_error *e);

/* The picture that a JSON string stands for, or NULL: the string is the client's own. b may be
 * NULL (JSON that was not taken in as a body). */
const struct hg_image_bytes *hg_body_image(const struct hg_body *b, const char *s, size_t n);

#endif
