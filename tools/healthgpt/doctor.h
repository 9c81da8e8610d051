/* tools/healthgpt/doctor.h - `healthgpt doctor`: what an operator runs before asking for help.
 *
 * Each part looks at one thing and leaves two things behind: facts, an object in the document, and
 * findings, a line each: OK, WARN or FAIL and what to do next. Nothing stops at the first problem,
 * nothing is downloaded, no weight is read (headers only), and it takes bounded time.
 *
 * The document is made to be pasted into an issue: no value of the environment, no host or user
 * name, and no absolute path but what was typed. hg_doctor_note sees to that for every finding;
 * facts are numbers, names of the card, and paths below the model folder. */
#ifndef HG_TOOLS_DOCTOR_H
#define HG_TOOLS_DOCTOR_H

#include <stdbool.h>

#include "common/machine.h"
#include "server/config/config.h"
#include "server/json_text.h"
#include "tools/healthgpt/cli.h"

enum hg_doctor_level { HG_DOCTOR_OK, HG_DOCTOR_WARN, HG_DOCTOR_FAIL };

enum { HG_DOCTOR_HIDDEN = 16, HG_DOCTOR_PATH = 4096 };

struct hg_doctor {
    const struct hg_cli *cli;
    struct hg_json_out *o;        /* the document: facts */
    struct hg_json_out *findings; /* an array beside it */
    int n[3];                     /* findings of each level */
    int exit_code;                /* of the first FAIL */
    const char *area;             /* of the findings that come */
    struct {
        const char *text;  /* not to be shown, */
        const char *shown; /* this is, instead */
    } hidden[HG_DOCTOR_HIDDEN];
    int n_hidden;
    struct hg_machine machine;
    struct hg_config config;
    bool has_card; /* a GPU that the cuda backend can use */
    uint64_t card_bytes, card_free;
    int64_t deadline_ns; /* no weight file is opened after it */
};

/* A finding. What to do next stands behind the first newline of the text. `id` is stable: scripts
 * look for it. `why` is OK but for a FAIL, where it gives the exit code. */
void hg_doctor_note(struct hg_doctor *d, enum hg_doctor_level level, enum hg_status why,
                    const char *id, const char *format, ...) __attribute__((format(printf, 5, 6)));
#define HG_DOCTOR_OK_NOTE(d, id, ...) hg_doctor_note(d, HG_DOCTOR_OK, HG_STATUS_OK, id, __VA_ARGS__)
#define HG_DOCTOR_WARN_NOTE(d, id, ...)                                                            \
    hg_doctor_note(d, HG_DOCTOR_WARN, HG_STATUS_OK, id, __VA_ARGS__)
#define HG_DOCTOR_FAIL_NOTE(d, why, id, ...) hg_doctor_note(d, HG_DOCTOR_FAIL, why, id, __VA_ARGS__)

/* `text` must outlive the doctor; empty ones, and what was typed, are not hidden. */
void hg_doctor_hide(struct hg_doctor *d, const char *text, const char *shown);

/* The parts, in the order in which they are shown; each opens and closes its own object. */
void hg_doctor_config(struct hg_doctor *d); /* sets d->config */
void hg_doctor_network(struct hg_doctor *d);
void hg_doctor_machine(struct hg_doctor *d); /* sets d->machine */
void hg_doctor_libraries(struct hg_doctor *d);
void hg_doctor_cuda(struct hg_doctor *d);  /* sets what is known of the card */
void hg_doctor_model(struct hg_doctor *d); /* folder, files, plug-ins; ends with the memory */

#endif
