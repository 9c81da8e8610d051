/* tools/healthgpt/cmd_ask.c - one question, the answer as it comes. */
#include "tools/healthgpt/run.h"
#include "tools/healthgpt/terminal.h"

/* Write each piece of text as soon as it is there. When nobody can read it any more the request is
 * cancelled. */
static void print_stream(struct hg_request *r)
{
    struct hg_event e = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_buf text = {0};
    for (size_t at = 0; e.type != HG_EVENT_END; at++) {
        hg_stream_wait(&r->stream, at);
        if (!hg_stream_read(&r->stream, at, &e, &text, tops))
            break;
        hg_terminal_write(stdout, text.data, text.len);
        if (!hg_terminal_flush())
            hg_request_cancel(r);
        hg_buf_clear(&text);
    }
    putchar('\n');
    hg_buf_deinit(&text);
}

static enum hg_status print_json(struct hg_run *run, struct hg_request *r)
{
    struct hg_buf out = {0};
    enum hg_status status = hg_reply_answer(&run->reply, r, &out);
    if (status == HG_STATUS_OK)
        hg_terminal_line(stdout, out.data);
    hg_buf_deinit(&out);
    return status;
}

static enum hg_status ask(const struct hg_cli *cli, struct hg_error *err)
{
    struct hg_run run = {0};
    struct hg_ask a;
    struct hg_request *r = NULL;
    /* The pictures first: a wrong path should not wait for the model to load. */
    enum hg_status status = hg_run_ask_of(cli, HG_TASK_COMPREHENSION, cli->args[0], &a, err);
    if (status != HG_STATUS_OK)
        goto out;
    HG_TRY_OUT(hg_run_open(cli, 1, &run, err));
    HG_TRY_OUT(hg_run_submit(&run, &a, &r, err));
    if (!cli->json)
        print_stream(r);
    hg_stream_wait(&r->stream, SIZE_MAX); /* the end */
    if (ferror(stdout))                   /* cancelled by print_stream; main says why */
        goto out;
    if (r->result.error.status != HG_STATUS_OK) {
        *err = r->result.error;
        status = err->status;
        goto out;
    }
    if (cli->json)
        HG_TRY_OUT(print_json(&run, r));
    if (r->result.finish == HG_FINISH_LENGTH && !cli->json)
        fprintf(stderr, "healthgpt ask: the answer was cut at %d tokens (--max-tokens)\n",
                r->result.n_generated);
out:
    hg_request_unref(r);
    hg_run_close(&run);
    hg_ask_deinit(&a);
    return status;
}

int hg_cli_ask(const struct hg_cli *cli)
{
    struct hg_error err = {0};
    if (cli->n_args != 1)
        return hg_cli_usage_error("ask", "expected one question (in quotes)");
    if (cli->args[0][0] == '\0')
        return hg_cli_usage_error("ask", "the question is empty");
    return ask(cli, &err) == HG_STATUS_OK ? 0 : hg_cli_fail("ask", &err);
}
