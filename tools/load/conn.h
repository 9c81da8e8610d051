/* tools/load/conn.h - one client connection: a non-blocking socket, bytes out, an answer in.
 *
 * A connection that the server keeps open may be used again; when it turns out to have been closed
 * meanwhile, before a byte of the answer came, the caller opens a new one and sends again. */
#ifndef HG_TOOLS_LOAD_CONN_H
#define HG_TOOLS_LOAD_CONN_H

#include <stdbool.h>
#include <sys/socket.h>

#include "common/buf.h"
#include "common/status.h"
#include "tools/load/http_reader.h"

enum hg_conn_state { HG_CONN_CLOSED, HG_CONN_SENDING, HG_CONN_READING };

struct hg_conn {
    int fd;
    enum hg_conn_state state;
    bool used_before;
    struct hg_buf out; /* the request */
    size_t sent;
    struct hg_http_reader reader;
    struct hg_buf body; /* of the answer, from `at` on not yet taken */
    size_t at;
};

/* "host:port", "[::1]:8080", "http://host:port" -> an address. BAD_REQUEST. */
enum hg_status hg_conn_resolve(const char *url, struct sockaddr_storage *out, socklen_t *len,
                               struct hg_error *err);

/* Begin to connect; `slow` keeps the receive buffer small, so that the server notices. */
enum hg_status hg_conn_open(struct hg_conn *c, const struct sockaddr_storage *to, socklen_t len,
                            bool slow, struct hg_error *err);
void hg_conn_close(struct hg_conn *c, bool reset); /* keeps the memory; reset: by RST */
void hg_conn_deinit(struct hg_conn *c);

/* Send what is left of `out`; READING when all is sent. IO: the connection is lost. */
enum hg_status hg_conn_send(struct hg_conn *c, struct hg_error *err);
/* Read at most `most` bytes of what is there. *ended: the server has closed (the answer may be
 * complete nevertheless: reader.state). */
enum hg_status hg_conn_receive(struct hg_conn *c, size_t most, bool *ended, struct hg_error *err);
/* Next complete line of the body, without its LF; valid until the next receive. */
bool hg_conn_line(struct hg_conn *c, const char **line, size_t *n);

#endif
