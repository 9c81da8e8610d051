/* server/http/page.h - the web page of GET /: one document of at most 40,000 bytes with nothing
 * outside it. Made from server/page/ at build time by tools/build/page.py. */
#ifndef HG_SERVER_PAGE_H
#define HG_SERVER_PAGE_H

#include <stddef.h>

struct hg_page {
    const unsigned char *html; /* UTF-8 */
    size_t n;
    const char
        *policy; /* Content-Security-Policy: only its own script and style, by their hashes */
};

extern const struct hg_page hg_page;

#endif
