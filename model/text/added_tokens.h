/* model/text/added_tokens.h - cutting a chunk at its added tokens ("<|end|>").
 *
 * Leftmost match, the longest token there, in trusted parts only; then the strip flags of the
 * tokens act on the neighbouring text (transformers' PreTrainedTokenizer.tokenize). */
#ifndef HG_MODEL_TEXT_ADDED_TOKENS_H
#define HG_MODEL_TEXT_ADDED_TOKENS_H

#include "common/buf.h"
#include "model/text/vocab.h"

enum { HG_ADDED_MAX_LEN = 255 };

struct hg_prefix_set { /* some strings of a vocabulary: which lengths and first bytes occur */
    uint64_t lens[4], first[4];
    size_t max_len;
};

void hg_prefix_set_add(struct hg_prefix_set *set, const char *s, size_t n); /* n <= 255 */
/* Longest string of the set at s[0..n) whose piece satisfies `wanted`; -1: none. */
int32_t hg_prefix_set_match(const struct hg_prefix_set *set, const struct hg_vocab *v,
                            bool (*wanted)(const struct hg_piece *), const char *s, size_t n);
bool hg_piece_is_added(const struct hg_piece *p);

/* Make `s` the added token `id` (its own piece, or a new one) with these flags of enum
 * hg_piece_flag; HG_PIECE_ADDED is implied. */
enum hg_status hg_added_put(struct hg_vocab *v, struct hg_prefix_set *set, int64_t id,
                            const char *s, size_t n, unsigned flags, struct hg_error *err);

struct hg_segment {
    size_t begin, end; /* of hg_segments.text */
    int32_t id;        /* an added token, or -1: text */
};

struct hg_segments { /* a zeroed struct is empty */
    struct hg_buf text;
    struct hg_segment *data;
    size_t n, cap;
    size_t open; /* where the text not yet closed begins */
    bool strip;  /* the open text loses its leading whitespace */
};

void hg_segments_deinit(struct hg_segments *segs);
/* Append a part that has been cleaned (valid UTF-8). */
enum hg_status hg_segments_add(struct hg_segments *segs, const struct hg_vocab *v,
                               const struct hg_prefix_set *set, const char *s, size_t n,
                               bool trusted);
enum hg_status hg_segments_finish(struct hg_segments *segs);

#endif
