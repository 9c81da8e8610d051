/* model/prefix.c - see prefix.h. */
#include "model/prefix.h"

#include <string.h>

struct hg_hash128 hg_picture_key(const struct hg_model *m, const struct hg_prepared *p,
                                 const float *pixels)
{
    size_t side = (size_t)m->vision_config.image_side;
    uint64_t head[2] = {p->tenant, (uint64_t)p->task};
    struct hg_siphash h;
    hg_siphash_init(&h, m->hash_key);
    hg_siphash_update(&h, head, sizeof head);
    hg_siphash_update(&h, pixels, 3 * side * side * sizeof *pixels);
    return hg_siphash_final(&h);
}

static struct hg_hash128 root_of(const struct hg_seq *s)
{
    uint64_t head[4] = {s->p->tenant, (uint64_t)s->p->task, s->p->no_plugin,
                        (uint64_t)(s->task->slot + 1)};
    struct hg_siphash h;
    hg_siphash_init(&h, s->m->hash_key);
    hg_siphash_update(&h, head, sizeof head);
    return hg_siphash_final(&h);
}

/* An id, or the row of a picture: no id has the highest bit. */
static uint64_t word_at(const struct hg_seq *s, int position)
{
    int32_t token = s->p->tokens[position];
    if (token >= 0)
        return (uint64_t)token;
    int rows = s->m->n_image_rows, image = (-1 - token) / rows, row = (-1 - token) % rows;
    struct hg_hash128 key = s->p->picture[image];
    return (key.lo ^ (key.hi + (uint64_t)row) * 0x9e3779b97f4a7c15u) | (uint64_t)1 << 63;
}

/* What block i of the prompt holds, and its key. */
static struct hg_hash128 describe(const struct hg_seq *s, int i, struct hg_kv_text *text)
{
    struct hg_siphash h;
    text->before = i == 0 ? root_of(s) : s->last_key;
    for (int k = 0; k < HG_BLOCK_TOKENS; k++)
        text->word[k] = word_at(s, i * HG_BLOCK_TOKENS + k);
    hg_siphash_init(&h, s->m->hash_key);
    hg_siphash_update(&h, text, sizeof *text);
    return hg_siphash_final(&h);
}

void hg_prefix_take(struct hg_seq *s)
{
    s->n_published = 0;
    while (!s->p->probe && (s->n_published + 1) * HG_BLOCK_TOKENS < s->p->n_prompt) {
        struct hg_kv_text text;
        struct hg_hash128 key = describe(s, s->n_published, &text);
        int32_t block = hg_kv_cache_find(&s->m->kv, key, &text);
        if (block < 0)
            break;
        s->blocks[s->n_published++] = block;
        s->last_key = key;
    }
    s->n_blocks = s->n_published;
    s->n_cached = s->n_found = s->n_published * HG_BLOCK_TOKENS;
}

void hg_prefix_publish(struct hg_seq *s)
{
    int end = s->n_cached < s->p->n_prompt ? s->n_cached : s->p->n_prompt;
    if (s->m->forget || s->p->probe)
        return;
    while ((s->n_published + 1) * HG_BLOCK_TOKENS <= end) {
        struct hg_kv_text text;
        struct hg_hash128 key = describe(s, s->n_published, &text);
        hg_kv_cache_publish(&s->m->kv, s->blocks[s->n_published], key, &text);
        s->n_published++;
        s->last_key = key;
    }
}
