/* tools/healthgpt/run.h - model and scheduler for the commands: the server's own request loop
 * without HTTP, so that the command line and the daemon give the same bytes. */
#ifndef HG_TOOLS_RUN_H
#define HG_TOOLS_RUN_H

#include "model/healthgpt.h"
#include "server/api/reply.h"
#include "server/engine/scheduler.h"
#include "tools/healthgpt/cli.h"

struct hg_run {
    struct hg_model *model;
    struct hg_scheduler *scheduler;
    struct hg_model_info info;
    struct hg_reply_context reply;
};

/* max_batch: sequences resident at once. Close it also after a failure. */
enum hg_status hg_run_open(const struct hg_cli *cli, int max_batch, struct hg_run *out,
                           struct hg_error *err);
void hg_run_close(struct hg_run *r);

/* Model options that the flags say. */
struct hg_model_options hg_run_options(const struct hg_cli *cli, int max_batch);

/* The question, images and sampling of the flags. Release with hg_ask_deinit in any case. */
enum hg_status hg_run_ask_of(const struct hg_cli *cli, enum hg_task task, const char *question,
                             struct hg_ask *out, struct hg_error *err);
enum hg_status hg_run_add_image(struct hg_ask *ask, const char *path, struct hg_error *err);

/* Create and submit; release with hg_request_unref. */
enum hg_status hg_run_submit(struct hg_run *r, const struct hg_ask *ask, struct hg_request **out,
                             struct hg_error *err);

#endif
