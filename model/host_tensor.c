/* model/host_tensor.c - tensors of a weight set, made ready for packing or upload. */
#include "model/host_tensor.h"

#include <stdlib.h>

void hg_loader_reset(struct hg_loader *l)
{
    hg_arena_deinit(&l->arena);
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
    const struct hg_tensor *t;
    HG_TRY(hg_weights_get(l->weights, name, cols > 0 ? 2 : 1, dims, &t, err));
    if (n_rows)
        *n_rows = t->dims[0];
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
    *out = (struct hg_host_tensor){copy, type};
    return HG_STATUS_OK;
}

/* Convert a fetched tensor and put it into fresh device memory. */
static enum hg_status upload_as(struct hg_loader *l, const struct hg_tensor *t, const char *name,
                                enum hg_dtype type, void **out, size_t *bytes, struct hg_error *err)
{
    struct hg_backend *b = l->backend;
    *bytes = (size_t)hg_tensor_count(t) * hg_dtype_bytes(type);
    void *host = malloc(*bytes ? *bytes : 1);
    if (!host)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: %zu bytes", name, *bytes);
    hg_tensor_convert(t, type, host);
    enum hg_status status = b->ops->alloc(b, *bytes, out, err);
    if (status == HG_STATUS_OK)
        status = b->ops->upload(b, *out, host, *bytes);
    free(host);
    return status;
}

enum hg_status hg_loader_vector(struct hg_loader *l, const char *name, int64_t n, float **out,
                                struct hg_error *err)
{
    const struct hg_tensor *t;
    size_t bytes;
    void *p = NULL;
    HG_TRY(hg_weights_get(l->weights, name, 1, &n, &t, err));
    HG_TRY(upload_as(l, t, name, HG_DTYPE_F32, &p, &bytes, err));
    *out = p;
    return HG_STATUS_OK;
}

enum hg_status hg_loader_matrix(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                                enum hg_dtype type, void **out, int64_t *n_rows, size_t *bytes,
                                struct hg_error *err)
{
    int64_t dims[2] = {rows, cols};
    const struct hg_tensor *t;
    HG_TRY(hg_weights_get(l->weights, name, 2, dims, &t, err));
    if (n_rows)
        *n_rows = t->dims[0];
    return upload_as(l, t, name, type, out, bytes, err);
}
