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

#endif
