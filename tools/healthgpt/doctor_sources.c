/* tools/healthgpt/doctor_sources.c - where the files of a model come from, in words. */
#include <stdio.h>

#include "tools/healthgpt/doctor_model.h"

#define HF "https://huggingface.co/"

static void plugin_source(const struct hg_published *v, const char *file, const char *what,
                          char out[256])
{
    if (file)
        snprintf(out, 256, "%s of %s", file, v->plugin_page);
    else
        snprintf(out, 256, "nowhere: no %s is published for %s, leave the task out of the card",
                 what, v->name);
}

void hg_doctor_source(const struct hg_doctor_model *m, enum hg_doctor_part part, char out[256])
{
    const struct hg_published *v = m->variant;
    if (m->is_demo) {
        snprintf(out, 256, "the repository of healthgpt-server (config/models/demo)");
        return;
    }
    static const int piece_of[] = {HG_PART_LLM,   HG_PART_VISION,    HG_PART_VQGAN,
                                   HG_PART_HLORA, HG_PART_HLORA + 1, HG_PART_FUSION + 1,
                                   HG_PART_COUNT};
    out[0] = '\0'; /* the card knows best */
    if (piece_of[part] < HG_PART_COUNT && hg_model_piece_name(&m->card, piece_of[part])[0])
        hg_model_piece_page(&m->card, piece_of[part], out, 256);
    if (out[0])
        return;
    switch (part) {
    case HG_DOCTOR_TOWER:
        snprintf(out, 256, HF "openai/clip-vit-large-patch14-336");
        return;
    case HG_DOCTOR_VQGAN:
        snprintf(out, 256,
                 "\"VQGAN OpenImages (f=8), 8192, GumbelQuantization\" (last.ckpt, model.yaml) of "
                 "https://github.com/CompVis/taming-transformers");
        return;
    case HG_DOCTOR_CARD:
        snprintf(out, 256, "config/models/demo/healthgpt.json is an example, README.md tells more");
        return;
    case HG_DOCTOR_BASE:
        snprintf(out, 256, "%s", v ? v->base_page : "where its model card says");
        return;
    case HG_DOCTOR_COM:
    case HG_DOCTOR_GEN:
    case HG_DOCTOR_FUSION:
        break;
    }
    if (!v)
        snprintf(out, 256, HF "lintw (HealthGPT-M3, -L14, -XL32: the one of this base)");
    else if (part == HG_DOCTOR_COM)
        plugin_source(v, v->com, "comprehension plug-in", out);
    else
        plugin_source(v, part == HG_DOCTOR_GEN ? v->gen : v->fusion, "generation plug-in", out);
}
