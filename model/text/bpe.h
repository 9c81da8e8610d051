/* model/text/bpe.h - byte-pair merging in O(n log n): a linked list of symbols and a heap of pairs.
 *
 * Two ways to judge a pair, one loop: without a merge table a pair may merge when the joined string
 * is a piece, the piece's score decides (SentencePiece, bpe_model.cc); with one, the pair of ids is
 * looked up and its rank decides (GPT-2). Equal judgement: the leftmost pair first. */
#ifndef HG_MODEL_TEXT_BPE_H
#define HG_MODEL_TEXT_BPE_H

#include "model/text/vocab.h"

struct hg_merge {
    uint64_t key;  /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank; /* lower merges first */
    int32_t id;    /* of the joined token */
};

struct hg_merges { /* a zeroed struct is an absent table */
    struct hg_merge *slots;
    size_t n_slots, n;
};

void hg_merges_deinit(struct hg_merges *m);
/* A pair given twice keeps the later rank, as a Python dict does. */
enum hg_status hg_merges_put(struct hg_merges *m, int32_t left, int32_t right, uint32_t rank,
                             int32_t id);

struct hg_symbol {
    int32_t id;         /* -1: no such piece */
    int32_t prev, next; /* -1: none */
    uint32_t at;        /* where it begins in the text; it ends where the next one begins */
    int32_t joined;     /* what it merges to with the next one; -1: they do not merge */
    uint32_t cost;      /* of that merge */
};

struct hg_bpe_work { /* scratch of one encoding; a zeroed struct is empty */
    struct hg_symbol *symbols;
    size_t n_symbols, symbols_cap;
    uint64_t
        *heap; /* cost << 32 | index of the left symbol: small, as it is what the cache holds */
    size_t n_heap, heap_cap;
    uint64_t n_steps; /* merges judged and places of the heap passed, since the start of time */
    uint32_t end;     /* of the text of the last symbol */
    uint32_t *unused_left; /* [vocab.n], lazily: how an UNUSED piece was put together */
};

void hg_bpe_deinit(struct hg_bpe_work *w);
void hg_bpe_start(struct hg_bpe_work *w);
/* Symbols are added in the order of the text and without gaps. */
enum hg_status hg_bpe_add(struct hg_bpe_work *w, int32_t id, size_t at, size_t len);
size_t hg_bpe_len(const struct hg_bpe_work *w, const struct hg_symbol *s); /* bytes of its text */
/* Merge what was added; the result is the list from symbols[0] along .next. `text` may be NULL with
 * a merge table. */
enum hg_status hg_bpe_run(struct hg_bpe_work *w, const struct hg_vocab *v,
                          const struct hg_merges *merges, const char *text);

#endif
