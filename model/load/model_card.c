/* model/load/model_card.c - healthgpt.json: which files make a model, and its two task profiles. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "model/load/expect.h"
#include "model/load/model_config.h"

enum { PATH_CAP = 4096, MAX_FILE_BYTES = 1 << 20 };

static const char *const task_names[HG_CARD_TASKS] = {"comprehension", "generation"};

static enum hg_status read_text(const struct hg_json_view *v, const char *key,
                                enum hg_json_need need, char *out, size_t cap, struct hg_error *err)
{
    const char *s = NULL;
    HG_TRY(hg_json_string(v, key, need, cap - 1, &s, err));
    if (s)
        snprintf(out, cap, "%s", s);
    return HG_STATUS_OK;
}

/* A path stays below the folder of the card. */
static bool path_is_inside(const char *s)
{
    if (s[0] == '/' || s[0] == '\0' || strchr(s, '\\'))
        return false;
    for (const char *part = s; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return false;
    }
    return true;
}

static enum hg_status read_path(const struct hg_json_view *v, const char *key,
                                enum hg_json_need need, char out[256], struct hg_error *err)
{
    HG_TRY(read_text(v, key, need, out, 256, err));
    if (out[0] && !path_is_inside(out))
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: %s: expected a path below the card's folder, got \"%.60s\"", v->where,
                       key, out);
    return HG_STATUS_OK;
}

static enum hg_status read_vqgan(const struct hg_json_view *v, struct hg_model_card *c,
                                 struct hg_error *err)
{
    static const char *const keys[] = {"path", "norm_groups", "grid", NULL};
    struct hg_json_view q;
    c->norm_groups = 32;
    c->vqgan_grid = 32;
    HG_TRY(hg_json_object(v, "vqgan", HG_JSON_OPTIONAL, &q, err));
    if (!q.obj)
        return HG_STATUS_OK;
    c->has_vqgan = true;
    HG_TRY(hg_json_known_keys(&q, keys, err));
    HG_TRY(read_path(&q, "path", HG_JSON_REQUIRED, c->vqgan_path, err));
    HG_TRY(hg_json_int(&q, "norm_groups", HG_JSON_OPTIONAL, 1, 1024, &c->norm_groups, err));
    return hg_json_int(&q, "grid", HG_JSON_OPTIONAL, 1, 256, &c->vqgan_grid, err);
}

static enum hg_status read_task(const struct hg_json_view *tasks, int i, struct hg_model_card *c,
                                struct hg_error *err)
{
    static const char *const keys[] = {"hlora",        "fusion",      "alpha",
                                       "vision_layer", "temperature", "max_new_tokens",
                                       "can",          "unpublished", NULL};
    struct hg_json_view v;
    struct hg_task_card *t = &c->tasks[i];
    double alpha = 0, temperature = -1;
    HG_TRY(hg_json_object(tasks, task_names[i], HG_JSON_OPTIONAL, &v, err));
    if (!v.obj)
        return HG_STATUS_OK;
    *t = (struct hg_task_card){
        .present = true, .vision_layer = i ? 1 : -2, .max_new_tokens = 1024, .temperature = -1};
    HG_TRY(hg_json_known_keys(&v, keys, err));
    HG_TRY(read_path(&v, "hlora", HG_JSON_OPTIONAL, t->hlora, err));
    HG_TRY(read_path(&v, "fusion", HG_JSON_OPTIONAL, t->fusion, err));
    /* alpha cannot be told from the tensors (reference.md 1), so plug-in weights need it. */
    HG_TRY(hg_json_real(&v, "alpha", t->hlora[0] ? HG_JSON_REQUIRED : HG_JSON_OPTIONAL, 0, 65536,
                        &alpha, err));
    t->alpha = (float)alpha;
    HG_TRY(hg_json_real(&v, "temperature", HG_JSON_OPTIONAL, 0, 2, &temperature, err));
    t->temperature = (float)temperature;
    HG_TRY(read_text(&v, "can", HG_JSON_OPTIONAL, t->can, sizeof t->can, err));
    HG_TRY(
        read_text(&v, "unpublished", HG_JSON_OPTIONAL, t->unpublished, sizeof t->unpublished, err));
    t->present = !t->unpublished[0] || t->hlora[0];
    HG_TRY(hg_json_int(&v, "vision_layer", HG_JSON_OPTIONAL, -512, 512, &t->vision_layer, err));
    return hg_json_int(&v, "max_new_tokens", HG_JSON_OPTIONAL, 1, 1 << 20, &t->max_new_tokens, err);
}

static enum hg_status read_tasks(const struct hg_json_view *v, struct hg_model_card *c,
                                 struct hg_error *err)
{
    static const char *const keys[] = {"comprehension", "generation", NULL};
    struct hg_json_view tasks;
    bool any = false;
    HG_TRY(hg_json_object(v, "tasks", HG_JSON_REQUIRED, &tasks, err));
    HG_TRY(hg_json_known_keys(&tasks, keys, err));
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        HG_TRY(read_task(&tasks, i, c, err));
        any |= c->tasks[i].present && !c->tasks[i].unpublished[0];
    }
    if (!any)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: tasks: expected comprehension, generation or both", v->where);
    return HG_STATUS_OK;
}

/* ---- where the pieces come from ---------------------------------------------------------------
 */

/* "owner/name": two plain names. */
static bool is_repository(const char *s)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t owner = strspn(s, letters), name;
    if (owner == 0 || s[owner] != '/' || s[0] == '.')
        return false;
    name = strspn(s + owner + 1, letters);
    return name > 0 && s[owner + 1] != '.' && s[owner + 1 + name] == '\0';
}

static enum hg_status check_repository(const struct hg_json_view *v, const char *key,
                                       const char *text, struct hg_error *err)
{
    if (is_repository(text))
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected \"owner/name\", got \"%.60s\"",
                   v->where, key, text);
}

/* A list of texts: repositories, or paths below the root. */
static enum hg_status read_places(const struct hg_json_view *v, const char *key, bool repositories,
                                  char out[HG_MAX_PLACES][HG_REPOSITORY_CAP], int *n,
                                  struct hg_error *err)
{
    const json_t *list = json_object_get(v->obj, key);
    size_t i;
    json_t *item;
    *n = 0;
    if (!list || json_is_null(list))
        return HG_STATUS_OK;
    if (!json_is_array(list) || json_array_size(list) > HG_MAX_PLACES)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected a list of at most %d texts",
                       v->where, key, HG_MAX_PLACES);
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (!text || strlen(text) >= HG_REPOSITORY_CAP)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s[%zu]: expected a text of at most %d",
                           v->where, key, i, HG_REPOSITORY_CAP - 1);
        if (repositories)
            HG_TRY(check_repository(v, key, text, err));
        else if (!path_is_inside(text))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: %s: expected paths below the card's folder, got \"%.60s\"",
                           v->where, key, text);
        snprintf(out[(*n)++], HG_REPOSITORY_CAP, "%s", text);
    }
    return HG_STATUS_OK;
}

static enum hg_status read_source(const struct hg_json_view *sources, const char *key,
                                  struct hg_source *out, struct hg_error *err)
{
    static const char *const keys[] = {"repository", "page", "alternatives", "names", NULL};
    struct hg_json_view v;
    HG_TRY(hg_json_object(sources, key, HG_JSON_OPTIONAL, &v, err));
    if (!v.obj)
        return HG_STATUS_OK;
    HG_TRY(hg_json_known_keys(&v, keys, err));
    HG_TRY(read_text(&v, "repository", HG_JSON_OPTIONAL, out->repository, sizeof out->repository,
                     err));
    if (out->repository[0])
        HG_TRY(check_repository(&v, "repository", out->repository, err));
    HG_TRY(read_text(&v, "page", HG_JSON_OPTIONAL, out->page, sizeof out->page, err));
    HG_TRY(read_places(&v, "alternatives", true, out->alternatives, &out->n_alternatives, err));
    return read_places(&v, "names", false, out->names, &out->n_names, err);
}

static enum hg_status read_sources(const struct hg_json_view *v, struct hg_model_card *c,
                                   struct hg_error *err)
{
    static const char *const keys[HG_SOURCE_COUNT + 1] = {"llm", "vision", "vqgan", "plugins",
                                                          NULL};
    struct hg_json_view sources;
    HG_TRY(hg_json_object(v, "sources", HG_JSON_OPTIONAL, &sources, err));
    if (!sources.obj)
        return HG_STATUS_OK;
    HG_TRY(hg_json_known_keys(&sources, keys, err));
    for (int i = 0; i < HG_SOURCE_COUNT; i++)
        HG_TRY(read_source(&sources, keys[i], &c->sources[i], err));
    return HG_STATUS_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static enum hg_status read_kind(const struct hg_json_view *v, struct hg_error *err)
{
    int format = 0;
    const char *architecture = NULL;
    HG_TRY(hg_json_int(v, "format", HG_JSON_REQUIRED, 0, 1 << 20, &format, err));
    HG_TRY(hg_json_string(v, "architecture", HG_JSON_REQUIRED, 64, &architecture, err));
    if (format != 1)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: format: expected 1, got %d", v->where,
                       format);
    if (strcmp(architecture, "healthgpt") != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: architecture: expected healthgpt, got \"%s\"", v->where, architecture);
    return HG_STATUS_OK;
}

static enum hg_status read_rope(const struct hg_json_view *v, struct hg_model_card *c,
                                struct hg_error *err)
{
    const char *s = "fp32";
    HG_TRY(hg_json_string(v, "rope_inv_freq", HG_JSON_OPTIONAL, 64, &s, err));
    if (strcmp(s, "fp32") != 0 && strcmp(s, "fp16") != 0 && strcmp(s, "bf16") != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: rope_inv_freq: expected fp32, fp16 or bf16, got \"%s\"", v->where, s);
    snprintf(c->rope_inv_freq, sizeof c->rope_inv_freq, "%s", s);
    return HG_STATUS_OK;
}

enum hg_status hg_model_card_parse(const json_t *card, struct hg_model_card *c,
                                   struct hg_error *err)
{
    static const char *const keys[] = {"format",         "name",    "architecture", "llm",
                                       "vision",         "vqgan",   "template",     "rope_inv_freq",
                                       "license",        "notice",  "tasks",        "system",
                                       "n_image_tokens", "sources", "expect",       NULL};
    struct hg_json_view v = hg_json_view_of(card, "healthgpt.json");
    memset(c, 0, sizeof *c);
    HG_TRY(read_kind(&v, err));
    HG_TRY(hg_json_known_keys(&v, keys, err));
    HG_TRY(read_text(&v, "name", HG_JSON_REQUIRED, c->name, sizeof c->name, err));
    HG_TRY(read_path(&v, "llm", HG_JSON_REQUIRED, c->llm, err));
    HG_TRY(read_path(&v, "vision", HG_JSON_OPTIONAL, c->vision, err));
    c->has_vision = c->vision[0] != '\0';
    HG_TRY(read_vqgan(&v, c, err));
    HG_TRY(read_text(&v, "template", HG_JSON_REQUIRED, c->template_name, sizeof c->template_name,
                     err));
    HG_TRY(read_rope(&v, c, err));
    HG_TRY(read_text(&v, "license", HG_JSON_OPTIONAL, c->license, sizeof c->license, err));
    HG_TRY(read_text(&v, "notice", HG_JSON_OPTIONAL, c->notice, sizeof c->notice, err));
    HG_TRY(
        hg_json_int(&v, "n_image_tokens", HG_JSON_OPTIONAL, 1, 1 << 20, &c->n_image_tokens, err));
    const char *system = NULL;
    HG_TRY(hg_json_string(&v, "system", HG_JSON_OPTIONAL, sizeof c->system_text - 1, &system, err));
    if (system) {
        snprintf(c->system_text, sizeof c->system_text, "%s", system);
        c->system = c->system_text;
    }
    HG_TRY(read_sources(&v, c, err));
    HG_TRY(hg_expect_parse(&v, c, err));
    return read_tasks(&v, c, err);
}

enum hg_status hg_model_card_read(const char *given, struct hg_model_card *out,
                                  struct hg_error *err)
{
    char path[PATH_CAP];
    json_t *card;
    struct stat st;
    bool folder = stat(given, &st) != 0 || S_ISDIR(st.st_mode);
    if (snprintf(path, sizeof path, "%s%s", given, folder ? "/healthgpt.json" : "") >= PATH_CAP)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.100s: path is too long", given);
    HG_TRY(hg_json_load(path, MAX_FILE_BYTES, &card, err));
    enum hg_status status = hg_model_card_parse(card, out, err);
    json_decref(card);
    return status;
}
