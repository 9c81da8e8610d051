/* server/process.c - signals and standard descriptors. */
#include "server/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file_guard.h"
#include "common/log.h"

void hg_process_init(const char *program)
{
    signal(SIGPIPE, SIG_IGN);
    hg_file_guard_install(program);
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) == -1) /* the lowest free descriptor is the one found missing */
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

void hg_process_want_files(int64_t n)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= (rlim_t)n)
        return;
    l.rlim_cur = l.rlim_max < (rlim_t)n ? l.rlim_max : (rlim_t)n;
    if (setrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur < (rlim_t)n)
        hg_log(HG_LOG_WARN, "descriptors: %lld are needed for all connections, the limit is %llu",
               (long long)n, (unsigned long long)l.rlim_cur);
}

void hg_process_leave(int code)
{
    fflush(stdout);
    _exit(code);
}

/* Linux 6.2 and newer tell it as the size of the folder; older ones say 0. */
static int64_t count_files(void)
{
    struct stat st;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return st.st_size;
    DIR *d = opendir("/proc/self/fd");
    int64_t n = -3; /* ".", "..", and the one that reads */
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n > 0 ? n : 0;
}

/* Fields 22, 23, 24 of /proc/self/stat, counted after the name, which may hold anything. */
static void read_stat(struct hg_process_facts *out)
{
    char text[1024];
    struct timespec wall, boot;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    char *s = strrchr(text, ')');
    unsigned long long start = 0, bytes = 0;
    long long pages = 0;
    if (!s || sscanf(s + 1,
                     " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                     "%*s %llu %llu %lld",
                     &start, &bytes, &pages) != 3)
        return;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    out->start_s =
        (double)(wall.tv_sec - boot.tv_sec) + (double)start / (double)sysconf(_SC_CLK_TCK);
    out->virtual = (int64_t)bytes;
    out->resident = (int64_t)pages * sysconf(_SC_PAGESIZE);
}

void hg_process_facts(struct hg_process_facts *out)
{
    struct timespec cpu = {0, 0};
    struct rlimit l;
    *out = (struct hg_process_facts){.open_files = count_files()};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    out->cpu_s = (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0)
        out->max_files = l.rlim_cur == RLIM_INFINITY ? INT64_MAX : (int64_t)l.rlim_cur;
    read_stat(out);
}
