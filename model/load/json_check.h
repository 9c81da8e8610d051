/* model/load/json_check.h - bound a JSON text before jansson sees it.
 *
 * jansson allocates up to ~60 bytes for one byte of "[[],[],": the number of values is bounded from
 * above by the commas and opening brackets outside strings, and the depth by the brackets. */
#ifndef HG_MODEL_LOAD_JSON_CHECK_H
#define HG_MODEL_LOAD_JSON_CHECK_H

#include <stddef.h>

#include "common/status.h"

/* TOO_LARGE above max_values, BAD_FILE above max_depth. Says nothing about validity otherwise. */
enum hg_status hg_json_check(const char *name, const char *s, size_t n, size_t max_values,
                             size_t max_depth, struct hg_error *err);

#endif
