/* tools/healthgpt/doctor_plain.c - a folder without healthgpt.json: what is it, and what is
 * lacking? */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"
#include "tools/healthgpt/doctor_model.h"
#include "tools/healthgpt/inspect_llm.h"

enum { MAX_ENTRIES = 2000, MAX_PLUGINS = 8, MAX_LINES = 4 };

/* What its entries are called. */
struct contents {
    char plugins[MAX_PLUGINS][256];
    int n_plugins, n_weights;
    bool has_config, has_gguf, has_snapshots, is_hub, has_adapter;
    char inner[256]; /* a folder in it that has a card; "": none */
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

static void note_entry(const struct hg_doctor_model *m, const char *name, struct contents *c)
{
    char path[HG_DOCTOR_PATH], card[300];
    bool weights = ends_with(name, ".safetensors") || ends_with(name, ".bin");
    c->n_weights += weights;
    c->has_config |= strcmp(name, "config.json") == 0;
    c->has_adapter |= strcmp(name, "adapter_config.json") == 0;
    c->has_gguf |= ends_with(name, ".gguf");
    c->has_snapshots |= strcmp(name, "snapshots") == 0;
    c->is_hub |= strncmp(name, "models--", 8) == 0;
    if (weights && (strstr(name, "hlora") || strncmp(name, "fusion_layer", 12) == 0) &&
        c->n_plugins < MAX_PLUGINS && strlen(name) < 200)
        snprintf(c->plugins[c->n_plugins++], 256, "%s", name);
    snprintf(card, sizeof card, "%.200s/healthgpt.json", name);
    if (!c->inner[0] && name[0] != '.' && hg_doctor_path(m, card, path) && hg_file_exists(path))
        snprintf(c->inner, sizeof c->inner, "%.200s", name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void list(const struct hg_doctor_model *m, struct contents *c)
{
    DIR *dir = opendir(m->root);
    int n = 0;
    for (struct dirent *e; dir && n < MAX_ENTRIES && (e = readdir(dir)) != NULL; n++)
        note_entry(m, e->d_name, c);
    if (dir)
        closedir(dir);
    qsort(c->plugins, (size_t)c->n_plugins, sizeof c->plugins[0], by_name);
}

/* ---- what it is ------------------------------------------------------------------------------ */

struct config {
    const char *type; /* points into doc */
    int dim, n_layers;
    json_t *doc;
};

static struct config read_config(struct hg_doctor_model *m)
{
    struct config c = {.type = ""};
    char path[HG_DOCTOR_PATH];
    struct hg_error err = {0};
    if (!hg_doctor_path(m, "config.json", path))
        return c;
    if (hg_json_load(path, 1 << 20, &c.doc, &err) != HG_STATUS_OK) {
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
        return c;
    }
    struct hg_json_view v = hg_json_view_of(c.doc, "config.json");
    hg_json_string(&v, "model_type", HG_JSON_OPTIONAL, 64, &c.type, NULL);
    hg_json_int(&v, "hidden_size", HG_JSON_OPTIONAL, 0, 1 << 20, &c.dim, NULL);
    hg_json_int(&v, "num_hidden_layers", HG_JSON_OPTIONAL, 0, 1 << 16, &c.n_layers, NULL);
    return c;
}

static void put_looks(struct hg_doctor_model *m, const char *what)
{
    hg_out_string(m->d->o, "looks_like", what);
    m->looks_put = true;
}

/* A line for each piece of a HealthGPT that a base alone does not have. */
static void lacking(struct hg_doctor_model *m, bool base, bool plugins)
{
    static const struct {
        enum hg_doctor_part part;
        const char *what;
    } pieces[] = {
        {HG_DOCTOR_BASE, "the base model"},
        {HG_DOCTOR_TOWER, "the vision tower"},
        {HG_DOCTOR_COM, "the comprehension plug-in"},
        {HG_DOCTOR_VQGAN, "the VQGAN (for generation only)"},
        {HG_DOCTOR_CARD, "the card, healthgpt.json, that names them all"},
    };
    char source[256];
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        if ((base && pieces[i].part == HG_DOCTOR_BASE) ||
            (plugins && pieces[i].part == HG_DOCTOR_COM))
            continue;
        hg_doctor_source(m, pieces[i].part, source);
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "lacking", "lacking: %s\n%s%s",
                            pieces[i].what,
                            pieces[i].part == HG_DOCTOR_CARD ? "" : "it comes from ", source);
    }
}

static void base_folder(struct hg_doctor_model *m, const struct config *c, bool plugins)
{
    struct hg_error err = {0};
    char lines[MAX_LINES][HG_INSPECT_LINE];
    m->variant = hg_published_base(c->type, c->dim, c->n_layers);
    put_looks(m, m->variant ? m->variant->base_name : c->type);
    HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "plain_folder",
                        "%s is a plain Hugging Face folder of %s (config.json: %.20s, %d layers of "
                        "%d)%s%s, not a model folder of ours\n"
                        "put it into a folder of its own beside the other pieces, with a card",
                        m->shown, m->variant ? m->variant->base_name : "some language model",
                        c->type, c->n_layers, c->dim, m->variant ? ", the base of " : "",
                        m->variant ? m->variant->name : "");
    m->files_put = true;
    hg_out_open(m->d->o, "files", '[');
    bool whole = hg_doctor_weight_folder(m, "", HG_DOCTOR_BASE, &m->part.llm);
    hg_out_close(m->d->o, ']');
    m->has_llm = hg_llm_config_read(m->root, &m->llm, &err) == HG_STATUS_OK;
    if (!m->has_llm)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again, or another model",
                            err.text);
    size_t n = m->has_llm && whole ? hg_inspect_llm(m->root, &m->llm, lines, MAX_LINES) : 0;
    for (size_t i = 0; i < n && i < MAX_LINES; i++)
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "tensor", "%s", lines[i]);
    lacking(m, true, plugins);
}

/* config.json says what it is. */
static void with_config(struct hg_doctor_model *m, bool plugins)
{
    struct config c = read_config(m);
    if (!c.doc)
        return;
    if (strncmp(c.type, "clip", 4) == 0) {
        put_looks(m, "CLIP");
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "plain_folder",
                            "%s is a vision tower (config.json: %.20s) alone\n"
                            "give the folder above it, the one with healthgpt.json",
                            m->shown, c.type);
    } else {
        base_folder(m, &c, plugins);
    }
    json_decref(c.doc);
}

static void only_plugins(struct hg_doctor_model *m, const struct contents *c)
{
    char path[HG_DOCTOR_PATH];
    const struct hg_published *v = NULL;
    int dim = 0;
    put_looks(m, "plug-ins");
    HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "only_plugins",
                        "%s holds plug-ins only: they run on top of a base model\n"
                        "get the other pieces too, and a card that names them",
                        m->shown);
    m->files_put = true;
    hg_out_open(m->d->o, "files", '[');
    for (int i = 0; i < c->n_plugins; i++) {
        bool fusion = strncmp(c->plugins[i], "fusion", 6) == 0;
        bool gen = strncmp(c->plugins[i], "gen", 3) == 0;
        bool good = hg_doctor_weight_file(m, c->plugins[i],
                                          fusion ? HG_DOCTOR_FUSION
                                          : gen  ? HG_DOCTOR_GEN
                                                 : HG_DOCTOR_COM,
                                          NULL);
        if (!good || fusion || !hg_doctor_path(m, c->plugins[i], path) ||
            !hg_doctor_plugin_looks(path, &v, &dim))
            continue;
        m->variant = v ? v : m->variant;
        HG_DOCTOR_OK_NOTE(m->d, "plugin", "%.120s: for %s (base of width %d)", c->plugins[i],
                          v ? v->name : "no published base", dim);
    }
    hg_out_close(m->d->o, ']');
    lacking(m, false, true);
}

static void nothing_known(struct hg_doctor_model *m, const struct contents *c)
{
    char source[256], next[400];
    hg_doctor_source(m, HG_DOCTOR_CARD, source);
    snprintf(next, sizeof next, "%s", source);
    if (c->inner[0])
        snprintf(next, sizeof next, "did you mean its folder %.200s, which has one?", c->inner);
    else if (c->has_snapshots || c->is_hub)
        snprintf(next, sizeof next,
                 "this is a cache of huggingface_hub: the files are in %ssnapshots/<hash>",
                 c->is_hub ? "models--<owner>--<name>/" : "");
    HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "no_card", "%s: no healthgpt.json%s\n%s",
                        m->shown,
                        c->has_gguf      ? ", and GGUF files are not read"
                        : c->has_adapter ? ", only an adapter of PEFT"
                        : c->n_weights   ? ", only weights that nothing describes"
                                         : ", and no model in it",
                        next);
}

/* The published plug-ins lie beside a config.json of 5 bytes, which describes nothing. */
static bool config_says_nothing(const struct hg_doctor_model *m)
{
    char path[HG_DOCTOR_PATH];
    struct stat st;
    return hg_doctor_path(m, "config.json", path) && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           st.st_size < 64;
}

void hg_doctor_plain(struct hg_doctor_model *m)
{
    struct contents *c = calloc(1, sizeof *c);
    if (!c)
        return;
    list(m, c);
    if (c->n_plugins > 0 && config_says_nothing(m))
        c->has_config = false;
    if (c->has_config)
        with_config(m, c->n_plugins > 0);
    else if (c->n_plugins > 0 && !c->inner[0])
        only_plugins(m, c);
    else
        nothing_known(m, c);
    free(c);
}
