/* tools/healthgpt/cmd_tokenize.c - text <-> token ids, without loading a model. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "model/load/model_source.h"
#include "model/model_path.h"
#include "model/text/tokenizer.h"
#include "server/json_text.h"
#include "tools/healthgpt/cli.h"
#include "tools/healthgpt/terminal.h"

enum { MAX_INPUT = 64 << 20 };

/* ---- which tokenizer ------------------------------------------------------------------------- */

/* One of the files of a tokenizer's folder is as good as the folder. */
static void folder_of(const char *path, char *out, size_t cap)
{
    static const char *const members[] = {
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "vocab.json",     "merges.txt",      "added_tokens.json"};
    snprintf(out, cap, "%s", path);
    char *slash = strrchr(out, '/');
    const char *name = slash ? slash + 1 : out;
    struct stat st;
    bool member = false;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        member = member || !strcmp(name, members[i]);
    if (!member)
        return;
    if (slash)
        *slash = '\0';
    else
        snprintf(out, cap, ".");
}

static enum hg_status open_tokenizer(const struct hg_cli *cli, struct hg_tokenizer **out,
                                     struct hg_error *err)
{
    char dir[4096], llm[HG_PLACE_CAP];
    struct hg_model_place place;
    struct hg_model_card card;
    if (cli->tokenizer) {
        folder_of(cli->tokenizer, dir, sizeof dir);
        return hg_tokenizer_load_as(dir, cli->regex, out, err);
    }
    HG_TRY(hg_model_path_resolve(cli->model, dir, sizeof dir, err));
    HG_TRY(hg_model_place(dir, cli->weights, &place, err));
    HG_TRY(hg_model_card_read(place.card, &card, err));
    HG_TRY(hg_model_find(&place, &card, HG_PART_LLM, llm, err));
    HG_TRY(hg_tokenizer_load_as(llm, cli->regex, out, err));
    int32_t first;
    return card.n_image_tokens > 0
               ? hg_tokenizer_add_image_tokens(*out, card.n_image_tokens, &first, err)
               : HG_STATUS_OK;
}

/* ---- one piece ------------------------------------------------------------------------------- */

static enum hg_status encode(const struct hg_cli *cli, const struct hg_tokenizer *t,
                             const char *text, size_t n, struct hg_error *err)
{
    struct hg_text_part part = {text, n, cli->special};
    struct hg_ids ids = {0};
    struct hg_buf line = {0};
    struct hg_json_out o;
    enum hg_status status = hg_tokenizer_encode(t, &part, 1, &ids, err);
    hg_out_begin(&o, &line);
    if (cli->json_lines)
        hg_out_open(&o, NULL, '[');
    for (size_t i = 0; i < ids.n; i++) {
        if (!cli->json_lines && i > 0)
            o.failed |= hg_buf_append(&line, " ", 1) != HG_STATUS_OK;
        o.comma &= cli->json_lines;
        hg_out_int(&o, NULL, ids.data[i]);
    }
    if (cli->json_lines)
        hg_out_close(&o, ']');
    if (status == HG_STATUS_OK && o.failed)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "out of memory");
    if (status == HG_STATUS_OK)
        hg_terminal_line(stdout, line.data ? line.data : "");
    hg_ids_deinit(&ids);
    hg_buf_deinit(&line);
    return status;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* not the time that others took the core */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --time: what one thread reads, best of five, or of fewer for a text that takes long. */
static enum hg_status time_encoding(const struct hg_cli *cli, const struct hg_tokenizer *t,
                                    const char *text, size_t n, struct hg_error *err)
{
    struct hg_text_part part = {text, n, cli->special};
    double best = 1e9, begin = now();
    size_t n_ids = 0;
    for (int i = 0; i < 5 && (i == 0 || now() - begin < 1); i++) {
        struct hg_ids ids = {0};
        double start = now();
        enum hg_status status = hg_tokenizer_encode(t, &part, 1, &ids, err);
        double seconds = now() - start;
        n_ids = ids.n;
        hg_ids_deinit(&ids);
        HG_TRY(status);
        best = seconds < best ? seconds : best;
    }
    printf("%zu bytes, %zu ids, %.3f ms of processor time, %.1f MB/s\n", n, n_ids, best * 1e3,
           (double)n / (best > 0 ? best : 1e-9) * 1e-6);
    return HG_STATUS_OK;
}

static enum hg_status decode(const struct hg_cli *cli, const struct hg_tokenizer *t,
                             const struct hg_ids *ids, struct hg_error *err)
{
    struct hg_buf text = {0}, line = {0};
    struct hg_detok d;
    struct hg_json_out o;
    enum hg_status status = HG_STATUS_OK;
    hg_detok_init(&d, t, cli->special);
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->data[i] < 0 || ids->data[i] >= hg_tokenizer_size(t)) {
            status = hg_fail(err, HG_STATUS_BAD_REQUEST, "id %d: expected 0..%d", (int)ids->data[i],
                             (int)hg_tokenizer_size(t) - 1);
            goto out;
        }
        HG_TRY_OUT(hg_detok_push(&d, ids->data[i], &text));
    }
    HG_TRY_OUT(hg_detok_finish(&d, &text));
    hg_out_begin(&o, &line);
    if (cli->json_lines)
        hg_out_string_n(&o, NULL, text.data ? text.data : "", text.len);
    else
        o.failed = hg_buf_append(&line, text.data ? text.data : "", text.len) != HG_STATUS_OK;
    if (o.failed)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "out of memory");
    else
        hg_terminal_line(stdout, line.data ? line.data : "");
out:
    hg_buf_deinit(&text);
    hg_buf_deinit(&line);
    return status;
}

/* ---- input ----------------------------------------------------------------------------------- */

static enum hg_status read_stdin(struct hg_buf *out, struct hg_error *err)
{
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) {
        if (out->len + n > MAX_INPUT)
            return hg_fail(err, HG_STATUS_TOO_LARGE, "stdin: more than %d bytes", MAX_INPUT);
        HG_TRY(hg_buf_append(out, block, n));
    }
    return HG_STATUS_OK;
}

static enum hg_status push_id(struct hg_ids *ids, long long v, struct hg_error *err)
{
    if (v < 0 || v > INT32_MAX)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "id %lld: out of range", v);
    return hg_ids_push(ids, (int32_t)v);
}

/* "1 2 3", also with commas and brackets. */
static enum hg_status read_ids(const char *s, struct hg_ids *ids, struct hg_error *err)
{
    for (;;) {
        char *end;
        s += strspn(s, " \t\r\n,[]");
        if (!*s)
            return HG_STATUS_OK;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (end == s || errno)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "expected token ids, got \"%.20s\"", s);
        HG_TRY(push_id(ids, v, err));
        s = end;
    }
}

/* A line of --json-lines: a string to encode, or an array to decode. */
static enum hg_status json_line(const struct hg_cli *cli, const struct hg_tokenizer *t, bool back,
                                const char *s, size_t n, struct hg_error *err)
{
    json_error_t e;
    struct hg_ids ids = {0};
    enum hg_status status = HG_STATUS_OK;
    json_t *v = json_loadb(s, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!v || !(back ? json_is_array(v) : json_is_string(v))) {
        status = hg_fail(err, HG_STATUS_BAD_REQUEST, "expected a JSON %s per line",
                         back ? "array of ids" : "string");
        goto out;
    }
    if (!back) {
        status = encode(cli, t, json_string_value(v), json_string_length(v), err);
        goto out;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        HG_TRY_OUT(push_id(&ids, json_is_integer(id) ? json_integer_value(id) : -1, err));
    }
    status = decode(cli, t, &ids, err);
out:
    hg_ids_deinit(&ids);
    json_decref(v);
    return status;
}

static enum hg_status json_lines(const struct hg_cli *cli, const struct hg_tokenizer *t, bool back,
                                 struct hg_error *err)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    enum hg_status status = HG_STATUS_OK;
    while (status == HG_STATUS_OK && !ferror(stdout) && (n = getline(&line, &cap, stdin)) >= 0) {
        struct hg_error cause = {0};
        number++;
        status = json_line(cli, t, back, line, (size_t)n, &cause);
        if (status != HG_STATUS_OK)
            hg_fail(err, status, "line %zu: %.160s", number, cause.text);
    }
    free(line);
    return status;
}

static enum hg_status tokenize(const struct hg_cli *cli, const struct hg_tokenizer *t,
                               struct hg_error *err)
{
    struct hg_buf text = {0};
    enum hg_status (*read)(const struct hg_cli *, const struct hg_tokenizer *, const char *, size_t,
                           struct hg_error *) = cli->timed ? time_encoding : encode;
    if (cli->n_args > 0)
        return read(cli, t, cli->args[0], strlen(cli->args[0]), err);
    enum hg_status status = read_stdin(&text, err);
    if (status == HG_STATUS_OK)
        status = read(cli, t, text.data ? text.data : "", text.len, err);
    hg_buf_deinit(&text);
    return status;
}

static enum hg_status detokenize(const struct hg_cli *cli, const struct hg_tokenizer *t,
                                 struct hg_error *err)
{
    struct hg_buf text = {0};
    struct hg_ids ids = {0};
    enum hg_status status = HG_STATUS_OK;
    for (int i = 0; i < cli->n_args; i++)
        HG_TRY_OUT(read_ids(cli->args[i], &ids, err));
    if (cli->n_args == 0) {
        HG_TRY_OUT(read_stdin(&text, err));
        HG_TRY_OUT(read_ids(text.data ? text.data : "", &ids, err));
    }
    status = decode(cli, t, &ids, err);
out:
    hg_ids_deinit(&ids);
    hg_buf_deinit(&text);
    return status;
}

static int run(const struct hg_cli *cli, const char *name, bool back)
{
    if (cli->json_lines && cli->n_args > 0)
        return hg_cli_usage_error(name, "with --json-lines the input is read from stdin");
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    enum hg_status status = open_tokenizer(cli, &t, &err);
    if (status == HG_STATUS_OK)
        status = cli->json_lines ? json_lines(cli, t, back, &err)
                 : back          ? detokenize(cli, t, &err)
                                 : tokenize(cli, t, &err);
    hg_tokenizer_free(t);
    return status == HG_STATUS_OK ? 0 : hg_cli_fail(name, &err);
}

int hg_cli_tokenize(const struct hg_cli *cli)
{
    if (cli->n_args > 1)
        return hg_cli_usage_error("tokenize", "expected one text (in quotes)");
    return run(cli, "tokenize", false);
}

int hg_cli_detokenize(const struct hg_cli *cli)
{
    return run(cli, "detokenize", true);
}
