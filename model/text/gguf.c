#include "model/text/gguf.h"

#include <inttypes.h>
#include <string.h>

#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "model/text/hf_json.h"
#include "model/text/sentencepiece.h"

enum gguf_type { TYPE_I32 = 5, TYPE_F32 = 6, TYPE_STRING = 8, TYPE_ARRAY = 9, N_TYPES = 13 };
enum { MAX_KEYS = 1 << 16, MAX_KEY_LEN = 1 << 16 };

enum key {
    KEY_ARCH,
    KEY_MODEL,
    KEY_PRE,
    KEY_TOKENS,
    KEY_SCORES,
    KEY_KINDS,
    KEY_MERGES,
    KEY_BOS,
    KEY_EOS,
    KEY_UNK,
    KEY_PAD,
    KEY_ADD_BOS,
    KEY_ADD_SPACE,
    N_KEYS
};
static const char *const key_names[N_KEYS] = {"general.architecture",
                                              "tokenizer.ggml.model",
                                              "tokenizer.ggml.pre",
                                              "tokenizer.ggml.tokens",
                                              "tokenizer.ggml.scores",
                                              "tokenizer.ggml.token_type",
                                              "tokenizer.ggml.merges",
                                              "tokenizer.ggml.bos_token_id",
                                              "tokenizer.ggml.eos_token_id",
                                              "tokenizer.ggml.unknown_token_id",
                                              "tokenizer.ggml.padding_token_id",
                                              "tokenizer.ggml.add_bos_token",
                                              "tokenizer.ggml.add_space_prefix"};

struct value {
    bool there, is_array;
    uint64_t type;  /* of the elements */
    uint64_t count; /* 1, or of the array */
    size_t at;      /* of the first element */
};

struct gguf {
    const char *where;
    const unsigned char *data;
    size_t n, at;
    struct value values[N_KEYS];
};

struct text {
    const char *s;
    size_t n;
};

/* ---- bytes ---- */

static size_t width(uint64_t type)
{
    static const unsigned char widths[N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < N_TYPES ? widths[type] : 0;
}

static bool number(struct gguf *g, size_t bytes, uint64_t *out)
{
    *out = 0;
    if (g->n - g->at < bytes)
        return false;
    for (size_t i = 0; i < bytes; i++)
        *out |= (uint64_t)g->data[g->at + i] << (8 * i);
    g->at += bytes;
    return true;
}

static bool string(struct gguf *g, struct text *out)
{
    uint64_t len;
    if (!number(g, 8, &len) || len > g->n - g->at)
        return false;
    *out = (struct text){(const char *)g->data + g->at, (size_t)len};
    g->at += (size_t)len;
    return true;
}

static enum hg_status broken(const struct gguf *g, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: broken or cut GGUF near byte %zu", g->where,
                   g->at);
}

/* Step over a value, noting where it is. */
static bool skip_value(struct gguf *g, struct value *v)
{
    *v = (struct value){.there = true, .count = 1};
    if (!number(g, 4, &v->type))
        return false;
    if (v->type == TYPE_ARRAY) {
        v->is_array = true;
        if (!number(g, 4, &v->type) || !number(g, 8, &v->count))
            return false;
    }
    v->at = g->at;
    size_t size = width(v->type);
    if (size) {
        if (v->count > (g->n - g->at) / size)
            return false;
        g->at += (size_t)v->count * size;
        return true;
    }
    struct text s;
    if (v->type != TYPE_STRING || v->count > (g->n - g->at) / 8)
        return false;
    for (uint64_t i = 0; i < v->count; i++)
        if (!string(g, &s))
            return false;
    return true;
}

static enum hg_status read_keys(struct gguf *g, struct hg_error *err)
{
    uint64_t version, n_tensors, n_keys;
    g->at = 4;
    if (!number(g, 4, &version) || !number(g, 8, &n_tensors) || !number(g, 8, &n_keys))
        return broken(g, err);
    if (version != 2 && version != 3)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%.80s: GGUF version %" PRIu64 ", expected 2 or 3", g->where, version);
    if (n_keys > MAX_KEYS)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: %" PRIu64 " metadata keys, at most %d",
                       g->where, n_keys, MAX_KEYS);
    for (uint64_t i = 0; i < n_keys; i++) {
        struct text name;
        struct value v;
        if (!string(g, &name) || name.n > MAX_KEY_LEN || !skip_value(g, &v))
            return broken(g, err);
        for (int k = 0; k < N_KEYS; k++)
            if (strlen(key_names[k]) == name.n && !memcmp(key_names[k], name.s, name.n))
                g->values[k] = v;
    }
    return HG_STATUS_OK;
}

/* ---- values by key ---- */

static bool has(const struct gguf *g, enum key k, uint64_t type, bool is_array)
{
    const struct value *v = &g->values[k];
    return v->there && v->type == type && v->is_array == is_array;
}

/* The file's spelling in `out`; "" when the key is absent. */
static void copy_string(struct gguf *g, enum key k, char out[64])
{
    struct text s = {"", 0};
    g->at = g->values[k].at;
    if (has(g, k, TYPE_STRING, false) && string(g, &s) && s.n < 64)
        memcpy(out, s.s, s.n);
    out[s.n < 64 ? s.n : 0] = '\0';
}

/* A whole number or flag; `missing` when the key is absent or of another kind. */
static int64_t scalar(struct gguf *g, enum key k, int64_t missing)
{
    const struct value *v = &g->values[k];
    uint64_t out;
    size_t size = width(v->type);
    if (!v->there || v->is_array || !size || v->type == TYPE_F32 || v->type == 12)
        return missing;
    g->at = v->at;
    return number(g, size, &out) && out <= INT32_MAX ? (int64_t)out : missing;
}

static enum hg_status want_array(const struct gguf *g, enum key k, uint64_t type, uint64_t count,
                                 struct hg_error *err)
{
    if (!has(g, k, type, true))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: no %s, or not of the expected type",
                       g->where, key_names[k]);
    if (count && g->values[k].count != count)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%.80s: %s has %" PRIu64 " elements, expected %" PRIu64, g->where,
                       key_names[k], g->values[k].count, count);
    return HG_STATUS_OK;
}

/* ---- the vocabulary ---- */

static enum hg_status put_tokens(struct gguf *g, struct hg_tokenizer *t, struct hg_error *err)
{
    uint64_t n = g->values[KEY_TOKENS].count;
    bool spm = t->family == HG_FAMILY_LLAMA, kinds = g->values[KEY_KINDS].there;
    int64_t unk = scalar(g, KEY_UNK, spm ? 0 : -1);
    struct gguf scores = *g, types = *g;
    scores.at = g->values[KEY_SCORES].at;
    types.at = g->values[KEY_KINDS].at;
    g->at = g->values[KEY_TOKENS].at;
    for (uint64_t id = 0; id < n; id++) {
        struct text s;
        uint64_t bits = 0, kind = HG_PIECE_NORMAL;
        if (!string(g, &s) || (spm && !number(&scores, 4, &bits)) ||
            (kinds && !number(&types, 4, &kind)))
            return broken(g, err);
        if (kind < HG_PIECE_NORMAL || kind > HG_PIECE_BYTE || !hg_utf8_valid(s.s, s.n))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%.80s: token %" PRIu64 ": type %" PRIu64 " or not UTF-8", g->where, id,
                           kind);
        if (spm && (int64_t)id == unk)
            kind = HG_PIECE_UNKNOWN;
        else if (kind == HG_PIECE_UNKNOWN || (!spm && kind == HG_PIECE_UNUSED))
            continue; /* "[PAD32011]": a row of the table that no token has */
        if (spm && kind == HG_PIECE_BYTE)
            t->byte_fallback = true;
        if (!spm && kind != HG_PIECE_NORMAL)
            kind = HG_PIECE_EXTRA;
        uint32_t bits32 = (uint32_t)bits;
        float score;
        memcpy(&score, &bits32, sizeof score);
        HG_TRY(
            hg_vocab_put(&t->vocab, (int64_t)id, s.s, s.n, (enum hg_piece_kind)kind, score, err));
    }
    return HG_STATUS_OK;
}

static enum hg_status put_merges(struct gguf *g, struct hg_tokenizer *t, struct hg_error *err)
{
    uint64_t n = g->values[KEY_MERGES].count;
    g->at = g->values[KEY_MERGES].at;
    for (uint64_t rank = 0; rank < n; rank++) {
        struct text s;
        if (!string(g, &s))
            return broken(g, err);
        HG_TRY(hg_hf_merge(g->where, (size_t)rank, s.s, s.n, t, err));
    }
    return HG_STATUS_OK;
}

/* Control tokens, and with them what the model's card calls bos, eos, unknown and padding. */
static enum hg_status put_added(struct gguf *g, bool rstrip, struct hg_tokenizer *t,
                                struct hg_error *err)
{
    bool spm = t->family == HG_FAMILY_LLAMA; /* which has ids that go without saying */
    int64_t named[] = {scalar(g, KEY_BOS, spm ? 1 : -1), scalar(g, KEY_EOS, spm ? 2 : -1),
                       scalar(g, KEY_UNK, spm ? 0 : -1), scalar(g, KEY_PAD, -1)};
    for (size_t id = 0; id < t->vocab.n; id++) {
        const struct hg_piece *p = &t->vocab.pieces[id];
        bool special = false, strips = rstrip;
        for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
            special = special || (int64_t)id == named[i];
            strips = strips && (i == 3 || (int64_t)id != named[i]);
        }
        bool added = special || p->kind == HG_PIECE_CONTROL || p->kind == HG_PIECE_EXTRA ||
                     (p->flags & HG_PIECE_ADDED);
        if (p->kind == HG_PIECE_ABSENT || !added)
            continue;
        unsigned flags = (special ? HG_PIECE_SPECIAL : 0u) | (strips ? HG_PIECE_RSTRIP : 0u);
        HG_TRY(hg_added_put(&t->vocab, &t->added, (int64_t)id,
                            hg_vocab_string(&t->vocab, (int32_t)id), p->n, flags, err));
    }
    for (int i = 0; i < 3; i++) {
        int32_t id = named[i] < (int64_t)t->vocab.n ? (int32_t)named[i] : -1;
        if (id >= 0 && t->vocab.pieces[id].kind == HG_PIECE_ABSENT)
            id = -1;
        *(i == 0 ? &t->bos : i == 1 ? &t->eos : &t->unk) = id;
    }
    t->add_bos = t->bos >= 0 && scalar(g, KEY_ADD_BOS, spm) == 1;
    return HG_STATUS_OK;
}

static enum hg_status find_pattern(struct gguf *g, enum hg_pattern wanted, struct hg_tokenizer *t,
                                   struct hg_error *err)
{
    static const struct {
        const char *name;
        enum hg_pattern pattern;
    } known[] = {{"gpt-2", HG_PATTERN_GPT2},       {"phi-2", HG_PATTERN_GPT2},
                 {"qwen2", HG_PATTERN_QWEN2},      {"dbrx", HG_PATTERN_CL100K},
                 {"llama-bpe", HG_PATTERN_CL100K}, {"smaug-bpe", HG_PATTERN_CL100K}};
    char pre[64];
    copy_string(g, KEY_PRE, pre);
    t->pattern = wanted;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (wanted == HG_PATTERN_COUNT && !strcmp(pre, known[i].name))
            t->pattern = known[i].pattern;
    if (t->pattern == HG_PATTERN_COUNT)
        return hg_fail(
            err, HG_STATUS_UNSUPPORTED,
            "%.80s: tokenizer.ggml.pre is '%s': its regular expression is not known here; "
            "name one: gpt2, qwen2 or cl100k",
            g->where, pre);
    t->family = t->pattern == HG_PATTERN_QWEN2 ? HG_FAMILY_QWEN2 : HG_FAMILY_GPT2;
    return HG_STATUS_OK;
}

static enum hg_status read_vocab(struct gguf *g, enum hg_pattern pattern, struct hg_tokenizer *t,
                                 struct hg_error *err)
{
    char model[64], arch[64];
    copy_string(g, KEY_MODEL, model);
    copy_string(g, KEY_ARCH, arch);
    bool spm = !strcmp(model, "llama");
    if (!spm && strcmp(model, "gpt2") != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%.80s: tokenizer.ggml.model is '%s', expected llama or gpt2", g->where,
                       model);
    HG_TRY(want_array(g, KEY_TOKENS, TYPE_STRING, 0, err));
    uint64_t n = g->values[KEY_TOKENS].count;
    if (g->values[KEY_KINDS].there)
        HG_TRY(want_array(g, KEY_KINDS, TYPE_I32, n, err));
    if (spm) {
        t->family = HG_FAMILY_LLAMA;
        HG_TRY(want_array(g, KEY_SCORES, TYPE_F32, n, err));
        HG_TRY(put_tokens(g, t, err));
        t->prefix_space = scalar(g, KEY_ADD_SPACE, 1) == 1;
        HG_TRY(hg_spm_finish(g->where, t, err));
        HG_TRY(put_added(g, !strcmp(arch, "phi3"), t, err));
        return hg_bytes_are_plain(g->where, t, err);
    }
    HG_TRY(find_pattern(g, pattern, t, err));
    HG_TRY(want_array(g, KEY_MERGES, TYPE_STRING, 0, err));
    HG_TRY(put_tokens(g, t, err));
    HG_TRY(put_merges(g, t, err));
    HG_TRY(put_added(g, false, t, err));
    HG_TRY(hg_byte_level_finish(g->where, t, err));
    return hg_bytes_are_plain(g->where, t, err);
}

bool hg_is_gguf(const unsigned char *data, size_t n)
{
    return n >= 4 && !memcmp(data, "GGUF", 4);
}

enum hg_status hg_gguf_vocab(const char *where, const unsigned char *data, size_t n,
                             enum hg_pattern pattern, struct hg_tokenizer *t, struct hg_error *err)
{
    struct gguf g = {.where = where, .data = data, .n = n};
    if (!hg_is_gguf(data, n))
        return broken(&g, err);
    HG_TRY(read_keys(&g, err));
    return read_vocab(&g, pattern, t, err);
}
