/* server/engine/request.h - one request: what was asked, its state, its events, its result.
 *
 * NEW -> QUEUED -> RUNNING -> DONE | FAILED | CANCELLED. Two owners hold a reference: the reader (a
 * connection, or the command line) and, once submitted, the scheduler. The engine writes `result`
 * and then pushes END; a reader touches it only after it has seen END. */
#ifndef HG_SERVER_REQUEST_H
#define HG_SERVER_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/image_io.h"
#include "common/status.h"
#include "model/healthgpt.h"
#include "server/engine/ledger.h"
#include "server/engine/policy.h"
#include "server/engine/stop.h"
#include "server/engine/stream.h"
#include "server/ops/audit.h"

enum {
    HG_REQUEST_MAX_IMAGES = 4,
    HG_REQUEST_MAX_TURNS = 32,
    HG_REQUEST_MAX_CHOICES = 4,
    HG_REQUEST_MAX_PREVIEWS = 8,
    HG_REQUEST_MAX_PREFILLS = 16 /* reports of a prompt's progress, beside the first */
};

/* The language a body is in: which fields there are (server/api/api_fields.h). */
enum hg_dialect {
    HG_DIALECT_VQA, /* our own routes: an unknown field is an error */
    HG_DIALECT_DRAW,
    HG_DIALECT_CHAT, /* OpenAI's: clients send fields that their server may ignore */
    HG_DIALECT_COMPLETION,
    HG_DIALECT_IMAGES,
    HG_DIALECT_EDITS,
    HG_DIALECT_COUNT
};

/* One exchange of a chat, in UTF-8. */
struct hg_ask_turn {
    char *question, *answer; /* answer NULL: the last turn, to be answered */
    size_t n_question, n_answer;
    int n_images; /* of hg_ask.images, in front of the question */
};

/* What a client asked for, parsed and bounded; owns its strings and images. A zeroed struct is
 * empty. */
struct hg_body;
struct hg_ask {
    enum hg_dialect dialect;
    enum hg_task task;
    char *question, *system; /* system NULL: the model's own */
    size_t n_question;
    struct hg_ask_turn *turns; /* [n_turns] of a chat, then `question` is not used; else NULL */
    size_t n_turns;
    size_t n_text; /* bytes of all texts so far */
    struct hg_image images[HG_REQUEST_MAX_IMAGES];
    size_t n_images;
    struct hg_sampling sampling;
    bool has_temperature, has_seed;
    struct hg_stop_strings stop;
    int n_choices;          /* answers wanted, 1..HG_REQUEST_MAX_CHOICES */
    char model[96];         /* that was named, "": none was (hg_api_choose_model) */
    char image_size[16];    /* "": not said */
    bool wants_logprobs;    /* of the tokens, in a chat or completion */
    bool wants_usage;       /* stream_options.include_usage */
    bool wants_obfuscation; /* stream_options.include_obfuscation */
    bool strict;            /* refuse fields that are not known, whatever the dialect */
    int timeout_ms;         /* 0: the server's limit */
    int previews; /* of a picture that is streamed while it grows, 0..HG_REQUEST_MAX_PREVIEWS */
    bool stream, no_plugin;
    const struct hg_body *body;   /* while it is parsed: where its pictures are; else NULL */
    struct hg_tenant tenant;      /* not the client's to say: of its API key */
    const struct hg_audit *audit; /* whose fingerprints are taken of what is asked; NULL: none */
    char subject[129];            /* of the audit log, as the client wrote it; "": none */
};
void hg_ask_init(struct hg_ask *a, enum hg_task task); /* in our own dialect */
void hg_ask_init_dialect(struct hg_ask *a, enum hg_dialect d);
void hg_ask_deinit(struct hg_ask *a);

enum hg_request_state {
    HG_REQUEST_NEW,
    HG_REQUEST_QUEUED,
    HG_REQUEST_RUNNING,
    HG_REQUEST_DONE,
    HG_REQUEST_FAILED,
    HG_REQUEST_CANCELLED
};

struct hg_result {
    struct hg_error error; /* status OK unless FAILED or CANCELLED */
    enum hg_finish finish;
    int n_prompt, n_generated;
    int n_found;           /* of the prompt: in the cache already */
    struct hg_image image; /* image task */
    int32_t *codes;        /* [n_codes] its VQGAN codes */
    size_t n_codes;
    double queue_ms, first_token_ms, total_ms; /* from submission; first token 0 without one */
};

struct hg_request {
    struct hg_job job; /* the queue's */
    struct hg_tenant tenant;
    atomic_int n_refs;
    atomic_int state;      /* enum hg_request_state */
    atomic_bool cancelled; /* set by the reader, read by the engine between steps */
    uint64_t number;       /* for logs and replies */
    enum hg_task task;
    struct hg_audit_input fingerprints;
    struct hg_sampling sampling;
    struct hg_stop_strings stop;
    struct hg_prepared *prepared; /* until a sequence takes it */
    bool no_plugin;
    bool streams; /* its answer begins when it is accepted */
    int n_prompt, max_tokens, n_images;
    struct hg_image_transform transform[HG_REQUEST_MAX_IMAGES]; /* [n_images] */
    int n_previews;                                             /* wanted */
    int position;       /* in the queue when it was submitted, of both classes, from 1 on */
    int64_t timeout_ms; /* wanted, 0: the server's; from submission the one that holds */
    int64_t submitted_ns, deadline_ns; /* set by the scheduler */
    struct hg_ledger_entry entry;      /* the scheduler's */
    struct hg_stream stream;
    struct hg_result result;
};

/* Fill in what the client left open, then tokenise and preprocess (hg_model_prepare). Defaults:
 * answers and images drawn from an image are greedy; an image drawn from text alone is sampled at
 * temperature 0.9, because greedy drawing knows one picture per prompt; a task whose card has a
 * temperature takes that. A seed that was not given
 * is random and is reported back. `ask` may be released afterwards. */
enum hg_status hg_request_create(const struct hg_model *m, const struct hg_ask *ask,
                                 struct hg_request **out, struct hg_error *err);
/* ask->n_choices of them, choice i with seed + i; none when one fails. The prompt is made ready
 * once for all. */
enum hg_status hg_request_create_choices(const struct hg_model *m, struct hg_ask *ask,
                                         struct hg_request **out, struct hg_error *err);
void hg_request_ref(struct hg_request *r);
void hg_request_unref(struct hg_request *r); /* NULL is fine */
void hg_request_cancel(struct hg_request *r);

/* [engine] Set the state that belongs to result.error and push END. */
void hg_request_end(struct hg_request *r);

#endif
