/* model/load/published.h - the models that are published, by their shapes (reference.md 1, 2.3):
 * for messages ("looks like the plug-in of HealthGPT-L14"). Names and pages only. */
#ifndef HG_MODEL_LOAD_PUBLISHED_H
#define HG_MODEL_LOAD_PUBLISHED_H

#include <stdbool.h>

struct hg_published {
    const char *name, *base_name, *base_page, *plugin_page;
    const char *com, *gen, *fusion; /* file names; gen and fusion NULL: not published */
    const char *arch;
    int dim, n_layers, com_rank, gen_rank; /* ranks: rows of lora_A, all experts together */
    bool fused;
};

/* By the shape of its base, or of a plug-in; NULL: none of the published ones. */
const struct hg_published *hg_published_base(const char *arch, int dim, int n_layers);
const struct hg_published *hg_published_plugin(int dim, int n_layers, bool fused);
/* By the name in a card ("healthgpt-m3"). */
const struct hg_published *hg_published_named(const char *card_name);

#endif
