/* server/http/routes.c - the table, and what fits a row. */
#include "server/http/routes.h"

#include <string.h>

#define LINES "application/x-ndjson"
#define EVENTS "text/event-stream"
#define NO_WORK HG_DIALECT_COUNT, HG_TASK_COUNT
#define ASK HG_TASK_COMPREHENSION
#define DRAW HG_TASK_GENERATION

const struct hg_route hg_routes[] = {
    {"/", "GET", HG_ROUTE_PAGE, NO_WORK, "page", "A page to try it with.", "", NULL},
    {"/health", "GET", HG_ROUTE_HEALTH, NO_WORK, "health", "State, queue, counters; 503 unless ok.",
     "Health", NULL},
    {"/openapi.json", "GET", HG_ROUTE_OPENAPI, NO_WORK, "openapi", "This document.", "Document",
     NULL},
    {"/v1/models", "GET", HG_ROUTE_MODELS, NO_WORK, "listModels", "The names of the model.",
     "ModelList", NULL},
    {"/v1/models/{id}", "GET", HG_ROUTE_MODEL, NO_WORK, "retrieveModel", "One of them.", "Model",
     NULL},
    {"/v1/models/{id}/card", "GET", HG_ROUTE_CARD, NO_WORK, "retrieveCard",
     "What the model is, what it is for, what it is not for.", "Card", NULL},
    {"/v1/chat/completions", "POST", HG_ROUTE_WORK, HG_DIALECT_CHAT, ASK, "createChatCompletion",
     "Questions about images in a conversation, or a picture (modalities).", "ChatCompletion",
     EVENTS},
    {"/v1/completions", "POST", HG_ROUTE_WORK, HG_DIALECT_COMPLETION, ASK, "createCompletion",
     "A question without images.", "Completion", EVENTS},
    {"/v1/images/generations", "POST", HG_ROUTE_WORK, HG_DIALECT_IMAGES, DRAW, "createImage",
     "A picture from a text.", "Images", EVENTS},
    {"/v1/images/edits", "POST", HG_ROUTE_WORK, HG_DIALECT_EDITS, DRAW, "createImageEdit",
     "A picture from pictures and a text.", "Images", EVENTS},
    {"/v1/vqa", "POST", HG_ROUTE_WORK, HG_DIALECT_VQA, ASK, "vqa",
     "Our own form of a question: docs/streaming.md.", "Answer", LINES},
    {"/v1/draw", "POST", HG_ROUTE_WORK, HG_DIALECT_DRAW, DRAW, "draw",
     "Our own form of a drawing: docs/streaming.md.", "Drawing", LINES},
};
const size_t hg_n_routes = sizeof hg_routes / sizeof hg_routes[0];

static bool fits(const char *pattern, const char *path, char id[HG_ROUTE_ID_CAP])
{
    static const char place[] = "{id}";
    while (*pattern) {
        if (*path == '/')
            while (path[1] == '/')
                path++;
        if (strncmp(pattern, place, sizeof place - 1) != 0) {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t n = strcspn(path, "/");
        if (n == 0 || n >= HG_ROUTE_ID_CAP)
            return false;
        memcpy(id, path, n);
        id[n] = '\0';
        path += n;
        pattern += sizeof place - 1;
    }
    return path[strspn(path, "/")] == '\0';
}

const struct hg_route *hg_route_find(const char *path, char id[HG_ROUTE_ID_CAP])
{
    for (size_t i = 0; i < hg_n_routes; i++)
        if (fits(hg_routes[i].path, path, id))
            return &hg_routes[i];
    return NULL;
}
