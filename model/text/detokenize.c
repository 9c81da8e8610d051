/* ids -> text, as a stream: a byte leaves only when it is part of a finished character. */
#include <string.h>

#include "common/utf8.h"
#include "model/text/byte_level.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

void hg_detok_init(struct hg_detok *d, const struct hg_tokenizer *t, bool show_added)
{
    *d = (struct hg_detok){.tokenizer = t, .show_added = show_added};
}

static void drop_held(struct hg_detok *d, size_t n)
{
    d->n_held -= n;
    memmove(d->held, d->held + n, d->n_held);
}

/* ---- clean_up_tokenization ---- */

/* Replace every `from` in s[0..n), left to right without overlap; returns the new length. */
static size_t replace_all(char *s, size_t n, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to), out = 0;
    for (size_t at = 0; at < n;) {
        bool hit = n - at >= n_from && !memcmp(s + at, from, n_from);
        memmove(s + out, hit ? to : s + at, hit ? n_to : 1);
        out += hit ? n_to : 1;
        at += hit ? n_from : 1;
    }
    return out;
}

static enum hg_status flush_tail(struct hg_detok *d, struct hg_buf *out)
{
    static const char *const rules[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    size_t n = d->n_tail;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        n = replace_all(d->tail, n, rules[i][0], rules[i][1]);
    d->n_tail = 0;
    return hg_buf_append(out, d->tail, n);
}

/* Text whose characters are complete. Behind any character that no rule continues after, what was
 * collected is cleaned and leaves; only a run of 64 of the others is cut without need. */
static enum hg_status put_text(struct hg_detok *d, const char *s, size_t n, struct hg_buf *out)
{
    if (!d->tokenizer->clean_up)
        return hg_buf_append(out, s, n);
    for (size_t i = 0; i < n; i++) {
        d->tail[d->n_tail++] = s[i];
        bool open = s[i] && strchr(" 'nvr", s[i]);
        if (!open || d->n_tail == sizeof d->tail)
            HG_TRY(flush_tail(d, out));
    }
    return HG_STATUS_OK;
}

/* ---- bytes ---- */

/* SentencePiece writes one U+FFFD for every bad byte, Python one for the whole broken sequence. */
static size_t bad_len(const struct hg_detok *d)
{
    return d->tokenizer->family == HG_FAMILY_LLAMA ? 1 : hg_utf8_bad_len(d->held, d->n_held);
}

/* Let out what is complete or hopeless; with `all`, also what could still become complete. */
static enum hg_status settle(struct hg_detok *d, bool all, struct hg_buf *out)
{
    while (d->n_held > 0) {
        uint32_t cp;
        size_t len = (size_t)hg_utf8_decode(d->held, d->n_held, &cp);
        if (len > 0) {
            HG_TRY(put_text(d, d->held, len, out));
            drop_held(d, len);
            continue;
        }
        if (!all && hg_utf8_incomplete_tail(d->held, d->n_held) == d->n_held)
            return HG_STATUS_OK;
        size_t bad = bad_len(d);
        HG_TRY(put_text(d, REPLACEMENT, sizeof REPLACEMENT - 1, out));
        drop_held(d, bad);
    }
    return HG_STATUS_OK;
}

static enum hg_status push_bytes(struct hg_detok *d, const char *s, size_t n, struct hg_buf *out)
{
    if (d->n_held == 0 && hg_utf8_valid(s, n))
        return put_text(d, s, n, out);
    for (size_t i = 0; i < n; i++) {
        d->held[d->n_held++] = s[i];
        HG_TRY(settle(d, false, out));
    }
    return HG_STATUS_OK;
}

static enum hg_status push_spm(struct hg_detok *d, const struct hg_piece *p, const char *s,
                               struct hg_buf *out)
{
    bool first = !d->started;
    d->started = true;
    if (p->kind == HG_PIECE_BYTE) {
        char byte = 0;
        for (int i = 3; i < 5; i++) /* "<0xNN>" was checked at load */
            byte = (char)(byte * 16 + (s[i] <= '9' ? s[i] - '0' : (s[i] | 32) - 'a' + 10));
        return push_bytes(d, &byte, 1, out);
    }
    for (size_t at = 0; at < p->n;) {
        bool space =
            p->n - at >= HG_SPM_SPACE_LEN && !memcmp(s + at, HG_SPM_SPACE, HG_SPM_SPACE_LEN);
        if (space && !(first && at == 0 && d->tokenizer->prefix_space))
            HG_TRY(push_bytes(d, " ", 1, out));
        size_t len = space ? HG_SPM_SPACE_LEN : 1;
        while (!space && at + len < p->n && s[at + len] != HG_SPM_SPACE[0])
            len++;
        if (!space)
            HG_TRY(push_bytes(d, s + at, len, out));
        at += len;
    }
    return HG_STATUS_OK;
}

/* A character outside of the byte alphabet stands for itself. */
static enum hg_status push_byte_level(struct hg_detok *d, const struct hg_piece *p, const char *s,
                                      struct hg_buf *out)
{
    for (size_t at = 0; at < p->n;) {
        uint32_t cp;
        int len = hg_utf8_decode(s + at, p->n - at, &cp);
        int byte = len ? hg_byte_level_byte(cp) : -1;
        char one = (char)byte;
        if (len == 0)
            len = 1;
        HG_TRY(byte >= 0 ? push_bytes(d, &one, 1, out) : push_bytes(d, s + at, (size_t)len, out));
        at += (size_t)len;
    }
    return HG_STATUS_OK;
}

enum hg_status hg_detok_push(struct hg_detok *d, int32_t id, struct hg_buf *out)
{
    const struct hg_tokenizer *t = d->tokenizer;
    if (id < 0)
        return HG_STATUS_BAD_REQUEST;
    if ((size_t)id >= t->vocab.n)
        return HG_STATUS_OK;
    const struct hg_piece *p = &t->vocab.pieces[id];
    const char *s = hg_vocab_string(&t->vocab, id);
    bool hidden = hg_piece_is_added(p) || p->kind == HG_PIECE_CONTROL ||
                  p->kind == HG_PIECE_UNKNOWN || p->kind == HG_PIECE_EXTRA;
    if (p->kind == HG_PIECE_ABSENT || (hidden && !d->show_added))
        return HG_STATUS_OK;
    if (hidden) {
        HG_TRY(hg_detok_finish(d, out));
        return hg_buf_append(out, s, p->n);
    }
    return t->family == HG_FAMILY_LLAMA ? push_spm(d, p, s, out) : push_byte_level(d, p, s, out);
}

enum hg_status hg_detok_finish(struct hg_detok *d, struct hg_buf *out)
{
    HG_TRY(settle(d, true, out));
    return flush_tail(d, out);
}
