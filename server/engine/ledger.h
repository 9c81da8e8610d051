/* server/engine/ledger.h - every accepted request, from acceptance to its one end.
 *
 * The ledger is what the scheduler is checked against: an accepted request ends exactly once, as
 * done, error or cancelled, and soon after its deadline at the latest. One that does not is told
 * once in the log and counted; so is one that would end twice. Thread-safe. */
#ifndef HG_SERVER_LEDGER_H
#define HG_SERVER_LEDGER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"

struct hg_ledger {
    pthread_mutex_t lock;
    struct hg_list open; /* oldest first */
    struct hg_ledger_stats {
        size_t n_open;
        uint64_t n_accepted, n_ended;
        uint64_t n_stalled, n_ended_twice; /* both stay 0 */
    } stats;
};

/* Zeroed before its first use. */
struct hg_ledger_entry {
    struct hg_list link;
    bool is_open, told;
    uint64_t number;
    const atomic_int *state; /* enum hg_request_state; valid while open */
    int64_t opened_ns, deadline_ns;
};

void hg_ledger_init(struct hg_ledger *l);
void hg_ledger_deinit(struct hg_ledger *l);

void hg_ledger_open(struct hg_ledger *l, struct hg_ledger_entry *e); /* the other fields are set */
/* An entry whose request was not accepted after all: as if it had not been opened. */
void hg_ledger_take_back(struct hg_ledger *l, struct hg_ledger_entry *e);
/* False, and logged: it is not open. */
bool hg_ledger_end(struct hg_ledger *l, struct hg_ledger_entry *e);

/* Tell of those that are open grace_ns after their deadline; returns how many were new. */
int hg_ledger_check(struct hg_ledger *l, int64_t now_ns, int64_t grace_ns);

void hg_ledger_stats(struct hg_ledger *l, struct hg_ledger_stats *out);

#endif
