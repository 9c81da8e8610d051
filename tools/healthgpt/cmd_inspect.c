/* tools/healthgpt/cmd_inspect.c - what is in a model folder or a weight file, and what is missing.
 *
 * One JSON document is built; without --json it is printed as text. Nothing stops at the first
 * problem: a folder that is not complete is what this command is for. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/file.h"
#include "model/healthgpt.h"
#include "model/load/expect.h"
#include "model/load/model_source.h"
#include "tools/healthgpt/cards.h"
#include "tools/healthgpt/cli.h"
#include "tools/healthgpt/estimate.h"
#include "tools/healthgpt/inspect_file.h"
#include "tools/healthgpt/inspect_llm.h"
#include "tools/healthgpt/inspect_lock.h"
#include "tools/healthgpt/inspect_text.h"
#include "tools/healthgpt/terminal.h"

enum {
    PATH_CAP = 4096,
    MAX_FILES = 512,
    DEFAULT_SEQS = 16,
    MAX_BAD_TENSORS = 8,
    WORK_BYTES = 1000000000
};

struct inspect {
    const char *root;
    const struct hg_model_card *card;        /* NULL: a folder without one */
    char found[HG_PART_COUNT][HG_PLACE_CAP]; /* where its pieces are; "": not there */
    enum hg_inspect_detail detail;
    struct hg_json_out *o;
    struct hg_inspect_parts part;
    size_t n_missing;
    const char *missing[64];
    char missing_text[64][640];
};

static void __attribute__((format(printf, 2, 3))) miss(struct inspect *in, const char *format, ...)
{
    if (in->n_missing == 64)
        return;
    char *text = in->missing_text[in->n_missing];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof in->missing_text[0], format, args);
    va_end(args);
    in->missing[in->n_missing++] = text;
}

static bool join(char out[PATH_CAP], const char *a, const char *b)
{
    return b[0] ? hg_path_join(out, PATH_CAP, a, b) == HG_STATUS_OK
                : snprintf(out, PATH_CAP, "%s", a) < PATH_CAP;
}

/* The path of a name below the root, or of a piece and what is below it, wherever that is. */
static bool at(const struct inspect *in, const char *name, char out[PATH_CAP])
{
    for (int i = 0; in->card && i < HG_PART_COUNT; i++) {
        const char *piece = hg_model_piece_name(in->card, i);
        if (in->found[i][0] && strcmp(piece, name) == 0)
            return snprintf(out, PATH_CAP, "%s", in->found[i]) < PATH_CAP;
    }
    return join(out, in->root, name);
}

/* Is the piece lacking? Its page, and where it was looked for. */
static bool lacks(struct inspect *in, int piece)
{
    const char *name = hg_model_piece_name(in->card, piece);
    char page[400];
    struct hg_buf places = {0};
    if (!name[0] || in->found[piece][0])
        return false;
    hg_model_piece_page(in->card, piece, page, sizeof page);
    hg_model_places_text(in->card, piece, &places);
    miss(in, "%.100s%s%.180s; looked for %.300s", name, page[0] ? ": it comes from " : "", page,
         places.len ? places.data : "?");
    hg_buf_deinit(&places);
    return true;
}

/* ---- weight files ---------------------------------------------------------------------------- */

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    return n >= k && strcmp(name + n - k, suffix) == 0;
}

static bool is_weight_name(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (has_suffix(name, suffixes[i]))
            return strcmp(name, "training_args.bin") != 0;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the weight files of a folder, sorted; returns their number. */
static size_t list_weights(const char *dir, char *names[MAX_FILES])
{
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; d && n < MAX_FILES && (e = readdir(d)) != NULL;)
        if (is_weight_name(e->d_name) && (names[n] = strdup(e->d_name)) != NULL)
            n++;
    if (d)
        closedir(d);
    qsort(names, n, sizeof names[0], by_name);
    return n;
}

/* Shards that the index names and the folder lacks. */
static void check_index(struct inspect *in, const char *dir, const char *sub)
{
    char path[PATH_CAP];
    json_t *doc = NULL;
    if (!join(path, dir, "model.safetensors.index.json") || !hg_file_exists(path) ||
        hg_json_load(path, 64 << 20, &doc, NULL) != HG_STATUS_OK)
        return;
    const char *last = "";
    const char *tensor;
    json_t *shard;
    json_object_foreach(json_object_get(doc, "weight_map"), tensor, shard)
    {
        const char *name = json_string_value(shard);
        (void)tensor;
        if (!name || strcmp(name, last) == 0 || strchr(name, '/'))
            continue;
        last = name;
        if (!join(path, dir, name) || hg_file_exists(path))
            continue;
        bool known = false;
        for (size_t i = 0; i < in->n_missing; i++)
            known |= strstr(in->missing[i], name) != NULL;
        if (!known)
            miss(in, "%.40s%s%.80s (named by the index)", sub, sub[0] ? "/" : "", name);
    }
    json_decref(doc);
}

/* All weight files of one folder below the root; "" is the root itself. */
static void weights_of(struct inspect *in, const char *sub, struct hg_inspect_sum *sum)
{
    char dir[PATH_CAP], path[PATH_CAP], shown[PATH_CAP];
    char *names[MAX_FILES];
    struct hg_inspect_sum part = {0};
    if (!at(in, sub, dir))
        return;
    size_t n = list_weights(dir, names);
    for (size_t i = 0; i < n; i++) {
        if (join(path, dir, names[i]) && join(shown, sub[0] ? sub : ".", names[i]))
            hg_inspect_file(path, sub[0] ? shown : names[i], in->detail, in->o, &part);
        free(names[i]);
    }
    check_index(in, dir, sub);
    if (n == 0 && sub[0])
        miss(in, "%.80s: no weight file", sub);
    if (sum)
        hg_inspect_add(sum, &part);
    hg_inspect_add(&in->part.all, &part);
}

static void weight_file(struct inspect *in, const char *name, struct hg_inspect_sum *sum)
{
    char path[PATH_CAP];
    struct hg_inspect_sum part = {0};
    if (!name[0] || !at(in, name, path))
        return;
    if (!hg_file_exists(path)) {
        miss(in, "%.120s", name);
        return;
    }
    hg_inspect_file(path, name, in->detail, in->o, &part);
    if (sum)
        hg_inspect_add(sum, &part);
    hg_inspect_add(&in->part.all, &part);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static const double CARD_SHARE = 0.9; /* gpu_memory_utilization */

static int64_t hg_kv_context(const struct hg_llm_config *c)
{
    return (int64_t)c->max_positions * c->n_layers * c->n_kv_heads * 2 * c->head_dim * 2;
}

static void put_memory(struct inspect *in, const struct hg_llm_config *config)
{
    static const char *const types[] = {"f32", "f16", "bf16", "int8", "fp8", "int4"};
    struct hg_json_out *o = in->o;
    struct hg_llm_config expected;
    struct hg_vision_config tower;
    struct hg_inspect_parts parts;
    bool lacking = in->n_missing > 0 && in->part.llm.n_elements == 0;
    bool estimated = lacking && in->card && hg_estimate(in->card, &parts, &expected, &tower);
    if (!estimated && in->part.all.n_elements == 0)
        return;
    const struct hg_inspect_parts *p = estimated ? &parts : &in->part;
    config = estimated ? &expected : config;
    hg_out_open(o, "memory", '{');
    hg_out_bool(o, "estimated", estimated);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        hg_out_int(o, types[i], hg_inspect_model_bytes(p, types[i]));
    hg_out_int(o, "plugins", hg_inspect_side_bytes(&p->plugins, "bf16"));
    hg_out_int(o, "fusion", hg_inspect_bytes_as(&p->fusion, "bf16"));
    hg_out_int(o, "vision", hg_inspect_side_bytes(&p->vision, "bf16"));
    hg_out_int(o, "vqgan", hg_inspect_vqgan_bytes(&p->vqgan));
    if (config) {
        int64_t rows = (int64_t)config->n_layers * config->n_kv_heads * 2;
        int64_t per_token = rows * config->head_dim * 2;
        int64_t tokens = hg_model_default_kv_tokens(DEFAULT_SEQS, config->max_positions, 0, 0);
        hg_out_int(o, "kv_bytes_per_token_f16", per_token);
        hg_out_int(o, "kv_bytes_per_token_int8", rows * (config->head_dim + 4)); /* and a scale */
        hg_out_int(o, "kv_tokens", tokens);
        hg_out_int(o, "kv_bytes_f16", tokens * per_token);
        hg_out_int(o, "kv_bytes_context_f16", (int64_t)config->max_positions * per_token);
    }
    /* Weights, one full context, and room for the work: healthgpt doctor counts that to the byte.
     */
    int64_t rest = WORK_BYTES + (config ? hg_kv_context(config) : 0);
    hg_out_open(o, "cards", '{');
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        hg_out_open(o, types[i], '{');
        hg_cards_put(o, hg_inspect_model_bytes(p, types[i]) + rest, CARD_SHARE);
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

/* ---- a model folder -------------------------------------------------------------------------- */

static void need_file(struct inspect *in, const char *sub, const char *name)
{
    char dir[PATH_CAP], path[PATH_CAP];
    if (at(in, sub, dir) && join(path, dir, name) && !hg_file_exists(path))
        miss(in, "%.80s/%.60s", sub, name);
}

static void put_card(struct hg_json_out *o, const struct hg_model_card *c)
{
    static const char *const names[] = {"comprehension", "generation"};
    hg_out_string(o, "name", c->name);
    hg_out_string(o, "template", c->template_name);
    hg_out_string(o, "notice", c->notice);
    hg_out_string(o, "license", c->license);
    hg_out_open(o, "tasks", '{');
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        const struct hg_task_card *t = &c->tasks[i];
        if (!t->present)
            continue;
        hg_out_open(o, names[i], '{');
        hg_out_string(o, "hlora", t->hlora);
        hg_out_string(o, "fusion", t->fusion[0] ? t->fusion : NULL);
        hg_out_real(o, "alpha", (double)t->alpha, 1);
        hg_out_int(o, "vision_layer", t->vision_layer);
        hg_out_int(o, "max_new_tokens", t->max_new_tokens);
        hg_out_real(o, "temperature", t->temperature >= 0 ? (double)t->temperature : 0, 3);
        hg_out_string(o, "can", t->can[0] ? t->can : NULL);
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
    hg_out_open(o, "unpublished", '{');
    for (int i = 0; i < HG_CARD_TASKS; i++)
        if (!c->tasks[i].present && c->tasks[i].unpublished[0])
            hg_out_string(o, names[i], c->tasks[i].unpublished);
    hg_out_close(o, '}');
}

/* Every piece of the card: its name, where it comes from, where it was found. */
static void put_pieces(struct inspect *in)
{
    char page[400];
    hg_out_open(in->o, "pieces", '[');
    for (int i = 0; i < HG_PART_COUNT; i++) {
        if (!hg_model_piece_name(in->card, i)[0])
            continue;
        hg_model_piece_page(in->card, i, page, sizeof page);
        hg_out_open(in->o, NULL, '{');
        hg_out_string(in->o, "role", hg_model_piece_role(i));
        hg_out_string(in->o, "name", hg_model_piece_name(in->card, i));
        hg_out_string(in->o, "page", page[0] ? page : NULL);
        hg_out_string(in->o, "path", in->found[i][0] ? in->found[i] : NULL);
        hg_out_close(in->o, '}');
    }
    hg_out_close(in->o, ']');
}

static void put_llm(struct hg_json_out *o, const struct hg_llm_config *c)
{
    hg_out_open(o, "llm", '{');
    hg_out_string(o, "arch", c->arch);
    hg_out_int(o, "dim", c->dim);
    hg_out_int(o, "n_layers", c->n_layers);
    hg_out_int(o, "n_heads", c->n_heads);
    hg_out_int(o, "n_kv_heads", c->n_kv_heads);
    hg_out_int(o, "head_dim", c->head_dim);
    hg_out_int(o, "ffn_dim", c->ffn_dim);
    hg_out_int(o, "vocab", c->vocab);
    hg_out_int(o, "max_positions", c->max_positions);
    hg_out_close(o, '}');
}

/* config.json of the language model; what is wrong with it counts as missing. */
static bool read_llm(struct inspect *in, const char *sub, struct hg_llm_config *config)
{
    char dir[PATH_CAP];
    struct hg_error err = {0};
    if (!at(in, sub, dir) || hg_llm_config_read(dir, config, &err) != HG_STATUS_OK) {
        miss(in, "%.40s: %.110s", sub[0] ? sub : ".", err.text);
        return false;
    }
    put_llm(in->o, config);
    return true;
}

/* Every tensor that the loader will ask for, by name and shape; the bytes are not read. */
static void check_llm(struct inspect *in, const char *sub, const struct hg_llm_config *config)
{
    char dir[PATH_CAP], lines[MAX_BAD_TENSORS][HG_INSPECT_LINE];
    if (in->part.llm.n_bad > 0 || in->part.llm.n_files == 0 || !at(in, sub, dir))
        return; /* said already */
    size_t n = hg_inspect_llm(dir, config, lines, MAX_BAD_TENSORS);
    for (size_t i = 0; i < n && i < MAX_BAD_TENSORS; i++)
        miss(in, "%.40s%s%s", sub, sub[0] ? ": " : "", lines[i]);
    if (n > MAX_BAD_TENSORS)
        miss(in, "%zu tensors more", n - MAX_BAD_TENSORS);
}

static void files_of_card(struct inspect *in, const struct hg_model_card *card)
{
    if (!lacks(in, HG_PART_LLM)) {
        weights_of(in, card->llm, &in->part.llm);
        need_file(in, card->llm, "tokenizer_config.json");
    }
    if (card->has_vision && !lacks(in, HG_PART_VISION)) {
        weights_of(in, card->vision, &in->part.vision);
        need_file(in, card->vision, "config.json");
        need_file(in, card->vision, "preprocessor_config.json");
    }
    if (card->has_vqgan && !lacks(in, HG_PART_VQGAN))
        weight_file(in, card->vqgan_path, &in->part.vqgan);
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        if (!card->tasks[i].present)
            continue;
        if (!lacks(in, HG_PART_HLORA + i))
            weight_file(in, card->tasks[i].hlora, &in->part.plugins);
        if (!lacks(in, HG_PART_FUSION + i))
            weight_file(in, card->tasks[i].fusion, &in->part.fusion);
    }
}

/* What the loader would refuse or warn of, and headers do not tell. */
static void finding(void *ctx, bool wrong, const char *line)
{
    struct inspect *in = ctx;
    if (wrong)
        miss(in, "%.600s", line);
    else
        hg_out_string(in->o, NULL, line);
}

static void expected(void *ctx, const char *line)
{
    finding(ctx, false, line);
}

/* "warnings": what the card expects and the files say otherwise. Of a complete model the load is
 * rehearsed for at most so long. */
static void check_model(struct inspect *in, const struct hg_model_place *place,
                        const struct hg_llm_config *config)
{
    const int64_t seconds = 20;
    struct hg_expect_facts facts = {.llm = config};
    struct hg_model_options o = {.path = place->card, .weights = place->root, .lock = "off"};
    hg_out_open(in->o, "warnings", '[');
    if (in->n_missing > 0 || in->part.all.n_bad > 0)
        hg_expect_compare(in->card, &facts, expected, in);
    else
        hg_model_check(&o, hg_now_ns() + seconds * 1000000000, finding, in, NULL);
    hg_out_close(in->o, ']');
}

static void card_folder(struct inspect *in, struct hg_model_card *card,
                        const struct hg_model_place *place)
{
    struct hg_llm_config config;
    in->card = card;
    in->root = place->root;
    hg_model_settle_tasks(place, card);
    for (int i = 0; i < HG_PART_COUNT; i++)
        if (hg_model_piece_name(card, i)[0])
            hg_model_find(place, card, i, in->found[i], NULL);
    put_card(in->o, card);
    put_pieces(in);
    bool has_config = in->found[HG_PART_LLM][0] && read_llm(in, card->llm, &config);
    hg_out_open(in->o, "files", '[');
    files_of_card(in, card);
    hg_out_close(in->o, ']');
    if (has_config)
        check_llm(in, card->llm, &config);
    put_memory(in, has_config ? &config : NULL);
    check_model(in, place, has_config ? &config : NULL);
    if (!hg_inspect_put_lock(place->card, place->root, in->detail == HG_INSPECT_CHECKSUMS, in->o))
        miss(in, "model.lock does not hold");
}

/* A folder without a (valid) card: every weight file in it, and a config.json when there is one. */
static void bare_folder(struct inspect *in)
{
    char path[PATH_CAP];
    struct hg_llm_config config;
    bool has_config = join(path, in->root, "config.json") && hg_file_exists(path) &&
                      hg_llm_config_read(in->root, &config, NULL) == HG_STATUS_OK;
    if (has_config)
        put_llm(in->o, &config);
    hg_out_open(in->o, "files", '[');
    weights_of(in, "", &in->part.llm);
    hg_out_close(in->o, ']');
    if (in->part.all.n_files == 0)
        miss(in, "any weight file");
    if (has_config)
        check_llm(in, "", &config);
    put_memory(in, has_config ? &config : NULL);
}

/* A folder, or a file whose name ends in .json: a card, if it is not a weight file after all. */
static bool may_be_card(const char *path, bool is_dir)
{
    return is_dir || has_suffix(path, ".json");
}

static void inspect_path(struct inspect *in, bool is_dir, const char *weights)
{
    struct hg_error err = {0};
    struct hg_model_place place;
    struct hg_model_card *card = calloc(1, sizeof *card);
    hg_out_open(in->o, NULL, '{');
    hg_out_string(in->o, "path", in->root);
    if (!may_be_card(in->root, is_dir)) {
        hg_out_open(in->o, "files", '[');
        hg_inspect_file(in->root, in->root, in->detail, in->o, &in->part.all);
        hg_out_close(in->o, ']');
    } else if (card && hg_model_card_read(in->root, card, &err) == HG_STATUS_OK &&
               hg_model_place(in->root, weights, &place, &err) == HG_STATUS_OK) {
        card_folder(in, card, &place);
    } else if (!is_dir) {
        miss(in, "%.300s", err.text);
    } else {
        miss(in, "%s",
             err.status == HG_STATUS_NOT_FOUND ? "healthgpt.json (the model card)" : err.text);
        bare_folder(in);
    }
    in->card = NULL;
    free(card);
    hg_out_int(in->o, "bytes", in->part.all.file_bytes);
    hg_out_uint(in->o, "n_tensors", in->part.all.n_tensors);
    hg_out_int(in->o, "n_parameters", in->part.all.n_parameters);
    hg_inspect_put_types(&in->part.all, in->o);
    hg_out_open(in->o, "missing", '[');
    for (size_t i = 0; i < in->n_missing; i++)
        hg_out_string(in->o, NULL, in->missing[i]);
    hg_out_close(in->o, ']');
    hg_out_close(in->o, '}');
}

int hg_cli_inspect(const struct hg_cli *cli)
{
    struct stat st;
    struct hg_error err = {0};
    struct hg_buf text = {0};
    struct hg_json_out o;
    if (cli->n_args != 1)
        return hg_cli_usage_error("inspect", "expected one folder or file");
    if (cli->write_lock)
        return hg_inspect_write_lock(cli);
    if (stat(cli->args[0], &st) != 0) {
        hg_fail(&err, HG_STATUS_NOT_FOUND, "%.150s: no such folder or file", cli->args[0]);
        return hg_cli_fail("inspect", &err);
    }
    hg_out_begin(&o, &text);
    struct inspect *in = calloc(1, sizeof *in);
    if (in) {
        *in = (struct inspect){.root = cli->args[0], .o = &o};
        in->detail = cli->checksums ? HG_INSPECT_CHECKSUMS
                     : cli->tensors ? HG_INSPECT_TENSORS
                                    : HG_INSPECT_SUMS;
        inspect_path(in, S_ISDIR(st.st_mode), cli->weights);
    }
    bool incomplete = in && (in->n_missing > 0 || in->part.all.n_bad > 0);
    json_t *doc = in && !o.failed && !cli->json ? json_loads(text.data, 0, NULL) : NULL;
    if (cli->json && in && !o.failed)
        hg_terminal_line(stdout, text.data);
    else if (doc)
        hg_inspect_print(doc);
    bool failed = !in || o.failed || (!cli->json && !doc);
    json_decref(doc);
    hg_buf_deinit(&text);
    free(in);
    if (failed)
        return hg_cli_fail("inspect", &(struct hg_error){.status = HG_STATUS_NO_MEMORY});
    /* An incomplete folder is shown in full and still tells scripts that it will not load. */
    return incomplete ? hg_status_exit_code(HG_STATUS_BAD_FILE) : 0;
}
