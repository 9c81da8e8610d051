/* model/text/gguf.h - the vocabulary inside a GGUF file (llama.cpp), so that ids can be compared.
 *
 * Layout (little-endian): "GGUF", u32 version (2 or 3), u64 tensors, u64 keys, then per key:
 * string, u32 type, value; a string is u64 length and bytes, an array u32 type, u64 count,
 * elements. Only these metadata are read; tensors are not looked at. Used keys:
 * tokenizer.ggml.{model, pre, tokens, scores, token_type, merges, bos_token_id, eos_token_id,
 * unknown_token_id, padding_token_id, add_bos_token, add_space_prefix}, general.architecture. */
#ifndef HG_MODEL_TEXT_GGUF_H
#define HG_MODEL_TEXT_GGUF_H

#include "model/text/internal.h"

bool hg_is_gguf(const unsigned char *data, size_t n);

/* Fill a fresh tokenizer: model "llama" is SentencePiece BPE as LlamaTokenizer(legacy=false) uses
 * it, "gpt2" byte-level BPE whose pattern is `pattern`, or (COUNT) what tokenizer.ggml.pre says:
 * gpt-2, qwen2, or one of those that cut as cl100k. Control tokens become added tokens. GGUF has no
 * strip flags: in architecture phi3 all of them but bos, eos and unknown eat the whitespace on
 * their right (reference.md 9.3); a gpt2 model's eat none. Unused [PAD] rows are no tokens. Pure:
 * hostile bytes end in BAD_FILE, in time and memory linear in n. */
enum hg_status hg_gguf_vocab(const char *where, const unsigned char *data, size_t n,
                             enum hg_pattern pattern, struct hg_tokenizer *t, struct hg_error *err);

#endif
