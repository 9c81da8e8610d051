/* server/config/options.c - argv in two passes, so that a flag wins over the file wherever it
 * stands. */
#include "server/config/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/load/model_source.h"
#include "model/model_path.h"
#include "server/config/config_table.h"
#include "server/http/keys.h"
#include "server/listen.h"
#include "server/notice.h"
#include "server/ops/audit.h"
#include "server/version.h"

#define OPTION_ROW(name, argument, help) {name, argument, help},
static const struct hg_option_row option_rows[] = {HG_OPTIONS_MAP(OPTION_ROW)};
enum { N_OPTIONS = sizeof option_rows / sizeof option_rows[0], NAME_CAP = 64 };

static const char file_variable[] = HG_CONFIG_ENVIRONMENT_PREFIX "CONFIG";

const struct hg_option_row *hg_options_rows(size_t *n)
{
    *n = N_OPTIONS;
    return option_rows;
}

static const struct hg_option_row *option_of(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strcmp(option_rows[i].name, name) == 0)
            return &option_rows[i];
    return NULL;
}

/* What argv says beside the configuration. */
struct asked {
    const char *file, *completion, *man;
    bool check, schema, help, version;
};

struct argument {
    char name[NAME_CAP];                /* without dashes; "" when there was none to read */
    const char *value;                  /* NULL: none */
    const struct hg_option_row *option; /* NULL: a key, or unknown */
};

/* "--name=value" or "--name value" at argv[*i]; advances *i past the value. `b` NULL: this is the
 * pass that does not complain. */
static void next_argument(int argc, char **argv, int *i, struct argument *out,
                          struct hg_config_build *b)
{
    const char *arg = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i];
    const char *eq = strchr(arg, '=');
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    *out = (struct argument){.value = eq ? eq + 1 : NULL};
    if (strncmp(arg, "--", 2) != 0 || n < 3 || n - 2 >= sizeof out->name) {
        if (b)
            hg_config_error(b, "unexpected argument \"%.64s\": see --help", arg);
        return;
    }
    memcpy(out->name, arg + 2, n - 2);
    out->option = option_of(out->name);
    const struct hg_config_row *r = hg_config_row_of_flag(out->name);
    bool wants = out->option ? *out->option->argument != '\0' : r && r->kind != HG_CONFIG_IS_FLAG;
    if (!out->value && wants && *i + 1 < argc)
        out->value = argv[++*i];
    if (b && out->option && wants != (out->value != NULL))
        hg_config_error(b, "option --%s: %s", out->name,
                        wants ? "expected a value" : "takes no value");
}

static void note(struct asked *a, const struct argument *arg)
{
    const char *name = arg->option->name;
    if (strcmp(name, "config") == 0)
        a->file = arg->value;
    else if (strcmp(name, "completion") == 0)
        a->completion = arg->value;
    else if (strcmp(name, "man") == 0)
        a->man = arg->value;
    else if (strcmp(name, "check-config") == 0)
        a->check = true;
    else if (strcmp(name, "print-schema") == 0)
        a->schema = true;
    else if (strcmp(name, "help") == 0)
        a->help = true;
    else
        a->version = true;
}

static const char *variable(char *const *environment, const char *name)
{
    size_t n = strlen(name);
    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=' &&
            (*environment)[n + 1])
            return *environment + n + 1;
    return NULL;
}

static void read_all(int argc, char **argv, char *const *environment, struct asked *asked,
                     struct hg_config_build *b)
{
    struct argument arg;
    hg_config_begin(b);
    asked->file = variable(environment, file_variable);
    for (int i = 1; i < argc; i++) {
        next_argument(argc, argv, &i, &arg, NULL);
        if (arg.option)
            note(asked, &arg);
    }
    if (asked->file && *asked->file)
        hg_config_add_file(b, asked->file);
    hg_config_add_environment(b, environment, file_variable);
    for (int i = 1; i < argc; i++) {
        next_argument(argc, argv, &i, &arg, b);
        if (!arg.option && arg.name[0])
            hg_config_add_flag(b, arg.name, arg.value);
    }
}

void hg_options_check(struct hg_config_build *b, bool files_too)
{
    const struct hg_config *c = &b->config;
    struct hg_listen_address a;
    struct hg_error err = {0};
    bool is_address = hg_listen_parse(c->listen, &a, &err) == HG_STATUS_OK;
    if (!is_address)
        hg_config_error(b, "listen: %s", err.text);
    struct hg_listen_address ops;
    if (c->ops_listen[0] && hg_listen_parse(c->ops_listen, &ops, &err) != HG_STATUS_OK)
        hg_config_error(b, "ops_listen: %s", err.text);
    if (!files_too)
        return;
    /* At a start this is asked of the socket, which may be an inherited one. */
    if (is_address && !hg_listen_is_loopback(&a) && !c->insecure && !c->api_keys[0])
        hg_config_error(b,
                        "listen: %s is not loopback and there is no authentication: give "
                        "--api-keys, put a proxy in front, or say --insecure",
                        a.addr);
    struct hg_keys *keys = NULL;
    if (c->api_keys[0] && hg_keys_create(c->api_keys, &keys, &err) != HG_STATUS_OK)
        hg_config_error(b, "api_keys: %s", err.text);
    hg_keys_free(keys);
    if (c->audit_key_file[0] && hg_audit_check_key(c->audit_key_file, &err) != HG_STATUS_OK)
        hg_config_error(b, "%s", err.text);
    char path[HG_CONFIG_TEXT_CAP];
    static struct hg_model_place place;
    if (hg_model_path_resolve(c->model[0] ? c->model : NULL, path, sizeof path, &err) !=
        HG_STATUS_OK)
        hg_config_error(b, "model: %s", err.text);
    else if (hg_model_place(path, c->weights, &place, &err) != HG_STATUS_OK)
        hg_config_error(b, "weights: %s", err.text);
}

static void print_errors(const struct hg_config_build *b)
{
    const char *line = b->errors.data ? b->errors.data : "";
    for (; *line; line += strcspn(line, "\n") + 1)
        fprintf(stderr, "healthgptd: %.*s\n", (int)strcspn(line, "\n"), line);
    if (b->n_errors > HG_CONFIG_MAX_ERRORS)
        fprintf(stderr, "healthgptd: and %d more\n", b->n_errors - HG_CONFIG_MAX_ERRORS);
}

static int print(enum hg_status status, struct hg_buf *text, const struct hg_error *err)
{
    if (status != HG_STATUS_OK)
        fprintf(stderr, "healthgptd: %s\n", err->text[0] ? err->text : hg_status_text(status));
    else if (fwrite(text->data, 1, text->len, stdout) != text->len || fflush(stdout) != 0)
        status = HG_STATUS_IO;
    hg_buf_deinit(text);
    return hg_status_exit_code(status);
}

/* --help and its like win over whatever else is right or wrong. */
static bool inform(const struct asked *a, int *exit_code)
{
    struct hg_buf text = {0};
    struct hg_error err = {0};
    enum hg_status status;
    if (a->help)
        status = hg_options_help(&text);
    else if (a->version)
        status = hg_buf_append_str(&text, "healthgptd " HG_VERSION "\n" HG_NOTICE "\n");
    else if (a->schema)
        status = hg_config_schema(&text);
    else if (a->completion)
        status = hg_options_completion(a->completion, &text, &err);
    else if (a->man)
        status = hg_options_man(a->man, &text, &err);
    else
        return false;
    *exit_code = print(status, &text, &err);
    return true;
}

enum hg_options_action hg_options_read(int argc, char **argv, char *const *environment,
                                       struct hg_config *config, int *exit_code)
{
    static struct hg_config_build b;
    struct asked asked = {0};
    enum hg_options_action action = HG_OPTIONS_DONE;
    read_all(argc, argv, environment, &asked, &b);
    if (inform(&asked, exit_code)) {
        ;
    } else if (argc > 1 && strcmp(argv[1], "keygen") == 0) {
        action = HG_OPTIONS_KEYGEN;
    } else {
        if (!b.config.model[0]) /* a flag may say so against the variable, which model/ reads too */
            unsetenv(HG_CONFIG_ENVIRONMENT_PREFIX "MODEL");
        hg_options_check(&b, asked.check);
        *exit_code = 0;
        if (asked.check) {
            struct hg_buf text = {0};
            struct hg_error err = {0};
            *exit_code = print(hg_config_show(&b, &text), &text, &err);
        }
        print_errors(&b);
        if (b.n_errors > 0)
            *exit_code = hg_status_exit_code(HG_STATUS_BAD_REQUEST);
        else if (!asked.check)
            action = HG_OPTIONS_SERVE;
        *config = b.config;
    }
    hg_config_deinit(&b);
    return action;
}
