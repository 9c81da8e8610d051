/* common/pool.c - fork-join team.
 *
 * A run is announced by a new value of `epoch` and ends when `n_left` reaches 0. Both words are
 * also futexes: a waiter spins on its word, then sleeps on it. The order "announce sleep, look
 * again" on one side and "change word, look for sleepers" on the other (all sequentially
 * consistent) makes a lost wake-up impossible; futex_wait itself rechecks the word.
 *
 * A share belongs to who sets its bit in `claims`: its member, or the caller when it is done with
 * its own and the member has not begun, because the system runs something else on its CPU or it
 * is still waking up. Between runs all bits are set, so a member that comes late finds nothing, or
 * its share of the next run. fn and ctx are plain fields: written before claims is cleared, read
 * after a bit was won. */
#include "common/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"

enum { MAX_THREADS = 64, CACHE_LINE = 64, SPIN_NS = 50000, SPINS_PER_CLOCK = 64 };

struct member {
    struct hg_pool *pool;
    pthread_t thread;
    int index;
};

/* The padding keeps the words that different threads write on lines of their own. */
struct hg_pool {   /* NOLINT(*Padding) */
    int n;         /* members, the caller included */
    int n_started; /* threads to join */
    int64_t spin_ns;
    hg_pool_fn *fn;
    void *ctx;
    atomic_bool quit;
    struct member members[MAX_THREADS];
    alignas(CACHE_LINE) atomic_uint epoch;
    atomic_uint n_asleep;                   /* members that sleep on epoch */
    alignas(CACHE_LINE) atomic_uint n_left; /* shares that are not done */
    atomic_bool caller_asleep;
    alignas(CACHE_LINE) atomic_uint_fast64_t claims; /* bit i: share i has been begun */
};

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Spin while *word == value; true when it changed in time. */
static bool spin_while(atomic_uint *word, unsigned value, bool equal, int64_t spin_ns)
{
    int64_t end = spin_ns ? hg_now_ns() + spin_ns : 0;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) != equal)
                return true;
            cpu_relax();
        }
    } while (spin_ns && hg_now_ns() < end);
    return false;
}

static void wait_new_epoch(struct hg_pool *p, unsigned seen)
{
    if (spin_while(&p->epoch, seen, true, p->spin_ns))
        return;
    atomic_fetch_add(&p->n_asleep, 1);
    while (atomic_load(&p->epoch) == seen)
        futex_wait(&p->epoch, seen);
    atomic_fetch_sub(&p->n_asleep, 1);
}

static void announce(struct hg_pool *p)
{
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->n_asleep))
        futex_wake(&p->epoch);
}

/* Do share i if nobody has begun it. */
static bool take_share(struct hg_pool *p, int i)
{
    uint_fast64_t bit = UINT64_C(1) << (unsigned)i % MAX_THREADS;
    if ((atomic_load_explicit(&p->claims, memory_order_relaxed) & bit) ||
        (atomic_fetch_or(&p->claims, bit) & bit))
        return false;
    p->fn(p->ctx, i, p->n);
    return true;
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct hg_pool *p = m->pool;
    prctl(PR_SET_NAME, "hg-pool");
    unsigned seen = 0;
    for (;;) {
        wait_new_epoch(p, seen);
        seen = atomic_load(&p->epoch);
        if (atomic_load(&p->quit))
            return NULL;
        if (take_share(p, m->index) && atomic_fetch_sub(&p->n_left, 1) == 1 &&
            atomic_load(&p->caller_asleep))
            futex_wake(&p->n_left);
    }
}

static void wait_all_done(struct hg_pool *p)
{
    if (spin_while(&p->n_left, 0, false, p->spin_ns))
        return;
    atomic_store(&p->caller_asleep, true);
    for (unsigned left; (left = atomic_load(&p->n_left)) != 0;)
        futex_wait(&p->n_left, left);
    atomic_store(&p->caller_asleep, false);
}

void hg_pool_run(struct hg_pool *pool, hg_pool_fn *fn, void *ctx)
{
    if (pool->n > 1) {
        pool->fn = fn;
        pool->ctx = ctx;
        atomic_store(&pool->n_left, (unsigned)pool->n - 1);
        atomic_store(&pool->claims, 1);
        announce(pool);
    }
    fn(ctx, 0, pool->n);
    for (int i = pool->n - 1; i > 0; i--) /* the last to be woken first */
        if (take_share(pool, i))
            atomic_fetch_sub(&pool->n_left, 1);
    if (pool->n > 1)
        wait_all_done(pool);
}

int hg_pool_size(const struct hg_pool *pool)
{
    return pool->n;
}

void hg_pool_destroy(struct hg_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->quit, true);
    announce(pool);
    for (int i = 1; i <= pool->n_started; i++)
        pthread_join(pool->members[i].thread, NULL);
    free(pool);
}

static int count_cpus(void)
{
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                         : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

/* Signals belong to the thread that made the pool: the members block them all. */
static int start_members(struct hg_pool *p)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = 0;
    for (int i = 1; i < p->n && !e; i++) {
        struct member *m = &p->members[i];
        m->pool = p;
        m->index = i;
        e = pthread_create(&m->thread, NULL, member_main, m);
        p->n_started += !e;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

enum hg_status hg_pool_create(int n_threads, struct hg_pool **out, struct hg_error *err)
{
    *out = NULL;
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "pool: expected 0 to %d threads, got %d",
                       MAX_THREADS, n_threads);
    int n_cpus = count_cpus();
    size_t bytes = (sizeof(struct hg_pool) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct hg_pool *p = aligned_alloc(CACHE_LINE, bytes);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "pool: out of memory");
    memset(p, 0, sizeof *p);
    p->n = n_threads ? n_threads : n_cpus;
    atomic_init(&p->claims, UINT_FAST64_MAX);
    /* More members than CPUs: a spinning member would only keep a working one from its CPU. */
    p->spin_ns = p->n > n_cpus ? 0 : SPIN_NS;
    int e = start_members(p);
    if (e) {
        int n = p->n_started;
        hg_pool_destroy(p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "pool: cannot start thread %d: %s", n + 1,
                       strerror(e));
    }
    *out = p;
    return HG_STATUS_OK;
}
