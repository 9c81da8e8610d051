/* model/load/lock.c - see lock.h. */
#include "model/load/lock.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/file.h"
#include "common/json_read.h"
#include "model/load/json_check.h"

enum {
    MAX_BYTES = 64 << 20,
    MAX_VALUES = 2000000,
    MAX_DEPTH = 6,
    MAX_FILES = 4096,
    MAX_SMALL = 256 << 20, /* a small file */
    FORMAT = 1
};

struct hg_lock {
    json_t *doc, *files;
    bool *seen; /* [n_files] */
};

/* ---- reading --------------------------------------------------------------------------------- */

static enum hg_status check_top(struct hg_lock *l, const char *path, struct hg_error *err)
{
    const json_t *format = json_object_get(l->doc, "format");
    l->files = json_object_get(l->doc, "files");
    if (!json_is_integer(format) || json_integer_value(format) != FORMAT)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.200s: format: expected %d", path, FORMAT);
    if (!json_is_string(json_object_get(l->doc, "model")) || !json_is_array(l->files) ||
        json_array_size(l->files) > MAX_FILES)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%.200s: expected \"model\" and at most %d \"files\"", path, MAX_FILES);
    for (size_t i = 0; i < json_array_size(l->files); i++) {
        const json_t *f = json_array_get(l->files, i);
        bool one = json_is_array(json_object_get(f, "tensors")) !=
                   json_is_string(json_object_get(f, "crc32c"));
        if (!json_is_string(json_object_get(f, "name")) ||
            !json_is_integer(json_object_get(f, "size")) || !one)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%.200s: files[%zu]: expected name, size and tensors or crc32c", path,
                           i);
    }
    l->seen = calloc(json_array_size(l->files) + 1, sizeof *l->seen);
    return l->seen ? HG_STATUS_OK
                   : hg_fail(err, HG_STATUS_NO_MEMORY, "%.200s: out of memory", path);
}

enum hg_status hg_lock_read(const char *path, struct hg_lock **out, struct hg_error *err)
{
    struct hg_buf text = {0};
    json_error_t why;
    enum hg_status status = HG_STATUS_OK;
    *out = NULL;
    struct hg_lock *l = calloc(1, sizeof *l);
    if (!l)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%.200s: out of memory", path);
    HG_TRY_OUT(hg_file_read(path, MAX_BYTES, &text, err));
    HG_TRY_OUT(
        hg_json_check(path, text.data ? text.data : "", text.len, MAX_VALUES, MAX_DEPTH, err));
    status =
        hg_json_read(text.data ? text.data : "", text.len, JSON_REJECT_DUPLICATES, &l->doc, &why);
    if (status == HG_STATUS_NO_MEMORY)
        HG_TRY_OUT(hg_fail(err, status, "%.200s: out of memory", path));
    if (status != HG_STATUS_OK)
        HG_TRY_OUT(
            hg_fail(err, HG_STATUS_BAD_FILE, "%.150s: line %d: %s", path, why.line, why.text));
    HG_TRY_OUT(check_top(l, path, err));
    *out = l;
    l = NULL;
out:
    hg_lock_free(l);
    hg_buf_deinit(&text);
    return status;
}

void hg_lock_free(struct hg_lock *l)
{
    if (!l)
        return;
    json_decref(l->doc);
    free(l->seen);
    free(l);
}

const char *hg_lock_model(const struct hg_lock *l)
{
    return json_string_value(json_object_get(l->doc, "model"));
}

/* ---- comparing ------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The entry of a name, which is marked; NULL: none. */
static const json_t *find_file(struct hg_lock *l, const char *name)
{
    for (size_t i = 0; i < json_array_size(l->files); i++) {
        const json_t *f = json_array_get(l->files, i);
        if (l->seen[i] || strcmp(text_of(f, "name"), name) != 0)
            continue;
        l->seen[i] = true;
        return f;
    }
    return NULL;
}

static bool read_sum(const json_t *o, uint32_t *sum)
{
    const char *s = text_of(o, "crc32c");
    char *end;
    if (strlen(s) != 8 || strspn(s, "0123456789abcdef") != 8)
        return false;
    *sum = (uint32_t)strtoul(s, &end, 16);
    return true;
}

static enum hg_status check_size(const char *name, const json_t *f, uint64_t bytes,
                                 struct hg_error *err)
{
    json_int_t want = json_integer_value(json_object_get(f, "size"));
    if (want >= 0 && (uint64_t)want == bytes)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE, "%.120s: model.lock says %lld bytes, the file has %llu",
                   name, (long long)want, (unsigned long long)bytes);
}

static bool same_shape(const json_t *shape, const struct hg_tensor *t)
{
    if (!json_is_array(shape) || json_array_size(shape) != (size_t)t->n_dims)
        return false;
    for (int i = 0; i < t->n_dims; i++)
        if (!json_is_integer(json_array_get(shape, (size_t)i)) ||
            json_integer_value(json_array_get(shape, (size_t)i)) != t->dims[i])
            return false;
    return true;
}

/* Tensor by tensor in the order of the file. */
static enum hg_status check_tensors(const char *name, const json_t *list, size_t file,
                                    struct hg_weights *w, struct hg_error *err)
{
    const struct hg_tensor_file *f = hg_weights_file_at(w, file).tensors;
    size_t n = hg_tensor_file_count(f), listed = json_array_size(list);
    for (size_t i = 0; i < n && i < listed; i++) {
        const json_t *x = json_array_get(list, i);
        const struct hg_tensor *t = hg_tensor_file_at(f, i);
        char shape[64];
        uint32_t sum = 0;
        if (strcmp(text_of(x, "name"), t->name) != 0)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%.80s: model.lock says tensor %.80s, the file has %.80s", name,
                           text_of(x, "name"), t->name);
        if (strcmp(text_of(x, "dtype"), hg_tensor_type_name(t->type)) != 0 ||
            !same_shape(json_object_get(x, "shape"), t))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%.80s: tensor %.80s: model.lock says another type or shape than %s %s",
                           name, t->name, hg_tensor_type_name(t->type),
                           hg_tensor_shape_text(t->dims, t->n_dims, shape, sizeof shape));
        if (!read_sum(x, &sum))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "model.lock: %.80s: tensor %.80s: crc32c: expected 8 hex digits", name,
                           t->name);
        hg_weights_lock(w, file, t->name, sum);
    }
    if (n == listed)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE, "%.100s: model.lock says %zu tensors, the file has %zu",
                   name, listed, n);
}

enum hg_status hg_lock_weights(struct hg_lock *l, const char *role, struct hg_weights *w,
                               struct hg_error *err)
{
    for (size_t i = 0; w && i < hg_weights_n_files(w); i++) {
        struct hg_weights_file f = hg_weights_file_at(w, i);
        char name[512];
        snprintf(name, sizeof name, "%s/%s", role, f.name);
        const json_t *x = find_file(l, name);
        if (!x || !json_object_get(x, "tensors"))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%.150s: not in model.lock, a file that was added", name);
        HG_TRY(check_size(name, x, f.bytes, err));
        HG_TRY(check_tensors(name, json_object_get(x, "tensors"), i, w, err));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_lock_file(struct hg_lock *l, const char *name, const char *path,
                            struct hg_error *err)
{
    struct hg_file_map map;
    uint32_t want = 0;
    if (!hg_file_exists(path))
        return HG_STATUS_OK; /* hg_lock_complete misses it when it is listed */
    const json_t *x = find_file(l, name);
    if (!x || !json_object_get(x, "crc32c"))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.150s: not in model.lock, a file that was added",
                       name);
    HG_TRY(hg_file_map(path, &map, err));
    uint32_t sum = hg_crc32c(0, map.data, map.n);
    enum hg_status status = check_size(name, x, map.n, err);
    hg_file_unmap(&map);
    HG_TRY(status);
    if (!read_sum(x, &want))
        return hg_fail(err, HG_STATUS_BAD_FILE, "model.lock: %.80s: crc32c: expected 8 hex digits",
                       name);
    if (want == sum)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%.120s: model.lock says crc32c %08x, the file has %08x (changed or damaged)",
                   name, (unsigned)want, (unsigned)sum);
}

enum hg_status hg_lock_complete(const struct hg_lock *l, struct hg_error *err)
{
    for (size_t i = 0; i < json_array_size(l->files); i++)
        if (!l->seen[i])
            return hg_fail(err, HG_STATUS_BAD_FILE, "%.150s: in model.lock, but not here",
                           text_of(json_array_get(l->files, i), "name"));
    return HG_STATUS_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Names of tensors are printable UTF-8, names of files may be anything. */
static enum hg_status put_string(struct hg_buf *b, const char *s)
{
    HG_TRY(hg_buf_append_str(b, "\""));
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c == '"' || c == '\\')
            HG_TRY(hg_buf_printf(b, c < 0x20 ? "\\u%04x" : "\\%c", c));
        else
            HG_TRY(hg_buf_append(b, s, 1));
    }
    return hg_buf_append_str(b, "\"");
}

enum hg_status hg_lock_begin(struct hg_buf *b, const char *model)
{
    HG_TRY(hg_buf_printf(b, "{\n\"format\": %d,\n\"model\": ", FORMAT));
    HG_TRY(put_string(b, model));
    return hg_buf_append_str(b, ",\n\"files\": [");
}

/* {"name": .., "size": .. */
static enum hg_status put_head(struct hg_buf *b, const char *name, uint64_t bytes)
{
    HG_TRY(hg_buf_append_str(b, b->data[b->len - 1] == '[' ? "\n{\"name\": " : ",\n{\"name\": "));
    HG_TRY(put_string(b, name));
    return hg_buf_printf(b, ", \"size\": %llu", (unsigned long long)bytes);
}

static enum hg_status put_tensor(struct hg_buf *b, const struct hg_tensor_file *f,
                                 const struct hg_tensor *t, bool first)
{
    HG_TRY(hg_buf_append_str(b, first ? "\n {\"name\": " : ",\n {\"name\": "));
    HG_TRY(put_string(b, t->name));
    HG_TRY(hg_buf_printf(b, ", \"dtype\": \"%s\", \"shape\": [", hg_tensor_type_name(t->type)));
    for (int i = 0; i < t->n_dims; i++)
        HG_TRY(hg_buf_printf(b, "%s%lld", i ? ", " : "", (long long)t->dims[i]));
    HG_TRY(hg_buf_printf(b, "], \"crc32c\": \"%08x\"}", (unsigned)hg_tensor_crc32c(t)));
    hg_tensor_file_forget(f, t);
    return HG_STATUS_OK;
}

enum hg_status hg_lock_put_weights(struct hg_buf *b, const char *role, const struct hg_weights *w)
{
    for (size_t i = 0; w && i < hg_weights_n_files(w); i++) {
        struct hg_weights_file f = hg_weights_file_at(w, i);
        char name[512];
        snprintf(name, sizeof name, "%s/%s", role, f.name);
        HG_TRY(put_head(b, name, f.bytes));
        HG_TRY(hg_buf_append_str(b, ", \"tensors\": ["));
        for (size_t k = 0; k < hg_tensor_file_count(f.tensors); k++)
            HG_TRY(put_tensor(b, f.tensors, hg_tensor_file_at(f.tensors, k), k == 0));
        HG_TRY(hg_buf_append_str(b, "]}"));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_lock_put_file(struct hg_buf *b, const char *name, const char *path,
                                struct hg_error *err)
{
    struct hg_file_map map;
    if (!hg_file_exists(path))
        return HG_STATUS_OK;
    HG_TRY(hg_file_map(path, &map, err));
    enum hg_status status = HG_STATUS_OK;
    if (map.n > MAX_SMALL)
        status = hg_fail(err, HG_STATUS_TOO_LARGE, "%.200s: %zu bytes", path, map.n);
    if (status == HG_STATUS_OK)
        status = put_head(b, name, map.n);
    if (status == HG_STATUS_OK)
        status =
            hg_buf_printf(b, ", \"crc32c\": \"%08x\"}", (unsigned)hg_crc32c(0, map.data, map.n));
    hg_file_unmap(&map);
    return status;
}

enum hg_status hg_lock_end(struct hg_buf *b)
{
    return hg_buf_append_str(b, "\n]\n}\n");
}
