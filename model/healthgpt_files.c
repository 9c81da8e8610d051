/* model/healthgpt_files.c - the files of a model folder: card, configs, weights, tokenizer, and
 * whether they belong together. */
#include <string.h>

#include "common/file.h"
#include "common/log.h"
#include "model/internal.h"
#include "model/load/odd_file.h"
#include "model/model_path.h"

enum { PATH_CAP = HG_PLACE_CAP + 256 };

/* ---- where they are -------------------------------------------------------------------------- */

static enum hg_status find_pieces(struct hg_model *m, struct hg_model_files *f,
                                  struct hg_error *err)
{
    for (int i = 0; i < HG_PART_COUNT; i++) {
        if (!hg_model_piece_name(&m->card, i)[0])
            continue;
        HG_TRY(hg_model_find(&m->place, &m->card, i, f->paths[i], err));
        hg_log(HG_LOG_DEBUG, "%s: %s", hg_model_piece_role(i), f->paths[i]);
    }
    return HG_STATUS_OK;
}

/* ---- weights -------------------------------------------------------------------------------- */

static enum hg_status open_file(const struct hg_model_files *f, int piece, struct hg_weights **out,
                                struct hg_error *err)
{
    if (!f->paths[piece][0])
        return HG_STATUS_OK;
    if (!*out)
        HG_TRY(hg_weights_create(out, err));
    return hg_weights_add_file(*out, f->paths[piece], err);
}

static enum hg_status open_dir(const struct hg_model_files *f, int piece, struct hg_weights **out,
                               struct hg_error *err)
{
    if (!f->paths[piece][0])
        return HG_STATUS_OK;
    HG_TRY(hg_weights_create(out, err));
    return hg_weights_add_dir(*out, f->paths[piece], err);
}

static enum hg_status open_weights(struct hg_model_files *f, struct hg_error *err)
{
    HG_TRY(open_dir(f, HG_PART_LLM, &f->base, err));
    HG_TRY(open_dir(f, HG_PART_VISION, &f->vision, err));
    HG_TRY(open_file(f, HG_PART_VQGAN, &f->vqgan, err));
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        HG_TRY(open_file(f, HG_PART_HLORA + t, &f->task[t], err));
        HG_TRY(open_file(f, HG_PART_FUSION + t, &f->task[t], err));
    }
    return HG_STATUS_OK;
}

enum { N_SETS = 3 + HG_TASK_COUNT };

/* The sum of all files goes through them in this order. */
static void list_sets(const struct hg_model_files *f, struct hg_weights *all[N_SETS])
{
    struct hg_weights *sets[N_SETS] = {f->base, f->vision, f->vqgan, f->task[0], f->task[1]};
    memcpy(all, sets, sizeof sets);
}

void hg_model_files_set_meter(struct hg_model_files *f, struct hg_load_meter *m)
{
    struct hg_weights *all[N_SETS];
    uint64_t total = 0;
    list_sets(f, all);
    for (int i = 0; i < N_SETS; i++)
        total += all[i] ? hg_weights_bytes(all[i]) : 0;
    hg_load_meter_start(m, total);
    for (int i = 0; i < N_SETS; i++)
        if (all[i])
            hg_weights_set_meter(all[i], m);
}

uint32_t hg_model_files_crc32c(const struct hg_model_files *f)
{
    struct hg_weights *all[N_SETS];
    uint32_t crc = 0;
    list_sets(f, all);
    for (int i = 0; i < N_SETS; i++)
        crc = all[i] ? hg_weights_crc32c(all[i], crc) : crc;
    return crc;
}

enum hg_status hg_model_files_check_surplus(const struct hg_model_files *f, bool tell,
                                            struct hg_error *err)
{
    struct hg_weights *own[] = {f->base, f->vision, f->vqgan};
    for (int i = 0; i < 3; i++)
        if (own[i])
            HG_TRY(hg_weights_check_all_used(own[i], err));
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (f->task[t])
            HG_TRY(hg_weights_warn_unused(f->task[t], tell, err));
    return HG_STATUS_OK;
}

void hg_model_files_close(struct hg_model_files *f)
{
    hg_weights_free(f->base);
    hg_weights_free(f->vision);
    hg_weights_free(f->vqgan);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        hg_weights_free(f->task[t]);
}

/* ---- configs -------------------------------------------------------------------------------- */

/* A clone without git-lfs has pointers where the tokenizer is, and a web page may be anywhere. */
static enum hg_status check_small_files(const char *dir, struct hg_error *err)
{
    static const char *const names[] = {"config.json",    "tokenizer_config.json",
                                        "tokenizer.json", "tokenizer.model",
                                        "vocab.json",     "preprocessor_config.json"};
    char path[PATH_CAP];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (hg_path_join(path, sizeof path, dir, names[i]) == HG_STATUS_OK)
            HG_TRY(hg_odd_file_check(path, err));
    return HG_STATUS_OK;
}

static enum hg_status read_configs(struct hg_model *m, const struct hg_model_files *f,
                                   struct hg_error *err)
{
    const char *dir = f->paths[HG_PART_LLM];
    HG_TRY(check_small_files(dir, err));
    HG_TRY(hg_llm_config_read(dir, &m->llm_config, err));
    if (m->card.has_vision) {
        dir = f->paths[HG_PART_VISION];
        HG_TRY(check_small_files(dir, err));
        HG_TRY(hg_vision_config_read(dir, &m->vision_config, err));
        HG_TRY(hg_preprocess_config_read(dir, &m->preprocess, err));
        if (m->preprocess.side != m->vision_config.image_side)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s/preprocessor_config.json: size: expected %d (config.json), got %d",
                           dir, m->vision_config.image_side, m->preprocess.side);
        int grid = m->vision_config.image_side / m->vision_config.patch;
        m->n_image_rows = grid * grid;
    }
    return HG_STATUS_OK;
}

/* ---- tokenizer and image tokens ------------------------------------------------------------- */

/* Rows of the task's own embedding table; 0: it runs on the base table. */
static int64_t own_rows(const struct hg_model_files *f, enum hg_task t)
{
    const struct hg_tensor *x =
        f->task[t] ? hg_weights_find(f->task[t], "model.embed_tokens.weight") : NULL;
    return x && x->n_dims == 2 ? x->dims[0] : 0;
}

/* Index tokens: as many as the codebook has entries; the card may say so where there is none. */
static enum hg_status count_codes(struct hg_model *m, const struct hg_model_files *f,
                                  struct hg_error *err)
{
    static const char *const names[] = {"quantize.embed.weight", "quantize.embedding.weight"};
    const struct hg_tensor *t = NULL;
    m->n_index = 0;
    if (!m->card.tasks[HG_TASK_GENERATION].present)
        return HG_STATUS_OK;
    for (int i = 0; f->vqgan && !t && i < 2; i++)
        t = hg_weights_find(f->vqgan, names[i]);
    m->n_index = m->card.n_image_tokens;
    if (!t || t->n_dims != 2 || t->dims[0] >= 1 << 20)
        return HG_STATUS_OK;
    if (m->n_index != 0 && m->n_index != t->dims[0])
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "healthgpt.json: n_image_tokens: expected the %lld codes of the VQGAN, got "
                       "%d",
                       (long long)t->dims[0], m->n_index);
    m->n_index = (int)t->dims[0];
    return HG_STATUS_OK;
}

static bool has_tokenizer_files(const char *dir)
{
    static const char *const names[] = {"tokenizer_config.json", "tokenizer.json",
                                        "tokenizer.model"};
    char path[PATH_CAP];
    for (int i = 0; i < 3; i++)
        if (hg_path_join(path, sizeof path, dir, names[i]) == HG_STATUS_OK && hg_file_exists(path))
            return true;
    return false;
}

/* A task's own table has a row for every token, no more and no less. */
static enum hg_status check_own_rows(const struct hg_model *m, const struct hg_model_files *f,
                                     struct hg_error *err)
{
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        int64_t rows = own_rows(f, (enum hg_task)t);
        if (rows != 0 && m->n_index > 0 && rows != hg_tokenizer_size(m->tokenizer))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "tensor model.embed_tokens.weight of the %s plug-in: expected %d rows "
                           "(tokenizer + %d image tokens), got %lld",
                           hg_task_name((enum hg_task)t), hg_tokenizer_size(m->tokenizer),
                           m->n_index, (long long)rows);
    }
    return HG_STATUS_OK;
}

static enum hg_status add_image_tokens(struct hg_model *m, const struct hg_model_files *f,
                                       struct hg_error *err)
{
    int32_t start = -1;
    HG_TRY(hg_tokenizer_add_image_tokens(m->tokenizer, m->n_index, &start, err));
    m->n_text = start;
    m->first_index_id = start + 1;
    return check_own_rows(m, f, err);
}

static enum hg_status load_tokenizer(struct hg_model *m, const struct hg_model_files *f,
                                     struct hg_error *err)
{
    const char *dir = f->paths[HG_PART_LLM];
    int64_t rows = own_rows(f, HG_TASK_GENERATION), com_rows = own_rows(f, HG_TASK_COMPREHENSION);
    m->first_index_id = -1;
    m->n_text = m->llm_config.vocab;
    HG_TRY(count_codes(m, f, err));
    if (!has_tokenizer_files(dir)) { /* ids only; the last rows are the image tokens */
        if (m->n_index > 0 && rows > m->n_index + 3 && rows < 1 << 24) {
            m->n_text = (int)rows - m->n_index - 3;
            m->first_index_id = m->n_text + 1;
        }
        return HG_STATUS_OK;
    }
    HG_TRY(hg_tokenizer_load(dir, &m->tokenizer, err));
    int size = hg_tokenizer_size(m->tokenizer);
    if (size > m->llm_config.vocab)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "config.json: vocab_size: expected at least the %d tokens of the tokenizer, "
                       "got %d",
                       size, m->llm_config.vocab);
    if (com_rows != 0) /* behind the tokenizer's ids its rows are image tokens, or nothing */
        m->n_text = size;
    if (m->n_index > 0)
        HG_TRY(add_image_tokens(m, f, err));
    return hg_prompt_controls_check(m->tokenizer, m->card.template_name, m->n_index > 0, err);
}

/* The folder or file, the card in it, and the system prompt that was asked for. */
static enum hg_status read_card(struct hg_model *m, const struct hg_model_options *o,
                                struct hg_error *err)
{
    char path[HG_PLACE_CAP];
    HG_TRY(hg_model_path_resolve(o->path, path, sizeof path, err));
    HG_TRY(hg_model_place(path, o->weights, &m->place, err));
    HG_TRY(hg_model_card_read(m->place.card, &m->card, err));
    HG_TRY(hg_prompt_template_check(m->card.template_name, err));
    if (!o->system || !o->system[0])
        return HG_STATUS_OK;
    if (strlen(o->system) >= sizeof m->card.system_text)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "system prompt: at most %zu bytes, got %zu",
                       sizeof m->card.system_text - 1, strlen(o->system));
    memcpy(m->card.system_text, o->system, strlen(o->system) + 1);
    m->card.system = m->card.system_text;
    return HG_STATUS_OK;
}

enum hg_status hg_model_files_open(struct hg_model *m, const struct hg_model_options *o,
                                   struct hg_model_files *f, struct hg_error *err)
{
    HG_TRY(read_card(m, o, err));
    hg_model_settle_tasks(&m->place, &m->card);
    HG_TRY(find_pieces(m, f, err));
    HG_TRY(read_configs(m, f, err));
    HG_TRY(open_weights(f, err));
    HG_TRY(hg_model_lock_apply(m, f, o, err));
    return load_tokenizer(m, f, err);
}
