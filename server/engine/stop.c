/* server/engine/stop.c - byte by byte: the longest end of the text that begins a stop string is
 * held. */
#include "server/engine/stop.h"

#include <string.h>

/* Length of the longest stop string that ends the held bytes, or 0. */
static size_t complete(const struct hg_stop *s)
{
    size_t longest = 0;
    for (int i = 0; i < s->strings->n; i++) {
        size_t k = strlen(s->strings->text[i]);
        if (k > longest && k <= s->n_held &&
            memcmp(s->held + s->n_held - k, s->strings->text[i], k) == 0)
            longest = k;
    }
    return longest;
}

static bool begins_one(const struct hg_stop *s, const char *text, size_t n)
{
    for (int i = 0; i < s->strings->n; i++)
        if (strncmp(s->strings->text[i], text, n) == 0)
            return true;
    return false;
}

static enum hg_status release(struct hg_stop *s, size_t n, struct hg_buf *out)
{
    HG_TRY(n ? hg_buf_append(out, s->held, n) : HG_STATUS_OK);
    s->n_held -= n;
    memmove(s->held, s->held + n, s->n_held);
    return HG_STATUS_OK;
}

enum hg_status hg_stop_push(struct hg_stop *s, const char *text, size_t n, struct hg_buf *out,
                            bool *found)
{
    *found = false;
    if (!s->strings || s->strings->n == 0)
        return n ? hg_buf_append(out, text, n) : HG_STATUS_OK;
    for (size_t i = 0; i < n && !*found; i++) {
        /* Held bytes begin a stop string that is longer than they are: there is room. */
        s->held[s->n_held++] = text[i];
        size_t k = complete(s), gone = 0;
        *found = k > 0;
        if (*found)
            gone = s->n_held - k;
        else
            while (gone < s->n_held && !begins_one(s, s->held + gone, s->n_held - gone))
                gone++;
        HG_TRY(release(s, gone, out));
    }
    if (*found)
        s->n_held = 0;
    return HG_STATUS_OK;
}

enum hg_status hg_stop_finish(struct hg_stop *s, struct hg_buf *out)
{
    return release(s, s->n_held, out);
}
