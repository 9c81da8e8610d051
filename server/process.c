/* server/process.c - signals and standard descriptors. */
#include "server/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
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
