/* tools/healthgpt/options.c - the option table and its parser. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/config/config_table.h"
#include "tools/healthgpt/cli.h"

enum kind { KIND_TEXT, KIND_INT, KIND_REAL, KIND_FLAG, KIND_IMAGE };

struct option_row {
    const char *name, *argument, *help;
    const char *commands; /* names between blanks */
    enum kind kind;
    size_t offset;
    double min, max;
};

#define ENGINE " ask draw batch bench canary "
#define WITH_MODEL ENGINE "tokenize detokenize doctor "
#define AT(member) offsetof(struct hg_cli, member)

static const struct option_row rows[] = {
    {"image", "FILE", "a PNG or JPEG; repeat for more", " ask draw ", KIND_IMAGE, 0, 0, 0},
    {"output", "FILE", "also -o: where the PNG goes (default out.png; - is stdout)", " draw ",
     KIND_TEXT, AT(output), 0, 0},
    {"system", "TEXT", "system prompt; default: the model's own", " ask draw ", KIND_TEXT,
     AT(system), 0, 0},
    {"temperature", "X", "0: greedy, up to 2", " ask draw ", KIND_REAL, AT(temperature), 0, 2},
    {"top-p", "X", "keep the most likely tokens up to this sum; 1: off", " ask draw ", KIND_REAL,
     AT(top_p), 0, 1},
    {"top-k", "N", "keep the N most likely tokens; 0: off", " ask draw ", KIND_INT, AT(top_k), 0,
     1 << 20},
    {"seed", "N", "the same seed gives the same answer; default: random", " ask draw ", KIND_INT,
     AT(seed), 0, 9007199254740992.0},
    {"max-tokens", "N", "longest answer; default: the model's", " ask ", KIND_INT, AT(max_tokens),
     1, 1 << 20},
    {"top-logprobs", "N", "with --json: alternatives per token, at most 20", " ask ", KIND_INT,
     AT(top_logprobs), 0, 20},
    {"no-plugin", "", "run the base model without its H-LoRA plug-in", " ask draw ", KIND_FLAG,
     AT(no_plugin), 0, 0},
    {"max-batch", "N", "sequences that run together (default 16)", " batch bench ", KIND_INT,
     AT(max_batch), 1, 1024},
    {"prompt-tokens", "N", "length of the prompt (default 256, less with a small context)",
     " bench ", KIND_INT, AT(prompt_tokens), 1, 1 << 20},
    {"max-tokens", "N", "tokens to decode (default 64)", " bench ", KIND_INT, AT(max_tokens), 1,
     1 << 20},
    {"batches", "LIST", "sequences to run together, 1,8,32 for example, instead of 1 and max-batch",
     " bench ", KIND_TEXT, AT(batches), 0, 0},
    {"plugins", "LIST", "of none, comprehension, generation, mixed (default comprehension)",
     " bench ", KIND_TEXT, AT(plugins), 0, 0},
    {"plot", "FILE.svg", "write a bar plot: each step as a share of what memory allows", " bench ",
     KIND_TEXT, AT(plot), 0, 0},
    {"images", "", "time the vision tower and the drawing of a picture too", " bench ", KIND_FLAG,
     AT(bench_images), 0, 0},
    {"quant", "", "instead of speed: what each storage type takes and costs (docs/quantisation.md)",
     " bench ", KIND_FLAG, AT(quant), 0, 0},
    {"questions", "FILE.jsonl", "with --quant: questions as batch reads them, or given texts",
     " bench ", KIND_TEXT, AT(questions), 0, 0},
    {"types", "LIST", "with --quant: of f32, bf16, int8, int8/kv-int8, int4/plugins-int8 and so on",
     " bench ", KIND_TEXT, AT(types), 0, 0},
    {"limit", "N", "with --quant: so many of the questions, chosen by the seed", " bench ",
     KIND_INT, AT(limit), 1, 1 << 30},
    {"seed", "N", "with --limit (default 0)", " bench ", KIND_INT, AT(seed), 0, 9007199254740992.0},
    {"tensors", "", "list every tensor with its type and shape", " inspect ", KIND_FLAG,
     AT(tensors), 0, 0},
    {"checksums", "", "read all tensors and list the CRC-32C of each", " inspect ", KIND_FLAG,
     AT(checksums), 0, 0},
    {"lock", "", "read all files of a model and write model.lock beside them", " inspect ",
     KIND_FLAG, AT(write_lock), 0, 0},
    {"tokenizer", "PATH", "instead of a model: a tokenizer's folder, a tiktoken or GGUF file",
     " tokenize detokenize ", KIND_TEXT, AT(tokenizer), 0, 0},
    {"regex", "NAME", "how words are cut: gpt2, qwen2, cl100k (rank files: default cl100k)",
     " tokenize detokenize ", KIND_TEXT, AT(regex), 0, 0},
    {"time", "", "no ids: how fast one thread reads the text", " tokenize ", KIND_FLAG, AT(timed),
     0, 0},
    {"special", "", "read and show added tokens such as <|end|>", " tokenize detokenize ",
     KIND_FLAG, AT(special), 0, 0},
    {"json-lines", "", "one JSON value per line in and out", " tokenize detokenize ", KIND_FLAG,
     AT(json_lines), 0, 0},
    {"key-file", "FILE", "audit_key_file of the server: checks the mac of every line", " audit ",
     KIND_TEXT, AT(key_file), 0, 0},
    {"anchor", "SEQ:HASH", "a place that the server has noted in its log: the chain must have it",
     " audit ", KIND_TEXT, AT(anchor), 0, 0},
    {"config", "FILE", "the server's configuration; default: $HEALTHGPT_CONFIG", " doctor ",
     KIND_TEXT, AT(config), 0, 0},
    {"model", "PATH", "model folder (healthgpt.json) or card file; default: the demo model",
     WITH_MODEL, KIND_TEXT, AT(model), 0, 0},
    {"weights", "DIR", "where the card's weights are; default: its folder", WITH_MODEL "inspect ",
     KIND_TEXT, AT(weights), 0, 0},
    {"backend", "NAME", "auto, cuda, cpu, ref (default auto)", ENGINE, KIND_TEXT, AT(backend), 0,
     0},
    {"dtype", "TYPE", "weights: auto, f32, f16, bf16, int8, fp8, int4 (default auto)", ENGINE,
     KIND_TEXT, AT(dtype), 0, 0},
    {"kv-dtype", "TYPE", "KV cache: auto, f32, f16, bf16, int8 (default auto)", ENGINE, KIND_TEXT,
     AT(kv_dtype), 0, 0},
    {"lock", "MODE", "model.lock: auto (verified when it is there), require, off", ENGINE,
     KIND_TEXT, AT(lock), 0, 0},
    {"quant-cache", "DIR", "folder that keeps weights of int8, fp8, int4 for the next start",
     ENGINE, KIND_TEXT, AT(quant_cache), 0, 0},
    {"plugin-dtype", "TYPE", "plug-ins: auto, f32, f16, bf16, int8 (default auto)", ENGINE,
     KIND_TEXT, AT(plugin_dtype), 0, 0},
    {"numerics", "MODE", "default, or strict: the reference's FP16 rounding, on ref (slow)", ENGINE,
     KIND_TEXT, AT(numerics), 0, 0},
    {"kv-tokens", "N", "KV cache in tokens; 0: as many as fit the batch", ENGINE, KIND_INT,
     AT(kv_tokens), 0, 1 << 30},
    {"gpu-memory-utilization", "X", "share of the card's free memory to take (default 0.90)",
     ENGINE, KIND_REAL, AT(gpu_memory_utilization), 0.01, 1},
    {"verbose", "", "log what is loaded, and how far it is", ENGINE, KIND_FLAG, AT(verbose), 0, 0},
    {"threads", "N", "threads of the CPU backend; 0: all", ENGINE, KIND_INT, AT(threads), 0, 64},
    {"json", "", "print one JSON object", " ask draw inspect bench doctor ", KIND_FLAG, AT(json), 0,
     0},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static bool belongs(const struct option_row *r, const char *command)
{
    char key[32];
    snprintf(key, sizeof key, " %s ", command);
    return strstr(r->commands, key) != NULL;
}

static const struct option_row *find_row(const char *command, const char *name, size_t n)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0 &&
            belongs(&rows[i], command))
            return &rows[i];
    return NULL;
}

static enum hg_status bad_value(const struct option_row *r, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s: expected %s in %.10g..%.10g", r->name,
                   r->kind == KIND_INT ? "a whole number" : "a number", r->min, r->max);
}

static enum hg_status set_number(struct hg_cli *c, const struct option_row *r, const char *value,
                                 struct hg_error *err)
{
    char *end;
    errno = 0;
    if (r->kind == KIND_INT) {
        int64_t v = strtoll(value, &end, 10);
        if (errno || end == value || *end || (double)v < r->min || (double)v > r->max)
            return bad_value(r, err);
        memcpy((char *)c + r->offset, &v, sizeof v);
        c->has_seed |= r->offset == AT(seed);
        return HG_STATUS_OK;
    }
    double v = strtod(value, &end);
    if (errno || end == value || *end || !isfinite(v) || v < r->min || v > r->max)
        return bad_value(r, err);
    memcpy((char *)c + r->offset, &v, sizeof v);
    c->has_temperature |= r->offset == AT(temperature);
    return HG_STATUS_OK;
}

/* A type that the server's configuration knows, before any long work. */
static enum hg_status check_type(const struct option_row *r, const char *value,
                                 struct hg_error *err)
{
    const struct hg_config_row *row =
        strstr(r->name, "dtype") ? hg_config_row_of_flag(r->name) : NULL;
    char choice[32];
    struct hg_config scratch;
    if (!row || hg_config_put_text(&scratch, row, value))
        return HG_STATUS_OK;
    const char *near = hg_config_nearest_choice(row, value, choice);
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s: expected one of %s, got \"%.40s\"%s%s%s",
                   r->name, row->choices, value, near ? "; did you mean " : "", near ? near : "",
                   near ? "?" : "");
}

static enum hg_status set_option(struct hg_cli *c, const struct option_row *r, const char *value,
                                 struct hg_error *err)
{
    const bool yes = true;
    switch (r->kind) {
    case KIND_TEXT:
        HG_TRY(check_type(r, value, err));
        memcpy((char *)c + r->offset, &value, sizeof value);
        return HG_STATUS_OK;
    case KIND_FLAG:
        memcpy((char *)c + r->offset, &yes, sizeof yes);
        return HG_STATUS_OK;
    case KIND_IMAGE:
        if (c->n_images == HG_CLI_MAX_IMAGES)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "--image: at most %d", HG_CLI_MAX_IMAGES);
        c->images[c->n_images++] = value;
        return HG_STATUS_OK;
    default:
        return set_number(c, r, value, err);
    }
}

/* One option at argv[*i]; advances *i past a separate value. */
static enum hg_status take_option(const struct hg_cli_command *command, int argc, char **argv,
                                  int *i, struct hg_cli *out, struct hg_error *err)
{
    const char *arg = argv[*i];
    if (strcmp(arg, "-o") == 0)
        arg = "--output";
    const char *eq = strchr(arg, '=');
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    const struct option_row *r =
        strncmp(arg, "--", 2) == 0 ? find_row(command->name, arg + 2, n - 2) : NULL;
    if (!r)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "unknown option %.64s: see healthgpt %s --help",
                       arg, command->name);
    const char *value = eq ? eq + 1 : NULL;
    if (r->kind == KIND_FLAG && value)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s takes no value", r->name);
    if (r->kind != KIND_FLAG && !value) {
        if (*i + 1 >= argc)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s: expected %s", r->name, r->argument);
        value = argv[++*i];
    }
    return set_option(out, r, value, err);
}

enum hg_status hg_cli_parse(const struct hg_cli_command *command, int argc, char **argv,
                            struct hg_cli *out, struct hg_error *err)
{
    *out = (struct hg_cli){.backend = "auto",
                           .dtype = "auto",
                           .kv_dtype = "auto",
                           .plugin_dtype = "auto",
                           .max_batch = 16,
                           .top_p = 1,
                           .args = argv};
    bool options = true;
    for (int i = 0; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1])
            HG_TRY(take_option(command, argc, argv, &i, out, err));
        else
            argv[out->n_args++] = argv[i];
    }
    if (!out->weights && strcmp(command->name, "doctor") != 0) /* which knows all variables */
        out->weights = getenv("HEALTHGPT_WEIGHTS");
    return HG_STATUS_OK;
}

void hg_cli_print_options(const struct hg_cli_command *command, FILE *to)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        char left[64];
        if (!belongs(&rows[i], command->name))
            continue;
        snprintf(left, sizeof left, "--%s %s", rows[i].name, rows[i].argument);
        fprintf(to, "  %-22s %s\n", left, rows[i].help);
    }
}
