/* model/healthgpt_lock.c - model.lock of a whole model: which files belong to it, where it lies,
 * when it must be there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "model/internal.h"
#include "model/load/lock.h"

enum { PATH_CAP = HG_PLACE_CAP + 256 };

static const char *const llm_files[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer_config.json",
                                        "tokenizer.json",
                                        "tokenizer.model",
                                        "vocab.json",
                                        "merges.txt",
                                        "added_tokens.json",
                                        "special_tokens_map.json",
                                        NULL};
static const char *const vision_files[] = {"config.json", "preprocessor_config.json", NULL};

struct set {
    const char *role;
    struct hg_weights *weights; /* NULL: none */
    const char *dir;            /* of the small files */
    const char *const *small;   /* NULL: none */
};

enum { N_SETS = 3 + HG_TASK_COUNT };

static void list_sets(const struct hg_model_files *f, struct set out[N_SETS])
{
    const struct set sets[N_SETS] = {
        {"llm", f->base, f->paths[HG_PART_LLM], llm_files},
        {"vision", f->vision, f->paths[HG_PART_VISION], vision_files},
        {"vqgan", f->vqgan, NULL, NULL},
        {"comprehension", f->task[HG_TASK_COMPREHENSION], NULL, NULL},
        {"generation", f->task[HG_TASK_GENERATION], NULL, NULL},
    };
    memcpy(out, sets, sizeof sets);
}

/* <root>/model.lock, or <root>/NAME.lock for a card file NAME.json: several cards share a root. */
static enum hg_status lock_path(const struct hg_model *m, char out[PATH_CAP], struct hg_error *err)
{
    char name[128];
    const char *slash = strrchr(m->place.card, '/'), *base = slash ? slash + 1 : m->place.card;
    size_t n = strlen(base);
    n = n > 5 && strcmp(base + n - 5, ".json") == 0 ? n - 5 : n;
    if (n == 9 && memcmp(base, "healthgpt", 9) == 0)
        snprintf(name, sizeof name, "model.lock");
    else
        snprintf(name, sizeof name, "%.*s.lock", n > 100 ? 100 : (int)n, base);
    if (hg_path_join(out, PATH_CAP, m->place.root, name) == HG_STATUS_OK)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_TOO_LARGE, "%.100s: path is too long", m->place.root);
}

static enum hg_status small_file(const struct set *s, const char *file, char name[PATH_CAP],
                                 char path[PATH_CAP], struct hg_error *err)
{
    if (hg_path_join(name, PATH_CAP, s->role, file) == HG_STATUS_OK &&
        hg_path_join(path, PATH_CAP, s->dir, file) == HG_STATUS_OK)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_TOO_LARGE, "%.100s: path is too long", file);
}

/* ---- verifying ------------------------------------------------------------------------------- */

static enum hg_status compare(const struct hg_model_files *f, struct hg_lock *l,
                              struct hg_error *err)
{
    struct set sets[N_SETS];
    char name[PATH_CAP], path[PATH_CAP];
    list_sets(f, sets);
    for (int i = 0; i < N_SETS; i++) {
        HG_TRY(hg_lock_weights(l, sets[i].role, sets[i].weights, err));
        for (int k = 0; sets[i].weights && sets[i].small && sets[i].small[k]; k++) {
            HG_TRY(small_file(&sets[i], sets[i].small[k], name, path, err));
            HG_TRY(hg_lock_file(l, name, path, err));
        }
    }
    return hg_lock_complete(l, err);
}

static enum hg_status add_path(enum hg_status status, const char *path, const struct hg_error *why,
                               struct hg_error *err)
{
    return status == HG_STATUS_OK ? status
                                  : hg_fail(err, status, "%.230s (%.80s)", why->text, path);
}

enum hg_status hg_model_lock_apply(struct hg_model *m, struct hg_model_files *f,
                                   const struct hg_model_options *o, struct hg_error *err)
{
    char path[PATH_CAP];
    struct hg_lock *l;
    struct hg_error why = {0};
    const char *mode = o->lock && o->lock[0] ? o->lock : "auto";
    if (strcmp(mode, "off") == 0)
        return HG_STATUS_OK;
    if (strcmp(mode, "auto") != 0 && strcmp(mode, "require") != 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "lock: expected auto, require or off, got %.40s",
                       mode);
    HG_TRY(lock_path(m, path, err));
    if (!hg_file_exists(path) && strcmp(mode, "auto") == 0)
        return HG_STATUS_OK;
    HG_TRY(hg_lock_read(path, &l, err));
    enum hg_status status = compare(f, l, &why);
    hg_lock_free(l);
    f->locked = status == HG_STATUS_OK;
    return add_path(status, path, &why, err);
}

enum hg_status hg_model_lock_check(const struct hg_model_files *f, struct hg_error *err)
{
    struct set sets[N_SETS];
    size_t verified = 0, all = 0;
    list_sets(f, sets);
    for (int i = 0; i < N_SETS; i++) {
        if (!sets[i].weights)
            continue;
        HG_TRY(hg_weights_check_lock(sets[i].weights, err));
        hg_weights_count_locked(sets[i].weights, &verified, &all);
    }
    if (f->locked)
        hg_log(HG_LOG_INFO, "model.lock holds: %zu of %zu tensors verified%s", verified, all,
               verified < all ? ", the others are not used" : "");
    return HG_STATUS_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

static enum hg_status write_lock(struct hg_model *m, const struct hg_model_files *f,
                                 struct hg_model_lock_report *out, struct hg_error *err)
{
    struct set sets[N_SETS];
    struct hg_buf text = {0};
    char name[PATH_CAP], path[PATH_CAP];
    enum hg_status status = hg_lock_begin(&text, m->card.name);
    list_sets(f, sets);
    for (int i = 0; i < N_SETS && status == HG_STATUS_OK; i++) {
        if (!sets[i].weights)
            continue;
        status = hg_lock_put_weights(&text, sets[i].role, sets[i].weights);
        out->n_files += hg_weights_n_files(sets[i].weights);
        out->bytes += hg_weights_bytes(sets[i].weights);
        out->n_tensors += hg_weights_count(sets[i].weights);
        for (int k = 0; sets[i].small && sets[i].small[k] && status == HG_STATUS_OK; k++) {
            HG_TRY_OUT(small_file(&sets[i], sets[i].small[k], name, path, err));
            HG_TRY_OUT(hg_lock_put_file(&text, name, path, err));
            out->n_files += hg_file_exists(path);
        }
    }
    if (status == HG_STATUS_OK)
        status = hg_lock_end(&text);
    if (status != HG_STATUS_OK)
        HG_TRY_OUT(hg_fail(err, status, "model.lock: out of memory"));
    HG_TRY_OUT(hg_file_write(out->path, text.data, text.len, err));
out:
    hg_buf_deinit(&text);
    return status;
}

/* Sizes, names and shapes; with `contents` every tensor too. */
static enum hg_status verify(struct hg_model *m, struct hg_model_files *f, bool contents,
                             struct hg_error *err)
{
    struct hg_model_options o = {.lock = "require"};
    struct set sets[N_SETS];
    HG_TRY(hg_model_lock_apply(m, f, &o, err));
    list_sets(f, sets);
    for (int i = 0; contents && i < N_SETS; i++)
        for (size_t k = 0; sets[i].weights && k < hg_weights_count(sets[i].weights); k++)
            hg_weights_done(sets[i].weights, hg_weights_at(sets[i].weights, k, NULL));
    return hg_model_lock_check(f, err);
}

static enum hg_status on_files(const struct hg_model_options *o, bool write, bool contents,
                               struct hg_model_lock_report *out, struct hg_error *err)
{
    struct hg_model_options plain = *o;
    struct hg_model_files *f = calloc(1, sizeof *f);
    struct hg_model *m = calloc(1, sizeof *m);
    enum hg_status status = HG_STATUS_OK;
    int64_t begin = hg_now_ns();
    *out = (struct hg_model_lock_report){0};
    plain.lock = "off";
    if (!f || !m) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "model.lock: out of memory");
        goto out;
    }
    HG_TRY_OUT(hg_model_files_open(m, &plain, f, err));
    HG_TRY_OUT(lock_path(m, out->path, err));
    out->exists = hg_file_exists(out->path);
    if (write)
        status = write_lock(m, f, out, err);
    else if (out->exists)
        status = verify(m, f, contents, err);
    out->seconds = (double)(hg_now_ns() - begin) / 1e9;
out:
    if (f)
        hg_model_files_close(f);
    hg_model_free(m);
    free(f);
    return status;
}

enum hg_status hg_model_lock_write(const struct hg_model_options *o,
                                   struct hg_model_lock_report *out, struct hg_error *err)
{
    return on_files(o, true, false, out, err);
}

enum hg_status hg_model_lock_verify(const struct hg_model_options *o, bool contents,
                                    struct hg_model_lock_report *out, struct hg_error *err)
{
    return on_files(o, false, contents, out, err);
}
