/* tests/model/load/test_big_files.c - files, members and offsets beyond 4 GiB, as sparse files:
 * what is not written is a hole. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/file.h"
#include "model/load/weights.h"
#include "tests/model/load/build_file.h"

static const int64_t big = ((int64_t)5 << 30) / 4; /* F32 elements: 5 GiB */
static const float tail[4] = {1.5f, -2, 3, 4096};
static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hg_big_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static int create(const char *name)
{
    int fd = open(in_dir(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    if (ftruncate(fd, (off_t)1 << 33) != 0 && errno == EFBIG) {
        close(fd);
        HG_TEST_SKIP("no files of 8 GiB in /tmp: %s", strerror(errno));
    }
    assert_int_equal(ftruncate(fd, 0), 0);
    return fd;
}

static void put(int fd, int64_t at, const void *data, size_t n)
{
    assert_int_equal(pwrite(fd, data, n, at), n);
}

static void finish(int fd, int64_t size)
{
    assert_int_equal(ftruncate(fd, size), 0);
    assert_int_equal(close(fd), 0);
}

static void expect_tail(const struct hg_tensor *t)
{
    float got[4];
    assert_non_null(t);
    assert_int_equal(t->type, HG_TENSOR_TYPE_F32);
    assert_int_equal(t->dims[0], 4);
    memcpy(got, t->data, sizeof got);
    assert_memory_equal(got, tail, sizeof got);
}

/* big [n] F32, half [4] BF16, other [4] F16, tail [4] F32: a mix of types behind 4 GiB. */
static void write_safetensors(const char *name, const char *prefix)
{
    static const uint16_t bf16[4] = {0x3fc0, 0xc000, 0x4040, 0x4580};
    static const uint16_t f16[4] = {0x3e00, 0xc000, 0x4200, 0x6c00};
    char header[512];
    int64_t bytes = big * 4;
    int n = snprintf(header, sizeof header,
                     "{\"%sbig\":{\"dtype\":\"F32\",\"shape\":[%lld],\"data_offsets\":[0,%lld]},"
                     "\"%shalf\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[%lld,%lld]},"
                     "\"%sother\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[%lld,%lld]},"
                     "\"%stail\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[%lld,%lld]}}",
                     prefix, (long long)big, (long long)bytes, prefix, (long long)bytes,
                     (long long)bytes + 8, prefix, (long long)bytes + 8, (long long)bytes + 16,
                     prefix, (long long)bytes + 16, (long long)bytes + 32);
    int64_t data = 8 + n;
    uint64_t length = (uint64_t)n;
    int fd = create(name);
    put(fd, 0, &length, 8);
    put(fd, 8, header, (size_t)n);
    put(fd, data + bytes, bf16, 8);
    put(fd, data + bytes + 8, f16, 8);
    put(fd, data + bytes + 16, tail, 16);
    finish(fd, data + bytes + 32);
}

static void expect_values(const struct hg_tensor *t, enum hg_tensor_type type)
{
    float got[4];
    assert_non_null(t);
    assert_int_equal(t->type, type);
    hg_tensor_convert(t, HG_DTYPE_F32, got);
    assert_memory_equal(got, tail, sizeof got);
}

static void safetensors_have_offsets_beyond_32_bits(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_tensor_file *f;
    write_safetensors("one.safetensors", "");
    HG_TEST_OK(hg_tensor_file_open(in_dir("one.safetensors"), &f, &err), err);
    expect_values(hg_tensor_file_find(f, "half"), HG_TENSOR_TYPE_BF16);
    expect_values(hg_tensor_file_find(f, "other"), HG_TENSOR_TYPE_F16);
    expect_tail(hg_tensor_file_find(f, "tail"));
    const struct hg_tensor *t = hg_tensor_file_find(f, "big");
    assert_non_null(t);
    assert_int_equal(t->dims[0], big);
    assert_int_equal(hg_tensor_extent(t), (size_t)big * 4);
    assert_int_equal(t->data[(size_t)big * 4 - 1], 0);
    hg_tensor_file_close(f);
}

static void two_shards_beyond_4_gib_are_one_set(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w;
    char index[512];
    write_safetensors("model-00001-of-00002.safetensors", "a.");
    write_safetensors("model-00002-of-00002.safetensors", "b.");
    int n = snprintf(index, sizeof index,
                     "{\"metadata\":{\"total_size\":%lld},\"weight_map\":{"
                     "\"a.big\":\"model-00001-of-00002.safetensors\","
                     "\"b.tail\":\"model-00002-of-00002.safetensors\"}}",
                     (long long)big * 8);
    HG_TEST_OK(hg_file_write(in_dir("model.safetensors.index.json"), index, (size_t)n, &err), err);
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    HG_TEST_OK(hg_weights_add_dir(w, dir, &err), err);
    expect_tail(hg_weights_find(w, "a.tail"));
    expect_tail(hg_weights_find(w, "b.tail"));
    assert_int_equal(hg_weights_bytes(w), 2 * ((uint64_t)big * 4 + 32));
    hg_weights_free(w);
}

/* ---- zip64 ----------------------------------------------------------------------------------- */

struct zip {
    int fd;
    int64_t at;
    struct hg_buf central;
    int n;
    bool descriptor; /* torch: sizes follow the data; else Python's zipfile: in an extra field */
};

static void le(struct hg_buf *b, uint64_t v, int bytes)
{
    unsigned char x[8];
    for (int i = 0; i < bytes; i++)
        x[i] = (unsigned char)(v >> 8 * i);
    assert_int_equal(hg_buf_append(b, x, (size_t)bytes), HG_STATUS_OK);
}

/* Sizes and offset as zip64 wants them: all ones, and the numbers in the extra field. */
static uint64_t narrow(uint64_t v)
{
    return v >= UINT32_MAX ? UINT32_MAX : v;
}

/* data NULL: a hole. */
static void zip_add(struct zip *z, const char *name, const void *data, uint64_t n)
{
    struct hg_buf local = {0};
    uint64_t offset = (uint64_t)z->at, flags = z->descriptor ? 8 : 0;
    bool wide = n >= UINT32_MAX, far = offset >= UINT32_MAX;
    size_t extra = wide && !z->descriptor ? 20 : 0;
    le(&local, 0x04034b50, 4);
    le(&local, wide ? 45 : 20, 2);
    le(&local, flags, 2);
    le(&local, 0, 2 + 4); /* method, time */
    le(&local, 0, 4);     /* checksum: not looked at */
    le(&local, z->descriptor ? 0 : narrow(n), 4);
    le(&local, z->descriptor ? 0 : narrow(n), 4);
    le(&local, strlen(name), 2);
    le(&local, extra, 2);
    hg_buf_append_str(&local, name);
    if (extra) {
        le(&local, 1, 2);
        le(&local, 16, 2);
        le(&local, n, 8);
        le(&local, n, 8);
    }
    put(z->fd, z->at, local.data, local.len);
    z->at += (int64_t)local.len;
    if (data)
        put(z->fd, z->at, data, (size_t)n);
    z->at += (int64_t)n;
    hg_buf_clear(&local);
    if (z->descriptor) {
        le(&local, 0x08074b50, 4);
        le(&local, 0, 4);
        le(&local, n, wide ? 8 : 4);
        le(&local, n, wide ? 8 : 4);
        put(z->fd, z->at, local.data, local.len);
        z->at += (int64_t)local.len;
    }
    hg_buf_deinit(&local);
    struct hg_buf *c = &z->central;
    size_t fields = (wide ? 16u : 0u) + (far ? 8u : 0u);
    le(c, 0x02014b50, 4);
    le(c, 45, 2);
    le(c, 45, 2);
    le(c, flags, 2);
    le(c, 0, 2);
    le(c, 0, 4);
    le(c, 0, 4);
    le(c, narrow(n), 4);
    le(c, narrow(n), 4);
    le(c, strlen(name), 2);
    le(c, fields ? fields + 4 : 0, 2);
    le(c, 0, 2);
    le(c, 0, 2);
    le(c, 0, 2);
    le(c, 0, 4);
    le(c, narrow(offset), 4);
    hg_buf_append_str(c, name);
    if (fields) {
        le(c, 1, 2);
        le(c, fields, 2);
        if (wide) {
            le(c, n, 8);
            le(c, n, 8);
        }
        if (far)
            le(c, offset, 8);
    }
    z->n++;
}

static void zip_end(struct zip *z)
{
    struct hg_buf end = {0};
    uint64_t central = (uint64_t)z->at, bytes = z->central.len;
    put(z->fd, z->at, z->central.data, z->central.len);
    z->at += (int64_t)z->central.len;
    le(&end, 0x06064b50, 4);
    le(&end, 44, 8);
    le(&end, 45, 2);
    le(&end, 45, 2);
    le(&end, 0, 8);
    le(&end, (uint64_t)z->n, 8);
    le(&end, (uint64_t)z->n, 8);
    le(&end, bytes, 8);
    le(&end, central, 8);
    le(&end, 0x07064b50, 4);
    le(&end, 0, 4);
    le(&end, central + bytes, 8);
    le(&end, 1, 4);
    le(&end, 0x06054b50, 4);
    le(&end, 0, 4);
    le(&end, (uint64_t)z->n, 2);
    le(&end, (uint64_t)z->n, 2);
    le(&end, bytes, 4);
    le(&end, narrow(central), 4);
    le(&end, 0, 2);
    put(z->fd, z->at, end.data, end.len);
    finish(z->fd, z->at + (int64_t)end.len);
    hg_buf_deinit(&end);
    hg_buf_deinit(&z->central);
}

static void pickle_of(struct hg_buf *p)
{
    struct hg_build_tensor big_one = {"big", "FloatStorage", "0", big, 0, 1, {big}, {1}};
    /* the last four elements of the large storage, and a small one behind it */
    struct hg_build_tensor view = {"view", "FloatStorage", "0", big, big - 4, 1, {4}, {1}};
    struct hg_build_tensor small = {"tail", "FloatStorage", "1", 4, 0, 1, {4}, {1}};
    hg_build_begin(p);
    hg_build_tensor(p, &big_one);
    hg_build_tensor(p, &view);
    hg_build_tensor(p, &small);
    hg_buf_append_str(p, ".");
}

static void expect_torch(const char *name)
{
    struct hg_error err = {0};
    struct hg_tensor_file *f;
    HG_TEST_OK(hg_tensor_file_open(in_dir(name), &f, &err), err);
    expect_tail(hg_tensor_file_find(f, "view"));
    expect_tail(hg_tensor_file_find(f, "tail"));
    const struct hg_tensor *t = hg_tensor_file_find(f, "big");
    assert_non_null(t);
    assert_int_equal(t->dims[0], big);
    hg_tensor_file_close(f);
}

static void zip64_members_are_read_as_both_writers_make_them(void **state)
{
    (void)state;
    for (int descriptor = 0; descriptor < 2; descriptor++) {
        struct hg_buf pickle = {0};
        struct zip z = {.fd = create("big.pt"), .descriptor = descriptor};
        pickle_of(&pickle);
        zip_add(&z, "x/data.pkl", pickle.data, pickle.len);
        zip_add(&z, "x/byteorder", "little", 6);
        int64_t header = z.at + 30 + 8 + (descriptor ? 0 : 20);
        zip_add(&z, "x/data/0", NULL, (uint64_t)big * 4);
        put(z.fd, header + (big - 4) * 4, tail, sizeof tail);
        zip_add(&z, "x/data/1", tail, sizeof tail);
        zip_end(&z);
        hg_buf_deinit(&pickle);
        expect_torch("big.pt");
    }
}

static void a_legacy_file_beyond_4_gib_is_read(void **state)
{
    (void)state;
    static const unsigned char head[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                         0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e, /* magic */
                                         0x80, 0x02, 'M',  0xe9, 0x03, '.'};       /* 1001 */
    struct hg_buf b = {0}, pickle = {0};
    int64_t four = 4;
    hg_buf_append(&b, head, sizeof head);
    hg_buf_append(&b, "\x80\x02}", 3);
    hg_build_text(&b, "little_endian");
    hg_buf_append_str(&b, "\x88s.");
    pickle_of(&pickle);
    hg_buf_append(&b, pickle.data, pickle.len);
    hg_buf_append(&b, "\x80\x02](", 4);
    hg_build_text(&b, "0");
    hg_build_text(&b, "1");
    hg_buf_append_str(&b, "e.");
    int fd = create("legacy.pth");
    int64_t at = (int64_t)b.len;
    put(fd, 0, b.data, b.len);
    put(fd, at, &big, 8);
    put(fd, at + 8 + (big - 4) * 4, tail, sizeof tail);
    at += 8 + big * 4;
    put(fd, at, &four, 8);
    put(fd, at + 8, tail, sizeof tail);
    finish(fd, at + 8 + 16);
    hg_buf_deinit(&pickle);
    hg_buf_deinit(&b);
    expect_torch("legacy.pth");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(safetensors_have_offsets_beyond_32_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_shards_beyond_4_gib_are_one_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zip64_members_are_read_as_both_writers_make_them, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_legacy_file_beyond_4_gib_is_read, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
