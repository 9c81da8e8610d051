/* tools/healthgpt/inspect_llm.h - does a language model folder hold every tensor, in its shape? */
#ifndef HG_TOOLS_INSPECT_LLM_H
#define HG_TOOLS_INSPECT_LLM_H

#include "model/load/model_config.h"

enum { HG_INSPECT_LINE = 144 };

/* Reads headers only. Writes one line for each of the first `cap` tensors that are missing or
 * mis-shaped and returns how many there are. */
size_t hg_inspect_llm(const char *dir, const struct hg_llm_config *c, char lines[][HG_INSPECT_LINE],
                      size_t cap);

#endif
