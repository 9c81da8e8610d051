/* server/http/cors.h - which pages of other sites may ask (the Fetch standard's CORS protocol): a
 * viewer that shows a study and asks us about it. Nobody may unless the operator lists their
 * origins.
 *
 * Credentials are not allowed: the API key comes in Authorization, set by the page. */
#ifndef HG_SERVER_CORS_H
#define HG_SERVER_CORS_H

#include <stdbool.h>

#include "common/status.h"

/* "https://viewer.example,http://localhost:3000": scheme, host, port if it is not the usual one.
 * BAD_REQUEST names the first that is no origin ("*" is none: list who may ask). */
enum hg_status hg_cors_check(const char *list, struct hg_error *err);
bool hg_cors_allows(const char *list, const char *origin); /* both may be NULL */

#endif
