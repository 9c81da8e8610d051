/* model/task.h - task profiles: everything that tells visual question answering from image
 * generation.
 *
 * One language model, told apart by a profile: plug-in slot, embedding/head set, vision layer,
 * projector, prompt suffix, allowed ids, default length (reference.md sections 6, 9, 11, 13). */
#ifndef HG_MODEL_TASK_H
#define HG_MODEL_TASK_H

#include "model/healthgpt.h"
#include "model/projector.h"

struct hg_task_profile {
    bool present;
    int slot;                       /* H-LoRA plug-in, -1 none */
    int set;                        /* embedding table, head and norm */
    int vision_layer;               /* hidden state of the vision tower, >= 0 */
    struct hg_projector *projector; /* NULL: no images */
    bool start_image;               /* the prompt ends with <start_index> */
    int32_t lo, hi;                 /* ids that may be sampled */
    int32_t n_rows;                 /* rows of its embedding table: prompt ids are below */
    int max_new_tokens;
};

#endif
