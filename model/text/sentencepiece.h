/* model/text/sentencepiece.h - tokenizer.model (a protobuf ModelProto) and SentencePiece BPE. */
#ifndef HG_MODEL_TEXT_SENTENCEPIECE_H
#define HG_MODEL_TEXT_SENTENCEPIECE_H

#include "model/text/internal.h"

/* Fill vocabulary, byte ids, unk and the model's flags. Pure: `where` is only for messages.
 * Refused: any algorithm but BPE, a normaliser that is not the identity, escape_whitespaces off,
 * remove_extra_whitespaces, treat_whitespace_as_suffix. Hostile bytes end in BAD_FILE. */
enum hg_status hg_spm_parse(const char *where, const unsigned char *data, size_t n,
                            struct hg_tokenizer *t, struct hg_error *err);

/* After all pieces are there: byte ids, user-defined symbols, word boundaries. */
enum hg_status hg_spm_finish(const char *where, struct hg_tokenizer *t, struct hg_error *err);

/* Encode valid UTF-8 as SentencePieceProcessor.encode does, with U+2581 in front when `prefix`. */
enum hg_status hg_spm_encode(const struct hg_tokenizer *t, struct hg_encode_work *w, const char *s,
                             size_t n, bool prefix, struct hg_ids *ids);

#endif
