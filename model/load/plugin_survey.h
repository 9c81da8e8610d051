/* model/load/plugin_survey.h - what the tensors of an H-LoRA file tell: for which base it is, and
 * for which task. Shapes only. */
#ifndef HG_MODEL_LOAD_PLUGIN_SURVEY_H
#define HG_MODEL_LOAD_PLUGIN_SURVEY_H

#include "model/load/model_config.h"
#include "model/load/weights.h"

struct hg_plugin_survey {
    int n_lora, n_layers;         /* lora_A tensors; 1 + the highest layer */
    int64_t dim, rank, n_experts; /* of the first attention module */
    bool fused, has_table;        /* has_table: embeddings, as fusion files have */
    char bad[160];                /* the first tensor that does not fit the base; "": all do */
};

/* c NULL: there is nothing to compare with. */
void hg_plugin_survey(const struct hg_weights *w, const struct hg_llm_config *c,
                      struct hg_plugin_survey *out);

#endif
