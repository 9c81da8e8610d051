/* common/clock.c - CLOCK_MONOTONIC. */
#include "common/clock.h"

#include <time.h>

int64_t hg_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double hg_now_ms(void)
{
    return (double)hg_now_ns() * 1e-6;
}
