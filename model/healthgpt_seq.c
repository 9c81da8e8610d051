/* model/healthgpt_seq.c - sequences: blocks, image features, what is known of one. Steps are in
 * healthgpt_step.c. */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "model/prefix.h"

/* ---- pictures -------------------------------------------------------------------------------- */

void hg_seq_release_features(struct hg_seq *s)
{
    for (int i = 0; i < s->p->n_images; i++) {
        if (s->image_slot[i] >= 0)
            hg_feature_cache_release(&s->m->features.cache, s->image_slot[i]);
        s->image_slot[i] = -1;
    }
}

/* Of the pictures whose rows are not all in the KV cache. A probe computes everything itself, and a
 * model that forgets lets no request tell from its own time what another one is about. */
static enum hg_status acquire_features(struct hg_seq *s, struct hg_error *err)
{
    struct hg_feature_cache *c = &s->m->features.cache;
    for (int i = 0; i < s->p->n_images; i++) {
        if (s->p->image_end[i] <= s->n_cached)
            continue;
        s->image_slot[i] =
            hg_feature_cache_acquire(c, s->p->picture[i], s->p->probe || s->m->forget);
        if (s->image_slot[i] < 0) {
            hg_seq_release_features(s);
            return hg_fail(err, HG_STATUS_BUSY, "image slots: %d needed, %d of %d free",
                           s->p->n_images, c->n_slots - hg_feature_cache_n_owned(c), c->n_slots);
        }
    }
    return HG_STATUS_OK;
}

/* Its rows are in its slot, by this or another sequence, or not needed (any more). */
static bool is_encoded(const struct hg_seq *s, int i)
{
    return s->image_slot[i] < 0 ||
           hg_feature_cache_is_complete(&s->m->features.cache, s->image_slot[i]);
}

/* The first picture to encode, or n_images. */
static int next_image(const struct hg_seq *s)
{
    int i = 0;
    while (i < s->p->n_images && is_encoded(s, i))
        i++;
    return i;
}

bool hg_seq_wants_vision(const struct hg_seq *s)
{
    return next_image(s) < s->p->n_images;
}

const struct hg_seq *hg_model_encoding(const struct hg_model *m)
{
    return m->features.encoding;
}

static void drop_encoding(struct hg_seq *s)
{
    if (s->m->features.encoding == s)
        s->m->features.encoding = NULL;
    s->vision_unit = 0;
}

static enum hg_status project(struct hg_seq *s, int image, struct hg_error *err)
{
    struct hg_model *m = s->m;
    int64_t first = (int64_t)s->image_slot[image] * m->n_image_rows * m->llm_config.dim;
    void *y = hg_act_at(m->backend, m->features.rows, first);
    enum hg_status status =
        hg_projector_run(s->task->projector, m->features.hidden, m->n_image_rows, y);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "projector: %s", hg_status_text(status));
    hg_feature_cache_complete(&m->features.cache, s->image_slot[image]);
    return HG_STATUS_OK;
}

/* The units of the tower, then the projector. */
enum hg_status hg_seq_encode_piece(struct hg_seq *s, int64_t *work, struct hg_error *err)
{
    struct hg_model *m = s->m;
    int image = next_image(s), side = m->vision_config.image_side, layer = s->task->vision_layer;
    if (image == s->p->n_images)
        return hg_fail(err, HG_STATUS_INTERNAL, "no image left to encode");
    if (m->features.encoding && m->features.encoding != s)
        return hg_fail(err, HG_STATUS_INTERNAL, "the image of another sequence is begun");
    const float *pixels = s->p->pixels->at + (size_t)image * 3 * (size_t)side * (size_t)side;
    int n_units = hg_vision_n_units(m->vision, layer);
    enum hg_status status = HG_STATUS_OK;
    m->features.encoding = s;
    for (bool first = true; status == HG_STATUS_OK && !is_encoded(s, image); first = false) {
        bool tower = s->vision_unit < n_units;
        int64_t cost = tower ? hg_vision_unit_work(m->vision, layer, s->vision_unit)
                             : hg_projector_work(s->task->projector, m->n_image_rows);
        if (!first && cost > *work)
            return HG_STATUS_OK;
        status = tower ? hg_vision_run_unit(m->vision, pixels, layer, s->vision_unit,
                                            m->features.hidden, err)
                       : project(s, image, err);
        *work -= cost;
        s->vision_unit++;
    }
    drop_encoding(s); /* complete, or failed */
    return status;
}

enum hg_status hg_seq_encode_image(struct hg_seq *s, struct hg_error *err)
{
    int64_t work = INT64_MAX;
    return hg_seq_encode_piece(s, &work, err);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static enum hg_status grow(struct hg_seq *s, int n_blocks, struct hg_error *err)
{
    if (n_blocks <= s->n_blocks)
        return HG_STATUS_OK;
    int n = n_blocks - s->n_blocks;
    int32_t *blocks = s->blocks + s->n_blocks;
    HG_TRY(s->p->probe ? hg_kv_cache_acquire_probe(&s->m->kv, n, blocks, err)
                       : hg_kv_cache_acquire(&s->m->kv, n, blocks, err));
    s->n_blocks = n_blocks;
    return HG_STATUS_OK;
}

enum hg_status hg_seq_reserve(struct hg_seq *s, int n_tokens, struct hg_error *err)
{
    return grow(s, hg_kv_cache_blocks_for(s->n_cached + n_tokens), err);
}

static void give_back(struct hg_seq *s)
{
    drop_encoding(s);
    hg_seq_release_features(s);
    hg_kv_cache_release(&s->m->kv, s->blocks, s->n_blocks);
    s->n_blocks = s->n_cached = s->n_published = 0;
}

void hg_seq_distrust(struct hg_seq *s)
{
    hg_kv_cache_suspect(&s->m->kv, s->blocks, s->n_blocks);
    for (int i = 0; i < s->p->n_images; i++)
        hg_feature_cache_drop(&s->m->features.cache, s->p->picture[i]);
}

void hg_seq_trust(struct hg_seq *s)
{
    hg_kv_cache_trust(&s->m->kv, s->blocks, s->n_blocks);
}

/* What was computed before is found; room for all that is known. */
static enum hg_status start(struct hg_seq *s, struct hg_error *err)
{
    hg_prefix_take(s);
    enum hg_status status =
        grow(s, hg_kv_cache_blocks_for(s->p->n_prompt + (int)s->n_generated), err);
    if (status == HG_STATUS_OK)
        status = acquire_features(s, err);
    if (status != HG_STATUS_OK)
        give_back(s);
    return status;
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
    for (int i = 0; i < HG_MAX_IMAGES; i++)
        s->image_slot[i] = -1;
    s->blocks = calloc((size_t)n_blocks, sizeof *s->blocks);
    s->generated = calloc((size_t)p->max_tokens, sizeof *s->generated);
    if (!s->blocks || !s->generated) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "sequence of %d blocks", n_blocks);
        goto out;
    }
    HG_TRY_OUT(start(s, err));
    *out = s;
    return HG_STATUS_OK;
out:
    free(s->blocks);
    free(s->generated);
    free(s); /* p stays the caller's */
    return status;
}

void hg_seq_free(struct hg_seq *s)
{
    if (!s)
        return;
    hg_flights_forget(s->m, s);
    give_back(s);
    hg_prepared_free(s->p);
    free(s->blocks);
    free(s->generated);
    free(s);
}

enum hg_status hg_seq_preempt(struct hg_seq *s, struct hg_error *err)
{
    if (hg_flights_hold(s->m, s))
        return hg_fail(err, HG_STATUS_INTERNAL, "preemption of a sequence in flight");
    give_back(s);
    s->preempted = true;
    return HG_STATUS_OK;
}

enum hg_status hg_seq_resume(struct hg_seq *s, struct hg_error *err)
{
    if (!s->preempted)
        return HG_STATUS_OK;
    HG_TRY(start(s, err));
    s->preempted = false;
    return HG_STATUS_OK;
}

bool hg_seq_preempted(const struct hg_seq *s)
{
    return s->preempted;
}

/* ---- what is known --------------------------------------------------------------------------- */

int hg_seq_n_known(const struct hg_seq *s)
{
    return s->p->n_prompt + (int)s->n_generated + s->n_ahead;
}

int hg_seq_n_waiting(const struct hg_seq *s)
{
    if (s->n_cached < s->p->n_prompt)
        return s->p->n_prompt - s->n_cached;
    int left = hg_seq_n_known(s) - s->n_cached;
    return left > 1 ? left : 0;
}

int hg_seq_n_prefilled(const struct hg_seq *s)
{
    return s->n_cached < s->p->n_prompt ? s->n_cached : s->p->n_prompt;
}

int hg_seq_n_found(const struct hg_seq *s)
{
    return s->n_found;
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

enum hg_status hg_seq_force(struct hg_seq *s, int32_t id, struct hg_error *err)
{
    if (s->n_generated == 0 || s->n_ahead > 0 || hg_seq_n_waiting(s) > 0)
        return hg_fail(err, HG_STATUS_INTERNAL, "force: %zu tokens are known, %d in flight",
                       s->n_generated, s->n_ahead);
    if (id < 0 || id >= s->task->n_rows)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "force: expected an id in 0..%d, got %d",
                       s->task->n_rows - 1, id);
    s->generated[s->n_generated - 1] = id;
    return HG_STATUS_OK;
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
