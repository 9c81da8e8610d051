/* model/healthgpt_prepare.c - a request -> token ids and pixels; runs on any thread, only reads the
 * model. Everything that outside input can get wrong is refused here, with numbers. */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "model/prefix.h"
#include "model/sampler.h"

static bool blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n\v\f", s[i]))
            return false;
    return true;
}

static enum hg_status check_request(const struct hg_model *m, const struct hg_request_input *in,
                                    struct hg_error *err)
{
    if ((unsigned)in->task >= HG_TASK_COUNT)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "unknown task %d", (int)in->task);
    const struct hg_task_profile *t = &m->tasks[in->task];
    if (!t->present)
        return hg_model_fail_task(&m->card, (int)in->task, err);
    if (in->n_images > HG_MAX_IMAGES)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: at most %d, got %zu", HG_MAX_IMAGES,
                       in->n_images);
    if (in->n_images > 0 && (!m->vision || !t->projector))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s takes no images for %s", m->card.name,
                       hg_task_name(in->task));
    if (in->task == HG_TASK_GENERATION && !in->sampling.unconstrained_image &&
        (!m->vqgan || m->first_index_id < 0))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s has no image tokens to draw with",
                       m->card.name);
    return hg_sampling_check(&in->sampling, err);
}

static enum hg_status check_turns(const struct hg_request_input *in, struct hg_error *err)
{
    size_t n_images = 0;
    if (in->n_turns == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "question: missing");
    for (size_t i = 0; i < in->n_turns; i++) {
        if (in->turns[i].n_images < 0)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: negative count");
        n_images += (size_t)in->turns[i].n_images;
    }
    const struct hg_turn *last = &in->turns[in->n_turns - 1];
    if (blank(last->question, last->n_question))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "question: empty");
    if (n_images != in->n_images)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: the turns name %zu, got %zu", n_images,
                       in->n_images);
    return HG_STATUS_OK;
}

/* Image places become n_image_rows feature rows each. */
static enum hg_status expand(const struct hg_model *m, const struct hg_task_profile *t,
                             const int32_t *ids, size_t n_ids, struct hg_prepared *p,
                             struct hg_error *err)
{
    size_t n_images = 0;
    for (size_t i = 0; i < n_ids; i++)
        n_images += ids[i] == HG_IMAGE_ID;
    size_t total = n_ids + n_images * (size_t)(m->n_image_rows - 1);
    if (n_images != (size_t)p->n_images)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: the prompt names %zu, got %d", n_images,
                       p->n_images);
    if (n_ids == 0 || total >= (size_t)m->llm_config.max_positions)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "prompt: %zu tokens, the context holds %d", total,
                       m->llm_config.max_positions);
    p->tokens = malloc(total * sizeof *p->tokens);
    if (!p->tokens)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "prompt of %zu tokens", total);
    int32_t feature = 0;
    int image = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] == HG_IMAGE_ID) {
            for (int r = 0; r < m->n_image_rows; r++)
                p->tokens[p->n_prompt++] = -1 - feature++;
            p->image_end[image++] = p->n_prompt;
        } else if (ids[i] >= 0 && ids[i] < t->n_rows) {
            p->tokens[p->n_prompt++] = ids[i];
        } else {
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "token %d: expected 0..%d", ids[i],
                           t->n_rows - 1);
        }
    }
    return HG_STATUS_OK;
}

static enum hg_status set_length(const struct hg_model *m, const struct hg_task_profile *t,
                                 struct hg_prepared *p, struct hg_error *err)
{
    int room = m->llm_config.max_positions - p->n_prompt;
    int asked = p->sampling.max_tokens;
    if (p->task == HG_TASK_GENERATION && !p->sampling.unconstrained_image) {
        int need = m->vqgan_info.grid * m->vqgan_info.grid;
        if (asked != 0 && asked != need)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "max_tokens: an image is %d tokens, got %d",
                           need, asked);
        asked = need;
    } else if (asked == 0) {
        asked = t->max_new_tokens < room ? t->max_new_tokens : room;
    }
    if (asked > room)
        return hg_fail(err, HG_STATUS_TOO_LARGE,
                       "prompt of %d tokens + %d new ones: the context holds %d", p->n_prompt,
                       asked, m->llm_config.max_positions);
    p->max_tokens = asked;
    return HG_STATUS_OK;
}

static enum hg_status prepare_pixels(const struct hg_model *m, const struct hg_request_input *in,
                                     struct hg_prepared *p, struct hg_error *err)
{
    if (in->n_images == 0)
        return HG_STATUS_OK;
    size_t side = (size_t)m->vision_config.image_side, n = 3 * side * side;
    p->pixels = malloc(sizeof *p->pixels + in->n_images * n * sizeof(float));
    if (!p->pixels)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "pixels of %zu images", in->n_images);
    atomic_init(&p->pixels->n_refs, 1);
    for (size_t i = 0; i < in->n_images; i++) {
        float *pixels = p->pixels->at + i * n;
        HG_TRY(hg_preprocess(&m->preprocess, &in->images[i], pixels, err));
        hg_preprocess_transform(&m->preprocess, &in->images[i], &p->transform[i]);
        p->picture[i] = hg_picture_key(m, p, pixels);
    }
    return HG_STATUS_OK;
}

enum hg_status hg_model_prepare_ids(const struct hg_model *m, const struct hg_request_input *in,
                                    const int32_t *ids, size_t n_ids, struct hg_prepared **out,
                                    struct hg_error *err)
{
    HG_TRY(check_request(m, in, err));
    const struct hg_task_profile *t = &m->tasks[in->task];
    struct hg_prepared *p = calloc(1, sizeof *p);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "request");
    enum hg_status status = HG_STATUS_OK;
    p->task = in->task;
    p->no_plugin = in->no_plugin;
    p->probe = in->probe;
    p->tenant = in->tenant;
    p->sampling = in->sampling;
    p->n_images = (int)in->n_images;
    HG_TRY_OUT(expand(m, t, ids, n_ids, p, err));
    HG_TRY_OUT(set_length(m, t, p, err));
    HG_TRY_OUT(prepare_pixels(m, in, p, err));
    *out = p;
    return HG_STATUS_OK;
out:
    hg_prepared_free(p);
    return status;
}

enum hg_status hg_model_prepare(const struct hg_model *m, const struct hg_request_input *in,
                                struct hg_prepared **out, struct hg_error *err)
{
    HG_TRY(check_request(m, in, err));
    HG_TRY(check_turns(in, err));
    if (!m->tokenizer)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s has no tokenizer files", m->card.name);
    struct hg_prompt_spec spec = {.template_name = m->card.template_name,
                                  .system = in->system ? in->system : m->card.system,
                                  .turns = in->turns,
                                  .n_turns = in->n_turns,
                                  .start_image = m->tasks[in->task].start_image};
    struct hg_ids ids = {0};
    enum hg_status status = hg_prompt_encode(m->tokenizer, &spec, &ids, err);
    if (status == HG_STATUS_OK)
        status = hg_model_prepare_ids(m, in, ids.data, ids.n, out, err);
    hg_ids_deinit(&ids);
    return status;
}

enum hg_status hg_prepared_again(const struct hg_prepared *p, uint64_t seed,
                                 struct hg_prepared **out, struct hg_error *err)
{
    size_t n = (size_t)p->n_prompt * sizeof *p->tokens;
    struct hg_prepared *q = malloc(sizeof *q);
    int32_t *tokens = malloc(n);
    if (!q || !tokens) {
        free(q);
        free(tokens);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "prompt of %d tokens", p->n_prompt);
    }
    *q = *p;
    q->tokens = memcpy(tokens, p->tokens, n);
    q->sampling.seed = seed;
    if (q->pixels)
        atomic_fetch_add(&q->pixels->n_refs, 1);
    *out = q;
    return HG_STATUS_OK;
}

void hg_prepared_free(struct hg_prepared *p)
{
    if (!p)
        return;
    free(p->tokens);
    if (p->pixels && atomic_fetch_sub(&p->pixels->n_refs, 1) == 1)
        free(p->pixels);
    free(p);
}

int hg_prepared_n_prompt(const struct hg_prepared *p)
{
    return p->n_prompt;
}

int hg_prepared_n_images(const struct hg_prepared *p)
{
    return p->n_images;
}

const struct hg_image_transform *hg_prepared_transform(const struct hg_prepared *p, int image)
{
    return &p->transform[image];
}

int hg_prepared_max_tokens(const struct hg_prepared *p)
{
    return p->max_tokens;
}
