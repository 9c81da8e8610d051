#include "tools/load/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/load/conn.h"

enum kind { TEXT, INT, COUNT, SIZE, REAL, SWITCH, RANGE, KEY };

struct row {
    const char *name, *argument, *help;
    enum kind kind;
    size_t offset;
    double min, max;
};

#define AT(member) offsetof(struct hg_load_cli, member)
static const struct row rows[] = {
    {"url", "HOST:PORT", "the daemon (default 127.0.0.1:8080)", TEXT, AT(url), 0, 0},
    {"rate", "R", "open loop: requests per second, a Poisson process", REAL, AT(run.mix.rate), 0,
     1e6},
    {"concurrency", "N", "closed loop: N clients, one request after the other (default 1)", INT,
     AT(run.concurrency), 1, 60000},
    {"duration", "S", "seconds of arrivals, warm-up included (default 10)", REAL,
     AT(run.duration_s), 0.01, 1e6},
    {"warmup", "S", "seconds at the begin that do not count (default 0)", REAL, AT(run.warmup_s), 0,
     1e6},
    {"count", "N", "stop after N requests instead", COUNT, AT(run.count), 1, 1e9},
    {"ask", "X", "share of questions about a picture (default 1)", REAL,
     AT(run.mix.share[HG_LOAD_ASK]), 0, 1e6},
    {"text", "X", "share of questions without one (default 0)", REAL,
     AT(run.mix.share[HG_LOAD_TEXT]), 0, 1e6},
    {"draw", "X", "share of pictures from text (default 0)", REAL, AT(run.mix.share[HG_LOAD_DRAW]),
     0, 1e6},
    {"edit", "X", "share of pictures from a picture (default 0)", REAL,
     AT(run.mix.share[HG_LOAD_EDIT]), 0, 1e6},
    {"words", "A..B", "words added to a prompt, even on a logarithmic scale (default 1..32)", RANGE,
     AT(run.mix.words_min), 1, 1e5},
    {"tokens", "A..B", "max_tokens of an answer, likewise (default 8..64)", RANGE,
     AT(run.mix.tokens_min), 1, 1e5},
    {"pictures", "N", "different pictures that are asked about (default 16)", INT,
     AT(run.mix.n_pictures), 1, 4096},
    {"distinct", "N", "request i repeats request i mod N; 0: all differ (default 0)", COUNT,
     AT(run.mix.n_distinct), 0, 1e9},
    {"streamed", "X", "share that streams, 0..1 (default 1)", REAL, AT(run.mix.streamed), 0, 1},
    {"sampled", "X", "share that is sampled, each with a seed; the others are greedy (default 0)",
     REAL, AT(run.mix.sampled), 0, 1},
    {"temperature", "X", "of those (default 0.9)", REAL, AT(run.mix.temperature), 0.01, 2},
    {"previews", "N", "previews of a streamed picture (default 0)", INT, AT(run.mix.previews), 0,
     8},
    {"abandon", "X", "share of clients that leave (default 0)", REAL, AT(run.mix.abandon), 0, 1},
    {"abandon-ms", "T", "after this time in the mean (default 50)", REAL, AT(run.mix.abandon_ms), 0,
     1e6},
    {"slow", "X", "share of clients that read slowly (default 0)", REAL, AT(run.mix.slow), 0, 1},
    {"slow-bytes", "N", "bytes per second that they read (default 4096)", INT,
     AT(run.slow_bytes_per_s), 1, 1e9},
    {"key", "KEY", "API key, sent as Authorization: Bearer; repeat for more", KEY, 0, 0, 0},
    {"deadline-ms", "T", "an answer is good within T (default 10000)", REAL, AT(run.deadline_ms), 0,
     1e9},
    {"first-ms", "T", "and when its first token came within T; 0: any (default 0)", REAL,
     AT(run.first_ms), 0, 1e9},
    {"timeout-ms", "N", "timeout_ms asked of the server; 0: its own (default 0)", INT,
     AT(run.mix.timeout_ms), 0, 1e9},
    {"patience-ms", "T", "a client gives up (default 120000)", REAL, AT(run.patience_ms), 1, 1e9},
    {"max-open", "N", "requests at a time; more are errors (default 4096)", SIZE, AT(run.max_open),
     1, 60000},
    {"draw-path", "PATH", "route of pictures (default /v1/draw)", TEXT, AT(run.target.draw_path), 0,
     0},
    {"seed", "N", "another load of the same kind (default 1)", COUNT, AT(run.mix.seed), 0, 1e15},
    {"digests", "FILE", "write number, kind, status, tokens, digest of each answer", TEXT,
     AT(digests), 0, 0},
    {"plot", "FILE.svg", "write the distributions", TEXT, AT(plot), 0, 0},
    {"json", "", "print one JSON object instead of the table", SWITCH, AT(json), 0, 0},
    {"help", "", "this text", SWITCH, AT(help), 0, 0},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static const char usage_text[] =
    "usage: healthgpt-load [options]\n"
    "Puts load on a healthgptd and prints what its clients saw: time to first token, between\n"
    "tokens, end to end (p50, p90, p99), tokens, images and good answers per second, refusals and\n"
    "errors. Times count from when a request was due. Exit status 0 also when requests failed.\n\n";

void hg_load_usage(FILE *to)
{
    fputs(usage_text, to);
    for (int i = 0; i < N_ROWS; i++) {
        char flag[40];
        snprintf(flag, sizeof flag, "--%s %s", rows[i].name, rows[i].argument);
        fprintf(to, "  %-22s %s\n", flag, rows[i].help);
    }
    fputs("\nhealthgpt-load --rate 50 --ask 8 --text 1 --draw 1 --duration 30 --plot load.svg\n"
          "healthgpt-load --concurrency 32 --text 1 --ask 0 --tokens 64 --duration 10\n",
          to);
}

static void defaults(struct hg_load_cli *c)
{
    *c = (struct hg_load_cli){.url = "127.0.0.1:8080"};
    struct hg_load_options *o = &c->run;
    o->concurrency = 1;
    o->duration_s = 10;
    o->deadline_ms = 10000;
    o->patience_ms = 120000;
    o->slow_bytes_per_s = 4096;
    o->max_open = 4096;
    o->target.draw_path = "/v1/draw";
    struct hg_load_mix *m = &o->mix;
    m->seed = 1;
    m->share[HG_LOAD_ASK] = 1;
    m->words_min = 1;
    m->words_max = 32;
    m->tokens_min = 8;
    m->tokens_max = 64;
    m->n_pictures = 16;
    m->streamed = 1;
    m->temperature = 0.9;
    m->abandon_ms = 50;
}

static enum hg_status bad(const struct row *r, const char *value, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s: expected %s in %.10g..%.10g, got \"%.40s\"",
                   r->name,
                   r->kind == RANGE  ? "A..B or a number"
                   : r->kind == REAL ? "a number"
                                     : "a whole number",
                   r->min, r->max, value);
}

static enum hg_status set_range(const struct row *r, const char *value, int *out,
                                struct hg_error *err)
{
    char *end;
    long lo = strtol(value, &end, 10), hi = lo;
    if (end != value && strncmp(end, "..", 2) == 0) {
        const char *at = end + 2;
        hi = strtol(at, &end, 10);
        if (end == at)
            return bad(r, value, err);
    }
    if (end == value || *end || (double)lo < r->min || hi < lo || (double)hi > r->max)
        return bad(r, value, err);
    out[0] = (int)lo;
    out[1] = (int)hi;
    return HG_STATUS_OK;
}

static enum hg_status set_number(const struct row *r, const char *value, void *at,
                                 struct hg_error *err)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    if (errno || end == value || *end || !isfinite(v) || v < r->min || v > r->max ||
        (r->kind != REAL && v != floor(v)))
        return bad(r, value, err);
    if (r->kind == REAL)
        memcpy(at, &v, sizeof v);
    else if (r->kind == INT)
        memcpy(at, &(int){(int)v}, sizeof(int));
    else if (r->kind == SIZE)
        memcpy(at, &(size_t){(size_t)v}, sizeof(size_t));
    else
        memcpy(at, &(uint64_t){(uint64_t)v}, sizeof(uint64_t));
    return HG_STATUS_OK;
}

static enum hg_status set(struct hg_load_cli *c, const struct row *r, const char *value,
                          struct hg_error *err)
{
    void *at = (char *)c + r->offset;
    const bool yes = true;
    switch (r->kind) {
    case SWITCH:
        memcpy(at, &yes, sizeof yes);
        return HG_STATUS_OK;
    case TEXT:
        memcpy(at, &value, sizeof value);
        return HG_STATUS_OK;
    case KEY:
        if (c->run.mix.n_keys == HG_LOAD_MAX_KEYS || strpbrk(value, "\r\n"))
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "--key: at most %d, of one line",
                           HG_LOAD_MAX_KEYS);
        c->keys[c->run.mix.n_keys++] = value;
        return HG_STATUS_OK;
    case RANGE: {
        int range[2];
        HG_TRY(set_range(r, value, range, err));
        memcpy(at, range, sizeof range); /* min and max are neighbours */
        return HG_STATUS_OK;
    }
    default:
        return set_number(r, value, at, err);
    }
}

static const struct row *find(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

enum hg_status hg_load_parse(int argc, char **argv, struct hg_load_cli *out, struct hg_error *err)
{
    defaults(out);
    for (int i = 1; i < argc; i++) {
        const struct row *r = strncmp(argv[i], "--", 2) == 0 ? find(argv[i] + 2) : NULL;
        if (!r)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "unknown option %.64s", argv[i]);
        if (r->kind != SWITCH && i + 1 == argc)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "--%s: expected %s", r->name, r->argument);
        HG_TRY(set(out, r, r->kind == SWITCH ? "" : argv[++i], err));
    }
    if (out->help)
        return HG_STATUS_OK;
    double sum = 0;
    for (int k = 0; k < HG_LOAD_KINDS; k++)
        sum += out->run.mix.share[k];
    if (sum <= 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "--ask, --text, --draw, --edit: one of them must be more than 0");
    if (out->run.count == 0 && out->run.warmup_s >= out->run.duration_s)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "--warmup: expected less than --duration, %g, got %g", out->run.duration_s,
                       out->run.warmup_s);
    if ((size_t)out->run.concurrency > out->run.max_open)
        out->run.max_open = (size_t)out->run.concurrency;
    out->run.target.host = strncmp(out->url, "http://", 7) == 0 ? out->url + 7 : out->url;
    out->run.target.keys = out->keys;
    return hg_conn_resolve(out->url, &out->run.address, &out->run.address_len, err);
}
