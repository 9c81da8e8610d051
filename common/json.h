/* common/json.h - reading config files: jansson with limits, ranges and messages.
 *
 * A view is an object plus the name it has in messages ("config.json", "config.json: vision").
 * Every getter looks up one key. HG_JSON_OPTIONAL: a missing key (or null) leaves *out as the
 * caller set it, which is the default. A wrong type or range is always BAD_FILE with
 * "<where>: <key>: expected ..., got ...". Strings and child views live as long as the document. */
#ifndef HG_COMMON_JSON_H
#define HG_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum hg_json_need { HG_JSON_REQUIRED, HG_JSON_OPTIONAL };

struct hg_json_view {
    const json_t *obj;
    char where[120]; /* cut when longer */
};

/* Load a file that holds one JSON object: at most max_bytes, no duplicate keys, UTF-8, depth <= 64.
 * The caller releases *doc with json_decref. NOT_FOUND, TOO_LARGE, BAD_FILE, IO, NO_MEMORY. */
enum hg_status hg_json_load(const char *path, size_t max_bytes, json_t **doc, struct hg_error *err);
/* The same rules for bytes in memory; `where` names them in messages. */
enum hg_status hg_json_parse(const char *where, const char *data, size_t n, json_t **doc,
                             struct hg_error *err);

struct hg_json_view hg_json_view_of(const json_t *obj, const char *where);

enum hg_status hg_json_int(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                           int min, int max, int *out, struct hg_error *err);
enum hg_status hg_json_int64(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                             int64_t min, int64_t max, int64_t *out, struct hg_error *err);
/* Integers are accepted too; min <= value <= max, so always finite for finite bounds. */
enum hg_status hg_json_real(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            double min, double max, double *out, struct hg_error *err);
enum hg_status hg_json_bool(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            bool *out, struct hg_error *err);
/* At most max_len bytes. */
enum hg_status hg_json_string(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                              size_t max_len, const char **out, struct hg_error *err);
/* An array of at most cap integers; *n is their number (0 is allowed). */
enum hg_status hg_json_ints(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            int min, int max, int *out, size_t cap, size_t *n,
                            struct hg_error *err);
/* A nested object; out->obj is NULL when an optional one is missing. */
enum hg_status hg_json_object(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                              struct hg_json_view *out, struct hg_error *err);

/* Refuse any key that is not in the NULL-terminated list: a misspelt option must not pass silently.
 */
enum hg_status hg_json_known_keys(const struct hg_json_view *v, const char *const *keys,
                                  struct hg_error *err);

#endif
