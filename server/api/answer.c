/* server/api/answer.c - which dialect writes how. */
#include "server/api/answer.h"

#include <time.h>

#include "common/rng.h"

const struct hg_answer_form *hg_answer_form(enum hg_dialect d)
{
    switch (d) {
    case HG_DIALECT_CHAT:
    case HG_DIALECT_COMPLETION:
        return &hg_answer_chat;
    case HG_DIALECT_IMAGES:
    case HG_DIALECT_EDITS:
        return &hg_answer_images;
    default:
        return &hg_answer_lines;
    }
}

void hg_answer_init(struct hg_answer *a, const struct hg_reply_context *c, const struct hg_ask *ask)
{
    *a = (struct hg_answer){.context = c,
                            .dialect = ask->dialect,
                            .logprobs = ask->wants_logprobs,
                            .usage = ask->wants_usage,
                            .obfuscation = ask->wants_obfuscation,
                            .created = (int64_t)time(NULL)};
}
