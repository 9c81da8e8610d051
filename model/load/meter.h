/* model/load/meter.h - how far the reading of weight files has come, as lines of the log: at most
 * one a second while it goes on, one at the end. */
#ifndef HG_MODEL_LOAD_METER_H
#define HG_MODEL_LOAD_METER_H

#include <stddef.h>
#include <stdint.h>

struct hg_load_meter {
    uint64_t total, done; /* bytes of tensors; some of total may never be wanted */
    int64_t start_ns, told_ns;
};

void hg_load_meter_start(struct hg_load_meter *m, uint64_t total);
void hg_load_meter_add(struct hg_load_meter *m, uint64_t bytes);
/* The line at the end, with the sum over all that was read. */
void hg_load_meter_end(const struct hg_load_meter *m, uint32_t crc32c);

/* Of the last load of this process, 0..1, from any thread; *left_s: seconds at the pace so far, 0
 * when not known. */
double hg_load_meter_share(double *left_s);

#endif
