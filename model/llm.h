/* model/llm.h - the decoder-only language model with H-LoRA plug-ins (reference.md sections 5, 6).
 *
 * One forward serves any mix of sequences, tasks, prefill and decode: the plan says for every token
 * its position, sequence, plug-in slot and embedding set. Phi-3 (fused), Qwen2 (unfused, biases)
 * and Llama layouts give the same four weights per layer. */
#ifndef HG_MODEL_LLM_H
#define HG_MODEL_LLM_H

#include "kernels/backend.h"
#include "model/load/model_config.h"
#include "model/load/quant_cache.h"
#include "model/load/weights.h"

enum { HG_LLM_SETS = 2 };

struct hg_llm_layer {
    float *norm1, *norm2; /* (dev) [D] */
    struct hg_weight *qkv, *o, *gate_up, *down;
};

struct hg_llm_set {         /* embedding table, head and final norm of one task */
    void *table;            /* (dev) [rows, D] */
    struct hg_weight *head; /* [rows, D] */
    float *norm;            /* (dev) [D] */
    int rows;
    bool owns_table, owns_head, owns_norm;
};

struct hg_llm {
    struct hg_backend *backend;
    struct hg_llm_config config;
    enum hg_dtype table_type;
    enum hg_rounding rounding;
    struct hg_llm_layer *layers; /* [n_layers] */
    struct hg_llm_set sets[HG_LLM_SETS];
    float *inv_freq;          /* (dev) [P/2] */
    void *x, *q, *y, *hidden; /* (dev) [max_tokens, D], [., H*P], [., H*P], [., F] */
    size_t weight_bytes, plugin_bytes[HG_LLM_SETS], workspace_bytes;
};

enum hg_rope_mode { HG_ROPE_FP32, HG_ROPE_FP16, HG_ROPE_BF16 };

struct hg_llm_source {
    struct hg_weights *base;
    struct hg_weights *task[HG_LLM_SETS]; /* NULL: no plug-in; else lora and maybe tables */
    bool present[HG_LLM_SETS];            /* a task that the model lacks shares the other's set */
    float alpha[HG_LLM_SETS];
    enum hg_dtype store;          /* base linears */
    int plugin;                   /* of hg_weight_desc: adapters */
    struct hg_quant_cache *cache; /* of base, in that type; NULL: none */
    enum hg_rope_mode rope;
    enum hg_rounding rounding;
    int max_tokens; /* of one step: sizes the workspace */
};

enum hg_status hg_llm_load(struct hg_backend *b, const struct hg_llm_config *c,
                           const struct hg_llm_source *s, struct hg_llm **out,
                           struct hg_error *err);
void hg_llm_free(struct hg_llm *m);

/* What reserve() must allow for; reads shapes only. */
void hg_llm_limits(const struct hg_llm_config *c, const struct hg_llm_source *s,
                   struct hg_backend_limits *limits);

/* Multiply-adds of a prompt token in the layers' matrices: without attention, plug-ins, head. */
int64_t hg_llm_token_work(const struct hg_llm_config *c);

/* Inverse frequencies theta^(-2i/P), i < P/2, fp32, then rounded as the mode says (section 5.4). */
void hg_llm_inv_freq(double theta, int head_dim, enum hg_rope_mode mode, float *out);

/* All layers over the plan's tokens; the residual stream stays in m->x. features: (dev) rows for
 * negative token ids, may be NULL. */
enum hg_status hg_llm_forward(struct hg_llm *m, const struct hg_plan *plan, struct hg_kv *kv,
                              const void *features);
/* Final norm and head of the plan's out rows. */
enum hg_status hg_llm_head(struct hg_llm *m, const struct hg_plan *plan, float *logits, int64_t ld);

#endif
