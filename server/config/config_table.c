/* server/config/config_table.c - rows of the configuration: look up, store, describe. */
#include "server/config/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_CAP = 64 };

#define GROUP_ROW(title) {.kind = HG_CONFIG_IS_GROUP, .help = (title)},
#define TEXT_ROW(k, value, arg, h)                                                                 \
    {.key = #k,                                                                                    \
     .argument = (arg),                                                                            \
     .help = (h),                                                                                  \
     .text = (value),                                                                              \
     .kind = HG_CONFIG_IS_TEXT,                                                                    \
     .offset = offsetof(struct hg_config, k)},
#define CHOICE_ROW(k, value, arg, list, h)                                                         \
    {.key = #k,                                                                                    \
     .argument = (arg),                                                                            \
     .help = (h),                                                                                  \
     .text = (value),                                                                              \
     .choices = (list),                                                                            \
     .kind = HG_CONFIG_IS_CHOICE,                                                                  \
     .offset = offsetof(struct hg_config, k)},
#define NUMBER_ROW(k, value, lo, hi, h)                                                            \
    {.key = #k,                                                                                    \
     .argument = "N",                                                                              \
     .help = (h),                                                                                  \
     .text = #value,                                                                               \
     .kind = HG_CONFIG_IS_NUMBER,                                                                  \
     .offset = offsetof(struct hg_config, k),                                                      \
     .number = (value),                                                                            \
     .min = (lo),                                                                                  \
     .max = (hi)},
#define FLAG_ROW(k, h)                                                                             \
    {.key = #k,                                                                                    \
     .argument = "",                                                                               \
     .help = (h),                                                                                  \
     .text = "",                                                                                   \
     .kind = HG_CONFIG_IS_FLAG,                                                                    \
     .offset = offsetof(struct hg_config, k)},
#define REAL_ROW(k, value, lo, hi, h)                                                              \
    {.key = #k,                                                                                    \
     .argument = "X",                                                                              \
     .help = (h),                                                                                  \
     .text = #value,                                                                               \
     .kind = HG_CONFIG_IS_REAL,                                                                    \
     .offset = offsetof(struct hg_config, k),                                                      \
     .real = (value),                                                                              \
     .real_min = (lo),                                                                             \
     .real_max = (hi)},
static const struct hg_config_row rows[] = {
    HG_CONFIG_MAP(GROUP_ROW, TEXT_ROW, CHOICE_ROW, NUMBER_ROW, FLAG_ROW, REAL_ROW)};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

const struct hg_config_row *hg_config_rows(size_t *n)
{
    *n = N_ROWS;
    return rows;
}

const struct hg_config_row *hg_config_row_of_key(const char *key)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].key && strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

const struct hg_config_row *hg_config_row_of_flag(const char *flag)
{
    char key[NAME_CAP];
    size_t n = strlen(flag);
    if (n >= sizeof key)
        return NULL;
    for (size_t i = 0; i <= n; i++)
        key[i] = flag[i] == '-' ? '_' : flag[i];
    return hg_config_row_of_key(key);
}

void hg_config_flag_name(const char *key, char *out, size_t cap)
{
    snprintf(out, cap, "%s", key);
    for (char *p = out; *p; p++)
        *p = *p == '_' ? '-' : *p;
}

void hg_config_environment_name(const char *key, char *out, size_t cap)
{
    snprintf(out, cap, HG_CONFIG_ENVIRONMENT_PREFIX "%s", key);
    for (char *p = out; *p; p++)
        *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void *field(struct hg_config *c, const struct hg_config_row *r)
{
    return (char *)c + r->offset;
}

static bool is_choice(const char *choices, const char *s)
{
    size_t n = strlen(s);
    for (const char *p = choices; n > 0; p++) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, s, n) == 0)
            return true;
        p += len;
        if (!*p)
            break;
    }
    return false;
}

static bool put_string(struct hg_config *c, const struct hg_config_row *r, const char *s)
{
    size_t n = strlen(s);
    if (n >= HG_CONFIG_TEXT_CAP || (r->kind == HG_CONFIG_IS_CHOICE && !is_choice(r->choices, s)))
        return false;
    memset(field(c, r), 0, HG_CONFIG_TEXT_CAP); /* equal configurations have equal bytes */
    memcpy(field(c, r), s, n);
    return true;
}

static bool put_number(struct hg_config *c, const struct hg_config_row *r, int64_t v)
{
    if (v < r->min || v > r->max)
        return false;
    memcpy(field(c, r), &v, sizeof v);
    return true;
}

static bool put_real(struct hg_config *c, const struct hg_config_row *r, double v)
{
    if (!(v >= r->real_min && v <= r->real_max)) /* not a number: refused */
        return false;
    memcpy(field(c, r), &v, sizeof v);
    return true;
}

static bool put_flag(struct hg_config *c, const struct hg_config_row *r, bool v)
{
    memcpy(field(c, r), &v, sizeof v);
    return true;
}

bool hg_config_put_text(struct hg_config *c, const struct hg_config_row *r, const char *s)
{
    char *end = NULL;
    bool whole;
    errno = 0;
    bool is_number = r->kind == HG_CONFIG_IS_NUMBER || r->kind == HG_CONFIG_IS_REAL;
    if (is_number && isspace((unsigned char)s[0])) /* which strtod would skip */
        return false;
    switch (r->kind) {
    case HG_CONFIG_IS_NUMBER: {
        long long v = strtoll(s, &end, 10);
        whole = !errno && end != s && !*end;
        return whole && put_number(c, r, v);
    }
    case HG_CONFIG_IS_REAL: {
        double v = strtod(s, &end);
        whole = !errno && end != s && !*end;
        return whole && put_real(c, r, v);
    }
    case HG_CONFIG_IS_FLAG:
        if (strcmp(s, "true") == 0 || strcmp(s, "1") == 0)
            return put_flag(c, r, true);
        return (strcmp(s, "false") == 0 || strcmp(s, "0") == 0) && put_flag(c, r, false);
    case HG_CONFIG_IS_GROUP:
        return false;
    default:
        return put_string(c, r, s);
    }
}

bool hg_config_put_json(struct hg_config *c, const struct hg_config_row *r, const json_t *v)
{
    switch (r->kind) {
    case HG_CONFIG_IS_NUMBER:
        return json_is_integer(v) && put_number(c, r, json_integer_value(v));
    case HG_CONFIG_IS_REAL:
        return json_is_number(v) && put_real(c, r, json_number_value(v));
    case HG_CONFIG_IS_FLAG:
        return json_is_boolean(v) && put_flag(c, r, json_is_true(v));
    case HG_CONFIG_IS_GROUP:
        return false;
    default:
        return json_is_string(v) && put_string(c, r, json_string_value(v));
    }
}

void hg_config_default(struct hg_config *c)
{
    *c = (struct hg_config){0};
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].kind != HG_CONFIG_IS_GROUP && rows[i].kind != HG_CONFIG_IS_FLAG)
            (void)hg_config_put_text(c, &rows[i], rows[i].text);
}

/* ---- what it says of itself ------------------------------------------------------------------ */

void hg_config_expected(const struct hg_config_row *r, bool in_file, struct hg_buf *out)
{
    switch (r->kind) {
    case HG_CONFIG_IS_NUMBER:
        hg_buf_printf(out, "a whole number in %lld..%lld", (long long)r->min, (long long)r->max);
        break;
    case HG_CONFIG_IS_REAL:
        hg_buf_printf(out, "a number in %g..%g", r->real_min, r->real_max);
        break;
    case HG_CONFIG_IS_FLAG:
        hg_buf_append_str(out, in_file ? "true or false" : "true, false, 1 or 0");
        break;
    case HG_CONFIG_IS_CHOICE:
        hg_buf_append_str(out, in_file ? "one of the texts " : "one of ");
        for (const char *p = r->choices; *p; p++)
            hg_buf_append(out, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
        break;
    default:
        hg_buf_printf(out, "a text of at most %d bytes%s", HG_CONFIG_TEXT_CAP - 1,
                      in_file ? " in double quotes" : "");
    }
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* "Optimal string alignment": one table, three rows of which are alive. */
int hg_config_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    int rows_of[3][NAME_CAP + 1];
    if (n >= NAME_CAP || m >= NAME_CAP)
        return strcmp(a, b) == 0 ? 0 : NAME_CAP;
    for (size_t j = 0; j <= m; j++)
        rows_of[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = rows_of[i % 3], *before = rows_of[(i - 1) % 3], *older = rows_of[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int same = before[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = least(same, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], older[j - 2] + 1);
        }
    }
    return rows_of[n % 3][m];
}

const char *hg_config_nearest(const char *key)
{
    const char *best = NULL;
    int distance = NAME_CAP;
    for (size_t i = 0; i < N_ROWS; i++) {
        int d = rows[i].key ? hg_config_distance(key, rows[i].key) : NAME_CAP;
        if (d < distance) {
            distance = d;
            best = rows[i].key;
        }
    }
    /* a third of it may be wrong: "queue" is not "model" */
    return best && distance <= 1 + (int)strlen(best) / 4 ? best : NULL;
}

/* What others call the types that weights and caches are kept in. */
static const char *other_name(const char *got)
{
    static const char *const names[][2] = {
        {"fp32", "f32"},    {"float32", "f32"},  {"float", "f32"},     {"fp16", "f16"},
        {"float16", "f16"}, {"half", "f16"},     {"bfloat16", "bf16"}, {"i8", "int8"},
        {"8bit", "int8"},   {"q8_0", "int8"},    {"q8", "int8"},       {"f8", "fp8"},
        {"float8", "fp8"},  {"fp8_e4m3", "fp8"}, {"e4m3", "fp8"},      {"i4", "int4"},
        {"4bit", "int4"},   {"q4_0", "int4"},    {"q4", "int4"},       {"nf4", "int4"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(got, names[i][0]) == 0)
            return names[i][1];
    return got;
}

const char *hg_config_nearest_choice(const struct hg_config_row *r, const char *got, char out[32])
{
    bool found = false;
    int best = NAME_CAP;
    const char *wanted = strstr(r->key, "dtype") ? other_name(got) : got;
    for (const char *at = r->kind == HG_CONFIG_IS_CHOICE ? r->choices : ""; *at;) {
        char choice[32];
        size_t n = strcspn(at, "|");
        snprintf(choice, sizeof choice, "%.*s", (int)n, at);
        int d = hg_config_distance(wanted, choice);
        if (d < best && d <= 1 + (int)n / 4) {
            best = d;
            found = true;
            snprintf(out, 32, "%s", choice);
        }
        at += n + (at[n] == '|');
    }
    return found ? out : NULL;
}
