/* kernels/check.c - see check.h. */
#include "kernels/check.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/log.h"

static enum hg_status check_adapter(const char *name, int part, int slot,
                                    const struct hg_adapter *a, struct hg_error *err)
{
    if (a->rank == 0)
        return HG_STATUS_OK;
    if (a->rank < 0 || a->n_experts <= 0 || a->rank % a->n_experts != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: part %d slot %d: rank %d is not a positive multiple of %d experts",
                       name, part, slot, a->rank, a->n_experts);
    if (!a->a.data || !a->b.data || !a->route.data)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: part %d slot %d: adapter tensor is absent",
                       name, part, slot);
    const struct hg_host_tensor *tensors[] = {&a->a, &a->b, &a->route};
    for (int i = 0; i < 3; i++)
        if (hg_dtype_is_quantised(tensors[i]->type))
            return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: part %d slot %d: %s adapter tensor",
                           name, part, slot, hg_dtype_name(tensors[i]->type));
    return HG_STATUS_OK;
}

static enum hg_status check_part(const struct hg_weight_desc *d, int i, struct hg_error *err)
{
    const struct hg_weight_part *p = &d->parts[i];
    if (p->n_out <= 0 || !p->w.data)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: part %d has %d outputs%s", d->name, i,
                       p->n_out, p->w.data ? "" : " and no weight");
    enum hg_dtype bias = p->bias.data ? p->bias.type : HG_DTYPE_F32;
    bool other = hg_dtype_is_quantised(p->w.type) && (p->w.type != d->store || !p->w.scale);
    if (other || hg_dtype_is_quantised(bias))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: part %d: %s host tensor", d->name, i,
                       hg_dtype_name(hg_dtype_is_quantised(bias) ? bias : p->w.type));
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        HG_TRY(check_adapter(d->name, i, s, &p->adapters[s], err));
    return HG_STATUS_OK;
}

enum hg_status hg_weight_desc_check(const struct hg_weight_desc *d, int room, int *n_out,
                                    struct hg_error *err)
{
    if (d->n_in <= 0 || d->n_parts < 1 || d->n_parts > HG_MAX_PARTS ||
        (unsigned)d->store >= HG_DTYPE_COUNT)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %d inputs, %d parts, store type %d", d->name,
                       d->n_in, d->n_parts, (int)d->store);
    int64_t n = 0;
    for (int i = 0; i < d->n_parts; i++) {
        HG_TRY(check_part(d, i, err));
        n += d->parts[i].n_out;
    }
    enum hg_dtype plugin = hg_plugin_dtype(d->plugin, d->store);
    if (d->plugin < 0 || plugin > HG_DTYPE_I8)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: adapters kept in %s", d->name,
                       hg_dtype_name(plugin));
    if (n > INT_MAX - room)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: %lld outputs", d->name, (long long)n);
    if (d->pair < 0 || d->pair % 2 || (d->pair && n % d->pair))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %lld outputs in pairs of %d", d->name,
                       (long long)n, d->pair);
    *n_out = (int)n;
    return HG_STATUS_OK;
}

enum hg_status hg_kv_desc_check(const struct hg_kv_desc *d, int64_t pad_dim, size_t *n,
                                size_t *n_scales, struct hg_error *err)
{
    if (d->n_layers <= 0 || d->n_blocks <= 0 || d->n_kv_heads <= 0 || d->head_dim <= 0 ||
        (unsigned)d->type >= HG_DTYPE_COUNT)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "kv cache of %d layers, %d blocks, %d heads, head dim %d, type %s",
                       d->n_layers, d->n_blocks, d->n_kv_heads, d->head_dim,
                       hg_dtype_name(d->type));
    size_t total = HG_BLOCK_TOKENS;
    const size_t dims[] = {(size_t)d->n_layers, (size_t)d->n_blocks, (size_t)d->n_kv_heads,
                           (size_t)pad_dim};
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(total, dims[i], &total) || total > SIZE_MAX / 16)
            return hg_fail(err, HG_STATUS_TOO_LARGE, "kv cache size overflows");
    *n = total;
    *n_scales = d->type == HG_DTYPE_I8 ? total / (size_t)pad_dim : 0;
    return HG_STATUS_OK;
}

void hg_host_memory(struct hg_backend *b, struct hg_backend_memory *out)
{
    (void)b;
    *out = (struct hg_backend_memory){0};
}

enum hg_status hg_refuse(const char *backend, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hg_log(HG_LOG_ERROR, "%s: %s", backend, text);
    return HG_STATUS_INTERNAL;
}
