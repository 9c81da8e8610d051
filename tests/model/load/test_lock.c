/* tests/model/load/test_lock.c - model.lock: what it says of files of every container, and every
 * way in which files or the lock itself can be other ones. */
#include "tests/test.h"

#include <unistd.h>

#include "common/file.h"
#include "model/load/lock.h"
#include "tests/model/load/build_file.h"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

/* Without waiting for the disk, as hg_file_write does. */
static void write_bytes(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void copy(const char *from, const char *name)
{
    size_t n = 0;
    unsigned char *data = hg_test_read(from, &n);
    write_bytes(name, data, n);
    free(data);
}

/* A safetensors file, a torch zip, a legacy file and a checkpoint; a config. */
static const char *const weights[] = {"a.safetensors", "zip.pt", "legacy.pth", "last.ckpt"};
enum { N_WEIGHTS = 4 };

static int set_up(void **state)
{
    (void)state;
    struct hg_buf out = {0};
    static const float data[6] = {1, 2, 3, 4, 5, 6};
    snprintf(dir, sizeof dir, "/tmp/hg_lock_XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    hg_build_safetensors(&out,
                         "{\"x\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                         "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}",
                         data, sizeof data);
    write_bytes("a.safetensors", out.data, out.len);
    hg_buf_deinit(&out);
    copy(hg_test_file("tests/data/weights/module.pt"), "zip.pt");
    copy(hg_test_file("tests/data/weights/views_legacy.pth"), "legacy.pth");
    copy(hg_test_file("tests/data/weights/lightning.ckpt"), "last.ckpt");
    write_bytes("config.json", "{\"a\": 1}", 8);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct hg_weights *open_weights(const char *name)
{
    struct hg_weights *w;
    struct hg_error err = {0};
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir(name), &err), err);
    return w;
}

/* The lock of all files, written to <dir>/model.lock. */
static void write_lock(struct hg_buf *text)
{
    struct hg_error err = {0};
    assert_int_equal(hg_lock_begin(text, "test \"model\""), HG_STATUS_OK);
    for (int i = 0; i < N_WEIGHTS; i++) {
        struct hg_weights *w = open_weights(weights[i]);
        assert_int_equal(hg_lock_put_weights(text, weights[i], w), HG_STATUS_OK);
        hg_weights_free(w);
    }
    HG_TEST_OK(hg_lock_put_file(text, "llm/config.json", in_dir("config.json"), &err), err);
    HG_TEST_OK(hg_lock_put_file(text, "llm/none", in_dir("none"), &err), err);
    assert_int_equal(hg_lock_end(text), HG_STATUS_OK);
    write_bytes("model.lock", text->data, text->len);
}

/* What a load does: compare, read every tensor, compare the sums. */
static enum hg_status verify(struct hg_error *err)
{
    struct hg_lock *l = NULL;
    struct hg_weights *w[N_WEIGHTS] = {0};
    enum hg_status status = HG_STATUS_OK;
    HG_TRY_OUT(hg_lock_read(in_dir("model.lock"), &l, err));
    for (int i = 0; i < N_WEIGHTS; i++) {
        HG_TRY_OUT(hg_weights_create(&w[i], err));
        HG_TRY_OUT(hg_weights_add_file(w[i], in_dir(weights[i]), err));
        HG_TRY_OUT(hg_lock_weights(l, weights[i], w[i], err));
    }
    HG_TRY_OUT(hg_lock_file(l, "llm/config.json", in_dir("config.json"), err));
    HG_TRY_OUT(hg_lock_file(l, "llm/none", in_dir("none"), err));
    HG_TRY_OUT(hg_lock_complete(l, err));
    for (int i = 0; i < N_WEIGHTS; i++) {
        for (size_t k = 0; k < hg_weights_count(w[i]); k++)
            hg_weights_done(w[i], hg_weights_at(w[i], k, NULL));
        HG_TRY_OUT(hg_weights_check_lock(w[i], err));
    }
out:
    for (int i = 0; i < N_WEIGHTS; i++)
        hg_weights_free(w[i]);
    hg_lock_free(l);
    return status;
}

static void equal_files_hold_and_give_equal_bytes(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_buf a = {0}, b = {0};
    struct hg_lock *l;
    write_lock(&a);
    write_lock(&b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    HG_TEST_OK(verify(&err), err);
    HG_TEST_OK(hg_lock_read(in_dir("model.lock"), &l, &err), err);
    assert_string_equal(hg_lock_model(l), "test \"model\"");
    hg_lock_free(l);
    hg_buf_deinit(&a);
    hg_buf_deinit(&b);
}

/* One changed byte of every tensor, of every kind of file: refused with the tensor's name. */
static void a_changed_byte_names_its_tensor(void **state)
{
    (void)state;
    struct hg_buf text = {0};
    int n_tensors = 0;
    write_lock(&text);
    for (int i = 0; i < N_WEIGHTS; i++) {
        size_t n = 0;
        unsigned char *whole = hg_test_read(in_dir(weights[i]), &n);
        struct hg_tensor_file *f;
        struct hg_error err = {0};
        HG_TEST_OK(hg_tensor_file_parse("f", whole, n, &f, &err), err);
        for (size_t k = 0; k < hg_tensor_file_count(f); k++) {
            const struct hg_tensor *t = hg_tensor_file_at(f, k);
            if (hg_tensor_count(t) == 0)
                continue;
            unsigned char *byte = whole + (t->data - whole);
            *byte ^= 4;
            write_bytes(weights[i], whole, n);
            *byte ^= 4;
            err = (struct hg_error){0};
            assert_int_equal(verify(&err), HG_STATUS_BAD_FILE);
            if (!strstr(err.text, "model.lock says crc32c") || !strstr(err.text, weights[i]))
                fail_msg("%s, tensor %s: %s", weights[i], t->name, err.text);
            n_tensors++;
        }
        write_bytes(weights[i], whole, n);
        hg_tensor_file_close(f);
        free(whole);
    }
    printf("%d tensors\n", n_tensors);
    assert_true(n_tensors > 20);
    struct hg_error err = {0};
    HG_TEST_OK(verify(&err), err);
    write_bytes("config.json", "{\"a\": 2}", 8);
    HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err, "llm/config.json: model.lock says crc32c");
    hg_buf_deinit(&text);
}

static void other_sizes_names_types_and_files_are_named(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_buf text = {0}, out = {0};
    static const float data[6] = {1, 2, 3, 4, 5, 6};
    write_lock(&text);
    write_bytes("config.json", "{\"a\": 10}", 9);
    HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err,
                  "llm/config.json: model.lock says 8 bytes, the file has 9");
    assert_int_equal(unlink(in_dir("config.json")), 0);
    HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err,
                  "llm/config.json: in model.lock, but not here");
    write_bytes("config.json", "{\"a\": 1}", 8);
    write_bytes("none", "new", 3);
    HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err, "llm/none: not in model.lock");
    assert_int_equal(unlink(in_dir("none")), 0);
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4,1],\"data_offsets\":[0,16]},"
         "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}",
         "tensor x: model.lock says another type or shape than F32 [4, 1]"},
        {"{\"x\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
         "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}",
         "another type or shape than I32 [2, 2]"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
         "\"z\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}",
         "model.lock says tensor y, the file has z"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}", "the file has"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hg_build_safetensors(&out, cases[i].header, data, sizeof data);
        write_bytes("a.safetensors", out.data, out.len);
        hg_buf_clear(&out);
        HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err, cases[i].message);
    }
    hg_buf_deinit(&out);
    hg_buf_deinit(&text);
}

static void a_broken_lock_is_refused(void **state)
{
    (void)state;
    struct hg_lock *l;
    struct hg_error err = {0};
    static const struct {
        const char *text, *message;
        enum hg_status status;
    } cases[] = {
        {"", "line", HG_STATUS_BAD_FILE},
        {"[]", "format: expected 1", HG_STATUS_BAD_FILE},
        {"{\"format\": 2, \"model\": \"m\", \"files\": []}", "format: expected 1",
         HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"model\": 3, \"files\": []}", "expected \"model\"", HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"model\": \"m\", \"files\": {}}", "\"files\"", HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"model\": \"m\", \"files\": [3]}", "files[0]", HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"model\": \"m\", \"files\": [{\"name\": \"a\", \"size\": 1}]}",
         "files[0]", HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"model\": \"m\", \"files\": [{\"name\": \"a\", \"size\": 1, "
         "\"crc32c\": \"00000000\", \"tensors\": []}]}",
         "files[0]", HG_STATUS_BAD_FILE},
        {"{\"format\": 1, \"format\": 1, \"model\": \"m\", \"files\": []}", "line 1",
         HG_STATUS_BAD_FILE},
        {"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", "nested deeper", HG_STATUS_BAD_FILE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_bytes("bad.lock", cases[i].text, strlen(cases[i].text));
        HG_TEST_FAILS(hg_lock_read(in_dir("bad.lock"), &l, &err), cases[i].status, err,
                      cases[i].message);
        assert_null(l);
    }
    HG_TEST_FAILS(hg_lock_read(in_dir("no.lock"), &l, &err), HG_STATUS_NOT_FOUND, err, "no.lock");
}

/* Bytes of a lock changed one at a time: refused, or still the same lock; never a crash. A sum that
 * is no sum, negative sizes and a name twice among them. */
static void a_lock_with_a_changed_byte_never_passes_other_sums(void **state)
{
    (void)state;
    struct hg_buf text = {0};
    struct hg_error err = {0};
    int held = 0, n = 0;
    write_lock(&text);
    char *sum = strstr(text.data, "\"crc32c\": \"");
    assert_non_null(sum);
    for (size_t i = 0; i < text.len; i += 5, n++) {
        char keep = text.data[i];
        text.data[i] = (char)(keep ^ 1);
        write_bytes("model.lock", text.data, text.len);
        held += verify(&err) == HG_STATUS_OK;
        text.data[i] = keep;
    }
    for (size_t i = 0; i < 8; i++) { /* every digit of a sum */
        char keep = sum[11 + i];
        sum[11 + i] = keep == 'a' ? 'b' : 'a';
        write_bytes("model.lock", text.data, text.len);
        assert_int_equal(verify(&err), HG_STATUS_BAD_FILE);
        sum[11 + i] = 'G';
        write_bytes("model.lock", text.data, text.len);
        HG_TEST_FAILS(verify(&err), HG_STATUS_BAD_FILE, err, "8 hex digits");
        sum[11 + i] = keep;
    }
    printf("%d of %d changed locks held (in the model's name)\n", held, n);
    assert_true(held < 10);
    hg_buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(equal_files_hold_and_give_equal_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_byte_names_its_tensor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_sizes_names_types_and_files_are_named, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_broken_lock_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lock_with_a_changed_byte_never_passes_other_sums, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
