/* server/version.h - the version of both programs (semantic: API, command line, configuration). */
#ifndef HG_SERVER_VERSION_H
#define HG_SERVER_VERSION_H

#define HG_VERSION "0.1.0"
#define HG_VERSION_DATE "November 26, 2026" /* in the manual pages */

#endif
