/* model/text/vocab.h - the table of token strings: id -> string, string -> id.
 *
 * Ids may have holes (kind ABSENT). Strings are stored once in one buffer, NUL-terminated, and
 * found through an open-addressing table, so that a string grown byte by byte (longest match) is
 * hashed only once. Filled at load, read-only afterwards. */
#ifndef HG_MODEL_TEXT_VOCAB_H
#define HG_MODEL_TEXT_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum hg_piece_kind { /* 1..6 are SentencePiece's own numbers */
                     HG_PIECE_ABSENT,
                     HG_PIECE_NORMAL,
                     HG_PIECE_UNKNOWN,
                     HG_PIECE_CONTROL,
                     HG_PIECE_USER_DEFINED,
                     HG_PIECE_UNUSED,
                     HG_PIECE_BYTE,
                     HG_PIECE_EXTRA, /* an added token outside of the model's own vocabulary */
};

enum hg_piece_flag {
    HG_PIECE_ADDED = 1,   /* an added token: only trusted text can yield it */
    HG_PIECE_LSTRIP = 2,  /* eats whitespace on its left */
    HG_PIECE_RSTRIP = 4,  /* eats whitespace on its right */
    HG_PIECE_SPECIAL = 8, /* bos, eos, unk, pad or an additional special token */
};

enum { HG_VOCAB_MAX = 1 << 21, HG_PIECE_MAX_LEN = 4096 };

struct hg_piece {
    uint32_t at, n; /* place of the string in hg_vocab.text, its length in bytes */
    uint32_t cost;  /* the score turned around: a lower cost merges first */
    uint8_t kind, flags;
};

struct hg_vocab_slot {
    uint32_t hash, id_plus_1; /* id_plus_1 == 0: free */
};

struct hg_vocab {
    struct hg_buf text;
    struct hg_piece *pieces;
    size_t n, cap; /* n: highest id + 1 */
    size_t n_keys; /* ids in use */
    struct hg_vocab_slot *slots;
    size_t n_slots;  /* a power of two */
    size_t max_len;  /* longest string that text may merge to */
    bool has_unused; /* some piece is UNUSED */
};

enum { HG_HASH_SEED = 2166136261u };
static inline uint32_t hg_hash_step(uint32_t hash, unsigned char byte) /* FNV-1a */
{
    return (hash ^ byte) * 16777619u;
}

void hg_vocab_deinit(struct hg_vocab *v);

/* Define one id. Fails when the id or the string is taken (the message names both). */
enum hg_status hg_vocab_put(struct hg_vocab *v, int64_t id, const char *s, size_t n,
                            enum hg_piece_kind kind, float score, struct hg_error *err);
int32_t hg_vocab_find(const struct hg_vocab *v, const char *s, size_t n); /* -1: none */
int32_t hg_vocab_find_hashed(const struct hg_vocab *v, uint32_t hash, const char *s, size_t n);

static inline const char *hg_vocab_string(const struct hg_vocab *v, int32_t id)
{
    return v->text.data + v->pieces[id].at;
}

/* Can a merge of plain text yield this piece? */
static inline bool hg_vocab_mergeable(const struct hg_vocab *v, int32_t id)
{
    const struct hg_piece *p = &v->pieces[id];
    return !(p->flags & HG_PIECE_ADDED) &&
           (p->kind == HG_PIECE_NORMAL || p->kind == HG_PIECE_USER_DEFINED ||
            p->kind == HG_PIECE_UNUSED);
}

#endif
