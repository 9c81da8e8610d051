/* model/llm.c - forward pass: one loop over the layers, four fused linears and one attention each.
 *
 *   q, cache += rope(qkv(rmsnorm(x)))          linear, epilogue ROPE_KV
 *   y  = attention(q, cache)
 *   x += o(y)                                  epilogue RESIDUAL
 *   h  = silu(gate(n)) * up(n), n = rmsnorm(x) epilogue SWIGLU
 *   x += down(h)                               epilogue RESIDUAL
 */
#include "model/llm.h"

#include <math.h>

int64_t hg_llm_token_work(const struct hg_llm_config *c)
{
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    return c->n_layers * (int64_t)c->dim * (2 * q + 2 * kv + 3 * (int64_t)c->ffn_dim);
}

static enum hg_status attention_block(struct hg_llm *m, const struct hg_plan *plan,
                                      struct hg_kv *kv, int index)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    const struct hg_llm_config *c = &m->config;
    const struct hg_llm_layer *layer = &m->layers[index];
    int width = c->n_heads * c->head_dim;
    struct hg_rope_kv rope = {.plan = plan,
                              .inv_freq = m->inv_freq,
                              .kv = kv,
                              .layer = index,
                              .n_heads = c->n_heads,
                              .n_kv_heads = c->n_kv_heads,
                              .head_dim = c->head_dim};
    HG_TRY(ops->linear(m->backend, &(struct hg_linear_args){.w = layer->qkv,
                                                            .n_rows = plan->n_tokens,
                                                            .n_prompt = plan->n_prompt,
                                                            .x = m->x,
                                                            .ldx = c->dim,
                                                            .norm = layer->norm1,
                                                            .norm_eps = c->norm_eps,
                                                            .slot = plan->slot,
                                                            .epilogue = HG_EPILOGUE_ROPE_KV,
                                                            .rounding = m->rounding,
                                                            .rope = &rope,
                                                            .y = m->q,
                                                            .ldy = width}));
    HG_TRY(ops->attention(m->backend,
                          &(struct hg_attention_args){.plan = plan,
                                                      .kv = kv,
                                                      .layer = index,
                                                      .n_heads = c->n_heads,
                                                      .n_kv_heads = c->n_kv_heads,
                                                      .head_dim = c->head_dim,
                                                      .window = c->sliding_window,
                                                      .scale = 1.0f / sqrtf((float)c->head_dim),
                                                      .rounding = m->rounding,
                                                      .q = m->q,
                                                      .y = m->y}));
    return ops->linear(m->backend, &(struct hg_linear_args){.w = layer->o,
                                                            .n_rows = plan->n_tokens,
                                                            .n_prompt = plan->n_prompt,
                                                            .x = m->y,
                                                            .ldx = width,
                                                            .slot = plan->slot,
                                                            .epilogue = HG_EPILOGUE_RESIDUAL,
                                                            .rounding = m->rounding,
                                                            .residual = m->x,
                                                            .ld_residual = c->dim,
                                                            .y = m->x,
                                                            .ldy = c->dim});
}

static enum hg_status mlp_block(struct hg_llm *m, const struct hg_plan *plan, int index)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    const struct hg_llm_config *c = &m->config;
    const struct hg_llm_layer *layer = &m->layers[index];
    HG_TRY(ops->linear(m->backend, &(struct hg_linear_args){.w = layer->gate_up,
                                                            .n_rows = plan->n_tokens,
                                                            .n_prompt = plan->n_prompt,
                                                            .x = m->x,
                                                            .ldx = c->dim,
                                                            .norm = layer->norm2,
                                                            .norm_eps = c->norm_eps,
                                                            .slot = plan->slot,
                                                            .epilogue = HG_EPILOGUE_SWIGLU,
                                                            .rounding = m->rounding,
                                                            .y = m->hidden,
                                                            .ldy = c->ffn_dim}));
    return ops->linear(m->backend, &(struct hg_linear_args){.w = layer->down,
                                                            .n_rows = plan->n_tokens,
                                                            .n_prompt = plan->n_prompt,
                                                            .x = m->hidden,
                                                            .ldx = c->ffn_dim,
                                                            .slot = plan->slot,
                                                            .epilogue = HG_EPILOGUE_RESIDUAL,
                                                            .rounding = m->rounding,
                                                            .residual = m->x,
                                                            .ld_residual = c->dim,
                                                            .y = m->x,
                                                            .ldy = c->dim});
}

enum hg_status hg_llm_forward(struct hg_llm *m, const struct hg_plan *plan, struct hg_kv *kv,
                              const void *features)
{
    struct hg_embed_args embed = {.plan = plan,
                                  .table_type = m->table_type,
                                  .features = features,
                                  .dim = m->config.dim,
                                  .y = m->x};
    for (int s = 0; s < HG_LLM_SETS; s++)
        embed.tables[s] = m->sets[s].table;
    HG_TRY(m->backend->ops->embed(m->backend, &embed));
    for (int i = 0; i < m->config.n_layers; i++) {
        HG_TRY(attention_block(m, plan, kv, i));
        HG_TRY(mlp_block(m, plan, i));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_llm_head(struct hg_llm *m, const struct hg_plan *plan, float *logits, int64_t ld)
{
    struct hg_head_args a = {.plan = plan,
                             .x = m->x,
                             .norm_eps = m->config.norm_eps,
                             .rounding = m->rounding,
                             .logits = logits,
                             .ld = ld};
    for (int s = 0; s < HG_LLM_SETS; s++) {
        a.norms[s] = m->sets[s].norm;
        a.heads[s] = m->sets[s].head;
    }
    return m->backend->ops->head(m->backend, &a);
}
