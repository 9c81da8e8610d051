/* model/text/hf_config.h - tokenizer_config.json: the class, its switches, its added tokens. */
#ifndef HG_MODEL_TEXT_HF_CONFIG_H
#define HG_MODEL_TEXT_HF_CONFIG_H

#include <jansson.h>

#include "model/text/internal.h"

enum { HG_TOKENIZER_FILE_MAX = 256 << 20 };

struct hg_hf_config {
    enum hg_tokenizer_family
        family; /* NONE: no file, or a class that leaves it to tokenizer.json */
    bool add_bos, legacy, prefix_space, clean_up;
    json_t *doc; /* NULL: no tokenizer_config.json */
};
void hg_hf_config_deinit(struct hg_hf_config *c);

/* Read dir/tokenizer_config.json; a missing file leaves an empty config. A switch that changes ids
 * and is not implemented is UNSUPPORTED by name. */
enum hg_status hg_hf_config_read(const char *dir, struct hg_hf_config *c, struct hg_error *err);

/* Define the added tokens in transformers' order: added_tokens_decoder, or else added_tokens.json
 * and after it `listed` (tokenizer.json's "added_tokens", also where the vocabulary is in another
 * file). special_tokens_map.json is never read (reference.md 7). `dir` and `listed` may be NULL. */
enum hg_status hg_hf_config_added(const struct hg_hf_config *c, const char *dir,
                                  const json_t *listed, struct hg_tokenizer *t,
                                  struct hg_error *err);

/* bos, eos, unk, pad and additional special tokens: from the file, else the class's own defaults.
 * One that has no id yet gets the next free one. */
enum hg_status hg_hf_config_specials(const struct hg_hf_config *c, struct hg_tokenizer *t,
                                     struct hg_error *err);

/* The last step of a load from these files: special tokens, switches, what the family needs. */
enum hg_status hg_hf_config_finish(const struct hg_hf_config *c, struct hg_tokenizer *t,
                                   struct hg_error *err);

#endif
