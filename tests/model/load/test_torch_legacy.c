/* tests/model/load/test_torch_legacy.c - the container of torch.save before 1.6, built by hand:
 * five pickles, then each storage behind its count. Real files are in test_tensor_file.c. */
#include "tests/test.h"

#include "tests/model/load/build_file.h"

/* The five pickles as texts (protocol 0 opcodes) and the bytes behind them. */
struct legacy {
    const char *protocol, *system, *object, *keys;
    const void *data;
    size_t n_data;
};

#define SYSTEM "}Vlittle_endian\nI01\ns."
#define STORAGE(key, numel, view)                                                                  \
    "(Vstorage\nctorch\nFloatStorage\nV" key "\nVcpu\nI" numel "\n" view "tQ"
/* key: one row of n floats at an offset of its storage */
#define ROW(name, storage, offset, n)                                                              \
    "V" name "\nctorch._utils\n_rebuild_tensor_v2\n(" storage "I" offset "\n(I" n "\nt(I1\nt"      \
    "I00\n}tRs"
#define ONE_ROW "}" ROW("w", STORAGE("7", "3", "N"), "0", "3") "."

/* int64 count 3, then 1, 2, 3 in FP32 */
static const char three[] = "\3\0\0\0\0\0\0\0\0\0\200\77\0\0\0\100\0\0\100\100";
enum { THREE = sizeof three - 1 };

static const struct legacy good = {"I1001\n.", SYSTEM, ONE_ROW, "(lV7\na.", three, THREE};

static void build(const struct legacy *x, struct hg_buf *out)
{
    static const char magic[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    hg_buf_clear(out);
    assert_int_equal(hg_buf_append(out, magic, sizeof magic - 1), 0);
    const char *const pickles[] = {x->protocol, x->system, x->object, x->keys};
    for (int i = 0; i < 4; i++)
        assert_int_equal(hg_buf_append_str(out, pickles[i]), 0);
    assert_int_equal(hg_buf_append(out, x->data, x->n_data), 0);
}

/* The values of tensor `name`, as text. */
static void expect_values(const struct legacy *x, const char *name, const char *want)
{
    struct hg_buf file = {0};
    struct hg_tensor_file *f;
    struct hg_error err = {0};
    char got[100] = "";
    build(x, &file);
    HG_TEST_OK(hg_tensor_file_parse("x", file.data, file.len, &f, &err), err);
    assert_string_equal(hg_tensor_file_container(f), "torch legacy");
    const struct hg_tensor *t = hg_tensor_file_find(f, name);
    assert_non_null(t);
    size_t n;
    unsigned char *bytes = hg_build_pack(t, &n);
    for (size_t i = 0; i < n / 4; i++) {
        float v;
        memcpy(&v, bytes + 4 * i, 4);
        snprintf(got + strlen(got), sizeof got - strlen(got), "%g ", (double)v);
    }
    assert_string_equal(got, want);
    free(bytes);
    hg_tensor_file_close(f);
    hg_buf_deinit(&file);
}

/* The file lies at the end of its block, so that ASan sees every byte read behind it. */
static void expect_refused(const struct legacy *x, const char *part)
{
    struct hg_buf file = {0};
    struct hg_tensor_file *f;
    struct hg_error err = {0};
    build(x, &file);
    char *exact = malloc(file.len);
    memcpy(exact, file.data, file.len);
    if (hg_tensor_file_parse("x", exact, file.len, &f, &err) == HG_STATUS_OK)
        fail_msg("accepted: %s", part);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not name \"%s\"", err.text, part);
    free(exact);
    hg_buf_deinit(&file);
}

static void tensors_views_and_shared_storages_are_read(void **state)
{
    (void)state;
    struct legacy x = good;
    expect_values(&x, "w", "1 2 3 ");
    /* A window of the storage: the tensor's offset counts from the window. */
    x.object = "}" ROW("w", STORAGE("7", "3", "(Vv\nI1\nI2\nt"), "0", "2") "."; /* values 1, 2 */
    expect_values(&x, "w", "2 3 ");
    x.object = "}" ROW("w", STORAGE("7", "3", "(Vv\nI1\nI2\nt"), "1", "1") ".";
    expect_values(&x, "w", "3 ");
    x.object = "}" ROW("w", STORAGE("7", "3", "N"), "2", "1")
        ROW("u", STORAGE("7", "3", "N"), "0", "2") ".";
    expect_values(&x, "w", "3 ");
    expect_values(&x, "u", "1 2 ");
    /* The file may hold more of a storage than the pickle speaks of. */
    x.object = "}" ROW("w", STORAGE("7", "2", "N"), "0", "2") ".";
    expect_values(&x, "w", "1 2 ");
}

static void wrong_pickles_are_refused_with_their_reason(void **state)
{
    (void)state;
    struct legacy x = good;
    x.protocol = "I1002\n.";
    expect_refused(&x, "protocol 1001");
    x.protocol = "V1001\n.";
    expect_refused(&x, "protocol 1001");
    x = good;
    x.system = "}Vlittle_endian\nI00\ns.";
    expect_refused(&x, "little_endian");
    x.system = "}.";
    expect_refused(&x, "little_endian");
    x.system = "(l.";
    expect_refused(&x, "little_endian");
    x = good;
    x.keys = "}.";
    expect_refused(&x, "list of storage keys");
    x.keys = "(lI7\na.";
    expect_refused(&x, "not a string");
    x.keys = "(lV7\naV7\na.";
    expect_refused(&x, "present twice");
    x.keys = "(l.";
    expect_refused(&x, "storage 7 is not in the key list");
    x.keys = "(lV7\naV8\na.";
    expect_refused(&x, "storage 8 belongs to no tensor");
    x = good;
    x.object = "}" ROW("w", STORAGE("7", "3", "N"), "0", "3")
        ROW("u", "(Vstorage\nctorch\nHalfStorage\nV7\nVcpu\nI3\nNtQ", "0", "3") ".";
    expect_refused(&x, "two element sizes");
}

static void wrong_sizes_are_refused_with_their_reason(void **state)
{
    (void)state;
    struct legacy x = good;
    char data[THREE + 1];
    memcpy(data, three, THREE);
    data[THREE] = 0;
    x.data = data;
    x.n_data = THREE + 1;
    expect_refused(&x, "1 bytes behind the last storage");
    x.n_data = THREE - 1;
    expect_refused(&x, "3 elements of 4 bytes, 11 bytes left");
    x.n_data = 7;
    expect_refused(&x, "truncated before storage 0");
    x.n_data = THREE;
    data[7] = (char)0x80;
    expect_refused(&x, "bytes left"); /* a negative count */
    data[7] = 0x40;
    expect_refused(&x, "bytes left"); /* 2^62 elements */
    data[7] = 0;
    data[0] = 2;
    x.n_data = THREE - 4;
    expect_refused(&x, "expected 3 elements, the file has 2");
    x = good;
    x.object = "}" ROW("w", STORAGE("7", "4", "N"), "0", "4") ".";
    expect_refused(&x, "expected 4 elements, the file has 3");
    x.object = "}" ROW("w", STORAGE("7", "3", "(Vv\nI2\nI2\nt"), "0", "2") ".";
    expect_refused(&x, "view is outside");
    x.object = "}" ROW("w", STORAGE("7", "3", "(Vv\nI-1\nI2\nt"), "0", "2") ".";
    expect_refused(&x, "view is outside");
    x.object = "}" ROW("w", STORAGE("7", "3", "(Vv\nI1\nI2\nt"), "0", "3") ".";
    expect_refused(&x, "the storage has 2"); /* fits the storage, not the window */
    x.object = "}" ROW("w", STORAGE("7", "3", "N"), "1", "3") ".";
    expect_refused(&x, "the storage has 3");
}

static void truncation_at_every_byte_is_refused(void **state)
{
    (void)state;
    struct hg_buf file = {0};
    build(&good, &file);
    for (size_t n = 0; n < file.len; n++) {
        struct hg_tensor_file *f;
        struct hg_error err = {0};
        char *exact = malloc(n + 1);
        memcpy(exact, file.data, n);
        assert_int_not_equal(hg_tensor_file_parse("x", exact, n, &f, &err), HG_STATUS_OK);
        assert_true(err.text[0]);
        free(exact);
    }
    hg_buf_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_views_and_shared_storages_are_read),
        cmocka_unit_test(wrong_pickles_are_refused_with_their_reason),
        cmocka_unit_test(wrong_sizes_are_refused_with_their_reason),
        cmocka_unit_test(truncation_at_every_byte_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
