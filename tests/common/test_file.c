#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

static char folder[64];

static const char *in_folder(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/hg_test_file_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "fifo", "empty"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

static int n_files_in_folder(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    while (d && readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void written_file_is_read_and_mapped_back(void **state)
{
    (void)state;
    struct hg_error err;
    struct hg_buf b = {0};
    struct hg_file_map map;
    char path[128];
    strcpy(path, in_folder("a"));
    HG_TEST_OK(hg_file_write(path, "one\0two", 7, &err), err);
    HG_TEST_OK(hg_file_write(path, "three\0four", 10, &err), err);
    assert_int_equal(n_files_in_folder(), 1);
    assert_true(hg_file_exists(path));
    assert_int_equal(hg_buf_append_str(&b, "before "), HG_STATUS_OK);
    HG_TEST_OK(hg_file_read(path, 10, &b, &err), err);
    assert_int_equal(b.len, 17);
    assert_memory_equal(b.data, "before three\0four", 18);
    HG_TEST_OK(hg_file_map(path, &map, &err), err);
    assert_int_equal(map.n, 10);
    assert_memory_equal(map.data, "three\0four", 10);
    hg_file_unmap(&map);
    assert_null(map.data);
    hg_file_unmap(&map);
    hg_buf_deinit(&b);
}

static void too_large_file_is_refused_and_buffer_kept(void **state)
{
    (void)state;
    struct hg_error err;
    struct hg_buf b = {0};
    HG_TEST_OK(hg_file_write(in_folder("a"), "12345678", 8, &err), err);
    assert_int_equal(hg_buf_append_str(&b, "keep"), HG_STATUS_OK);
    HG_TEST_FAILS(hg_file_read(in_folder("a"), 7, &b, &err), HG_STATUS_TOO_LARGE, err,
                  "at most 7 bytes allowed, has 8");
    assert_string_equal(b.data, "keep");
    hg_buf_deinit(&b);
}

static void empty_file_maps_to_null_and_reads_empty(void **state)
{
    (void)state;
    struct hg_error err;
    struct hg_buf b = {0};
    struct hg_file_map map;
    HG_TEST_OK(hg_file_write(in_folder("empty"), NULL, 0, &err), err);
    HG_TEST_OK(hg_file_map(in_folder("empty"), &map, &err), err);
    assert_null(map.data);
    assert_int_equal(map.n, 0);
    hg_file_unmap(&map);
    HG_TEST_OK(hg_file_read(in_folder("empty"), 0, &b, &err), err);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    hg_buf_deinit(&b);
}

static void missing_file_is_not_found(void **state)
{
    (void)state;
    struct hg_error err;
    struct hg_file_map map;
    HG_TEST_FAILS(hg_file_map(in_folder("none"), &map, &err), HG_STATUS_NOT_FOUND, err, "none");
    HG_TEST_FAILS(hg_file_map("/dev/null/x", &map, &err), HG_STATUS_NOT_FOUND, err, "/dev/null/x");
    assert_false(hg_file_exists(in_folder("none")));
}

/* A FIFO without a writer would block a plain open for ever. */
static void folders_fifos_and_devices_are_refused_at_once(void **state)
{
    (void)state;
    struct hg_error err;
    struct hg_file_map map;
    struct hg_buf b = {0};
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    HG_TEST_FAILS(hg_file_map(in_folder("fifo"), &map, &err), HG_STATUS_BAD_FILE, err, "regular");
    HG_TEST_FAILS(hg_file_map(folder, &map, &err), HG_STATUS_BAD_FILE, err, "regular");
    HG_TEST_FAILS(hg_file_read("/dev/zero", 100, &b, &err), HG_STATUS_BAD_FILE, err, "regular");
    hg_buf_deinit(&b);
}

static void failed_write_names_the_path_and_leaves_nothing(void **state)
{
    (void)state;
    struct hg_error err;
    int before = n_files_in_folder();
    assert_int_equal(hg_file_write(in_folder("none/x"), "x", 1, &err), HG_STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "none/x"));
    assert_int_equal(n_files_in_folder(), before);
    char *longer = malloc(5000);
    memset(longer, 'x', 4999);
    longer[4999] = 0;
    assert_int_equal(hg_file_write(longer, "x", 1, &err), HG_STATUS_TOO_LARGE);
    free(longer);
}

static void paths_join_with_one_slash(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(hg_path_join(out, sizeof out, "ab", "cd"), HG_STATUS_OK);
    assert_string_equal(out, "ab/cd");
    assert_int_equal(hg_path_join(out, sizeof out, "ab/", "cd"), HG_STATUS_OK);
    assert_string_equal(out, "ab/cd");
    assert_int_equal(hg_path_join(out, sizeof out, "", "cd"), HG_STATUS_OK);
    assert_string_equal(out, "cd");
    assert_int_equal(hg_path_join(out, sizeof out, "abcd", "efg"), HG_STATUS_TOO_LARGE);
    assert_int_equal(hg_path_join(out, sizeof out, "abc", "efg"), HG_STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_file_is_read_and_mapped_back),
        cmocka_unit_test(too_large_file_is_refused_and_buffer_kept),
        cmocka_unit_test(empty_file_maps_to_null_and_reads_empty),
        cmocka_unit_test(missing_file_is_not_found),
        cmocka_unit_test(folders_fifos_and_devices_are_refused_at_once),
        cmocka_unit_test(failed_write_names_the_path_and_leaves_nothing),
        cmocka_unit_test(paths_join_with_one_slash),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
