/* tools/healthgpt/doctor_model.c - the model folder: its card, its files, whether they belong
 * together. */
#include "tools/healthgpt/doctor_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "model/load/weights.h"
#include "model/model_path.h"
#include "model/text/prompt.h"
#include "model/text/tokenizer.h"
#include "model/vqgan_net.h"
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
    for (int i = 0; i < 4; i++)
        n += hg_path_join(path, sizeof path, dir, names[i]) == HG_STATUS_OK && hg_file_exists(path);
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
    hg_doctor_weight_folder(m, m->card.vision, HG_DOCTOR_TOWER, &m->part.vision);
    if (!hg_doctor_path(m, m->card.vision, dir) || stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return;
    bool config = hg_doctor_small_file(m, m->card.vision, "config.json", HG_DOCTOR_TOWER);
    m->has_vision = config && hg_vision_config_read(dir, &m->vision, &err) == HG_STATUS_OK;
    if (config && !m->has_vision)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
    if (hg_doctor_small_file(m, m->card.vision, "preprocessor_config.json", HG_DOCTOR_TOWER) &&
        hg_preprocess_config_read(dir, &p, &err) != HG_STATUS_OK)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "config", "%s\ndownload it again", err.text);
}

static void vqgan(struct hg_doctor_model *m)
{
    static struct hg_vqgan_net net;
    char path[HG_DOCTOR_PATH];
    struct hg_weights *w = NULL;
    struct hg_error err = {0};
    if (!m->card.has_vqgan ||
        !hg_doctor_weight_file(m, m->card.vqgan_path, HG_DOCTOR_VQGAN, NULL) ||
        !hg_doctor_path(m, m->card.vqgan_path, path))
        return;
    if (hg_weights_create(&w, &err) != HG_STATUS_OK ||
        hg_weights_add_file(w, path, &err) != HG_STATUS_OK ||
        hg_vqgan_net_derive(w, m->card.vqgan_grid, &net, &err) != HG_STATUS_OK)
        HG_DOCTOR_FAIL_NOTE(m->d, err.status, "vqgan", "%.100s: no VQGAN as we know it: %s",
                            m->card.vqgan_path, err.text);
    hg_weights_free(w);
}

static void plugins(struct hg_doctor_model *m)
{
    for (int i = 0; i < HG_CARD_TASKS; i++) {
        const struct hg_task_card *t = &m->card.tasks[i];
        int64_t before = m->part.all.tensor_bytes;
        if (!t->present)
            continue;
        if (t->hlora[0]) {
            bool good = hg_doctor_weight_file(m, t->hlora, i ? HG_DOCTOR_GEN : HG_DOCTOR_COM, NULL);
            m->plugin_bytes += m->part.all.tensor_bytes - before;
            if (good)
                hg_doctor_plugin(m, i);
        }
        if (t->fusion[0])
            hg_doctor_weight_file(m, t->fusion, HG_DOCTOR_FUSION, &m->part.fusion);
    }
}

static void card_folder(struct hg_doctor_model *m)
{
    struct hg_doctor *d = m->d;
    struct hg_error err = {0};
    m->is_demo = strcmp(m->card.name, "healthgpt-demo") == 0;
    m->variant = hg_published_named(m->card.name);
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
    if (hg_prompt_template_check(m->card.template_name, &err) != HG_STATUS_OK)
        HG_DOCTOR_FAIL_NOTE(d, err.status, "card", "healthgpt.json: %s", err.text);
    hg_out_open(d->o, "files", '[');
    base(m);
    tower(m);
    vqgan(m);
    plugins(m);
    hg_out_close(d->o, ']');
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
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    int e = errno;
    bool there = lstat(path, &st) == 0, file = there && S_ISREG(st.st_mode);
    HG_DOCTOR_FAIL_NOTE(d, there ? HG_STATUS_BAD_FILE : HG_STATUS_NOT_FOUND, "no_folder",
                        "%.300s: %s\n%s", m->shown,
                        e == ELOOP && there && S_ISLNK(st.st_mode)
                            ? "symbolic links that run in a circle"
                        : there ? "not a folder"
                                : "no such folder",
                        file ? "give the folder that healthgpt.json is in" : "give --model DIR");
    return false;
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
    bool found = find_folder(m, path) &&
                 hg_path_join(card, sizeof card, path, "healthgpt.json") == HG_STATUS_OK;
    bool there = found && lstat(card, &st) == 0;
    enum hg_status status = there ? hg_model_card_read(path, &m->card, &err) : HG_STATUS_NOT_FOUND;
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
