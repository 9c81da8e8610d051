/* model/load/torch_zip.c - the zip container of torch.save (torch >= 1.6).
 *
 * <root>/data.pkl is the pickle, <root>/data/<key> are the raw storages, all stored without
 * compression. The start of a member comes from its LOCAL header (torch pads there), its size from
 * the central directory, and both headers must agree. Zip64 when a size or offset passes 4 GiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/load/pickle.h"
#include "model/load/tensor_file_build.h"

enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_MEMBERS = 400000,
    MAX_NAME = 512,
    FLAG_DESCRIPTOR = 1 << 3,
    FLAG_UTF8 = 1 << 11,
};

struct member {
    const char *name; /* in the central directory, not terminated */
    size_t name_len;
    uint64_t begin, bytes; /* of the data, in the file */
};

struct zip {
    const char *file;
    const unsigned char *data;
    size_t n;
    uint64_t central, central_bytes, n_members;
    struct member *members; /* sorted by name */
    const char *root;       /* "archive/" */
    size_t root_len;
};

static enum hg_status bad(const struct zip *z, struct hg_error *err, const char *what)
{
    hg_fail(err, HG_STATUS_BAD_FILE, "%s: zip: %s", z->file, what);
    return HG_STATUS_BAD_FILE;
}

/* The end record stands before a comment of at most 64 KiB that must reach exactly to the end. */
static const unsigned char *find_end(const struct zip *z)
{
    size_t lowest = z->n > END_BYTES + 65535 ? z->n - END_BYTES - 65535 : 0;
    for (size_t at = z->n < END_BYTES ? 0 : z->n - END_BYTES + 1; at-- > lowest;)
        if (memcmp(z->data + at, "PK\5\6", 4) == 0 &&
            hg_load_u16(z->data + at + 20) == z->n - at - END_BYTES)
            return z->data + at;
    return NULL;
}

/* Replace the numbers by those of the zip64 end record when its locator stands before the end. */
static enum hg_status read_end64(struct zip *z, size_t end_at, uint64_t *limit,
                                 struct hg_error *err)
{
    if (end_at < LOCATOR_BYTES || memcmp(z->data + end_at - LOCATOR_BYTES, "PK\6\7", 4) != 0)
        return HG_STATUS_OK;
    uint64_t at = hg_load_u64(z->data + end_at - LOCATOR_BYTES + 8);
    if (end_at < LOCATOR_BYTES + END64_BYTES || at > end_at - LOCATOR_BYTES - END64_BYTES ||
        memcmp(z->data + at, "PK\6\6", 4) != 0)
        return bad(z, err, "zip64 end record is missing");
    const unsigned char *r = z->data + at;
    if (hg_load_u32(r + 16) || hg_load_u32(r + 20) || hg_load_u64(r + 24) != hg_load_u64(r + 32))
        return bad(z, err, "more than one disk");
    z->n_members = hg_load_u64(r + 32);
    z->central_bytes = hg_load_u64(r + 40);
    z->central = hg_load_u64(r + 48);
    *limit = at;
    return HG_STATUS_OK;
}

static enum hg_status read_end(struct zip *z, struct hg_error *err)
{
    const unsigned char *r = find_end(z);
    if (!r)
        return bad(z, err, "no end record (truncated file?)");
    if (hg_load_u16(r + 4) || hg_load_u16(r + 6) || hg_load_u16(r + 8) != hg_load_u16(r + 10))
        return bad(z, err, "more than one disk");
    uint64_t limit = (uint64_t)(r - z->data);
    z->n_members = hg_load_u16(r + 10);
    z->central_bytes = hg_load_u32(r + 12);
    z->central = hg_load_u32(r + 16);
    HG_TRY(read_end64(z, (size_t)limit, &limit, err));
    if (z->central > limit || z->central_bytes != limit - z->central)
        return bad(z, err, "central directory does not end at the end record");
    if (z->n_members > MAX_MEMBERS || z->n_members * CENTRAL_BYTES > z->central_bytes)
        return bad(z, err, "impossible number of members");
    return HG_STATUS_OK;
}

/* Zip64 extra field: the 32-bit fields that are all ones, in the order size, packed size, offset.
 */
static int read_extra64(const unsigned char *x, size_t n, uint64_t *value[3])
{
    while (n >= 4) {
        size_t len = hg_load_u16(x + 2);
        if (len > n - 4)
            return 0;
        const unsigned char *field = x + 4, *end = x + 4 + len;
        for (int i = 0; hg_load_u16(x) == 1 && i < 3; i++) {
            if (*value[i] != UINT32_MAX)
                continue;
            if (end - field < 8)
                return 0;
            *value[i] = hg_load_u64(field);
            field += 8;
        }
        x += 4 + len;
        n -= 4 + len;
    }
    return 1;
}

static int name_is_safe(const char *s, size_t n)
{
    if (n == 0 || n > MAX_NAME || s[0] == '/' || memchr(s, '\0', n) || memchr(s, '\\', n))
        return 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (s[i] == '.' && s[i + 1] == '.' && (i == 0 || s[i - 1] == '/') &&
            (i + 2 == n || s[i + 2] == '/'))
            return 0;
    return 1;
}

/* The local header must repeat the name, method and size (size 0: it follows the data). */
static enum hg_status read_local(const struct zip *z, struct member *m, uint64_t at, uint32_t flags,
                                 struct hg_error *err)
{
    if (at > z->central || z->central - at < LOCAL_BYTES)
        return bad(z, err, "local header outside the file");
    const unsigned char *h = z->data + at;
    uint64_t name_len = hg_load_u16(h + 26), extra = hg_load_u16(h + 28);
    uint64_t begin = at + LOCAL_BYTES + name_len + extra;
    if (memcmp(h, "PK\3\4", 4) != 0)
        return bad(z, err, "no local header where the central directory says");
    if (begin > z->central || m->bytes > z->central - begin)
        return bad(z, err, "member reaches into the central directory");
    if (name_len != m->name_len || memcmp(h + LOCAL_BYTES, m->name, m->name_len) != 0)
        return bad(z, err, "local and central header name different members");
    uint64_t packed = hg_load_u32(h + 18), size = hg_load_u32(h + 22), none = 0;
    uint64_t *value[3] = {&size, &packed, &none};
    if (!read_extra64(h + LOCAL_BYTES + name_len, (size_t)extra, value))
        return bad(z, err, "broken extra field");
    int later = flags & FLAG_DESCRIPTOR && packed == 0 && size == 0;
    if (hg_load_u16(h + 6) != flags || hg_load_u16(h + 8) != 0 ||
        (!later && (packed != m->bytes || size != m->bytes)))
        return bad(z, err, "local and central header disagree");
    m->begin = begin;
    return HG_STATUS_OK;
}

static enum hg_status read_member(const struct zip *z, uint64_t *at, struct member *m,
                                  struct hg_error *err)
{
    const unsigned char *h = z->data + *at;
    uint64_t left = z->central + z->central_bytes - *at;
    if (left < CENTRAL_BYTES || memcmp(h, "PK\1\2", 4) != 0)
        return bad(z, err, "broken central directory");
    uint64_t name_len = hg_load_u16(h + 28), extra = hg_load_u16(h + 30);
    uint64_t whole = CENTRAL_BYTES + name_len + extra + hg_load_u16(h + 32);
    if (whole > left)
        return bad(z, err, "broken central directory");
    *m = (struct member){.name = (const char *)h + CENTRAL_BYTES, .name_len = (size_t)name_len};
    uint64_t packed = hg_load_u32(h + 20), size = hg_load_u32(h + 24), local = hg_load_u32(h + 42);
    uint64_t *value[3] = {&size, &packed, &local};
    uint32_t flags = hg_load_u16(h + 8);
    if (!name_is_safe(m->name, m->name_len))
        return bad(z, err, "member name is unsafe (\"..\", absolute, NUL, backslash or too long)");
    if (flags & ~(uint32_t)(FLAG_DESCRIPTOR | FLAG_UTF8))
        return bad(z, err, "encrypted or otherwise special member");
    if (hg_load_u16(h + 10) != 0)
        return bad(z, err, "compressed member (torch stores without compression)");
    if (!read_extra64(h + CENTRAL_BYTES + name_len, (size_t)extra, value))
        return bad(z, err, "broken extra field");
    if (hg_load_u16(h + 34) || packed != size)
        return bad(z, err, "stored member whose two sizes differ");
    m->bytes = size;
    HG_TRY(read_local(z, m, local, flags, err));
    *at += whole;
    return HG_STATUS_OK;
}

static int compare_begin(const void *pa, const void *pb)
{
    const struct member *a = pa, *b = pb;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int compare_key(const char *s, size_t n, const struct member *m)
{
    int c = memcmp(s, m->name, n < m->name_len ? n : m->name_len);
    return c ? c : n < m->name_len ? -1 : n > m->name_len;
}

static int compare_name(const void *pa, const void *pb)
{
    const struct member *a = pa;
    return compare_key(a->name, a->name_len, pb);
}

static enum hg_status read_members(struct zip *z, struct hg_error *err)
{
    size_t n = (size_t)z->n_members;
    uint64_t at = z->central;
    z->members = calloc(n + 1, sizeof *z->members);
    if (!z->members)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", z->file);
    for (size_t i = 0; i < n; i++)
        HG_TRY(read_member(z, &at, &z->members[i], err));
    if (at != z->central + z->central_bytes)
        return bad(z, err, "central directory is longer than its members");
    qsort(z->members, n, sizeof *z->members, compare_begin);
    for (size_t i = 1; i < n; i++)
        if (z->members[i - 1].begin + z->members[i - 1].bytes > z->members[i].begin)
            return bad(z, err, "members overlap");
    qsort(z->members, n, sizeof *z->members, compare_name);
    for (size_t i = 1; i < n; i++)
        if (compare_name(&z->members[i - 1], &z->members[i]) == 0)
            return bad(z, err, "a member is present twice");
    return HG_STATUS_OK;
}

static const struct member *find_member(const struct zip *z, const char *name, size_t name_len)
{
    size_t lo = 0, hi = (size_t)z->n_members;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare_key(name, name_len, &z->members[mid]);
        if (c == 0)
            return &z->members[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* Member <root>/<dir><key>; NULL when absent. */
static const struct member *find_in_root(const struct zip *z, const char *dir, const char *key,
                                         size_t key_len)
{
    char name[MAX_NAME + 1];
    if (key_len > MAX_NAME || memchr(key, '\0', key_len))
        return NULL;
    int n = snprintf(name, sizeof name, "%.*s%s%.*s", (int)z->root_len, z->root, dir, (int)key_len,
                     key);
    return n > 0 && n <= MAX_NAME ? find_member(z, name, (size_t)n) : NULL;
}

/* The one "<root>/data.pkl" with a root of a single component. */
static enum hg_status find_pickle(struct zip *z, const struct member **out, struct hg_error *err)
{
    static const char suffix[] = "/data.pkl";
    size_t n = sizeof suffix - 1;
    *out = NULL;
    for (size_t i = 0; i < z->n_members; i++) {
        const struct member *m = &z->members[i];
        if (m->name_len <= n || memcmp(m->name + m->name_len - n, suffix, n) != 0 ||
            memchr(m->name, '/', m->name_len - n))
            continue;
        if (*out)
            return bad(z, err, "two data.pkl members");
        *out = m;
    }
    if (!*out)
        return bad(z, err, "no <name>/data.pkl: not a file of torch.save");
    z->root = (*out)->name;
    z->root_len = (*out)->name_len - n + 1;
    if (z->root_len > MAX_NAME - 64)
        return bad(z, err, "name of the archive is too long");
    return HG_STATUS_OK;
}

static enum hg_status find_storage(void *ctx, const struct hg_pickle_storage *s,
                                   struct hg_storage_view *out, struct hg_error *err)
{
    const struct zip *z = ctx;
    const struct member *m = find_in_root(z, "data/", s->key, s->key_len);
    size_t bytes;
    if (!m)
        return hg_fail(err, HG_STATUS_BAD_FILE, "storage data/%.*s is missing",
                       s->key_len > 40 ? 40 : (int)s->key_len, s->key);
    if (__builtin_mul_overflow((size_t)s->numel, hg_tensor_type_bytes(s->type), &bytes) ||
        bytes > m->bytes)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "storage data/%.*s: expected %lld elements of %s, has %llu bytes",
                       s->key_len > 40 ? 40 : (int)s->key_len, s->key, (long long)s->numel,
                       hg_tensor_type_name(s->type), (unsigned long long)m->bytes);
    *out = (struct hg_storage_view){z->data + m->begin, bytes};
    return HG_STATUS_OK;
}

static enum hg_status read_pickle(struct hg_tensor_file *f, struct zip *z, struct hg_error *err)
{
    const struct member *m, *order;
    struct hg_pickle p;
    HG_TRY(find_pickle(z, &m, err));
    order = find_in_root(z, "", "byteorder", 9);
    if (order && (order->bytes < 6 || memcmp(z->data + order->begin, "little", 6) != 0))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: byteorder: expected little", z->file);
    HG_TRY(hg_pickle_parse(z->file, z->data + m->begin, (size_t)m->bytes, &p, err));
    enum hg_status status;
    if (p.used_bytes != m->bytes)
        status = bad(z, err, "bytes behind the end of data.pkl");
    else
        status = hg_torch_tree_add(f, &p, find_storage, z, err);
    hg_pickle_deinit(&p);
    return status;
}

enum hg_status hg_torch_zip_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                  struct hg_error *err)
{
    struct zip z = {.file = f->name, .data = data, .n = n, .root = ""};
    HG_TRY(read_end(&z, err));
    enum hg_status status = read_members(&z, err);
    if (status == HG_STATUS_OK)
        status = read_pickle(f, &z, err);
    free(z.members);
    return status;
}
