#include "model/text/vocab.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void hg_vocab_deinit(struct hg_vocab *v)
{
    hg_buf_deinit(&v->text);
    free(v->pieces);
    free(v->slots);
    *v = (struct hg_vocab){0};
}

/* Order-preserving float -> integer, turned around: a higher score is a lower cost. */
static uint32_t cost_of_score(float score)
{
    float plus_zero = score + 0.0f; /* -0 and +0 are one score */
    uint32_t bits;
    memcpy(&bits, &plus_zero, sizeof bits);
    return (bits & 0x80000000u) ? bits : ~(bits | 0x80000000u);
}

int32_t hg_vocab_find_hashed(const struct hg_vocab *v, uint32_t hash, const char *s, size_t n)
{
    if (v->n_slots == 0)
        return -1;
    size_t mask = v->n_slots - 1;
    for (size_t i = hash & mask; v->slots[i].id_plus_1; i = (i + 1) & mask) {
        if (v->slots[i].hash != hash)
            continue;
        int32_t id = (int32_t)(v->slots[i].id_plus_1 - 1);
        if (v->pieces[id].n == n && (n == 0 || memcmp(hg_vocab_string(v, id), s, n) == 0))
            return id;
    }
    return -1;
}

static uint32_t hash_of(const char *s, size_t n)
{
    uint32_t hash = HG_HASH_SEED;
    for (size_t i = 0; i < n; i++)
        hash = hg_hash_step(hash, (unsigned char)s[i]);
    return hash;
}

int32_t hg_vocab_find(const struct hg_vocab *v, const char *s, size_t n)
{
    return hg_vocab_find_hashed(v, hash_of(s, n), s, n);
}

static void place(struct hg_vocab_slot *slots, size_t n_slots, uint32_t hash, uint32_t id_plus_1)
{
    size_t i = hash & (n_slots - 1);
    while (slots[i].id_plus_1)
        i = (i + 1) & (n_slots - 1);
    slots[i] = (struct hg_vocab_slot){hash, id_plus_1};
}

static enum hg_status reserve_slot(struct hg_vocab *v)
{
    if ((v->n_keys + 1) * 2 <= v->n_slots)
        return HG_STATUS_OK;
    size_t n_slots = v->n_slots ? v->n_slots * 2 : 1024;
    struct hg_vocab_slot *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return HG_STATUS_NO_MEMORY;
    for (size_t i = 0; i < v->n_slots; i++)
        if (v->slots[i].id_plus_1)
            place(slots, n_slots, v->slots[i].hash, v->slots[i].id_plus_1);
    free(v->slots);
    v->slots = slots;
    v->n_slots = n_slots;
    return HG_STATUS_OK;
}

static enum hg_status reserve_id(struct hg_vocab *v, size_t id)
{
    if (id >= v->cap) {
        size_t cap = v->cap ? v->cap : 1024;
        while (cap <= id)
            cap *= 2;
        struct hg_piece *pieces = realloc(v->pieces, cap * sizeof *pieces);
        if (!pieces)
            return HG_STATUS_NO_MEMORY;
        v->pieces = pieces;
        v->cap = cap;
    }
    for (; v->n <= id; v->n++)
        v->pieces[v->n] = (struct hg_piece){0};
    return HG_STATUS_OK;
}

static enum hg_status check_new(const struct hg_vocab *v, int64_t id, const char *s, size_t n,
                                float score, struct hg_error *err)
{
    int shown = n > 40 ? 40 : (int)n;
    if (id < 0 || id >= HG_VOCAB_MAX)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer: token '%.*s' has id %" PRId64 ", expected 0..%d", shown, s, id,
                       HG_VOCAB_MAX - 1);
    if (n == 0 || n > HG_PIECE_MAX_LEN)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer: token %" PRId64 " has %zu bytes, expected 1..%d", id, n,
                       HG_PIECE_MAX_LEN);
    if (isnan(score))
        return hg_fail(err, HG_STATUS_BAD_FILE, "tokenizer: token %" PRId64 " has a NaN score", id);
    if ((size_t)id < v->n && v->pieces[id].kind != HG_PIECE_ABSENT)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer: id %" PRId64 " is given to '%.*s' and to '%.40s'", id, shown, s,
                       hg_vocab_string(v, (int32_t)id));
    int32_t twin = hg_vocab_find(v, s, n);
    if (twin >= 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer: token '%.*s' has two ids, %" PRId32 " and %" PRId64, shown, s,
                       twin, id);
    return HG_STATUS_OK;
}

enum hg_status hg_vocab_put(struct hg_vocab *v, int64_t id, const char *s, size_t n,
                            enum hg_piece_kind kind, float score, struct hg_error *err)
{
    HG_TRY(check_new(v, id, s, n, score, err));
    size_t at = v->text.len;
    if (at > (UINT32_MAX >> 2)) /* 1 GiB of token strings */
        return hg_fail(err, HG_STATUS_TOO_LARGE, "tokenizer: token strings exceed 1 GiB");
    if (reserve_slot(v) || reserve_id(v, (size_t)id) || hg_buf_append(&v->text, s, n) ||
        hg_buf_append(&v->text, "", 1))
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tokenizer: no memory for token %" PRId64, id);
    v->pieces[id] = (struct hg_piece){
        .at = (uint32_t)at, .n = (uint32_t)n, .cost = cost_of_score(score), .kind = (uint8_t)kind};
    place(v->slots, v->n_slots, hash_of(s, n), (uint32_t)id + 1);
    v->n_keys++;
    if (n > v->max_len && kind != HG_PIECE_EXTRA)
        v->max_len = n;
    v->has_unused = v->has_unused || kind == HG_PIECE_UNUSED;
    return HG_STATUS_OK;
}
