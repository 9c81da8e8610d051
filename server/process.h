/* server/process.h - what both programs do first. */
#ifndef HG_SERVER_PROCESS_H
#define HG_SERVER_PROCESS_H

/* Ignore SIGPIPE, and fill the descriptors 0..2 that the caller has closed, so that no socket or
 * model file can become "stdout". Writing to a filled one fails, as it should. */
void hg_process_init(void);

#endif
