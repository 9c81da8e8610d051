/* model/text/tokenizer_file.h - a tokenizer out of one file, known by what is in it. */
#ifndef HG_MODEL_TEXT_TOKENIZER_FILE_H
#define HG_MODEL_TEXT_TOKENIZER_FILE_H

#include <jansson.h>

#include "model/text/internal.h"

enum hg_status hg_load_spm(const char *path, struct hg_tokenizer *t, struct hg_error *err);
/* The caller's t->family wins over what the file asks for; *doc is the caller's to free. */
enum hg_status hg_load_tokenizer_json(const char *path, struct hg_tokenizer *t, json_t **doc,
                                      struct hg_error *err);
/* GGUF, tiktoken ranks, tokenizer.json or tokenizer.model. `pattern` COUNT: the file's own. */
enum hg_status hg_load_tokenizer_file(const char *path, enum hg_pattern pattern,
                                      struct hg_tokenizer *t, struct hg_error *err);

#endif
