#include "model/text/hf_json.h"

#include <string.h>

#include "common/json.h"
#include "model/text/sentencepiece.h"

/* ---- vocabulary ---- */

/* "<0x41>", "<unk>": what SentencePiece's types were before the conversion to JSON */
static enum hg_piece_kind kind_of(const struct hg_tokenizer *t, const char *s, size_t n)
{
    if (!t->byte_fallback)
        return HG_PIECE_NORMAL;
    if (n == 6 && !memcmp(s, "<0x", 3) && s[5] == '>')
        return HG_PIECE_BYTE;
    return HG_PIECE_NORMAL;
}

enum hg_status hg_hf_vocab(const char *where, const json_t *vocab, struct hg_tokenizer *t,
                           struct hg_error *err)
{
    const char *key;
    size_t n;
    json_t *id;
    if (!json_is_object(vocab))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected an object of tokens", where);
    json_object_keylen_foreach((json_t *)vocab, key, n, id)
    {
        if (!json_is_integer(id))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: '%.40s': expected an integer id", where,
                           key);
        HG_TRY(
            hg_vocab_put(&t->vocab, json_integer_value(id), key, n, kind_of(t, key, n), 0.0f, err));
    }
    return HG_STATUS_OK;
}

/* ---- merges ---- */

struct text {
    const char *s;
    size_t n;
};

static enum hg_status put_merge(const char *where, size_t rank, struct text left, struct text right,
                                struct hg_tokenizer *t, struct hg_error *err)
{
    char joined[2 * HG_PIECE_MAX_LEN];
    if (left.n > HG_PIECE_MAX_LEN || right.n > HG_PIECE_MAX_LEN || rank > INT32_MAX)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: merge %zu is too long", where, rank);
    memcpy(joined, left.s, left.n);
    memcpy(joined + left.n, right.s, right.n);
    int32_t a = hg_vocab_find(&t->vocab, left.s, left.n);
    int32_t b = hg_vocab_find(&t->vocab, right.s, right.n);
    int32_t c = hg_vocab_find(&t->vocab, joined, left.n + right.n);
    if (a < 0 || b < 0 || c < 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: merge %zu ('%.*s' + '%.*s') needs a token that the vocabulary lacks",
                       where, rank, left.n > 30 ? 30 : (int)left.n, left.s,
                       right.n > 30 ? 30 : (int)right.n, right.s);
    if (hg_merges_put(&t->merges, a, b, (uint32_t)rank, c))
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: no memory for merge %zu", where, rank);
    return HG_STATUS_OK;
}

enum hg_status hg_hf_merge(const char *where, size_t rank, const char *s, size_t n,
                           struct hg_tokenizer *t, struct hg_error *err)
{
    struct text line = {s, n};
    const char *space = memchr(line.s, ' ', line.n);
    size_t left = space ? (size_t)(space - line.s) : 0;
    size_t right = space ? line.n - left - 1 : 0;
    if (!left || !right || memchr(space + 1, ' ', right))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: merge %zu is '%.*s', expected two tokens",
                       where, rank, line.n > 40 ? 40 : (int)line.n, line.s);
    return put_merge(where, rank, (struct text){line.s, left}, (struct text){space + 1, right}, t,
                     err);
}

enum hg_status hg_hf_merges_text(const char *where, const char *s, size_t n, struct hg_tokenizer *t,
                                 struct hg_error *err)
{
    size_t rank = 0;
    bool first = true;
    for (size_t at = 0; at < n; first = false) {
        const char *end = memchr(s + at, '\n', n - at);
        struct text line = {s + at, end ? (size_t)(end - s) - at : n - at};
        at += line.n + 1;
        if (line.n && line.s[line.n - 1] == '\r')
            line.n--;
        /* GPT2Tokenizer drops line 0 whatever it says and what stands behind the last newline
         * (split("\n")[1:-1]), Qwen2Tokenizer only "#version" */
        bool header = line.n >= 8 && !memcmp(line.s, "#version", 8);
        bool gpt2 = t->family == HG_FAMILY_GPT2;
        if (line.n == 0 || (first && (header || gpt2)) || (!end && gpt2))
            continue;
        HG_TRY(hg_hf_merge(where, rank++, line.s, line.n, t, err));
    }
    return HG_STATUS_OK;
}

static enum hg_status merges_array(const json_t *merges, struct hg_tokenizer *t,
                                   struct hg_error *err)
{
    const char *where = "tokenizer.json: merges";
    if (!json_is_array(merges))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected an array", where);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *m = json_array_get(merges, i);
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        if (json_is_string(m)) {
            HG_TRY(hg_hf_merge(where, i, json_string_value(m), json_string_length(m), t, err));
        } else if (json_array_size(m) == 2 && json_is_string(a) && json_is_string(b)) {
            struct text left = {json_string_value(a), json_string_length(a)};
            struct text right = {json_string_value(b), json_string_length(b)};
            HG_TRY(put_merge(where, i, left, right, t, err));
        } else {
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: entry %zu is not a pair of tokens", where,
                           i);
        }
    }
    return HG_STATUS_OK;
}

/* ---- tokenizer.json ---- */

/* The Split or ByteLevel pre-tokenizer, alone or in a Sequence. */
static enum hg_status find_pattern(const json_t *pre, enum hg_pattern *out, struct hg_error *err)
{
    const json_t *list = json_object_get(pre, "pretokenizers");
    size_t n = list ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *step = list ? json_array_get(list, i) : pre;
        const char *type = json_string_value(json_object_get(step, "type"));
        const json_t *use_regex = json_object_get(step, "use_regex");
        const char *regex =
            json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
        if (type && !strcmp(type, "Split") && regex) {
            *out = hg_pattern_of_regex(regex);
            if (*out == HG_PATTERN_COUNT)
                return hg_fail(err, HG_STATUS_UNSUPPORTED,
                               "tokenizer.json: unknown pre_tokenizer pattern '%.80s'", regex);
            return HG_STATUS_OK;
        }
        if (type && !strcmp(type, "ByteLevel") && (!use_regex || json_is_true(use_regex))) {
            *out = HG_PATTERN_GPT2;
            return HG_STATUS_OK;
        }
    }
    return hg_fail(err, HG_STATUS_UNSUPPORTED,
                   "tokenizer.json: pre_tokenizer is neither ByteLevel nor a known Split");
}

static enum hg_status check_model(const struct hg_json_view *m, struct hg_error *err)
{
    const char *type = NULL, *affix;
    HG_TRY(hg_json_string(m, "type", HG_JSON_REQUIRED, 64, &type, err));
    if (strcmp(type, "BPE") != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: type %s, expected BPE", m->where, type);
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        affix = "";
        HG_TRY(hg_json_string(m, empty[i], HG_JSON_OPTIONAL, 64, &affix, err));
        if (*affix)
            return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s '%s' is not supported", m->where,
                           empty[i], affix);
    }
    double dropout = 0;
    bool ignore_merges = false;
    HG_TRY(hg_json_real(m, "dropout", HG_JSON_OPTIONAL, 0, 1, &dropout, err));
    HG_TRY(hg_json_bool(m, "ignore_merges", HG_JSON_OPTIONAL, &ignore_merges, err));
    if (dropout > 0 || ignore_merges)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s is not supported", m->where,
                       ignore_merges ? "ignore_merges" : "dropout");
    return HG_STATUS_OK;
}

enum hg_status hg_hf_tokenizer_json(const json_t *doc, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_json_view v = hg_json_view_of(doc, "tokenizer.json"), m;
    const char *unk = NULL;
    HG_TRY(hg_json_object(&v, "model", HG_JSON_REQUIRED, &m, err));
    HG_TRY(check_model(&m, err));
    HG_TRY(hg_json_bool(&m, "byte_fallback", HG_JSON_OPTIONAL, &t->byte_fallback, err));
    HG_TRY(hg_json_string(&m, "unk_token", HG_JSON_OPTIONAL, 128, &unk, err));
    HG_TRY(hg_hf_vocab("tokenizer.json: vocab", json_object_get(m.obj, "vocab"), t, err));
    HG_TRY(merges_array(json_object_get(m.obj, "merges"), t, err));
    if (unk)
        t->unk = hg_vocab_find(&t->vocab, unk, strlen(unk));
    if (!t->byte_fallback)
        return find_pattern(json_object_get(doc, "pre_tokenizer"), &t->pattern, err);
    if (t->unk < 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tokenizer.json: unk_token is not in vocab");
    t->vocab.pieces[t->unk].kind = HG_PIECE_UNKNOWN;
    t->unk = -1; /* found again by its kind */
    t->prefix_space = true;
    return hg_spm_finish("tokenizer.json", t, err);
}
