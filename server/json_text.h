/* server/json_text.h - JSON in and out: caps checked before a byte is parsed, and a small writer.
 *
 * jansson multiplies memory (10 MB of "[{},{},..." becomes 737 MB), so the structural bytes are
 * counted first and a body over the caps is refused unparsed. The writer appends to an hg_buf; its
 * failures (out of memory) are sticky in `failed`, so that a row of writes needs one check. */
#ifndef HG_SERVER_JSON_TEXT_H
#define HG_SERVER_JSON_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_JSON_MAX_DEPTH = 32, HG_JSON_MAX_NODES = 20000 };

/* Depth and node count of any bytes, in one pass, without recursion. BAD_REQUEST over a cap. */
enum hg_status hg_json_check_caps(const char *s, size_t n, struct hg_error *err);

/* Caps, then strict RFC 8259 with duplicate keys refused. *out is a new reference. The error text
 * holds line and column, never the client's bytes. */
enum hg_status hg_json_body_parse(const char *s, size_t n, json_t **out, struct hg_error *err);

/* Replace // and block comments outside strings by spaces, in place: line and column stay right. */
void hg_json_strip_comments(char *s, size_t n);

struct hg_json_out {
    struct hg_buf *buf;
    bool comma; /* a separator is due before the next value */
    bool failed;
};
void hg_out_begin(struct hg_json_out *o, struct hg_buf *buf);
void hg_out_open(struct hg_json_out *o, const char *key, char bracket);    /* '{' or '[' */
void hg_out_close(struct hg_json_out *o, char bracket);                    /* '}' or ']' */
void hg_out_string(struct hg_json_out *o, const char *key, const char *s); /* NULL: null */
void hg_out_string_n(struct hg_json_out *o, const char *key, const char *s, size_t n);
void hg_out_int(struct hg_json_out *o, const char *key, int64_t v);
void hg_out_uint(struct hg_json_out *o, const char *key, uint64_t v);
void hg_out_real(struct hg_json_out *o, const char *key, double v, int digits); /* at most */
void hg_out_bool(struct hg_json_out *o, const char *key, bool v);
void hg_out_raw(struct hg_json_out *o, const char *key, const char *json); /* JSON as it stands */
void hg_out_base64(struct hg_json_out *o, const char *key, const void *data, size_t n);
/* The same behind `head`, which needs no escapes: a data URI. */
void hg_out_base64_after(struct hg_json_out *o, const char *key, const char *head, const void *data,
                         size_t n);

#endif
