/* tools/healthgpt/cmd_batch.c - JSON lines in, JSON lines out, one model, many requests at a time.
 *
 * A window of requests is kept in flight; the oldest is waited for and printed, so that the output
 * has the order of the input while the scheduler's batch stays full. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "server/api.h"
#include "tools/healthgpt/output.h"
#include "tools/healthgpt/run.h"
#include "tools/healthgpt/terminal.h"

struct job {
    char *id; /* JSON text, echoed */
    char *output;
    struct hg_request *request; /* NULL: `error` says why */
    struct hg_api_error error;
};

static void job_deinit(struct job *j)
{
    free(j->id);
    free(j->output);
    hg_request_unref(j->request);
    *j = (struct job){0};
}

/* ---- a line in ------------------------------------------------------------------------------- */

/* Keys that are read here; all others go through the server's table of fields. "expect" is the
 * label that question sets carry. */
static const char *const own_keys[] = {"id",     "task",   "images", "question", "image",
                                       "output", "plugin", "expect", NULL};

static bool refuse(struct job *j, const char *text)
{
    hg_api_error_set(&j->error, 400, "invalid_request", text);
    return false;
}

static bool refuse_with(struct job *j, const struct hg_error *err)
{
    hg_api_error_of(&j->error, err);
    return false;
}

static bool add_images(struct job *j, const json_t *list, struct hg_ask *ask)
{
    struct hg_error err = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *path = json_string_value(json_array_get(list, i));
        if (!path)
            return refuse(j, "images: expected a list of paths");
        if (hg_run_add_image(ask, path, &err) != HG_STATUS_OK)
            return refuse_with(j, &err);
    }
    return !list || json_is_array(list) || refuse(j, "images: expected a list of paths");
}

static bool read_fields(struct job *j, const json_t *line, struct hg_ask *ask)
{
    const json_t *task = json_object_get(line, "task");
    const json_t *question = json_object_get(line, "question");
    const json_t *plugin = json_object_get(line, "plugin");
    const json_t *output = json_object_get(line, "output");
    const char *name = task ? json_string_value(task) : "ask";
    struct hg_error err = {0};
    if (!name || (strcmp(name, "ask") != 0 && strcmp(name, "draw") != 0))
        return refuse(j, "task: expected \"ask\" or \"draw\"");
    hg_ask_init(ask, strcmp(name, "draw") == 0 ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION);
    if (!json_is_string(question))
        return refuse(j, "question: expected a string");
    if (plugin && !(json_is_string(plugin) && strcmp(json_string_value(plugin), "none") == 0))
        return refuse(j, "plugin: expected \"none\"");
    if (output && !json_is_string(output))
        return refuse(j, "output: expected a path");
    ask->no_plugin = plugin != NULL;
    ask->n_question = json_string_length(question);
    ask->question = strdup(json_string_value(question));
    j->output = output ? strdup(json_string_value(output)) : NULL;
    if (!ask->question || (output && !j->output))
        return refuse_with(j, &(struct hg_error){.status = HG_STATUS_NO_MEMORY});
    if (j->output && hg_output_is_stdout(j->output))
        return refuse(j, "output: stdout holds the answers");
    if (j->output && hg_output_check(j->output, &err) != HG_STATUS_OK)
        return refuse_with(j, &err);
    if (json_object_get(line, "image"))
        return refuse(j, "image: expected \"images\", a list of paths");
    return hg_api_parse_object(line, own_keys, ask, &j->error) &&
           add_images(j, json_object_get(line, "images"), ask);
}

static void start(struct hg_run *run, const char *text, size_t n, struct job *j)
{
    struct hg_ask ask = {0};
    struct hg_error err = {0};
    json_t *line = NULL;
    if (hg_json_body_parse(text, n, &line, &err) != HG_STATUS_OK) {
        refuse_with(j, &err);
        return;
    }
    const json_t *id = json_is_object(line) ? json_object_get(line, "id") : NULL;
    j->id = id ? json_dumps(id, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    if (!json_is_object(line))
        refuse(j, "expected one JSON object per line");
    else if (read_fields(j, line, &ask) &&
             hg_run_submit(run, &ask, &j->request, &err) != HG_STATUS_OK)
        refuse_with(j, &err);
    hg_ask_deinit(&ask);
    json_decref(line);
}

/* ---- a line out ------------------------------------------------------------------------------ */

static void put_answer(struct hg_json_out *o, const struct hg_run *run, struct hg_request *r)
{
    struct hg_buf text = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_event e;
    hg_out_open(o, "ids", '[');
    for (size_t i = 0; hg_stream_read(&r->stream, i, &e, &text, tops); i++) {
        o->failed |= e.type == HG_EVENT_LOST;
        if (e.type == HG_EVENT_TOKEN && e.id >= 0)
            hg_out_int(o, NULL, e.id);
    }
    hg_out_close(o, ']');
    hg_out_string_n(o, "text", text.data ? text.data : "", text.len);
    hg_out_string(o, "finish", hg_finish_name(r->result.finish));
    if (r->sampling.n_top > 0) {
        hg_out_open(o, "top_logprobs", '[');
        for (size_t i = 0; hg_stream_read(&r->stream, i, &e, &text, tops); i++)
            if (e.type == HG_EVENT_TOKEN && e.id >= 0)
                hg_reply_tops(o, NULL, run->reply.tokenizer, tops, e.n_top);
        hg_out_close(o, ']');
    }
    hg_buf_deinit(&text);
}

static void put_drawing(struct hg_json_out *o, const struct job *j)
{
    const struct hg_result *result = &j->request->result;
    if (j->output)
        hg_out_string(o, "output", j->output);
    hg_out_open(o, "indices", '[');
    for (size_t i = 0; i < result->n_codes; i++)
        hg_out_int(o, NULL, result->codes[i]);
    hg_out_close(o, ']');
    hg_out_uint(o, "seed", j->request->sampling.seed);
}

/* Wait for the job and print its line. */
static enum hg_status finish(const struct hg_run *run, struct job *j)
{
    struct hg_buf line = {0};
    struct hg_json_out o;
    struct hg_error err = {0};
    struct hg_request *r = j->request;
    if (r) {
        hg_stream_wait(&r->stream, SIZE_MAX);
        err = r->result.error;
        struct hg_synthetic mark = hg_reply_mark(&run->reply, r);
        if (err.status == HG_STATUS_OK && r->task == HG_TASK_GENERATION && j->output)
            hg_output_write(j->output, &r->result.image, &mark, &err);
        if (err.status != HG_STATUS_OK)
            hg_api_error_of(&j->error, &err);
    }
    hg_out_begin(&o, &line);
    hg_out_open(&o, NULL, '{');
    hg_out_raw(&o, "id", j->id ? j->id : "null");
    if (!r || j->error.status != HG_STATUS_OK)
        hg_api_put_error(&o, &j->error);
    else if (r->task == HG_TASK_GENERATION)
        put_drawing(&o, j);
    else
        put_answer(&o, run, r);
    hg_out_close(&o, '}');
    if (!o.failed)
        hg_terminal_line(stdout, line.data);
    hg_buf_deinit(&line);
    return o.failed ? HG_STATUS_NO_MEMORY : hg_terminal_flush() ? HG_STATUS_OK : HG_STATUS_IO;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

static enum hg_status run_lines(struct hg_run *run, size_t window, struct hg_error *err)
{
    struct job *jobs = calloc(window, sizeof *jobs);
    char *line = NULL;
    size_t cap = 0, first = 0, n = 0;
    enum hg_status status = HG_STATUS_OK;
    if (!jobs)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "batch: out of memory");
    for (bool more = true; more || n > 0;) {
        ssize_t len = more && n < window ? getline(&line, &cap, stdin) : -1;
        if (more && n < window && len < 0)
            more = false;
        if (len >= 0 && !is_blank(line)) {
            start(run, line, (size_t)len, &jobs[(first + n) % window]);
            n++;
        }
        if (n > 0 && (n == window || !more)) {
            if (status == HG_STATUS_OK)
                status = finish(run, &jobs[first]);
            else if (jobs[first].request)
                hg_request_cancel(jobs[first].request);
            more &= status == HG_STATUS_OK; /* nobody reads: read no more */
            job_deinit(&jobs[first]);
            first = (first + 1) % window;
            n--;
        }
    }
    free(line);
    free(jobs);
    if (status == HG_STATUS_IO) /* hg_terminal_finish() says it */
        status = HG_STATUS_OK;
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "out of memory");
}

int hg_cli_batch(const struct hg_cli *cli)
{
    struct hg_run run = {0};
    struct hg_error err = {0};
    if (cli->n_args != 0)
        return hg_cli_usage_error("batch", "requests are read from stdin");
    enum hg_status status = hg_run_open(cli, (int)cli->max_batch, &run, &err);
    if (status == HG_STATUS_OK) /* the scheduler's queue holds twice the batch */
        status = run_lines(&run, 2 * (size_t)cli->max_batch, &err);
    hg_run_close(&run);
    return status == HG_STATUS_OK ? 0 : hg_cli_fail("batch", &err);
}
