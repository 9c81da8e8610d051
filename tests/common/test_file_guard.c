/* tests/common/test_file_guard.c - a mapped file is cut while it is being read. */
#include "common/file_guard.h"

#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "tests/test.h"

enum { PAGES = 8 }; /* of the file */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/hg_test_guard_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* What happens in a child after a file of PAGES pages is cut to `keep` bytes: its exit status, its
 * stderr in text. run gets the mapping. */
static int in_child(void (*run)(const unsigned char *data), size_t keep, char *text, size_t cap)
{
    char path[128];
    int fds[2], status = 0;
    struct hg_file_map map;
    struct hg_error err;
    char *zeros = calloc(PAGES, page());
    snprintf(path, sizeof path, "%s/weights.bin", folder);
    assert_int_equal(hg_file_write(path, zeros, PAGES * page(), &err), HG_STATUS_OK);
    free(zeros);
    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(fds[1], STDERR_FILENO);
        hg_file_guard_install("program");
        if (hg_file_map(path, &map, &err) != HG_STATUS_OK || truncate(path, (off_t)keep) != 0)
            _exit(1);
        run(map.data);
        _exit(0);
    }
    close(fds[1]);
    ssize_t n, got = 0;
    while ((n = read(fds[0], text + got, cap - 1 - (size_t)got)) > 0)
        got += n;
    text[got] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    unlink(path);
    return status;
}

static void read_all(const unsigned char *data)
{
    volatile unsigned sum = 0;
    for (size_t i = 0; i < PAGES * page(); i += 100)
        sum += data[i];
}

/* A mapping that the table does not hold (any more): the signal kills as ever. */
static void read_after_removal(const unsigned char *data)
{
    hg_file_guard_remove(data);
    read_all(data);
}

static void a_cut_file_ends_the_program_with_65_and_its_name(void **state)
{
    (void)state;
    char text[512], want[128];
    int status = in_child(read_all, 3 * page(), text, sizeof text);
    printf("# %s", text);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 65);
    assert_int_equal(strncmp(text, "program: ", 9), 0);
    assert_non_null(strstr(text, "/weights.bin: was cut"));
    assert_null(strstr(text, "/tmp/")); /* no whole path */
    /* reads are 100 apart: the first one past the cut */
    snprintf(want, sizeof want, "no byte at %zu of the %zu", (3 * page() + 99) / 100 * 100,
             PAGES * page());
    assert_non_null(strstr(text, want));
}

static void a_whole_file_is_read(void **state)
{
    (void)state;
    char text[512];
    int status = in_child(read_all, PAGES * page(), text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(text, "");
}

static void other_memory_dies_of_the_signal(void **state)
{
    (void)state;
    char text[512];
    int status = in_child(read_after_removal, page(), text, sizeof text);
    assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 65));
    assert_null(strstr(text, "was cut"));
}

/* Resident KiB of the mapping that begins at p. */
static long resident_kib(const void *p)
{
    char line[512], begin[32];
    long kib = -1;
    bool here = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    snprintf(begin, sizeof begin, "%lx-", (unsigned long)(uintptr_t)p);
    while (kib < 0 && fgets(line, sizeof line, f)) {
        here = here || strncmp(line, begin, strlen(begin)) == 0;
        if (here && strncmp(line, "Rss:", 4) == 0)
            kib = strtol(line + 4, NULL, 10);
    }
    fclose(f);
    return kib;
}

static void forgotten_pages_are_not_resident_and_read_again(void **state)
{
    (void)state;
    char path[128];
    struct hg_file_map map;
    struct hg_error err;
    unsigned char *bytes = malloc(PAGES * page());
    for (size_t i = 0; i < PAGES * page(); i++)
        bytes[i] = (unsigned char)(i / page() + 1);
    snprintf(path, sizeof path, "%s/weights.bin", folder);
    HG_TEST_OK(hg_file_write(path, bytes, PAGES * page(), &err), err);
    HG_TEST_OK(hg_file_map(path, &map, &err), err);
    unlink(path);
    read_all(map.data);
    long all = (long)(PAGES * page() / 1024), touched = (long)(4 * page() / 1024);
    assert_int_equal(resident_kib(map.data), all);
    hg_file_forget(&map, map.data + page() + 10, 3 * page());
    assert_int_equal(resident_kib(map.data), all - touched);
    hg_file_forget(&map, bytes, page());                 /* not of the file: must not vanish */
    hg_file_forget(&map, map.data + 10, PAGES * page()); /* reaches beyond it */
    hg_file_forget(&map, map.data + PAGES * page() - 1, 1);
    assert_memory_equal(map.data, bytes, PAGES * page());
    assert_int_equal(bytes[0], 1);
    hg_file_unmap(&map);
    hg_file_forget(&map, map.data, 0);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_file_ends_the_program_with_65_and_its_name),
        cmocka_unit_test(a_whole_file_is_read),
        cmocka_unit_test(other_memory_dies_of_the_signal),
        cmocka_unit_test(forgotten_pages_are_not_resident_and_read_again),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
