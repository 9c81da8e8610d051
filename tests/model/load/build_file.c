/* tests/model/load/build_file.c */
#include "tests/model/load/build_file.h"

#include "tests/test.h"

static void put(struct hg_buf *b, const void *data, size_t n)
{
    assert_int_equal(hg_buf_append(b, data, n), HG_STATUS_OK);
}

static void put_number(struct hg_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++, v >>= 8) {
        unsigned char byte = (unsigned char)v;
        put(b, &byte, 1);
    }
}

void hg_build_safetensors(struct hg_buf *out, const char *header, const void *data, size_t n)
{
    hg_buf_clear(out);
    put_number(out, strlen(header), 8);
    put(out, header, strlen(header));
    put(out, data, n);
}

void hg_build_zip_add(struct hg_build_zip *z, const char *name, const void *data, size_t n)
{
    const char *local = z->local_name ? z->local_name : name;
    uint32_t size = z->zip64 ? UINT32_MAX : (uint32_t)n, offset = (uint32_t)z->body.len;
    put(&z->body, "PK\3\4\0\0", 6);
    put_number(&z->body, z->flags, 2);
    put_number(&z->body, z->method, 2);
    put_number(&z->body, 0, 8); /* time, date, crc */
    put_number(&z->body, size, 4);
    put_number(&z->body, size, 4);
    put_number(&z->body, strlen(local), 2);
    put_number(&z->body, z->zip64 ? 20 : 0, 2);
    put(&z->body, local, strlen(local));
    if (z->zip64) {
        put_number(&z->body, 1, 2);
        put_number(&z->body, 16, 2);
        put_number(&z->body, n, 8);
        put_number(&z->body, n, 8);
    }
    put(&z->body, data, n);
    put(&z->central, "PK\1\2\0\0\0\0", 8);
    put_number(&z->central, z->flags, 2);
    put_number(&z->central, z->method, 2);
    put_number(&z->central, 0, 8);
    put_number(&z->central, size, 4);
    put_number(&z->central, size, 4);
    put_number(&z->central, strlen(name), 2);
    put_number(&z->central, z->zip64 ? 28 : 0, 2);
    put_number(&z->central, 0, 10); /* comment, disk, attributes */
    put_number(&z->central, z->zip64 ? UINT32_MAX : offset, 4);
    put(&z->central, name, strlen(name));
    if (z->zip64) {
        put_number(&z->central, 1, 2);
        put_number(&z->central, 24, 2);
        put_number(&z->central, n, 8);
        put_number(&z->central, n, 8);
        put_number(&z->central, offset, 8);
    }
    z->n_members++;
}

void hg_build_zip_end(struct hg_build_zip *z, struct hg_buf *out)
{
    uint64_t at = z->body.len, size = z->central.len, n = (uint64_t)z->n_members;
    hg_buf_clear(out);
    put(out, z->body.data, z->body.len);
    put(out, z->central.data, z->central.len);
    if (z->zip64) {
        put(out, "PK\6\6", 4);
        put_number(out, 44, 8);
        put_number(out, 0, 12); /* versions, disks */
        put_number(out, n, 8);
        put_number(out, n, 8);
        put_number(out, size, 8);
        put_number(out, at, 8);
        put(out, "PK\6\7", 4);
        put_number(out, 0, 4);
        put_number(out, at + size, 8);
        put_number(out, 1, 4);
        n = size = at = UINT32_MAX;
    }
    put(out, "PK\5\6\0\0\0\0", 8);
    put_number(out, n, 2);
    put_number(out, n, 2);
    put_number(out, size, 4);
    put_number(out, at, 4);
    put_number(out, 0, 2);
    hg_buf_deinit(&z->body);
    hg_buf_deinit(&z->central);
    *z = (struct hg_build_zip){0};
}

void hg_build_begin(struct hg_buf *p)
{
    hg_buf_clear(p);
    put(p, "\x80\x02}", 3);
}

void hg_build_text(struct hg_buf *p, const char *s)
{
    put(p, "X", 1);
    put_number(p, strlen(s), 4);
    put(p, s, strlen(s));
}

void hg_build_int(struct hg_buf *p, int64_t v)
{
    put(p, "\x8a\x08", 2);
    put_number(p, (uint64_t)v, 8);
}

void hg_build_ints(struct hg_buf *p, const int64_t *v, int n)
{
    put(p, "(", 1);
    for (int i = 0; i < n; i++)
        hg_build_int(p, v[i]);
    put(p, "t", 1);
}

void hg_build_storage(struct hg_buf *p, const char *type, const char *key, int64_t numel)
{
    put(p, "(", 1);
    hg_build_text(p, "storage");
    assert_int_equal(hg_buf_printf(p, "ctorch\n%s\n", type), HG_STATUS_OK);
    hg_build_text(p, key);
    hg_build_text(p, "cpu");
    hg_build_int(p, numel);
    put(p, "tQ", 2);
}

void hg_build_tensor(struct hg_buf *p, const struct hg_build_tensor *t)
{
    static const char head[] = "ctorch._utils\n_rebuild_tensor_v2\n(";
    static const char tail[] = "\x89"
                               "ccollections\nOrderedDict\n)RtRs";
    hg_build_text(p, t->name);
    put(p, head, sizeof head - 1);
    hg_build_storage(p, t->type, t->key, t->numel);
    hg_build_int(p, t->offset);
    hg_build_ints(p, t->dims, t->n_dims);
    hg_build_ints(p, t->strides, t->n_dims);
    put(p, tail, sizeof tail - 1);
}

void hg_build_torch(struct hg_buf *out, const struct hg_buf *pickle, const void *data, size_t n)
{
    struct hg_build_zip z = {0};
    hg_build_zip_add(&z, "x/data.pkl", pickle->data, pickle->len);
    hg_build_zip_add(&z, "x/data/0", data, n);
    hg_build_zip_add(&z, "x/version", "3\n", 2);
    hg_build_zip_end(&z, out);
}

enum hg_status hg_build_parse(const struct hg_buf *file, struct hg_error *err)
{
    struct hg_tensor_file *f;
    enum hg_status status = hg_tensor_file_parse("file", file->data, file->len, &f, err);
    if (status != HG_STATUS_OK)
        assert_null(f);
    hg_tensor_file_close(f);
    return status;
}

unsigned char *hg_build_pack(const struct hg_tensor *t, size_t *n)
{
    size_t size = hg_tensor_type_bytes(t->type), count = (size_t)hg_tensor_count(t);
    unsigned char *out = malloc(count * size + 1);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++) {
        int64_t rest = (int64_t)i, offset = 0;
        for (int d = t->n_dims - 1; d >= 0; d--) {
            offset += rest % t->dims[d] * t->strides[d];
            rest /= t->dims[d];
        }
        memcpy(out + i * size, t->data + (size_t)offset * size, size);
    }
    *n = count * size;
    return out;
}

uint32_t hg_build_crc32(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}
