/* server/engine/canary_file.h - canary.json (inside server/engine/canary*.c only). */
#ifndef HG_SERVER_CANARY_FILE_H
#define HG_SERVER_CANARY_FILE_H

#include "server/engine/canary.h"

const char *hg_canary_case_name(int index); /* "text", "comprehension", "generation" */
/* *found false: there is none. BAD_FILE: damaged, or `crc32c` is not the sum it names. */
enum hg_status hg_canary_read(const char *path, uint32_t crc32c, struct hg_canary_result *out,
                              bool *found, struct hg_error *err);
enum hg_status hg_canary_print(const struct hg_canary_result *r, uint32_t crc32c,
                               struct hg_buf *out);

#endif
