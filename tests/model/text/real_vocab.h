/* tests/model/text/real_vocab.h - real vocabularies of the shared data, written as the files that
 * models come with, so that tests go through the real readers.
 *
 * Each function fills a fresh folder (text_make_dir) and returns false when the data is absent. */
#ifndef HG_TESTS_MODEL_TEXT_REAL_VOCAB_H
#define HG_TESTS_MODEL_TEXT_REAL_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

/* Phi-3-mini: tokenizer.model (pieces and scores out of llama.cpp's GGUF) + its tokenizer_config.
 */
bool real_phi3(char dir[64]);
/* The same model from its tokenizer.json. */
bool real_phi3_json(char dir[64]);
/* GPT-2: vocab.json + merges.txt out of llama.cpp's GGUF. */
bool real_gpt2(char dir[64]);
/* Phi-4: cl100k_base ranks turned into vocab.json + merges.txt, Phi-4's tokenizer_config. */
bool real_phi4(char dir[64]);
/* cl100k_base as a tokenizer.json that asks for the cl100k pattern. */
bool real_cl100k_json(char dir[64]);
/* Qwen2.5: qwen.tiktoken ranks turned into vocab.json + merges.txt, Qwen2.5's tokenizer_config. */
bool real_qwen25(char dir[64]);

/* ---- a writer of tokenizer.model files ---- */
void spm_put_piece(struct hg_buf *b, const char *s, size_t n, float score, int type);
/* Trainer and normaliser: BPE, byte fallback, identity, no dummy prefix, spaces kept. */
void spm_put_specs(struct hg_buf *b, bool byte_fallback);
/* Field `number` with wire type 0 (varint) or 2 (bytes). */
void spm_put_varint(struct hg_buf *b, uint32_t number, uint64_t value);
void spm_put_bytes(struct hg_buf *b, uint32_t number, const void *data, size_t n);

#endif
