#include "tests/model/text/real_vocab.h"
#include "tests/test.h"

static void put_raw(struct hg_buf *b, const void *data, size_t n)
{
    assert_int_equal(hg_buf_append(b, data, n), 0);
}

static void put_number(struct hg_buf *b, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        put_raw(b, &byte, 1);
        value >>= 7;
    } while (value);
}

void spm_put_varint(struct hg_buf *b, uint32_t number, uint64_t value)
{
    put_number(b, (uint64_t)number << 3);
    put_number(b, value);
}

void spm_put_bytes(struct hg_buf *b, uint32_t number, const void *data, size_t n)
{
    put_number(b, (uint64_t)number << 3 | 2);
    put_number(b, n);
    put_raw(b, data, n);
}

void spm_put_piece(struct hg_buf *b, const char *s, size_t n, float score, int type)
{
    struct hg_buf piece = {0};
    spm_put_bytes(&piece, 1, s, n);
    put_number(&piece, 2 << 3 | 5);
    put_raw(&piece, &score, sizeof score);
    spm_put_varint(&piece, 3, (uint64_t)type);
    spm_put_bytes(b, 1, piece.data, piece.len);
    hg_buf_deinit(&piece);
}

void spm_put_specs(struct hg_buf *b, bool byte_fallback)
{
    struct hg_buf trainer = {0}, normalizer = {0};
    spm_put_varint(&trainer, 3, 2);
    spm_put_varint(&trainer, 35, byte_fallback);
    spm_put_bytes(&normalizer, 1, "identity", 8);
    spm_put_varint(&normalizer, 3, 0);
    spm_put_varint(&normalizer, 4, 0);
    spm_put_varint(&normalizer, 5, 1);
    spm_put_bytes(b, 2, trainer.data, trainer.len);
    spm_put_bytes(b, 3, normalizer.data, normalizer.len);
    hg_buf_deinit(&trainer);
    hg_buf_deinit(&normalizer);
}
