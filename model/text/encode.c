/* One chunk -> ids: clean the parts, cut at added tokens, merge the text between them. */
#include <stdlib.h>
#include <string.h>
#include <uninorm.h>

#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "model/text/sentencepiece.h"

void hg_encode_work_deinit(struct hg_encode_work *w)
{
    hg_bpe_deinit(&w->bpe);
    hg_buf_deinit(&w->text);
}

size_t hg_utf8_bad_len(const char *s, size_t n)
{
    for (size_t len = n < 3 ? n : 3; len > 1; len--)
        if (hg_utf8_incomplete_tail(s, len) == len)
            return len;
    return 1;
}

static enum hg_status replace_invalid(struct hg_buf *out, const char *s, size_t n)
{
    hg_buf_clear(out);
    for (size_t at = 0; at < n;) {
        size_t good = hg_utf8_valid_prefix(s + at, n - at);
        HG_TRY(hg_buf_append(out, s + at, good));
        at += good;
        if (at < n) {
            HG_TRY(hg_buf_append_str(out, "\xef\xbf\xbd"));
            at += hg_utf8_bad_len(s + at, n - at);
        }
    }
    return HG_STATUS_OK;
}

/* LlamaTokenizer.tokenize(): a typed U+2581 is a space */
static void spaces_for_underlines(struct hg_buf *b)
{
    size_t to = 0;
    for (size_t from = 0; from < b->len;) {
        bool mark = b->len - from >= HG_SPM_SPACE_LEN &&
                    !memcmp(b->data + from, HG_SPM_SPACE, HG_SPM_SPACE_LEN);
        b->data[to++] = mark ? ' ' : b->data[from];
        from += mark ? HG_SPM_SPACE_LEN : 1;
    }
    b->len = to;
}

/* How far s[at..n) is ASCII (or, `other`, is not). */
static size_t ascii_end(const char *s, size_t at, size_t n, bool other)
{
    while (at < n && ((unsigned char)s[at] >= 0x80) == other)
        at++;
    return at;
}

/* An ASCII character is a starter that joins with nothing before it, so the text falls apart in
 * front of each: only one of them with the others behind it has to be looked at. */
static enum hg_status normalise_nfc(struct hg_buf *b, struct hg_buf *out)
{
    uint8_t room[256];
    hg_buf_clear(out);
    for (size_t at = 0, end; at < b->len; at = end) {
        size_t ascii = ascii_end(b->data, at, b->len, false);
        end = ascii_end(b->data, ascii, b->len, true);
        size_t begin = ascii > at && end > ascii ? ascii - 1 : ascii, n = sizeof room;
        HG_TRY(hg_buf_append(out, b->data + at, begin - at));
        if (begin == end)
            continue;
        uint8_t *nfc =
            u8_normalize(UNINORM_NFC, (const uint8_t *)b->data + begin, end - begin, room, &n);
        if (!nfc)
            return HG_STATUS_NO_MEMORY;
        enum hg_status status = hg_buf_append(out, nfc, n);
        if (nfc != room)
            free(nfc);
        HG_TRY(status);
    }
    return HG_STATUS_OK;
}

/* Each part is cleaned on its own: what a user typed never joins with what a template says. */
static enum hg_status add_part(const struct hg_tokenizer *t, const struct hg_text_part *part,
                               struct hg_buf *clean, struct hg_buf *nfc, struct hg_segments *segs)
{
    if (part->n == 0)
        return HG_STATUS_OK;
    HG_TRY(replace_invalid(clean, part->text, part->n));
    if (t->family == HG_FAMILY_LLAMA && !t->legacy)
        spaces_for_underlines(clean);
    if (t->family == HG_FAMILY_QWEN2)
        HG_TRY(normalise_nfc(clean, nfc));
    if (t->family == HG_FAMILY_QWEN2)
        clean = nfc;
    return hg_segments_add(segs, &t->vocab, &t->added, clean->data, clean->len, part->trusted);
}

/* LlamaTokenizer.tokenize() drops a lone leading U+2581 in front of a special token. Tokens that
 * are added but not special (<|system|>) leave it where it is. */
static bool has_lone_mark(const struct hg_tokenizer *t, const struct hg_segments *segs)
{
    if (t->family != HG_FAMILY_LLAMA || t->legacy || segs->n < 2 || segs->data[0].id >= 0)
        return false;
    const struct hg_segment *mark = &segs->data[0], *next = &segs->data[1];
    return mark->end - mark->begin == HG_SPM_SPACE_LEN &&
           !memcmp(segs->text.data + mark->begin, HG_SPM_SPACE, HG_SPM_SPACE_LEN) &&
           next->id >= 0 && (t->vocab.pieces[next->id].flags & HG_PIECE_SPECIAL);
}

static enum hg_status encode_segments(const struct hg_tokenizer *t, const struct hg_segments *segs,
                                      struct hg_encode_work *w, struct hg_ids *ids)
{
    for (size_t i = has_lone_mark(t, segs); i < segs->n; i++) {
        const struct hg_segment *seg = &segs->data[i];
        const char *text = segs->text.data + seg->begin;
        size_t n = seg->end - seg->begin;
        if (seg->id >= 0)
            HG_TRY(hg_ids_push(ids, seg->id));
        else if (t->family == HG_FAMILY_LLAMA)
            HG_TRY(hg_spm_encode(t, w, text, n, t->legacy && t->prefix_space, ids));
        else
            HG_TRY(hg_byte_level_encode(t, w, text, n, ids));
    }
    return HG_STATUS_OK;
}

static enum hg_status encode_chunk(const struct hg_tokenizer *t, const struct hg_text_part *parts,
                                   size_t n_parts, struct hg_segments *segs, struct hg_buf *clean,
                                   struct hg_encode_work *work, struct hg_ids *ids)
{
    size_t total = 0;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].n > HG_TEXT_MAX_BYTES - total)
            return HG_STATUS_TOO_LARGE;
        total += parts[i].n;
    }
    if (t->add_bos)
        HG_TRY(hg_ids_push(ids, t->bos));
    if (total == 0)
        return HG_STATUS_OK;
    if (t->family == HG_FAMILY_LLAMA && !t->legacy && t->prefix_space)
        HG_TRY(hg_buf_append(&segs->text, HG_SPM_SPACE, HG_SPM_SPACE_LEN));
    for (size_t i = 0; i < n_parts; i++)
        HG_TRY(add_part(t, &parts[i], clean, &work->text, segs));
    HG_TRY(hg_segments_finish(segs));
    return encode_segments(t, segs, work, ids);
}

enum hg_status hg_tokenizer_encode(const struct hg_tokenizer *t, const struct hg_text_part *parts,
                                   size_t n_parts, struct hg_ids *ids, struct hg_error *err)
{
    struct hg_segments segs = {0};
    struct hg_buf clean = {0};
    struct hg_encode_work work = {0};
    size_t n_before = ids->n;
    enum hg_status status = encode_chunk(t, parts, n_parts, &segs, &clean, &work, ids);
    hg_encode_work_deinit(&work);
    hg_buf_deinit(&clean);
    hg_segments_deinit(&segs);
    if (status == HG_STATUS_OK)
        return HG_STATUS_OK;
    ids->n = n_before;
    return hg_fail(err, status, "tokenizer: text cannot be encoded: %s (at most %d bytes)",
                   hg_status_text(status), HG_TEXT_MAX_BYTES);
}
