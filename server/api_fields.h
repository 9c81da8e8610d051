/* server/api_fields.h - the table of request fields (inside server/api*.c only). */
#ifndef HG_SERVER_API_FIELDS_H
#define HG_SERVER_API_FIELDS_H

#include "server/api.h"

enum hg_field_kind { HG_FIELD_TEXT, HG_FIELD_REAL, HG_FIELD_INT, HG_FIELD_BOOL, HG_FIELD_IMAGE };

/* A value of the right type; the setter checks bounds. */
struct hg_field_value {
    const char *text;
    size_t n;
    double real;
    int64_t integer;
    bool flag;
};

struct hg_field {
    const char *name;
    enum hg_field_kind kind;
    unsigned tasks; /* bit per enum hg_task */
    double min, max;
    bool (*set)(struct hg_ask *ask, const struct hg_field_value *v, struct hg_api_error *e);
};

const struct hg_field *hg_field_find(const char *name, size_t n, enum hg_task task);
/* Bounds, then the setter. */
bool hg_field_set(const struct hg_field *f, const struct hg_field_value *v, struct hg_ask *ask,
                  struct hg_api_error *e);
/* Decode and append one image; `index` only names it in messages ("images[1]"). */
bool hg_ask_add_image(struct hg_ask *ask, const void *data, size_t n, struct hg_api_error *e);

bool hg_api_refuse(struct hg_api_error *e, int http, const char *code, const char *param,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
