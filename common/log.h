/* common/log.h - one logger: a line on stderr per event, text or JSON. Thread-safe, never fails the
 * caller, and never waits for a reader: what cannot be written now (a full pipe, a full disk) is
 * dropped and counted. Client bytes are escaped. */
#ifndef HG_COMMON_LOG_H
#define HG_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hg_log_level { HG_LOG_DEBUG, HG_LOG_INFO, HG_LOG_WARN, HG_LOG_ERROR, HG_LOG_OFF };

void hg_log_set(enum hg_log_level min_level, int as_json);
void hg_log(enum hg_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t hg_log_dropped(void); /* lines, since the start */

bool hg_log_is_json(void);
/* A line of JSON with members of its own after time and level: n bytes of "key":value,... that are
 * valid JSON. Dropped when the log is not JSON or the line would be longer than 4 KiB. */
void hg_log_members(enum hg_log_level level, const char *members, size_t n);

#endif
