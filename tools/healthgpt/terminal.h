/* tools/healthgpt/terminal.h - what a person sees.
 *
 * Model text, file names and tensor names are not ours: on a terminal their control characters
 * (escape sequences can retitle, recolour or type) become U+FFFD. A pipe or file gets the bytes. */
#ifndef HG_TOOLS_TERMINAL_H
#define HG_TOOLS_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/status.h"

void hg_terminal_write(FILE *to, const char *s, size_t n);
void hg_terminal_line(FILE *to, const char *s); /* and a newline */

/* Somebody watches and the line can be rewritten. */
bool hg_terminal_can_redraw(FILE *to);

/* Flush stdout; false when what was written cannot arrive: then more work is in vain. */
bool hg_terminal_flush(void);
/* At the end: OK, or IO. The text is empty when the reader has just gone (| head), which needs no
 * message. */
enum hg_status hg_terminal_finish(struct hg_error *err);

#endif
