/* model/numerics.h - numerics "strict": the reference's FP16 run, rounding point by rounding point
 * (reference.md 4, 5, 6, 8; hg_rounding in kernels/backend.h), for comparisons. The ref backend
 * computes it: slow, and with products summed in double. The VQGAN stays fp32, as there. */
#ifndef HG_MODEL_NUMERICS_H
#define HG_MODEL_NUMERICS_H

#include "model/healthgpt.h"

/* `asked` with what its numerics ask for: weights and cache f16, rotary frequencies fp16 (unless
 * `rope` says otherwise), backend ref. BAD_REQUEST naming the option that asks for something else.
 */
enum hg_status hg_numerics_apply(const struct hg_model_options *asked, struct hg_model_options *out,
                                 struct hg_error *err);

/* Phi-3 ran eager attention in the reference, Qwen2 the fused one (5.5, 5.6); so did the vision
 * tower beside it. */
enum hg_rounding hg_numerics_rounding(const struct hg_model_options *o, const char *arch);

#endif
