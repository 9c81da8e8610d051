/* tools/healthgpt/cmd_inspect.c - what is in a model folder or a weight file, and what is missing.
 *
 * One JSON document is built; without --json it is printed as text. Nothing stops at the first
 * problem: a folder that is not complete is what this command is for. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "model/load/model_config.h"
#include "tools/healthgpt/cli.h"
#include "tools/healthgpt/inspect_file.h"

enum { PATH_CAP = 4096, MAX_FILES = 512 };

struct inspect {
    const char *root;
    bool tensors;
    struct hg_json_out *o;
    struct hg_inspect_sum llm, all;
    size_t n_missing;
    const char *missing[64];
    char missing_text[64][160];
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

static void add_sum(struct hg_inspect_sum *a, const struct hg_inspect_sum *b)
{
    a->n_files += b->n_files;
    a->n_bad += b->n_bad;
    a->n_tensors += b->n_tensors;
    a->file_bytes += b->file_bytes;
    a->n_elements += b->n_elements;
    a->n_matrix += b->n_matrix;
    a->n_rows += b->n_rows;
    for (int i = 0; i < HG_TENSOR_TYPE_COUNT; i++)
        a->by_type[i] += b->by_type[i];
}

/* ---- weight files
 * ---------------------------------------------------------------------------------- */

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
    if (!join(dir, in->root, sub))
        return;
    size_t n = list_weights(dir, names);
    for (size_t i = 0; i < n; i++) {
        if (join(path, dir, names[i]) && join(shown, sub[0] ? sub : ".", names[i]))
            hg_inspect_file(path, sub[0] ? shown : names[i], in->tensors, in->o, &part);
        free(names[i]);
    }
    check_index(in, dir, sub);
    if (n == 0 && sub[0])
        miss(in, "%.80s: no weight file", sub);
    if (sum)
        add_sum(sum, &part);
    add_sum(&in->all, &part);
}

static void weight_file(struct inspect *in, const char *name)
{
    char path[PATH_CAP];
    struct hg_inspect_sum part = {0};
    if (!name[0] || !join(path, in->root, name))
        return;
    if (!hg_file_exists(path)) {
        miss(in, "%.120s", name);
        return;
    }
    hg_inspect_file(path, name, in->tensors, in->o, &part);
    add_sum(&in->all, &part);
}

/* ---- memory
 * ---------------------------------------------------------------------------------------- */

static void put_memory(struct hg_json_out *o, const struct hg_inspect_sum *llm,
                       const struct hg_inspect_sum *all, const struct hg_llm_config *config)
{
    static const char *const types[] = {"f32", "f16", "bf16", "int8"};
    hg_out_open(o, "memory", '{');
    /* The dtype is that of the base model; vision tower, plug-ins and VQGAN are counted as f32. */
    int64_t rest = 4 * (all->n_elements - llm->n_elements);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        hg_out_int(o, types[i], hg_inspect_bytes_as(llm, types[i]) + rest);
    if (config)
        hg_out_int(o, "kv_bytes_per_token_f16",
                   (int64_t)config->n_layers * config->n_kv_heads * config->head_dim * 2 * 2);
    hg_out_close(o, '}');
}

/* ---- a model folder
 * -------------------------------------------------------------------------------- */

static void need_file(struct inspect *in, const char *sub, const char *name)
{
    char dir[PATH_CAP], path[PATH_CAP];
    if (join(dir, in->root, sub) && join(path, dir, name) && !hg_file_exists(path))
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
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
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
    if (!join(dir, in->root, sub) || hg_llm_config_read(dir, config, &err) != HG_STATUS_OK) {
        miss(in, "%.40s: %.110s", sub[0] ? sub : ".", err.text);
        return false;
    }
    put_llm(in->o, config);
    return true;
}

static void card_folder(struct inspect *in, const struct hg_model_card *card)
{
    struct hg_llm_config config;
    put_card(in->o, card);
    bool has_config = read_llm(in, card->llm, &config);
    hg_out_open(in->o, "files", '[');
    weights_of(in, card->llm, &in->llm);
    need_file(in, card->llm, "tokenizer_config.json");
    if (card->has_vision) {
        weights_of(in, card->vision, NULL);
        need_file(in, card->vision, "config.json");
        need_file(in, card->vision, "preprocessor_config.json");
    }
    if (card->has_vqgan)
        weight_file(in, card->vqgan_path);
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        weight_file(in, card->tasks[i].hlora);
        weight_file(in, card->tasks[i].fusion);
    }
    hg_out_close(in->o, ']');
    put_memory(in->o, &in->llm, &in->all, has_config ? &config : NULL);
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
    weights_of(in, "", &in->llm);
    hg_out_close(in->o, ']');
    put_memory(in->o, &in->llm, &in->all, has_config ? &config : NULL);
}

static void inspect_path(struct inspect *in, bool is_dir)
{
    struct hg_error err = {0};
    struct hg_model_card *card = calloc(1, sizeof *card);
    hg_out_open(in->o, NULL, '{');
    hg_out_string(in->o, "path", in->root);
    if (!is_dir) {
        hg_out_open(in->o, "files", '[');
        hg_inspect_file(in->root, in->root, in->tensors, in->o, &in->all);
        hg_out_close(in->o, ']');
        put_memory(in->o, &in->all, &in->all, NULL);
    } else if (card && hg_model_card_read(in->root, card, &err) == HG_STATUS_OK) {
        card_folder(in, card);
    } else {
        miss(in, "%s",
             err.status == HG_STATUS_NOT_FOUND ? "healthgpt.json (the model card)" : err.text);
        bare_folder(in);
    }
    free(card);
    hg_out_int(in->o, "bytes", in->all.file_bytes);
    hg_out_uint(in->o, "n_tensors", in->all.n_tensors);
    hg_out_int(in->o, "n_parameters", in->all.n_elements);
    hg_out_open(in->o, "missing", '[');
    for (size_t i = 0; i < in->n_missing; i++)
        hg_out_string(in->o, NULL, in->missing[i]);
    hg_out_close(in->o, ']');
    hg_out_close(in->o, '}');
}

/* ---- as text
 * ----------------------------------------------------------------------------------------- */

static void print_value(const char *key, const json_t *v, int indent)
{
    const char *k;
    json_t *item;
    if (json_is_object(v)) {
        printf("%*s%s\n", indent, "", key);
        union {
            const json_t *in;
            json_t *out;
        } u = {.in = v};
        json_object_foreach(u.out, k, item) print_value(k, item, indent + 2);
        return;
    }
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    printf("%*s%-*s %s\n", indent, "", 24 - indent, key,
           json_is_string(v) ? json_string_value(v)
           : text            ? text
                             : "");
    free(text);
}

static void print_file(const json_t *f)
{
    const json_t *error = json_object_get(f, "error"), *tensors = json_object_get(f, "tensors");
    printf("  %-44s %12lld bytes  ", json_string_value(json_object_get(f, "file")),
           (long long)json_integer_value(json_object_get(f, "bytes")));
    if (error)
        printf("UNREADABLE: %s\n", json_string_value(error));
    else
        printf("%s, %lld tensors\n", json_string_value(json_object_get(f, "container")),
               (long long)json_integer_value(json_object_get(f, "n_tensors")));
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *t = json_array_get(tensors, i);
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        printf("    %-64s %-5s %s\n", json_string_value(json_object_get(t, "name")),
               json_string_value(json_object_get(t, "dtype")), shape ? shape : "");
        free(shape);
    }
}

static void print_memory(const json_t *memory)
{
    static const char *const types[] = {"f32", "f16", "bf16", "int8"};
    const json_t *kv = json_object_get(memory, "kv_bytes_per_token_f16");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        printf("  %-22s %12.1f MB\n", types[i],
               (double)json_integer_value(json_object_get(memory, types[i])) / 1e6);
    if (kv)
        printf("  KV cache per token     %12lld bytes (f16)\n", (long long)json_integer_value(kv));
}

static void print_text(json_t *doc)
{
    const char *key;
    json_t *v;
    json_object_foreach(doc, key, v)
    {
        bool list = strcmp(key, "files") == 0 || strcmp(key, "missing") == 0;
        if (strcmp(key, "memory") == 0) {
            printf("weights in memory, by --dtype\n");
            print_memory(v);
        } else if (!list) {
            print_value(key, v, 0);
        } else if (json_array_size(v) > 0) {
            printf("%s\n", key);
        }
        for (size_t i = 0; list && i < json_array_size(v); i++) {
            const json_t *item = json_array_get(v, i);
            if (json_is_object(item))
                print_file(item);
            else
                printf("  %s\n", json_string_value(item));
        }
    }
}

int hg_cli_inspect(const struct hg_cli *cli)
{
    struct stat st;
    struct hg_error err = {0};
    struct hg_buf text = {0};
    struct hg_json_out o;
    if (cli->n_args != 1)
        return hg_cli_usage_error("inspect", "expected one folder or file");
    if (stat(cli->args[0], &st) != 0) {
        hg_fail(&err, HG_STATUS_NOT_FOUND, "%.150s: no such folder or file", cli->args[0]);
        return hg_cli_fail("inspect", &err);
    }
    hg_out_begin(&o, &text);
    struct inspect *in = calloc(1, sizeof *in);
    if (in) {
        *in = (struct inspect){.root = cli->args[0], .tensors = cli->tensors, .o = &o};
        inspect_path(in, S_ISDIR(st.st_mode));
    }
    bool incomplete = in && (in->n_missing > 0 || in->all.n_bad > 0);
    json_t *doc = in && !o.failed && !cli->json ? json_loads(text.data, 0, NULL) : NULL;
    if (cli->json && in && !o.failed)
        puts(text.data);
    else if (doc)
        print_text(doc);
    bool failed = !in || o.failed || (!cli->json && !doc);
    json_decref(doc);
    hg_buf_deinit(&text);
    free(in);
    if (failed)
        return hg_cli_fail("inspect", &(struct hg_error){.status = HG_STATUS_NO_MEMORY});
    /* An incomplete folder is shown in full and still tells scripts that it will not load. */
    return incomplete ? hg_status_exit_code(HG_STATUS_BAD_FILE) : 0;
}
