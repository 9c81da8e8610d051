/* tools/healthgpt/doctor_sources.c - a table of what is published. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tools/healthgpt/doctor_model.h"

#define HF "https://huggingface.co/"

static const struct hg_doctor_variant variants[] = {
    {"HealthGPT-M3", "Phi-3-mini-4k-instruct", HF "microsoft/Phi-3-mini-4k-instruct",
     HF "lintw/HealthGPT-M3", "com_hlora_weights.bin", "gen_hlora_weights.bin",
     "fusion_layer_weights.bin", "phi3", 3072, 32, 64, 256, true},
    {"HealthGPT-L14", "Phi-4", HF "microsoft/phi-4", HF "lintw/HealthGPT-L14",
     "com_hlora_weights_phi4.bin", NULL, NULL, "phi3", 5120, 40, 32, 128, true},
    {"HealthGPT-XL32", "Qwen2.5-32B-Instruct", HF "Qwen/Qwen2.5-32B-Instruct",
     HF "lintw/HealthGPT-XL32", "com_hlora_weights_QWEN_32B.bin", NULL, NULL, "qwen2", 5120, 64, 32,
     0, false},
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

const struct hg_doctor_variant *hg_doctor_variant_of(const char *arch, int dim, int n_layers)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (strcmp(variants[i].arch, arch) == 0 && variants[i].dim == dim &&
            variants[i].n_layers == n_layers)
            return &variants[i];
    return NULL;
}

const struct hg_doctor_variant *hg_doctor_variant_of_plugin(int dim, int n_layers, bool fused)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (variants[i].dim == dim && variants[i].n_layers == n_layers &&
            variants[i].fused == fused)
            return &variants[i];
    return NULL;
}

const struct hg_doctor_variant *hg_doctor_variant_named(const char *card_name)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (strncasecmp(variants[i].name, card_name, strlen(variants[i].name)) == 0)
            return &variants[i];
    return NULL;
}

static void plugin_source(const struct hg_doctor_variant *v, const char *file, const char *what,
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
    const struct hg_doctor_variant *v = m->variant;
    if (m->is_demo) {
        snprintf(out, 256, "the repository of healthgpt-server (config/models/demo)");
        return;
    }
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
