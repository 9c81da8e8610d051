/* server/api/openapi.h - GET /openapi.json: the API as OpenAPI 3.1, out of the tables that serve
 * it.
 *
 * Paths come from server/http/routes.h, requests from server/api/api_fields.h with their types and
 * bounds; what answers look like is in server/api/openapi_schemas.json, and
 * tests/e2e/check_openapi.py holds the daemon's answers against it. */
#ifndef HG_SERVER_OPENAPI_H
#define HG_SERVER_OPENAPI_H

#include "common/buf.h"
#include "model/healthgpt.h"

enum hg_status hg_openapi_write(const struct hg_model_info *info, struct hg_buf *out);

#endif
