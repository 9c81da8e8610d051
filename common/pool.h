/* common/pool.h - a fixed team of threads that runs one function at a time on all members.
 *
 * The caller is member 0. hg_pool_run(pool, fn, ctx) calls fn(ctx, i, n) once for every i in [0, n)
 * and returns when all are done (a full barrier). Call i is made by member i, or by the caller
 * after its own when member i has not come by then, so that a busy machine delays a run by no
 * thread that does not run. Work is partitioned statically by the function itself, so results never
 * depend on timing. One hg_pool_run at a time; not re-entrant. Members spin briefly, then sleep on
 * a futex/condition. */
#ifndef HG_COMMON_POOL_H
#define HG_COMMON_POOL_H

#include "common/status.h"

struct hg_pool;

typedef void hg_pool_fn(void *ctx, int member, int n_members);

/* n_threads 0: one per online CPU (affinity mask respected), at most 64. */
enum hg_status hg_pool_create(int n_threads, struct hg_pool **out, struct hg_error *err);
void hg_pool_destroy(struct hg_pool *pool); /* NULL is fine */
int hg_pool_size(const struct hg_pool *pool);
void hg_pool_run(struct hg_pool *pool, hg_pool_fn *fn, void *ctx);

#endif
