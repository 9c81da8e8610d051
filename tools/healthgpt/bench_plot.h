/* tools/healthgpt/bench_plot.h - bars from 0 to 100 % as an SVG file, without any library. */
#ifndef HG_TOOLS_BENCH_PLOT_H
#define HG_TOOLS_BENCH_PLOT_H

#include <stddef.h>

#include "common/status.h"

struct hg_bench_bar {
    char label[64], value[48]; /* left of the bar; behind it */
    double share;              /* of the floor, 1 = at the floor; 0: not known, no bar */
};

/* title and labels are XML-escaped. IO names the path. */
enum hg_status hg_bench_plot(const char *path, const char *title, const struct hg_bench_bar *bars,
                             size_t n, struct hg_error *err);

#endif
