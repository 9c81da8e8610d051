/* server/engine/ledger.c - a list under a mutex. */
#include "server/engine/ledger.h"

#include "common/log.h"
#include "server/engine/request.h"

enum { MAX_TOLD = 16 }; /* at once; the rest at the next check */

void hg_ledger_init(struct hg_ledger *l)
{
    *l = (struct hg_ledger){0};
    pthread_mutex_init(&l->lock, NULL);
    hg_list_init(&l->open);
}

void hg_ledger_deinit(struct hg_ledger *l)
{
    pthread_mutex_destroy(&l->lock);
}

void hg_ledger_open(struct hg_ledger *l, struct hg_ledger_entry *e)
{
    pthread_mutex_lock(&l->lock);
    e->is_open = true;
    e->told = false;
    hg_list_push_back(&l->open, &e->link);
    l->stats.n_open++;
    l->stats.n_accepted++;
    pthread_mutex_unlock(&l->lock);
}

/* The lock is held. */
static bool leave(struct hg_ledger *l, struct hg_ledger_entry *e)
{
    if (!e->is_open)
        return false;
    e->is_open = false;
    hg_list_remove(&e->link);
    l->stats.n_open--;
    return true;
}

void hg_ledger_take_back(struct hg_ledger *l, struct hg_ledger_entry *e)
{
    pthread_mutex_lock(&l->lock);
    l->stats.n_accepted -= leave(l, e);
    pthread_mutex_unlock(&l->lock);
}

bool hg_ledger_end(struct hg_ledger *l, struct hg_ledger_entry *e)
{
    pthread_mutex_lock(&l->lock);
    bool open = leave(l, e);
    l->stats.n_ended += open;
    l->stats.n_ended_twice += !open;
    pthread_mutex_unlock(&l->lock);
    if (!open)
        hg_log(HG_LOG_ERROR, "request %llu would end twice", (unsigned long long)e->number);
    return open;
}

static const char *state_name(int state)
{
    return state == HG_REQUEST_RUNNING  ? "running"
           : state == HG_REQUEST_QUEUED ? "queued"
                                        : "not at work";
}

int hg_ledger_check(struct hg_ledger *l, int64_t now_ns, int64_t grace_ns)
{
    struct {
        uint64_t number;
        int state;
        double age, late;
    } found[MAX_TOLD];
    int n = 0;
    pthread_mutex_lock(&l->lock);
    for (struct hg_list *i = l->open.next; i != &l->open && n < MAX_TOLD; i = i->next) {
        struct hg_ledger_entry *e = HG_LIST_ENTRY(i, struct hg_ledger_entry, link);
        if (e->told || now_ns - e->deadline_ns < grace_ns)
            continue;
        e->told = true;
        found[n].number = e->number;
        found[n].state = atomic_load(e->state);
        found[n].age = (double)(now_ns - e->opened_ns) / 1e9;
        found[n].late = (double)(now_ns - e->deadline_ns) / 1e9;
        n++;
    }
    l->stats.n_stalled += (uint64_t)n;
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < n; i++)
        hg_log(HG_LOG_ERROR,
               "request %llu has not ended: %s, accepted %.1f s ago, %.1f s after its deadline",
               (unsigned long long)found[i].number, state_name(found[i].state), found[i].age,
               found[i].late);
    return n;
}

void hg_ledger_stats(struct hg_ledger *l, struct hg_ledger_stats *out)
{
    pthread_mutex_lock(&l->lock);
    *out = l->stats;
    pthread_mutex_unlock(&l->lock);
}
