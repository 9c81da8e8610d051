/* tests/fuzz/fuzz_config.c - libFuzzer target of the JSON files of a model folder (make fuzz).
 *
 * The first byte chooses the file: config.json of a language model (a second document behind a NUL
 * is its generation_config.json) or of a vision tower, preprocessor_config.json, healthgpt.json.
 * What is accepted must keep the promises of model_config.h, which the loaders rely on. */
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "model/load/model_config.h"

enum { MAX_INPUT = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int ok)
{
    if (!ok)
        abort();
}

static void check_refusal(enum hg_status s, const struct hg_error *err)
{
    must(s == HG_STATUS_BAD_FILE || s == HG_STATUS_UNSUPPORTED || s == HG_STATUS_NO_MEMORY);
    must(err->text[0] && hg_utf8_valid(err->text, strlen(err->text)));
}

static void try_llm(const json_t *config, const json_t *generation)
{
    struct hg_llm_config c;
    struct hg_error err = {0};
    enum hg_status s = hg_llm_config_parse(config, generation, &c, &err);
    if (s != HG_STATUS_OK) {
        check_refusal(s, &err);
        return;
    }
    must(c.n_heads > 0 && c.n_kv_heads > 0 && c.n_heads % c.n_kv_heads == 0);
    must(c.head_dim % 2 == 0 && c.n_heads * c.head_dim == c.dim && c.ffn_dim > 0);
    must(c.n_layers > 0 && c.vocab > 0 && c.max_positions > 0 && c.sliding_window >= 0);
    must(c.norm_eps > 0 && c.rope_theta >= 1 && c.repetition_penalty > 0);
    must(c.n_stop >= 0 && c.n_stop <= HG_MAX_STOP_IDS);
    for (int i = 0; i < c.n_stop; i++)
        must(c.stop_ids[i] >= 0 && c.stop_ids[i] < c.vocab);
}

static void try_vision(const json_t *config)
{
    struct hg_vision_config c;
    struct hg_error err = {0};
    enum hg_status s = hg_vision_config_parse(config, &c, &err);
    if (s != HG_STATUS_OK) {
        check_refusal(s, &err);
        return;
    }
    must(c.patch > 0 && c.image_side >= c.patch && c.image_side % c.patch == 0);
    must(c.n_heads > 0 && c.dim % c.n_heads == 0 && c.n_layers > 0 && c.ffn_dim > 0);
    must(c.n_channels == 3 && c.norm_eps > 0);
}

static void try_preprocess(const json_t *config)
{
    struct hg_preprocess_config c;
    struct hg_error err = {0};
    enum hg_status s = hg_preprocess_config_parse(config, &c, &err);
    if (s != HG_STATUS_OK) {
        check_refusal(s, &err);
        return;
    }
    must(c.side > 0 && c.side <= 4096 && c.rescale > 0);
    for (int i = 0; i < 3; i++)
        must(c.std[i] > 0 && c.mean[i] >= -1000 && c.mean[i] <= 1000);
}

static void check_path(const char *path)
{
    must(path[0] != '/' && strncmp(path, "../", 3) != 0 && !strstr(path, "/../"));
    must(strcmp(path, "..") != 0);
}

static void try_card(const json_t *card)
{
    static struct hg_model_card c;
    struct hg_error err = {0};
    enum hg_status s = hg_model_card_parse(card, &c, &err);
    if (s != HG_STATUS_OK) {
        check_refusal(s, &err);
        return;
    }
    check_path(c.llm);
    check_path(c.vision);
    check_path(c.vqgan_path);
    must(c.norm_groups > 0 && c.vqgan_grid > 0 && c.n_image_tokens >= 0);
    for (int t = 0; t < HG_CARD_TASKS; t++) {
        check_path(c.tasks[t].hlora);
        check_path(c.tasks[t].fusion);
    }
    must(c.n_expect >= 0 && c.n_expect <= HG_MAX_EXPECT);
    for (int i = 0; i < HG_SOURCE_COUNT; i++) {
        const struct hg_source *src = &c.sources[i];
        must(src->n_names <= HG_MAX_PLACES && src->n_alternatives <= HG_MAX_PLACES);
        for (int k = 0; k < src->n_names; k++)
            check_path(src->names[k]);
        for (int k = 0; k < src->n_alternatives; k++)
            check_path(src->alternatives[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2 || n > MAX_INPUT)
        return 0;
    const char *text = (const char *)data + 1;
    const char *second = memchr(text, 0, n - 1);
    size_t n_first = second ? (size_t)(second - text) : n - 1;
    json_t *doc = NULL, *generation = NULL;
    struct hg_error err = {0};
    enum hg_status s = hg_json_parse("fuzz", text, n_first, &doc, &err);
    if (s != HG_STATUS_OK) {
        check_refusal(s, &err);
        return 0;
    }
    if (second)
        (void)hg_json_parse("fuzz", second + 1, n - 2 - n_first, &generation, NULL);
    switch (data[0] % 4) {
    case 0:
        try_llm(doc, generation);
        break;
    case 1:
        try_vision(doc);
        break;
    case 2:
        try_preprocess(doc);
        break;
    default:
        try_card(doc);
    }
    json_decref(doc);
    json_decref(generation);
    return 0;
}
