/* server/api/api_fields.h - the table of request fields: what every dialect has, with types and
 * bounds.
 *
 * Parsing, /openapi.json and the tests of bounds read this one table. */
#ifndef HG_SERVER_API_FIELDS_H
#define HG_SERVER_API_FIELDS_H

#include <jansson.h>

#include "server/api/api.h"

enum hg_field_kind {
    HG_FIELD_TEXT,
    HG_FIELD_REAL,
    HG_FIELD_INT,
    HG_FIELD_BOOL,
    HG_FIELD_IMAGE,    /* base64, a data URI, {"image_url": ...}, or an array of these */
    HG_FIELD_TEXTS,    /* a string or an array of strings; the setter is called for each */
    HG_FIELD_OBJECT,   /* its fields are rows of their own: "stream_options.include_usage" */
    HG_FIELD_MESSAGES, /* of a chat */
    HG_FIELD_IGNORED,  /* any value: it changes nothing here, clients send it */
    HG_FIELD_REFUSED,  /* what it asks for cannot be done: only null or an empty array is good */
    HG_FIELD_ZERO      /* a number that has to be 0: clients spell out that it is off */
};

/* A value of the right type; the setter checks what the bounds do not say. */
struct hg_field_value {
    const char *text;
    size_t n;
    double real;
    int64_t integer;
    bool flag;
};

struct hg_field {
    const char *name; /* with the object it is in */
    enum hg_field_kind kind;
    unsigned dialects; /* bit per enum hg_dialect */
    double min, max;   /* of a number; of text: max bytes, 0: what all texts may have */
    bool (*set)(struct hg_ask *ask, const struct hg_field_value *v, struct hg_api_error *e);
    const char *help;
    const char *fallback; /* what holds when it is not given, as JSON; NULL: see help */
    bool required;
};

extern const struct hg_field hg_fields[];
extern const size_t hg_n_fields;

const struct hg_field *hg_field_find(const char *name, size_t n, enum hg_dialect d);
/* Bounds, then the setter. */
bool hg_field_set(const struct hg_field *f, const struct hg_field_value *v, struct hg_ask *ask,
                  struct hg_api_error *e);

/* ---- parts of a request that are more than a value ---- */
/* Decode and append one image; messages name it "images[1]". */
bool hg_ask_add_image(struct hg_ask *ask, const void *data, size_t n, struct hg_api_error *e);
/* The same from a JSON string (base64, data URI). */
bool hg_ask_add_image_text(struct hg_ask *ask, const json_t *v, struct hg_api_error *e);
/* Text into *dst (freed before), counted in ask->n_text; 413 over HG_API_MAX_TEXT, naming `name`.
 */
bool hg_ask_copy_text(struct hg_ask *ask, char **dst, const char *text, size_t n, const char *name,
                      struct hg_api_error *e);
/* server/api/api_chat.c: the messages of a chat into turns, system text and images. */
bool hg_ask_add_messages(struct hg_ask *ask, const json_t *messages, struct hg_api_error *e);

bool hg_api_refuse(struct hg_api_error *e, int http, const char *code, const char *param,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
bool hg_api_refuse_type(struct hg_api_error *e, const char *name, const char *expected);
bool hg_api_refuse_memory(struct hg_api_error *e);

#endif
