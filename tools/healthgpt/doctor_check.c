/* tools/healthgpt/doctor_check.c - the load rehearsed: every tensor by name and shape, and what
 * healthgptd refuses or warns of before it packs one. */
#include <stdio.h>
#include <string.h>

#include "model/dry_run.h"
#include "model/healthgpt.h"
#include "model/load/expect.h"
#include "model/text/tokenizer.h"
#include "model/vision.h"
#include "model/vqgan.h"
#include "tools/healthgpt/doctor_model.h"

enum { MAX_LINES = 6 };

struct lines {
    struct hg_doctor_model *m;
    const char *name; /* of the piece */
    enum hg_doctor_part part;
    int n;
};

/* Without the path in front, which may be anybody's. */
static const char *from_tensor(const char *text)
{
    const char *t = strstr(text, "tensor ");
    return t ? t : text;
}

static void wrong_tensor(void *ctx, const struct hg_error *why)
{
    struct lines *l = ctx;
    char source[256];
    hg_doctor_source(l->m, l->part, source);
    if (l->n++ < MAX_LINES)
        HG_DOCTOR_FAIL_NOTE(l->m->d, why->status, "tensor", "%.100s: %.200s\nthe right one: %s",
                            l->name, from_tensor(why->text), source);
}

static void end(struct lines *l, struct hg_dry_run *dry, enum hg_status status,
                const struct hg_error *err)
{
    if (status != HG_STATUS_OK && dry->n_wrong == 0)
        wrong_tensor(l, err);
    if (l->n > MAX_LINES)
        HG_DOCTOR_FAIL_NOTE(l->m->d, HG_STATUS_BAD_FILE, "tensor", "%.100s: %d tensors more",
                            l->name, l->n - MAX_LINES);
}

static void begin(struct lines *l, struct hg_dry_run *dry)
{
    hg_dry_run_init(dry);
    dry->values = false;
    dry->wrong = wrong_tensor;
    dry->ctx = l;
}

void hg_doctor_tower_tensors(struct hg_doctor_model *m, const char *dir)
{
    struct lines l = {m, m->card.vision, HG_DOCTOR_TOWER, 0};
    struct hg_dry_run dry;
    struct hg_weights *w = NULL;
    struct hg_vision *v = NULL;
    struct hg_error err = {0};
    int most = 0;
    for (int t = 0; t < HG_CARD_TASKS; t++) {
        int layer = hg_vision_layer_index(&m->vision, m->card.tasks[t].vision_layer);
        most = m->card.tasks[t].present && layer > most ? layer : most;
    }
    begin(&l, &dry);
    enum hg_status status = hg_weights_create(&w, &err);
    if (status == HG_STATUS_OK)
        status = hg_weights_add_dir(w, dir, &err);
    if (status == HG_STATUS_OK)
        status = hg_vision_load(&dry.backend, &m->vision, w, most, HG_DTYPE_F32, &v, &err);
    if (status == HG_STATUS_OK && dry.n_wrong == 0)
        status = hg_weights_check_all_used(w, &err);
    end(&l, &dry, status, &err);
    hg_vision_free(v);
    hg_weights_free(w);
}

void hg_doctor_vqgan_tensors(struct hg_doctor_model *m, const char *path)
{
    struct lines l = {m, m->card.vqgan_path, HG_DOCTOR_VQGAN, 0};
    struct hg_dry_run dry;
    struct hg_weights *w = NULL;
    struct hg_vqgan *v = NULL;
    struct hg_error err = {0};
    begin(&l, &dry);
    enum hg_status status = hg_weights_create(&w, &err);
    if (status == HG_STATUS_OK)
        status = hg_weights_add_file(w, path, &err);
    if (status == HG_STATUS_OK)
        status = hg_vqgan_load(&dry.backend, w, m->card.vqgan_grid, m->card.norm_groups, &v, &err);
    if (status == HG_STATUS_OK && dry.n_wrong == 0)
        status = hg_weights_check_all_used(w, &err);
    end(&l, &dry, status, &err);
    hg_vqgan_free(v);
    hg_weights_free(w);
}

/* ---- everything ------------------------------------------------------------------------------ */

static void expected(void *ctx, const char *line)
{
    struct lines *l = ctx;
    HG_DOCTOR_WARN_NOTE(l->m->d, "expectation",
                        "%s\nthe file decides; is it that of this model, or has it changed?", line);
}

static void finding(void *ctx, bool wrong, const char *line)
{
    struct lines *l = ctx;
    if (!wrong)
        expected(l, line);
    else if (l->n++ < MAX_LINES)
        HG_DOCTOR_FAIL_NOTE(l->m->d, HG_STATUS_BAD_FILE, "load",
                            "%s\nreplace that file; healthgptd refuses the model for this", line);
}

/* What can be compared when not all is there. */
static void compare_what_is_there(struct hg_doctor_model *m, struct lines *l)
{
    struct hg_expect_facts facts = {.llm = m->has_llm ? &m->llm : NULL,
                                    .vision = m->has_vision ? &m->vision : NULL};
    hg_expect_compare(&m->card, &facts, expected, l);
}

void hg_doctor_check(struct hg_doctor_model *m, bool complete)
{
    struct lines l = {.m = m};
    struct hg_error err = {0};
    struct hg_model_lock_report lock;
    struct hg_model_options o = {
        .path = m->place.card, .weights = m->place.root, .lock = m->d->config.lock};
    if (!complete || m->late) {
        compare_what_is_there(m, &l);
        return;
    }
    hg_model_check(&o, m->d->deadline_ns, finding, &l, &err);
    if (strcmp(o.lock, "off") != 0 &&
        hg_model_lock_verify(&o, false, &lock, &err) == HG_STATUS_OK && lock.exists)
        HG_DOCTOR_OK_NOTE(m->d, "lock",
                          "model.lock holds: names, sizes, shapes, small files; "
                          "contents are compared at load");
}
