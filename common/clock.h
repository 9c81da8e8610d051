/* common/clock.h - monotonic time. */
#ifndef HG_COMMON_CLOCK_H
#define HG_COMMON_CLOCK_H

#include <stdint.h>

int64_t hg_now_ns(void);
double hg_now_ms(void);

#endif
