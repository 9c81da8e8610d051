/* server/api/api_chat.c - the messages of a chat: turns, system text, images.
 *
 * A turn is what the user said since the last answer, and the answer. Several messages of one side
 * in a row are joined with a newline; images stand in front of their turn's text, where the model
 * was trained to find them. */
#include <stdlib.h>
#include <string.h>

#include "server/api/api_fields.h"
#include "server/api/body.h"

/* What is being read, for messages: "messages[2].content[1]". */
struct place {
    size_t message, part;
    bool in_part;
};

static bool refuse(struct hg_api_error *e, const struct place *p, const char *code,
                   const char *what)
{
    char where[64];
    if (p->in_part)
        snprintf(where, sizeof where, "messages[%zu].content[%zu]", p->message, p->part);
    else
        snprintf(where, sizeof where, "messages[%zu]", p->message);
    return hg_api_refuse(e, 400, code, where, "%s: %s", where, what);
}

/* Behind what *dst holds, if it does, with a newline between. */
static bool append(struct hg_ask *ask, char **dst, size_t *n_dst, const char *text, size_t n,
                   const struct place *p, struct hg_api_error *e)
{
    char *piece = NULL;
    char where[40];
    snprintf(where, sizeof where, "messages[%zu]", p->message);
    if (!hg_ask_copy_text(ask, &piece, text, n, where, e))
        return false;
    if (!*dst) {
        *dst = piece;
        *n_dst = n;
        return true;
    }
    char *both = n == 0 ? *dst : realloc(*dst, *n_dst + n + 2);
    if (both && n > 0) {
        if (*n_dst > 0)
            both[(*n_dst)++] = '\n';
        memcpy(both + *n_dst, piece, n + 1);
        *n_dst += n;
    }
    free(piece);
    if (!both)
        return hg_api_refuse_memory(e);
    *dst = both;
    return true;
}

struct reader {
    struct hg_ask *ask;
    struct hg_api_error *e;
    struct place at;
    size_t n_system;
};

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_UNKNOWN };

static enum role role_of(const json_t *message)
{
    static const struct {
        const char *name;
        enum role role;
    } roles[] = {{"system", ROLE_SYSTEM},
                 {"developer", ROLE_SYSTEM},
                 {"user", ROLE_USER},
                 {"assistant", ROLE_ASSISTANT}};
    const char *name = json_string_value(json_object_get(message, "role"));
    for (size_t i = 0; name && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(name, roles[i].name) == 0)
            return roles[i].role;
    return ROLE_UNKNOWN;
}

static struct hg_ask_turn *last_turn(struct hg_ask *ask)
{
    return ask->n_turns ? &ask->turns[ask->n_turns - 1] : NULL;
}

static bool add_text(struct reader *r, enum role role, const char *text, size_t n)
{
    struct hg_ask_turn *turn = last_turn(r->ask);
    if (hg_body_image(r->ask->body, text, n))
        return refuse(r->e, &r->at, "invalid_type", "an image where text is expected");
    switch (role) {
    case ROLE_SYSTEM:
        return append(r->ask, &r->ask->system, &r->n_system, text, n, &r->at, r->e);
    case ROLE_USER:
        return append(r->ask, &turn->question, &turn->n_question, text, n, &r->at, r->e);
    default:
        return append(r->ask, &turn->answer, &turn->n_answer, text, n, &r->at, r->e);
    }
}

static bool add_image(struct reader *r, enum role role, const json_t *part)
{
    char where[64];
    if (role != ROLE_USER)
        return refuse(r->e, &r->at, "invalid_value", "images belong into messages of the user");
    if (hg_ask_add_image_text(r->ask, part, r->e)) {
        last_turn(r->ask)->n_images++;
        return true;
    }
    snprintf(where, sizeof where, "messages[%zu].content[%zu]", r->at.message, r->at.part);
    snprintf(r->e->param, sizeof r->e->param, "%s", where);
    return false;
}

static bool add_part(struct reader *r, enum role role, const json_t *part)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    if (!type)
        return refuse(r->e, &r->at, "invalid_type", "expected an object with a type");
    if (strcmp(type, "text") == 0)
        return json_is_string(text)
                   ? add_text(r, role, json_string_value(text), json_string_length(text))
                   : refuse(r->e, &r->at, "invalid_type", "text: expected a string");
    if (strcmp(type, "image_url") == 0)
        return add_image(r, role, part);
    return refuse(r->e, &r->at, "unsupported_value",
                  "expected a part of type \"text\" or \"image_url\"");
}

static bool add_content(struct reader *r, enum role role, const json_t *content)
{
    if (json_is_string(content))
        return add_text(r, role, json_string_value(content), json_string_length(content));
    if (role == ROLE_ASSISTANT && (!content || json_is_null(content))) /* it was a picture */
        return add_text(r, role, "", 0);
    if (!json_is_array(content))
        return refuse(r->e, &r->at, "invalid_type", "content: expected a string or an array");
    r->at.in_part = true;
    for (r->at.part = 0; r->at.part < json_array_size(content); r->at.part++)
        if (!add_part(r, role, json_array_get(content, r->at.part)))
            return false;
    r->at.in_part = false;
    return true;
}

/* A user's message begins a turn when the last one has its answer. */
static bool open_turn(struct reader *r, enum role role)
{
    struct hg_ask *ask = r->ask;
    const struct hg_ask_turn *turn = last_turn(ask);
    if (role == ROLE_ASSISTANT && !turn)
        return refuse(r->e, &r->at, "invalid_value", "an answer before any question");
    if (role != ROLE_USER || (turn && !turn->answer))
        return true;
    if (!ask->turns || ask->n_turns == HG_REQUEST_MAX_TURNS)
        return hg_api_refuse(r->e, 400, "too_many_messages", "messages",
                             "messages: at most %d exchanges", HG_REQUEST_MAX_TURNS);
    ask->turns[ask->n_turns++] = (struct hg_ask_turn){0};
    return true;
}

static bool add_message(struct reader *r, const json_t *message)
{
    enum role role = role_of(message);
    if (role == ROLE_UNKNOWN)
        return refuse(r->e, &r->at, "unsupported_value",
                      "role: expected \"system\", \"developer\", \"user\" or \"assistant\"");
    return open_turn(r, role) && add_content(r, role, json_object_get(message, "content"));
}

/* Each turn has its question, the last one no answer. */
static bool check_turns(struct reader *r)
{
    struct hg_ask *ask = r->ask;
    const struct hg_ask_turn *turn = last_turn(ask);
    if (!turn || turn->answer)
        return hg_api_refuse(r->e, 400, "missing_text", "messages",
                             "messages: expected a last message of the user");
    for (size_t i = 0; i < ask->n_turns; i++)
        if (ask->turns[i].n_question == 0)
            return hg_api_refuse(r->e, 400, "missing_text", "messages",
                                 "messages: expected some text in each message of the user");
    return true;
}

bool hg_ask_add_messages(struct hg_ask *ask, const json_t *messages, struct hg_api_error *e)
{
    enum { MAX_MESSAGES = 2 * HG_REQUEST_MAX_TURNS };
    struct reader r = {.ask = ask, .e = e};
    size_t n = json_array_size(messages);
    if (!json_is_array(messages) || n == 0)
        return hg_api_refuse_type(e, "messages", "an array of messages");
    if (n > MAX_MESSAGES)
        return hg_api_refuse(e, 400, "too_many_messages", "messages",
                             "messages: expected at most %d, got %zu", MAX_MESSAGES, n);
    ask->turns = calloc(HG_REQUEST_MAX_TURNS, sizeof *ask->turns);
    if (!ask->turns)
        return hg_api_refuse_memory(e);
    for (r.at.message = 0; r.at.message < n; r.at.message++)
        if (!add_message(&r, json_array_get(messages, r.at.message)))
            return false;
    return check_turns(&r);
}
