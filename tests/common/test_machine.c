/* tests/common/test_machine.c - cgroup limits out of made-up trees, and this machine itself. */
#include "common/machine.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/hg-machine-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')) != NULL; *s++ = '/') {
        *s = '\0';
        mkdir(full, 0700);
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void the_tightest_group_of_version_2_counts(void **state)
{
    struct hg_machine m;
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/meminfo", "MemTotal:  1000 kB\nMemAvailable: 600 kB\nHugePages_Total:   3\n");
    put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU 9\n");
    put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "500000\n");
    put("/sys/fs/cgroup/a/b/memory.current", "100000\n");
    put("/sys/fs/cgroup/a/memory.max", "max\n");
    hg_machine_read(root, &m);
    assert_string_equal(m.cpu, "Some CPU 9");
    assert_string_equal(m.transparent_huge, "madvise");
    assert_int_equal(m.huge_pages, 3);
    assert_int_equal(m.ram, 1000 * 1024);
    assert_true(m.quota > 1.49 && m.quota < 1.51);
    assert_int_equal(m.limit, 500000);
    assert_int_equal(hg_machine_memory_free(&m), 400000); /* less than MemAvailable */
    assert_int_equal(hg_machine_memory(&m), 500000);
    m.affinity = 8;
    assert_int_equal(hg_machine_cores(&m), 2);
    m.affinity = 1;
    assert_int_equal(hg_machine_cores(&m), 1);
}

static void version_1_and_paths_outside_the_namespace_count(void **state)
{
    struct hg_machine m;
    (void)state;
    put("/proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/../elsewhere\n0::/\n");
    put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "800000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    hg_machine_read(root, &m);
    assert_int_equal(m.limit, 800000);
    assert_true(m.quota > 0.49 && m.quota < 0.51);
    assert_int_equal(hg_machine_cores(&m), 1);
}

static void nothing_to_read_is_no_failure(void **state)
{
    struct hg_machine m;
    (void)state;
    put("/proc/self/cgroup", "4:memory\nx\n:::::\n0::");
    hg_machine_read(root, &m);
    assert_int_equal(m.limit, 0);
    assert_true(m.quota == 0);
    assert_int_equal(hg_machine_memory(&m), 0);
    assert_true(hg_machine_cores(&m) >= 1);
}

static void this_machine_has_processors_and_memory(void **state)
{
    struct hg_machine m;
    (void)state;
    hg_machine_read("", &m);
    assert_true(m.online >= 1 && m.affinity >= 1);
    assert_true(m.ram > 0 && m.ram_free <= m.ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_tightest_group_of_version_2_counts, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(version_1_and_paths_outside_the_namespace_count, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(nothing_to_read_is_no_failure, make_root, remove_root),
        cmocka_unit_test(this_machine_has_processors_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
