/* model/load/tensor_file.c - choice of the container by content, and the list of named tensors. */
#include "model/load/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/utf8.h"
#include "model/load/odd_file.h"
#include "model/load/pickle.h"
#include "model/load/tensor_file_build.h"

static const int64_t max_dim = (int64_t)1 << 40;

size_t hg_tensor_type_bytes(enum hg_tensor_type t)
{
    static const unsigned char bytes[] = {
#define TYPE_BYTES(name, n) n,
        HG_TENSOR_TYPE_MAP(TYPE_BYTES)
#undef TYPE_BYTES
    };
    return (unsigned)t < HG_TENSOR_TYPE_COUNT ? bytes[t] : 0;
}

const char *hg_tensor_type_name(enum hg_tensor_type t)
{
    static const char *const names[] = {
#define TYPE_NAME(name, n) #name,
        HG_TENSOR_TYPE_MAP(TYPE_NAME)
#undef TYPE_NAME
    };
    return (unsigned)t < HG_TENSOR_TYPE_COUNT ? names[t] : "?";
}

int64_t hg_tensor_count(const struct hg_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

int hg_tensor_is_contiguous(const struct hg_tensor *t)
{
    int64_t want = 1;
    if (hg_tensor_count(t) == 0) /* its other dimensions may multiply beyond 63 bits */
        return 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (t->dims[i] != 1 && t->strides[i] != want)
            return 0;
        want *= t->dims[i];
    }
    return 1;
}

size_t hg_tensor_extent(const struct hg_tensor *t)
{
    size_t last = 0;
    if (hg_tensor_count(t) == 0)
        return 0;
    for (int i = 0; i < t->n_dims; i++)
        last += (size_t)(t->dims[i] - 1) * (size_t)t->strides[i];
    return (last + 1) * hg_tensor_type_bytes(t->type);
}

uint32_t hg_tensor_crc32c(const struct hg_tensor *t)
{
    int64_t at[HG_TENSOR_MAX_DIMS] = {0}, n = hg_tensor_count(t);
    size_t size = hg_tensor_type_bytes(t->type);
    uint32_t crc = 0;
    if (hg_tensor_is_contiguous(t))
        return hg_crc32c(0, t->data, (size_t)n * size);
    for (int64_t k = 0; k < n; k++) {
        int64_t offset = 0;
        for (int i = 0; i < t->n_dims; i++)
            offset += at[i] * t->strides[i];
        crc = hg_crc32c(crc, t->data + (size_t)offset * size, size);
        for (int i = t->n_dims - 1; i >= 0 && ++at[i] == t->dims[i]; i--)
            at[i] = 0;
    }
    return crc;
}

const char *hg_tensor_shape_text(const int64_t *dims, int n_dims, char *out, size_t cap)
{
    size_t len = 0;
    if (cap)
        out[0] = '\0';
    for (int i = 0; i <= n_dims && len < cap; i++) {
        int k = i == n_dims
                    ? snprintf(out + len, cap - len, i ? "]" : "[]")
                    : snprintf(out + len, cap - len, "%s%lld", i ? ", " : "[", (long long)dims[i]);
        if (k < 0)
            break;
        len += (size_t)k;
    }
    return out;
}

void hg_tensor_set_contiguous(struct hg_tensor *t)
{
    int64_t stride = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        t->strides[i] = stride;
        stride *= t->dims[i] ? t->dims[i] : 1;
    }
}

/* Number of elements and the largest element index of the view; false on overflow or bad numbers.
 */
static int measure(const struct hg_tensor *t, int64_t offset, int64_t *count, int64_t *last)
{
    *count = 1;
    *last = offset;
    if (offset < 0 || t->n_dims < 0 || t->n_dims > HG_TENSOR_MAX_DIMS)
        return 0;
    for (int i = 0; i < t->n_dims; i++) {
        int64_t reach;
        if (t->dims[i] < 0 || t->dims[i] >= max_dim || t->strides[i] < 0 ||
            t->strides[i] >= max_dim)
            return 0;
        if (__builtin_mul_overflow(*count, t->dims[i], count))
            return 0;
        if (t->dims[i] == 0)
            continue;
        if (__builtin_mul_overflow(t->dims[i] - 1, t->strides[i], &reach) ||
            __builtin_add_overflow(*last, reach, last))
            return 0;
    }
    return 1;
}

enum hg_status hg_tensor_place(struct hg_tensor *t, int64_t offset, struct hg_storage_view s,
                               struct hg_error *err)
{
    int64_t count, last;
    size_t size = hg_tensor_type_bytes(t->type);
    if (size == 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "unknown element type");
    int64_t held = (int64_t)(s.bytes / size);
    char shape[128];
    hg_tensor_shape_text(t->dims, t->n_dims <= HG_TENSOR_MAX_DIMS ? t->n_dims : 0, shape,
                         sizeof shape);
    if (!measure(t, offset, &count, &last))
        return hg_fail(err, HG_STATUS_BAD_FILE, "impossible shape %.60s, stride or offset", shape);
    if (count == 0) {
        t->data = s.data;
        return HG_STATUS_OK;
    }
    if (last >= held || count > held)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s %.60s at offset %lld needs %lld elements, the storage has %lld",
                       hg_tensor_type_name(t->type), shape, (long long)offset,
                       (long long)(last >= held ? last + 1 : count), (long long)held);
    t->data = s.data + (size_t)offset * size;
    return HG_STATUS_OK;
}

static int name_is_printable(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return 0;
    return hg_utf8_valid(s, n);
}

enum hg_status hg_tensor_file_add(struct hg_tensor_file *f, const char *name, size_t name_len,
                                  const struct hg_tensor *t, struct hg_error *err)
{
    if (name_len == 0 || name_len > HG_TENSOR_NAME_MAX)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %zu: name of 1..%d bytes, got %zu",
                       f->name, f->n, HG_TENSOR_NAME_MAX, name_len);
    if (!name_is_printable(name, name_len))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %zu: name is not printable UTF-8",
                       f->name, f->n);
    if (memmem(name, name_len, "/../", 4))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %zu: name looks like a path", f->name,
                       f->n);
    if (f->n >= HG_TENSOR_FILE_MAX)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: more than %d tensors", f->name,
                       HG_TENSOR_FILE_MAX);
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 64;
        struct hg_tensor *p = realloc(f->tensors, cap * sizeof *p);
        if (!p)
            return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", f->name);
        f->tensors = p;
        f->cap = cap;
    }
    struct hg_tensor *slot = &f->tensors[f->n];
    *slot = *t;
    slot->name = hg_arena_strndup(&f->arena, name, name_len);
    if (!slot->name)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", f->name);
    f->n++;
    return HG_STATUS_OK;
}

static int compare_names(const void *a, const void *b, void *ctx)
{
    const struct hg_tensor *t = ctx;
    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

/* Sort the names (no hash: collisions cannot be forced) and refuse a name that occurs twice. */
static enum hg_status seal(struct hg_tensor_file *f, struct hg_error *err)
{
    if (f->n == 0)
        return HG_STATUS_OK;
    f->by_name = malloc(f->n * sizeof *f->by_name);
    if (!f->by_name)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", f->name);
    for (size_t i = 0; i < f->n; i++)
        f->by_name[i] = (uint32_t)i;
    qsort_r(f->by_name, f->n, sizeof *f->by_name, compare_names, f->tensors);
    for (size_t i = 1; i < f->n; i++)
        if (compare_names(&f->by_name[i - 1], &f->by_name[i], f->tensors) == 0)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: tensor %.80s: present twice", f->name,
                           f->tensors[f->by_name[i]].name);
    return HG_STATUS_OK;
}

static int looks_like_pickle(const unsigned char *d, size_t n)
{
    return n > 0 && (d[0] == 0x80 || strchr("c(]}lVSIg", d[0]));
}

static enum hg_status refuse(const char *name, const unsigned char *d, size_t n,
                             struct hg_error *err)
{
    if (n > 262 && memcmp(d + 257, "ustar", 5) == 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: a tar file of an early torch, save it again with torch.save", name);
    enum hg_odd_file odd = hg_odd_file_of(d, n, NULL);
    if (odd != HG_ODD_NONE)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: %s", name, hg_odd_file_text(odd),
                       odd == HG_ODD_LFS_POINTER ? "run \"git lfs pull\" in the clone it is from"
                                                 : "download it again");
    if (looks_like_pickle(d, n))
        return hg_pickle_refuse_bare(name, d, n, err);
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%s: expected a safetensors, torch zip or torch legacy file, got %zu bytes of "
                   "something else",
                   name, n);
}

/* A safetensors file has '{' as byte 8; neither torch container can (their byte 8 is fixed). */
static enum hg_status parse_container(struct hg_tensor_file *f, const unsigned char *d, size_t n,
                                      struct hg_error *err)
{
    if (n > 8 && d[8] == '{') {
        f->container = "safetensors";
        return hg_safetensors_parse(f, d, n, err);
    }
    if (n >= 4 && memcmp(d, "PK\3\4", 4) == 0) {
        f->container = "torch zip";
        return hg_torch_zip_parse(f, d, n, err);
    }
    if (hg_torch_legacy_detect(d, n)) {
        f->container = "torch legacy";
        return hg_torch_legacy_parse(f, d, n, err);
    }
    return refuse(f->name, d, n, err);
}

/* A message is short: a long path keeps its end. */
static char *short_name(struct hg_arena *a, const char *name)
{
    size_t n = strlen(name), keep = 72;
    char text[80];
    snprintf(text, sizeof text, "%s%s", n > keep ? "..." : "", n > keep ? name + n - keep : name);
    return hg_arena_strndup(a, text, strlen(text));
}

enum hg_status hg_tensor_file_parse(const char *name, const void *data, size_t n,
                                    struct hg_tensor_file **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_tensor_file *f = calloc(1, sizeof *f);
    if (!f)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", name);
    f->name = short_name(&f->arena, name);
    enum hg_status status = f->name ? parse_container(f, data, n, err)
                                    : hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", name);
    if (status == HG_STATUS_OK)
        status = seal(f, err);
    if (status == HG_STATUS_OK)
        *out = f;
    else
        hg_tensor_file_close(f);
    return status;
}

enum hg_status hg_tensor_file_open(const char *path, struct hg_tensor_file **out,
                                   struct hg_error *err)
{
    struct hg_file_map map = {0};
    struct hg_tensor_file *f = NULL;
    *out = NULL;
    HG_TRY(hg_file_map(path, &map, err));
    enum hg_status status = hg_tensor_file_parse(path, map.data, map.n, &f, err);
    if (f) {
        f->map = map;
        *out = f;
    } else {
        hg_file_unmap(&map);
    }
    return status;
}

void hg_tensor_file_close(struct hg_tensor_file *f)
{
    if (!f)
        return;
    hg_file_unmap(&f->map);
    free(f->by_name);
    free(f->tensors);
    hg_arena_deinit(&f->arena);
    free(f);
}

void hg_tensor_file_forget(const struct hg_tensor_file *f, const struct hg_tensor *t)
{
    hg_file_forget(&f->map, t->data, hg_tensor_extent(t));
}

void hg_tensor_file_sample(const struct hg_tensor_file *f, const struct hg_tensor *t, bool random)
{
    hg_file_sample(&f->map, t->data, hg_tensor_extent(t), random);
}

const char *hg_tensor_file_container(const struct hg_tensor_file *f)
{
    return f->container;
}

size_t hg_tensor_file_bytes(const struct hg_tensor_file *f)
{
    return f->map.n;
}

size_t hg_tensor_file_count(const struct hg_tensor_file *f)
{
    return f->n;
}

const struct hg_tensor *hg_tensor_file_at(const struct hg_tensor_file *f, size_t i)
{
    return i < f->n ? &f->tensors[i] : NULL;
}

const struct hg_tensor *hg_tensor_file_find(const struct hg_tensor_file *f, const char *name)
{
    size_t lo = 0, hi = f->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct hg_tensor *t = &f->tensors[f->by_name[mid]];
        int c = strcmp(name, t->name);
        if (c == 0)
            return t;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
