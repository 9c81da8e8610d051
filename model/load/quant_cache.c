/* model/load/quant_cache.c - see quant_cache.h. */
#include "model/load/quant_cache.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/half.h"
#include "common/json_read.h"
#include "common/log.h"
#include "common/pool.h"
#include "common/sha256.h"
#include "kernels/quantise.h"
#include "model/load/json_check.h"
#include "model/load/quant_cache_file.h"

enum { HEX = 2 * HG_SHA256_BYTES + 1, MAX_PENDING = 8, NAME_ROOM = 400, MAX_VALUES = 400000 };

/* One tensor of the file. */
struct record {
    const char *name;                      /* of a source, which outlives it */
    int64_t rows, code_bytes, scale_bytes; /* of a row */
    uint64_t scale_at, codes_at, end;      /* writing */
    uint32_t scale_crc, codes_crc, source_crc;
};

struct hg_quant_cache {
    enum hg_dtype type;
    struct hg_weights *sources;
    char path[HG_QUANT_PATH_CAP];
    char stamp[HEX];
    int n_threads;
    struct record *records;
    size_t n, cap;
    uint64_t bytes;
    int64_t ns; /* spent here */
    /* reading */
    struct hg_file_map map;
    struct hg_tensor_file *file; /* NULL: not */
    const struct hg_tensor *pending[MAX_PENDING];
    int n_pending;
    /* writing */
    struct hg_quant_part part; /* fd -1: not */
    struct hg_pool *pool;
};

/* ---- what the file is of --------------------------------------------------------------------- */

static void put(struct hg_sha256 *s, const void *data, size_t n)
{
    hg_sha256_update(s, &n, sizeof n);
    hg_sha256_update(s, data, n);
}

static void finish_hex(struct hg_sha256 *s, char out[HEX])
{
    uint8_t sum[HG_SHA256_BYTES];
    hg_sha256_final(s, sum);
    hg_hex(sum, sizeof sum, out);
}

/* Names, sizes and, with `times`, times of change of the sources. */
static void put_files(struct hg_sha256 *s, const struct hg_weights *w, bool times)
{
    for (size_t i = 0; i < hg_weights_n_files(w); i++) {
        struct hg_weights_file f = hg_weights_file_at(w, i);
        put(s, f.name, strlen(f.name));
        put(s, &f.bytes, sizeof f.bytes);
        if (times)
            put(s, &f.mtime_ns, sizeof f.mtime_ns);
    }
}

static bool set_path(struct hg_quant_cache *c, const char *dir)
{
    struct hg_sha256 s;
    char layout[HEX], name[96];
    hg_sha256_init(&s);
    put_files(&s, c->sources, true);
    finish_hex(&s, c->stamp);
    hg_sha256_init(&s);
    put_files(&s, c->sources, false);
    for (size_t i = 0; i < hg_weights_count(c->sources); i++) {
        const struct hg_tensor *t = hg_weights_at(c->sources, i, NULL);
        put(&s, t->name, strlen(t->name));
        put(&s, &t->type, sizeof t->type);
        put(&s, t->dims, (size_t)t->n_dims * sizeof *t->dims);
    }
    finish_hex(&s, layout);
    snprintf(name, sizeof name, "base-%.16s-%s.safetensors", layout, hg_dtype_name(c->type));
    return hg_path_join(c->path, sizeof c->path, dir, name) == HG_STATUS_OK;
}

/* Over all that __metadata__ says, in the order of the file. */
static uint32_t sum_of_records(const struct hg_quant_cache *c, const char *stamp)
{
    uint32_t crc = hg_crc32c(0, stamp, strlen(stamp));
    for (size_t i = 0; i < c->n; i++) {
        const struct record *r = &c->records[i];
        uint32_t sums[3] = {r->scale_crc, r->codes_crc, r->source_crc};
        crc = hg_crc32c(crc, r->name, strlen(r->name));
        crc = hg_crc32c(crc, sums, sizeof sums);
    }
    return crc;
}

static struct record *new_record(struct hg_quant_cache *c)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 128;
        struct record *p = realloc(c->records, cap * sizeof *p);
        if (!p)
            return NULL;
        c->records = p;
        c->cap = cap;
    }
    c->records[c->n] = (struct record){0};
    return &c->records[c->n++];
}

/* ---- opening a file that is there ------------------------------------------------------------ */

static const char *text_of(const json_t *meta, const char *key)
{
    const char *s = json_string_value(json_object_get(meta, key));
    return s ? s : "";
}

/* "sum.<tensor>": "<scale> <codes> <source>" of every tensor that is a source's. */
static enum hg_status read_records(struct hg_quant_cache *c, json_t *meta, struct hg_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(meta, key, value)
    {
        unsigned a, b, s;
        int end = 0;
        const char *text = json_string_value(value);
        if (strncmp(key, "sum.", 4) != 0 || !text)
            continue;
        const struct hg_tensor *t = hg_weights_find(c->sources, key + 4);
        if (!t || sscanf(text, "%8x %8x %8x%n", &a, &b, &s, &end) != 3 || text[end])
            return hg_fail(err, HG_STATUS_BAD_FILE, "sums of %.80s are unreadable", key + 4);
        struct record *r = new_record(c);
        if (!r)
            return hg_fail(err, HG_STATUS_NO_MEMORY, "out of memory");
        *r = (struct record){.name = t->name, .scale_crc = a, .codes_crc = b, .source_crc = s};
    }
    return HG_STATUS_OK;
}

/* Made of these sources? By their times, or because model.lock knows the sums of all that went into
 * it. */
static bool is_fresh(const struct hg_quant_cache *c, const char *stamp)
{
    uint32_t want = 0;
    if (strcmp(stamp, c->stamp) == 0)
        return true;
    for (size_t i = 0; i < c->n; i++)
        if (!hg_weights_locked(c->sources, c->records[i].name, &want) ||
            want != c->records[i].source_crc)
            return false;
    return c->n > 0;
}

static enum hg_status read_metadata(struct hg_quant_cache *c, json_t *meta, struct hg_error *err)
{
    char sum[16];
    const char *stamp = text_of(meta, "stamp");
    if (strcmp(text_of(meta, "healthgpt_quant"), "1") != 0 ||
        strcmp(text_of(meta, "dtype"), hg_dtype_name(c->type)) != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "not a quantised cache of this version and type");
    HG_TRY(read_records(c, meta, err));
    snprintf(sum, sizeof sum, "%08x", (unsigned)sum_of_records(c, stamp));
    if (strcmp(text_of(meta, "sums"), sum) != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "its header is damaged");
    if (!is_fresh(c, stamp))
        return hg_fail(err, HG_STATUS_BAD_FILE, "made of other or older files (stale)");
    return HG_STATUS_OK;
}

/* The container has been checked; its __metadata__ is what is left. */
static enum hg_status read_header(struct hg_quant_cache *c, struct hg_error *err)
{
    const char *text = (const char *)c->map.data + 8;
    size_t n = 0;
    for (int i = 0; i < 8; i++)
        n |= (size_t)c->map.data[i] << 8 * i;
    json_error_t why;
    json_t *root = NULL;
    HG_TRY(hg_json_check("header", text, n, MAX_VALUES, 4, err));
    enum hg_status status = hg_json_read(text, n, JSON_REJECT_DUPLICATES, &root, &why);
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "its header: %s", hg_status_text(status));
    status = read_metadata(c, json_object_get(root, "__metadata__"), err);
    json_decref(root);
    return status;
}

static void stop_reading(struct hg_quant_cache *c)
{
    hg_tensor_file_close(c->file);
    c->file = NULL;
    hg_file_unmap(&c->map);
    c->n_pending = 0;
    c->n = 0;
}

static void try_reading(struct hg_quant_cache *c)
{
    struct hg_error err = {0};
    enum hg_status status = hg_file_map(c->path, &c->map, &err);
    if (status == HG_STATUS_NOT_FOUND)
        return;
    if (status == HG_STATUS_OK)
        status = hg_tensor_file_parse("file", c->map.data, c->map.n, &c->file, &err);
    if (status == HG_STATUS_OK && strcmp(hg_tensor_file_container(c->file), "safetensors") != 0)
        status = hg_fail(&err, HG_STATUS_BAD_FILE, "not a safetensors file");
    if (status == HG_STATUS_OK)
        status = read_header(c, &err);
    if (status == HG_STATUS_OK)
        return;
    stop_reading(c);
    hg_log(HG_LOG_WARN, "quant cache: %.200s: %s: not used, written anew", c->path, err.text);
}

/* ---- beginning a new one --------------------------------------------------------------------- */

/* Room that the matrices need at most, and a header for them. */
static uint64_t estimate(const struct hg_quant_cache *c, size_t *header)
{
    uint64_t n = 0;
    *header = 4096;
    for (size_t i = 0; i < hg_weights_count(c->sources); i++) {
        const struct hg_tensor *t = hg_weights_at(c->sources, i, NULL);
        if (t->n_dims != 2 || t->dims[1] < 1 || t->dims[1] > INT32_MAX)
            continue;
        *header += 12 * strlen(t->name) + 2 * NAME_ROOM; /* a quote in a name takes two */
        if (strncmp(t->name, "model.layers.", 13) == 0 || strcmp(t->name, "lm_head.weight") == 0)
            n += (uint64_t)t->dims[0] * (hg_code_bytes(c->type, (int)t->dims[1]) +
                                         hg_scale_bytes(c->type, (int)t->dims[1])) +
                 128;
    }
    return n;
}

static void try_writing(struct hg_quant_cache *c, const char *dir)
{
    struct hg_error err = {0};
    size_t header = 0;
    uint64_t bytes = estimate(c, &header);
    enum hg_status status = HG_STATUS_OK;
    if (header > HG_QUANT_HEADER_MAX)
        status = hg_fail(&err, HG_STATUS_TOO_LARGE, "too many tensors");
    else if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        status = hg_fail(&err, HG_STATUS_IO, "%.200s: %s", dir, strerror(errno));
    if (status == HG_STATUS_OK)
        status = hg_quant_part_open(&c->part, c->path, header, bytes, &err);
    if (status == HG_STATUS_OK)
        status = hg_pool_create(c->n_threads, &c->pool, &err);
    if (status == HG_STATUS_OK)
        return;
    hg_quant_part_close(&c->part);
    hg_log(status == HG_STATUS_BUSY ? HG_LOG_INFO : HG_LOG_WARN,
           "quant cache: %s: this load does without", err.text);
}

enum hg_status hg_quant_cache_open(const char *dir, enum hg_dtype type, struct hg_weights *sources,
                                   int n_threads, struct hg_quant_cache **out, struct hg_error *err)
{
    *out = NULL;
    if (!dir || !dir[0] || !hg_dtype_is_quantised(type))
        return HG_STATUS_OK;
    struct hg_quant_cache *c = calloc(1, sizeof *c);
    if (!c)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "quant cache: out of memory");
    *out = c;
    c->type = type;
    c->sources = sources;
    c->n_threads = n_threads;
    c->part.fd = -1;
    int64_t begin = hg_now_ns();
    if (set_path(c, dir)) {
        try_reading(c);
        if (!c->file)
            try_writing(c, dir);
    } else {
        hg_log(HG_LOG_WARN, "quant cache: %.100s: path is too long", dir);
    }
    c->ns += hg_now_ns() - begin;
    return HG_STATUS_OK;
}

enum hg_dtype hg_quant_cache_type(const struct hg_quant_cache *c)
{
    return c->type;
}

/* ---- reading --------------------------------------------------------------------------------- */

static const struct record *find_record(const struct hg_quant_cache *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++) /* hundreds, in the order of use */
        if (strcmp(c->records[i].name, name) == 0)
            return &c->records[i];
    return NULL;
}

/* "<name>.<what>" as rows of `bytes` in all, aligned for its elements, with this sum. */
static const struct hg_tensor *find_piece(struct hg_quant_cache *c, const char *name,
                                          const char *what, uint64_t bytes, uint32_t crc,
                                          struct hg_error *err)
{
    char key[NAME_ROOM];
    snprintf(key, sizeof key, "%s.%s", name, what);
    const struct hg_tensor *t = hg_tensor_file_find(c->file, key);
    if (!t || (uint64_t)hg_tensor_count(t) * hg_tensor_type_bytes(t->type) != bytes ||
        (uintptr_t)t->data % hg_tensor_type_bytes(t->type) != 0 || c->n_pending == MAX_PENDING) {
        hg_fail(err, HG_STATUS_BAD_FILE, "%.100s is not as expected", key);
        return NULL;
    }
    uint32_t sum = hg_tensor_crc32c(t);
    c->pending[c->n_pending++] = t;
    if (sum == crc)
        return t;
    hg_fail(err, HG_STATUS_BAD_FILE, "%.100s: expected crc32c %08x, got %08x", key, (unsigned)crc,
            (unsigned)sum);
    return NULL;
}

static bool get(struct hg_quant_cache *c, const struct hg_tensor *t, struct hg_host_tensor *out)
{
    struct hg_error err = {0};
    const struct record *r = find_record(c, t->name);
    if (!r || t->n_dims != 2 || t->dims[1] > INT32_MAX)
        return false;
    uint64_t rows = (uint64_t)t->dims[0];
    uint64_t scale_bytes = rows * hg_scale_bytes(c->type, (int)t->dims[1]);
    uint64_t code_bytes = rows * hg_code_bytes(c->type, (int)t->dims[1]);
    const struct hg_tensor *scale =
        find_piece(c, t->name, "scale", scale_bytes, r->scale_crc, &err);
    const struct hg_tensor *codes =
        scale ? find_piece(c, t->name, "codes", code_bytes, r->codes_crc, &err) : NULL;
    if (codes) {
        *out = (struct hg_host_tensor){.data = codes->data, .type = c->type, .scale = scale->data};
        hg_weights_vouch(c->sources, t, r->source_crc, scale_bytes + code_bytes);
        c->bytes += scale_bytes + code_bytes;
        return true;
    }
    hg_log(HG_LOG_WARN,
           "quant cache: %.200s: damaged: %s: removed; the rest is loaded from the sources",
           c->path, err.text);
    unlink(c->path);
    stop_reading(c);
    return false;
}

bool hg_quant_cache_get(struct hg_quant_cache *c, const struct hg_tensor *t,
                        struct hg_host_tensor *out)
{
    if (!c || !c->file)
        return false;
    int64_t begin = hg_now_ns();
    bool got = get(c, t, out);
    c->ns += hg_now_ns() - begin;
    return got;
}

void hg_quant_cache_done(struct hg_quant_cache *c)
{
    for (int i = 0; c && i < c->n_pending; i++)
        hg_file_forget(&c->map, c->pending[i]->data, hg_tensor_extent(c->pending[i]));
    if (c)
        c->n_pending = 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct quantise_job {
    const struct hg_host_tensor *from;
    enum hg_dtype type;
    int64_t rows;
    int cols;
    float *values; /* [n_members, cols] */
    uint8_t *codes, *scale;
};

static void quantise_member(void *ctx, int member, int n_members)
{
    const struct quantise_job *j = ctx;
    int64_t first = j->rows * member / n_members, end = j->rows * (member + 1) / n_members;
    size_t n = (size_t)j->cols, code = hg_code_bytes(j->type, j->cols);
    size_t scale = hg_scale_bytes(j->type, j->cols);
    float *values = j->values + (size_t)member * n;
    for (int64_t r = first; r < end; r++) {
        size_t at = (size_t)r * n;
        const uint16_t *half = (const uint16_t *)j->from->data + at;
        const float *x = values;
        if (j->from->type == HG_DTYPE_F32)
            x = (const float *)j->from->data + at;
        else if (j->from->type == HG_DTYPE_F16)
            hg_f16_to_f32_n(half, values, n);
        else
            for (size_t i = 0; i < n; i++)
                values[i] = hg_bf16_to_f32(half[i]);
        hg_quantise_row(j->type, x, j->cols, j->codes + (size_t)r * code,
                        j->scale + (size_t)r * scale);
    }
}

bool hg_quant_cache_writes(const struct hg_quant_cache *c)
{
    return c && c->part.fd >= 0;
}

/* Every piece ends at a multiple of 64, so that the next is aligned: fillers are tensors too. */
static enum hg_status add_piece(struct hg_quant_cache *c, const void *data, size_t n, uint64_t *at,
                                struct hg_error *err)
{
    static const char zeros[64];
    uint64_t filler;
    HG_TRY(hg_quant_part_add(&c->part, data, n, at, err));
    size_t rest = (size_t)(-c->part.n & 63);
    return rest ? hg_quant_part_add(&c->part, zeros, rest, &filler, err) : HG_STATUS_OK;
}

static enum hg_status add(struct hg_quant_cache *c, const struct hg_tensor *t, const void *codes,
                          const void *scale, struct hg_error *err)
{
    struct record *r = new_record(c);
    if (!r)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "out of memory");
    r->name = t->name;
    r->rows = t->dims[0];
    r->code_bytes = (int64_t)hg_code_bytes(c->type, (int)t->dims[1]);
    r->scale_bytes = (int64_t)hg_scale_bytes(c->type, (int)t->dims[1]);
    size_t n_codes = (size_t)(r->rows * r->code_bytes),
           n_scale = (size_t)(r->rows * r->scale_bytes);
    r->codes_crc = hg_crc32c(0, codes, n_codes);
    r->scale_crc = hg_crc32c(0, scale, n_scale);
    HG_TRY(add_piece(c, scale, n_scale, &r->scale_at, err));
    HG_TRY(add_piece(c, codes, n_codes, &r->codes_at, err));
    r->end = c->part.n;
    c->bytes += n_codes + n_scale;
    return HG_STATUS_OK;
}

bool hg_quant_cache_add(struct hg_quant_cache *c, const struct hg_tensor *t,
                        const struct hg_host_tensor *from, void *codes, void *scale)
{
    struct hg_error err = {0};
    int64_t begin = hg_now_ns();
    struct quantise_job job = {.from = from,
                               .type = c->type,
                               .rows = t->dims[0],
                               .cols = (int)t->dims[1],
                               .codes = codes,
                               .scale = scale};
    job.values = malloc((size_t)hg_pool_size(c->pool) * (size_t)job.cols * sizeof *job.values);
    if (job.values)
        hg_pool_run(c->pool, quantise_member, &job);
    enum hg_status status = job.values ? add(c, t, codes, scale, &err)
                                       : hg_fail(&err, HG_STATUS_NO_MEMORY, "out of memory");
    free(job.values);
    c->ns += hg_now_ns() - begin;
    if (status != HG_STATUS_OK) {
        hg_log(HG_LOG_WARN, "quant cache: %s: not written", err.text);
        hg_quant_part_close(&c->part);
    }
    return job.values;
}

/* A tensor of the header; names are printable UTF-8. */
static void put_entry(struct hg_buf *b, const char *name, const char *what, const char *type,
                      int64_t rows, int64_t cols, uint64_t begin, uint64_t end)
{
    hg_buf_append_str(b, ",\"");
    for (const char *s = name; *s; s++)
        hg_buf_printf(b, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    hg_buf_printf(b, "%s\":{\"dtype\":\"%s\",\"shape\":[%lld", what, type, (long long)rows);
    if (cols >= 0)
        hg_buf_printf(b, ",%lld", (long long)cols);
    hg_buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                  (unsigned long long)end);
}

static void put_filler(struct hg_buf *b, uint64_t begin, uint64_t end)
{
    char name[32];
    snprintf(name, sizeof name, "filler.%llx", (unsigned long long)begin);
    if (end > begin)
        put_entry(b, name, "", "U8", (int64_t)(end - begin), -1, begin, end);
}

static void put_metadata(const struct hg_quant_cache *c, struct hg_buf *b)
{
    hg_buf_printf(b,
                  "{\"__metadata__\":{\"healthgpt_quant\":\"1\",\"dtype\":\"%s\",\"stamp\":\"%s\","
                  "\"sums\":\"%08x\"",
                  hg_dtype_name(c->type), c->stamp, (unsigned)sum_of_records(c, c->stamp));
    for (size_t i = 0; i < c->n; i++) {
        const struct record *r = &c->records[i];
        hg_buf_append_str(b, ",\"sum.");
        for (const char *s = r->name; *s; s++)
            hg_buf_printf(b, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
        hg_buf_printf(b, "\":\"%08x %08x %08x\"", (unsigned)r->scale_crc, (unsigned)r->codes_crc,
                      (unsigned)r->source_crc);
    }
    hg_buf_append_str(b, "}");
}

/* The header names all pieces in their order. A buffer that could not grow leaves it incomplete,
 * which the end of the text shows. */
static enum hg_status put_header(const struct hg_quant_cache *c, struct hg_buf *b)
{
    bool i4 = c->type == HG_DTYPE_I4;
    HG_TRY(hg_buf_reserve(b, c->part.data_at)); /* nothing below can fail */
    put_metadata(c, b);
    for (size_t i = 0; i < c->n; i++) {
        const struct record *r = &c->records[i];
        uint64_t scale = r->scale_at + (uint64_t)(r->rows * r->scale_bytes);
        uint64_t codes = r->codes_at + (uint64_t)(r->rows * r->code_bytes);
        put_entry(b, r->name, ".scale", i4 ? "F16" : "F32", r->rows, i4 ? r->scale_bytes / 2 : -1,
                  r->scale_at, scale);
        put_filler(b, scale, r->codes_at);
        put_entry(b, r->name, ".codes", c->type == HG_DTYPE_I8 ? "I8" : "U8", r->rows,
                  r->code_bytes, r->codes_at, codes);
        put_filler(b, codes, r->end);
    }
    return hg_buf_append_str(b, "}");
}

static enum hg_status finish(struct hg_quant_cache *c, struct hg_error *err)
{
    struct hg_buf header = {0};
    enum hg_status status = HG_STATUS_OK;
    for (size_t i = 0; i < c->n; i++)
        if (!hg_weights_sum(c->sources, c->records[i].name, &c->records[i].source_crc))
            return hg_fail(err, HG_STATUS_INTERNAL, "%.80s was not read", c->records[i].name);
    status = put_header(c, &header);
    status = status == HG_STATUS_OK ? hg_quant_part_finish(&c->part, c->path, &header, err)
                                    : hg_fail(err, status, "out of memory");
    hg_buf_deinit(&header);
    return status;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void report(struct hg_quant_cache *c, const char *what)
{
    double s = (double)c->ns / 1e9, gb = (double)c->bytes / 1e9;
    hg_log(HG_LOG_INFO, "quant cache: %s %.3f GB of %s in %.2f s, %.2f GB/s: %.200s", what, gb,
           hg_dtype_name(c->type), s, s > 0 ? gb / s : 0, c->path);
}

void hg_quant_cache_close(struct hg_quant_cache *c, bool complete)
{
    struct hg_error err = {0};
    if (!c)
        return;
    int64_t begin = hg_now_ns();
    bool wrote = complete && c->part.fd >= 0 && c->n > 0;
    if (wrote && finish(c, &err) != HG_STATUS_OK) {
        hg_log(HG_LOG_WARN, "quant cache: %s: not written", err.text);
        wrote = false;
    }
    c->ns += hg_now_ns() - begin;
    if (wrote)
        report(c, "wrote");
    else if (complete && c->file)
        report(c, "read and checked");
    hg_quant_part_close(&c->part);
    hg_pool_destroy(c->pool);
    stop_reading(c);
    free(c->records);
    free(c);
}
