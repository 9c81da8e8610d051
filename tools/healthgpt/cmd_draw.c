/* tools/healthgpt/cmd_draw.c - one picture, with a progress bar when somebody watches. */
#include "tools/healthgpt/output.h"
#include "tools/healthgpt/run.h"
#include "tools/healthgpt/terminal.h"

enum { BAR_WIDTH = 32 };

static void print_bar(const struct hg_event *e)
{
    char bar[BAR_WIDTH + 1];
    int filled = e->total > 0 ? e->done * BAR_WIDTH / e->total : 0;
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\rdrawing [%s] %d/%d", bar, e->done, e->total);
}

static void follow(struct hg_request *r)
{
    bool watched = hg_terminal_can_redraw(stderr);
    struct hg_event e = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_buf text = {0};
    for (size_t at = 0; e.type != HG_EVENT_END; at++) {
        hg_stream_wait(&r->stream, at);
        if (!hg_stream_read(&r->stream, at, &e, &text, tops))
            break;
        if (watched && e.type == HG_EVENT_PROGRESS)
            print_bar(&e);
    }
    if (watched)
        fputs("\r\033[K", stderr);
    hg_buf_deinit(&text);
}

static void print_result(const struct hg_cli *cli, const struct hg_request *r, const char *path)
{
    struct hg_buf b = {0};
    struct hg_json_out o;
    if (!cli->json) {
        hg_terminal_line(stdout, path);
        return;
    }
    hg_out_begin(&o, &b);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "output", path);
    hg_out_int(&o, "width", r->result.image.width);
    hg_out_int(&o, "height", r->result.image.height);
    hg_out_real(&o, "temperature", (double)r->sampling.temperature, 4);
    hg_out_uint(&o, "seed", r->sampling.seed);
    hg_out_open(&o, "indices", '[');
    for (size_t i = 0; i < r->result.n_codes; i++)
        hg_out_int(&o, NULL, r->result.codes[i]);
    hg_out_close(&o, ']');
    hg_out_bool(&o, "synthetic", true);
    hg_out_close(&o, '}');
    hg_terminal_line(stdout, o.failed ? "" : b.data);
    hg_buf_deinit(&b);
}

static enum hg_status draw(const struct hg_cli *cli, const char *path, struct hg_error *err)
{
    struct hg_run run = {0};
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_synthetic mark;
    /* What can be wrong with the names first: it should not show after minutes of drawing. */
    enum hg_status status = hg_run_ask_of(cli, HG_TASK_GENERATION, cli->args[0], &a, err);
    if (status != HG_STATUS_OK)
        goto out;
    HG_TRY_OUT(hg_output_check(path, err));
    struct hg_model_options o = hg_run_options(cli, 1);
    HG_TRY_OUT(hg_model_check_task(&o, HG_TASK_GENERATION, err));
    HG_TRY_OUT(hg_run_open(cli, 1, &run, err));
    HG_TRY_OUT(hg_run_submit(&run, &a, &r, err));
    follow(r);
    mark = hg_reply_mark(&run.reply, r);
    if (r->result.error.status != HG_STATUS_OK) {
        *err = r->result.error;
        status = err->status;
        goto out;
    }
    HG_TRY_OUT(hg_output_write(path, &r->result.image, &mark, err));
    if (!hg_output_is_stdout(path))
        print_result(cli, r, path);
out:
    hg_request_unref(r);
    hg_run_close(&run);
    hg_ask_deinit(&a);
    return status;
}

int hg_cli_draw(const struct hg_cli *cli)
{
    struct hg_error err = {0};
    if (cli->n_args != 1)
        return hg_cli_usage_error("draw", "expected one instruction (in quotes)");
    if (cli->args[0][0] == '\0')
        return hg_cli_usage_error("draw", "the instruction is empty");
    const char *path = cli->output ? cli->output : "out.png";
    if (cli->json && hg_output_is_stdout(path))
        return hg_cli_usage_error("draw", "stdout cannot hold both the PNG (-o -) and --json");
    return draw(cli, path, &err) == HG_STATUS_OK ? 0 : hg_cli_fail("draw", &err);
}
