/* server/api/api.h - bodies in, JSON out. Knows no HTTP objects and no model. Pure but for memory.
 *
 * One table lists every field of every dialect with type and bounds; JSON and form bodies both go
 * through it, and only the validated struct hg_ask leaves. In our own dialects an unknown field is
 * an error that names it: a misspelt "temprature" must not be ignored in silence. OpenAI's clients
 * send fields that a server may not know: there it is ignored, unless ask->strict. */
#ifndef HG_SERVER_API_H
#define HG_SERVER_API_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"
#include "server/engine/request.h"

enum { HG_API_MAX_BODY = 24 << 20, HG_API_MAX_IMAGE_BYTES = 16 << 20, HG_API_MAX_TEXT = 256 << 10 };

/* What a client is told. `code` is stable and made for programs; `param` names the field, or "". */
struct hg_api_error {
    enum hg_status status;
    int http;
    char code[48], param[64];
    char text[320];
};

/* From a status and text of a lower layer, with the code that belongs to the status. */
void hg_api_error_of(struct hg_api_error *e, const struct hg_error *err);
void hg_api_error_set(struct hg_api_error *e, int http, const char *code, const char *text);

/* {"error":{"message","type","code","param"}} */
enum hg_status hg_api_write_error(const struct hg_api_error *e, struct hg_buf *out);
struct hg_json_out;
void hg_api_put_error(struct hg_json_out *o, const struct hg_api_error *e); /* "error":{...} */

/* A body (server/api/body.h, ended) into `ask` (initialised with hg_ask_init; release it in any
 * case). Images are decoded. Returns false and fills *e when something is wrong. */
struct hg_body;
bool hg_api_parse_json(const struct hg_body *body, struct hg_ask *ask, struct hg_api_error *e);
bool hg_api_parse_form(const struct hg_body *body, struct hg_ask *ask, struct hg_api_error *e);
/* An already parsed object with other keys of its own (the command line's batch): keys in the
 * NULL-terminated list `skip` are left alone. */
bool hg_api_parse_object(const void *json_object, const char *const *skip, struct hg_ask *ask,
                         struct hg_api_error *e);

/* The model that was named against the one that is served, `name`: "NAME", or "NAME:<task>", which
 * sets the task. 404 model_not_found; 400 for a task that the route does not have. */
bool hg_api_choose_model(struct hg_ask *ask, const char *name, struct hg_api_error *e);

#endif
