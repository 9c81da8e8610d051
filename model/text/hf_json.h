/* model/text/hf_json.h - vocab.json, merges.txt and tokenizer.json. */
#ifndef HG_MODEL_TEXT_HF_JSON_H
#define HG_MODEL_TEXT_HF_JSON_H

#include <jansson.h>

#include "model/text/internal.h"

/* vocab.json ({"token": id}) and merges.txt (one "left right" a line, best first). Both parsers are
 * pure; a merge of or to a token that the vocabulary lacks is BAD_FILE with its line. */
enum hg_status hg_hf_vocab(const char *where, const json_t *vocab, struct hg_tokenizer *t,
                           struct hg_error *err);
enum hg_status hg_hf_merges_text(const char *where, const char *s, size_t n, struct hg_tokenizer *t,
                                 struct hg_error *err);

/* One merge, "left right" with exactly one space. */
enum hg_status hg_hf_merge(const char *where, size_t rank, const char *s, size_t n,
                           struct hg_tokenizer *t, struct hg_error *err);

/* tokenizer.json: only model type BPE. Fills vocabulary, merges and byte_fallback; with
 * byte_fallback it is the SentencePiece family, else the byte-level one, and t->pattern is what its
 * pre_tokenizer asks for (the caller may know better: the slow tokenizer classes have their own).
 */
enum hg_status hg_hf_tokenizer_json(const json_t *doc, struct hg_tokenizer *t,
                                    struct hg_error *err);

#endif
