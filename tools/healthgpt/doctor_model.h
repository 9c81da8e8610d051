/* tools/healthgpt/doctor_model.h - what the parts that look at a model folder share. */
#ifndef HG_TOOLS_DOCTOR_MODEL_H
#define HG_TOOLS_DOCTOR_MODEL_H

#include <jansson.h>

#include "model/load/model_config.h"
#include "model/load/model_source.h"
#include "model/load/published.h"
#include "tools/healthgpt/doctor.h"
#include "tools/healthgpt/inspect_file.h"

/* ---- doctor_sources.c: the published models, and where their files come from (reference.md 1, 2.1
 * to 2.4): names and pages only, nothing is fetched. */
enum hg_doctor_part {
    HG_DOCTOR_BASE,
    HG_DOCTOR_TOWER,
    HG_DOCTOR_VQGAN,
    HG_DOCTOR_COM,
    HG_DOCTOR_GEN,
    HG_DOCTOR_FUSION,
    HG_DOCTOR_CARD
};

struct hg_doctor_model {
    struct hg_doctor *d;
    const char *root, *shown;    /* the folder or card file, and what it is called in findings */
    struct hg_model_place place; /* of a card */
    char found[HG_PART_COUNT][HG_PLACE_CAP]; /* where its pieces are; "": not there */
    bool lists_places; /* with --weights: findings say which places were tried */
    struct hg_model_card card;
    bool is_demo;
    const struct hg_published *variant;
    struct hg_llm_config llm;
    struct hg_vision_config vision;
    bool has_llm, has_vision; /* their config.json is right */
    struct hg_inspect_parts part;
    int n_bad; /* weight files that are missing or damaged: sums are too small then */
    bool late; /* the deadline was said */
    bool looks_put, files_put; /* members of the document that are there */
};

/* "com_hlora_weights.bin of https://huggingface.co/lintw/HealthGPT-M3" */
void hg_doctor_source(const struct hg_doctor_model *m, enum hg_doctor_part part, char out[256]);

void hg_doctor_size_text(int64_t bytes, char out[32]); /* "4.2 MB" */

/* ---- doctor_files.c: each writes an object of the "files" array and its findings. */
/* A weight file below the root: header only. True when it can be read. */
bool hg_doctor_weight_file(struct hg_doctor_model *m, const char *name, enum hg_doctor_part part,
                           struct hg_inspect_sum *sum);
/* A folder with the weights of a Hugging Face model, as model/load/weights.c would read it; "" is
 * the root. True when there are weights and all can be read. */
bool hg_doctor_weight_folder(struct hg_doctor_model *m, const char *sub, enum hg_doctor_part part,
                             struct hg_inspect_sum *sum);
/* A small file that must be there. */
bool hg_doctor_small_file(struct hg_doctor_model *m, const char *sub, const char *name,
                          enum hg_doctor_part part);
/* The path of a name below the root, or of a piece and what is below it ("llm/config.json"),
 * wherever that is. */
bool hg_doctor_path(const struct hg_doctor_model *m, const char *name, char out[HG_DOCTOR_PATH]);

/* ---- doctor_check.c: the load rehearsed (model/dry_run.h). */
void hg_doctor_tower_tensors(struct hg_doctor_model *m, const char *dir);
void hg_doctor_vqgan_tensors(struct hg_doctor_model *m, const char *path);
/* Everything that healthgptd looks at before it packs weights: plug-ins, what the card expects,
 * values. complete: no piece is missing or damaged; else what the card expects of the others. */
void hg_doctor_check(struct hg_doctor_model *m, bool complete);

/* ---- the rest */
/* doctor_plugins.c: does the plug-in of a task belong to the base? */
void hg_doctor_plugin(struct hg_doctor_model *m, int task);
/* "a plug-in for M3" by the shapes of any file; false: no H-LoRA in it. */
bool hg_doctor_plugin_looks(const char *path, const struct hg_published **out, int *dim);
/* doctor_plain.c: a folder without a card. */
void hg_doctor_plain(struct hg_doctor_model *m);
/* doctor_memory.c: what it needs per dtype, against RAM, card, and common cards. */
void hg_doctor_memory(struct hg_doctor_model *m);

#endif
