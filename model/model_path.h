/* model/model_path.h - where the model is: a folder with healthgpt.json, or a card file.
 *
 * An explicit path is taken as it is. Without one: $HEALTHGPT_MODEL, else the demo model that
 * belongs to the running program: config/models/demo in one of the folders above it (a build tree),
 * or share/healthgpt/models/demo (an installation). */
#ifndef HG_MODEL_MODEL_PATH_H
#define HG_MODEL_MODEL_PATH_H

#include <stddef.h>

#include "common/status.h"

enum hg_status hg_model_path_resolve(const char *path, char *out, size_t cap, struct hg_error *err);

#endif
