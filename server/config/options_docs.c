/* server/config/options_docs.c - --help, completions and man pages, made from the tables of options
 * and of the configuration. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "server/config/config_table.h"
#include "server/config/options.h"
#include "server/version.h"

enum { NAME_CAP = 96, HELP_COLUMN = 30, HELP_WIDTH = 100 };

/* Failures (out of memory) are sticky, so that a row of writes needs one check. */
struct page {
    struct hg_buf *out;
    enum hg_status status;
};

static void put(struct page *p, const char *s)
{
    if (p->status == HG_STATUS_OK)
        p->status = hg_buf_append_str(p->out, s);
}

static void put_n(struct page *p, const char *s, size_t n)
{
    if (p->status == HG_STATUS_OK)
        p->status = hg_buf_append(p->out, s, n);
}

/* ---- help ------------------------------------------------------------------------------------ */

/* "  --name ARG   text", the text in lines of words in its column. */
static void put_option(struct page *p, const char *name, const char *argument, const char *text)
{
    char head[NAME_CAP];
    int n = snprintf(head, sizeof head, "  --%s %s", name, argument);
    int column = n;
    put(p, head);
    if (n >= HELP_COLUMN) {
        put(p, "\n");
        column = 0;
    }
    for (; column < HELP_COLUMN; column++)
        put(p, " ");
    for (bool first = true; *text; first = false) {
        int len = (int)strcspn(text, " ");
        if (!first && column + 1 + len > HELP_WIDTH) {
            put(p, "\n");
            for (column = 0; column < HELP_COLUMN; column++)
                put(p, " ");
        } else if (!first) {
            put(p, " ");
            column++;
        }
        put_n(p, text, (size_t)len);
        column += len;
        text += len;
        text += *text == ' ';
    }
    put(p, "\n");
}

/* "auto|f32" as "auto, f32" */
static void list_choices(const struct hg_config_row *r, const char *between, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = '\0';
    for (const char *c = r->choices; *c; c += strcspn(c, "|"), c += *c == '|') {
        int n = snprintf(out + at, cap - at, "%s%.*s", at ? between : "", (int)strcspn(c, "|"), c);
        at += n > 0 && (size_t)n < cap - at ? (size_t)n : 0;
    }
}

static void describe(const struct hg_config_row *r, char *out, size_t cap)
{
    char choices[256] = "";
    if (r->kind == HG_CONFIG_IS_CHOICE)
        list_choices(r, ", ", choices, sizeof choices);
    bool has_default = *r->text != '\0';
    snprintf(out, cap, "%s%s%s%s%s%s", r->help, *choices ? "; one of " : "", choices,
             has_default ? " (default " : "", r->text, has_default ? ")" : "");
}

enum hg_status hg_options_help(struct hg_buf *out)
{
    struct page p = {.out = out};
    char name[NAME_CAP], text[1024];
    size_t n;
    put(&p, "usage: healthgptd [--config FILE] [options]\n"
            "       healthgptd keygen [NAME]   a fresh API key, and its line for --api-keys\n"
            "Serves HealthGPT over HTTP: image questions and image generation. Not for clinical "
            "use.\n\n");
    const struct hg_option_row *options = hg_options_rows(&n);
    for (size_t i = 0; i < n; i++)
        put_option(&p, options[i].name, options[i].argument, options[i].help);
    const struct hg_config_row *rows = hg_config_rows(&n);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].kind == HG_CONFIG_IS_GROUP) {
            put(&p, "\n");
            put(&p, rows[i].help);
            put(&p, ":\n");
            continue;
        }
        hg_config_flag_name(rows[i].key, name, sizeof name);
        describe(&rows[i], text, sizeof text);
        put_option(&p, name, rows[i].argument, text);
    }
    put(&p,
        "\nEach key may stand in the file (\"max_queue\"), in the environment "
        "(HEALTHGPT_MAX_QUEUE) and be a\nflag (--max-queue); flags win over the environment, the "
        "environment over the file. A switch may\nbe taken back: --log-json=false.\n\n"
        "routes: GET /health  GET /v1/models  POST /v1/vqa  POST /v1/images/generations\n"
        "try:    curl -F image=@x.png -F question='Is there pneumonia?' "
        "http://127.0.0.1:8080/v1/vqa\n"
        "        with -F stream=true (curl -N) the answer comes as lines of JSON\n\n"
        "SIGTERM or SIGINT drains; a second one stops at once. SIGHUP reads the API keys "
        "and opens\nthe audit log again.\n");
    return p.status;
}

/* ---- completion ------------------------------------------------------------------------------ */

/* What may follow an option: "file", "dir", a list of words, or "" for anything. */
static void values_of(const char *argument, const struct hg_config_row *r, char *out, size_t cap)
{
    out[0] = '\0';
    if (r && r->kind == HG_CONFIG_IS_CHOICE)
        list_choices(r, " ", out, cap);
    else if (strcmp(argument, "SHELL") == 0)
        snprintf(out, cap, "bash zsh");
    else if (strcmp(argument, "PAGE") == 0)
        snprintf(out, cap, "1 5");
}

static void bash_case(struct page *p, const char *name, const char *argument, const char *values)
{
    bool file = strcmp(argument, "FILE") == 0 || strcmp(argument, "PATH") == 0;
    const char *how = file ? "-f --" : strcmp(argument, "DIR") == 0 ? "-d --" : NULL;
    if (!*argument)
        return;
    put(p, "    --");
    put(p, name);
    put(p, ") ");
    if (how || *values) {
        put(p, "COMPREPLY=($(compgen ");
        put(p, how ? how : "-W '");
        put(p, how ? "" : values);
        put(p, how ? "" : "' --");
        put(p, " \"$cur\")); ");
    }
    put(p, "return ;;\n");
}

/* In a string within single quotes of a zsh _arguments specification. */
static void zsh_text(struct page *p, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            put(p, "'\\''");
        else if (strchr("[]:\\", *s))
            put(p, "\\");
        if (*s != '\'')
            put_n(p, s, 1);
    }
}

static void zsh_spec(struct page *p, const char *name, const char *argument, const char *help,
                     const char *values)
{
    put(p, "    '--");
    put(p, name);
    put(p, *argument ? "=[" : "[");
    zsh_text(p, help);
    put(p, "]");
    if (*argument) {
        put(p, ":");
        zsh_text(p, argument);
        put(p, ":");
        if (strcmp(argument, "FILE") == 0 || strcmp(argument, "PATH") == 0)
            put(p, "_files");
        else if (strcmp(argument, "DIR") == 0)
            put(p, "_files -/");
        else if (*values) {
            put(p, "(");
            put(p, values);
            put(p, ")");
        }
    }
    put(p, "' \\\n");
}

/* Calls `each` for every option, those of the table of options first. */
static void each_option(struct page *p,
                        void (*each)(struct page *p, const char *name, const char *argument,
                                     const char *help, const char *values))
{
    char name[NAME_CAP], values[256];
    size_t n;
    const struct hg_option_row *options = hg_options_rows(&n);
    for (size_t i = 0; i < n; i++) {
        values_of(options[i].argument, NULL, values, sizeof values);
        each(p, options[i].name, options[i].argument, options[i].help, values);
    }
    const struct hg_config_row *rows = hg_config_rows(&n);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].kind == HG_CONFIG_IS_GROUP)
            continue;
        hg_config_flag_name(rows[i].key, name, sizeof name);
        values_of(rows[i].argument, &rows[i], values, sizeof values);
        each(p, name, rows[i].argument, rows[i].help, values);
    }
}

static void bash_word(struct page *p, const char *name, const char *argument, const char *help,
                      const char *values)
{
    (void)argument;
    (void)help;
    (void)values;
    put(p, " --");
    put(p, name);
}

static void bash_values(struct page *p, const char *name, const char *argument, const char *help,
                        const char *values)
{
    (void)help;
    bash_case(p, name, argument, values);
}

enum hg_status hg_options_completion(const char *shell, struct hg_buf *out, struct hg_error *err)
{
    struct page p = {.out = out};
    if (strcmp(shell, "bash") == 0) {
        put(&p, "# bash completion of healthgptd; made by healthgptd --completion bash\n"
                "_healthgptd() {\n"
                "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                "    COMPREPLY=()\n"
                "    [ \"$cur\" = = ] && cur=\n" /* --dtype=<TAB> is three words */
                "    [ \"$prev\" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
                "    case $prev in\n");
        each_option(&p, bash_values);
        put(&p, "    esac\n    COMPREPLY=($(compgen -W 'keygen");
        each_option(&p, bash_word);
        put(&p, "' -- \"$cur\"))\n}\ncomplete -o filenames -F _healthgptd healthgptd\n");
    } else if (strcmp(shell, "zsh") == 0) {
        put(&p, "#compdef healthgptd\n"
                "# zsh completion; made by healthgptd --completion zsh\n"
                "_arguments \\\n");
        each_option(&p, zsh_spec);
        put(&p, "    '1:command:(keygen)'\n");
    } else {
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "--completion: expected bash or zsh, got %.40s",
                       shell);
    }
    return p.status;
}

/* ---- man pages, in mdoc(7) ------------------------------------------------------------------- */

/* Text of a line: no request may begin with it, and a minus is no hyphen. */
static void man_text(struct page *p, const char *s)
{
    if (*s == '.' || *s == '\'')
        put(p, "\\&");
    for (; *s; s++)
        if (*s == '\\')
            put(p, "\\e");
        else
            put_n(p, s, 1);
}

static void man_option(struct page *p, const char *name, const char *argument, const char *help,
                       const char *values)
{
    (void)values;
    put(p, ".It Fl \\-"); /* Fl writes one dash */
    for (const char *c = name; *c; c++)
        *c == '-' ? put(p, "\\-") : put_n(p, c, 1);
    if (*argument) {
        put(p, " Ar ");
        put(p, argument);
    }
    put(p, "\n");
    man_text(p, help);
    put(p, ".\n");
}

static void man_key(struct page *p, const struct hg_config_row *r)
{
    struct hg_buf expected = {0};
    char name[NAME_CAP];
    put(p, ".It Va ");
    put(p, r->key);
    put(p, "\n");
    man_text(p, r->help);
    put(p, ".\nTakes ");
    hg_config_expected(r, true, &expected);
    man_text(p, expected.data ? expected.data : "");
    hg_buf_deinit(&expected);
    put(p, "; default ");
    man_text(p, r->kind == HG_CONFIG_IS_FLAG ? "false" : *r->text ? r->text : "empty");
    put(p, ".\nIn the environment:\n.Ev ");
    hg_config_environment_name(r->key, name, sizeof name);
    put(p, name);
    put(p, " .\n");
}

static void man_head(struct page *p, const char *name, const char *section, const char *what)
{
    put(p, ".\\\" Made by healthgptd --man ");
    put(p, section);
    put(p, " from the table of its configuration.\n.Dd ");
    put(p, HG_VERSION_DATE);
    put(p, "\n.Dt ");
    for (const char *c = name; *c; c++)
        put_n(p, (char[]){(char)toupper((unsigned char)*c)}, 1);
    put(p, " ");
    put(p, section);
    put(p, "\n.Os healthgptd " HG_VERSION "\n.Sh NAME\n.Nm ");
    put(p, name);
    put(p, "\n.Nd ");
    put(p, what);
    put(p, "\n");
}

static const char page_1_end[] =
    ".El\n"
    ".Pp\n"
    "Every key of\n"
    ".Xr healthgptd.conf 5\n"
    "is also an option, and a variable in the environment.\n"
    "Options win over the environment, the environment over the file, the file over the\n"
    "defaults.\n"
    "A switch may be taken back:\n"
    ".Fl \\-log\\-json=false .\n"
    ".Sh ENVIRONMENT\n"
    ".Bl -tag -width Ds\n"
    ".It Ev HEALTHGPT_CONFIG\n"
    "The configuration file, where\n"
    ".Fl \\-config\n"
    "does not name one.\n"
    ".It Ev HEALTHGPT_KEY\n"
    "The value of a key, its name in capitals:\n"
    ".Ev HEALTHGPT_MAX_QUEUE .\n"
    "Empty variables count as absent.\n"
    "A name that is no key is an error, except those that Kubernetes sets for a service.\n"
    ".El\n"
    ".Sh SIGNALS\n"
    ".Bl -tag -width Ds\n"
    ".It Dv SIGTERM , SIGINT\n"
    "Drain: new requests are refused, running ones may finish for\n"
    ".Va drain_s\n"
    "seconds.\n"
    "A second one stops at once.\n"
    ".It Dv SIGHUP\n"
    "Read the API keys again, and open the audit log again.\n"
    ".El\n"
    ".Sh EXIT STATUS\n"
    ".Bl -tag -width Ds\n"
    ".It 0\n"
    "Stopped by a signal, or the configuration is right.\n"
    ".It 64\n"
    "The options or the configuration are wrong.\n"
    ".It 65 , 66\n"
    "A file is broken, or is not there.\n"
    ".It 69\n"
    "The port is in use, or the device cannot do what is asked.\n"
    ".It 70\n"
    "The engine hangs, or its self-test is wrong: start again.\n"
    ".It 71\n"
    "The device is lost: start again.\n"
    ".It 74\n"
    "Input or output has failed.\n"
    ".It 75\n"
    "Out of memory: start again.\n"
    ".El\n"
    ".Sh SEE ALSO\n"
    ".Xr healthgptd.conf 5\n"
    ".Sh CAVEATS\n"
    "For research.\n"
    "Not a medical device; its output must not be used for diagnosis or treatment.\n";

static void man_1(struct page *p)
{
    man_head(p, "healthgptd", "1", "serves HealthGPT over HTTP");
    put(p, ".Sh SYNOPSIS\n.Nm\n.Op Fl \\-config Ar FILE\n.Op Ar options\n.Nm\n.Cm keygen\n"
           ".Op Ar NAME\n.Sh DESCRIPTION\n.Nm\n"
           "loads a HealthGPT model and answers questions about medical images and draws them, "
           "over HTTP.\n"
           ".Nm Cm keygen\n"
           "prints a fresh API key and its line for the file of keys.\n"
           ".Pp\nThe options are:\n.Bl -tag -width Ds\n");
    each_option(p, man_option);
    put(p, page_1_end);
}

static void man_5(struct page *p)
{
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    man_head(p, "healthgptd.conf", "5", "configuration of healthgptd");
    put(p, ".Sh DESCRIPTION\nThe file that\n.Xr healthgptd 1\n"
           "reads with\n.Fl \\-config\n"
           "is one JSON object in UTF-8; // and /* */ comments are allowed.\n"
           "A key that is not there has its default.\n"
           "Unknown keys, keys given twice and values of another type or out of range are errors;\n"
           ".Ic healthgptd \\-\\-check\\-config \\-\\-config Ar FILE\n"
           "lists all of them with line and column, and prints what holds.\n");
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].kind != HG_CONFIG_IS_GROUP) {
            man_key(p, &rows[i]);
            continue;
        }
        put(p, open ? ".El\n.Ss " : ".Ss ");
        put(p, rows[i].help);
        put(p, "\n.Bl -tag -width Ds\n");
        open = true;
    }
    put(p, open ? ".El\n" : "");
    put(p, ".Sh EXAMPLES\n.Bd -literal\n{\n"
           "    \"listen\": \"0.0.0.0:8080\",  // behind a proxy with TLS\n"
           "    \"api_keys\": \"/etc/healthgpt/keys.json\",\n"
           "    \"max_queue\": 32\n}\n.Ed\n.Sh SEE ALSO\n.Xr healthgptd 1\n");
}

enum hg_status hg_options_man(const char *page, struct hg_buf *out, struct hg_error *err)
{
    struct page p = {.out = out};
    if (strcmp(page, "1") == 0)
        man_1(&p);
    else if (strcmp(page, "5") == 0)
        man_5(&p);
    else
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "--man: expected 1 or 5, got %.40s", page);
    return p.status;
}
