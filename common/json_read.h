/* common/json_read.h - json_loadb of jansson, safe when memory runs out.
 *
 * jansson (2.14 and before) goes on after a failed allocation: its lexer drops the byte that it
 * could not store. Where that was the closing quote of a string it writes past a heap block; where
 * it was another one the string lacks it. So a parse ends at its first failed allocation: what it
 * had allocated is freed from outside. */
#ifndef HG_COMMON_JSON_READ_H
#define HG_COMMON_JSON_READ_H

#include <jansson.h>
#include <stddef.h>

#include "common/status.h"

/* NO_MEMORY, or BAD_REQUEST with *e filled in. *out is a new reference. Any thread. */
enum hg_status hg_json_read(const char *s, size_t n, size_t flags, json_t **out, json_error_t *e);

#endif
