/* tools/healthgpt/inspect_lock.c - see inspect_lock.h. */
#include "tools/healthgpt/inspect_lock.h"

#include <stdio.h>
#include <string.h>

#include "model/healthgpt.h"
#include "tools/healthgpt/terminal.h"

int hg_inspect_write_lock(const struct hg_cli *cli)
{
    struct hg_model_options o = {.path = cli->args[0], .weights = cli->weights};
    struct hg_model_lock_report r;
    struct hg_error err = {0};
    struct hg_buf text = {0};
    struct hg_json_out j;
    if (hg_model_lock_write(&o, &r, &err) != HG_STATUS_OK)
        return hg_cli_fail("inspect", &err);
    if (cli->json) {
        hg_out_begin(&j, &text);
        hg_out_open(&j, NULL, '{');
        hg_out_string(&j, "file", r.path);
        hg_out_uint(&j, "n_files", r.n_files);
        hg_out_uint(&j, "n_tensors", r.n_tensors);
        hg_out_uint(&j, "bytes", r.bytes);
        hg_out_real(&j, "seconds", r.seconds, 3);
        hg_out_close(&j, '}');
    } else {
        hg_buf_printf(&text, "%s: %zu files, %zu tensors, %.3f GB read in %.2f s, %.2f GB/s",
                      r.path, r.n_files, r.n_tensors, (double)r.bytes / 1e9, r.seconds,
                      r.seconds > 0 ? (double)r.bytes / 1e9 / r.seconds : 0);
    }
    hg_terminal_line(stdout, text.data ? text.data : "");
    hg_buf_deinit(&text);
    return 0;
}

bool hg_inspect_put_lock(const char *path, const char *weights, bool contents,
                         struct hg_json_out *o)
{
    struct hg_model_options options = {.path = path, .weights = weights};
    struct hg_model_lock_report r;
    struct hg_error err = {0};
    enum hg_status status = hg_model_lock_verify(&options, contents, &r, &err);
    if (!r.exists && status != HG_STATUS_OK)
        return true; /* files that do not open are spoken of elsewhere */
    hg_out_open(o, "lock", '{');
    hg_out_string(o, "file", r.path);
    hg_out_string(o, "state", !r.exists ? "none" : status == HG_STATUS_OK ? "holds" : "broken");
    if (r.exists)
        hg_out_string(o, "compared", contents ? "contents" : "names and sizes");
    if (status != HG_STATUS_OK)
        hg_out_string(o, "error", err.text);
    hg_out_close(o, '}');
    return status == HG_STATUS_OK;
}
