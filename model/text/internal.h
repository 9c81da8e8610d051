/* model/text/internal.h - what the files of this folder share: the tokenizer itself. */
#ifndef HG_MODEL_TEXT_INTERNAL_H
#define HG_MODEL_TEXT_INTERNAL_H

#include "model/text/added_tokens.h"
#include "model/text/bpe.h"
#include "model/text/pretokenize.h"
#include "model/text/tokenizer.h"
#include "model/text/vocab.h"

enum hg_tokenizer_family {
    HG_FAMILY_NONE,
    HG_FAMILY_LLAMA, /* SentencePiece BPE, transformers' LlamaTokenizer */
    HG_FAMILY_GPT2,  /* byte-level BPE, GPT2Tokenizer */
    HG_FAMILY_QWEN2, /* byte-level BPE after NFC, Qwen2Tokenizer */
};

enum { HG_TEXT_MAX_BYTES = 64 << 20 }; /* one chunk; keeps 32-bit offsets safe */

struct hg_tokenizer {
    enum hg_tokenizer_family family;
    struct hg_vocab vocab;
    struct hg_merges merges; /* empty: scores decide */
    struct hg_prefix_set added;
    struct hg_prefix_set user_defined; /* SentencePiece's atomic symbols */
    enum hg_pattern pattern;           /* byte-level families */
    int32_t bos, eos, unk;             /* -1: none */
    int32_t byte_ids[256];             /* -1: none */
    bool add_bos;
    bool legacy;        /* LlamaTokenizer(legacy=True): U+2581 before every piece of text */
    bool prefix_space;  /* U+2581 in front of a chunk (legacy: the model's add_dummy_prefix) */
    bool byte_fallback; /* characters outside of the vocabulary become byte pieces */
    bool clean_up;      /* clean_up_tokenization_spaces: " ." becomes "." in answers */
    bool by_rank;    /* tiktoken: no merge table, two parts merge when they are a token together */
    bool word_bound; /* no piece holds U+2581 after another character: words are independent */
};

struct hg_encode_work { /* scratch of one encoding; a zeroed struct is empty */
    struct hg_bpe_work bpe;
    struct hg_buf
        text;     /* the text as the vocabulary writes it: U+2581 for spaces, or GPT-2's alphabet */
    size_t first; /* of ids, where the segment begins */
    uint64_t n_looks; /* characters that the pattern looked at */
};
void hg_encode_work_deinit(struct hg_encode_work *w);

/* U+2581 LOWER ONE EIGHTH BLOCK, SentencePiece's space */
#define HG_SPM_SPACE "\xe2\x96\x81"

enum { HG_SPM_SPACE_LEN = 3 };

/* How many bytes of the ill-formed sequence at s[0..n) one U+FFFD stands for: the longest part that
 * could have become valid (Unicode 3.9, "maximal subpart"), as Python decodes with
 * errors='replace'. */
size_t hg_utf8_bad_len(const char *s, size_t n);

#endif
