/* kernels/ref/kv.c - the paged key/value cache: [layer][block][head][entry][P] for keys and values.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/ref/ref.h"

enum hg_status ref_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err)
{
    size_t n = HG_BLOCK_TOKENS; /* at least */
    *out = NULL;
    HG_TRY(hg_kv_desc_check(desc, desc->head_dim, &n, err));
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *desc;
    kv->k = calloc(n, hg_dtype_bytes(desc->type));
    kv->v = calloc(n, hg_dtype_bytes(desc->type));
    if (!kv->k || !kv->v) {
        ref_kv_free(b, kv);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache of 2 * %zu %s", n,
                       hg_dtype_name(desc->type));
    }
    *out = kv;
    return HG_STATUS_OK;
}

void ref_kv_free(struct hg_backend *b, struct hg_kv *kv)
{
    (void)b;
    if (!kv)
        return;
    free(kv->k);
    free(kv->v);
    free(kv);
}

int64_t ref_kv_index(const struct hg_kv *kv, int layer, int32_t block, int head, int entry)
{
    const struct hg_kv_desc *d = &kv->desc;
    int64_t i = (int64_t)layer * d->n_blocks + block;
    i = i * d->n_kv_heads + head;
    return (i * HG_BLOCK_TOKENS + entry) * d->head_dim;
}

float ref_kv_get(const struct hg_kv *kv, const void *k_or_v, int64_t i)
{
    return ref_decode(k_or_v, kv->desc.type, (size_t)i);
}

void ref_kv_set(const struct hg_kv *kv, void *k_or_v, int64_t i, float value)
{
    if (kv->desc.type == HG_DTYPE_F32)
        ((float *)k_or_v)[i] = value;
    else if (kv->desc.type == HG_DTYPE_F16)
        ((uint16_t *)k_or_v)[i] = hg_f32_to_f16(value);
    else
        ((uint16_t *)k_or_v)[i] = hg_f32_to_bf16(value);
}

enum hg_status ref_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n)
{
    (void)b;
    const struct hg_kv_desc *d = &kv->desc;
    size_t element = hg_dtype_bytes(d->type);
    size_t bytes = (size_t)d->n_kv_heads * HG_BLOCK_TOKENS * (size_t)d->head_dim * element;
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= d->n_blocks)
            return ref_refuse("kv_zero: block %d of %d", blocks[i], d->n_blocks);
        for (int l = 0; l < d->n_layers; l++) {
            size_t at = (size_t)ref_kv_index(kv, l, blocks[i], 0, 0) * element;
            memset((char *)kv->k + at, 0, bytes);
            memset((char *)kv->v + at, 0, bytes);
        }
    }
    return HG_STATUS_OK;
}
