/* server/http/mhd_log.c - lines of the library. */
#include "server/http/mhd_log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"

void hg_mhd_log(void *cls, const char *format, va_list args)
{
    const struct timespec rest = {0, 20000000};
    char line[256];
    (void)cls;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    hg_log(HG_LOG_DEBUG, "microhttpd: %s", line);
    if (strstr(line, "resource limit at FIRST connection"))
        nanosleep(&rest, NULL);
}
