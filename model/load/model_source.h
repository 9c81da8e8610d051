/* model/load/model_source.h - where the pieces of a model lie.
 *
 * A card is a folder with healthgpt.json, or such a file under any name. Its pieces have plain
 * names ("llm", "com_hlora_weights.bin") and come from repositories ("microsoft/Phi-3-mini..").
 * All of them are looked for below one root: the folder given as --weights, else the card's. For a
 * piece NAME of repository OWNER/REPO, in this order, the first that is there:
 *
 *   NAME, then the card's further names
 *   REPO, OWNER/REPO                            (a folder; of a file: that folder's NAME)
 *   models--OWNER--REPO/snapshots/HASH          (a cache of huggingface_hub), HASH as refs/main
 *   hub/models--OWNER--REPO/snapshots/HASH       says, else the newest one that has the piece
 *   the same for the card's alternatives
 *
 * A folder is "there" when it has a config.json; when none has, the first folder of that name is
 * taken, so that what it lacks can be said. Symbolic links are followed (a cache is made of them);
 * names out of a card stay below the root. refs/main is at most 128 bytes and must be a hash. */
#ifndef HG_MODEL_LOAD_MODEL_SOURCE_H
#define HG_MODEL_LOAD_MODEL_SOURCE_H

#include "common/buf.h"
#include "common/status.h"
#include "model/load/model_config.h"

enum { HG_PLACE_CAP = 1024 };

struct hg_model_place {
    char card[HG_PLACE_CAP]; /* the JSON file */
    char dir[HG_PLACE_CAP];  /* its folder */
    char root[HG_PLACE_CAP]; /* where the pieces are: --weights, or dir */
};

/* path: a card file or a folder with healthgpt.json. weights NULL or "": the card's folder.
 * NOT_FOUND when there is no card or no folder `weights`. */
enum hg_status hg_model_place(const char *path, const char *weights, struct hg_model_place *out,
                              struct hg_error *err);

enum hg_model_piece {
    HG_PART_LLM,
    HG_PART_VISION,
    HG_PART_VQGAN,
    HG_PART_HLORA,                                  /* + task */
    HG_PART_FUSION = HG_PART_HLORA + HG_CARD_TASKS, /* + task */
    HG_PART_COUNT = HG_PART_FUSION + HG_CARD_TASKS
};

/* "language model", "comprehension plug-in", ...: the role in messages. */
const char *hg_model_piece_role(int piece);
/* Its plain name in the card; "": the card has no such piece. */
const char *hg_model_piece_name(const struct hg_model_card *c, int piece);
const struct hg_source *hg_model_piece_source(const struct hg_model_card *c, int piece);
/* "com_hlora_weights.bin of https://huggingface.co/lintw/HealthGPT-M3"; "" when the card does not
 * say. */
void hg_model_piece_page(const struct hg_model_card *c, int piece, char *out, size_t cap);

/* The path of a piece that the card has. NOT_FOUND: "<role>: <name>: not found; it comes from
 * <page>; looked in <root> for <every place>". */
enum hg_status hg_model_find(const struct hg_model_place *p, const struct hg_model_card *c,
                             int piece, char out[HG_PLACE_CAP], struct hg_error *err);
/* A task whose weights are not published stays in the card when its plug-in is found, and leaves it
 * when it is not (with the VQGAN that only generation needs). */
void hg_model_settle_tasks(const struct hg_model_place *p, struct hg_model_card *c);
/* The places below the root, comma-separated, as the message has them. */
enum hg_status hg_model_places_text(const struct hg_model_card *c, int piece, struct hg_buf *out);

#endif
