/* tests/model/load/test_torch_zip.c - wrong zip structures and wrong tensor geometry. */
#include "tests/test.h"

#include <time.h>

#include "model/load/tensor_file.h"
#include "tests/model/load/build_file.h"

static const struct hg_build_tensor good = {.name = "w",
                                            .type = "FloatStorage",
                                            .key = "0",
                                            .numel = 6,
                                            .n_dims = 2,
                                            .dims = {2, 3},
                                            .strides = {3, 1}};
static const float six[6] = {1, 2, 3, 4, 5, 6};

static void build(struct hg_buf *file, const struct hg_build_tensor *t)
{
    struct hg_buf p = {0};
    hg_build_begin(&p);
    hg_build_tensor(&p, t);
    hg_buf_append_str(&p, ".");
    hg_build_torch(file, &p, six, sizeof six);
    hg_buf_deinit(&p);
}

static void a_built_file_is_read(void **state)
{
    (void)state;
    struct hg_buf file = {0};
    struct hg_error err = {0};
    struct hg_tensor_file *f;
    build(&file, &good);
    HG_TEST_OK(hg_tensor_file_parse("x", file.data, file.len, &f, &err), err);
    const struct hg_tensor *t = hg_tensor_file_find(f, "w");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_memory_equal(t->data, six, sizeof six);
    hg_tensor_file_close(f);
    hg_buf_deinit(&file);
}

struct change {
    const char *part; /* of the message */
    struct hg_build_tensor t;
};

#define T(...)                                                                                     \
    {                                                                                              \
        .name = "w", .type = "FloatStorage", .key = "0", .numel = 6, .n_dims = 2, .dims = {2, 3},  \
        .strides = {3, 1}, __VA_ARGS__                                                             \
    }

#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#endif
static const struct change bad_tensors[] = {
    {"needs 7 elements, the storage has 6", T(.offset = 1)},
    {"impossible", T(.offset = -1)},
    {"impossible", T(.offset = INT64_MIN)},
    {"impossible", T(.offset = INT64_MAX)},
    {"needs", T(.offset = INT64_MAX / 2)},
    {"needs 9 elements", T(.dims = {3, 3})},
    {"needs 7 elements", T(.strides = {4, 1})},
    {"needs 8 elements", T(.strides = {3, 2})},
    {"impossible", T(.strides = {-3, 1})},
    {"impossible", T(.strides = {3, (int64_t)1 << 62})},
    {"impossible", T(.dims = {-1, 3})},
    {"impossible", T(.dims = {(int64_t)1 << 62, 4})},
    {"impossible", T(.dims = {((int64_t)1 << 40) - 1, ((int64_t)1 << 40) - 1})},
    {"needs 1000000 elements", T(.dims = {1000000, 1}, .strides = {0, 1})},
    {"sizes and strides", T(.n_dims = 9)},
    {"expected 7 elements of F32, has 24", T(.numel = 7)},
    {"expected", T(.numel = (int64_t)1 << 62)},
    {"expected a type, a key and a size", T(.numel = -1)},
    {"needs 6 elements, the storage has 5", T(.numel = 5)},
    {"expected 6 elements of F64", T(.type = "DoubleStorage")},
    {"storage data/1 is missing", T(.key = "1")},
    {"storage data/../data.pkl is missing", T(.key = "../data.pkl")},
    {"opaque torch.ComplexFloatStorage", T(.type = "ComplexFloatStorage")},
    {"name of 1..256 bytes", T(.name = "")},
    {"printable", T(.name = "a\nb")},
    {"printable", T(.name = "a\xff")},
};

static void wrong_geometry_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct hg_buf file = {0};
    size_t n = sizeof bad_tensors / sizeof bad_tensors[0];
    for (size_t i = 0; i < n; i++) {
        struct hg_error err = {0};
        struct hg_build_tensor t = bad_tensors[i].t;
        struct hg_buf p = {0};
        hg_build_begin(&p);
        hg_build_tensor(&p, &good);
        if (strcmp(t.name, "w") == 0)
            t.name = "v";
        /* A dictionary with one good tensor beside it, so that an opaque value stands in the way.
         */
        hg_build_tensor(&p, &t);
        hg_buf_append_str(&p, ".");
        hg_build_torch(&file, &p, six, sizeof six);
        hg_buf_deinit(&p);
        if (hg_build_parse(&file, &err) == HG_STATUS_OK)
            fail_msg("accepted: case %zu (%s)", i, bad_tensors[i].part);
        if (!strstr(err.text, bad_tensors[i].part))
            fail_msg("case %zu: \"%s\" does not name \"%s\"", i, err.text, bad_tensors[i].part);
    }
    hg_buf_deinit(&file);
    printf("%zu wrong tensors refused\n", n);
}

static void a_name_twice_is_refused(void **state)
{
    (void)state;
    struct hg_buf file = {0}, p = {0};
    struct hg_error err = {0};
    hg_build_begin(&p);
    hg_build_tensor(&p, &good);
    hg_build_tensor(&p, &good);
    hg_buf_append_str(&p, ".");
    hg_build_torch(&file, &p, six, sizeof six);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "tensor w: present twice");
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

/* One call makes a zip with a fault. */
struct zip_case {
    const char *part;
    const char *extra_name; /* one member more, NULL: none */
    const char *local_name;
    const char *byteorder;
    const char *pickle_name;
    unsigned flags, method;
    int zip64, ok;
};

static const struct zip_case zip_cases[] = {
    {.ok = 1},
    {.ok = 1, .zip64 = 1},
    {.ok = 1, .byteorder = "little"},
    {.ok = 1, .extra_name = "x/.data/serialization_id"},
    {.ok = 1, .flags = 1 << 11, .extra_name = "x/y"},
    {.part = "byteorder", .byteorder = "big"},
    {.part = "byteorder", .byteorder = "lit"},
    {.part = "present twice", .extra_name = "x/data/0"},
    {.part = "present twice", .extra_name = "x/data.pkl"},
    {.part = "two data.pkl", .extra_name = "y/data.pkl"},
    {.part = "unsafe", .extra_name = "x/../../etc/passwd"},
    {.part = "unsafe", .extra_name = "../x"},
    {.part = "unsafe", .extra_name = ".."},
    {.part = "unsafe", .extra_name = "/etc/passwd"},
    {.part = "unsafe", .extra_name = "x\\y"},
    {.part = "unsafe", .extra_name = ""},
    {.part = "different members", .extra_name = "x/a", .local_name = "x/b"},
    {.part = "different members", .extra_name = "x/a", .local_name = "x/ab"},
    {.part = "compressed", .extra_name = "x/a", .method = 8},
    {.part = "encrypted", .extra_name = "x/a", .flags = 1},
    {.part = "encrypted", .extra_name = "x/a", .flags = 0x40},
    {.part = "no <name>/data.pkl", .pickle_name = "data.pkl"},
    {.part = "no <name>/data.pkl", .pickle_name = "x/y/data.pkl"},
    {.part = "no <name>/data.pkl", .pickle_name = "x/data.pk"},
};

static void build_zip_case(const struct zip_case *c, struct hg_buf *file)
{
    struct hg_build_zip z = {.zip64 = c->zip64};
    struct hg_buf p = {0};
    hg_build_begin(&p);
    hg_build_tensor(&p, &good);
    hg_buf_append_str(&p, ".");
    hg_build_zip_add(&z, c->pickle_name ? c->pickle_name : "x/data.pkl", p.data, p.len);
    hg_build_zip_add(&z, "x/data/0", six, sizeof six);
    if (c->byteorder)
        hg_build_zip_add(&z, "x/byteorder", c->byteorder, strlen(c->byteorder));
    if (c->extra_name) {
        z.local_name = c->local_name;
        z.flags = c->flags;
        z.method = c->method;
        hg_build_zip_add(&z, c->extra_name, "abc", 3);
    }
    hg_build_zip_end(&z, file);
    hg_buf_deinit(&p);
}

static void wrong_zips_are_refused_with_their_reason(void **state)
{
    (void)state;
    struct hg_buf file = {0};
    for (size_t i = 0; i < sizeof zip_cases / sizeof zip_cases[0]; i++) {
        const struct zip_case *c = &zip_cases[i];
        struct hg_error err = {0};
        build_zip_case(c, &file);
        enum hg_status s = hg_build_parse(&file, &err);
        if ((s == HG_STATUS_OK) != c->ok)
            fail_msg("case %zu: %s (%s)", i, hg_status_text(s), err.text);
        if (!c->ok && !strstr(err.text, c->part))
            fail_msg("case %zu: \"%s\" does not name \"%s\"", i, err.text, c->part);
    }
    hg_buf_deinit(&file);
}

/* Every single number of the central directory and the end records, off by one and at its maximum.
 */
static void every_directory_byte_off_by_one_is_survived(void **state)
{
    (void)state;
    size_t n_read = 0, n_refused = 0;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        struct hg_buf file = {0};
        struct zip_case c = {.zip64 = zip64, .byteorder = "little"};
        build_zip_case(&c, &file);
        for (size_t at = 0; at < file.len; at++) {
            static const int deltas[] = {1, -1, 0x80, 0xff};
            for (int d = 0; d < 4; d++) {
                struct hg_error err = {0};
                char old = file.data[at];
                file.data[at] = (char)(d == 3 ? 0xff : old + deltas[d]);
                if (hg_build_parse(&file, &err) == HG_STATUS_OK)
                    n_read++;
                else
                    n_refused++;
                file.data[at] = old;
            }
        }
        hg_buf_deinit(&file);
    }
    printf("%zu changed files refused, %zu still readable (values, times, unused fields)\n",
           n_refused, n_read);
    assert_true(n_refused > n_read);
}

static void overlapping_members_are_refused(void **state)
{
    (void)state;
    /* Both central entries point to the first local header, as a zip bomb's do. */
    struct hg_build_zip z = {0};
    struct hg_buf file = {0};
    struct hg_error err = {0};
    hg_build_zip_add(&z, "x/data.pkl", "}.", 2);
    char entry[200];
    size_t n = z.central.len;
    memcpy(entry, z.central.data, n);
    hg_buf_append(&z.central, entry, n);
    z.n_members++;
    hg_build_zip_end(&z, &file);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "overlap");
    hg_buf_deinit(&file);
}

/* As many members as a directory without zip64 can name, all of them honest and useless. */
static void a_long_directory_is_read_in_bounded_time(void **state)
{
    (void)state;
    struct hg_build_zip z = {0};
    struct hg_buf file = {0};
    struct hg_error err = {0};
    struct timespec a, b;
    for (int i = 0; i < 65000; i++) {
        char name[32];
        snprintf(name, sizeof name, "x/data/%d", i * 7919 % 65000);
        hg_build_zip_add(&z, name, "", 0);
    }
    hg_build_zip_end(&z, &file);
    clock_gettime(CLOCK_MONOTONIC, &a);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "data.pkl");
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ms = 1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec);
    printf("65,000 members (%zu kB) refused in %.1f ms\n", file.len / 1024, ms);
    assert_true(ms < 5000); /* sorting is n log n: 20 ms on an idle machine */
    hg_buf_deinit(&file);
}

static void bytes_behind_the_pickle_are_refused(void **state)
{
    (void)state;
    struct hg_buf file = {0}, p = {0};
    struct hg_error err = {0};
    hg_build_begin(&p);
    hg_build_tensor(&p, &good);
    hg_buf_append_str(&p, "..");
    hg_build_torch(&file, &p, six, sizeof six);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "behind the end");
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_built_file_is_read),
        cmocka_unit_test(wrong_geometry_is_refused_with_its_reason),
        cmocka_unit_test(a_name_twice_is_refused),
        cmocka_unit_test(wrong_zips_are_refused_with_their_reason),
        cmocka_unit_test(every_directory_byte_off_by_one_is_survived),
        cmocka_unit_test(overlapping_members_are_refused),
        cmocka_unit_test(a_long_directory_is_read_in_bounded_time),
        cmocka_unit_test(bytes_behind_the_pickle_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
