/* model/text/prompt.h - chat templates, byte-exact (reference.md 9.1, 9.2).
 *
 * The rendered prompt is split at each image place; every chunk is tokenised on its own and the
 * images stand between them as HG_IMAGE_ID. "<image>" typed by a user is plain text. */
#ifndef HG_MODEL_TEXT_PROMPT_H
#define HG_MODEL_TEXT_PROMPT_H

#include "model/text/tokenizer.h"

enum { HG_IMAGE_ID = -200 };

struct hg_turn { /* one exchange; the last one has answer == NULL */
    const char *question;
    size_t n_question;
    int n_images;       /* images in front of the question */
    const char *answer; /* earlier assistant text, or NULL */
    size_t n_answer;
};

struct hg_prompt_spec {
    const char *template_name; /* "phi3_instruct", "phi4_instruct", "qwen_2" */
    const char *system;        /* NULL: the template's own system text */
    const struct hg_turn *turns;
    size_t n_turns;
    bool start_image;   /* generation: append <start_index> */
    bool parse_special; /* treat user text as trusted (parity experiments only) */
};

/* UNSUPPORTED, naming the known ones, when there is no such template. */
enum hg_status hg_prompt_template_check(const char *name, struct hg_error *err);
/* UNSUPPORTED when the tokenizer lacks a control token of the template, which would silently become
 * plain text, or (start_image) <start_index>. The template is a known one. */
enum hg_status hg_prompt_controls_check(const struct hg_tokenizer *t, const char *template_name,
                                        bool start_image, struct hg_error *err);
const char *hg_prompt_template_system(const char *name); /* the default system text */

enum hg_status hg_prompt_encode(const struct hg_tokenizer *t, const struct hg_prompt_spec *spec,
                                struct hg_ids *ids, struct hg_error *err);

#endif
