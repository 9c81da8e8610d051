/* server/config/options.h - the command line of healthgptd: what to do, and with which
 * configuration. */
#ifndef HG_SERVER_OPTIONS_H
#define HG_SERVER_OPTIONS_H

#include "common/buf.h"
#include "common/status.h"
#include "server/config/config.h"

/* O(name, argument, help): options that are no keys of the configuration. */
#define HG_OPTIONS_MAP(O)                                                                          \
    O("config", "FILE", "JSON with comments (see config/default.json); or $HEALTHGPT_CONFIG")      \
    O("check-config", "",                                                                          \
      "print the effective configuration and where it is from, and all that is wrong with it")     \
    O("print-schema", "", "the JSON Schema of the file")                                           \
    O("completion", "SHELL", "completions for bash or zsh")                                        \
    O("man", "PAGE", "a manual page in mdoc: 1 healthgptd(1), 5 healthgptd.conf(5)")               \
    O("help", "", "this text")                                                                     \
    O("version", "", "version")

struct hg_option_row {
    const char *name, *argument, *help;
};
const struct hg_option_row *hg_options_rows(size_t *n);

enum hg_options_action {
    HG_OPTIONS_SERVE,
    HG_OPTIONS_KEYGEN, /* argv[1]; the rest is its own */
    HG_OPTIONS_DONE    /* all is said: leave with the exit code */
};

/* Read everything: flags over the environment over the file over the defaults. SERVE: *config is
 * complete and right. DONE: what was asked for is on stdout, or every error on stderr (exit code
 * 64). */
enum hg_options_action hg_options_read(int argc, char **argv, char *const *environment,
                                       struct hg_config *config, int *exit_code);

/* What only the values together show, as further error lines; files_too: also what they point to,
 * as --check-config does. */
void hg_options_check(struct hg_config_build *b, bool files_too);

/* ---- options_docs.c: made from the two tables ---- */
enum hg_status hg_options_help(struct hg_buf *out);
enum hg_status hg_options_completion(const char *shell, struct hg_buf *out, struct hg_error *err);
enum hg_status hg_options_man(const char *page, struct hg_buf *out, struct hg_error *err);

#endif
