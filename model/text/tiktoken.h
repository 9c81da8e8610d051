/* model/text/tiktoken.h - rank files: one token a line, its bytes in base64, a space, its rank.
 *
 * A rank is an id, and the order of merging: of two neighbours those merge first that are the token
 * of the lowest rank together; a word that is a token is that token at once. */
#ifndef HG_MODEL_TEXT_TIKTOKEN_H
#define HG_MODEL_TEXT_TIKTOKEN_H

#include "model/text/internal.h"

/* Does the first line look like one of a rank file? */
bool hg_is_tiktoken(const unsigned char *data, size_t n);

/* Fill a fresh tokenizer. Pattern COUNT is cl100k; with qwen2 the text is brought to NFC, as that
 * family does. Such a file has no special token. BAD_FILE with the line. Pure. */
enum hg_status hg_tiktoken_ranks(const char *where, const unsigned char *data, size_t n,
                                 enum hg_pattern pattern, struct hg_tokenizer *t,
                                 struct hg_error *err);

#endif
