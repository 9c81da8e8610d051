/* model/load/meter.c - see meter.h. */
#include "model/load/meter.h"

#include <stdatomic.h>

#include "common/clock.h"
#include "common/log.h"

/* Of the load under way, for whoever asks meanwhile. */
static atomic_uint_fast64_t total_now, done_now;
static atomic_int_fast64_t start_now;

static double gb_per_s(const struct hg_load_meter *m, int64_t now)
{
    double s = (double)(now - m->start_ns) / 1e9;
    return s > 0 ? (double)m->done / 1e9 / s : 0;
}

void hg_load_meter_start(struct hg_load_meter *m, uint64_t total)
{
    int64_t now = hg_now_ns();
    *m = (struct hg_load_meter){.total = total, .start_ns = now, .told_ns = now};
    atomic_store(&done_now, 0);
    atomic_store(&start_now, now);
    atomic_store(&total_now, total);
}

void hg_load_meter_add(struct hg_load_meter *m, uint64_t bytes)
{
    int64_t now = hg_now_ns();
    m->done += bytes;
    atomic_store(&done_now, m->done);
    if (now - m->told_ns < 1000000000)
        return;
    m->told_ns = now;
    hg_log(HG_LOG_INFO, "loading: %.0f %%, %.2f of %.2f GB of weights, %.2f GB/s",
           m->total ? 100.0 * (double)m->done / (double)m->total : 100.0, (double)m->done / 1e9,
           (double)m->total / 1e9, gb_per_s(m, now));
}

void hg_load_meter_end(const struct hg_load_meter *m, uint32_t crc32c)
{
    int64_t now = hg_now_ns();
    atomic_store(&done_now, m->total);
    hg_log(HG_LOG_INFO, "loaded: %.3f GB of weights in %.2f s, %.2f GB/s, crc32c %08x",
           (double)m->done / 1e9, (double)(now - m->start_ns) / 1e9, gb_per_s(m, now),
           (unsigned)crc32c);
}

double hg_load_meter_share(double *left_s)
{
    double total = (double)atomic_load(&total_now), done = (double)atomic_load(&done_now);
    double share = total > 0 ? done / total : 0;
    double s = (double)(hg_now_ns() - atomic_load(&start_now)) / 1e9;
    share = share < 1 ? share : 1;
    *left_s = share > 0 ? s * (1 - share) / share : 0;
    return share;
}
