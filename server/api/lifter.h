/* server/api/lifter.h - takes the pictures out of a JSON text while it arrives. Pure but for
 * memory.
 *
 * A string value that begins with data:image/<type>;base64, wherever it stands, or that is base64
 * of more than HG_LIFTER_HEAD characters under one of the keys image, images, b64_json, data
 * (elements of an array under them too), is decoded into the list of images; the text that is left
 * holds the string "\u0001<index>" in its place. JSON's own escapes (\/, \u002F) are undone on the
 * way. Everything else is copied byte for byte, other URIs and shorter base64 too: what reads the
 * text judges those, and refuses text that is no JSON. base64 as in common/base64.h.
 *
 * The text of a picture is never held, so a body costs its decoded pictures and max_text. The
 * result does not depend on how the bytes are cut into pieces. Refused, with *e filled in:
 *   400 invalid_json     a string that begins with \u0001; nested deeper or more values than
 *                        server/json_text.h allows (counted as hg_json_check_caps does)
 *   400 invalid_request  what is no base64, naming the place and the offset
 *   400 / 413            more or larger pictures than the list takes, at the character that says so
 *   413 body_too_large   more than max_text bytes of text beside the pictures */
#ifndef HG_SERVER_LIFTER_H
#define HG_SERVER_LIFTER_H

#include <stdint.h>

#include "common/buf.h"
#include "server/api/image_bytes.h"
#include "server/json_text.h"

enum { HG_LIFTER_HEAD = 256, HG_LIFTER_KEY = 24, HG_LIFTER_MARK = 1 };

struct hg_lifter_level {
    bool array;
    bool image_key; /* of the value that comes, or of the array */
    uint32_t index; /* of the element, in an array */
    char key[HG_LIFTER_KEY];
};

struct hg_lifter {
    struct hg_buf *text;
    struct hg_image_list *images;
    size_t max_text;
    int mode; /* outside a string, in its head, in its rest, in a picture */
    /* structure */
    struct hg_lifter_level level[HG_JSON_MAX_DEPTH + 1];
    int depth;
    size_t n_nodes;
    bool key_next;
    /* a string */
    bool is_key, escape, is_base64;
    int n_hex; /* digits of \uXXXX that are due */
    unsigned code;
    size_t n_head, n_raw;
    char head[HG_LIFTER_HEAD], raw[6 * HG_LIFTER_HEAD]; /* decoded; as it came */
    /* a picture */
    uint32_t quantum;
    int n_quantum, n_pad;
    size_t n_chars;
};

void hg_lifter_begin(struct hg_lifter *l, struct hg_buf *text, struct hg_image_list *images,
                     size_t max_text);
/* After a refusal nothing more may be fed. */
bool hg_lifter_feed(struct hg_lifter *l, const char *s, size_t n, struct hg_api_error *e);
bool hg_lifter_end(struct hg_lifter *l, struct hg_api_error *e);

#endif
