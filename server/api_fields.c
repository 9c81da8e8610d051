/* server/api_fields.c - every field a client may send: type, bounds, where it goes. */
#include "server/api_fields.h"

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

static bool refuse_memory(struct hg_api_error *e)
{
    struct hg_error err = {0};
    hg_fail(&err, HG_STATUS_NO_MEMORY, "out of memory");
    hg_api_error_of(e, &err);
    return false;
}

/* ---- setters --------------------------------------------------------------------------------- */

static bool copy_text(char **dst, const struct hg_field_value *v, const char *name,
                      struct hg_api_error *e)
{
    if (v->n > HG_API_MAX_TEXT)
        return hg_api_refuse(e, 413, "text_too_long", name, "%s: %zu bytes, at most %d are read",
                             name, v->n, HG_API_MAX_TEXT);
    if (memchr(v->text, '\0', v->n))
        return hg_api_refuse(e, 400, "invalid_value", name, "%s: holds a NUL character", name);
    char *copy = malloc(v->n + 1);
    if (!copy)
        return refuse_memory(e);
    memcpy(copy, v->text, v->n);
    copy[v->n] = '\0';
    free(*dst);
    *dst = copy;
    return true;
}

static bool set_question(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    const char *name = a->task == HG_TASK_GENERATION ? "prompt" : "question";
    if (!copy_text(&a->question, v, name, e))
        return false;
    a->n_question = v->n;
    return true;
}

static bool set_system(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    return copy_text(&a->system, v, "system", e);
}

static bool set_max_tokens(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->sampling.max_tokens = (int)v->integer;
    return true;
}

static bool set_temperature(struct hg_ask *a, const struct hg_field_value *v,
                            struct hg_api_error *e)
{
    (void)e;
    a->sampling.temperature = (float)v->real;
    a->has_temperature = true;
    return true;
}

static bool set_top_p(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    if (v->real <= 0)
        return hg_api_refuse(e, 400, "invalid_value", "top_p",
                             "top_p: expected a number in (0, 1]");
    a->sampling.top_p = (float)v->real;
    return true;
}

static bool set_top_k(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->sampling.top_k = (int)v->integer;
    return true;
}

static bool set_penalty(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->sampling.repetition_penalty = (float)v->real;
    return true;
}

static bool set_timeout(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->timeout_ms = (int)v->integer;
    return true;
}

static bool set_previews(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->previews = (int)v->integer;
    return true;
}

static bool set_seed(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->sampling.seed = (uint64_t)v->integer;
    a->has_seed = true;
    return true;
}

static bool set_top_logprobs(struct hg_ask *a, const struct hg_field_value *v,
                             struct hg_api_error *e)
{
    (void)e;
    a->sampling.n_top = (int)v->integer;
    return true;
}

static bool set_stream(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)e;
    a->stream = v->flag;
    return true;
}

static bool set_nothing(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)a;
    (void)v;
    (void)e;
    return true;
}

static bool check_format(struct hg_ask *a, const struct hg_field_value *v, struct hg_api_error *e)
{
    (void)a;
    if (v->n == 8 && memcmp(v->text, "b64_json", 8) == 0)
        return true;
    return hg_api_refuse(e, 400, "unsupported_value", "response_format",
                         "response_format: only \"b64_json\" is made");
}

enum { ASK = 1 << HG_TASK_COMPREHENSION, DRAW = 1 << HG_TASK_GENERATION, BOTH = ASK | DRAW };

/* 2^63 - 1 is no double; the largest one below it bounds the seed, integers are compared exactly.
 */
static const struct hg_field fields[] = {
    {"question", HG_FIELD_TEXT, ASK, 0, 0, set_question},
    {"prompt", HG_FIELD_TEXT, DRAW, 0, 0, set_question},
    {"system", HG_FIELD_TEXT, BOTH, 0, 0, set_system},
    {"image", HG_FIELD_IMAGE, BOTH, 0, 0, NULL},
    {"images", HG_FIELD_IMAGE, BOTH, 0, 0, NULL},
    {"max_tokens", HG_FIELD_INT, BOTH, 1, 1 << 20, set_max_tokens},
    {"temperature", HG_FIELD_REAL, BOTH, 0, 2, set_temperature},
    {"top_p", HG_FIELD_REAL, BOTH, 0, 1, set_top_p},
    {"top_k", HG_FIELD_INT, BOTH, 0, 1 << 20, set_top_k},
    {"repetition_penalty", HG_FIELD_REAL, BOTH, 0.1, 10, set_penalty},
    {"timeout_ms", HG_FIELD_INT, BOTH, 1, 86400000, set_timeout},
    {"seed", HG_FIELD_INT, BOTH, 0, 9223372036854774784.0, set_seed},
    {"top_logprobs", HG_FIELD_INT, ASK, 0, HG_MAX_TOP, set_top_logprobs},
    {"stream", HG_FIELD_BOOL, BOTH, 0, 0, set_stream},
    {"previews", HG_FIELD_INT, DRAW, 0, HG_REQUEST_MAX_PREVIEWS, set_previews},
    /* Sent by image clients of the OpenAI API. */
    {"response_format", HG_FIELD_TEXT, DRAW, 0, 0, check_format},
    {"partial_images", HG_FIELD_INT, DRAW, 0, 3, set_previews},
    {"n", HG_FIELD_INT, DRAW, 1, 1, set_nothing},
    {"model", HG_FIELD_TEXT, BOTH, 0, 0, set_nothing},
    {"size", HG_FIELD_TEXT, DRAW, 0, 0, set_nothing},
    {"user", HG_FIELD_TEXT, BOTH, 0, 0, set_nothing},
};

const struct hg_field *hg_field_find(const char *name, size_t n, enum hg_task task)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct hg_field *f = &fields[i];
        if (strlen(f->name) == n && memcmp(f->name, name, n) == 0 && (f->tasks & 1u << task))
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
    return f->set(ask, v, e);
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
