/* model/text/pretokenize.h - the patterns that cut text into words before byte-level BPE.
 *
 * Scanners written out by hand for three regular expressions, each alternative in its order
 * (reference.md 9.4, 9.5, 19.3):
 *   gpt2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   qwen2  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *          \s*[\r\n]+|\s+(?!\S)|\s+
 *   cl100k as qwen2, with \p{N}{1,3}
 * They never go back further than over one run of whitespace, and over that only once: a character
 * is looked at a bounded number of times, whatever the text. */
#ifndef HG_MODEL_TEXT_PRETOKENIZE_H
#define HG_MODEL_TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hg_pattern { HG_PATTERN_GPT2, HG_PATTERN_QWEN2, HG_PATTERN_CL100K, HG_PATTERN_COUNT };

struct hg_words { /* set pattern, s and n; the rest begins as zero */
    enum hg_pattern pattern;
    const char *s; /* valid UTF-8 */
    size_t n, at;
    uint64_t n_looks; /* characters looked at: what the work is measured by */
};

/* The next piece of the text, in order and without gaps; false at the end. */
bool hg_words_next(struct hg_words *w, const char **word, size_t *n);

/* The pattern whose regular expression, as tokenizer.json writes it, is this; COUNT: none. */
enum hg_pattern hg_pattern_of_regex(const char *regex);
/* "gpt2", "qwen2", "cl100k"; COUNT: none of them. */
enum hg_pattern hg_pattern_of_name(const char *name);

#endif
