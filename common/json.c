/* common/json.c - thin typed getters over jansson. */
#include "common/json.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/json_read.h"

enum { MAX_DEPTH = 64 };

/* jansson's own limit is 2048 levels and its parser is recursive; count brackets outside strings.
 */
static bool too_deep(const char *s, size_t n)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > MAX_DEPTH)
                return true;
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    return false;
}

enum hg_status hg_json_parse(const char *where, const char *data, size_t n, json_t **doc,
                             struct hg_error *err)
{
    json_error_t e;
    *doc = NULL;
    if (too_deep(data, n))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: nested deeper than %d levels", where,
                       MAX_DEPTH);
    json_t *root = NULL;
    if (hg_json_read(n ? data : "", n, JSON_REJECT_DUPLICATES, &root, &e) == HG_STATUS_NO_MEMORY)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", where);
    if (!root)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: line %d column %d: %s", where, e.line,
                       e.column, e.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected a JSON object, got an array", where);
    }
    *doc = root;
    return HG_STATUS_OK;
}

enum hg_status hg_json_load(const char *path, size_t max_bytes, json_t **doc, struct hg_error *err)
{
    struct hg_buf text = {0};
    *doc = NULL;
    enum hg_status status = hg_file_read(path, max_bytes, &text, err);
    if (status == HG_STATUS_OK)
        status = hg_json_parse(path, text.data, text.len, doc, err);
    hg_buf_deinit(&text);
    return status;
}

struct hg_json_view hg_json_view_of(const json_t *obj, const char *where)
{
    struct hg_json_view v = {.obj = obj};
    snprintf(v.where, sizeof v.where, "%s", where);
    return v;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

/* *value is NULL when an optional key is missing or null. */
static enum hg_status find(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                           const char *expected, const json_t **value, struct hg_error *err)
{
    *value = json_object_get(v->obj, key);
    if (*value && json_is_null(*value))
        *value = NULL;
    if (!*value && need == HG_JSON_REQUIRED)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected %s, got nothing", v->where, key,
                       expected);
    return HG_STATUS_OK;
}

static enum hg_status wrong_type(const struct hg_json_view *v, const char *key,
                                 const char *expected, const json_t *value, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected %s, got %s", v->where, key, expected,
                   type_name(value));
}

static enum hg_status check_int(const struct hg_json_view *v, const char *key, const json_t *value,
                                int64_t min, int64_t max, int64_t *out, struct hg_error *err)
{
    if (!json_is_integer(value))
        return wrong_type(v, key, "an integer", value, err);
    int64_t i = json_integer_value(value);
    if (i < min || i > max)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected %lld to %lld, got %lld", v->where,
                       key, (long long)min, (long long)max, (long long)i);
    *out = i;
    return HG_STATUS_OK;
}

enum hg_status hg_json_int64(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                             int64_t min, int64_t max, int64_t *out, struct hg_error *err)
{
    const json_t *value;
    HG_TRY(find(v, key, need, "an integer", &value, err));
    return value ? check_int(v, key, value, min, max, out, err) : HG_STATUS_OK;
}

enum hg_status hg_json_int(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                           int min, int max, int *out, struct hg_error *err)
{
    const json_t *value;
    int64_t wide = 0;
    HG_TRY(find(v, key, need, "an integer", &value, err));
    if (!value)
        return HG_STATUS_OK;
    HG_TRY(check_int(v, key, value, min, max, &wide, err));
    *out = (int)wide;
    return HG_STATUS_OK;
}

enum hg_status hg_json_real(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            double min, double max, double *out, struct hg_error *err)
{
    const json_t *value;
    HG_TRY(find(v, key, need, "a number", &value, err));
    if (!value)
        return HG_STATUS_OK;
    if (!json_is_number(value))
        return wrong_type(v, key, "a number", value, err);
    double d = json_number_value(value);
    if (!(d >= min && d <= max))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected %g to %g, got %g", v->where, key,
                       min, max, d);
    *out = d;
    return HG_STATUS_OK;
}

enum hg_status hg_json_bool(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            bool *out, struct hg_error *err)
{
    const json_t *value;
    HG_TRY(find(v, key, need, "true or false", &value, err));
    if (!value)
        return HG_STATUS_OK;
    if (!json_is_boolean(value))
        return wrong_type(v, key, "true or false", value, err);
    *out = json_is_true(value);
    return HG_STATUS_OK;
}

enum hg_status hg_json_string(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                              size_t max_len, const char **out, struct hg_error *err)
{
    const json_t *value;
    HG_TRY(find(v, key, need, "a string", &value, err));
    if (!value)
        return HG_STATUS_OK;
    if (!json_is_string(value))
        return wrong_type(v, key, "a string", value, err);
    size_t len = json_string_length(value);
    if (len > max_len)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected at most %zu bytes, got %zu",
                       v->where, key, max_len, len);
    *out = json_string_value(value);
    return HG_STATUS_OK;
}

enum hg_status hg_json_ints(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                            int min, int max, int *out, size_t cap, size_t *n, struct hg_error *err)
{
    const json_t *value;
    HG_TRY(find(v, key, need, "an array of integers", &value, err));
    if (!value)
        return HG_STATUS_OK;
    if (!json_is_array(value))
        return wrong_type(v, key, "an array of integers", value, err);
    size_t count = json_array_size(value);
    if (count > cap)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected at most %zu integers, got %zu",
                       v->where, key, cap, count);
    for (size_t i = 0; i < count; i++) {
        int64_t wide = 0;
        HG_TRY(check_int(v, key, json_array_get(value, i), min, max, &wide, err));
        out[i] = (int)wide;
    }
    *n = count;
    return HG_STATUS_OK;
}

enum hg_status hg_json_object(const struct hg_json_view *v, const char *key, enum hg_json_need need,
                              struct hg_json_view *out, struct hg_error *err)
{
    const json_t *value;
    struct hg_json_view child = {0};
    HG_TRY(find(v, key, need, "an object", &value, err));
    if (value && !json_is_object(value))
        return wrong_type(v, key, "an object", value, err);
    child.obj = value;
    /* A cut name is still a name: 120 bytes hold a path and two keys. */
    int len = snprintf(child.where, sizeof child.where, "%s: %s", v->where, key);
    *out = child;
    return len < 0 ? HG_STATUS_INTERNAL : HG_STATUS_OK;
}

enum hg_status hg_json_known_keys(const struct hg_json_view *v, const char *const *keys,
                                  struct hg_error *err)
{
    /* jansson's iterators take a non-const object but do not change it. */
    json_t *obj = (json_t *)(uintptr_t)v->obj;
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
        const char *key = json_object_iter_key(it);
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], key) != 0)
            i++;
        if (!keys[i])
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: unknown key %.60s", v->where, key);
    }
    return HG_STATUS_OK;
}
