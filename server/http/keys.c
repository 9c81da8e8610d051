/* server/http/keys.c - the file is read into a table of its own, which then takes the old one's
 * place.
 */
#include "server/http/keys.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "common/file.h"
#include "common/json.h"
#include "common/sha256.h"
#include "server/json_text.h"

enum { KEYS_MAX_BYTES = 1 << 20, KEY_MAX_CHARS = 256, KEY_RANDOM_BYTES = 32 };

struct key {
    uint8_t digest[HG_SHA256_BYTES];
    bool reads_only;
    struct hg_tenant who;
};

struct table {
    struct key *keys; /* [n] */
    size_t n;
};

struct hg_keys {
    char *path;
    pthread_mutex_t lock; /* guards table */
    struct table table;
};

/* ---- the file -------------------------------------------------------------------------------- */

static bool name_is_good(const char *s)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(s);
    return n > 0 && n < HG_TENANT_NAME_CAP && strspn(s, good) == n;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool digest_of_hex(const char *s, uint8_t out[HG_SHA256_BYTES])
{
    if (strlen(s) != 2 * HG_SHA256_BYTES)
        return false;
    for (int i = 0; i < HG_SHA256_BYTES; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

/* 64 bits of the digest of a random key; never 0, which means "no keys". */
static uint64_t tenant_id(const uint8_t digest[HG_SHA256_BYTES])
{
    uint64_t id = 0;
    for (int i = 0; i < 8; i++)
        id = id << 8 | digest[i];
    return id ? id : 1;
}

static enum hg_status read_rates(const struct hg_json_view *v, struct hg_tenant *who,
                                 struct hg_error *err)
{
    HG_TRY(hg_json_int(v, "requests_per_minute", HG_JSON_OPTIONAL, 1, 1000000,
                       &who->requests_per_minute, err));
    who->burst = (who->requests_per_minute + 2) / 3;
    HG_TRY(hg_json_int(v, "burst", HG_JSON_OPTIONAL, 1, 1000000, &who->burst, err));
    return hg_json_int(v, "tokens_per_minute", HG_JSON_OPTIONAL, 1, 1000000000,
                       &who->tokens_per_minute, err);
}

static enum hg_status read_entry(const json_t *entry, const char *where, struct key *k,
                                 struct hg_error *err)
{
    static const char *const known[] = {"name",
                                        "sha256",
                                        "role",
                                        "weight",
                                        "max_queued",
                                        "max_running",
                                        "requests_per_minute",
                                        "burst",
                                        "tokens_per_minute",
                                        NULL};
    const char *name, *hex, *role = "user";
    if (!json_is_object(entry))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected an object", where);
    struct hg_json_view v = hg_json_view_of(entry, where);
    HG_TRY(hg_json_known_keys(&v, known, err));
    HG_TRY(hg_json_string(&v, "name", HG_JSON_REQUIRED, HG_TENANT_NAME_CAP - 1, &name, err));
    HG_TRY(hg_json_string(&v, "sha256", HG_JSON_REQUIRED, 4096, &hex, err));
    HG_TRY(hg_json_string(&v, "role", HG_JSON_OPTIONAL, 32, &role, err));
    k->who.weight = 1;
    HG_TRY(
        hg_json_int(&v, "weight", HG_JSON_OPTIONAL, 1, HG_TENANT_MAX_WEIGHT, &k->who.weight, err));
    HG_TRY(hg_json_int(&v, "max_queued", HG_JSON_OPTIONAL, 1, 65536, &k->who.max_queued, err));
    HG_TRY(hg_json_int(&v, "max_running", HG_JSON_OPTIONAL, 1, 1024, &k->who.max_running, err));
    HG_TRY(read_rates(&v, &k->who, err));
    if (!name_is_good(name))
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: name: expected 1..32 letters, digits, '.', '_' or '-'", where);
    if (!digest_of_hex(hex, k->digest)) /* not repeated here: it might be the key by mistake */
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: sha256: expected 64 hex digits", where);
    if (strcmp(role, "user") != 0 && strcmp(role, "reader") != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: role: expected \"user\" or \"reader\"", where);
    k->reads_only = strcmp(role, "reader") == 0;
    k->who.id = tenant_id(k->digest);
    snprintf(k->who.name, sizeof k->who.name, "%s", name);
    return HG_STATUS_OK;
}

/* Equal names or digests: somebody has copied a line. */
static enum hg_status check_new(const struct table *t, const struct key *k, const char *where,
                                struct hg_error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->keys[i].who.name, k->who.name) == 0)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: name \"%s\" is in keys[%zu] already",
                           where, k->who.name, i);
        if (t->keys[i].who.id == k->who.id)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: sha256 is that of keys[%zu] already",
                           where, i);
    }
    return HG_STATUS_OK;
}

static enum hg_status read_table(const json_t *root, struct table *t, struct hg_error *err)
{
    static const char *const known[] = {"$schema", "keys", NULL};
    const json_t *list = json_object_get(root, "keys");
    if (!json_is_object(root))
        return hg_fail(err, HG_STATUS_BAD_FILE, "expected one JSON object");
    struct hg_json_view v = hg_json_view_of(root, "file");
    HG_TRY(hg_json_known_keys(&v, known, err));
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0 || n > HG_KEYS_MAX)
        return hg_fail(err, HG_STATUS_BAD_FILE, "keys: expected an array of 1..%d, got %zu",
                       HG_KEYS_MAX, n);
    t->keys = calloc(n, sizeof *t->keys);
    if (!t->keys)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "keys: out of memory");
    for (size_t i = 0; i < n; i++) {
        char where[32];
        snprintf(where, sizeof where, "keys[%zu]", i);
        HG_TRY(read_entry(json_array_get(list, i), where, &t->keys[i], err));
        HG_TRY(check_new(t, &t->keys[i], where, err));
        t->n++;
    }
    return HG_STATUS_OK;
}

static enum hg_status load(const char *path, struct table *t, struct hg_error *err)
{
    struct hg_buf text = {0};
    struct hg_error why = {0};
    json_t *root = NULL;
    enum hg_status status = hg_file_read(path, KEYS_MAX_BYTES, &text, err);
    if (status != HG_STATUS_OK)
        return status;
    hg_json_strip_comments(text.data, text.len);
    status = hg_json_body_parse(text.data, text.len, &root, &why);
    if (status == HG_STATUS_OK)
        status = read_table(root, t, &why);
    json_decref(root);
    hg_buf_deinit(&text);
    if (status == HG_STATUS_OK)
        return status;
    free(t->keys);
    *t = (struct table){0};
    return hg_fail(err, status == HG_STATUS_BAD_REQUEST ? HG_STATUS_BAD_FILE : status,
                   "key file %.90s: %.200s", path, why.text);
}

/* ---- face ------------------------------------------------------------------------------------ */

enum hg_status hg_keys_create(const char *path, struct hg_keys **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_keys *k = calloc(1, sizeof *k);
    char *copy = strdup(path);
    if (!k || !copy) {
        free(k);
        free(copy);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "keys: out of memory");
    }
    k->path = copy;
    pthread_mutex_init(&k->lock, NULL);
    enum hg_status status = load(path, &k->table, err);
    if (status != HG_STATUS_OK) {
        hg_keys_free(k);
        return status;
    }
    *out = k;
    return status;
}

void hg_keys_free(struct hg_keys *k)
{
    if (!k)
        return;
    pthread_mutex_destroy(&k->lock);
    free(k->table.keys);
    free(k->path);
    free(k);
}

enum hg_status hg_keys_reload(struct hg_keys *k, struct hg_error *err)
{
    struct table fresh = {0}, old;
    HG_TRY(load(k->path, &fresh, err));
    pthread_mutex_lock(&k->lock);
    old = k->table;
    k->table = fresh;
    pthread_mutex_unlock(&k->lock);
    free(old.keys);
    return HG_STATUS_OK;
}

size_t hg_keys_count(struct hg_keys *k)
{
    pthread_mutex_lock(&k->lock);
    size_t n = k->table.n;
    pthread_mutex_unlock(&k->lock);
    return n;
}

/* The key in "Bearer <key>", or NULL. */
static const char *bearer(const char *authorization, size_t *n)
{
    static const char scheme[] = "Bearer ";
    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return NULL;
    const char *key = authorization + sizeof scheme - 1;
    key += strspn(key, " ");
    *n = strcspn(key, " \t");
    return *n > 0 && *n <= KEY_MAX_CHARS && key[*n] == '\0' ? key : NULL;
}

enum hg_keys_verdict hg_keys_check(struct hg_keys *k, const char *authorization, bool reads_only,
                                   struct hg_tenant *who)
{
    size_t n = 0;
    uint8_t digest[HG_SHA256_BYTES];
    const char *key = bearer(authorization, &n);
    if (!key)
        return HG_KEYS_MISSING;
    hg_sha256(key, n, digest);
    enum hg_keys_verdict verdict = HG_KEYS_UNKNOWN;
    pthread_mutex_lock(&k->lock);
    size_t found = k->table.n;
    for (size_t i = 0; i < k->table.n; i++) {
        size_t hit = 0 - (size_t)hg_sha256_equal(digest, k->table.keys[i].digest);
        found = (i & hit) | (found & ~hit);
    }
    if (found < k->table.n) {
        const struct key *it = &k->table.keys[found];
        verdict = it->reads_only && !reads_only ? HG_KEYS_FORBIDDEN : HG_KEYS_OK;
        *who = it->who;
    }
    pthread_mutex_unlock(&k->lock);
    explicit_bzero(digest, sizeof digest);
    return verdict;
}

/* ---- keygen ---------------------------------------------------------------------------------- */

enum hg_status hg_keys_generate(const char *name, struct hg_buf *out, struct hg_error *err)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; /* RFC 4648, 5 */
    uint8_t raw[KEY_RANDOM_BYTES], digest[HG_SHA256_BYTES];
    char key[64] = "hg-", hex[2 * HG_SHA256_BYTES + 1];
    size_t n = 3;
    unsigned bits = 0, n_bits = 0;
    if (!name_is_good(name))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "keygen: name: expected 1..32 letters, digits, '.', '_' or '-'");
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
        return hg_fail(err, HG_STATUS_IO, "keygen: no random bytes from the system");
    for (size_t i = 0; i < sizeof raw; i++) {
        bits = bits << 8 | raw[i];
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            key[n++] = alphabet[bits >> (n_bits - 6) & 63];
    }
    key[n++] = alphabet[bits << (6 - n_bits) & 63];
    hg_sha256(key, n, digest);
    for (int i = 0; i < HG_SHA256_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    enum hg_status status = hg_buf_printf(out,
                                          "key (shown this once, for the client): %s\n"
                                          "line for the file of --api-keys:       "
                                          "{\"name\": \"%s\", \"sha256\": \"%s\"}\n",
                                          key, name, hex);
    explicit_bzero(key, sizeof key);
    explicit_bzero(raw, sizeof raw);
    return status;
}
