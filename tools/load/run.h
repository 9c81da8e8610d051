/* tools/load/run.h - the load itself: one thread, one epoll, arrivals by the clock.
 *
 * Open loop (mix.rate > 0): request i is sent when it is due, whether earlier ones were answered or
 * not. Closed loop: `concurrency` clients, each sends its next request when the last one ended. */
#ifndef HG_TOOLS_LOAD_RUN_H
#define HG_TOOLS_LOAD_RUN_H

#include <sys/socket.h>

#include "tools/load/result.h"

struct hg_load_options {
    struct hg_load_mix mix;
    struct hg_load_target target;
    struct sockaddr_storage address;
    socklen_t address_len;
    int concurrency;              /* closed loop */
    double duration_s, warmup_s;  /* of arrivals, warm-up included */
    uint64_t count;               /* stop after so many requests; 0: by time */
    double deadline_ms, first_ms; /* what counts as good; 0: any time */
    double patience_ms;           /* a client gives up */
    int slow_bytes_per_s;
    size_t max_open; /* connections */
};

/* `out` is zeroed but for keep_digests. A server that refuses or breaks connections is a result,
 * not a failure; IO: the machine of the generator itself fails. */
enum hg_status hg_load_run(const struct hg_load_options *o, struct hg_load_result *out,
                           struct hg_error *err);

#endif
