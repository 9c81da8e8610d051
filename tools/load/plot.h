/* tools/load/plot.h - distributions of a run as an SVG file: share of requests over milliseconds,
 * a panel each for first token, between tokens, end to end; a curve for each kind. */
#ifndef HG_TOOLS_LOAD_PLOT_H
#define HG_TOOLS_LOAD_PLOT_H

#include "tools/load/result.h"

/* IO names the path. `title` is XML-escaped. */
enum hg_status hg_load_plot(struct hg_load_result *r, const char *title, const char *path,
                            struct hg_error *err);

#endif
