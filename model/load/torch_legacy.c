/* model/load/torch_legacy.c - the container of torch.save before 1.6.
 *
 * Five pickles in a row: magic number, protocol 1001, system information, the object, the list of
 * storage keys; then for each key of that list int64 count and the raw elements. */
#include <stdlib.h>
#include <string.h>

#include "model/load/pickle.h"
#include "model/load/tensor_file_build.h"

/* PROTO 2, LONG1 of 10 bytes 0x1950a86a20f9469cfc6c, STOP. */
static const unsigned char magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                      0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
enum { PROTOCOL = 1001 };

struct entry {
    const char *key;
    size_t key_len;
    const unsigned char *data;
    int64_t numel;
    size_t unit; /* bytes of an element; 0: no tensor uses this storage */
};

struct reader {
    const char *file;
    const unsigned char *data;
    size_t n, pos;
    struct entry *entries; /* sorted by key */
    size_t n_entries;
};

int hg_torch_legacy_detect(const unsigned char *data, size_t n)
{
    return n >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

static enum hg_status next_pickle(struct reader *r, struct hg_pickle *p, struct hg_error *err)
{
    HG_TRY(hg_pickle_parse(r->file, r->data + r->pos, r->n - r->pos, p, err));
    r->pos += p->used_bytes;
    return HG_STATUS_OK;
}

static enum hg_status read_protocol(struct reader *r, struct hg_error *err)
{
    struct hg_pickle p;
    HG_TRY(next_pickle(r, &p, err));
    const struct hg_pickle_node *root = &p.nodes[p.root];
    int ok = root->kind == HG_PICKLE_INT && root->u.integer == PROTOCOL;
    hg_pickle_deinit(&p);
    return ok ? HG_STATUS_OK
              : hg_fail(err, HG_STATUS_BAD_FILE, "%s: torch legacy: expected protocol %d", r->file,
                        PROTOCOL);
}

/* {"protocol_version": 1001, "little_endian": True, "type_sizes": {...}} */
static enum hg_status read_system(struct reader *r, struct hg_error *err)
{
    struct hg_pickle p;
    HG_TRY(next_pickle(r, &p, err));
    const struct hg_pickle_node *root = &p.nodes[p.root];
    int little = 0;
    uint32_t cell = root->u.items.first;
    for (uint32_t i = 0; root->kind == HG_PICKLE_DICT && i < root->u.items.n; i += 2) {
        const struct hg_pickle_node *key = &p.nodes[p.cells[cell].node];
        cell = p.cells[cell].next;
        const struct hg_pickle_node *value = &p.nodes[p.cells[cell].node];
        cell = p.cells[cell].next;
        if (hg_pickle_text_is(key, "little_endian"))
            little = value->kind == HG_PICKLE_BOOL && value->u.integer;
    }
    hg_pickle_deinit(&p);
    return little ? HG_STATUS_OK
                  : hg_fail(err, HG_STATUS_UNSUPPORTED,
                            "%s: torch legacy: expected little_endian true", r->file);
}

static int compare_text(const char *a, size_t na, const char *b, size_t nb)
{
    int c = memcmp(a, b, na < nb ? na : nb);
    return c ? c : na < nb ? -1 : na > nb;
}

static int compare_entries(const void *pa, const void *pb)
{
    const struct entry *a = pa, *b = pb;
    return compare_text(a->key, a->key_len, b->key, b->key_len);
}

static struct entry *find_entry(const struct reader *r, const char *key, size_t key_len)
{
    struct entry want = {.key = key, .key_len = key_len};
    if (r->n_entries == 0)
        return NULL;
    return bsearch(&want, r->entries, r->n_entries, sizeof want, compare_entries);
}

/* The element size of a storage is known from the persistent ids only. */
static enum hg_status set_units(struct reader *r, const struct hg_pickle *object,
                                struct hg_error *err)
{
    for (size_t i = 0; i < object->n_storages; i++) {
        const struct hg_pickle_storage *s = &object->storages[i];
        struct entry *e = find_entry(r, s->key, s->key_len);
        size_t unit = hg_tensor_type_bytes(s->type);
        if (!e)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: storage %.*s is not in the key list",
                           r->file, s->key_len > 40 ? 40 : (int)s->key_len, s->key);
        if (e->unit && e->unit != unit)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: storage %.*s has two element sizes",
                           r->file, s->key_len > 40 ? 40 : (int)s->key_len, s->key);
        e->unit = unit;
    }
    return HG_STATUS_OK;
}

/* Read the int64 count of each storage in file order and step over its elements. */
static enum hg_status read_storages(struct reader *r, const struct hg_pickle *keys,
                                    struct hg_error *err)
{
    uint32_t cell = keys->nodes[keys->root].u.items.first;
    for (size_t i = 0; i < r->n_entries; i++, cell = keys->cells[cell].next) {
        const struct hg_pickle_node *key = &keys->nodes[keys->cells[cell].node];
        struct entry *e = find_entry(r, key->u.text.s, key->u.text.n);
        size_t bytes;
        if (!e || !e->unit)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: storage %.*s belongs to no tensor, its size is unknown", r->file,
                           key->u.text.n > 40 ? 40 : (int)key->u.text.n, key->u.text.s);
        if (r->n - r->pos < 8)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: truncated before storage %zu", r->file, i);
        e->numel = (int64_t)hg_load_u64(r->data + r->pos);
        r->pos += 8;
        if (e->numel < 0 || __builtin_mul_overflow((size_t)e->numel, e->unit, &bytes) ||
            bytes > r->n - r->pos)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: storage %.*s: %lld elements of %zu bytes, %zu bytes left", r->file,
                           e->key_len > 40 ? 40 : (int)e->key_len, e->key, (long long)e->numel,
                           e->unit, r->n - r->pos);
        e->data = r->data + r->pos;
        r->pos += bytes;
    }
    if (r->pos != r->n)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %zu bytes behind the last storage", r->file,
                       r->n - r->pos);
    return HG_STATUS_OK;
}

static enum hg_status read_keys(struct reader *r, const struct hg_pickle *keys,
                                struct hg_error *err)
{
    const struct hg_pickle_node *root = &keys->nodes[keys->root];
    if (root->kind != HG_PICKLE_LIST)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected a list of storage keys", r->file);
    r->entries = calloc((size_t)root->u.items.n + 1, sizeof *r->entries);
    if (!r->entries)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", r->file);
    uint32_t cell = root->u.items.first;
    for (; r->n_entries < root->u.items.n; r->n_entries++, cell = keys->cells[cell].next) {
        const struct hg_pickle_node *key = &keys->nodes[keys->cells[cell].node];
        if (key->kind != HG_PICKLE_STRING)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: storage key is not a string", r->file);
        r->entries[r->n_entries].key = key->u.text.s;
        r->entries[r->n_entries].key_len = key->u.text.n;
    }
    qsort(r->entries, r->n_entries, sizeof *r->entries, compare_entries);
    for (size_t i = 1; i < r->n_entries; i++)
        if (compare_entries(&r->entries[i - 1], &r->entries[i]) == 0)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: a storage key is present twice", r->file);
    return HG_STATUS_OK;
}

static enum hg_status find_storage(void *ctx, const struct hg_pickle_storage *s,
                                   struct hg_storage_view *out, struct hg_error *err)
{
    const struct entry *e = find_entry(ctx, s->key, s->key_len);
    if (!e || !e->data || e->numel < s->numel)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "storage %.*s: expected %lld elements, the file has %lld",
                       s->key_len > 40 ? 40 : (int)s->key_len, s->key, (long long)s->numel,
                       e ? (long long)e->numel : 0LL);
    *out = (struct hg_storage_view){e->data, (size_t)s->numel * e->unit};
    return HG_STATUS_OK;
}

enum hg_status hg_torch_legacy_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                     struct hg_error *err)
{
    struct reader r = {.file = f->name, .data = data, .n = n, .pos = sizeof magic};
    struct hg_pickle object = {0}, keys = {0};
    HG_TRY(read_protocol(&r, err));
    HG_TRY(read_system(&r, err));
    enum hg_status status = next_pickle(&r, &object, err);
    if (status != HG_STATUS_OK)
        return status;
    HG_TRY_OUT(next_pickle(&r, &keys, err));
    HG_TRY_OUT(read_keys(&r, &keys, err));
    HG_TRY_OUT(set_units(&r, &object, err));
    HG_TRY_OUT(read_storages(&r, &keys, err));
    HG_TRY_OUT(hg_torch_tree_add(f, &object, find_storage, &r, err));
out:
    free(r.entries);
    hg_pickle_deinit(&keys);
    hg_pickle_deinit(&object);
    return status;
}
