/* server/http/http_raw.c - pointers only: the bytes between two strings are separators. */
#include "server/http/http_raw.h"

#include <string.h>

#include "server/http/http_gate.h"

static bool parses_in_place(void)
{
    return strncmp(MHD_get_version(), "0.", 2) == 0;
}

/* `s` begins at w->at; afterwards w->at is behind it and `n_separators` NULs. */
static void take(struct hg_raw_walk *w, const char *s, size_t n, size_t n_separators)
{
    if (w->broken || s != w->at || (size_t)(w->end - s) < n + n_separators) {
        w->broken = true;
        return;
    }
    for (size_t i = 0; i < n_separators; i++)
        w->broken |= s[n + i] != '\0';
    w->at = s + n + n_separators;
}

void hg_raw_walk_begin(struct hg_raw_walk *w, struct MHD_Connection *connection, const char *method,
                       const struct hg_gate_target *target, const char *version)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    *w = (struct hg_raw_walk){.at = method, .idle = !parses_in_place()};
    w->broken = !info || !target->at;
    if (w->idle || w->broken)
        return;
    w->end = method + info->header_size;
    take(w, method, strlen(method), 1);
    /* Decoding makes the target shorter, and "?" and "&" are NULs by now. */
    if (!w->broken && (target->at != w->at || (size_t)(w->end - w->at) <= target->n))
        w->broken = true;
    if (!w->broken)
        w->at += target->n + 1;
    take(w, version, strlen(version), 2);
}

void hg_raw_walk_header(struct hg_raw_walk *w, const char *key, const char *value)
{
    if (w->idle)
        return;
    take(w, key, strlen(key), 1);
    while (!w->broken && w->at < w->end && (*w->at == ' ' || *w->at == '\t'))
        w->at++;
    take(w, value, strlen(value), 2);
}

bool hg_raw_walk_ends(const struct hg_raw_walk *w)
{
    /* The empty line: its CR and LF. */
    return w->idle || (!w->broken && w->end - w->at == 2 && w->at[0] == '\0' && w->at[1] == '\0');
}
