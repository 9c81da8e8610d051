/* server/api/api_fields.c - every field a client may send: type, bounds, where it goes. */
#include "server/api/api_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool hg_api_refuse(struct hg_api_error *e, int http, const char *code, const char *param,
                   const char *format, ...)
{
    *e = (struct hg_api_error){.status = HG_STATUS_BAD_REQUEST, .http = http};
    snprintf(e->code, sizeof e->code, "%s", code);
    snprintf(e->param, sizeof e->param, "%s", param);
    va_list args;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    return false;
}

bool hg_api_refuse_type(struct hg_api_error *e, const char *name, const char *expected)
{
    return hg_api_refuse(e, 400, "invalid_type", name, "%s: expected %s", name, expected);
}

bool hg_api_refuse_memory(struct hg_api_error *e)
{
    struct hg_error err = {0};
    hg_fail(&err, HG_STATUS_NO_MEMORY, "out of memory");
    hg_api_error_of(e, &err);
    return false;
}

static bool refuse_value(struct hg_api_error *e, const char *name, const char *expected)
{
    return hg_api_refuse(e, 400, "unsupported_value", name, "%s: expected %s", name, expected);
}

/* ---- setters --------------------------------------------------------------------------------- */

bool hg_ask_copy_text(struct hg_ask *ask, char **dst, const char *text, size_t n, const char *name,
                      struct hg_api_error *e)
{
    if (n > HG_API_MAX_TEXT || ask->n_text + n > HG_API_MAX_TEXT)
        return hg_api_refuse(e, 413, "text_too_large", name,
                             "%s: %zu bytes of text, at most %d are accepted", name,
                             ask->n_text + n, HG_API_MAX_TEXT);
    if (memchr(text, '\0', n))
        return hg_api_refuse(e, 400, "invalid_value", name, "%s: holds a NUL character", name);
    char *copy = malloc(n + 1);
    if (!copy)
        return hg_api_refuse_memory(e);
    memcpy(copy, text, n);
    copy[n] = '\0';
    free(*dst);
    *dst = copy;
    ask->n_text += n;
    return true;
}

#define SETTER(name)                                                                               \
    static bool name(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
/* Of a value that its bounds have checked. */
#define PLAIN(name, statement)                                                                     \
    SETTER(name)                                                                                   \
    {                                                                                              \
        (void)e;                                                                                   \
        statement;                                                                                 \
        return true;                                                                               \
    }

PLAIN(set_max_tokens, a->sampling.max_tokens = (int)v->integer)
PLAIN(set_temperature, (a->sampling.temperature = (float)v->real, a->has_temperature = true))
PLAIN(set_top_p, a->sampling.top_p = (float)v->real)
PLAIN(set_top_k, a->sampling.top_k = (int)v->integer)
PLAIN(set_penalty, a->sampling.repetition_penalty = (float)v->real)
PLAIN(set_timeout, a->timeout_ms = (int)v->integer)
PLAIN(set_previews, a->previews = (int)v->integer)
PLAIN(set_seed, (a->sampling.seed = (uint64_t)v->integer, a->has_seed = true))
PLAIN(set_top_logprobs, a->sampling.n_top = (int)v->integer)
PLAIN(set_logprobs, a->wants_logprobs = v->flag)
PLAIN(set_logprobs_count, (a->sampling.n_top = (int)v->integer, a->wants_logprobs = true))
PLAIN(set_stream, a->stream = v->flag)
PLAIN(set_usage, a->wants_usage = v->flag)
PLAIN(set_obfuscation, a->wants_obfuscation = v->flag)
PLAIN(set_choices, a->n_choices = (int)v->integer)

static const char *name_of_question(const struct hg_ask *a)
{
    return a->dialect == HG_DIALECT_VQA ? "question" : "prompt";
}

SETTER(set_question)
{
    if (a->question) /* one prompt, however it is wrapped */
        return refuse_value(e, name_of_question(a), "one text");
    a->n_question = v->n;
    return hg_ask_copy_text(a, &a->question, v->text, v->n, name_of_question(a), e);
}

SETTER(set_system)
{
    return hg_ask_copy_text(a, &a->system, v->text, v->n, "system", e);
}

SETTER(set_stop)
{
    struct hg_stop_strings *s = &a->stop;
    if (s->n == HG_STOP_MAX)
        return hg_api_refuse(e, 400, "invalid_value", "stop", "stop: expected at most %d strings",
                             HG_STOP_MAX);
    if (v->n == 0 || v->n >= HG_STOP_CAP || memchr(v->text, '\0', v->n))
        return hg_api_refuse(e, 400, "invalid_value", "stop",
                             "stop: expected strings of 1..%d bytes", HG_STOP_CAP - 1);
    memcpy(s->text[s->n], v->text, v->n);
    s->text[s->n++][v->n] = '\0';
    return true;
}

static bool is(const struct hg_field_value *v, const char *text)
{
    return v->n == strlen(text) && memcmp(v->text, text, v->n) == 0;
}

/* A picture is drawn or a question answered, not both: who asks for pictures wants one. */
SETTER(set_modality)
{
    if (is(v, "image"))
        a->task = HG_TASK_GENERATION;
    return is(v, "image") || is(v, "text") ||
           refuse_value(e, "modalities", "\"text\" or \"image\"");
}

SETTER(set_plugin)
{
    if (is(v, "none"))
        a->no_plugin = true;
    else if (is(v, "generation"))
        a->task = HG_TASK_GENERATION;
    else if (!is(v, "comprehension"))
        return refuse_value(e, "healthgpt.plugin", "\"comprehension\", \"generation\" or \"none\"");
    return true;
}

/* Printable, without spaces: it may be shown in an error. */
SETTER(set_model)
{
    if (v->n >= sizeof a->model)
        return hg_api_refuse(e, 404, "model_not_found", "model", "model: no such model");
    for (size_t i = 0; i < v->n; i++)
        if ((unsigned char)v->text[i] <= ' ' || (unsigned char)v->text[i] >= 0x7f)
            return hg_api_refuse(e, 404, "model_not_found", "model", "model: no such model");
    memcpy(a->model, v->text, v->n);
    a->model[v->n] = '\0';
    return true;
}

/* Opaque, and only held against others: a longer one is cut. */
PLAIN(set_subject, snprintf(a->subject, sizeof a->subject, "%.*s", (int)v->n, v->text))

SETTER(set_size)
{
    bool good = v->n < sizeof a->image_size;
    size_t n = 0, w = 0;
    if (good && !is(v, "auto")) {
        memcpy(a->image_size, v->text, v->n);
        a->image_size[v->n] = '\0';
        w = strspn(a->image_size, "0123456789");
        n = w + 1 + strspn(a->image_size + (w < v->n ? w + 1 : w), "0123456789");
        good = w > 0 && a->image_size[w] == 'x' && n == v->n && n > w + 1;
    }
    return good || hg_api_refuse(e, 400, "invalid_value", "size",
                                 "size: expected \"auto\" or WIDTHxHEIGHT, as in \"256x256\"");
}

SETTER(check_b64)
{
    (void)a;
    return is(v, "b64_json") ||
           refuse_value(e, "response_format", "\"b64_json\": no URLs are made");
}

SETTER(check_png)
{
    (void)a;
    return is(v, "png") || refuse_value(e, "output_format", "\"png\", which loses nothing");
}

SETTER(check_text_format)
{
    (void)a;
    return is(v, "text") || refuse_value(e, "response_format", "{\"type\":\"text\"}");
}

SETTER(check_false)
{
    (void)a;
    return !v->flag || refuse_value(e, "echo", "false");
}

enum {
    VQA = 1 << HG_DIALECT_VQA,
    DRAW = 1 << HG_DIALECT_DRAW,
    CHAT = 1 << HG_DIALECT_CHAT,
    COMP = 1 << HG_DIALECT_COMPLETION,
    IMAGES = 1 << HG_DIALECT_IMAGES,
    EDITS = 1 << HG_DIALECT_EDITS,
    OWN = VQA | DRAW,
    TALK = CHAT | COMP,
    PICTURE = IMAGES | EDITS,
    OPENAI = TALK | PICTURE,
    ALL = OWN | OPENAI
};

#define MAX_SEED 9223372036854774784.0 /* the largest double below 2^63 */
#define MAX_COUNT 1000000
#define MAX_CHOICES HG_REQUEST_MAX_CHOICES
#define MAX_PREVIEWS HG_REQUEST_MAX_PREVIEWS
#define TEXT HG_FIELD_TEXT
#define INT HG_FIELD_INT
#define REAL HG_FIELD_REAL
#define BOOL HG_FIELD_BOOL
#define IMAGE HG_FIELD_IMAGE
#define TEXTS HG_FIELD_TEXTS
#define OBJECT HG_FIELD_OBJECT

const struct hg_field hg_fields[] = {
    /* what is asked */
    {"question", TEXT, VQA, 0, 0, set_question, "What to ask about the image.", NULL, true},
    {"prompt", TEXT, DRAW | PICTURE, 0, 0, set_question, "What to draw.", NULL, true},
    {"prompt", TEXTS, COMP, 0, 0, set_question,
     "The text to answer; an array may hold one. It goes through the chat template.", NULL, true},
    {"messages", HG_FIELD_MESSAGES, CHAT, 0, 0, NULL,
     "The conversation. Content is a string or parts of type text and image_url (a data URI).",
     NULL, true},
    {"system", TEXT, OWN, 0, 0, set_system, "Instead of the model's own system text.", NULL, false},
    {"image", IMAGE, OWN | EDITS, 0, 0, NULL, "PNG or JPEG: base64 or a data URI.", NULL, false},
    {"images", IMAGE, OWN | EDITS, 0, 0, NULL,
     "Up to 4 images; elements may be {\"image_url\": \"data:...\"}.", NULL, false},
    {"model", TEXT, ALL, 0, 0, set_model,
     "A name that GET /v1/models lists; the task may be appended: NAME:generation.", NULL, false},
    {"modalities", TEXTS, CHAT, 0, 0, set_modality,
     "With \"image\" in it the answer is a picture (message.images).", "[\"text\"]", false},
    /* how long, how random */
    {"max_tokens", INT, OWN | TALK, 1, MAX_COUNT, set_max_tokens,
     "Tokens of the answer at most; else the model's own limit.", NULL, false},
    {"max_completion_tokens", INT, CHAT, 1, MAX_COUNT, set_max_tokens, "The same.", NULL, false},
    {"temperature", REAL, OWN | TALK, 0, 2, set_temperature,
     "0 is greedy. Without it, unless the model's card has one, answers are greedy and pictures "
     "from text alone are drawn at 0.9.",
     NULL, false},
    {"top_p", REAL, OWN | TALK, 0.0001, 1, set_top_p, "Nucleus sampling.", "1", false},
    {"top_k", INT, OWN, 0, 1000000, set_top_k, "0: off.", "0", false},
    {"repetition_penalty", REAL, OWN, 0.1, 10, set_penalty, "1: off.", NULL, false},
    {"seed", INT, ALL, 0, MAX_SEED, set_seed,
     "The same seed gives the same bytes. Choice i of n has seed + i.", NULL, false},
    {"stop", TEXTS, VQA | TALK, 0, 0, set_stop, "Up to 4 strings that end the answer.", NULL,
     false},
    {"n", INT, TALK | PICTURE, 1, MAX_CHOICES, set_choices, "Answers or pictures.", "1", false},
    {"n", INT, DRAW, 1, 1, set_choices, "One picture.", "1", false},
    {"frequency_penalty", HG_FIELD_ZERO, TALK, 0, 0, NULL, "Only 0.", "0", false},
    {"presence_penalty", HG_FIELD_ZERO, TALK, 0, 0, NULL, "Only 0.", "0", false},
    /* what comes back */
    {"stream", BOOL, ALL, 0, 0, set_stream, "Send the answer as it grows.", "false", false},
    {"stream_options", OBJECT, TALK, 0, 0, NULL, "", NULL, false},
    {"stream_options.include_usage", BOOL, TALK, 0, 0, set_usage,
     "A last chunk with the usage and no choices.", "false", false},
    {"stream_options.include_obfuscation", BOOL, TALK, 0, 0, set_obfuscation,
     "Chunks are filled up, so that their sizes tell less of the text.", "false", false},
    {"logprobs", BOOL, CHAT, 0, 0, set_logprobs, "Log probability of each token.", "false", false},
    {"logprobs", INT, COMP, 0, 5, set_logprobs_count, "Alternatives of each token.", NULL, false},
    {"top_logprobs", INT, VQA | CHAT, 0, HG_MAX_TOP, set_top_logprobs,
     "Alternatives of each token; in a chat with logprobs.", "0", false},
    {"response_format", TEXT, DRAW | PICTURE, 0, 0, check_b64, "Only \"b64_json\".", "\"b64_json\"",
     false},
    {"response_format", OBJECT, CHAT, 0, 0, NULL, "", NULL, false},
    {"response_format.type", TEXT, CHAT, 0, 0, check_text_format, "Only \"text\".", "\"text\"",
     false},
    {"previews", INT, DRAW, 0, MAX_PREVIEWS, set_previews,
     "Pictures of the rows so far, in a stream.", "0", false},
    {"partial_images", INT, DRAW | PICTURE, 0, 3, set_previews, "The same, as OpenAI names it.",
     "0", false},
    {"size", TEXT, DRAW | PICTURE, 0, 0, set_size,
     "Any: the picture has the model's own size, which the answer names.", "\"auto\"", false},
    {"output_format", TEXT, PICTURE, 0, 0, check_png, "Only \"png\".", "\"png\"", false},
    {"timeout_ms", INT, OWN, 1, 86400000, set_timeout, "Give up after this time.", NULL, false},
    /* ours, in OpenAI's dialects */
    {"healthgpt", OBJECT, OPENAI, 0, 0, NULL, "", NULL, false},
    {"healthgpt.plugin", TEXT, TALK, 0, 0, set_plugin,
     "\"comprehension\", \"generation\", or \"none\" for the model without plug-in.", NULL, false},
    {"healthgpt.temperature", REAL, PICTURE, 0, 2, set_temperature, "As in a chat.", NULL, false},
    {"healthgpt.top_p", REAL, PICTURE, 0.0001, 1, set_top_p, "As in a chat.", NULL, false},
    {"healthgpt.top_k", INT, OPENAI, 0, 1000000, set_top_k, "0: off.", "0", false},
    {"healthgpt.repetition_penalty", REAL, OPENAI, 0.1, 10, set_penalty, "1: off.", NULL, false},
    {"healthgpt.timeout_ms", INT, OPENAI, 1, 86400000, set_timeout, "Give up after this time.",
     NULL, false},
    {"healthgpt.previews", INT, CHAT, 0, MAX_PREVIEWS, set_previews,
     "Pictures of the rows so far, in a stream, under healthgpt.preview of a chunk.", "0", false},
    /* what clients send and what changes nothing here */
    {"user", TEXT, ALL, 0, 0, NULL, "Not used, not logged.", NULL, false},
    {"safety_identifier", TEXT, OPENAI, 0, 0, set_subject, "For the audit log, where there is one.",
     NULL, false},
    {"metadata", HG_FIELD_IGNORED, OPENAI, 0, 0, NULL, "Not used, not logged.", NULL, false},
    {"store", HG_FIELD_IGNORED, CHAT, 0, 0, NULL, "Nothing is stored.", NULL, false},
    {"service_tier", HG_FIELD_IGNORED, CHAT, 0, 0, NULL, "Not used.", NULL, false},
    {"prompt_cache_key", HG_FIELD_IGNORED, CHAT, 0, 0, NULL, "Not used.", NULL, false},
    {"tool_choice", HG_FIELD_IGNORED, CHAT, 0, 0, NULL, "There are no tools.", NULL, false},
    {"parallel_tool_calls", HG_FIELD_IGNORED, CHAT, 0, 0, NULL, "The same.", NULL, false},
    {"quality", HG_FIELD_IGNORED, PICTURE, 0, 0, NULL, "There is one quality.", NULL, false},
    {"style", HG_FIELD_IGNORED, PICTURE, 0, 0, NULL, "Not used.", NULL, false},
    {"background", HG_FIELD_IGNORED, PICTURE, 0, 0, NULL, "It is opaque.", NULL, false},
    {"moderation", HG_FIELD_IGNORED, PICTURE, 0, 0, NULL, "Not used.", NULL, false},
    {"output_compression", HG_FIELD_IGNORED, PICTURE, 0, 0, NULL, "PNG loses nothing.", NULL,
     false},
    {"input_fidelity", HG_FIELD_IGNORED, EDITS, 0, 0, NULL, "Not used.", NULL, false},
    {"best_of", HG_FIELD_IGNORED, COMP, 0, 0, NULL, "Not used.", NULL, false},
    {"echo", BOOL, COMP, 0, 0, check_false, "Only false.", "false", false},
    /* what would have to change something, and does not */
    {"tools", HG_FIELD_REFUSED, CHAT, 0, 0, NULL, "Not supported.", NULL, false},
    {"functions", HG_FIELD_REFUSED, CHAT, 0, 0, NULL, "Not supported.", NULL, false},
    {"audio", HG_FIELD_REFUSED, CHAT, 0, 0, NULL, "Not supported.", NULL, false},
    {"logit_bias", HG_FIELD_REFUSED, TALK, 0, 0, NULL, "Not supported.", NULL, false},
    {"suffix", HG_FIELD_REFUSED, COMP, 0, 0, NULL, "Not supported.", NULL, false},
    {"mask", HG_FIELD_REFUSED, EDITS, 0, 0, NULL, "Not supported.", NULL, false},
};
const size_t hg_n_fields = sizeof hg_fields / sizeof hg_fields[0];

const struct hg_field *hg_field_find(const char *name, size_t n, enum hg_dialect d)
{
    for (size_t i = 0; i < hg_n_fields; i++) {
        const struct hg_field *f = &hg_fields[i];
        if (strlen(f->name) == n && memcmp(f->name, name, n) == 0 && (f->dialects & 1u << d))
            return f;
    }
    return NULL;
}

bool hg_field_set(const struct hg_field *f, const struct hg_field_value *v, struct hg_ask *ask,
                  struct hg_api_error *e)
{
    if (f->kind == HG_FIELD_REAL && !(isfinite(v->real) && v->real >= f->min && v->real <= f->max))
        return hg_api_refuse(e, 400, "invalid_value", f->name, "%s: expected a number in %g..%g",
                             f->name, f->min, f->max);
    if (f->kind == HG_FIELD_INT && (v->integer < (int64_t)f->min || v->integer > (int64_t)f->max))
        return hg_api_refuse(e, 400, "invalid_value", f->name,
                             "%s: expected a whole number in %lld..%lld", f->name,
                             (long long)f->min, (long long)f->max);
    return !f->set || f->set(ask, v, e);
}

bool hg_ask_add_image(struct hg_ask *ask, const void *data, size_t n, struct hg_api_error *e)
{
    char param[32];
    snprintf(param, sizeof param, "images[%zu]", ask->n_images);
    if (ask->n_images == HG_REQUEST_MAX_IMAGES)
        return hg_api_refuse(e, 400, "too_many_images", param, "images: at most %d per request",
                             HG_REQUEST_MAX_IMAGES);
    if (n > HG_API_MAX_IMAGE_BYTES)
        return hg_api_refuse(e, 413, "image_too_large", param,
                             "%s: %zu bytes, at most %d are accepted", param, n,
                             HG_API_MAX_IMAGE_BYTES);
    struct hg_error err = {0};
    if (hg_image_decode(data, n, &ask->images[ask->n_images], &err) != HG_STATUS_OK) {
        hg_api_error_of(e, &err);
        snprintf(e->param, sizeof e->param, "%s", param);
        return false;
    }
    ask->n_images++;
    return true;
}
