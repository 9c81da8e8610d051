/* tools/load/main.c - healthgpt-load: load on a daemon, and what its clients saw. */
#include <stdio.h>
#include <sys/resource.h>

#include "server/process.h"
#include "tools/load/options.h"
#include "tools/load/plot.h"

/* As many descriptors as the system gives: each request in the air is one. */
static void raise_limit(size_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted + 64)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static enum hg_status run(const struct hg_load_cli *c, struct hg_load_result *r,
                          struct hg_error *err)
{
    char title[160];
    const struct hg_load_mix *m = &c->run.mix;
    r->keep_digests = c->digests != NULL;
    HG_TRY(hg_load_run(&c->run, r, err));
    if (m->rate > 0)
        snprintf(title, sizeof title, "%.4g requests per second, open loop", m->rate);
    else
        snprintf(title, sizeof title, "%d clients, closed loop", c->run.concurrency);
    if (c->json) {
        hg_load_print_json(r, stdout);
    } else {
        printf("%s: ", title);
        hg_load_print_table(r, stdout);
    }
    if (c->digests)
        HG_TRY(hg_load_write_digests(r, c->digests, err));
    return c->plot ? hg_load_plot(r, title, c->plot, err) : HG_STATUS_OK;
}

int main(int argc, char **argv)
{
    static struct hg_load_cli cli;
    struct hg_error err = {0};
    struct hg_load_result result = {0};
    hg_process_init("healthgpt-load");
    enum hg_status status = hg_load_parse(argc, argv, &cli, &err);
    if (status == HG_STATUS_OK && cli.help) {
        hg_load_usage(stdout);
        return 0;
    }
    if (status == HG_STATUS_OK) {
        raise_limit(cli.run.max_open);
        status = run(&cli, &result, &err);
    }
    hg_load_result_deinit(&result);
    if (status == HG_STATUS_OK)
        return 0;
    fprintf(stderr, "healthgpt-load: %s\n", err.text[0] ? err.text : hg_status_text(status));
    return hg_status_exit_code(status);
}
