/* server/api/answer.h - the events of a request, or of several that were asked for as one (n
 * choices), as bytes in the dialect of the question. Knows no HTTP objects.
 *
 *   HG_DIALECT_VQA, DRAW    docs/streaming.md: one JSON object per line
 *   CHAT, COMPLETION        OpenAI: chat.completion(.chunk), text_completion, as server-sent events
 *   IMAGES, EDITS           OpenAI: image_generation.* and image_edit.* events
 *
 * Server-sent events here have no id: and no retry: (openai-python fails on a comment after an id);
 * choices are streamed one after the other, each computed at its own pace meanwhile. */
#ifndef HG_SERVER_ANSWER_H
#define HG_SERVER_ANSWER_H

#include "server/api/reply.h"

struct hg_answer {
    const struct hg_reply_context *context;
    enum hg_dialect dialect;
    struct hg_request *requests[HG_REQUEST_MAX_CHOICES]; /* references are the holder's */
    int n_requests;
    bool logprobs, usage, obfuscation; /* as struct hg_ask says */
    char id[48];                       /* "chatcmpl-...", of every chunk */
    int64_t created;                   /* seconds since 1970 */
    /* of a stream: where it is */
    int choice;
    bool began;     /* of this choice something was sent */
    int n_previews; /* of this choice */
};

/* What the events become. Each appends to out; NO_MEMORY is the only failure. `text` and `tops` as
 * hg_stream_read gives them. */
struct hg_answer_form {
    const char *stream_type; /* Content-Type */
    const char *ping;        /* what keeps an idle stream open, NULL: nothing can */
    enum hg_status (*open)(struct hg_answer *a, struct hg_buf *out);
    enum hg_status (*event)(struct hg_answer *a, const struct hg_event *e,
                            const struct hg_buf *text, const struct hg_top_token *tops,
                            struct hg_buf *out);
    /* END of requests[choice] was read: it is done, or failed (then the stream ends here). */
    enum hg_status (*end)(struct hg_answer *a, struct hg_buf *out);
    /* All choices are done; NULL: nothing is said then. */
    enum hg_status (*close)(struct hg_answer *a, struct hg_buf *out);
    /* The answer that is not streamed: all requests are DONE. */
    enum hg_status (*whole)(struct hg_answer *a, struct hg_buf *out);
};
const struct hg_answer_form *hg_answer_form(enum hg_dialect d);

extern const struct hg_answer_form hg_answer_lines, hg_answer_chat, hg_answer_images;

/* From the question; requests are filled in by the caller. */
void hg_answer_init(struct hg_answer *a, const struct hg_reply_context *c,
                    const struct hg_ask *ask);

#endif
