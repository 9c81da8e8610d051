/* model/healthgpt_seq.c - sequences: blocks, image features, what is known of one. Steps are in
 * healthgpt_step.c. */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

void hg_seq_release_features(struct hg_seq *s)
{
    struct hg_feature_pool *f = &s->m->features;
    for (int i = 0; i < s->n_image_slots; i++)
        f->free_slots[f->n_free++] = s->image_slot[i];
    s->n_image_slots = 0;
}

static enum hg_status acquire_features(struct hg_seq *s, struct hg_error *err)
{
    struct hg_feature_pool *f = &s->m->features;
    if (s->p->n_images > f->n_free)
        return hg_fail(err, HG_STATUS_BUSY, "image slots: %d needed, %d of %d free", s->p->n_images,
                       f->n_free, f->n_slots);
    for (int i = 0; i < s->p->n_images; i++)
        s->image_slot[i] = f->free_slots[--f->n_free];
    s->n_image_slots = s->p->n_images;
    return HG_STATUS_OK;
}

enum hg_status hg_seq_create(struct hg_model *m, struct hg_prepared *p, struct hg_seq **out,
                             struct hg_error *err)
{
    int n_blocks = hg_kv_cache_blocks_for(p->n_prompt + p->max_tokens);
    if (n_blocks > m->kv.n_blocks)
        return hg_fail(err, HG_STATUS_TOO_LARGE,
                       "prompt of %d + %d new tokens needs %d KV blocks, the cache has %d",
                       p->n_prompt, p->max_tokens, n_blocks, m->kv.n_blocks);
    struct hg_seq *s = calloc(1, sizeof *s);
    if (!s)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "sequence");
    enum hg_status status = HG_STATUS_OK;
    s->m = m;
    s->p = p;
    s->task = &m->tasks[p->task];
    s->blocks = calloc((size_t)n_blocks, sizeof *s->blocks);
    s->generated = calloc((size_t)p->max_tokens, sizeof *s->generated);
    if (!s->blocks || !s->generated) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "sequence of %d blocks", n_blocks);
        goto out;
    }
    HG_TRY_OUT(hg_kv_cache_acquire(&m->kv, n_blocks, s->blocks, err));
    s->n_blocks = n_blocks;
    HG_TRY_OUT(acquire_features(s, err));
    *out = s;
    return HG_STATUS_OK;
out:
    s->p = NULL; /* stays the caller's */
    hg_seq_free(s);
    return status;
}

void hg_seq_free(struct hg_seq *s)
{
    if (!s)
        return;
    hg_flights_forget(s->m, s);
    hg_seq_release_features(s);
    hg_kv_cache_release(&s->m->kv, s->blocks, s->n_blocks);
    hg_prepared_free(s->p);
    free(s->blocks);
    free(s->generated);
    free(s);
}

bool hg_seq_wants_vision(const struct hg_seq *s)
{
    return s->n_encoded < s->p->n_images;
}

enum hg_status hg_seq_encode_image(struct hg_seq *s, struct hg_error *err)
{
    struct hg_model *m = s->m;
    if (!hg_seq_wants_vision(s))
        return hg_fail(err, HG_STATUS_INTERNAL, "no image left to encode");
    int side = m->vision_config.image_side, rows = m->n_image_rows;
    size_t n_pixels = (size_t)3 * (size_t)side * (size_t)side;
    const float *pixels = s->p->pixels + (size_t)s->n_encoded * n_pixels;
    HG_TRY(hg_vision_encode(m->vision, pixels, s->task->vision_layer, m->features.hidden, err));
    int64_t first = (int64_t)s->image_slot[s->n_encoded] * rows * m->llm_config.dim;
    void *y = hg_act_at(m->backend, m->features.rows, first);
    if (hg_projector_run(s->task->projector, m->features.hidden, rows, y) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_DEVICE, "projector failed");
    s->n_encoded++;
    return HG_STATUS_OK;
}

int hg_seq_n_waiting(const struct hg_seq *s)
{
    return s->n_cached < s->p->n_prompt ? s->p->n_prompt - s->n_cached : 0;
}

int hg_seq_n_left(const struct hg_seq *s)
{
    if (s->finish != HG_FINISH_NONE)
        return 0;
    return s->p->max_tokens - (int)s->n_generated - s->n_ahead;
}

bool hg_seq_runs_ahead(const struct hg_seq *s)
{
    const struct hg_sampling *sampling = &s->p->sampling;
    float penalty = sampling->repetition_penalty != 0.0f ? sampling->repetition_penalty
                                                         : s->m->llm_config.repetition_penalty;
    return penalty == 1.0f && (sampling->ignore_stop || hg_seq_is_image(s));
}

bool hg_seq_is_image(const struct hg_seq *s)
{
    return s->p->task == HG_TASK_GENERATION && !s->p->sampling.unconstrained_image;
}

size_t hg_seq_n_generated(const struct hg_seq *s)
{
    return s->n_generated;
}

const int32_t *hg_seq_generated(const struct hg_seq *s)
{
    return s->generated;
}

enum hg_task hg_seq_task(const struct hg_seq *s)
{
    return s->p->task;
}
