/* tools/healthgpt/inspect_text.h - the document of `inspect --json` for people. */
#ifndef HG_TOOLS_INSPECT_TEXT_H
#define HG_TOOLS_INSPECT_TEXT_H

#include <jansson.h>

void hg_inspect_print(const json_t *doc);

#endif
