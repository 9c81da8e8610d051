/* tools/healthgpt/inspect_lock.h - model.lock on the command line. */
#ifndef HG_TOOLS_INSPECT_LOCK_H
#define HG_TOOLS_INSPECT_LOCK_H

#include <stdbool.h>

#include "server/json_text.h"
#include "tools/healthgpt/cli.h"

/* inspect --lock: writes it and says so; the exit code. */
int hg_inspect_write_lock(const struct hg_cli *cli);
/* "lock": {"file", "state": "none", "holds" or "broken", "error"} of a model; every tensor is read
 * when `contents`. false: broken. */
bool hg_inspect_put_lock(const char *path, const char *weights, bool contents,
                         struct hg_json_out *o);

#endif
