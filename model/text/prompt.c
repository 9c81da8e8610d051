/* A template is four strings around the texts (reference.md 9.1): system_open SYSTEM end, then for
 * every turn user QUESTION end assistant, then ANSWER end where there is an answer.
 *
 * An empty question or answer leaves out its own `end` too, as the reference's composition does. */
#include "model/text/prompt.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONTROLS = 4 };

struct chat {
    const char *name, *system, *system_open, *user, *assistant, *end;
    const char *controls[MAX_CONTROLS]; /* the added tokens in the four strings */
};

static const struct chat templates[] = {
    {.name = "phi3_instruct",
     .system = "You are a helpful AI assistant.",
     .system_open = "<|system|>\n",
     .user = "\n<|user|>\n",
     .assistant = "\n<|assistant|>\n",
     .end = "<|end|>",
     .controls = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}},
    {.name = "phi4_instruct",
     .system = "You are a medieval knight and must provide explanations to modern people.",
     .system_open = "<|im_start|>system<|im_sep|>\n",
     .user = "\n<|im_start|>user<|im_sep|>\n",
     .assistant = "\n<|im_start|>assistant<|im_sep|>\n",
     .end = "<|im_end|>",
     .controls = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}},
    {.name = "qwen_2",
     .system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     .system_open = "<|im_start|>system\n",
     .user = "\n<|im_start|>user\n",
     .assistant = "\n<|im_start|>assistant\n",
     .end = "<|im_end|>",
     .controls = {"<|im_start|>", "<|im_end|>"}},
};

static const struct chat *find_template(const char *name)
{
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++)
        if (name && !strcmp(name, templates[i].name))
            return &templates[i];
    return NULL;
}

enum hg_status hg_prompt_template_check(const char *name, struct hg_error *err)
{
    if (find_template(name))
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_UNSUPPORTED,
                   "prompt: unknown template '%.60s', expected phi3_instruct, phi4_instruct or "
                   "qwen_2",
                   name ? name : "(none)");
}

const char *hg_prompt_template_system(const char *name)
{
    const struct chat *chat = find_template(name);
    return chat ? chat->system : NULL;
}

/* ---- composing ---- */

struct composer {
    const struct hg_tokenizer *t;
    struct hg_ids *ids;
    struct hg_text_part *parts; /* of the chunk that is being written */
    size_t n, cap, n_chunks;
};

static enum hg_status put(struct composer *c, const char *text, size_t n, bool trusted)
{
    if (n == 0)
        return HG_STATUS_OK;
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 16;
        struct hg_text_part *parts = realloc(c->parts, cap * sizeof *parts);
        if (!parts)
            return HG_STATUS_NO_MEMORY;
        c->parts = parts;
        c->cap = cap;
    }
    c->parts[c->n++] = (struct hg_text_part){text, n, trusted};
    return HG_STATUS_OK;
}

static enum hg_status put_template(struct composer *c, const char *text)
{
    return put(c, text, strlen(text), true);
}

/* Every chunk is tokenised with BOS; only the first one keeps it. */
static enum hg_status end_chunk(struct composer *c, struct hg_error *err)
{
    size_t at = c->ids->n;
    int32_t bos = hg_tokenizer_bos(c->t);
    HG_TRY(hg_tokenizer_encode(c->t, c->parts, c->n, c->ids, err));
    if (c->n_chunks++ > 0 && bos >= 0 && at < c->ids->n && c->ids->data[at] == bos) {
        c->ids->n--;
        memmove(c->ids->data + at, c->ids->data + at + 1, (c->ids->n - at) * sizeof *c->ids->data);
    }
    c->n = 0;
    return HG_STATUS_OK;
}

static enum hg_status put_images(struct composer *c, int n_images, struct hg_error *err)
{
    for (int i = 0; i < n_images; i++) {
        HG_TRY(end_chunk(c, err));
        HG_TRY(hg_ids_push(c->ids, HG_IMAGE_ID));
        HG_TRY(put_template(c, "\n"));
    }
    return HG_STATUS_OK;
}

static enum hg_status put_turn(struct composer *c, const struct chat *chat,
                               const struct hg_turn *turn, bool trusted, struct hg_error *err)
{
    HG_TRY(put_template(c, chat->user));
    HG_TRY(put_images(c, turn->n_images, err));
    HG_TRY(put(c, turn->question, turn->n_question, trusted));
    if (turn->n_question > 0 || turn->n_images > 0)
        HG_TRY(put_template(c, chat->end));
    HG_TRY(put_template(c, chat->assistant));
    if (!turn->answer || turn->n_answer == 0)
        return HG_STATUS_OK;
    HG_TRY(put(c, turn->answer, turn->n_answer, trusted));
    return put_template(c, chat->end);
}

static enum hg_status compose(struct composer *c, const struct chat *chat,
                              const struct hg_prompt_spec *spec, struct hg_error *err)
{
    const char *system = spec->system ? spec->system : chat->system;
    HG_TRY(put_template(c, chat->system_open));
    HG_TRY(put(c, system, strlen(system), spec->parse_special));
    HG_TRY(put_template(c, chat->end));
    for (size_t i = 0; i < spec->n_turns; i++)
        HG_TRY(put_turn(c, chat, &spec->turns[i], spec->parse_special, err));
    if (spec->start_image)
        HG_TRY(put_template(c, "<start_index>"));
    return end_chunk(c, err);
}

static enum hg_status check_turns(const struct hg_prompt_spec *spec, struct hg_error *err)
{
    if (spec->n_turns == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "prompt: no turn");
    for (size_t i = 0; i < spec->n_turns; i++) {
        const struct hg_turn *turn = &spec->turns[i];
        bool last = i + 1 == spec->n_turns;
        if (turn->n_images < 0 || last != !turn->answer)
            return hg_fail(
                err, HG_STATUS_BAD_REQUEST,
                "prompt: turn %zu: %d images, %s answer; every turn but the last has one", i,
                turn->n_images, turn->answer ? "an" : "no");
    }
    return HG_STATUS_OK;
}

static bool has_control(const struct hg_tokenizer *t, const char *token)
{
    return hg_tokenizer_is_added(t, hg_tokenizer_id(t, token));
}

enum hg_status hg_prompt_controls_check(const struct hg_tokenizer *t, const char *template_name,
                                        bool start_image, struct hg_error *err)
{
    const struct chat *chat = find_template(template_name);
    if (!chat)
        return hg_prompt_template_check(template_name, err);
    for (int i = 0; i < MAX_CONTROLS && chat->controls[i]; i++)
        if (!has_control(t, chat->controls[i]))
            return hg_fail(err, HG_STATUS_UNSUPPORTED,
                           "prompt: template %s needs the token %s, which the tokenizer lacks",
                           chat->name, chat->controls[i]);
    if (start_image && !has_control(t, "<start_index>"))
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "prompt: the tokenizer has no <start_index>: this model draws no images");
    return HG_STATUS_OK;
}

enum hg_status hg_prompt_encode(const struct hg_tokenizer *t, const struct hg_prompt_spec *spec,
                                struct hg_ids *ids, struct hg_error *err)
{
    const struct chat *chat = find_template(spec->template_name);
    HG_TRY(hg_prompt_template_check(spec->template_name, err));
    HG_TRY(check_turns(spec, err));
    HG_TRY(hg_prompt_controls_check(t, spec->template_name, spec->start_image, err));
    struct composer c = {.t = t, .ids = ids};
    size_t n_before = ids->n;
    enum hg_status status = compose(&c, chat, spec, err);
    free(c.parts);
    if (status != HG_STATUS_OK)
        ids->n = n_before;
    if (status == HG_STATUS_NO_MEMORY)
        return hg_fail(err, status, "prompt: no memory");
    return status;
}
