/* tools/healthgpt/doctor_config.c - the configuration as healthgptd would read it here. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config/config_table.h"
#include "server/config/options.h"
#include "server/listen.h"
#include "tools/healthgpt/doctor.h"

static const char file_variable[] = HG_CONFIG_ENVIRONMENT_PREFIX "CONFIG";

enum { MAX_SHOWN = 10, LINE_CAP = 600 };

/* Values that point to somewhere: their texts must not be seen. */
static void hide_paths(struct hg_doctor *d)
{
    const struct hg_config *c = &d->config;
    hg_doctor_hide(d, c->model, "DIR");
    hg_doctor_hide(d, c->weights, "WEIGHTS");
    hg_doctor_hide(d, c->system_prompt, "(system_prompt)");
    hg_doctor_hide(d, c->api_keys, "(api_keys)");
    hg_doctor_hide(d, c->audit_log, "(audit_log)");
    hg_doctor_hide(d, c->audit_key_file, "(audit_key_file)");
}

/* Keys that are set, and by what; not to which value. */
static void put_values(struct hg_doctor *d, const struct hg_config_build *b)
{
    static const char *const sources[] = {"default", "file", "environment", "flag"};
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    hg_out_open(d->o, "set", '{');
    for (size_t i = 0; i < n; i++) {
        const struct hg_config_row *r = &rows[i];
        if (r->kind == HG_CONFIG_IS_GROUP || b->source[r->offset] == HG_CONFIG_FROM_DEFAULT)
            continue;
        hg_out_string(d->o, r->key, sources[b->source[r->offset]]);
    }
    hg_out_close(d->o, '}');
}

/* Whatever text a variable held, and the address in it. */
static void hide_environment(struct hg_doctor *d, const struct hg_config_build *b)
{
    static char address[HG_LISTEN_ADDR_CAP];
    struct hg_listen_address a;
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    for (size_t i = 0; i < n; i++) {
        const char *value = (const char *)&d->config + rows[i].offset;
        if (rows[i].kind != HG_CONFIG_IS_TEXT || strlen(value) < 4 ||
            b->source[rows[i].offset] != HG_CONFIG_FROM_ENVIRONMENT)
            continue;
        hg_doctor_hide(d, value, "(its value)");
        if (strcmp(rows[i].key, "listen") == 0 &&
            hg_listen_parse(value, &a, NULL) == HG_STATUS_OK && !hg_listen_is_loopback(&a)) {
            snprintf(address, sizeof address, "%s", a.addr);
            hg_doctor_hide(d, address, "(its address)");
        }
    }
}

/* Is the line about a value of the environment? Then what it was is nobody's business. */
static bool from_environment(const struct hg_config_build *b, const char *line)
{
    static const char variables[] = "environment: ";
    size_t n, len = strcspn(line, ":");
    const struct hg_config_row *rows = hg_config_rows(&n);
    if (strncmp(line, variables, sizeof variables - 1) == 0)
        return true;
    for (size_t i = 0; i < n; i++)
        if (rows[i].kind != HG_CONFIG_IS_GROUP && strlen(rows[i].key) == len &&
            strncmp(rows[i].key, line, len) == 0)
            return b->source[rows[i].offset] == HG_CONFIG_FROM_ENVIRONMENT;
    return false;
}

/* One error line of the builder; the model's folder is looked at by its own part. */
static bool show_error(struct hg_doctor *d, const struct hg_config_build *b, const char *line)
{
    char text[LINE_CAP];
    snprintf(text, sizeof text, "%.*s", (int)strcspn(line, "\n"), line);
    if (strncmp(text, "model: ", 7) == 0 || strncmp(text, "weights: ", 9) == 0)
        return false;
    char *got = from_environment(b, text) ? strstr(text, ", got ") : NULL;
    if (got)
        snprintf(got, sizeof text - (size_t)(got - text), ", got another value");
    else if (from_environment(b, text) && strchr(text, '"'))
        *strchr(text, '"') = '\0';
    HG_DOCTOR_FAIL_NOTE(d, HG_STATUS_BAD_REQUEST, "configuration", "%s\ncorrect it; %s", text,
                        "healthgptd --check-config shows every value and where it is from");
    return true;
}

static int show_errors(struct hg_doctor *d, const struct hg_config_build *b)
{
    int n = 0;
    for (const char *line = b->errors.data ? b->errors.data : ""; *line;) {
        if (n < MAX_SHOWN)
            n += show_error(d, b, line);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return n;
}

void hg_doctor_config(struct hg_doctor *d)
{
    static struct hg_config_build b;
    const char *named = d->cli->config ? d->cli->config : getenv(file_variable);
    hg_config_begin(&b);
    d->area = "configuration";
    if (named && *named)
        hg_config_add_file(&b, named);
    hg_config_add_environment(&b, environ, file_variable);
    if (d->cli->model)
        hg_config_add_flag(&b, "model", d->cli->model);
    if (d->cli->weights)
        hg_config_add_flag(&b, "weights", d->cli->weights);
    d->config = b.config;
    hg_doctor_hide(d, named, "(the configuration file)");
    hide_paths(d);
    hide_environment(d, &b);
    hg_options_check(&b, true);
    hg_out_open(d->o, "configuration", '{');
    hg_out_string(d->o, "file",
                  !named || !*named ? NULL
                  : d->cli->config  ? "given"
                                    : "environment");
    put_values(d, &b);
    int n = show_errors(d, &b);
    hg_out_int(d->o, "errors", n);
    hg_out_close(d->o, '}');
    if (n == 0)
        HG_DOCTOR_OK_NOTE(d, "configuration", "right (%s)",
                          named && *named ? "defaults, a file, the environment"
                                          : "defaults and the environment, no file");
    hg_config_deinit(&b);
}
