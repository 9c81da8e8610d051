/* model/load/expect.h - "expect" of a card: constants of the published model beside what its files
 * say.
 *
 * The files decide, always: reference.md 1 says "read the files, the table is only a cross-check
 * that must produce a warning on mismatch". An expectation has a file, a key in it and a number
 * (or, for ids, up to HG_MAX_EXPECTED that must all be there):
 *
 *   config.json             the key of the file itself: hidden_size, num_hidden_layers, ...
 *   generation_config.json  eos_token_id, repetition_penalty
 *   tokenizer               size, first_image_id, size_with_images
 *   vision/config.json      hidden_size, num_hidden_layers, image_size, patch_size
 *   vqgan                   codes
 *   comprehension, generation  rank, experts          of the plug-in's tensors
 *
 * Other files and keys are refused when the card is read: a misspelt check would never warn. */
#ifndef HG_MODEL_LOAD_EXPECT_H
#define HG_MODEL_LOAD_EXPECT_H

#include "model/load/model_config.h"

enum hg_status hg_expect_parse(const struct hg_json_view *card, struct hg_model_card *c,
                               struct hg_error *err);

/* What was found; NULL and 0: not known, not compared. */
struct hg_expect_facts {
    const struct hg_llm_config *llm;
    const struct hg_vision_config *vision;
    int tokenizer_size, first_image_id, size_with_images, n_codes;
    int rank[HG_CARD_TASKS], experts[HG_CARD_TASKS];
};

/* A line for each mismatch: "config.json: hidden_size: expected 3072 (healthgpt-m3), got 5120".
 * Returns their number. */
typedef void hg_expect_fn(void *ctx, const char *line);
int hg_expect_compare(const struct hg_model_card *c, const struct hg_expect_facts *facts,
                      hg_expect_fn *fn, void *ctx);

/* The first number of an expectation; `otherwise` when the card has none of it. */
double hg_expect_value(const struct hg_model_card *c, const char *file, const char *key,
                       double otherwise);

#endif
