/* server/notify.c - see notify.h. */
#include "server/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

enum { MESSAGE_CAP = 512 };

/* Microseconds; 0 when it is no number, or somebody else's. */
static int64_t watchdog_of(const char *usec, const char *pid)
{
    char *end;
    if (!usec || *usec < '0' || *usec > '9')
        return 0;
    if (pid && strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    errno = 0;
    unsigned long long v = strtoull(usec, &end, 10);
    return *end || errno || v > INT64_MAX / 1000 ? 0 : (int64_t)v;
}

void hg_notify_open(struct hg_notify *n)
{
    const char *name = getenv("NOTIFY_SOCKET");
    size_t len = name ? strlen(name) : 0;
    *n = (struct hg_notify){.fd = -1};
    if (len > 1 && (*name == '/' || *name == '@') && len < sizeof n->address.sun_path) {
        n->address.sun_family = AF_UNIX;
        memcpy(n->address.sun_path, name, len);
        if (*name == '@')
            n->address.sun_path[0] = '\0';
        n->n_address = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
        n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        n->watchdog_ns = 1000 * watchdog_of(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
    } else if (len > 0) {
        hg_log(HG_LOG_WARN, "NOTIFY_SOCKET: expected a path or @name; the service manager is told "
                            "nothing");
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void hg_notify_close(struct hg_notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}

void hg_notify(const struct hg_notify *n, const char *format, ...)
{
    char text[MESSAGE_CAP];
    va_list args;
    if (n->fd < 0)
        return;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len <= 0 || (size_t)len >= sizeof text)
        return;
    (void)!sendto(n->fd, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)&n->address, n->n_address);
}
