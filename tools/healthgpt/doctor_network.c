/* tools/healthgpt/doctor_network.c - can the ports be bound, and if not, who is there? */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "server/listen.h"
#include "tools/healthgpt/doctor.h"

enum { ANSWER_MS = 400, ANSWER_CAP = 4096 };

/* Loopback and "any" say nothing about a site; other addresses are not shown. */
static void name_of(const struct hg_listen_address *a, char out[64])
{
    bool any = strcmp(a->addr, "0.0.0.0") == 0 || strcmp(a->addr, "::") == 0;
    snprintf(out, 64, "%s port %u",
             hg_listen_is_loopback(a) ? "loopback"
             : any                    ? "any address,"
                                      : "its address,",
             (unsigned)a->port);
}

/* A connection to the port on this machine; -1: none. */
static int connect_to(const struct hg_listen_address *a)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(a->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};
    bool six = strchr(a->addr, ':') != NULL;
    inet_pton(AF_INET, strcmp(a->addr, "0.0.0.0") == 0 ? "127.0.0.1" : a->addr, &v4.sin_addr);
    inet_pton(AF_INET6, strcmp(a->addr, "::") == 0 ? "::1" : a->addr, &v6.sin6_addr);
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int done = six ? connect(fd, (struct sockaddr *)&v6, sizeof v6)
                   : connect(fd, (struct sockaddr *)&v4, sizeof v4);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (done == 0 || (errno == EINPROGRESS && poll(&p, 1, ANSWER_MS) == 1))
        return fd;
    close(fd);
    return -1;
}

/* Does healthgptd answer there? On the operators' port its list of routes gives it away. */
static bool is_ours(const struct hg_listen_address *a)
{
    static const char ask[] =
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char text[ANSWER_CAP];
    size_t n = 0;
    int64_t end = hg_now_ns() + (int64_t)ANSWER_MS * 1000000;
    int fd = connect_to(a);
    if (fd < 0)
        return false;
    if (send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == (ssize_t)sizeof ask - 1) {
        while (n < sizeof text - 1 && hg_now_ns() < end) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            int left = (int)((end - hg_now_ns()) / 1000000);
            ssize_t got = poll(&p, 1, left > 0 ? left : 0) == 1
                              ? recv(fd, text + n, sizeof text - 1 - n, 0)
                              : 0;
            if (got <= 0)
                break;
            n += (size_t)got;
        }
    }
    close(fd);
    text[n] = '\0';
    return strstr(text, "X-Request-Id: req-") != NULL || strstr(text, "/startupz") != NULL;
}

static void one_port(struct hg_doctor *d, const char *key, const char *value)
{
    struct hg_listen_address a;
    struct hg_error err = {0};
    char name[64];
    int fd = -1;
    if (!value[0] || hg_listen_parse(value, &a, NULL) != HG_STATUS_OK) {
        hg_out_string(d->o, key, NULL); /* none, or said with the configuration */
        return;
    }
    name_of(&a, name);
    enum hg_status status = hg_listen_bind(&a, &fd, &err);
    if (fd >= 0)
        close(fd);
    const char *state = status == HG_STATUS_OK ? "free" : "not bound";
    if (status == HG_STATUS_OK) {
        HG_DOCTOR_OK_NOTE(d, key, "%s: %s is free", key, name);
    } else if (status == HG_STATUS_BUSY && is_ours(&a)) {
        state = "healthgptd";
        HG_DOCTOR_OK_NOTE(d, key, "%s: healthgptd answers already at %s", key, name);
    } else if (status == HG_STATUS_BUSY) {
        state = "in use";
        HG_DOCTOR_FAIL_NOTE(d, HG_STATUS_BUSY, key,
                            "%s: %s is taken by another program\n"
                            "stop it (ss -ltnp names it), or choose another port",
                            key, name);
    } else {
        const char *why = strrchr(err.text, ':'); /* not the address before it */
        HG_DOCTOR_FAIL_NOTE(d, status, key, "%s: %s cannot be bound%s\n%s", key, name,
                            why ? why : "",
                            a.port < 1024 && a.port != 0
                                ? "ports below 1024 need CAP_NET_BIND_SERVICE, or root; 8080 "
                                  "behind nginx needs neither"
                                : "the address must be one of this machine's own (ip addr)");
    }
    hg_out_string(d->o, key, state);
}

void hg_doctor_network(struct hg_doctor *d)
{
    d->area = "network";
    hg_out_open(d->o, "network", '{');
    one_port(d, "listen", d->config.listen);
    one_port(d, "ops_listen", d->config.ops_listen);
    hg_out_close(d->o, '}');
}
