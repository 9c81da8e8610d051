/* server/http/routes.h - the routes of the main port: one row each, for routing, /openapi.json and
 * tests.
 *
 * The operators' port has its own few (server/ops/ops.h). Knows no HTTP objects. */
#ifndef HG_SERVER_ROUTES_H
#define HG_SERVER_ROUTES_H

#include <stddef.h>

#include "server/engine/request.h"

enum hg_route_id {
    HG_ROUTE_PAGE,
    HG_ROUTE_HEALTH,
    HG_ROUTE_OPENAPI,
    HG_ROUTE_MODELS,
    HG_ROUTE_MODEL,
    HG_ROUTE_CARD,
    HG_ROUTE_WORK, /* a question or a drawing, in the row's dialect */
    HG_ROUTE_ID_COUNT
};

/* A path may hold one "{id}", which stands for what is not a slash. */
struct hg_route {
    const char *path, *method; /* GET is HEAD too */
    enum hg_route_id id;
    enum hg_dialect dialect; /* HG_DIALECT_COUNT: no work is done */
    enum hg_task task;       /* that room is looked for; a chat may ask for the other */
    const char *name;        /* operationId */
    const char *summary;     /* one line */
    const char *answer;      /* name of its schema, "": not JSON */
    const char *stream;      /* Content-Type of the streamed answer, NULL: there is none */
};

enum { HG_ROUTE_ID_CAP = 112 }; /* of what stands for {id} */

extern const struct hg_route hg_routes[];
extern const size_t hg_n_routes;

/* Doubled slashes and one at the end are forgiven: clients join base URLs and paths in every way.
 * NULL: there is no such route. */
const struct hg_route *hg_route_find(const char *path, char id[HG_ROUTE_ID_CAP]);

#endif
