/* server/api/reply.h - results and events as JSON. Knows no HTTP objects.
 *
 * A stream is one JSON object per line: {"type":"queued"}, "prefill", "token", "progress",
 * "preview", "image", then "done" or "error": docs/streaming.md. A plain answer is one object. All
 * functions append to out; NO_MEMORY is their only failure. */
#ifndef HG_SERVER_REPLY_H
#define HG_SERVER_REPLY_H

#include "common/buf.h"
#include "common/image_io.h"
#include "server/api/api.h"
#include "server/api/synthetic.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/http/guard.h"
#include "server/json_text.h"

struct hg_reply_context {
    const char *model, *notice;
    const struct hg_tokenizer *tokenizer; /* names of alternatives */
    uint32_t weights_crc32c;              /* hg_model_info */
    int n_restarts;                       /* of the process, by its supervisor */
    char fingerprint[48]; /* of what computes: "fp_<CRC-32C of the weights>_<backend>" */
    int n_image_rows;     /* prompt tokens of an image */
};

const char *hg_finish_name(enum hg_finish f); /* "stop", "length" */

/* What every picture of a request says of itself. */
struct hg_synthetic hg_reply_mark(const struct hg_reply_context *c, const struct hg_request *r);

/* What a client is told of a request that failed or was cancelled. Who reads that it was cancelled
 * because the client has left has closed half of the connection: 499, client_closed. */
void hg_reply_error_of(const struct hg_request *r, struct hg_api_error *e);

enum hg_status hg_reply_queued(const struct hg_request *r, struct hg_buf *out);
/* One line for any event but END. */
enum hg_status hg_reply_event(const struct hg_reply_context *c, const struct hg_request *r,
                              const struct hg_event *e, const struct hg_buf *text,
                              const struct hg_top_token *tops, struct hg_buf *out);
/* The last lines of a stream whose END was read: "image" when there is one, then "done" or "error".
 */
enum hg_status hg_reply_end(const struct hg_reply_context *c, const struct hg_request *r,
                            struct hg_buf *out);

/* The whole answer of a request that is DONE. */
enum hg_status hg_reply_answer(const struct hg_reply_context *c, struct hg_request *r,
                               struct hg_buf *out);

/* The documents of GET /health and GET /v1/models, each with a newline. */
enum hg_status hg_reply_health(const struct hg_reply_context *c, const struct hg_model_info *info,
                               const struct hg_scheduler_stats *stats,
                               const struct hg_guard_stats *guard, int max_queue, const char *state,
                               struct hg_buf *out);
enum hg_status hg_reply_models(const struct hg_reply_context *c, const struct hg_model_info *info,
                               struct hg_buf *out);
/* GET /v1/models/{id}; NOT_FOUND: no such model, nothing is appended. */
enum hg_status hg_reply_model(const struct hg_reply_context *c, const struct hg_model_info *info,
                              const char *id, struct hg_buf *out);
/* GET /v1/models/{id}/card: what the model is, what it is for, what it is not for. */
enum hg_status hg_reply_card(const struct hg_reply_context *c, const struct hg_model_info *info,
                             const char *id, struct hg_buf *out);

/* [{"id":..,"token":"..","logprob":..},...] under `key`; also used by the command line. */
void hg_reply_tops(struct hg_json_out *o, const char *key, const struct hg_tokenizer *t,
                   const struct hg_top_token *tops, int n);

#endif
