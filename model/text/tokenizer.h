/* model/text/tokenizer.h - text -> token ids -> text, from the model's own files.
 *
 * Families (reference.md section 9): SentencePiece BPE with byte fallback (Phi-3; LlamaTokenizer
 * slow, legacy=false), byte-level BPE with a pre-tokenisation pattern (Phi-4: GPT-2 pattern;
 * Qwen2.5: NFC + Qwen2 pattern). Read from a folder: tokenizer_config.json, tokenizer.model,
 * vocab.json + merges.txt, tokenizer.json, added_tokens.json, whichever are there. Immutable after
 * load and thread-safe. */
#ifndef HG_MODEL_TEXT_TOKENIZER_H
#define HG_MODEL_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

struct hg_tokenizer;

struct hg_ids { /* growable; a zeroed struct is empty */
    int32_t *data;
    size_t n, cap;
};
void hg_ids_deinit(struct hg_ids *ids);
enum hg_status hg_ids_push(struct hg_ids *ids, int32_t id);

/* A chunk of prompt is a row of parts. In a trusted part added-token strings ("<|end|>") become
 * their ids; in any other part they are plain text, so user text never yields a special id. Strip
 * flags of an added token act on the neighbouring text, also across parts. */
struct hg_text_part {
    const char *text;
    size_t n;
    bool trusted;
};

/* `path`: a folder, or one file: tokenizer.json, tokenizer.model, a tiktoken rank file or a GGUF
 * file (its vocabulary). */
enum hg_status hg_tokenizer_load(const char *path, struct hg_tokenizer **out, struct hg_error *err);
/* With another regular expression than the files say: "gpt2", "qwen2" or "cl100k" (pretokenize.h).
 * A rank file names none: it has cl100k's unless told, and qwen2 means NFC too. */
enum hg_status hg_tokenizer_load_as(const char *path, const char *regex, struct hg_tokenizer **out,
                                    struct hg_error *err);
void hg_tokenizer_free(struct hg_tokenizer *t);

/* Append <start_index>, <idx_0>..<idx_{n-1}>, <end_index>, <pixel_newline> (reference.md section 7)
 * at the next free ids; returns through *first the id of <start_index>. */
enum hg_status hg_tokenizer_add_image_tokens(struct hg_tokenizer *t, int n_index, int32_t *first,
                                             struct hg_error *err);

int32_t hg_tokenizer_size(const struct hg_tokenizer *t); /* distinct ids: len(tokenizer) */
int32_t hg_tokenizer_id(const struct hg_tokenizer *t, const char *token); /* -1: none */
bool hg_tokenizer_is_added(const struct hg_tokenizer *t, int32_t id);
/* The literal token string (piece or added token), NULL when out of range. */
const char *hg_tokenizer_token(const struct hg_tokenizer *t, int32_t id);
const char *hg_tokenizer_family(const struct hg_tokenizer *t);
int32_t hg_tokenizer_bos(const struct hg_tokenizer *t); /* -1 unless add_bos_token */
int32_t hg_tokenizer_eos(const struct hg_tokenizer *t);

/* Encode one chunk as the reference's tokenizer(chunk).input_ids does (BOS when the files say so;
 * Phi-3's stray U+2581 in front). Invalid UTF-8 is replaced by U+FFFD. Appends to ids. Time is
 * O(n log n). */
enum hg_status hg_tokenizer_encode(const struct hg_tokenizer *t, const struct hg_text_part *parts,
                                   size_t n_parts, struct hg_ids *ids, struct hg_error *err);

/* Streaming detokeniser: push ids one by one; appends to `out` only text that can no longer change
 * (incomplete UTF-8 is held back). Added tokens yield nothing unless `show_added`. The first piece
 * of a SentencePiece answer loses one leading space. With clean_up_tokenization_spaces, spaces in
 * front of punctuation and contractions go (" ." -> "."), as transformers does it. finish() flushes
 * what was held back (invalid bytes become U+FFFD). */
struct hg_detok {
    const struct hg_tokenizer *tokenizer;
    bool started, show_added;
    char held[8]; /* of a character that is not complete */
    size_t n_held;
    char tail[64]; /* what clean-up may still change */
    size_t n_tail;
};
void hg_detok_init(struct hg_detok *d, const struct hg_tokenizer *t, bool show_added);
enum hg_status hg_detok_push(struct hg_detok *d, int32_t id, struct hg_buf *out);
enum hg_status hg_detok_finish(struct hg_detok *d, struct hg_buf *out);

#endif
