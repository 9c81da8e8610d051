/* server/process.c - signals and standard descriptors. */
#include "server/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/file_guard.h"

void hg_process_init(const char *program)
{
    signal(SIGPIPE, SIG_IGN);
    hg_file_guard_install(program);
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) == -1) /* the lowest free descriptor is the one found missing */
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

void hg_process_leave(int code)
{
    fflush(stdout);
    _exit(code);
}
