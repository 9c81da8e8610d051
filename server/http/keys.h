/* server/http/keys.h - API keys: a JSON file of SHA-256 digests, reloaded while requests run.
 *
 *     {"keys": [{"name": "clinic-a", "sha256": "<64 hex digits>", "role": "user", "weight": 2,
 *                "max_queued": 16, "max_running": 8, "requests_per_minute": 60, "burst": 20,
 *                "tokens_per_minute": 100000}]}
 *
 * All but name and sha256 may be left out (burst is then a third of a minute's); // comments are
 * allowed. Roles: "user" may do
 * everything, "reader" only GET. The key itself is nowhere but with its client: it is hashed as it
 * comes in and compared with every digest of the file, each to its last byte, so that time tells
 * nothing. Every key is a tenant, whose id comes from the digest and so outlives a reload.
 * Thread-safe. */
#ifndef HG_SERVER_KEYS_H
#define HG_SERVER_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"
#include "server/engine/tenant.h"

enum { HG_KEYS_MAX = 1024 };

struct hg_keys;

/* `path` is read again by every reload. BAD_FILE names the entry and what is wrong with it. */
enum hg_status hg_keys_create(const char *path, struct hg_keys **out, struct hg_error *err);
void hg_keys_free(struct hg_keys *k); /* NULL is fine */
/* All or nothing: after a failure the keys are what they were. */
enum hg_status hg_keys_reload(struct hg_keys *k, struct hg_error *err);
size_t hg_keys_count(struct hg_keys *k);

enum hg_keys_verdict { HG_KEYS_OK, HG_KEYS_MISSING, HG_KEYS_UNKNOWN, HG_KEYS_FORBIDDEN };

/* The value of an Authorization header (NULL: there was none): "Bearer <key>". `reads_only`: what
 * is asked for is a GET. *who is filled with OK. */
enum hg_keys_verdict hg_keys_check(struct hg_keys *k, const char *authorization, bool reads_only,
                                   struct hg_tenant *who);

/* A fresh key (256 random bits, "hg-" and base64url) and its line for the file, as `healthgptd
 * keygen NAME` prints them. BAD_REQUEST: a name that the file could not hold. */
enum hg_status hg_keys_generate(const char *name, struct hg_buf *out, struct hg_error *err);

#endif
