/* tools/healthgpt/estimate.h - what a model comes to by the constants that its card expects: for
 * somebody who has not got the files yet. */
#ifndef HG_TOOLS_ESTIMATE_H
#define HG_TOOLS_ESTIMATE_H

#include "model/load/model_config.h"
#include "tools/healthgpt/inspect_file.h"

/* The tensors of every piece of the card, counted by formula (reference.md 1, 2.1 to 2.3), 16-bit
 * as published; its VQGAN counts as the published one of 8192 codes. False: the card does not say
 * enough. */
bool hg_estimate(const struct hg_model_card *c, struct hg_inspect_parts *parts,
                 struct hg_llm_config *llm, struct hg_vision_config *vision);

#endif
