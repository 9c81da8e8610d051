/* tools/healthgpt/doctor_model.c - the model folder: its card, its files, whether they belong
 * together. */
#include "tools/healthgpt/doctor_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "model/load/odd_file.h"
#include "model/load/weights.h"
#include "model/model_path.h"
#include "model/text/prompt.h"
#include "model/text/tokenizer.h"
#include "tools/healthgpt/inspect_llm.h"

enum { MAX_LINES = 6 };

/* ---- a folder with a card -------------------------------------------------------------------- */

static void tokenizer(struct hg_doctor_model *m, const char *dir)
{
    static const char *const names[] = {"tokenizer.model", "tokenizer.json", "vocab.json",
                                        "tokenizer_config.json"};
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    char path[HG_DOCTOR_PATH], source[256];
    int n = 0;
    bool odd = false;
    for (int i = 0; i < 4; i++) {
        if (hg_path_join(path, sizeof path, dir, names[i]) != HG_STATUS_OK || !hg_file_exists(path))
            continue;
        n++;
        if (hg_odd_file_check(path, NULL) != HG_STATUS_OK) {
            hg_doctor_small_file(m, m->card.llm, names[i], HG_DOCTOR_BASE);
            odd = true;
        }
    }
    if (odd)
        return; /* said */
    hg_doctor_source(m, HG_DOCTOR_BASE, source);
    if (n == 0) {
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "tokenizer",
                            "%.120s: no tokenizer (tokenizer.model, or tokenizer.json, or "
                            "vocab.json with merges.txt)\nit comes from %s",
                            m->card.llm, source);
    } else if (hg_tokenizer_load(dir, &t, &err) != HG_STATUS_OK) {
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "tokenizer", "%s\ndownload it again: %s", err.text,
                            source);
    } else {
        int size = hg_tokenizer_size(t);
        if (m->has_llm && size > m->llm.vocab)
            HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "tokenizer",
                                "%.120s: the tokenizer has %d tokens, config.json says %d rows\n"
                                "take both from %s",
                                m->card.llm, size, m->llm.vocab, source);
        else
            HG_DOCTOR_OK_NOTE(m->d, "tokenizer", "%.120s: tokenizer of %d tokens", m->card.llm,
                              size);
    }
    hg_tokenizer_free(t);
}

static void base(struct hg_doctor_model *m)
{
    char dir[HG_DOCTOR_PATH], lines[MAX_LINES][HG_INSPECT_LINE];
    struct hg_error err = {0};
    bool whole = hg_doctor_weight_folder(m, m->card.llm, HG_DOCTOR_BASE, &m->part.llm);
    if (!hg_doctor_path(m, m->card.llm, dir))
        return;
    struct stat st;
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return; /* said */
    bool config = hg_doctor_small_file(m, m->card.llm, "config.json", HG_DOCTOR_BASE);
    m->has_llm = config && hg_llm_config_read(dir, &m->llm, &err) == HG_STATUS_OK;
    if (config && !m->has_llm)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
    if (m->has_llm && !m->is_demo)
        m->variant = hg_published_base(m->llm.arch, m->llm.dim, m->llm.n_layers);
    tokenizer(m, dir);
    size_t n = m->has_llm && whole ? hg_inspect_llm(dir, &m->llm, lines, MAX_LINES) : 0;
    for (size_t i = 0; i < n && i < MAX_LINES; i++)
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "tensor",
                            "%.100s: %s\nweights and config.json are not of one model", m->card.llm,
                            lines[i]);
    if (n > MAX_LINES)
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "tensor", "%zu tensors more", n - MAX_LINES);
}

static void tower(struct hg_doctor_model *m)
{
    char dir[HG_DOCTOR_PATH];
    struct hg_error err = {0};
    struct hg_preprocess_config p;
    struct stat st;
    if (!m->card.has_vision) {
        HG_DOCTOR_WARN_NOTE(m->d, "vision",
                            "the card names no vision tower: no pictures go in\n"
                            "add \"vision\" to healthgpt.json");
        return;
    }
    bool whole = hg_doctor_weight_folder(m, m->card.vision, HG_DOCTOR_TOWER, &m->part.vision);
    if (!hg_doctor_path(m, m->card.vision, dir) || stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return;
    bool config = hg_doctor_small_file(m, m->card.vision, "config.json", HG_DOCTOR_TOWER);
    m->has_vision = config && hg_vision_config_read(dir, &m->vision, &err) == HG_STATUS_OK;
    if (config && !m->has_vision)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
    if (hg_doctor_small_file(m, m->card.vision, "preprocessor_config.json", HG_DOCTOR_TOWER) &&
        hg_preprocess_config_read(dir, &p, &err) != HG_STATUS_OK)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
    if (m->has_vision && whole)
        hg_doctor_tower_tensors(m, dir);
}

static void vqgan(struct hg_doctor_model *m)
{
    char path[HG_DOCTOR_PATH];
    if (m->card.has_vqgan &&
        hg_doctor_weight_file(m, m->card.vqgan_path, HG_DOCTOR_VQGAN, &m->part.vqgan) &&
        hg_doctor_path(m, m->card.vqgan_path, path))
        hg_doctor_vqgan_tensors(m, path);
}

static void plugins(struct hg_doctor_model *m)
{
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        const struct hg_task_card *t = &m->card.tasks[i];
        if (!t->present)
            continue;
        if (t->hlora[0]) {
            bool good = hg_doctor_weight_file(m, t->hlora, i ? HG_DOCTOR_GEN : HG_DOCTOR_COM,
                                              &m->part.plugins);
            if (good)
                hg_doctor_plugin(m, i);
        }
        if (t->fusion[0])
            hg_doctor_weight_file(m, t->fusion, HG_DOCTOR_FUSION, &m->part.fusion);
    }
}

/* Where each piece lies, where that is not its own name. */
static void find_pieces(struct hg_doctor_model *m)
{
    hg_model_settle_tasks(&m->place, &m->card);
    for (int i = 0; i < HG_PART_COUNT; i++) {
        const char *name = hg_model_piece_name(&m->card, i);
        size_t n = strlen(m->place.root);
        if (!name[0] || hg_model_find(&m->place, &m->card, i, m->found[i], NULL) != HG_STATUS_OK)
            continue;
        const char *rel = m->found[i] + n + (m->found[i][n] == '/');
        if (strncmp(m->found[i], m->place.root, n) == 0 && strcmp(rel, name) != 0)
            HG_DOCTOR_OK_NOTE(m->d, "found", "%s: %.100s: %.300s", hg_model_piece_role(i), name,
                              rel);
    }
}

static void say_tasks(struct hg_doctor_model *m)
{
    for (int t = 0; t < HG_CARD_TASKS; t++) {
        const struct hg_task_card *k = &m->card.tasks[t];
        const char *task = t ? "generation" : "comprehension";
        if (k->present && k->can[0])
            HG_DOCTOR_OK_NOTE(m->d, "task", "%s: %s", task, k->can);
        else if (!k->present && k->unpublished[0])
            HG_DOCTOR_OK_NOTE(m->d, "task", "%s: not there: %s", task, k->unpublished);
    }
}

static void card_folder(struct hg_doctor_model *m)
{
    struct hg_doctor *d = m->d;
    struct hg_error err = {0};
    int failed = d->n[HG_DOCTOR_FAIL];
    m->is_demo = strcmp(m->card.name, "healthgpt-demo") == 0;
    m->variant = hg_published_named(m->card.name);
    find_pieces(m);
    hg_out_string(d->o, "name", m->card.name);
    hg_out_string(d->o, "looks_like", m->variant ? m->variant->name : NULL);
    hg_out_open(d->o, "tasks", '[');
    for (int i = 0; i < HG_CARD_TASKS; i++)
        if (m->card.tasks[i].present)
            hg_out_string(d->o, NULL, i ? "generation" : "comprehension");
    hg_out_close(d->o, ']');
    HG_DOCTOR_OK_NOTE(d, "card", "%s: %.63s,%s%s", m->shown, m->card.name,
                      m->card.tasks[0].present ? " comprehension" : "",
                      m->card.tasks[1].present ? " generation" : "");
    say_tasks(m);
    if (hg_prompt_template_check(m->card.template_name, &err) != HG_STATUS_OK)
        HG_DOCTOR_FAIL_NOTE(d, err.status, "card", "healthgpt.json: %s", err.text);
    hg_out_open(d->o, "files", '[');
    base(m);
    tower(m);
    vqgan(m);
    plugins(m);
    hg_out_close(d->o, ']');
    hg_doctor_check(m, d->n[HG_DOCTOR_FAIL] == failed);
}

/* ---- which folder ---------------------------------------------------------------------------- */

/* What was typed, or configured; else the demo model. False: a finding says why there is none. */
static bool find_folder(struct hg_doctor_model *m, char path[HG_DOCTOR_PATH])
{
    struct hg_doctor *d = m->d;
    struct hg_error err = {0};
    const char *given = d->cli->model ? d->cli->model : d->config.model;
    struct stat st;
    snprintf(path, HG_DOCTOR_PATH, "%s", given);
    if (!given[0] && hg_model_path_resolve(NULL, path, HG_DOCTOR_PATH, &err) != HG_STATUS_OK) {
        HG_DOCTOR_FAIL_NOTE(d, err.status, "no_folder", "%s\ngive --model DIR", err.text);
        return false;
    }
    m->root = path;
    m->shown = d->cli->model ? d->cli->model
               : given[0]    ? "the configured folder"
                             : "the demo model";
    if (!d->cli->model)
        hg_doctor_hide(d, path, given[0] ? "DIR" : "demo");
    if (stat(path, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)))
        return true;
    int e = errno;
    bool there = lstat(path, &st) == 0;
    HG_DOCTOR_FAIL_NOTE(d, there ? HG_STATUS_BAD_FILE : HG_STATUS_NOT_FOUND, "no_folder",
                        "%.300s: %s\n%s", m->shown,
                        e == ELOOP && there && S_ISLNK(st.st_mode)
                            ? "symbolic links that run in a circle"
                        : there ? "not a folder"
                                : "no such folder or card file",
                        "give --model DIR, or a card file");
    return false;
}

/* The card's path, and the root of its pieces. False: a finding says that there is no such root. */
static bool find_card(struct hg_doctor_model *m, const char *path, char card[HG_DOCTOR_PATH])
{
    const char *weights = m->d->cli->weights ? m->d->cli->weights : m->d->config.weights;
    struct hg_error err = {0};
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (snprintf(card, HG_DOCTOR_PATH, "%s%s", path, folder ? "/healthgpt.json" : "") >=
        HG_DOCTOR_PATH)
        return false;
    m->lists_places = weights[0] != '\0' || !folder;
    enum hg_status status = lstat(card, &st) == 0 ? hg_model_place(path, weights, &m->place, &err)
                                                  : HG_STATUS_OK; /* a plain folder, perhaps */
    if (status != HG_STATUS_OK) {
        HG_DOCTOR_FAIL_NOTE(m->d, status, "no_folder", "%s\ngive the folder of the weights",
                            err.text);
        return false;
    }
    if (m->place.root[0])
        m->root = m->place.root;
    return true;
}

/* The same members whatever was found. */
static void put_nothing(struct hg_doctor_model *m)
{
    struct hg_json_out *o = m->d->o;
    if (!m->looks_put)
        hg_out_string(o, "looks_like", NULL);
    hg_out_string(o, "name", NULL);
    hg_out_open(o, "tasks", '[');
    hg_out_close(o, ']');
    if (!m->files_put) {
        hg_out_open(o, "files", '[');
        hg_out_close(o, ']');
    }
}

static void look(struct hg_doctor_model *m)
{
    static char path[HG_DOCTOR_PATH];
    char card[HG_DOCTOR_PATH];
    struct hg_doctor *d = m->d;
    struct hg_error err = {0};
    struct stat st;
    bool found = find_folder(m, path) && find_card(m, path, card);
    bool there = found && lstat(card, &st) == 0;
    enum hg_status status = there ? hg_model_card_read(card, &m->card, &err) : HG_STATUS_NOT_FOUND;
    hg_out_bool(d->o, "card", there && status == HG_STATUS_OK);
    if (there && status == HG_STATUS_OK) {
        card_folder(m);
    } else {
        if (there)
            HG_DOCTOR_FAIL_NOTE(d, status, "card", "%s\ncorrect the card; %s", err.text,
                                "config/models/demo/healthgpt.json is an example");
        else if (found)
            hg_doctor_plain(m);
        put_nothing(m);
    }
    d->area = "memory";
    hg_doctor_memory(m);
}

void hg_doctor_model(struct hg_doctor *d)
{
    struct hg_doctor_model *m = calloc(1, sizeof *m);
    d->area = "model";
    hg_out_open(d->o, "model", '{');
    if (m) {
        m->d = d;
        look(m);
    }
    free(m);
    hg_out_close(d->o, '}');
}
