/* tools/healthgpt/inspect_file.c - read headers only; no tensor byte is touched unless its checksum
 * is wanted. */
#include "tools/healthgpt/inspect_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_float(enum hg_tensor_type t)
{
    return t == HG_TENSOR_TYPE_F32 || t == HG_TENSOR_TYPE_F16 || t == HG_TENSOR_TYPE_BF16 ||
           t == HG_TENSOR_TYPE_F64;
}

/* What published files hold beside the model: CLIP's text tower, what trained the VQGAN. */
static bool is_left_out(const char *name)
{
    static const char *const prefixes[] = {"text_model.", "text_projection.", "visual_projection.",
                                           "logit_scale", "loss."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_table(const char *name)
{
    static const char suffix[] = "embed_tokens.weight";
    size_t n = strlen(name), k = sizeof suffix - 1;
    return n >= k && strcmp(name + n - k, suffix) == 0;
}

static void add_tensor(struct hg_inspect_sum *sum, const struct hg_tensor *t)
{
    int64_t n = hg_tensor_count(t);
    const char *name = strncmp(t->name, "state_dict.", 11) == 0 ? t->name + 11 : t->name;
    sum->n_tensors++;
    sum->by_type[t->type] += n;
    sum->n_parameters += is_float(t->type) ? n : 0;
    if (is_left_out(name))
        return;
    sum->tensor_bytes += n * (int64_t)hg_tensor_type_bytes(t->type);
    if (!is_float(t->type))
        return;
    sum->n_elements += n;
    if (is_table(name)) {
        sum->n_table += n;
    } else if (t->n_dims == 2) {
        sum->n_matrix += n;
        sum->n_rows += t->dims[0];
    }
}

static void put_tensor(struct hg_json_out *o, const struct hg_tensor_file *f,
                       const struct hg_tensor *t, enum hg_inspect_detail detail)
{
    char sum[16];
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "name", t->name);
    hg_out_string(o, "dtype", hg_tensor_type_name(t->type));
    hg_out_open(o, "shape", '[');
    for (int i = 0; i < t->n_dims; i++)
        hg_out_int(o, NULL, t->dims[i]);
    hg_out_close(o, ']');
    if (detail == HG_INSPECT_CHECKSUMS) {
        snprintf(sum, sizeof sum, "%08x", (unsigned)hg_tensor_crc32c(t));
        hg_out_string(o, "crc32c", sum);
        hg_tensor_file_forget(f, t);
    }
    hg_out_close(o, '}');
}

void hg_inspect_put_types(const struct hg_inspect_sum *sum, struct hg_json_out *o)
{
    hg_out_open(o, "dtypes", '{');
    for (int i = 0; i < HG_TENSOR_TYPE_COUNT; i++)
        if (sum->by_type[i] > 0)
            hg_out_int(o, hg_tensor_type_name((enum hg_tensor_type)i), sum->by_type[i]);
    hg_out_close(o, '}');
}

void hg_inspect_add(struct hg_inspect_sum *a, const struct hg_inspect_sum *b)
{
    a->n_files += b->n_files;
    a->n_bad += b->n_bad;
    a->n_tensors += b->n_tensors;
    a->file_bytes += b->file_bytes;
    a->tensor_bytes += b->tensor_bytes;
    a->n_parameters += b->n_parameters;
    a->n_elements += b->n_elements;
    a->n_table += b->n_table;
    a->n_matrix += b->n_matrix;
    a->n_rows += b->n_rows;
    for (int i = 0; i < HG_TENSOR_TYPE_COUNT; i++)
        a->by_type[i] += b->by_type[i];
}

void hg_inspect_add_tensors(struct hg_inspect_sum *sum, const struct hg_tensor_file *f)
{
    for (size_t i = 0; i < hg_tensor_file_count(f); i++)
        add_tensor(sum, hg_tensor_file_at(f, i));
}

void hg_inspect_file(const char *path, const char *shown, enum hg_inspect_detail detail,
                     struct hg_json_out *o, struct hg_inspect_sum *sum)
{
    struct hg_tensor_file *f = NULL;
    struct hg_error err = {0};
    struct stat st = {0};
    struct hg_inspect_sum own = {0};
    int64_t bytes = stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
    own.n_files = 1;
    own.file_bytes = bytes;
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "file", shown);
    hg_out_int(o, "bytes", bytes);
    if (hg_tensor_file_open(path, &f, &err) != HG_STATUS_OK) {
        own.n_bad = 1;
        size_t n = strlen(path); /* the name stands beside it */
        bool named = strncmp(err.text, path, n) == 0 && strncmp(err.text + n, ": ", 2) == 0;
        hg_out_string(o, "error", named ? err.text + n + 2 : err.text);
        hg_out_close(o, '}');
        hg_inspect_add(sum, &own);
        return;
    }
    size_t n = hg_tensor_file_count(f);
    hg_out_string(o, "container", hg_tensor_file_container(f));
    hg_out_uint(o, "n_tensors", n);
    if (detail != HG_INSPECT_SUMS)
        hg_out_open(o, "tensors", '[');
    for (size_t i = 0; i < n; i++) {
        add_tensor(&own, hg_tensor_file_at(f, i));
        if (detail != HG_INSPECT_SUMS)
            put_tensor(o, f, hg_tensor_file_at(f, i), detail);
    }
    if (detail != HG_INSPECT_SUMS)
        hg_out_close(o, ']');
    hg_inspect_put_types(&own, o);
    hg_out_close(o, '}');
    hg_inspect_add(sum, &own);
    hg_tensor_file_close(f);
}

int64_t hg_inspect_bytes_as(const struct hg_inspect_sum *sum, const char *dtype)
{
    int64_t rest = 4 * (sum->n_elements - sum->n_matrix - sum->n_table) + 2 * sum->n_table;
    if (strcmp(dtype, "int8") == 0 || strcmp(dtype, "fp8") == 0)
        return sum->n_matrix + 4 * sum->n_rows + rest;
    if (strcmp(dtype, "int4") == 0) /* the scale of a shorter last group counts little */
        return sum->n_matrix / 2 + sum->n_matrix / 64 + rest;
    return sum->n_elements * (strcmp(dtype, "f32") == 0 ? 4 : 2);
}

int64_t hg_inspect_side_bytes(const struct hg_inspect_sum *sum, const char *dtype)
{
    return sum->n_elements * (strcmp(dtype, "f32") == 0 ? 4 : 2);
}

int64_t hg_inspect_vqgan_bytes(const struct hg_inspect_sum *sum)
{
    return 4 * sum->n_elements;
}

int64_t hg_inspect_model_bytes(const struct hg_inspect_parts *p, const char *dtype)
{
    return hg_inspect_bytes_as(&p->llm, dtype) + hg_inspect_bytes_as(&p->fusion, dtype) +
           hg_inspect_side_bytes(&p->vision, dtype) + hg_inspect_side_bytes(&p->plugins, dtype) +
           hg_inspect_vqgan_bytes(&p->vqgan);
}
