/* server/config.c - one row per key; file and flags go through the same setters. */
#include "server/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "server/json_text.h"

enum kind { KIND_TEXT, KIND_NUMBER, KIND_FLAG, KIND_REAL };
enum { CONFIG_MAX_BYTES = 1 << 20 };

struct row {
    const char *key, *argument, *help, *text;
    enum kind kind;
    size_t offset;
    int64_t number, min, max;
    double real, real_min, real_max;
};

#define TEXT_ROW(k, value, arg, h)                                                                 \
    {#k, arg, h, value, KIND_TEXT, offsetof(struct hg_config, k), 0, 0, 0, 0, 0, 0},
#define NUMBER_ROW(k, value, lo, hi, h)                                                            \
    {#k, "N", h, #value, KIND_NUMBER, offsetof(struct hg_config, k), value, lo, hi, 0, 0, 0},
#define FLAG_ROW(k, h) {#k, "", h, "", KIND_FLAG, offsetof(struct hg_config, k), 0, 0, 0, 0, 0, 0},
#define REAL_ROW(k, value, lo, hi, h)                                                              \
    {#k, "X", h, #value, KIND_REAL, offsetof(struct hg_config, k), 0, 0, 0, value, lo, hi},
static const struct row rows[] = {HG_CONFIG_MAP(TEXT_ROW, NUMBER_ROW, FLAG_ROW, REAL_ROW)};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static void *field(struct hg_config *c, const struct row *r)
{
    return (char *)c + r->offset;
}

static enum hg_status set_text(struct hg_config *c, const struct row *r, const char *s,
                               struct hg_error *err)
{
    size_t n = strlen(s);
    if (n >= HG_CONFIG_TEXT_CAP)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: longer than %d bytes", r->key,
                       HG_CONFIG_TEXT_CAP - 1);
    memcpy(field(c, r), s, n + 1);
    return HG_STATUS_OK;
}

static enum hg_status set_number(struct hg_config *c, const struct row *r, int64_t v,
                                 struct hg_error *err)
{
    if (v < r->min || v > r->max)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected %lld..%lld, got %lld",
                       r->key, (long long)r->min, (long long)r->max, (long long)v);
    memcpy(field(c, r), &v, sizeof v);
    return HG_STATUS_OK;
}

static enum hg_status set_real(struct hg_config *c, const struct row *r, double v,
                               struct hg_error *err)
{
    if (!(v >= r->real_min && v <= r->real_max))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected %g..%g, got %g", r->key,
                       r->real_min, r->real_max, v);
    memcpy(field(c, r), &v, sizeof v);
    return HG_STATUS_OK;
}

static void set_flag(struct hg_config *c, const struct row *r, bool v)
{
    memcpy(field(c, r), &v, sizeof v);
}

void hg_config_default(struct hg_config *c)
{
    *c = (struct hg_config){0};
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].kind == KIND_TEXT)
            set_text(c, &rows[i], rows[i].text, NULL);
        else if (rows[i].kind == KIND_NUMBER)
            set_number(c, &rows[i], rows[i].number, NULL);
        else if (rows[i].kind == KIND_REAL)
            set_real(c, &rows[i], rows[i].real, NULL);
    }
}

static const struct row *row_of_key(const char *key)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

static enum hg_status set_json(struct hg_config *c, const char *key, const json_t *v,
                               struct hg_error *err)
{
    const struct row *r = row_of_key(key);
    if (!r)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config: unknown key \"%.64s\"", key);
    switch (r->kind) {
    case KIND_TEXT:
        if (json_is_string(v))
            return set_text(c, r, json_string_value(v), err);
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected a string", key);
    case KIND_NUMBER:
        if (json_is_integer(v))
            return set_number(c, r, json_integer_value(v), err);
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected a whole number", key);
    case KIND_REAL:
        if (json_is_number(v))
            return set_real(c, r, json_number_value(v), err);
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected a number", key);
    default:
        if (!json_is_boolean(v))
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "config %s: expected true or false", key);
        set_flag(c, r, json_is_true(v));
        return HG_STATUS_OK;
    }
}

enum hg_status hg_config_parse(struct hg_config *c, char *s, size_t n, struct hg_error *err)
{
    json_t *root = NULL;
    hg_json_strip_comments(s, n);
    enum hg_status status = hg_json_body_parse(s, n, &root, err);
    if (status == HG_STATUS_OK && !json_is_object(root))
        status = hg_fail(err, HG_STATUS_BAD_REQUEST, "config: expected one JSON object");
    const char *key;
    json_t *value;
    if (status == HG_STATUS_OK) {
        json_object_foreach(root, key, value)
        {
            if (strcmp(key, "$schema") != 0)
                HG_TRY_OUT(set_json(c, key, value, err));
        }
    }
out:
    json_decref(root);
    return status;
}

enum hg_status hg_config_read(struct hg_config *c, const char *path, struct hg_error *err)
{
    struct hg_buf text = {0};
    struct hg_error why = {0};
    enum hg_status status = hg_file_read(path, CONFIG_MAX_BYTES, &text, err);
    if (status == HG_STATUS_OK) {
        status = hg_config_parse(c, text.data ? text.data : (char[]){""}, text.len, &why);
        if (status != HG_STATUS_OK)
            hg_fail(err, status, "%.90s: %s", path, why.text);
    }
    hg_buf_deinit(&text);
    return status;
}

/* "max-queue" and "max_queue" name the same key. */
static const struct row *row_of_flag(const char *flag)
{
    char key[64];
    size_t n = strlen(flag);
    if (n >= sizeof key)
        return NULL;
    for (size_t i = 0; i <= n; i++)
        key[i] = flag[i] == '-' ? '_' : flag[i];
    return row_of_key(key);
}

int hg_config_flag_takes_value(const char *flag)
{
    const struct row *r = row_of_flag(flag);
    return r ? r->kind != KIND_FLAG : -1;
}

enum hg_status hg_config_set(struct hg_config *c, const char *flag, const char *value,
                             struct hg_error *err)
{
    const struct row *r = row_of_flag(flag);
    if (!r)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "unknown option --%.64s", flag);
    if (r->kind == KIND_TEXT)
        return set_text(c, r, value, err);
    if (r->kind == KIND_FLAG) {
        if (value)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "option --%s takes no value", flag);
        set_flag(c, r, true);
        return HG_STATUS_OK;
    }
    char *end;
    errno = 0;
    if (r->kind == KIND_REAL) {
        double real = strtod(value, &end);
        if (errno || end == value || *end)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "option --%s: expected a number", flag);
        return set_real(c, r, real, err);
    }
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "option --%s: expected a whole number", flag);
    return set_number(c, r, v, err);
}

enum hg_status hg_config_help(struct hg_buf *out)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "--%s %s", rows[i].key, rows[i].argument);
        for (char *p = flag + 2; *p && *p != ' '; p++)
            *p = *p == '_' ? '-' : *p;
        const char *text = rows[i].text;
        HG_TRY(hg_buf_printf(out, "  %-24s %s%s%s%s\n", flag, rows[i].help,
                             *text ? " (default " : "", text, *text ? ")" : ""));
    }
    return HG_STATUS_OK;
}
