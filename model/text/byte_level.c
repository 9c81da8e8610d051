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
        if (t->byte_ids[byte] < 0 && t->unk < 0)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: no token for byte 0x%02X and no unknown token", where, byte);
    }
    return HG_STATUS_OK;
}

struct walk {
    const struct hg_tokenizer *t;
    struct hg_bpe_work *w;
    struct hg_ids *ids;
};

static enum hg_status encode_word(void *user, const char *s, size_t n)
{
    struct walk *x = user;
    hg_bpe_start(x->w);
    for (size_t i = 0; i < n; i++)
        HG_TRY(hg_bpe_add(x->w, x->t->byte_ids[(unsigned char)s[i]], i, 1));
    HG_TRY(hg_bpe_run(x->w, &x->t->vocab, &x->t->merges, NULL));
    for (int32_t i = 0; i >= 0; i = x->w->symbols[i].next) {
        int32_t id = x->w->symbols[i].id;
        HG_TRY(hg_ids_push(x->ids, id < 0 ? x->t->unk : id));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_byte_level_encode(const struct hg_tokenizer *t, struct hg_bpe_work *w,
                                    const char *s, size_t n, struct hg_ids *ids)
{
    struct walk x = {t, w, ids};
    return hg_pretokenizer_run(t->pattern, s, n, encode_word, &x);
}
