/* tools/load/options.h - the command line of healthgpt-load, from one table. */
#ifndef HG_TOOLS_LOAD_OPTIONS_H
#define HG_TOOLS_LOAD_OPTIONS_H

#include <stdio.h>

#include "tools/load/run.h"

enum { HG_LOAD_MAX_KEYS = 64 };

struct hg_load_cli {
    struct hg_load_options run;
    const char *url, *plot, *digests;
    const char *keys[HG_LOAD_MAX_KEYS];
    bool json, help;
};

/* BAD_REQUEST names the option, what was expected and what came. */
enum hg_status hg_load_parse(int argc, char **argv, struct hg_load_cli *out, struct hg_error *err);
void hg_load_usage(FILE *to);

#endif
