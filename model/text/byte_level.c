#include "model/text/byte_level.h"

#include "common/utf8.h"

static bool stands_for_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

uint32_t hg_byte_level_char(unsigned char byte)
{
    if (stands_for_itself(byte))
        return byte;
    uint32_t cp = 0x100;
    for (uint32_t c = 0; c < byte; c++)
        cp += !stands_for_itself(c);
    return cp;
}

int hg_byte_level_byte(uint32_t cp)
{
    if (cp < 0x100)
        return stands_for_itself(cp) ? (int)cp : -1;
    if (cp <= 0x120) /* 0x00-0x20 */
        return (int)(cp - 0x100);
    if (cp <= 0x142) /* 0x7F-0xA0 */
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

enum hg_status hg_byte_level_finish(const char *where, struct hg_tokenizer *t, struct hg_error *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char s[4];
        int n = hg_utf8_encode(hg_byte_level_char((unsigned char)byte), s);
        t->byte_ids[byte] = hg_vocab_find(&t->vocab, s, (size_t)n);
        if (t->byte_ids[byte] >= 0)
            continue;
        if (t->unk < 0 || t->by_rank)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: no token for byte 0x%02X and no unknown token", where, byte);
        if (t->unk == t->eos || t->unk == t->bos) /* a user could end the text by typing it */
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: no token for byte 0x%02X, and the unknown token is the one that "
                           "begins or ends a text",
                           where, byte);
    }
    return HG_STATUS_OK;
}

enum hg_status hg_bytes_are_plain(const char *where, const struct hg_tokenizer *t,
                                  struct hg_error *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        int32_t id = t->byte_ids[byte];
        if (id >= 0 && hg_piece_is_added(&t->vocab.pieces[id]))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: token %d stands for byte 0x%02X and is an added token as well",
                           where, id, byte);
    }
    return HG_STATUS_OK;
}

/* tiktoken: the word itself when it is a token, else parts that merge by the rank of what they
 * make.
 */
static enum hg_status start_by_rank(const struct hg_tokenizer *t, struct hg_encode_work *w,
                                    const char *s, size_t n, int32_t *whole)
{
    size_t len;
    hg_buf_clear(&w->text);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        int32_t id = t->byte_ids[byte];
        len = t->vocab.pieces[id].n;
        HG_TRY(hg_bpe_add(&w->bpe, id, w->text.len, len));
        HG_TRY(hg_buf_append(&w->text, hg_vocab_string(&t->vocab, id), len));
    }
    *whole =
        w->text.len <= t->vocab.max_len ? hg_vocab_find(&t->vocab, w->text.data, w->text.len) : -1;
    if (*whole >= 0 && !hg_vocab_mergeable(&t->vocab, *whole))
        *whole = -1;
    return HG_STATUS_OK;
}

static enum hg_status encode_word(const struct hg_tokenizer *t, struct hg_encode_work *w,
                                  const char *s, size_t n, struct hg_ids *ids)
{
    hg_bpe_start(&w->bpe);
    if (t->by_rank) {
        int32_t whole;
        HG_TRY(start_by_rank(t, w, s, n, &whole));
        if (whole >= 0)
            return hg_ids_push(ids, whole);
        HG_TRY(hg_bpe_run(&w->bpe, &t->vocab, NULL, w->text.data));
    } else {
        for (size_t i = 0; i < n; i++)
            HG_TRY(hg_bpe_add(&w->bpe, t->byte_ids[(unsigned char)s[i]], i, 1));
        HG_TRY(hg_bpe_run(&w->bpe, &t->vocab, &t->merges, NULL));
    }
    for (int32_t i = 0; i >= 0; i = w->bpe.symbols[i].next) {
        int32_t id = w->bpe.symbols[i].id;
        HG_TRY(hg_ids_push(ids, id < 0 ? t->unk : id));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_byte_level_encode(const struct hg_tokenizer *t, struct hg_encode_work *w,
                                    const char *s, size_t n, struct hg_ids *ids)
{
    struct hg_words words = {.pattern = t->pattern, .s = s, .n = n};
    enum hg_status status = HG_STATUS_OK;
    const char *word;
    for (size_t len; status == HG_STATUS_OK && hg_words_next(&words, &word, &len);)
        status = encode_word(t, w, word, len, ids);
    w->n_looks += words.n_looks;
    return status;
}
