/* model/prefix.h - the beginning of a prompt as a chain of keys, one per full KV block.
 *
 * A key hashes the key before it and what the block's positions hold; the first one stands on a
 * root of tenant, task and plug-in. Only positions of the prompt count: generated tokens may have
 * been computed in another order of additions (n_prompt of kernels/backend.h). Inside of
 * healthgpt_*.c. */
#ifndef HG_MODEL_PREFIX_H
#define HG_MODEL_PREFIX_H

#include "model/internal.h"

/* [any] Key of a picture: tenant, task and preprocessed pixels. */
struct hg_hash128 hg_picture_key(const struct hg_model *m, const struct hg_prepared *p,
                                 const float *pixels);

/* Take over the blocks that hold the beginning of the prompt, all but its last token at most; the
 * sequence has no block before. */
void hg_prefix_take(struct hg_seq *s);
/* Blocks of the prompt that are now complete may be found by others. */
void hg_prefix_publish(struct hg_seq *s);

#endif
