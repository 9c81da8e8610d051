#include "tools/load/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLOW_BUFFER = 4096 };

enum hg_status hg_conn_resolve(const char *url, struct sockaddr_storage *out, socklen_t *len,
                               struct hg_error *err)
{
    char host[256];
    const char *at = strncmp(url, "http://", 7) == 0 ? url + 7 : url;
    size_t n = strcspn(at, "/");
    const char *colon = NULL;
    for (size_t i = 0; i < n; i++)
        colon = at[i] == ':' ? at + i : colon;
    if (!colon || n >= sizeof host || colon == at)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "%.100s: expected host:port", url);
    snprintf(host, sizeof host, "%.*s", (int)n, at);
    char *port = host + (colon - at);
    *port++ = '\0';
    char *name = host;
    if (*name == '[' && name[strlen(name) - 1] == ']') {
        name[strlen(name) - 1] = '\0';
        name++;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(name, port, &hints, &found);
    if (code != 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "%.100s: %s", url, gai_strerror(code));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return HG_STATUS_OK;
}

enum hg_status hg_conn_open(struct hg_conn *c, const struct sockaddr_storage *to, socklen_t len,
                            bool slow, struct hg_error *err)
{
    const int one = 1, small = SLOW_BUFFER;
    c->fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return hg_fail(err, HG_STATUS_IO, "socket: %s", strerror(errno));
    if (slow)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (const struct sockaddr *)to, len) != 0 && errno != EINPROGRESS) {
        hg_fail(err, HG_STATUS_IO, "connect: %s", strerror(errno));
        close(c->fd);
        return HG_STATUS_IO;
    }
    c->state = HG_CONN_SENDING;
    c->used_before = false;
    c->sent = 0;
    return HG_STATUS_OK;
}

void hg_conn_close(struct hg_conn *c, bool reset)
{
    if (c->state == HG_CONN_CLOSED)
        return;
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(c->fd);
    c->state = HG_CONN_CLOSED;
}

void hg_conn_deinit(struct hg_conn *c)
{
    hg_conn_close(c, false);
    hg_buf_deinit(&c->out);
    hg_buf_deinit(&c->body);
    hg_http_reader_deinit(&c->reader);
}

enum hg_status hg_conn_send(struct hg_conn *c, struct hg_error *err)
{
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN))
            return HG_STATUS_OK;
        if (n < 0)
            return hg_fail(err, HG_STATUS_IO, "send: %s", strerror(errno));
        c->sent += (size_t)n;
    }
    c->state = HG_CONN_READING;
    return HG_STATUS_OK;
}

enum hg_status hg_conn_receive(struct hg_conn *c, size_t most, bool *ended, struct hg_error *err)
{
    char piece[64 << 10];
    *ended = false;
    if (c->at == c->body.len) { /* all lines were taken */
        hg_buf_clear(&c->body);
        c->at = 0;
    }
    while (most > 0) {
        size_t want = most < sizeof piece ? most : sizeof piece, used = 0;
        ssize_t n = recv(c->fd, piece, want, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return HG_STATUS_OK;
        if (n < 0)
            return hg_fail(err, HG_STATUS_IO, "receive: %s", strerror(errno));
        if (n == 0) {
            *ended = true;
            return HG_STATUS_OK;
        }
        HG_TRY(hg_http_reader_feed(&c->reader, piece, (size_t)n, &used, &c->body, err));
        if (used < (size_t)n)
            return hg_fail(err, HG_STATUS_BAD_FILE, "HTTP: bytes after the end of the answer");
        if (c->reader.state == HG_HTTP_DONE || (size_t)n < want)
            return HG_STATUS_OK;
        most -= (size_t)n;
    }
    return HG_STATUS_OK;
}

bool hg_conn_line(struct hg_conn *c, const char **line, size_t *n)
{
    if (c->at == c->body.len)
        return false;
    const char *from = c->body.data + c->at, *lf = memchr(from, '\n', c->body.len - c->at);
    if (!lf)
        return false;
    *line = from;
    *n = (size_t)(lf - from);
    c->at += *n + 1;
    return true;
}
