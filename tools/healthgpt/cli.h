/* tools/healthgpt/cli.h - what the commands share: options, the command table, error output.
 *
 * One table lists every option with the commands that take it; --help of a command is printed from
 * it. Answers go to stdout, everything else to stderr. Exit codes: 0, 64 for wrong usage, otherwise
 * hg_status_exit_code(). */
#ifndef HG_TOOLS_CLI_H
#define HG_TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/status.h"

enum { HG_CLI_MAX_IMAGES = 4, HG_CLI_USAGE = 64 };

struct hg_cli {
    const char *model, *weights, *backend, *dtype, *kv_dtype, *plugin_dtype, *numerics,
        *quant_cache, *lock;
    int64_t threads, max_batch, kv_tokens;
    double gpu_memory_utilization;
    bool verbose;
    const char *images[HG_CLI_MAX_IMAGES];
    size_t n_images;
    const char *system, *output, *tokenizer, *regex;
    int64_t max_tokens, top_k, top_logprobs, seed;
    double temperature, top_p;
    bool has_temperature, has_seed;
    bool write_lock; /* inspect */
    bool json, tensors, checksums, special, json_lines, timed, no_plugin;
    int64_t prompt_tokens;
    const char *batches, *plugins, *plot; /* bench */
    bool bench_images, quant;
    const char *questions, *types; /* bench --quant */
    int64_t limit;
    const char *key_file, *anchor; /* audit */
    const char *config;            /* doctor */
    char **args;                   /* what is no option */
    int n_args;
};

typedef int hg_cli_fn(const struct hg_cli *cli);

struct hg_cli_command {
    const char *name, *arguments, *summary;
    const char *help; /* paragraphs after the options */
    hg_cli_fn *run;
};

int hg_cli_ask(const struct hg_cli *cli);
int hg_cli_draw(const struct hg_cli *cli);
int hg_cli_inspect(const struct hg_cli *cli);
int hg_cli_tokenize(const struct hg_cli *cli);
int hg_cli_detokenize(const struct hg_cli *cli);
int hg_cli_bench(const struct hg_cli *cli);
int hg_cli_batch(const struct hg_cli *cli);
int hg_cli_canary(const struct hg_cli *cli);
int hg_cli_audit(const struct hg_cli *cli);
int hg_cli_doctor(const struct hg_cli *cli);

/* Options after the command's name. BAD_REQUEST names the option. */
enum hg_status hg_cli_parse(const struct hg_cli_command *command, int argc, char **argv,
                            struct hg_cli *out, struct hg_error *err);
void hg_cli_print_options(const struct hg_cli_command *command, FILE *to);

/* "healthgpt ask: <text>" on stderr; returns the exit code. */
int hg_cli_fail(const char *command, const struct hg_error *err);
int hg_cli_usage_error(const char *command, const char *text);

#endif
