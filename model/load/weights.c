/* model/load/weights.c - files, shards and overlays under one sorted list of normalised names. */
#include "model/load/weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/arena.h"
#include "common/checksum.h"
#include "common/file.h"
#include "common/json_read.h"
#include "model/load/finite.h"
#include "model/load/json_check.h"

enum {
    NAME_CAP = 320, /* a name of a file (256) and what normalising adds */
    PATH_CAP = 4096,
    MAX_FILES = 1024,
    MAX_INDEX_BYTES = 16 << 20,
    MAX_INDEX_VALUES = 400000,
    MAX_INDEX_DEPTH = 8,
};

struct entry {
    struct hg_tensor *t; /* in the arena, under the normalised name */
    uint32_t file, crc32c;
    bool used, done; /* fetched or ignored; read, so that crc32c holds */
};

struct hg_weights {
    struct hg_tensor_file **files;
    const char **paths; /* in the arena: folder and name, for messages */
    size_t n_files;
    struct entry *entries; /* sorted by name */
    size_t n, cap;
    struct hg_arena arena;
    struct hg_load_meter *meter;
    bool finite_only; /* see hg_weights_refuse_not_finite */
};

enum hg_status hg_weights_create(struct hg_weights **out, struct hg_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? HG_STATUS_OK : hg_fail(err, HG_STATUS_NO_MEMORY, "weights: out of memory");
}

void hg_weights_free(struct hg_weights *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_files; i++)
        hg_tensor_file_close(w->files[i]);
    free(w->files);
    free(w->paths);
    free(w->entries);
    hg_arena_deinit(&w->arena);
    free(w);
}

/* ---- names ---------------------------------------------------------------------------- */

static const char *skip_prefix(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(s, prefix, n) == 0 ? s + n : s;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

/* reference.md 2.3: wrappers of DataParallel and PEFT, PEFT's adapter name, short projector names.
 */
static void normalise(const char *raw, char out[NAME_CAP])
{
    const char *s = skip_prefix(skip_prefix(raw, "module."), "base_model.model.");
    snprintf(out, NAME_CAP, "%s%s", strncmp(s, "mm_projector.", 13) == 0 ? "model." : "", s);
    char *inserted = strstr(out, ".default");
    if (inserted && (inserted[8] == '.' || inserted[8] == '\0'))
        memmove(inserted, inserted + 8, strlen(inserted + 8) + 1);
    if (ends_with(out, ".lora_A") || ends_with(out, ".lora_B") || ends_with(out, ".lora_route"))
        snprintf(out + strlen(out), NAME_CAP - strlen(out), ".weight");
}

static int compare_entries(const void *pa, const void *pb)
{
    const struct entry *a = pa, *b = pb;
    int c = strcmp(a->t->name, b->t->name);
    return c ? c : a->file < b->file ? -1 : a->file > b->file;
}

static struct entry *find_entry(const struct hg_weights *w, const char *name)
{
    size_t lo = 0, hi = w->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, w->entries[mid].t->name);
        if (c == 0)
            return &w->entries[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* ---- adding files --------------------------------------------------------------------- */

/* Sort and keep the last file's tensor of each name. */
static enum hg_status merge(struct hg_weights *w, struct hg_error *err)
{
    size_t n = 0;
    if (w->n == 0)
        return HG_STATUS_OK;
    qsort(w->entries, w->n, sizeof *w->entries, compare_entries);
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *x = &w->entries[i];
        bool same = n > 0 && strcmp(w->entries[n - 1].t->name, x->t->name) == 0;
        if (same && w->entries[n - 1].file == x->file)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %.80s: present under two spellings",
                           w->paths[x->file], x->t->name);
        if (same)
            n--;
        w->entries[n++] = *x;
    }
    w->n = n;
    return HG_STATUS_OK;
}

/* "folder/name" of a path. */
static const char *short_path(struct hg_weights *w, const char *path)
{
    size_t n = strlen(path), slashes = 0, i = n;
    while (i > 0 && n - i < 72 && (slashes += path[i - 1] == '/') < 2)
        i--;
    return hg_arena_strndup(&w->arena, path + i, n - i);
}

static enum hg_status add_entries(struct hg_weights *w, const struct hg_tensor_file *f,
                                  uint32_t file)
{
    size_t more = hg_tensor_file_count(f);
    if (w->cap - w->n < more) {
        struct entry *p = realloc(w->entries, (w->n + more) * sizeof *p);
        if (!p)
            return HG_STATUS_NO_MEMORY;
        w->entries = p;
        w->cap = w->n + more;
    }
    for (size_t i = 0; i < more; i++) {
        char name[NAME_CAP];
        struct hg_tensor *t = hg_arena_alloc(&w->arena, sizeof *t);
        if (!t)
            return HG_STATUS_NO_MEMORY;
        *t = *hg_tensor_file_at(f, i);
        normalise(t->name, name);
        t->name = hg_arena_strndup(&w->arena, name, strlen(name));
        if (!t->name)
            return HG_STATUS_NO_MEMORY;
        w->entries[w->n++] = (struct entry){.t = t, .file = file};
    }
    return HG_STATUS_OK;
}

/* After a failure the set may hold a part of the file; its only use then is hg_weights_free. */
static enum hg_status add_open(struct hg_weights *w, struct hg_tensor_file *f, const char *path,
                               struct hg_error *err)
{
    struct hg_tensor_file **files = realloc(w->files, (w->n_files + 1) * sizeof(void *));
    if (files)
        w->files = files;
    const char **paths = realloc(w->paths, (w->n_files + 1) * sizeof(void *));
    if (paths)
        w->paths = paths;
    const char *shown = short_path(w, path);
    if (!files || !paths || !shown) {
        hg_tensor_file_close(f);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", path);
    }
    w->files[w->n_files] = f;
    w->paths[w->n_files] = shown;
    w->n_files++;
    if (add_entries(w, f, (uint32_t)(w->n_files - 1)) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", path);
    return merge(w, err);
}

enum hg_status hg_weights_add_file(struct hg_weights *w, const char *path, struct hg_error *err)
{
    struct hg_tensor_file *f;
    if (w->n_files >= MAX_FILES)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: more than %d weight files", path, MAX_FILES);
    HG_TRY(hg_tensor_file_open(path, &f, err));
    return add_open(w, f, path, err);
}

/* A shard is a plain file name beside its index. */
static bool shard_name_is_plain(const char *s)
{
    return s && s[0] && s[0] != '.' && !strchr(s, '/') && !strchr(s, '\\') && !strstr(s, "..");
}

static enum hg_status add_shard(struct hg_weights *w, const char *dir, json_t *map,
                                const char *shard, struct hg_error *err)
{
    char path[PATH_CAP];
    const char *name;
    json_t *value;
    if (hg_path_join(path, sizeof path, dir, shard) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: path is too long", shard);
    enum hg_status status = hg_weights_add_file(w, path, err);
    if (status == HG_STATUS_NOT_FOUND)
        return hg_fail(err, status, "%s: missing, though the index of shards beside it names it",
                       short_path(w, path));
    HG_TRY(status);
    const struct hg_tensor_file *f = w->files[w->n_files - 1];
    json_object_foreach(map, name, value)
    {
        if (strcmp(json_string_value(value), shard) == 0 && !hg_tensor_file_find(f, name))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: tensor %.80s: missing, though the index places it here",
                           w->paths[w->n_files - 1], name);
    }
    return HG_STATUS_OK;
}

/* Each shard once, in the order of first mention. */
static enum hg_status add_shards(struct hg_weights *w, const char *dir, const char *index,
                                 json_t *root, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    const char *name;
    json_t *value, *map = json_object_get(root, "weight_map"), *seen = json_object();
    if (!seen || !json_object_size(map)) {
        status =
            hg_fail(err, HG_STATUS_BAD_FILE, "%s: weight_map: expected a filled object", index);
        goto out;
    }
    json_object_foreach(map, name, value)
    {
        if (!shard_name_is_plain(json_string_value(value))) {
            status = hg_fail(err, HG_STATUS_BAD_FILE,
                             "%s: weight_map.%.60s: expected a plain file name, got \"%.60s\"",
                             index, name, json_is_string(value) ? json_string_value(value) : "?");
            goto out;
        }
    }
    json_object_foreach(map, name, value)
    {
        const char *shard = json_string_value(value);
        if (json_object_get(seen, shard))
            continue;
        if (json_object_set_new(seen, shard, json_true()) != 0) {
            status = hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", index);
            goto out;
        }
        HG_TRY_OUT(add_shard(w, dir, map, shard, err));
    }
out:
    json_decref(seen);
    return status;
}

static enum hg_status add_index(struct hg_weights *w, const char *dir, const char *path,
                                struct hg_error *err)
{
    struct hg_buf text = {0};
    json_t *root = NULL;
    json_error_t why;
    const char *index = short_path(w, path);
    enum hg_status status = HG_STATUS_OK;
    if (!index)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", path);
    HG_TRY_OUT(hg_file_read(path, MAX_INDEX_BYTES, &text, err));
    HG_TRY_OUT(hg_json_check(index, text.data, text.len, MAX_INDEX_VALUES, MAX_INDEX_DEPTH, err));
    status = hg_json_read(text.data, text.len, JSON_REJECT_DUPLICATES, &root, &why);
    if (status == HG_STATUS_OK)
        status = add_shards(w, dir, index, root, err);
    else if (status == HG_STATUS_NO_MEMORY)
        hg_fail(err, status, "%s: out of memory", index);
    else
        status = hg_fail(err, HG_STATUS_BAD_FILE, "%s: line %d: %s", index, why.line, why.text);
out:
    json_decref(root);
    hg_buf_deinit(&text);
    return status;
}

enum hg_status hg_weights_add_dir(struct hg_weights *w, const char *dir, struct hg_error *err)
{
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors",
                                        "pytorch_model.bin.index.json", "pytorch_model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_CAP];
        if (hg_path_join(path, sizeof path, dir, names[i]) != HG_STATUS_OK)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: path is too long", dir);
        if (!hg_file_exists(path))
            continue;
        return ends_with(path, ".json") ? add_index(w, dir, path, err)
                                        : hg_weights_add_file(w, path, err);
    }
    return hg_fail(err, HG_STATUS_NOT_FOUND,
                   "%.100s: has no model.safetensors, pytorch_model.bin or index of shards", dir);
}

/* ---- use ------------------------------------------------------------------------------ */

size_t hg_weights_count(const struct hg_weights *w)
{
    return w->n;
}

const struct hg_tensor *hg_weights_at(const struct hg_weights *w, size_t i, const char **file)
{
    if (i >= w->n)
        return NULL;
    if (file)
        *file = w->paths[w->entries[i].file];
    return w->entries[i].t;
}

const struct hg_tensor *hg_weights_find(const struct hg_weights *w, const char *name)
{
    const struct entry *x = find_entry(w, name);
    return x ? x->t : NULL;
}

static bool shape_matches(const struct hg_tensor *t, int n_dims, const int64_t *dims)
{
    if (t->n_dims != n_dims)
        return false;
    for (int i = 0; i < n_dims; i++)
        if (dims[i] >= 0 && dims[i] != t->dims[i])
            return false;
    return true;
}

enum hg_status hg_weights_get(struct hg_weights *w, const char *name, int n_dims,
                              const int64_t *dims, const struct hg_tensor **out,
                              struct hg_error *err)
{
    struct entry *x = find_entry(w, name);
    *out = NULL;
    if (!x)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %.100s: missing",
                       w->n_files ? w->paths[w->n_files - 1] : "weights", name);
    const struct hg_tensor *t = x->t;
    if (!shape_matches(t, n_dims, dims)) {
        char want[64], got[64];
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %.80s: expected %s, got %s",
                       w->paths[x->file], name,
                       hg_tensor_shape_text(dims, n_dims, want, sizeof want),
                       hg_tensor_shape_text(t->dims, t->n_dims, got, sizeof got));
    }
    if (t->type > HG_TENSOR_TYPE_F64)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: tensor %.80s: expected F32, F16, BF16 or F64, got %s",
                       w->paths[x->file], name, hg_tensor_type_name(t->type));
    x->used = true;
    *out = t;
    return HG_STATUS_OK;
}

void hg_weights_done(struct hg_weights *w, const struct hg_tensor *t)
{
    struct entry *x = find_entry(w, t->name);
    if (!x || x->t != t)
        return;
    if (!x->done) {
        x->crc32c = hg_tensor_crc32c(t);
        x->done = true;
        if (w->meter)
            hg_load_meter_add(w->meter,
                              (uint64_t)hg_tensor_count(t) * hg_tensor_type_bytes(t->type));
    }
    hg_tensor_file_forget(w->files[x->file], t);
}

void hg_weights_forget(struct hg_weights *w, const struct hg_tensor *t)
{
    const struct entry *x = find_entry(w, t->name);
    if (x && x->t == t)
        hg_tensor_file_forget(w->files[x->file], t);
}

enum hg_status hg_weights_check_finite(const struct hg_weights *w, const struct hg_tensor *t,
                                       int samples, struct hg_error *err)
{
    const struct entry *x = find_entry(w, t->name);
    if (x && samples > 0)
        hg_tensor_file_sample(w->files[x->file], t, true);
    int64_t i = hg_tensor_not_finite(t, samples);
    if (x && samples > 0)
        hg_tensor_file_sample(w->files[x->file], t, false);
    if (i < 0)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%s: tensor %.100s: element %lld is NaN or Inf: the file is damaged, download "
                   "it again",
                   x ? w->paths[x->file] : "weights", t->name, (long long)i);
}

void hg_weights_refuse_not_finite(struct hg_weights *w, bool on)
{
    w->finite_only = on;
}

bool hg_weights_refuses_not_finite(const struct hg_weights *w)
{
    return w->finite_only;
}

void hg_weights_set_meter(struct hg_weights *w, struct hg_load_meter *m)
{
    w->meter = m;
}

uint64_t hg_weights_bytes(const struct hg_weights *w)
{
    uint64_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        n += (uint64_t)hg_tensor_count(w->entries[i].t) *
             hg_tensor_type_bytes(w->entries[i].t->type);
    return n;
}

uint32_t hg_weights_crc32c(const struct hg_weights *w, uint32_t crc)
{
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *x = &w->entries[i];
        if (!x->done)
            continue;
        unsigned char sum[4];
        for (int k = 0; k < 4; k++)
            sum[k] = (unsigned char)(x->crc32c >> 8 * k);
        crc = hg_crc32c(crc, x->t->name, strlen(x->t->name));
        crc = hg_crc32c(crc, sum, sizeof sum);
    }
    return crc;
}

void hg_weights_ignore_prefix(struct hg_weights *w, const char *prefix)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < w->n; i++)
        if (strncmp(w->entries[i].t->name, prefix, n) == 0)
            w->entries[i].used = true;
}

void hg_weights_ignore_outside(struct hg_weights *w, const char *prefix)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < w->n; i++)
        if (strncmp(w->entries[i].t->name, prefix, n) != 0)
            w->entries[i].used = true;
}

enum hg_status hg_weights_check_all_used(const struct hg_weights *w, struct hg_error *err)
{
    const struct entry *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) {
        if (w->entries[i].used)
            continue;
        if (!first)
            first = &w->entries[i];
        n++;
    }
    if (!first)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%s: tensor %.80s: not expected by this model (%zu such)", w->paths[first->file],
                   first->t->name, n);
}
