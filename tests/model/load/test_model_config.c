/* tests/model/load/test_model_config.c - configs of the published bases, of the demo model, and
 * wrong ones. The published numbers are those of reference.md 1. */
#include "tests/test.h"

#include "common/file.h"
#include "model/load/model_config.h"

static const char phi3[] = "{\"model_type\":\"phi3\",\"hidden_size\":3072,\"num_hidden_layers\":32,"
                           "\"num_attention_heads\":32,"
                           "\"num_key_value_heads\":32,\"intermediate_size\":8192,\"vocab_size\":"
                           "32064,\"max_position_embeddings\":"
                           "4096,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"rope_scaling\":"
                           "null,\"sliding_window\":2047,"
                           "\"hidden_act\":\"silu\",\"attention_bias\":false,\"tie_word_"
                           "embeddings\":false,\"bos_token_id\":1,"
                           "\"eos_token_id\":32000,\"pad_token_id\":32000}";
static const char qwen2[] =
    "{\"model_type\":\"qwen2\",\"hidden_size\":5120,\"num_hidden_layers\":64,\"num_attention_"
    "heads\":40,"
    "\"num_key_value_heads\":8,\"intermediate_size\":27648,\"vocab_size\":152064,"
    "\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,\"sliding_"
    "window\":"
    "131072,\"use_sliding_window\":false,\"max_window_layers\":64,\"hidden_act\":\"silu\","
    "\"tie_word_embeddings\":false,\"bos_token_id\":151643,\"eos_token_id\":151645}";
static const char vit[] =
    "{\"model_type\":\"clip_vision_model\",\"hidden_size\":1024,\"num_hidden_layers\":24,"
    "\"num_attention_heads\":16,\"intermediate_size\":4096,\"image_size\":336,\"patch_size\":14,"
    "\"layer_norm_eps\":1e-05,\"hidden_act\":\"quick_gelu\"}";
static const char pre[] =
    "{\"crop_size\":336,\"do_center_crop\":true,\"do_normalize\":true,\"do_resize\":true,"
    "\"image_mean\":[0.48145466,0.4578275,0.40821073],\"image_std\":[0.26862954,0.26130258,0."
    "27577711],"
    "\"resample\":3,\"size\":336}";
static const char card[] =
    "{\"format\":1,\"name\":\"m3\",\"architecture\":\"healthgpt\",\"llm\":\"llm\",\"vision\":"
    "\"vision\","
    "\"vqgan\":{\"path\":\"vqgan/"
    "last.ckpt\",\"norm_groups\":32},\"template\":\"phi3_instruct\",\"tasks\":"
    "{\"comprehension\":{\"hlora\":\"com.bin\",\"fusion\":null,\"alpha\":128,\"vision_layer\":-2,"
    "\"max_new_tokens\":64},\"generation\":null}}";

static json_t *parse(const char *text)
{
    json_t *doc;
    struct hg_error err = {0};
    HG_TEST_OK(hg_json_parse("test", text, strlen(text), &doc, &err), err);
    return doc;
}

/* Copy of `base` with the members of `change` ("null" removes nothing: it sets null). */
static json_t *changed(const char *base, const char *change)
{
    json_t *doc = parse(base), *patch = parse(change);
    json_object_update(doc, patch);
    json_decref(patch);
    return doc;
}

static enum hg_status parse_llm(const char *base, const char *change, const char *generation,
                                struct hg_llm_config *c, struct hg_error *err)
{
    json_t *doc = changed(base, change), *g = generation ? parse(generation) : NULL;
    enum hg_status s = hg_llm_config_parse(doc, g, c, err);
    json_decref(doc);
    json_decref(g);
    return s;
}

static void published_language_models_are_read(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_llm_config c;
    HG_TEST_OK(parse_llm(phi3, "{}", "{\"eos_token_id\":[32000,32001,32007]}", &c, &err), err);
    assert_string_equal(c.arch, "phi3");
    assert_true(c.dim == 3072 && c.n_layers == 32 && c.n_heads == 32 && c.n_kv_heads == 32);
    assert_true(c.head_dim == 96 && c.ffn_dim == 8192 && c.vocab == 32064);
    assert_true(c.norm_eps == 1e-5f && c.rope_theta == 10000 && c.max_positions == 4096);
    assert_int_equal(c.sliding_window, 2048); /* config 2047: key j is seen iff j >= i - 2047 */
    assert_true(c.fused && !c.qkv_bias && !c.tie_embeddings);
    assert_true(c.n_stop == 3 && c.stop_ids[2] == 32007 && c.eos == 32000 && c.bos == 1 &&
                c.pad == 32000);
    assert_true(c.repetition_penalty == 1);

    HG_TEST_OK(parse_llm(qwen2, "{}",
                         "{\"eos_token_id\":[151645,151643],\"repetition_penalty\":1.05,\"pad_"
                         "token_id\":151643}",
                         &c, &err),
               err);
    assert_true(c.head_dim == 128 && c.n_kv_heads == 8 && c.sliding_window == 0 && c.qkv_bias &&
                !c.fused);
    HG_TEST_OK(parse_llm(qwen2, "{}", "{\"eos_token_id\":7}", &c, &err), err);
    assert_true(c.n_stop == 1 && c.stop_ids[0] == 7); /* a number, and it replaces config.json's */
    HG_TEST_OK(parse_llm(qwen2, "{}",
                         "{\"eos_token_id\":[151645,151643],\"repetition_penalty\":1.05,\"pad_"
                         "token_id\":151643}",
                         &c, &err),
               err);
    assert_true(c.repetition_penalty == 1.05f && c.n_stop == 2 && c.pad == 151643 &&
                c.norm_eps == 1e-6f);
    HG_TEST_OK(
        parse_llm(qwen2,
                  "{\"use_sliding_window\":true,\"sliding_window\":4096,\"max_window_layers\":0}",
                  NULL, &c, &err),
        err);
    assert_true(c.sliding_window == 4096 && c.n_stop == 1 && c.stop_ids[0] == 151645 &&
                c.pad == -1);
    /* Layers below max_window_layers (64 of 64 here) see everything. */
    HG_TEST_OK(parse_llm(qwen2, "{\"use_sliding_window\":true}", NULL, &c, &err), err);
    assert_int_equal(c.sliding_window, 0);
    HG_TEST_FAILS(
        parse_llm(qwen2, "{\"use_sliding_window\":true,\"max_window_layers\":28}", NULL, &c, &err),
        HG_STATUS_UNSUPPORTED, err, "max_window_layers: expected 0 or all 64 layers, got 28");
    HG_TEST_FAILS(parse_llm(qwen2, "{\"use_sliding_window\":true,\"max_window_layers\":null}", NULL,
                            &c, &err),
                  HG_STATUS_UNSUPPORTED, err, "got 28"); /* transformers' default */

    HG_TEST_OK(
        parse_llm(qwen2,
                  "{\"model_type\":\"llama\",\"sliding_window\":null,\"tie_word_embeddings\":true}",
                  NULL, &c, &err),
        err);
    assert_true(!c.fused && !c.qkv_bias && c.tie_embeddings && c.sliding_window == 0);
    HG_TEST_OK(parse_llm(phi3,
                         "{\"rope_theta\":null,\"rope_parameters\":{\"rope_type\":\"default\","
                         "\"rope_theta\":250000}}",
                         NULL, &c, &err),
               err);
    assert_true(c.rope_theta == 250000);
}

struct llm_case {
    const char *change, *part;
    enum hg_status status;
};

static const struct llm_case bad_llm[] = {
    {"{\"model_type\":\"mixtral\"}", "expected phi3, qwen2 or llama, got \"mixtral\"",
     HG_STATUS_UNSUPPORTED},
    {"{\"model_type\":null}", "config.json: model_type", HG_STATUS_BAD_FILE},
    {"{\"num_hidden_layers\":\"x\"}", "config.json: num_hidden_layers: expected",
     HG_STATUS_BAD_FILE},
    {"{\"num_hidden_layers\":0}", "num_hidden_layers", HG_STATUS_BAD_FILE},
    {"{\"num_hidden_layers\":513}", "num_hidden_layers", HG_STATUS_BAD_FILE},
    {"{\"num_hidden_layers\":1.5}", "num_hidden_layers", HG_STATUS_BAD_FILE},
    {"{\"hidden_size\":null}", "hidden_size", HG_STATUS_BAD_FILE},
    {"{\"hidden_size\":-1}", "hidden_size", HG_STATUS_BAD_FILE},
    {"{\"hidden_size\":1000000000}", "hidden_size", HG_STATUS_BAD_FILE},
    {"{\"hidden_size\":3073}", "hidden_size: expected heads x head_dim", HG_STATUS_BAD_FILE},
    {"{\"head_dim\":128}", "hidden_size: expected heads x head_dim", HG_STATUS_BAD_FILE},
    {"{\"hidden_size\":96,\"intermediate_size\":1}", "head_dim: expected an even number, got 3",
     HG_STATUS_BAD_FILE},
    {"{\"num_key_value_heads\":5}", "num_key_value_heads: expected a divisor of 32",
     HG_STATUS_BAD_FILE},
    {"{\"num_attention_heads\":0}", "num_attention_heads", HG_STATUS_BAD_FILE},
    {"{\"vocab_size\":99999999}", "vocab_size", HG_STATUS_BAD_FILE},
    {"{\"rope_scaling\":{\"type\":\"longrope\"}}", "rope_scaling", HG_STATUS_UNSUPPORTED},
    {"{\"rope_scaling\":\"x\"}", "rope_scaling", HG_STATUS_UNSUPPORTED},
    {"{\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "rope_type", HG_STATUS_UNSUPPORTED},
    {"{\"partial_rotary_factor\":0.75}", "partial_rotary_factor", HG_STATUS_UNSUPPORTED},
    {"{\"rope_theta\":0}", "rope_theta", HG_STATUS_BAD_FILE},
    {"{\"rms_norm_eps\":0}", "rms_norm_eps", HG_STATUS_BAD_FILE},
    {"{\"rms_norm_eps\":\"1e-5\"}", "rms_norm_eps", HG_STATUS_BAD_FILE},
    {"{\"hidden_act\":\"gelu\"}", "hidden_act: expected silu, got \"gelu\"", HG_STATUS_UNSUPPORTED},
    {"{\"attention_bias\":true}", "attention_bias", HG_STATUS_UNSUPPORTED},
    {"{\"mlp_bias\":true}", "mlp_bias", HG_STATUS_UNSUPPORTED},
    {"{\"eos_token_id\":32064}", "eos_token_id", HG_STATUS_BAD_FILE},
    {"{\"eos_token_id\":[1,99999]}", "eos_token_id", HG_STATUS_BAD_FILE},
    {"{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "eos_token_id",
     HG_STATUS_BAD_FILE},
    {"{\"sliding_window\":0}", "sliding_window", HG_STATUS_BAD_FILE},
    {"{\"tie_word_embeddings\":1}", "tie_word_embeddings", HG_STATUS_BAD_FILE},
};

static void wrong_language_models_are_refused_by_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_llm / sizeof bad_llm[0]; i++) {
        struct hg_error err = {0};
        struct hg_llm_config c;
        enum hg_status s = parse_llm(phi3, bad_llm[i].change, NULL, &c, &err);
        if (s != bad_llm[i].status || !strstr(err.text, bad_llm[i].part))
            fail_msg("%s: %s: \"%s\"", bad_llm[i].change, hg_status_text(s), err.text);
    }
    struct hg_error err = {0};
    struct hg_llm_config c;
    HG_TEST_FAILS(parse_llm(phi3, "{}", "{\"repetition_penalty\":0}", &c, &err), HG_STATUS_BAD_FILE,
                  err, "generation_config.json: repetition_penalty");
    HG_TEST_FAILS(parse_llm(phi3, "{}", "{\"eos_token_id\":\"x\"}", &c, &err), HG_STATUS_BAD_FILE,
                  err, "generation_config.json: eos_token_id");
    printf("%zu wrong configs refused\n", 2 + sizeof bad_llm / sizeof bad_llm[0]);
}

static enum hg_status parse_vision(const char *base, const char *change, struct hg_vision_config *c,
                                   struct hg_error *err)
{
    json_t *doc = changed(base, change);
    enum hg_status s = hg_vision_config_parse(doc, c, err);
    json_decref(doc);
    return s;
}

static void vision_configs_are_read_or_refused_by_key(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_vision_config c;
    char nested[600];
    HG_TEST_OK(parse_vision(vit, "{}", &c, &err), err);
    assert_true(c.dim == 1024 && c.n_layers == 24 && c.n_heads == 16 && c.ffn_dim == 4096);
    assert_true(c.image_side == 336 && c.patch == 14 && c.n_channels == 3 && c.norm_eps == 1e-5f);
    snprintf(nested, sizeof nested,
             "{\"model_type\":\"clip\",\"text_config\":{},\"vision_config\":%s}", vit);
    HG_TEST_OK(parse_vision(nested, "{}", &c, &err), err);
    assert_int_equal(c.dim, 1024);
    HG_TEST_FAILS(parse_vision(nested, "{\"vision_config\":{\"hidden_size\":0}}", &c, &err),
                  HG_STATUS_BAD_FILE, err, "hidden_size");
    HG_TEST_FAILS(parse_vision(nested, "{\"vision_config\":null}", &c, &err), HG_STATUS_BAD_FILE,
                  err, "vision_config");
    HG_TEST_FAILS(parse_vision(vit, "{\"model_type\":\"siglip\"}", &c, &err), HG_STATUS_UNSUPPORTED,
                  err, "siglip");
    HG_TEST_FAILS(parse_vision(vit, "{\"hidden_act\":\"gelu\"}", &c, &err), HG_STATUS_UNSUPPORTED,
                  err, "quick_gelu");
    HG_TEST_FAILS(parse_vision(vit, "{\"num_attention_heads\":7}", &c, &err), HG_STATUS_BAD_FILE,
                  err, "multiple of 7 heads");
    HG_TEST_FAILS(parse_vision(vit, "{\"patch_size\":16,\"image_size\":330}", &c, &err),
                  HG_STATUS_BAD_FILE, err, "patch_size 16");
    HG_TEST_FAILS(parse_vision(vit, "{\"num_channels\":1}", &c, &err), HG_STATUS_BAD_FILE, err,
                  "num_channels");
    HG_TEST_FAILS(parse_vision(vit, "{\"image_size\":100000}", &c, &err), HG_STATUS_BAD_FILE, err,
                  "image_size");
}

static enum hg_status parse_pre(const char *change, struct hg_preprocess_config *c,
                                struct hg_error *err)
{
    json_t *doc = changed(pre, change);
    enum hg_status s = hg_preprocess_config_parse(doc, c, err);
    json_decref(doc);
    return s;
}

static void preprocessing_is_read_or_refused_by_key(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_preprocess_config c;
    HG_TEST_OK(parse_pre("{}", &c, &err), err);
    assert_true(c.side == 336 && c.mean[0] == 0.48145466f && c.std[2] == 0.27577711f &&
                c.rescale == 1.0 / 255);
    HG_TEST_OK(
        parse_pre("{\"size\":{\"shortest_edge\":224},\"crop_size\":{\"height\":224,\"width\":224}}",
                  &c, &err),
        err);
    assert_int_equal(c.side, 224);
    HG_TEST_OK(
        parse_pre(
            "{\"size\":{\"height\":64,\"width\":64},\"crop_size\":null,\"rescale_factor\":0.5}", &c,
            &err),
        err);
    assert_true(c.side == 64 && c.rescale == 0.5);
    HG_TEST_FAILS(parse_pre("{\"size\":{\"height\":64,\"width\":65}}", &c, &err),
                  HG_STATUS_UNSUPPORTED, err, "square");
    HG_TEST_FAILS(parse_pre("{\"size\":null}", &c, &err), HG_STATUS_BAD_FILE, err, "size");
    HG_TEST_FAILS(parse_pre("{\"size\":{}}", &c, &err), HG_STATUS_BAD_FILE, err, "height");
    HG_TEST_FAILS(parse_pre("{\"size\":0}", &c, &err), HG_STATUS_BAD_FILE, err, "size");
    HG_TEST_FAILS(parse_pre("{\"crop_size\":224}", &c, &err), HG_STATUS_UNSUPPORTED, err,
                  "crop_size");
    HG_TEST_FAILS(parse_pre("{\"resample\":2}", &c, &err), HG_STATUS_UNSUPPORTED, err, "bicubic");
    HG_TEST_FAILS(parse_pre("{\"do_resize\":false}", &c, &err), HG_STATUS_UNSUPPORTED, err,
                  "do_resize");
    HG_TEST_FAILS(parse_pre("{\"image_std\":[1,0,1]}", &c, &err), HG_STATUS_BAD_FILE, err,
                  "image_std[1]");
    HG_TEST_FAILS(parse_pre("{\"image_mean\":[1,1]}", &c, &err), HG_STATUS_BAD_FILE, err,
                  "image_mean");
    HG_TEST_FAILS(parse_pre("{\"image_mean\":[1,\"1\",1]}", &c, &err), HG_STATUS_BAD_FILE, err,
                  "image_mean[1]");
    HG_TEST_FAILS(parse_pre("{\"image_mean\":7}", &c, &err), HG_STATUS_BAD_FILE, err, "image_mean");
}

static enum hg_status parse_card(const char *change, struct hg_model_card *c, struct hg_error *err)
{
    json_t *doc = changed(card, change);
    enum hg_status s = hg_model_card_parse(doc, c, err);
    json_decref(doc);
    return s;
}

static void cards_are_read(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_model_card c;
    HG_TEST_OK(parse_card("{}", &c, &err), err);
    assert_string_equal(c.name, "m3");
    assert_true(c.has_vision && c.has_vqgan && c.norm_groups == 32 && c.vqgan_grid == 32);
    assert_string_equal(c.rope_inv_freq, "fp32");
    assert_null(c.system);
    assert_true(c.tasks[0].present && !c.tasks[1].present && c.n_image_tokens == 0);
    assert_true(c.tasks[0].alpha == 128 && c.tasks[0].vision_layer == -2 &&
                c.tasks[0].max_new_tokens == 64);
    assert_string_equal(c.tasks[0].fusion, "");
    HG_TEST_OK(parse_card("{\"vision\":null,\"vqgan\":null,\"system\":\"be "
                          "brief\",\"n_image_tokens\":8192,\"rope_inv_freq\":\"bf16\"}",
                          &c, &err),
               err);
    assert_true(!c.has_vision && !c.has_vqgan && c.n_image_tokens == 8192);
    assert_string_equal(c.system, "be brief");
}

static void wrong_cards_are_refused_by_key(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"format\":2}", "format: expected 1"},
        {"{\"architecture\":\"llava\"}", "architecture: expected healthgpt"},
        {"{\"name\":null}", "healthgpt.json: name"},
        {"{\"llm\":\"/etc\"}", "llm: expected a path below"},
        {"{\"llm\":\"..\"}", "llm: expected a path below"},
        {"{\"llm\":\"a/../../b\"}", "llm: expected a path below"},
        {"{\"llm\":\"a//..\"}", "llm: expected a path below"},
        {"{\"llm\":\"a\\\\b\"}", "llm: expected a path below"},
        {"{\"vision\":\"../v\"}", "vision: expected a path below"},
        {"{\"vqgan\":{\"path\":\"../x\"}}", "path: expected a path below"},
        {"{\"vqgan\":{}}", "path"},
        {"{\"vqgan\":{\"path\":\"x\",\"norm_groups\":0}}", "norm_groups"},
        {"{\"vqgan\":\"x\"}", "vqgan"},
        {"{\"template\":null}", "template"},
        {"{\"rope_inv_freq\":\"fp64\"}", "rope_inv_freq: expected fp32, fp16 or bf16"},
        {"{\"tasks\":null}", "tasks"},
        {"{\"tasks\":{}}", "tasks: expected comprehension, generation or both"},
        {"{\"tasks\":{\"translation\":{}}}", "translation"},
        {"{\"tasks\":{\"comprehension\":{\"hlora\":\"x\"}}}", "alpha"},
        {"{\"tasks\":{\"comprehension\":{\"hlora\":\"../x\",\"alpha\":1}}}",
         "hlora: expected a path below"},
        {"{\"tasks\":{\"comprehension\":{\"vision_layer\":1000}}}", "vision_layer"},
        {"{\"tasks\":{\"comprehension\":{\"max_new_tokens\":0}}}", "max_new_tokens"},
        {"{\"tasks\":{\"comprehension\":{\"temperature\":2.5}}}", "temperature"},
        {"{\"tasks\":{\"comprehension\":{\"unpublished\":\"why\"}}}",
         "tasks: expected comprehension, generation or both"},
        {"{\"tasks\":{\"comprehension\":{\"can\":7}}}", "can"},
        {"{\"tasks\":{\"comprehension\":{\"hlroa\":\"x\"}}}", "hlroa"},
        {"{\"nam\":\"x\"}", "nam"},
        {"{\"n_image_tokens\":0}", "n_image_tokens"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hg_error err = {0};
        struct hg_model_card c;
        if (parse_card(bad[i][0], &c, &err) == HG_STATUS_OK || !strstr(err.text, bad[i][1]))
            fail_msg("%s: \"%s\"", bad[i][0], err.text);
    }
}

static void folders_are_read(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_llm_config l;
    struct hg_vision_config v;
    struct hg_preprocess_config p;
    struct hg_model_card c;
    HG_TEST_FAILS(hg_llm_config_read("/nonexistent", &l, &err), HG_STATUS_NOT_FOUND, err,
                  "config.json");
    HG_TEST_FAILS(hg_vision_config_read("/nonexistent", &v, &err), HG_STATUS_NOT_FOUND, err,
                  "config.json");
    HG_TEST_FAILS(hg_preprocess_config_read("/nonexistent", &p, &err), HG_STATUS_NOT_FOUND, err,
                  "preprocessor_config.json");
    HG_TEST_FAILS(hg_model_card_read("/nonexistent", &c, &err), HG_STATUS_NOT_FOUND, err,
                  "healthgpt.json");
    if (!hg_file_exists(hg_test_file("config/models/demo/healthgpt.json")))
        HG_TEST_SKIP("config/models/demo absent");
    HG_TEST_OK(hg_model_card_read(hg_test_file("config/models/demo"), &c, &err), err);
    HG_TEST_OK(hg_llm_config_read(hg_test_file("config/models/demo/llm"), &l, &err), err);
    HG_TEST_OK(hg_vision_config_read(hg_test_file("config/models/demo/vision"), &v, &err), err);
    HG_TEST_OK(hg_preprocess_config_read(hg_test_file("config/models/demo/vision"), &p, &err), err);
    assert_int_equal(v.image_side, p.side);
    assert_true(c.tasks[0].present && c.tasks[1].present &&
                strstr(c.notice, "not for clinical use"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_language_models_are_read),
        cmocka_unit_test(wrong_language_models_are_refused_by_key),
        cmocka_unit_test(vision_configs_are_read_or_refused_by_key),
        cmocka_unit_test(preprocessing_is_read_or_refused_by_key),
        cmocka_unit_test(cards_are_read),
        cmocka_unit_test(wrong_cards_are_refused_by_key),
        cmocka_unit_test(folders_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
