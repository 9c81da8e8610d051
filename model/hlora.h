/* model/hlora.h - the adapters of one linear module, fetched from a plug-in file.
 *
 * Names: "<module>.lora_A.weight" [R, K], ".lora_B.weight" [N, R], ".lora_route.weight" [E, K]
 * (reference.md 2.3). R and E come from the shapes, alpha from the model card; scaling =
 * alpha / R * E (section 6). */
#ifndef HG_MODEL_HLORA_H
#define HG_MODEL_HLORA_H

#include "model/host_tensor.h"

/* `module` is e.g. "model.layers.0.self_attn.qkv_proj". The three tensors must exist. */
enum hg_status hg_hlora_get(struct hg_loader *l, const char *module, int n_in, int n_out,
                            float alpha, struct hg_adapter *out, struct hg_error *err);

/* Bytes of one module's A, B and router kept in `type` (hg_weight_desc.plugin), without what a
 * backend pads: int8 has an fp32 scale per row of each. For those who reckon before a load. */
static inline size_t hg_hlora_bytes(enum hg_dtype type, size_t n_in, size_t n_out, size_t rank,
                                    size_t n_experts)
{
    size_t values = (rank + n_experts) * n_in + n_out * rank, rows = rank + n_experts + n_out;
    return values * hg_dtype_bits(type) / 8 + (type == HG_DTYPE_I8 ? rows * sizeof(float) : 0);
}

#endif
