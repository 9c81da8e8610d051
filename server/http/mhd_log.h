/* server/http/mhd_log.h - what libmicrohttpd has to say, for MHD_OPTION_EXTERNAL_LOGGER. */
#ifndef HG_SERVER_MHD_LOG_H
#define HG_SERVER_MHD_LOG_H

#include <stdarg.h>

/* A line of our log (debug). A thread of the library that has no connection and finds no descriptor
 * for one asks for it again at once, for ever ("busy waiting", 0.9.75 to 1.0): it says so on its
 * way, and rests here for 20 ms. */
void hg_mhd_log(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

#endif
