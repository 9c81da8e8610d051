#include "model/text/sentencepiece.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* ---- after loading ---- */

/* "<0x41>" -> 0x41; -1: not of this form */
static int byte_of_piece(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    char hex[3] = {s[3], s[4], 0};
    bool ok = isxdigit((unsigned char)hex[0]) && isxdigit((unsigned char)hex[1]);
    return ok ? (int)strtol(hex, NULL, 16) : -1;
}

/* Does U+2581 stand behind some other character? */
static bool has_inner_space(const char *s, size_t n)
{
    bool other = false;
    for (size_t i = 0; i < n;) {
        bool space = n - i >= HG_SPM_SPACE_LEN && !memcmp(s + i, HG_SPM_SPACE, HG_SPM_SPACE_LEN);
        if (space && other)
            return true;
        other = other || !space;
        i += space ? HG_SPM_SPACE_LEN : 1;
    }
    return false;
}

static enum hg_status note_piece(const char *where, struct hg_tokenizer *t, int32_t id,
                                 struct hg_error *err)
{
    const struct hg_piece *p = &t->vocab.pieces[id];
    const char *s = hg_vocab_string(&t->vocab, id);
    if (p->kind == HG_PIECE_BYTE) {
        int byte = byte_of_piece(s, p->n);
        if (byte < 0)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: byte piece %d is '%.40s', expected <0xNN>",
                           where, id, s);
        t->byte_ids[byte] = id;
    } else if (p->kind == HG_PIECE_UNKNOWN) {
        if (t->unk >= 0)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: two unknown pieces, %d and %d", where,
                           t->unk, id);
        t->unk = id;
    } else if (p->kind == HG_PIECE_USER_DEFINED) {
        if (p->n > HG_ADDED_MAX_LEN)
            return hg_fail(err, HG_STATUS_UNSUPPORTED,
                           "%s: user-defined piece %d has %u bytes, at most %d are supported",
                           where, id, p->n, HG_ADDED_MAX_LEN);
        /* "<|user|>" baked into the model is a control word: user text must not yield it */
        if (p->n > 2 && s[0] == '<' && s[p->n - 1] == '>')
            return hg_added_put(&t->vocab, &t->added, id, s, p->n, 0, err);
        hg_prefix_set_add(&t->user_defined, s, p->n);
    }
    if (p->kind != HG_PIECE_CONTROL && p->kind != HG_PIECE_UNKNOWN && has_inner_space(s, p->n))
        t->word_bound = false;
    return HG_STATUS_OK;
}

enum hg_status hg_spm_finish(const char *where, struct hg_tokenizer *t, struct hg_error *err)
{
    t->word_bound = true;
    for (size_t id = 0; id < t->vocab.n; id++)
        if (t->vocab.pieces[id].kind != HG_PIECE_ABSENT)
            HG_TRY(note_piece(where, t, (int32_t)id, err));
    if (t->unk < 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %zu pieces, none of them is the unknown piece",
                       where, t->vocab.n);
    for (int byte = 0; t->byte_fallback && byte < 256; byte++)
        if (t->byte_ids[byte] < 0)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: byte_fallback is on but piece <0x%02X> is missing", where,
                           (unsigned)byte);
    return HG_STATUS_OK;
}

/* ---- encoding ---- */

static enum hg_status escape_spaces(struct hg_buf *out, const char *s, size_t n, bool prefix)
{
    hg_buf_clear(out);
    if (prefix)
        HG_TRY(hg_buf_append(out, HG_SPM_SPACE, HG_SPM_SPACE_LEN));
    for (size_t i = 0; i < n;) {
        const char *space = memchr(s + i, ' ', n - i);
        size_t len = space ? (size_t)(space - s) - i : n - i;
        HG_TRY(hg_buf_append(out, s + i, len));
        if (space)
            HG_TRY(hg_buf_append(out, HG_SPM_SPACE, HG_SPM_SPACE_LEN));
        i += len + (space != NULL);
    }
    return HG_STATUS_OK;
}

static bool is_user_defined(const struct hg_piece *p)
{
    return p->kind == HG_PIECE_USER_DEFINED && !(p->flags & HG_PIECE_ADDED);
}

/* The symbols up to the next word (or to the end) are merged on their own where the vocabulary
 * allows it: the heap stays small and in the cache. Returns the end of the word. */
static size_t word_end(const struct hg_tokenizer *t, const char *s, size_t at, size_t n)
{
    if (!t->word_bound)
        return n;
    bool other = false;
    while (at < n) {
        bool space = s[at] == HG_SPM_SPACE[0] && n - at >= HG_SPM_SPACE_LEN &&
                     !memcmp(s + at, HG_SPM_SPACE, HG_SPM_SPACE_LEN);
        if (space && other)
            return at;
        other = other || !space;
        at += space ? HG_SPM_SPACE_LEN : 1;
    }
    return n;
}

/* Add the characters from `at` on, up to `end` or to a user-defined symbol, which no merge crosses.
 * Returns through *at where it stopped, through *atom the symbol found there (-1: the end). */
static enum hg_status add_symbols(const struct hg_tokenizer *t, struct hg_encode_work *w,
                                  size_t *at, size_t end, int32_t *atom)
{
    const struct hg_vocab *v = &t->vocab;
    const char *s = w->text.data;
    for (*atom = -1; *at < end;) {
        *atom = hg_prefix_set_match(&t->user_defined, v, is_user_defined, s + *at, end - *at);
        if (*atom >= 0)
            return HG_STATUS_OK;
        uint32_t cp;
        size_t len = (size_t)hg_utf8_decode(s + *at, end - *at, &cp);
        int32_t id = hg_vocab_find(v, s + *at, len);
        if (id >= 0 && !hg_vocab_mergeable(v, id))
            id = -1;
        HG_TRY(hg_bpe_add(&w->bpe, id, *at, len));
        *at += len;
    }
    return HG_STATUS_OK;
}

static enum hg_status emit_unknown(const struct hg_tokenizer *t, const struct hg_encode_work *w,
                                   const char *s, size_t len, struct hg_ids *ids)
{
    if (!t->byte_fallback) { /* a run of unknown characters is one unknown token */
        bool again = ids->n > w->first && ids->data[ids->n - 1] == t->unk;
        return again ? HG_STATUS_OK : hg_ids_push(ids, t->unk);
    }
    for (size_t i = 0; i < len; i++)
        HG_TRY(hg_ids_push(ids, t->byte_ids[(unsigned char)s[i]]));
    return HG_STATUS_OK;
}

/* An UNUSED piece served as a step to a larger one only; alone it falls apart into what it was made
 * of. The depth is at most the number of its characters. */
static enum hg_status emit(const struct hg_tokenizer *t, const struct hg_encode_work *w, int32_t id,
                           size_t at, size_t len, struct hg_ids *ids)
{
    const char *s = w->text.data + at;
    if (id < 0 || !hg_vocab_mergeable(&t->vocab, id))
        return emit_unknown(t, w, s, len, ids);
    size_t left = w->bpe.unused_left ? w->bpe.unused_left[id] : 0;
    if (t->vocab.pieces[id].kind != HG_PIECE_UNUSED || left == 0 || left >= len)
        return hg_ids_push(ids, id);
    HG_TRY(emit(t, w, hg_vocab_find(&t->vocab, s, left), at, left, ids));
    return emit(t, w, hg_vocab_find(&t->vocab, s + left, len - left), at + left, len - left, ids);
}

static enum hg_status encode_word(const struct hg_tokenizer *t, struct hg_encode_work *w, size_t at,
                                  size_t end, struct hg_ids *ids)
{
    while (at < end) {
        int32_t atom;
        hg_bpe_start(&w->bpe);
        HG_TRY(add_symbols(t, w, &at, end, &atom));
        HG_TRY(hg_bpe_run(&w->bpe, &t->vocab, t->merges.n ? &t->merges : NULL, w->text.data));
        for (int32_t i = w->bpe.n_symbols ? 0 : -1; i >= 0; i = w->bpe.symbols[i].next) {
            const struct hg_symbol *sym = &w->bpe.symbols[i];
            HG_TRY(emit(t, w, sym->id, sym->at, hg_bpe_len(&w->bpe, sym), ids));
        }
        if (atom >= 0) {
            HG_TRY(hg_ids_push(ids, atom));
            at += t->vocab.pieces[atom].n;
        }
    }
    return HG_STATUS_OK;
}

enum hg_status hg_spm_encode(const struct hg_tokenizer *t, struct hg_encode_work *w, const char *s,
                             size_t n, bool prefix, struct hg_ids *ids)
{
    HG_TRY(escape_spaces(&w->text, s, n, prefix));
    w->first = ids->n;
    for (size_t at = 0, end; at < w->text.len; at = end) {
        end = word_end(t, w->text.data, at, w->text.len);
        HG_TRY(encode_word(t, w, at, end, ids));
    }
    return HG_STATUS_OK;
}
