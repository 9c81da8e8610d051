/* server/http/http_page.c - GET /: the page. It holds nothing of anybody, so it is sent without a
 * key.
 */
#include <string.h>

#include "server/http/http_exchange.h"
#include "server/http/page.h"

bool hg_http_is_page(const struct hg_http *h, const char *path)
{
    return !h->no_page && strcmp(path, "/") == 0;
}

enum MHD_Result hg_http_answer_page(struct exchange *x)
{
    static const char *const headers[][2] = {
        {"Content-Type", "text/html; charset=utf-8"},
        {"X-Content-Type-Options", "nosniff"},
        {"Cache-Control", "no-store"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"X-Frame-Options", "DENY"}, /* for those that do not know frame-ancestors */
    };
    /* MHD only reads a persistent buffer. */
    struct MHD_Response *r = MHD_create_response_from_buffer(
        hg_page.n, (void *)(uintptr_t)hg_page.html, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_add_response_header(r, "Content-Security-Policy", hg_page.policy);
    for (size_t i = 0; ok == MHD_YES && i < sizeof headers / sizeof headers[0]; i++)
        ok = MHD_add_response_header(r, headers[i][0], headers[i][1]);
    if (ok == MHD_YES) {
        hg_guard_answer(x->guarded, hg_page.n);
        ok = hg_http_queue(x, MHD_HTTP_OK, r);
    }
    MHD_destroy_response(r);
    return ok;
}
