/* model/text/pretokenize.h - the patterns that cut text into words before byte-level BPE.
 *
 * PCRE2 with Unicode properties. \s is spelled out: PCRE2 counts U+180E as a space, Unicode and the
 * Python `regex` module do not. The match limit is a bound, not a tuning: these patterns need at
 * most a few steps per character of one run of whitespace. */
#ifndef HG_MODEL_TEXT_PRETOKENIZE_H
#define HG_MODEL_TEXT_PRETOKENIZE_H

#include <stddef.h>

#include "common/status.h"

enum hg_pattern { HG_PATTERN_GPT2, HG_PATTERN_QWEN2, HG_PATTERN_CL100K, HG_PATTERN_COUNT };

struct hg_pretokenizer; /* immutable, thread-safe */

enum hg_status hg_pretokenizer_create(enum hg_pattern pattern, struct hg_pretokenizer **out,
                                      struct hg_error *err);
void hg_pretokenizer_destroy(struct hg_pretokenizer *p);

/* Call `word` for every piece of s[0..n) (valid UTF-8), in order and without gaps. A status other
 * than OK from `word` ends the walk and is returned. */
typedef enum hg_status (*hg_word_fn)(void *user, const char *s, size_t n);
enum hg_status hg_pretokenizer_run(const struct hg_pretokenizer *p, const char *s, size_t n,
                                   hg_word_fn word, void *user);

/* The pattern whose regular expression, as tokenizer.json writes it, is this; COUNT: none. */
enum hg_pattern hg_pattern_of_regex(const char *regex);

#endif
