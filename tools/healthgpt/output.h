/* tools/healthgpt/output.h - where a drawn picture goes.
 *
 * A file is written beside its name and renamed, so that a name never holds half a picture; what is
 * not a regular file (a device, a pipe) would be replaced by that and is refused. "-" is stdout. */
#ifndef HG_TOOLS_OUTPUT_H
#define HG_TOOLS_OUTPUT_H

#include <stdbool.h>

#include "common/image_io.h"
#include "common/status.h"
#include "server/api/synthetic.h"

bool hg_output_is_stdout(const char *path);

/* Before the work: can a file be written under this name? Names the path and what to do. */
enum hg_status hg_output_check(const char *path, struct hg_error *err);

/* The PNG with its synthetic marks. */
enum hg_status hg_output_write(const char *path, const struct hg_image *im,
                               const struct hg_synthetic *mark, struct hg_error *err);

#endif
