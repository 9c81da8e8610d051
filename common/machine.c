/* common/machine.c - small files of /proc and /sys, which have no size: read to a cap. */
#include "common/machine.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_CAP = 2048, TEXT_CAP = 8192 };

static const uint64_t no_limit = (uint64_t)1 << 60; /* cgroup 1 writes a huge number for none */

/* The beginning of a file, NUL-terminated; false when there is none. */
static bool read_text(const char *path, char text[TEXT_CAP])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = 0;
    size_t n = 0;
    if (fd < 0)
        return false;
    while (n < TEXT_CAP - 1 && (got = read(fd, text + n, TEXT_CAP - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    text[n] = '\0';
    return n > 0;
}

static bool __attribute__((format(printf, 2, 3)))
read_at(char text[TEXT_CAP], const char *format, ...)
{
    char path[PATH_CAP];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return n > 0 && n < PATH_CAP && read_text(path, text);
}

/* The value behind "key" at the beginning of a line; NULL: no such line. */
static const char *value_of(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; *line;) {
        if (strncmp(line, key, n) == 0) {
            const char *v = line + n;
            while (*v == ' ' || *v == '\t' || *v == ':')
                v++;
            return v;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return NULL;
}

static uint64_t number_of(const char *text, const char *key)
{
    const char *v = value_of(text, key);
    return v ? strtoull(v, NULL, 10) : 0;
}

/* ---- cgroups --------------------------------------------------------------------------------- */

static void tighten_quota(struct hg_machine *m, double quota, double period)
{
    if (quota <= 0 || period <= 0)
        return;
    if (m->quota == 0 || quota / period < m->quota)
        m->quota = quota / period;
}

static void tighten_memory(struct hg_machine *m, uint64_t limit, uint64_t used)
{
    if (limit == 0 || limit >= no_limit || (m->limit != 0 && limit >= m->limit))
        return;
    m->limit = limit;
    m->limit_used = used;
}

static void visit_v2(const char *root, const char *group, struct hg_machine *m)
{
    char text[TEXT_CAP], more[TEXT_CAP], *end;
    if (read_at(text, "%s/sys/fs/cgroup%s/cpu.max", root, group) && strncmp(text, "max", 3) != 0) {
        double quota = strtod(text, &end);
        tighten_quota(m, quota, strtod(end, NULL));
    }
    if (read_at(text, "%s/sys/fs/cgroup%s/memory.max", root, group) &&
        strncmp(text, "max", 3) != 0) {
        bool known = read_at(more, "%s/sys/fs/cgroup%s/memory.current", root, group);
        tighten_memory(m, strtoull(text, NULL, 10), known ? strtoull(more, NULL, 10) : 0);
    }
}

static void visit_cpu(const char *root, const char *group, struct hg_machine *m)
{
    char quota[TEXT_CAP], period[TEXT_CAP];
    if (read_at(quota, "%s/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", root, group) &&
        read_at(period, "%s/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", root, group))
        tighten_quota(m, strtod(quota, NULL), strtod(period, NULL));
}

static void visit_memory(const char *root, const char *group, struct hg_machine *m)
{
    char limit[TEXT_CAP], used[TEXT_CAP];
    if (!read_at(limit, "%s/sys/fs/cgroup/memory%s/memory.limit_in_bytes", root, group))
        return;
    bool known = read_at(used, "%s/sys/fs/cgroup/memory%s/memory.usage_in_bytes", root, group);
    tighten_memory(m, strtoull(limit, NULL, 10), known ? strtoull(used, NULL, 10) : 0);
}

typedef void visit_fn(const char *root, const char *group, struct hg_machine *m);

/* From the group up to the root. A path that leads outside the namespace ("/../x"), or that is
 * not mounted here, still has the root, which is what a container sees as its own group. */
static void visit_all(const char *root, const char *line, visit_fn *visit, struct hg_machine *m)
{
    char group[PATH_CAP / 2];
    size_t n = strcspn(line, "\n");
    if (n >= sizeof group)
        return;
    memcpy(group, line, n);
    group[n] = '\0';
    if (strncmp(group, "/..", 3) == 0)
        group[0] = '\0';
    for (char *slash; (slash = strrchr(group, '/')) != NULL; *slash = '\0')
        if (slash[1])
            visit(root, group, m);
    visit(root, "", m);
}

/* Lines "0::/path" (version 2) and "4:cpu,cpuacct:/path" (1). */
static void read_cgroups(const char *root, struct hg_machine *m)
{
    char text[TEXT_CAP];
    if (!read_at(text, "%s/proc/self/cgroup", root))
        return;
    for (char *line = text; *line; line += *line == '\n') {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        size_t n = strcspn(line, "\n");
        if (names && path && path < line + n) {
            char list[128];
            snprintf(list, sizeof list, ",%.*s,", (int)(path - names - 1), names + 1);
            if (path == names + 1)
                visit_all(root, path + 1, visit_v2, m);
            if (strstr(list, ",cpu,"))
                visit_all(root, path + 1, visit_cpu, m);
            if (strstr(list, ",memory,"))
                visit_all(root, path + 1, visit_memory, m);
        }
        line += n;
    }
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void read_memory(const char *root, struct hg_machine *m)
{
    char text[TEXT_CAP];
    if (read_at(text, "%s/proc/meminfo", root)) {
        m->ram = number_of(text, "MemTotal:") * 1024;
        m->ram_free = number_of(text, "MemAvailable:") * 1024;
        m->huge_pages = number_of(text, "HugePages_Total:");
    }
    if (read_at(text, "%s/sys/kernel/mm/transparent_hugepage/enabled", root)) {
        const char *open = strchr(text, '['); /* "always [madvise] never" */
        if (open)
            snprintf(m->transparent_huge, sizeof m->transparent_huge, "%.*s",
                     (int)strcspn(open + 1, "]\n"), open + 1);
    }
}

void hg_machine_read(const char *root, struct hg_machine *out)
{
    char text[TEXT_CAP];
    cpu_set_t set;
    *out = (struct hg_machine){0};
    if (read_at(text, "%s/proc/cpuinfo", root)) {
        const char *name = value_of(text, "model name");
        if (name)
            snprintf(out->cpu, sizeof out->cpu, "%.*s", (int)strcspn(name, "\n"), name);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    out->online = online > 0 ? (int)online : 1;
    out->affinity = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : out->online;
    read_memory(root, out);
    read_cgroups(root, out);
}

int hg_machine_cores(const struct hg_machine *m)
{
    int quota = m->quota > 0 ? (int)ceil(m->quota) : m->affinity;
    int n = quota < m->affinity ? quota : m->affinity;
    return n > 0 ? n : 1;
}

uint64_t hg_machine_memory_free(const struct hg_machine *m)
{
    uint64_t left = m->limit > m->limit_used ? m->limit - m->limit_used : 0;
    return m->limit && (m->ram_free == 0 || left < m->ram_free) ? left : m->ram_free;
}

uint64_t hg_machine_memory(const struct hg_machine *m)
{
    return m->limit && (m->ram == 0 || m->limit < m->ram) ? m->limit : m->ram;
}
