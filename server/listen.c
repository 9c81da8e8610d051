/* server/listen.c - parse, bind, say what was bound. */
#include "server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_v6(const struct hg_listen_address *a)
{
    return strchr(a->addr, ':') != NULL;
}

/* The digits after the last colon; -1 when they are no port. */
static long parse_port(const char *s)
{
    char *end;
    if (*s < '0' || *s > '9')
        return -1;
    unsigned long p = strtoul(s, &end, 10);
    return *end || p > 65535 ? -1 : (long)p;
}

enum hg_status hg_listen_parse(const char *s, struct hg_listen_address *out, struct hg_error *err)
{
    static const char local[] = "localhost";
    struct in6_addr raw; /* large enough for both families */
    const char *colon = strrchr(s, ':');
    long port = colon ? parse_port(colon + 1) : -1;
    if (port < 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "listen: expected ADDR:PORT, got \"%.64s\"", s);
    size_t n = (size_t)(colon - s);
    bool brackets = n >= 2 && s[0] == '[' && s[n - 1] == ']';
    if (n == sizeof local - 1 && memcmp(s, local, n) == 0)
        snprintf(out->addr, sizeof out->addr, "127.0.0.1");
    else
        snprintf(out->addr, sizeof out->addr, "%.*s", (int)(brackets ? n - 2 : n), s + brackets);
    if (n >= sizeof out->addr || inet_pton(brackets ? AF_INET6 : AF_INET, out->addr, &raw) != 1)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "listen: expected a numeric IPv4 or [IPv6] address before the port, got "
                       "\"%.64s\"",
                       s);
    out->port = (uint16_t)port;
    return HG_STATUS_OK;
}

bool hg_listen_is_loopback(const struct hg_listen_address *a)
{
    return strncmp(a->addr, "127.", 4) == 0 || strcmp(a->addr, "::1") == 0;
}

static socklen_t to_sockaddr(const struct hg_listen_address *a, struct sockaddr_storage *ss)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;
    memset(ss, 0, sizeof *ss);
    if (!is_v6(a)) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(a->port);
        inet_pton(AF_INET, a->addr, &v4->sin_addr);
        return sizeof *v4;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(a->port);
    inet_pton(AF_INET6, a->addr, &v6->sin6_addr);
    return sizeof *v6;
}

enum hg_status hg_listen_bind(struct hg_listen_address *a, int *fd, struct hg_error *err)
{
    const int yes = 1;
    struct sockaddr_storage ss;
    socklen_t n = to_sockaddr(a, &ss);
    char url[HG_LISTEN_ADDR_CAP + 24];
    hg_listen_url(a, url);
    int s = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = s >= 0 && setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
              (!is_v6(a) || setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes) == 0) &&
              bind(s, (struct sockaddr *)&ss, n) == 0 &&
              getsockname(s, (struct sockaddr *)&ss, &n) == 0;
    if (!ok) {
        int e = errno;
        if (s >= 0)
            close(s);
        return hg_fail(err, e == EADDRINUSE ? HG_STATUS_BUSY : HG_STATUS_IO,
                       "cannot listen on %s: %s", url, strerror(e));
    }
    a->port = ntohs(is_v6(a) ? ((struct sockaddr_in6 *)&ss)->sin6_port
                             : ((struct sockaddr_in *)&ss)->sin_port);
    *fd = s;
    return HG_STATUS_OK;
}

static void from_sockaddr(const struct sockaddr_storage *ss, struct hg_listen_address *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)ss;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)ss;
    bool is_six = ss->ss_family == AF_INET6;
    inet_ntop(ss->ss_family, is_six ? (const void *)&v6->sin6_addr : &v4->sin_addr, a->addr,
              sizeof a->addr);
    a->port = ntohs(is_six ? v6->sin6_port : v4->sin_port);
}

enum hg_status hg_listen_inherit(struct hg_listen_address *a, int *fd, struct hg_error *err)
{
    enum { FIRST_FD = 3 };
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    bool ours = pid && n && strtol(pid, NULL, 10) == (long)getpid();
    bool one = n && strcmp(n, "1") == 0;
    struct sockaddr_storage ss = {0};
    socklen_t n_ss = sizeof ss, n_yes = sizeof(int);
    int type = 0, listens = 0;
    *fd = -1;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (!ours)
        return HG_STATUS_OK;
    if (!one)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "expected one socket from the service manager");
    if (getsockopt(FIRST_FD, SOL_SOCKET, SO_TYPE, &type, &n_yes) != 0 || type != SOCK_STREAM ||
        getsockopt(FIRST_FD, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n_yes) != 0 || !listens ||
        getsockname(FIRST_FD, (struct sockaddr *)&ss, &n_ss) != 0 ||
        (ss.ss_family != AF_INET && ss.ss_family != AF_INET6))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "the socket of the service manager: expected a listening TCP socket");
    if (fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC) != 0 || fcntl(FIRST_FD, F_SETFL, O_NONBLOCK) != 0)
        return hg_fail(err, HG_STATUS_IO, "the socket of the service manager: %s", strerror(errno));
    from_sockaddr(&ss, a);
    *fd = FIRST_FD;
    return HG_STATUS_OK;
}

void hg_listen_url(const struct hg_listen_address *a, char out[HG_LISTEN_ADDR_CAP + 24])
{
    bool v6 = is_v6(a);
    snprintf(out, HG_LISTEN_ADDR_CAP + 24, "http://%s%s%s:%u", v6 ? "[" : "", a->addr,
             v6 ? "]" : "", (unsigned)a->port);
}
