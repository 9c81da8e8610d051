/* model/load/weights.c - files, shards and overlays under one sorted list of normalised names. */
#include "model/load/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/arena.h"
#include "common/checksum.h"
#include "common/log.h"
#include "model/load/finite.h"

enum {
    NAME_CAP = 320, /* a name of a file (256) and what normalising adds */
    MAX_FILES = 1024,
};

struct entry {
    struct hg_tensor *t;         /* in the arena, under the normalised name */
    const struct hg_tensor *raw; /* as the file has it */
    uint32_t file, crc32c, wanted;
    bool used, done; /* fetched or ignored; read, so that crc32c holds */
    bool locked;     /* crc32c must be `wanted` */
};

struct source {
    const char *name; /* without its folder, in the arena */
    int64_t mtime_ns;
};

struct hg_weights {
    struct hg_tensor_file **files;
    const char **paths; /* in the arena: folder and name, for messages */
    struct source *sources;
    size_t n_files;
    struct entry *entries; /* sorted by name */
    size_t n, cap;
    struct hg_arena arena;
    struct hg_load_meter *meter;
    const struct entry *spoilt; /* the first whose sum is not the wanted one */
    bool finite_only;           /* see hg_weights_refuse_not_finite */
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
    free(w->sources);
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
    if (strncmp(s, "model.model.", 12) == 0 || strncmp(s, "model.lm_head.", 14) == 0)
        s += 6; /* of non_lora_trainables.bin when "base_model." alone was taken off */
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
        const struct hg_tensor *raw = hg_tensor_file_at(f, i);
        *t = *raw;
        normalise(t->name, name);
        t->name = hg_arena_strndup(&w->arena, name, strlen(name));
        if (!t->name)
            return HG_STATUS_NO_MEMORY;
        w->entries[w->n++] = (struct entry){.t = t, .raw = raw, .file = file};
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
    struct source *sources = realloc(w->sources, (w->n_files + 1) * sizeof *sources);
    if (sources)
        w->sources = sources;
    const char *shown = short_path(w, path), *slash = strrchr(path, '/');
    const char *name =
        hg_arena_strndup(&w->arena, slash ? slash + 1 : path, strlen(slash ? slash + 1 : path));
    struct stat st = {0};
    if (!files || !paths || !sources || !shown || !name || stat(path, &st) != 0) {
        hg_tensor_file_close(f);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", path);
    }
    w->files[w->n_files] = f;
    w->paths[w->n_files] = shown;
    w->sources[w->n_files] =
        (struct source){name, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    w->n_files++;
    if (add_entries(w, f, (uint32_t)(w->n_files - 1)) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", path);
    return merge(w, err);
}

static enum hg_status add_file(struct hg_weights *w, const char *path, struct hg_error *err)
{
    struct hg_tensor_file *f;
    if (w->n_files >= MAX_FILES)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: more than %d weight files", path, MAX_FILES);
    HG_TRY(hg_tensor_file_open(path, &f, err));
    return add_open(w, f, path, err);
}

enum hg_status hg_weights_add_file(struct hg_weights *w, const char *path, struct hg_error *err)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? hg_weights_add_adapter_dir(w, path, err)
                                                       : add_file(w, path, err);
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
    HG_TRY(hg_weights_check_lock(w, err)); /* not one byte more of files that were changed */
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

static uint64_t bytes_of(const struct hg_tensor *t)
{
    return (uint64_t)hg_tensor_count(t) * hg_tensor_type_bytes(t->type);
}

static void sum_is(struct hg_weights *w, struct entry *x, uint32_t crc32c)
{
    x->crc32c = crc32c;
    x->done = true;
    if (x->locked && x->wanted != crc32c && !w->spoilt)
        w->spoilt = x;
}

void hg_weights_done(struct hg_weights *w, const struct hg_tensor *t)
{
    struct entry *x = find_entry(w, t->name);
    if (!x || x->t != t)
        return;
    if (!x->done) {
        sum_is(w, x, hg_tensor_crc32c(t));
        if (w->meter)
            hg_load_meter_add(w->meter, bytes_of(t));
    }
    hg_tensor_file_forget(w->files[x->file], t);
}

void hg_weights_vouch(struct hg_weights *w, const struct hg_tensor *t, uint32_t crc32c,
                      uint64_t bytes)
{
    struct entry *x = find_entry(w, t->name);
    if (!x || x->t != t || x->done)
        return;
    sum_is(w, x, crc32c);
    hg_tensor_file_forget(w->files[x->file], t); /* pages that were looked at before */
    if (!w->meter)
        return;
    w->meter->total += bytes - bytes_of(t);
    hg_load_meter_add(w->meter, bytes);
}

bool hg_weights_sum(const struct hg_weights *w, const char *name, uint32_t *crc32c)
{
    const struct entry *x = find_entry(w, name);
    if (x && x->done)
        *crc32c = x->crc32c;
    return x && x->done;
}

/* ---- files and what a lock wants of them ----------------------------------------------- */

size_t hg_weights_n_files(const struct hg_weights *w)
{
    return w->n_files;
}

struct hg_weights_file hg_weights_file_at(const struct hg_weights *w, size_t i)
{
    return (struct hg_weights_file){.name = w->sources[i].name,
                                    .bytes = hg_tensor_file_bytes(w->files[i]),
                                    .mtime_ns = w->sources[i].mtime_ns,
                                    .tensors = w->files[i]};
}

bool hg_weights_lock(struct hg_weights *w, size_t file, const char *raw, uint32_t crc32c)
{
    char name[NAME_CAP];
    normalise(raw, name);
    struct entry *x = find_entry(w, name);
    if (!x || x->file != file || strcmp(x->raw->name, raw) != 0)
        return false; /* a later file has its place */
    x->wanted = crc32c;
    x->locked = true;
    return true;
}

bool hg_weights_locked(const struct hg_weights *w, const char *name, uint32_t *crc32c)
{
    const struct entry *x = find_entry(w, name);
    if (x && x->locked)
        *crc32c = x->wanted;
    return x && x->locked;
}

enum hg_status hg_weights_check_lock(const struct hg_weights *w, struct hg_error *err)
{
    const struct entry *x = w->spoilt;
    if (!x)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%s: tensor %.80s: model.lock says crc32c %08x, the file has %08x (changed or "
                   "damaged)",
                   w->paths[x->file], x->raw->name, (unsigned)x->wanted, (unsigned)x->crc32c);
}

void hg_weights_count_locked(const struct hg_weights *w, size_t *verified, size_t *all)
{
    for (size_t i = 0; i < w->n; i++) {
        *all += w->entries[i].locked;
        *verified += w->entries[i].locked && w->entries[i].done;
    }
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
        n += bytes_of(w->entries[i].t);
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

enum hg_status hg_weights_warn_unused(const struct hg_weights *w, bool tell, struct hg_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *x = &w->entries[i];
        if (x->used)
            continue;
        if (strstr(x->t->name, ".lora_"))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: tensor %.80s: not expected by this model: an adapter of no layer",
                           w->paths[x->file], x->raw->name);
        if (tell && n++ < HG_WEIGHTS_WARNINGS)
            hg_log(HG_LOG_WARN, "%s: tensor %.200s: not used by this model", w->paths[x->file],
                   x->raw->name);
    }
    if (n > HG_WEIGHTS_WARNINGS)
        hg_log(HG_LOG_WARN, "%s: %zu tensors more are not used by this model",
               w->paths[w->n_files - 1], n - HG_WEIGHTS_WARNINGS);
    return HG_STATUS_OK;
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
