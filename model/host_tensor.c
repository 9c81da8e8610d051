/* model/host_tensor.c - tensors of a weight set, made ready for packing or upload. */
#include "model/host_tensor.h"

#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "model/dry_run.h"

enum { PIECE_BYTES = 4 << 20 };

void hg_loader_reset(struct hg_loader *l)
{
    for (int i = 0; i < l->n_fetched; i++)
        hg_weights_done(l->weights, l->fetched[i]);
    l->n_fetched = 0;
    hg_quant_cache_done(l->cache);
    hg_arena_deinit(&l->arena);
}

void hg_loader_note(struct hg_loader *l, const struct hg_tensor *t)
{
    if (l->n_fetched < HG_LOADER_FETCHED)
        l->fetched[l->n_fetched++] = t;
    else /* early: its pages come back from the page cache when they are read */
        hg_weights_done(l->weights, t);
}

/* hg_weights_get, its values too. *found: shape and type, in a rehearsal also; NULL then when it is
 * missing. *out: NULL in a rehearsal. */
static enum hg_status find(struct hg_loader *l, const char *name, int n_dims, const int64_t *dims,
                           const struct hg_tensor **found, const struct hg_tensor **out,
                           struct hg_error *err)
{
    struct hg_dry_run *dry = hg_dry_run_of(l->backend);
    struct hg_error why;
    enum hg_status status = hg_weights_get(l->weights, name, n_dims, dims, found, &why);
    *out = dry ? NULL : *found;
    if (dry)
        status = hg_dry_run_saw(dry, l->weights, status, *found, &why);
    else if (status == HG_STATUS_OK && hg_weights_refuses_not_finite(l->weights))
        status = hg_weights_check_finite(l->weights, *found, 0, &why);
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "%s", why.text);
}

enum hg_status hg_loader_find(struct hg_loader *l, const char *name, int n_dims,
                              const int64_t *dims, const struct hg_tensor **out,
                              struct hg_error *err)
{
    const struct hg_tensor *found;
    HG_TRY(find(l, name, n_dims, dims, &found, out, err));
    if (*out)
        hg_loader_note(l, *out);
    return HG_STATUS_OK;
}

static bool usable_in_place(const struct hg_tensor *t, enum hg_dtype *type)
{
    switch (t->type) {
    case HG_TENSOR_TYPE_F32:
        *type = HG_DTYPE_F32;
        break;
    case HG_TENSOR_TYPE_F16:
        *type = HG_DTYPE_F16;
        break;
    case HG_TENSOR_TYPE_BF16:
        *type = HG_DTYPE_BF16;
        break;
    default:
        return false;
    }
    return hg_tensor_is_contiguous(t) && (uintptr_t)t->data % hg_dtype_bytes(*type) == 0;
}

enum hg_status hg_loader_get(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                             int64_t *n_rows, struct hg_host_tensor *out, struct hg_error *err)
{
    int64_t dims[2] = {rows, cols};
    const struct hg_tensor *found, *t;
    memset(out, 0, sizeof *out);
    HG_TRY(find(l, name, cols > 0 ? 2 : 1, dims, &found, &t, err));
    if (n_rows && found)
        *n_rows = found->dims[0];
    if (!t)
        return HG_STATUS_OK;
    hg_loader_note(l, t);
    if (usable_in_place(t, &out->type)) {
        out->data = t->data;
        return HG_STATUS_OK;
    }
    enum hg_dtype type = t->type == HG_TENSOR_TYPE_F16    ? HG_DTYPE_F16
                         : t->type == HG_TENSOR_TYPE_BF16 ? HG_DTYPE_BF16
                                                          : HG_DTYPE_F32;
    void *copy = hg_arena_alloc(&l->arena, (size_t)hg_tensor_count(t) * hg_dtype_bytes(type));
    if (!copy)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: copy of %lld elements", name,
                       (long long)hg_tensor_count(t));
    hg_tensor_convert(t, type, copy);
    *out = (struct hg_host_tensor){.data = copy, .type = type};
    return HG_STATUS_OK;
}

enum hg_status hg_loader_linear(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                                int64_t *n_rows, struct hg_host_tensor *out, struct hg_error *err)
{
    int64_t dims[2] = {rows, cols};
    const struct hg_tensor *t;
    struct hg_host_tensor plain;
    if (!l->cache)
        return hg_loader_get(l, name, rows, cols, n_rows, out, err);
    HG_TRY(hg_weights_get(l->weights, name, 2, dims, &t, err));
    if (hg_quant_cache_get(l->cache, t, out)) {
        if (n_rows)
            *n_rows = t->dims[0];
        return hg_weights_check_lock(l->weights, err);
    }
    HG_TRY(hg_loader_get(l, name, rows, cols, n_rows, out, err));
    if (!hg_quant_cache_writes(l->cache) || t->dims[0] < 1)
        return HG_STATUS_OK;
    plain = *out;
    enum hg_dtype type = hg_quant_cache_type(l->cache);
    size_t n = (size_t)t->dims[0];
    void *codes = hg_arena_alloc(&l->arena, n * hg_code_bytes(type, (int)cols));
    void *scale = hg_arena_alloc(&l->arena, n * hg_scale_bytes(type, (int)cols));
    if (!codes || !scale)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: quantised copy", name);
    if (hg_quant_cache_add(l->cache, t, &plain, codes, scale))
        *out = (struct hg_host_tensor){.data = codes, .type = type, .scale = scale};
    return HG_STATUS_OK;
}

/* Rows [first, first + n) of a tensor, as a tensor. */
static struct hg_tensor rows_of(const struct hg_tensor *t, int64_t first, int64_t n)
{
    struct hg_tensor view = *t;
    view.dims[0] = n;
    view.data += (size_t)first * (size_t)t->strides[0] * hg_tensor_type_bytes(t->type);
    return view;
}

/* Convert a fetched tensor into fresh device memory, a few megabytes of rows at a time. */
static enum hg_status upload_as(struct hg_loader *l, const struct hg_tensor *t, const char *name,
                                enum hg_dtype type, void **out, size_t *bytes, struct hg_error *err)
{
    struct hg_backend *b = l->backend;
    enum hg_status status = HG_STATUS_OK;
    *bytes = (size_t)hg_tensor_count(t) * hg_dtype_bytes(type);
    int64_t n_rows = t->n_dims > 0 ? t->dims[0] : 1;
    size_t row = n_rows > 0 ? *bytes / (size_t)n_rows : 0;
    int64_t at_once = row > 0 && row < PIECE_BYTES ? (int64_t)(PIECE_BYTES / row) : 1;
    at_once = at_once < n_rows ? at_once : n_rows;
    void *host = malloc(at_once > 0 && row > 0 ? (size_t)at_once * row : 1);
    if (!host)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: %zu bytes", name,
                       (size_t)at_once * row);
    HG_TRY_OUT(b->ops->alloc(b, *bytes, out, err));
    for (int64_t r = 0; r < n_rows && row > 0; r += at_once) {
        int64_t n = n_rows - r < at_once ? n_rows - r : at_once;
        struct hg_tensor piece = rows_of(t, r, n);
        hg_tensor_convert(&piece, type, host);
        if (hg_fault(HG_FAULT_LOAD_CORRUPT, NULL)) /* an exponent's bit */
            ((unsigned char *)host)[hg_dtype_bytes(type) - 1] ^= 0x40;
        status = b->ops->upload(b, (char *)*out + (size_t)r * row, host, (size_t)n * row);
        if (status != HG_STATUS_OK) {
            hg_fail(err, status, "tensor %s: upload: %s", name, hg_status_text(status));
            goto out;
        }
    }
    hg_weights_done(l->weights, t);
out:
    free(host);
    return status;
}

enum hg_status hg_loader_vector(struct hg_loader *l, const char *name, int64_t n, float **out,
                                struct hg_error *err)
{
    const struct hg_tensor *found, *t;
    size_t bytes;
    void *p = NULL;
    *out = NULL;
    HG_TRY(find(l, name, 1, &n, &found, &t, err));
    if (!t)
        return HG_STATUS_OK;
    HG_TRY(upload_as(l, t, name, HG_DTYPE_F32, &p, &bytes, err));
    *out = p;
    return HG_STATUS_OK;
}

enum hg_status hg_loader_matrix(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                                enum hg_dtype type, void **out, int64_t *n_rows, size_t *bytes,
                                struct hg_error *err)
{
    int64_t dims[2] = {rows, cols};
    const struct hg_tensor *found, *t;
    HG_TRY(find(l, name, 2, dims, &found, &t, err));
    if (n_rows && found)
        *n_rows = found->dims[0];
    if (!t)
        return HG_STATUS_OK;
    return upload_as(l, t, name, type, out, bytes, err);
}
