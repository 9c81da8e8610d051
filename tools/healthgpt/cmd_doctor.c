/* tools/healthgpt/cmd_doctor.c - runs the parts of the doctor, prints its document. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "server/version.h"
#include "tools/healthgpt/doctor.h"
#include "tools/healthgpt/terminal.h"

enum { READ_SECONDS = 20 };

static void examine(struct hg_doctor *d)
{
    hg_doctor_config(d); /* first: the others look at its values */
    hg_doctor_network(d);
    hg_doctor_machine(d);
    hg_doctor_libraries(d);
    hg_doctor_cuda(d);
    hg_doctor_model(d);
}

/* One line for each finding, its advice below. */
static void print_text(const json_t *findings, const int n[3])
{
    static const char *const shown[] = {"ok  ", "warn", "FAIL"};
    size_t i;
    json_t *f;
    char line[2048];
    json_array_foreach(findings, i, f)
    {
        const char *level = json_string_value(json_object_get(f, "level"));
        const char *next = json_string_value(json_object_get(f, "next"));
        int k = strcmp(level, "ok") == 0 ? 0 : strcmp(level, "warn") == 0 ? 1 : 2;
        snprintf(line, sizeof line, "%s  %-13s  %s%s%s", shown[k],
                 json_string_value(json_object_get(f, "area")),
                 json_string_value(json_object_get(f, "text")), next ? "; next: " : "",
                 next ? next : "");
        hg_terminal_line(stdout, line);
    }
    printf("%d ok, %d to look at, %d failed: %s\n", n[0], n[1], n[2],
           n[2]   ? "healthgptd will not run like this"
           : n[1] ? "healthgptd should run"
                  : "nothing is wrong here");
}

static bool finish(struct hg_doctor *d, struct hg_buf *findings)
{
    hg_out_close(d->findings, ']');
    if (d->findings->failed)
        return false;
    hg_out_string(d->o, "result", d->n[2] ? "fail" : d->n[1] ? "warn" : "ok");
    hg_out_open(d->o, "counts", '{');
    hg_out_int(d->o, "ok", d->n[0]);
    hg_out_int(d->o, "warn", d->n[1]);
    hg_out_int(d->o, "fail", d->n[2]);
    hg_out_close(d->o, '}');
    hg_out_raw(d->o, "findings", findings->data);
    hg_out_close(d->o, '}');
    return !d->o->failed;
}

static bool show(const struct hg_doctor *d, const struct hg_buf *text,
                 const struct hg_buf *findings)
{
    if (d->cli->json) {
        hg_terminal_line(stdout, text->data);
        return true;
    }
    json_t *doc = json_loadb(findings->data, findings->len, 0, NULL);
    if (doc)
        print_text(doc, d->n);
    json_decref(doc);
    return doc != NULL;
}

int hg_cli_doctor(const struct hg_cli *cli)
{
    struct hg_buf text = {0}, findings = {0};
    struct hg_json_out o, f;
    if (cli->n_args != 0)
        return hg_cli_usage_error("doctor", "expected no argument; the folder is --model DIR");
    struct hg_doctor *d = calloc(1, sizeof *d);
    hg_out_begin(&o, &text);
    hg_out_begin(&f, &findings);
    bool done = false;
    int code = 0;
    if (d) {
        *d = (struct hg_doctor){.cli = cli, .o = &o, .findings = &f};
        d->deadline_ns = hg_now_ns() + (int64_t)READ_SECONDS * 1000000000;
        hg_out_open(&f, NULL, '[');
        hg_out_open(&o, NULL, '{');
        hg_out_int(&o, "format", 1);
        hg_out_string(&o, "version", HG_VERSION);
        examine(d);
        done = finish(d, &findings) && show(d, &text, &findings);
        code = d->exit_code;
    }
    free(d);
    hg_buf_deinit(&text);
    hg_buf_deinit(&findings);
    if (!done)
        return hg_cli_fail("doctor", &(struct hg_error){.status = HG_STATUS_NO_MEMORY});
    return code;
}
