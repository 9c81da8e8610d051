/* tools/healthgpt/cmd_canary.c - canary.json for a model folder. */
#include "server/engine/canary.h"
#include "tools/healthgpt/cli.h"
#include "tools/healthgpt/run.h"
#include "tools/healthgpt/terminal.h"

int hg_cli_canary(const struct hg_cli *cli)
{
    struct hg_model_options o = hg_run_options(cli, 1);
    struct hg_model *model = NULL;
    struct hg_canary *canary = NULL;
    struct hg_buf text = {0};
    struct hg_error err = {0};
    enum hg_status status = HG_STATUS_OK;
    if (cli->n_args != 0)
        return hg_cli_usage_error("canary", "takes no arguments");
    HG_TRY_OUT(hg_model_load(&o, &model, &err));
    HG_TRY_OUT(hg_canary_create(model, NULL, &canary, &err));
    HG_TRY_OUT(hg_canary_run(canary, &err));
    status = hg_canary_write(canary, &text);
    if (status != HG_STATUS_OK)
        hg_fail(&err, status, "out of memory");
    else
        hg_terminal_line(stdout, text.data);
out:
    hg_buf_deinit(&text);
    hg_canary_free(canary);
    hg_model_free(model);
    return status == HG_STATUS_OK ? 0 : hg_cli_fail("canary", &err);
}
