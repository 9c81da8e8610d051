/* model/load/safetensors.c - the safetensors container.
 *
 * File: u64 header length, header (JSON object, may end in spaces), then one buffer. Every byte of
 * the buffer belongs to exactly one tensor: no hole, no overlap, nothing behind the last one. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "model/load/json_check.h"
#include "model/load/tensor_file_build.h"

/* The format allows 100 MB; no model here needs 1 MB. */
static const uint64_t max_header_bytes = 32u << 20;
static const size_t max_json_values = 400000; /* about 10 for each tensor */
static const size_t max_json_depth = 4;

struct range {
    uint64_t begin, end;
    uint32_t tensor;
};

struct reader {
    struct hg_tensor_file *f;
    const unsigned char *buffer;
    size_t buffer_bytes;
    struct range *ranges;
    size_t n_ranges;
};

static int type_from_name(const char *s, enum hg_tensor_type *out)
{
    for (int t = 0; t < HG_TENSOR_TYPE_COUNT; t++) {
        if (strcmp(s, hg_tensor_type_name((enum hg_tensor_type)t)) == 0) {
            *out = (enum hg_tensor_type)t;
            return 1;
        }
    }
    return 0;
}

static enum hg_status read_shape(const json_t *shape, struct hg_tensor *t, struct hg_error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > HG_TENSOR_MAX_DIMS)
        return hg_fail(err, HG_STATUS_BAD_FILE, "shape: expected a list of 0..%d integers",
                       HG_TENSOR_MAX_DIMS);
    t->n_dims = (int)json_array_size(shape);
    int64_t count = 1;
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        t->dims[i] = json_is_integer(d) ? (int64_t)json_integer_value(d) : -1;
        if (t->dims[i] < 0 || t->dims[i] >= (int64_t)1 << 40)
            return hg_fail(err, HG_STATUS_BAD_FILE, "shape[%d]: expected integer 0..2^40", i);
        if (__builtin_mul_overflow(count, t->dims[i] ? t->dims[i] : 1, &count))
            return hg_fail(err, HG_STATUS_BAD_FILE, "shape: too many elements");
    }
    hg_tensor_set_contiguous(t);
    return HG_STATUS_OK;
}

static enum hg_status read_range(const struct reader *r, const json_t *offsets, struct range *out,
                                 struct hg_error *err)
{
    const json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return hg_fail(err, HG_STATUS_BAD_FILE, "data_offsets: expected two integers");
    json_int_t begin = json_integer_value(a), end = json_integer_value(b);
    if (begin < 0 || end < begin || (uint64_t)end > r->buffer_bytes)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "data_offsets: expected 0 <= begin <= end <= %zu, got [%lld, %lld]",
                       r->buffer_bytes, (long long)begin, (long long)end);
    out->begin = (uint64_t)begin;
    out->end = (uint64_t)end;
    return HG_STATUS_OK;
}

static enum hg_status read_entry(const struct reader *r, json_t *entry, struct hg_tensor *t,
                                 struct range *range, struct hg_error *err)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type || json_object_size(entry) != 3)
        return hg_fail(err, HG_STATUS_BAD_FILE, "expected exactly dtype, shape, data_offsets");
    if (!type_from_name(type, &t->type))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "dtype %.20s", type);
    HG_TRY(read_shape(json_object_get(entry, "shape"), t, err));
    HG_TRY(read_range(r, json_object_get(entry, "data_offsets"), range, err));
    size_t bytes;
    if (__builtin_mul_overflow((size_t)hg_tensor_count(t), hg_tensor_type_bytes(t->type), &bytes) ||
        bytes != range->end - range->begin)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "data_offsets cover %llu bytes, its shape needs %zu",
                       (unsigned long long)(range->end - range->begin), bytes);
    struct hg_storage_view s = {r->buffer + range->begin, bytes};
    return hg_tensor_place(t, 0, s, err);
}

static enum hg_status check_metadata(const char *name, json_t *meta, struct hg_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(meta))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: __metadata__: expected an object", name);
    json_object_foreach(meta, key, value)
    {
        if (!json_is_string(value))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: __metadata__.%.60s: expected a string",
                           name, key);
    }
    return HG_STATUS_OK;
}

static enum hg_status read_entries(struct reader *r, json_t *root, struct hg_error *err)
{
    const char *key;
    json_t *entry;
    json_object_foreach(root, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0) {
            HG_TRY(check_metadata(r->f->name, entry, err));
            continue;
        }
        struct hg_tensor t = {0};
        struct hg_error why = {0};
        struct range *range = &r->ranges[r->n_ranges];
        enum hg_status status = read_entry(r, entry, &t, range, &why);
        if (status != HG_STATUS_OK)
            return hg_fail(err, status, "%s: tensor %.80s: %s", r->f->name, key, why.text);
        range->tensor = (uint32_t)r->f->n;
        r->n_ranges++;
        HG_TRY(hg_tensor_file_add(r->f, key, strlen(key), &t, err));
    }
    return HG_STATUS_OK;
}

static int compare_ranges(const void *pa, const void *pb)
{
    const struct range *a = pa, *b = pb;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static enum hg_status check_cover(struct reader *r, struct hg_error *err)
{
    uint64_t at = 0;
    qsort(r->ranges, r->n_ranges, sizeof *r->ranges, compare_ranges);
    for (size_t i = 0; i < r->n_ranges; i++) {
        const struct range *x = &r->ranges[i];
        if (x->begin != at)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: tensor %.80s: begins at %llu, expected %llu (%s)", r->f->name,
                           r->f->tensors[x->tensor].name, (unsigned long long)x->begin,
                           (unsigned long long)at, x->begin < at ? "overlap" : "hole");
        at = x->end;
    }
    if (at != r->buffer_bytes)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %zu bytes of data, the tensors cover %llu",
                       r->f->name, r->buffer_bytes, (unsigned long long)at);
    return HG_STATUS_OK;
}

enum hg_status hg_safetensors_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                    struct hg_error *err)
{
    uint64_t header_bytes = n >= 8 ? hg_load_u64(data) : 0;
    if (n < 8 || header_bytes < 2 || header_bytes > n - 8)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: header of %llu bytes in a file of %zu bytes",
                       f->name, (unsigned long long)header_bytes, n);
    if (header_bytes > max_header_bytes)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: header of %llu bytes, at most %llu", f->name,
                       (unsigned long long)header_bytes, (unsigned long long)max_header_bytes);
    const char *text = (const char *)data + 8;
    if (text[0] != '{')
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: header does not begin with '{'", f->name);
    HG_TRY(
        hg_json_check(f->name, text, (size_t)header_bytes, max_json_values, max_json_depth, err));

    struct reader r = {f, data + 8 + header_bytes, n - 8 - (size_t)header_bytes, NULL, 0};
    enum hg_status status = HG_STATUS_OK;
    json_error_t why;
    json_t *root = NULL;
    status = hg_json_read(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &root, &why);
    if (status == HG_STATUS_NO_MEMORY)
        return hg_fail(err, status, "%s: header: out of memory", f->name);
    if (status != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: header: %s", f->name, why.text);
    r.ranges = calloc(json_object_size(root) + 1, sizeof *r.ranges);
    if (!r.ranges) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", f->name);
        goto out;
    }
    HG_TRY_OUT(read_entries(&r, root, err));
    HG_TRY_OUT(check_cover(&r, err));
out:
    free(r.ranges);
    json_decref(root);
    return status;
}
