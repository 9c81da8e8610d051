/* server/http/cors.c - a list of origins, compared whole. */
#include "server/http/cors.h"

#include <string.h>
#include <strings.h>

/* The next of the list into *s, *n; false at its end. */
static bool next(const char **list, const char **s, size_t *n)
{
    *list += strspn(*list, ", ");
    *s = *list;
    *n = strcspn(*list, ", ");
    *list += *n;
    return *n > 0;
}

/* scheme://host[:port], and nothing behind. */
static bool is_origin(const char *s, size_t n)
{
    size_t at = n > 8 && strncasecmp(s, "https://", 8) == 0  ? 8
                : n > 7 && strncasecmp(s, "http://", 7) == 0 ? 7
                                                             : n;
    for (size_t i = at; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || strchr("/?#@*\\\"<>", s[i]))
            return false;
    return at < n && s[at] != ':';
}

enum hg_status hg_cors_check(const char *list, struct hg_error *err)
{
    const char *s;
    size_t n;
    while (next(&list, &s, &n))
        if (!is_origin(s, n))
            return hg_fail(err, HG_STATUS_BAD_REQUEST,
                           "cors_origins: expected origins as https://viewer.example[:port], got "
                           "\"%.*s\"",
                           n < 64 ? (int)n : 64, s);
    return HG_STATUS_OK;
}

bool hg_cors_allows(const char *list, const char *origin)
{
    const char *s;
    size_t n;
    if (!list || !origin)
        return false;
    while (next(&list, &s, &n))
        if (strncasecmp(s, origin, n) == 0 && origin[n] == '\0')
            return true;
    return false;
}
