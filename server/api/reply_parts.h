/* server/api/reply_parts.h - pieces of JSON that several dialects share (inside server/api/reply*.c
 * only).
 */
#ifndef HG_SERVER_REPLY_PARTS_H
#define HG_SERVER_REPLY_PARTS_H

#include "server/api/reply.h"

enum hg_status hg_out_status(const struct hg_json_out *o); /* NO_MEMORY when a write failed */
#define HG_SSE_TYPE "text/event-stream; charset=utf-8"
struct hg_answer;
/* A comment at once: proxies and clients see that it runs. A chat's role waits for the first token,
 * so that who measures the time to the first chunk measures that. */
enum hg_status hg_sse_open(struct hg_answer *a, struct hg_buf *out);
/* data: {"error":{...}}: why a stream of server-sent events ends before its end. */
enum hg_status hg_sse_error(const struct hg_request *r, struct hg_buf *out);

/* One object on a line of its own: {"type":type ... }\n */
void hg_line_open(struct hg_json_out *o, struct hg_buf *out, const char *type);
enum hg_status hg_line_close(struct hg_json_out *o);

void hg_put_usage(struct hg_json_out *o,
                  const struct hg_request *r); /* "usage": prompt, completion */
void hg_put_timings(struct hg_json_out *o, const struct hg_request *r); /* "timings" */
/* "image_transform": one object per picture of the request, in its order. */
void hg_put_transforms(struct hg_json_out *o, const struct hg_request *r);
/* The members of "healthgpt" that all of OpenAI's dialects have. */
void hg_put_ours(struct hg_json_out *o, const struct hg_reply_context *c,
                 const struct hg_request *r);
/* "b64_json": the PNG, marked. preview: made quickly. */
void hg_put_png(struct hg_json_out *o, const struct hg_reply_context *c, const struct hg_request *r,
                const struct hg_image *im, bool preview);
void hg_put_image_facts(struct hg_json_out *o, const struct hg_image *im); /* output_format, size */

#endif
