/* server/notify.h - what the service manager is told: sd_notify(3) without libsystemd.
 *
 * One datagram of VARIABLE=value lines to $NOTIFY_SOCKET (a path, or '@' and a name of the abstract
 * space). Without that variable, or with one that cannot be used, everything here does nothing; a
 * datagram that does not fit in the socket is dropped. $WATCHDOG_USEC counts when $WATCHDOG_PID is
 * this process or absent. */
#ifndef HG_SERVER_NOTIFY_H
#define HG_SERVER_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct hg_notify {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un address;
    socklen_t n_address;
    int64_t watchdog_ns; /* 0: none is wanted */
};

/* Takes the variables out of the environment: before there are threads. */
void hg_notify_open(struct hg_notify *n);
void hg_notify_close(struct hg_notify *n);
/* "READY=1\nSTATUS=..." */
void hg_notify(const struct hg_notify *n, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
