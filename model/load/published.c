/* model/load/published.c - a table of what is published. */
#include "model/load/published.h"

#include <string.h>
#include <strings.h>

#define HF "https://huggingface.co/"

static const struct hg_published variants[] = {
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

const struct hg_published *hg_published_base(const char *arch, int dim, int n_layers)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (strcmp(variants[i].arch, arch) == 0 && variants[i].dim == dim &&
            variants[i].n_layers == n_layers)
            return &variants[i];
    return NULL;
}

const struct hg_published *hg_published_plugin(int dim, int n_layers, bool fused)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (variants[i].dim == dim && variants[i].n_layers == n_layers &&
            variants[i].fused == fused)
            return &variants[i];
    return NULL;
}

const struct hg_published *hg_published_named(const char *card_name)
{
    for (int i = 0; i < N_VARIANTS; i++)
        if (strncasecmp(variants[i].name, card_name, strlen(variants[i].name)) == 0)
            return &variants[i];
    return NULL;
}
