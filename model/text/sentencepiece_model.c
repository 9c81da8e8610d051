/* Reader of sentencepiece_model.proto, the fields that matter to BPE:
 *   ModelProto     1 pieces { 1 piece, 2 score, 3 type }, 2 trainer_spec, 3 normalizer_spec,
 *                  5 denormalizer_spec
 *   TrainerSpec    3 model_type (2 = BPE), 24 treat_whitespace_as_suffix, 35 byte_fallback
 *   NormalizerSpec 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
 *                  5 escape_whitespaces (3..5 are true when absent) */
#include <string.h>

#include "common/utf8.h"
#include "model/text/sentencepiece.h"

struct pb { /* a protobuf message */
    const unsigned char *data;
    size_t at, end;
};

struct pb_field {
    uint32_t number, wire;
    uint64_t value; /* varint, fixed32, fixed64 */
    struct pb body; /* length-delimited */
};

enum { WIRE_VARINT, WIRE_FIXED64, WIRE_BYTES, WIRE_FIXED32 = 5 };

struct spm_spec {
    uint64_t model_type, dummy_prefix, remove_extra, escape, suffix, byte_fallback;
    size_t charsmap_len, denormalizer_len;
};

static bool read_varint(struct pb *m, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        unsigned char byte = m->data[m->at++];
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool read_fixed(struct pb *m, size_t n, uint64_t *out)
{
    *out = 0;
    if (m->end - m->at < n)
        return false;
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)m->data[m->at++] << (8 * i);
    return true;
}

/* The next field of a message that is not at its end; false: ill-formed. */
static bool next_field(struct pb *m, struct pb_field *f)
{
    uint64_t tag, len;
    if (!read_varint(m, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *f = (struct pb_field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(m, &f->value);
    case WIRE_FIXED64:
        return read_fixed(m, 8, &f->value);
    case WIRE_FIXED32:
        return read_fixed(m, 4, &f->value);
    case WIRE_BYTES:
        if (!read_varint(m, &len) || len > m->end - m->at)
            return false;
        f->body = (struct pb){m->data, m->at, m->at + (size_t)len};
        m->at += (size_t)len;
        return true;
    default:
        return false; /* groups are not used by this schema */
    }
}

static enum hg_status broken(const char *where, const struct pb *m, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_FILE, "%s: broken or cut protobuf near byte %zu", where,
                   m->at);
}

static enum hg_status parse_piece(const char *where, struct pb m, struct hg_tokenizer *t,
                                  struct hg_error *err)
{
    const char *s = NULL;
    size_t n = 0;
    float score = 0.0f;
    uint64_t kind = HG_PIECE_NORMAL;
    struct pb_field f;
    while (m.at < m.end) {
        if (!next_field(&m, &f))
            return broken(where, &m, err);
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            s = (const char *)m.data + f.body.at;
            n = f.body.end - f.body.at;
        } else if (f.number == 2 && f.wire == WIRE_FIXED32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            kind = f.value;
        }
    }
    size_t id = t->vocab.n;
    if (kind < HG_PIECE_NORMAL || kind > HG_PIECE_BYTE)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: piece %zu has type %llu, expected 1..6",
                       where, id, (unsigned long long)kind);
    if (n == 0 || !hg_utf8_valid(s, n))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: piece %zu is not a UTF-8 string", where, id);
    return hg_vocab_put(&t->vocab, (int64_t)id, s, n, (enum hg_piece_kind)kind, score, err);
}

/* One sub-message whose varint fields and byte fields go to numbered places. */
static enum hg_status parse_spec(const char *where, struct pb m, bool trainer,
                                 struct spm_spec *spec, struct hg_error *err)
{
    struct pb_field f;
    while (m.at < m.end) {
        if (!next_field(&m, &f))
            return broken(where, &m, err);
        uint64_t *place = NULL;
        if (trainer)
            place = f.number == 3    ? &spec->model_type
                    : f.number == 24 ? &spec->suffix
                    : f.number == 35 ? &spec->byte_fallback
                                     : NULL;
        else if (f.number == 2 && f.wire == WIRE_BYTES)
            spec->charsmap_len = f.body.end - f.body.at;
        else
            place = f.number == 3   ? &spec->dummy_prefix
                    : f.number == 4 ? &spec->remove_extra
                    : f.number == 5 ? &spec->escape
                                    : NULL;
        if (place && f.wire == WIRE_VARINT)
            *place = f.value;
    }
    return HG_STATUS_OK;
}

static enum hg_status check_spec(const char *where, const struct spm_spec *s, struct hg_error *err)
{
    const char *what = NULL;
    if (s->model_type != 2)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: SentencePiece model_type %llu, expected 2 (BPE)", where,
                       (unsigned long long)s->model_type);
    if (s->charsmap_len || s->denormalizer_len)
        what = "a normaliser that is not the identity";
    else if (!s->escape)
        what = "escape_whitespaces = false";
    else if (s->remove_extra)
        what = "remove_extra_whitespaces = true";
    else if (s->suffix)
        what = "treat_whitespace_as_suffix = true";
    if (what)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s is not supported", where, what);
    return HG_STATUS_OK;
}

enum hg_status hg_spm_parse(const char *where, const unsigned char *data, size_t n,
                            struct hg_tokenizer *t, struct hg_error *err)
{
    struct pb m = {data, 0, n};
    struct spm_spec spec = {.model_type = 1, .dummy_prefix = 1, .remove_extra = 1, .escape = 1};
    struct spm_spec denormalizer = {0};
    struct pb_field f;
    while (m.at < m.end) {
        if (!next_field(&m, &f))
            return broken(where, &m, err);
        if (f.wire != WIRE_BYTES)
            continue;
        if (f.number == 1)
            HG_TRY(parse_piece(where, f.body, t, err));
        else if (f.number == 2 || f.number == 3)
            HG_TRY(parse_spec(where, f.body, f.number == 2, &spec, err));
        else if (f.number == 5)
            HG_TRY(parse_spec(where, f.body, false, &denormalizer, err));
    }
    spec.denormalizer_len = denormalizer.charsmap_len;
    HG_TRY(check_spec(where, &spec, err));
    t->prefix_space = spec.dummy_prefix != 0;
    t->byte_fallback = spec.byte_fallback != 0;
    return hg_spm_finish(where, t, err);
}
