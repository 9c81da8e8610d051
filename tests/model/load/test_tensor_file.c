/* tests/model/load/test_tensor_file.c - every torch and safetensors file that we have against torch
 * (tests/data/weights/expected.tsv, made by make.py there), and what is no weight file at all. */
#include "tests/test.h"

#include "model/load/tensor_file.h"
#include "tests/model/load/build_file.h"

struct row {
    char file[200], name[160], type[8], shape[64];
    uint32_t crc;
};

/* Path of a row's file, NULL when it belongs to shared data that is absent. */
static const char *row_path(const struct row *r)
{
    static char name[300];
    if (strncmp(r->file, "shared:", 7) == 0)
        return hg_test_shared(r->file + 7);
    snprintf(name, sizeof name, "tests/data/weights/%s", r->file);
    return hg_test_file(name);
}

static void check_row(const struct hg_tensor_file *f, const struct row *r)
{
    char shape[80] = "";
    size_t n;
    const struct hg_tensor *t = hg_tensor_file_find(f, r->name);
    if (!t)
        fail_msg("%s: tensor %s is missing", r->file, r->name);
    for (int i = 0; i < t->n_dims; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", i ? "," : "",
                 (long long)t->dims[i]);
    assert_string_equal(t->n_dims ? shape : "-", r->shape);
    assert_string_equal(hg_tensor_type_name(t->type), r->type);
    unsigned char *packed = hg_build_pack(t, &n);
    if (hg_build_crc32(packed, n) != r->crc)
        fail_msg("%s: tensor %s: expected crc %08x, got %08x", r->file, r->name, r->crc,
                 hg_build_crc32(packed, n));
    free(packed);
}

static void every_tensor_equals_what_torch_reads(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_tensor_file *f = NULL;
    struct row r;
    char open_name[200] = "", line[512];
    size_t n_files = 0, n_tensors = 0, n_absent = 0, n_in_file = 0;
    FILE *table = fopen(hg_test_file("tests/data/weights/expected.tsv"), "r");
    assert_non_null(table);
    while (fgets(line, sizeof line, table)) {
        assert_int_equal(sscanf(line, "%199[^\t]\t%159[^\t]\t%7[^\t]\t%63[^\t]\t%x", r.file, r.name,
                                r.type, r.shape, &r.crc),
                         5);
        if (strcmp(open_name, r.file) != 0) {
            if (f)
                assert_int_equal(hg_tensor_file_count(f), n_in_file);
            hg_tensor_file_close(f);
            f = NULL;
            n_in_file = 0;
            snprintf(open_name, sizeof open_name, "%s", r.file);
            const char *path = row_path(&r);
            if (path)
                HG_TEST_OK(hg_tensor_file_open(path, &f, &err), err);
            n_files += path != NULL;
            n_absent += path == NULL;
        }
        if (!f)
            continue;
        check_row(f, &r);
        n_in_file++;
        n_tensors++;
    }
    if (f)
        assert_int_equal(hg_tensor_file_count(f), n_in_file);
    hg_tensor_file_close(f);
    fclose(table);
    printf("%zu tensors of %zu files equal\n", n_tensors, n_files);
    assert_true(n_files >= 6);
    if (n_absent)
        printf("SKIP: %zu files of the shared data are absent\n", n_absent);
}

/* Two trainings of one network (torch confirms that the values differ): same names, types, shapes.
 */
static void mnist_has_the_same_tensors_in_both_containers(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_tensor_file *a, *b;
    const char *path = hg_test_shared("data/weights_formats/burn/mnist.pt");
    if (!path)
        HG_TEST_SKIP("shared data absent");
    HG_TEST_OK(hg_tensor_file_open(path, &a, &err), err);
    HG_TEST_OK(hg_tensor_file_open(hg_test_shared("data/weights_formats/burn/mnist.safetensors"),
                                   &b, &err),
               err);
    assert_int_equal(hg_tensor_file_count(a), hg_tensor_file_count(b));
    for (size_t i = 0; i < hg_tensor_file_count(a); i++) {
        const struct hg_tensor *x = hg_tensor_file_at(a, i);
        const struct hg_tensor *y = hg_tensor_file_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_memory_equal(x->dims, y->dims, sizeof x->dims);
    }
    hg_tensor_file_close(a);
    hg_tensor_file_close(b);
}

static void container_is_chosen_by_content(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"module.pt", "torch zip"},
                                           {"views_legacy.pth", "torch legacy"}};
    struct hg_error err = {0};
    struct hg_buf st = {0};
    struct hg_tensor_file *f;
    for (int i = 0; i < 2; i++) {
        char name[100];
        snprintf(name, sizeof name, "tests/data/weights/%s", names[i][0]);
        HG_TEST_OK(hg_tensor_file_open(hg_test_file(name), &f, &err), err);
        assert_string_equal(hg_tensor_file_container(f), names[i][1]);
        hg_tensor_file_close(f);
    }
    hg_build_safetensors(&st, "{}", "", 0);
    HG_TEST_OK(hg_tensor_file_parse("a.pt", st.data, st.len, &f, &err), err);
    assert_string_equal(hg_tensor_file_container(f), "safetensors");
    assert_int_equal(hg_tensor_file_count(f), 0);
    assert_null(hg_tensor_file_at(f, 0));
    assert_null(hg_tensor_file_find(f, "x"));
    hg_tensor_file_close(f);
    hg_buf_deinit(&st);
}

static void other_files_are_refused_by_kind(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_tensor_file *f;
    static const char *const others[][2] = {
        {"burn/src/pytorch/tests/reader/test_data/tar_float32.tar", "tar"},
        {"burn/src/pytorch/tests/reader/test_data/broken.pt", "something else"},
        {"candle/test.npy", "something else"},
        {"candle/test.npz", "data.pkl"}};
    assert_int_equal(hg_tensor_file_parse("a", "", 0, &f, &err), HG_STATUS_BAD_FILE);
    assert_int_equal(hg_tensor_file_parse("a", "PK\3\4", 4, &f, &err), HG_STATUS_BAD_FILE);
    assert_int_equal(hg_tensor_file_open("/nonexistent/x", &f, &err), HG_STATUS_NOT_FOUND);
    assert_null(f);
    if (!hg_test_shared("data/weights_formats"))
        HG_TEST_SKIP("shared data absent");
    for (int i = 0; i < 4; i++) {
        char name[160];
        snprintf(name, sizeof name, "data/weights_formats/%s", others[i][0]);
        enum hg_status s = hg_tensor_file_open(hg_test_shared(name), &f, &err);
        assert_true(s == HG_STATUS_BAD_FILE || s == HG_STATUS_UNSUPPORTED);
        if (!strstr(err.text, others[i][1]))
            fail_msg("\"%s\" does not name \"%s\"", err.text, others[i][1]);
    }
}

/* Each proper prefix misses data: a torch zip its directory, the others the end of a storage. */
static void truncation_at_every_byte_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"views.pt", "views_legacy.pth", "lightning.ckpt",
                                        "types.pt"};
    size_t n_cut = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[100];
        size_t n;
        snprintf(name, sizeof name, "tests/data/weights/%s", names[i]);
        unsigned char *data = hg_test_read(hg_test_file(name), &n);
        for (size_t cut = 0; cut < n; cut++, n_cut++) {
            /* An own block of this size: the sanitizer sees any byte read behind the cut. */
            unsigned char *part = malloc(cut + !cut);
            struct hg_error err = {0};
            struct hg_tensor_file *f;
            memcpy(part, data, cut);
            if (hg_tensor_file_parse(names[i], part, cut, &f, &err) == HG_STATUS_OK)
                fail_msg("%s cut to %zu of %zu bytes was accepted", names[i], cut, n);
            assert_true(err.text[0]);
            free(part);
        }
        free(data);
    }
    printf("%zu prefixes refused\n", n_cut);
}

static void shape_text_and_type_tables(void **state)
{
    (void)state;
    char text[32], tiny[5];
    int64_t dims[] = {3072, 1024};
    assert_string_equal(hg_tensor_shape_text(dims, 2, text, sizeof text), "[3072, 1024]");
    assert_string_equal(hg_tensor_shape_text(dims, 0, text, sizeof text), "[]");
    assert_string_equal(hg_tensor_shape_text(dims, 2, tiny, sizeof tiny), "[307");
    assert_int_equal(hg_tensor_type_bytes(HG_TENSOR_TYPE_BF16), 2);
    assert_string_equal(hg_tensor_type_name(HG_TENSOR_TYPE_BF16), "BF16");
    assert_int_equal(hg_tensor_type_bytes((enum hg_tensor_type)99), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_equals_what_torch_reads),
        cmocka_unit_test(mnist_has_the_same_tensors_in_both_containers),
        cmocka_unit_test(container_is_chosen_by_content),
        cmocka_unit_test(other_files_are_refused_by_kind),
        cmocka_unit_test(truncation_at_every_byte_is_refused),
        cmocka_unit_test(shape_text_and_type_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
