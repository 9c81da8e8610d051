/* kernels/ref/kv.c - the paged key/value cache: [layer][block][head][entry][P] for keys and values,
 * and what rounding each type of cache means. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/quantise.h"
#include "kernels/ref/ref.h"

static bool cache_init(struct ref_cache *c, size_t n, size_t n_scales, enum hg_dtype type)
{
    size_t each = hg_dtype_bytes(type);
    c->data = calloc(n ? n : 1, each ? each : 1);
    if (n_scales)
        c->scale = calloc(n_scales, sizeof *c->scale);
    return c->data && (c->scale || !n_scales);
}

enum hg_status ref_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err)
{
    size_t n = HG_BLOCK_TOKENS /* at least */, n_scales = 0;
    *out = NULL;
    HG_TRY(hg_kv_desc_check(desc, desc->head_dim, &n, &n_scales, err));
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *desc;
    if (!cache_init(&kv->k, n, n_scales, desc->type) ||
        !cache_init(&kv->v, n, n_scales, desc->type)) {
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
    free(kv->k.data);
    free(kv->k.scale);
    free(kv->v.data);
    free(kv->v.scale);
    free(kv);
}

int64_t ref_kv_row(const struct hg_kv *kv, int layer, int32_t block, int head, int entry)
{
    const struct hg_kv_desc *d = &kv->desc;
    int64_t i = (int64_t)layer * d->n_blocks + block;
    i = i * d->n_kv_heads + head;
    return i * HG_BLOCK_TOKENS + entry;
}

double ref_kv_get(const struct hg_kv *kv, const struct ref_cache *c, int64_t row, int i)
{
    int64_t at = row * kv->desc.head_dim + i;
    if (kv->desc.type == HG_DTYPE_I8)
        return (double)((const int8_t *)c->data)[at] * c->scale[row];
    return ref_decode(c->data, kv->desc.type, (size_t)at);
}

void ref_kv_set(const struct hg_kv *kv, struct ref_cache *c, int64_t row, const float *x)
{
    int dim = kv->desc.head_dim;
    int64_t at = row * dim;
    if (kv->desc.type == HG_DTYPE_I8) {
        c->scale[row] = hg_quantise_i8(x, dim, (int8_t *)c->data + at);
        return;
    }
    for (int i = 0; i < dim; i++)
        if (kv->desc.type == HG_DTYPE_F32)
            ((float *)c->data)[at + i] = x[i];
        else if (kv->desc.type == HG_DTYPE_F16)
            ((uint16_t *)c->data)[at + i] = hg_f32_to_f16(x[i]);
        else
            ((uint16_t *)c->data)[at + i] = hg_f32_to_bf16(x[i]);
}

static void zero_rows(struct ref_cache *c, size_t row, size_t n, size_t row_bytes)
{
    memset((char *)c->data + row * row_bytes, 0, n * row_bytes);
    if (c->scale)
        memset(c->scale + row, 0, n * sizeof *c->scale);
}

enum hg_status ref_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n)
{
    (void)b;
    const struct hg_kv_desc *d = &kv->desc;
    size_t row_bytes = (size_t)d->head_dim * hg_dtype_bytes(d->type);
    size_t rows = (size_t)d->n_kv_heads * HG_BLOCK_TOKENS;
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= d->n_blocks)
            return ref_refuse("kv_zero: block %d of %d", blocks[i], d->n_blocks);
        for (int l = 0; l < d->n_layers; l++) {
            size_t row = (size_t)ref_kv_row(kv, l, blocks[i], 0, 0);
            zero_rows(&kv->k, row, rows, row_bytes);
            zero_rows(&kv->v, row, rows, row_bytes);
        }
    }
    return HG_STATUS_OK;
}
