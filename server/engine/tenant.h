/* server/engine/tenant.h - on whose behalf a request runs. A value: copied into the request, so
 * that a new key file never takes anything from a request that is under way. */
#ifndef HG_SERVER_TENANT_H
#define HG_SERVER_TENANT_H

#include <stdint.h>

enum { HG_TENANT_NAME_CAP = 33, HG_TENANT_MAX_WEIGHT = 100 };

/* A zeroed struct is the one tenant of a server without keys. */
struct hg_tenant {
    uint64_t id;                    /* 0: no keys; caches are kept apart by it */
    char name[HG_TENANT_NAME_CAP];  /* for logs */
    int weight;                     /* share of the work, 1..HG_TENANT_MAX_WEIGHT; 0 counts as 1 */
    int max_queued, max_running;    /* requests; 0: no limit of its own */
    int requests_per_minute, burst; /* let in evenly, burst after a rest; 0: no limit */
    int tokens_per_minute;          /* prompts and answers; 0: no limit */
};

#endif
