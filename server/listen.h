/* server/listen.h - "ADDR:PORT" to a bound socket.
 *
 * Binding is apart from serving, so that a port in use is known before a model is loaded; nobody
 * can connect until hg_http_start() begins to listen. */
#ifndef HG_SERVER_LISTEN_H
#define HG_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { HG_LISTEN_ADDR_CAP = 64 };

struct hg_listen_address {
    char addr[HG_LISTEN_ADDR_CAP]; /* numeric; an IPv6 address has no brackets here */
    uint16_t port;                 /* 0: any free one */
};

/* "127.0.0.1:8080", "[::1]:0", "localhost:80". */
enum hg_status hg_listen_parse(const char *s, struct hg_listen_address *out, struct hg_error *err);
bool hg_listen_is_loopback(const struct hg_listen_address *a);

/* A bound TCP socket; a->port becomes the real port. BUSY: in use. IO: any other reason. */
enum hg_status hg_listen_bind(struct hg_listen_address *a, int *fd, struct hg_error *err);

/* The listening socket that systemd or our supervisor has handed over (LISTEN_PID, LISTEN_FDS of
 * sd_listen_fds(3)); *fd -1: none was. BAD_REQUEST: several, or no listening TCP socket. Takes the
 * variables out of the environment: before there are threads. */
enum hg_status hg_listen_inherit(struct hg_listen_address *a, int *fd, struct hg_error *err);

/* "http://127.0.0.1:8080" */
void hg_listen_url(const struct hg_listen_address *a, char out[HG_LISTEN_ADDR_CAP + 24]);

#endif
