/* server/config/config.c - a configuration from its sources: environment, flags, the list of
 * errors; and how it is shown. The file is in config_file.c. */
#include "server/config/config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "server/config/config_table.h"
#include "server/json_text.h"

enum { GOT_CAP = 64 };

void hg_config_begin(struct hg_config_build *b)
{
    memset(b, 0, sizeof *b);
    hg_config_default(&b->config);
}

void hg_config_deinit(struct hg_config_build *b)
{
    hg_buf_deinit(&b->errors);
}

/* One line, whatever bytes were in the value. */
void hg_config_error(struct hg_config_build *b, const char *format, ...)
{
    char line[1024];
    va_list args;
    if (b->n_errors++ >= HG_CONFIG_MAX_ERRORS)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    (void)hg_buf_printf(&b->errors, "%s\n", line); /* out of memory: n_errors tells */
}

static void refused(struct hg_config_build *b, const char *name, const struct hg_config_row *r,
                    const char *got)
{
    struct hg_buf expected = {0};
    char choice[32];
    const char *near = hg_config_nearest_choice(r, got, choice);
    hg_config_expected(r, false, &expected);
    hg_config_error(b, "%s: expected %s, got \"%.*s\"%s%s%s", name,
                    expected.data ? expected.data : "", GOT_CAP, got, near ? "; did you mean " : "",
                    near ? near : "", near ? "?" : "");
    hg_buf_deinit(&expected);
}

void hg_config_add_flag(struct hg_config_build *b, const char *flag, const char *value)
{
    const struct hg_config_row *r = hg_config_row_of_flag(flag);
    char name[80];
    snprintf(name, sizeof name, "--%.64s", flag);
    if (!r) {
        char near[80] = "";
        char written[80];
        snprintf(written, sizeof written, "%.64s", flag);
        for (char *p = written; *p; p++)
            *p = *p == '-' ? '_' : *p;
        const char *key = hg_config_nearest(written);
        if (key)
            hg_config_flag_name(key, near, sizeof near);
        hg_config_error(b, "unknown option %s: %s%s%s", name,
                        key ? "did you mean --" : "see --help", near, key ? "?" : "");
    } else if (!value && r->kind != HG_CONFIG_IS_FLAG) {
        hg_config_error(b, "option %s: expected a value", name);
    } else if (hg_config_put_text(&b->config, r, value ? value : "true")) {
        b->source[r->offset] = HG_CONFIG_FROM_FLAG;
    } else {
        refused(b, name, r, value ? value : "true");
    }
}

/* ---- environment ----------------------------------------------------------------------------- */

static bool ends_in(const char *s, size_t n, const char *end)
{
    size_t len = strlen(end);
    return n >= len && memcmp(s + n - len, end, len) == 0;
}

/* A service called healthgpt, or healthgpt-gpu, puts HEALTHGPT_SERVICE_HOST, HEALTHGPT_PORT,
 * HEALTHGPT_GPU_PORT_8080_TCP_ADDR and so on into every container of its namespace
 * (kubernetes.io/docs/concepts/services-networking/service, "environment variables"). */
static bool is_of_kubernetes(const char *name, size_t n)
{
    char s[256];
    if (n >= sizeof s)
        return false;
    memcpy(s, name, n);
    s[n] = '\0';
    return ends_in(s, n, "_SERVICE_HOST") || strstr(s, "_SERVICE_PORT") || ends_in(s, n, "_PORT") ||
           (strstr(s, "_PORT_") && (strstr(s, "_TCP") || strstr(s, "_UDP") || strstr(s, "_SCTP")));
}

static void add_variable(struct hg_config_build *b, const char *name, const char *value)
{
    char key[64], near_name[96];
    size_t n = strlen(name) - strlen(HG_CONFIG_ENVIRONMENT_PREFIX);
    bool fits = n < sizeof key;
    for (size_t i = 0; fits && i <= n; i++) {
        char c = name[strlen(HG_CONFIG_ENVIRONMENT_PREFIX) + i];
        fits = !(c >= 'a' && c <= 'z'); /* HEALTHGPT_max_queue is another variable */
        key[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    const struct hg_config_row *r = fits ? hg_config_row_of_key(key) : NULL;
    if (!r) {
        const char *near = fits ? hg_config_nearest(key) : NULL;
        if (near)
            hg_config_environment_name(near, near_name, sizeof near_name);
        hg_config_error(b, "environment: %.80s: there is no such key%s%s%s", name,
                        near ? "; did you mean " : "", near ? near_name : "", near ? "?" : "");
    } else if (hg_config_put_text(&b->config, r, value)) {
        b->source[r->offset] = HG_CONFIG_FROM_ENVIRONMENT;
    } else {
        char shown[128];
        snprintf(shown, sizeof shown, "environment: %.80s", name);
        refused(b, shown, r, value);
    }
}

void hg_config_add_environment(struct hg_config_build *b, char *const *environment,
                               const char *skip)
{
    static const char prefix[] = HG_CONFIG_ENVIRONMENT_PREFIX;
    for (; environment && *environment; environment++) {
        const char *eq = strchr(*environment, '=');
        if (!eq || !eq[1] || strncmp(*environment, prefix, sizeof prefix - 1) != 0)
            continue;
        size_t n = (size_t)(eq - *environment);
        char *name = strndup(*environment, n);
        if (!name) {
            hg_config_error(b, "environment: out of memory");
            return;
        }
        if (!is_of_kubernetes(name, n) && strcmp(name, skip) != 0)
            add_variable(b, name, eq + 1);
        free(name);
    }
}

/* ---- shown ----------------------------------------------------------------------------------- */

static void put_value(struct hg_json_out *o, const char *key, const struct hg_config *c,
                      const struct hg_config_row *r)
{
    const char *at = (const char *)c + r->offset;
    switch (r->kind) {
    case HG_CONFIG_IS_NUMBER: {
        int64_t v;
        memcpy(&v, at, sizeof v);
        hg_out_int(o, key, v);
        break;
    }
    case HG_CONFIG_IS_REAL: {
        double v;
        memcpy(&v, at, sizeof v);
        hg_out_real(o, key, v, 9);
        break;
    }
    case HG_CONFIG_IS_FLAG: {
        bool v;
        memcpy(&v, at, sizeof v);
        hg_out_bool(o, key, v);
        break;
    }
    default:
        hg_out_string(o, key, at);
    }
}

/* A line break and an indent, where the writer itself puts none. */
static void new_line(struct hg_json_out *o, const char *indent)
{
    bool comma = o->comma;
    if (comma)
        (void)hg_buf_append_str(o->buf, ",");
    if (hg_buf_printf(o->buf, "\n%s", indent) != HG_STATUS_OK)
        o->failed = true;
    o->comma = false;
}

enum hg_status hg_config_show(const struct hg_config_build *b, struct hg_buf *out)
{
    static const char *const sources[] = {"default", "file", "environment", "flag"};
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    for (size_t i = 0; i < n; i++) {
        if (rows[i].kind == HG_CONFIG_IS_GROUP)
            continue;
        new_line(&o, "    ");
        hg_out_open(&o, rows[i].key, '{');
        put_value(&o, "value", &b->config, &rows[i]);
        hg_out_string(&o, "from", sources[b->source[rows[i].offset]]);
        hg_out_close(&o, '}');
    }
    o.comma = false;
    new_line(&o, "");
    hg_out_close(&o, '}');
    return o.failed ? HG_STATUS_NO_MEMORY : hg_buf_append_str(out, "\n");
}

static void schema_of(struct hg_json_out *o, const struct hg_config *defaults,
                      const struct hg_config_row *r)
{
    hg_out_open(o, r->key, '{');
    switch (r->kind) {
    case HG_CONFIG_IS_CHOICE:
        hg_out_open(o, "enum", '[');
        for (const char *p = r->choices; *p; p += strcspn(p, "|"), p += *p == '|')
            hg_out_string_n(o, NULL, p, strcspn(p, "|"));
        hg_out_close(o, ']');
        break;
    case HG_CONFIG_IS_NUMBER:
        hg_out_string(o, "type", "integer");
        hg_out_int(o, "minimum", r->min);
        hg_out_int(o, "maximum", r->max);
        break;
    case HG_CONFIG_IS_REAL:
        hg_out_string(o, "type", "number");
        hg_out_real(o, "minimum", r->real_min, 9);
        hg_out_real(o, "maximum", r->real_max, 9);
        break;
    case HG_CONFIG_IS_FLAG:
        hg_out_string(o, "type", "boolean");
        break;
    default:
        hg_out_string(o, "type", "string");
        hg_out_int(o, "maxLength", HG_CONFIG_TEXT_CAP - 1);
    }
    put_value(o, "default", defaults, r);
    new_line(o, "            ");
    hg_out_string(o, "description", r->help);
    hg_out_close(o, '}');
}

enum hg_status hg_config_schema(struct hg_buf *out)
{
    struct hg_config defaults;
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    struct hg_json_out o;
    hg_config_default(&defaults);
    HG_TRY(hg_buf_append_str(
        out, "{\n    \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
             "    \"title\": \"healthgptd configuration (JSON with // and /* */ comments)\",\n"
             "    \"$comment\": \"Made from server/config/config.h by make schema.\",\n"
             "    \"type\": \"object\",\n    \"additionalProperties\": false,\n"
             "    \"properties\": "));
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    new_line(&o, "        ");
    hg_out_open(&o, "$schema", '{');
    hg_out_string(&o, "type", "string");
    hg_out_close(&o, '}');
    for (size_t i = 0; i < n; i++) {
        if (rows[i].kind == HG_CONFIG_IS_GROUP)
            continue;
        new_line(&o, "        ");
        schema_of(&o, &defaults, &rows[i]);
    }
    o.comma = false;
    new_line(&o, "    ");
    hg_out_close(&o, '}');
    return o.failed ? HG_STATUS_NO_MEMORY : hg_buf_append_str(out, "\n}\n");
}
