/* tests/model/test_vision.c - the tower against transformers' CLIPVisionModel in double precision
 * (tests/golden/vision, made by tools/oracle/clip_oracle.py), and what loading refuses. */
#include "tests/test.h"

#include <math.h>

#include "model/vision.h"
#include "tests/model/tiny_file.h"
#include "tests/parity/tiny_model.h"

#define GOLDEN "tests/golden/vision/tiny_clip.safetensors"

static const struct hg_vision_config config = {.dim = 48,
                                               .n_layers = 5,
                                               .n_heads = 4,
                                               .ffn_dim = 80,
                                               .image_side = 24,
                                               .patch = 8,
                                               .n_channels = 3,
                                               .norm_eps = 1e-5f};
enum { N_PATCHES = 9, N_STATES = N_PATCHES * 48, N_PIXELS = 3 * 24 * 24 };

static void add_layer(struct tiny_file *f, int i)
{
    static const struct {
        const char *name;
        int n_out, n_in;
    } linears[] = {{"self_attn.q_proj", 48, 48}, {"self_attn.k_proj", 48, 48},
                   {"self_attn.v_proj", 48, 48}, {"self_attn.out_proj", 48, 48},
                   {"mlp.fc1", 80, 48},          {"mlp.fc2", 48, 80}};
    char name[96];
    for (size_t k = 0; k < sizeof linears / sizeof *linears; k++) {
        snprintf(name, sizeof name, "encoder.layers.%d.%s", i, linears[k].name);
        tiny_file_add_linear(f, name, linears[k].n_out, linears[k].n_in);
    }
    for (int k = 1; k <= 2; k++) {
        snprintf(name, sizeof name, "encoder.layers.%d.layer_norm%d", i, k);
        tiny_file_add_norm(f, name, 48);
    }
}

static void tower(struct tiny_file *f, const char *prefix)
{
    *f = (struct tiny_file){.prefix = prefix};
    tiny_file_add_vector(f, "embeddings.class_embedding", "", 48);
    tiny_file_add(f, "embeddings.patch_embedding.weight", 4, (int64_t[]){48, 3, 8, 8});
    tiny_file_add(f, "embeddings.position_embedding.weight", 2, (int64_t[]){1 + N_PATCHES, 48});
    tiny_file_add_vector(f, "embeddings.position_ids", "", 1 + N_PATCHES);
    tiny_file_add_norm(f, "pre_layrnorm", 48);
    for (int i = 0; i < config.n_layers; i++)
        add_layer(f, i);
    tiny_file_add_norm(f, "post_layernorm", 48);
}

static struct hg_backend *open_backend(const char *name)
{
    struct hg_backend_limits limits = {0};
    hg_vision_limits(&config, &limits);
    return tiny_backend(name, &limits);
}

static void encode(struct hg_backend *b, struct hg_vision *v, int layer, float *states)
{
    static float pixels[N_PIXELS];
    void *y;
    struct hg_error err;
    tiny_fill("pixels", N_PIXELS, 2, 0, pixels);
    HG_TEST_OK(b->ops->alloc(b, N_STATES * hg_dtype_bytes(b->ops->act_type), &y, &err), err);
    HG_TEST_OK(hg_vision_encode(v, pixels, layer, y, &err), err);
    assert_int_equal(b->ops->download_act(b, states, y, N_STATES), HG_STATUS_OK);
    b->ops->free(b, y);
}

static void check_state(struct hg_backend *b, struct hg_vision *v, int layer, const char *golden,
                        double bound)
{
    static float got[N_STATES];
    float *want = tiny_golden_tensor(GOLDEN, golden, N_STATES);
    encode(b, v, layer, got);
    tiny_compare(golden, b->ops->name, got, want, N_STATES, bound);
    free(want);
}

static void run_against_golden(const char *backend, const char *prefix, enum hg_dtype store,
                               double bound)
{
    static struct tiny_file f;
    struct hg_vision *v;
    struct hg_error err;
    struct hg_backend *b = open_backend(backend);
    if (!b)
        return;
    tower(&f, prefix);
    struct hg_weights *w = tiny_file_open(&f);
    HG_TEST_OK(hg_vision_load(b, &config, w, 4, store, &v, &err), err);
    HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
    check_state(b, v, 0, "hidden.0", bound);
    check_state(b, v, 1, "hidden.1", bound);
    check_state(b, v, -2, "hidden.4", bound);
    check_state(b, v, 4, "hidden.4", bound);
    hg_vision_free(v);
    hg_weights_free(w);
    hg_backend_close(b);
    tiny_file_deinit(&f);
}

/* fp32 activations and weights against double: a few rounding errors of values up to 4 per layer.
 */
static void hidden_states_equal_those_of_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        run_against_golden(tiny_backends[i], "vision_model.", HG_DTYPE_F32, 2e-5);
}

/* Weights rounded to 11 or 8 significant bits (bf16: activations too), errors add up over 4 layers.
 */
static void stored_in_half_precision_the_states_stay_near(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        run_against_golden(tiny_backends[i], "vision_model.", HG_DTYPE_F16, 0.01);
        run_against_golden(tiny_backends[i], "vision_model.", HG_DTYPE_BF16, 0.1);
    }
}

static void names_may_carry_the_prefix_of_a_llava_checkpoint(void **state)
{
    (void)state;
    run_against_golden("ref", "vision_tower.vision_tower.vision_model.", HG_DTYPE_F32, 2e-5);
    run_against_golden("ref", "model.vision_tower.vision_tower.vision_model.", HG_DTYPE_F32, 2e-5);
    run_against_golden("ref", "", HG_DTYPE_F32, 2e-5);
}

static void only_the_layers_asked_for_are_loaded(void **state)
{
    (void)state;
    static struct tiny_file f;
    static float states[N_STATES];
    struct hg_vision *one, *four;
    struct hg_error err;
    struct hg_backend *b = open_backend("ref");
    tower(&f, "vision_model.");
    struct hg_weights *w = tiny_file_open(&f);
    HG_TEST_OK(hg_vision_load(b, &config, w, 1, HG_DTYPE_F32, &one, &err), err);
    HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
    HG_TEST_OK(hg_vision_load(b, &config, w, 4, HG_DTYPE_F32, &four, &err), err);
    size_t layer = 4 * (4 * 48 * 48 + 2 * 80 * 48 + 9 * 48 + 80);
    assert_int_equal(hg_vision_bytes(four) - hg_vision_bytes(one), 3 * layer);
    assert_int_equal(hg_vision_workspace(four), hg_vision_workspace(one));
    check_state(b, one, 1, "hidden.1", 2e-5);
    HG_TEST_FAILS(hg_vision_encode(one, states, 2, states, &err), HG_STATUS_INTERNAL, err,
                  "hidden state 2");
    HG_TEST_FAILS(hg_vision_encode(one, states, -7, states, &err), HG_STATUS_INTERNAL, err, "-7");
    hg_vision_free(one);
    hg_vision_free(four);
    hg_weights_free(w);
    hg_backend_close(b);
    tiny_file_deinit(&f);
}

static void a_picture_gives_the_same_bytes_every_time(void **state)
{
    (void)state;
    static struct tiny_file f;
    static float first[N_STATES], second[N_STATES];
    struct hg_vision *v;
    struct hg_error err;
    tower(&f, "vision_model.");
    for (int i = 0; i < 2; i++) {
        struct hg_backend *b = open_backend(tiny_backends[i]);
        if (!b)
            continue;
        struct hg_weights *w = tiny_file_open(&f);
        HG_TEST_OK(hg_vision_load(b, &config, w, 4, HG_DTYPE_F32, &v, &err), err);
        encode(b, v, 4, first);
        encode(b, v, 0, second);
        encode(b, v, 4, second);
        assert_memory_equal(first, second, sizeof first);
        hg_vision_free(v);
        hg_weights_free(w);
        hg_backend_close(b);
    }
    tiny_file_deinit(&f);
}

static void the_rest_of_a_clip_checkpoint_is_ignored(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct hg_vision *v;
    struct hg_error err;
    struct hg_backend *b = open_backend("ref");
    tower(&f, NULL);
    for (int i = 0; i < f.n; i++) {
        char name[96];
        snprintf(name, sizeof name, "vision_model.%.80s", f.t[i].name);
        memcpy(f.t[i].name, name, sizeof name);
    }
    tiny_file_add_vector(&f, "text_model.final_layer_norm", ".weight", 8);
    tiny_file_add_vector(&f, "logit_scale", "", 1);
    tiny_file_add(&f, "visual_projection.weight", 2, (int64_t[]){8, 48});
    tiny_file_add(&f, "text_projection.weight", 2, (int64_t[]){8, 8});
    struct hg_weights *w = tiny_file_open(&f);
    HG_TEST_OK(hg_vision_load(b, &config, w, 1, HG_DTYPE_F32, &v, &err), err);
    HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
    hg_vision_free(v);
    hg_weights_free(w);
    hg_backend_close(b);
    tiny_file_deinit(&f);
}

/* Inside a whole LLaVA checkpoint everything outside the tower is somebody else's; inside it, and
 * in a CLIP file, an unknown tensor is an error. */
static void surplus_tensors_of_the_tower_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *extra;
        bool refused;
    } cases[] = {
        {"vision_model.", "vision_model.extra", true},
        {"vision_model.", "vision_model.encoder.layers.5.mlp.fc1.bias", true}, /* of 5 layers */
        {"vision_model.", "lm_head.weight", true},
        {"model.vision_tower.vision_tower.vision_model.", "lm_head.weight", false},
        {"model.vision_tower.vision_tower.vision_model.",
         "model.vision_tower.vision_tower.vision_model.extra", true}};
    static struct tiny_file f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hg_vision *v;
        struct hg_error err;
        struct hg_backend *b = open_backend("ref");
        tower(&f, cases[i].prefix);
        f.prefix = NULL;
        for (int k = 0; k < f.n; k++) { /* the prefix into the names, so that `extra` has none */
            char name[96];
            snprintf(name, sizeof name, "%s%.50s", cases[i].prefix, f.t[k].name);
            snprintf(f.t[k].name, sizeof f.t[k].name, "%s", name);
        }
        tiny_file_add_vector(&f, cases[i].extra, "", 3);
        struct hg_weights *w = tiny_file_open(&f);
        HG_TEST_OK(hg_vision_load(b, &config, w, 1, HG_DTYPE_F32, &v, &err), err);
        if (cases[i].refused)
            HG_TEST_FAILS(hg_weights_check_all_used(w, &err), HG_STATUS_BAD_FILE, err,
                          cases[i].extra);
        else
            HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
        hg_vision_free(v);
        hg_weights_free(w);
        hg_backend_close(b);
        tiny_file_deinit(&f);
    }
}

static void refuse(struct tiny_file *f, const struct hg_vision_config *c, const char *part)
{
    struct hg_vision *v;
    struct hg_error err;
    struct hg_backend *b = open_backend("ref");
    struct hg_weights *w = tiny_file_open(f);
    HG_TEST_FAILS(hg_vision_load(b, c, w, 4, HG_DTYPE_F32, &v, &err), HG_STATUS_BAD_FILE, err,
                  part);
    assert_null(v);
    hg_weights_free(w);
    hg_backend_close(b);
}

static void a_missing_or_misshapen_tensor_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"embeddings.class_embedding",
                                        "embeddings.patch_embedding.weight",
                                        "pre_layrnorm.bias",
                                        "encoder.layers.0.self_attn.k_proj.weight",
                                        "encoder.layers.3.mlp.fc2.bias",
                                        "embeddings.position_embedding.weight"};
    static struct tiny_file f;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tower(&f, "vision_model.");
        tiny_file_drop(&f, names[i]);
        refuse(&f, &config, names[i]);
        tiny_file_deinit(&f);
        tower(&f, "vision_model.");
        tiny_file_find(&f, names[i])->dims[0]--;
        refuse(&f, &config, names[i]);
        tiny_file_deinit(&f);
    }
}

static void a_config_that_does_not_add_up_is_refused(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct hg_vision_config heads = config, side = config, patch = config, layers = config;
    tower(&f, "vision_model.");
    heads.n_heads = 5;
    side.image_side = 25;
    patch.patch = 0;
    layers.n_layers = 3;
    refuse(&f, &heads, "5 heads");
    refuse(&f, &side, "side 25");
    refuse(&f, &patch, "patch 0");
    refuse(&f, &layers, "of 3 layers");
    side.image_side = 32; /* fits the patch, but not the position table */
    refuse(&f, &side, "position_embedding");
    tiny_file_deinit(&f);
}

static void negative_layers_count_from_the_last_state(void **state)
{
    (void)state;
    assert_int_equal(hg_vision_layer_index(&config, -2), 4);
    assert_int_equal(hg_vision_layer_index(&config, -1), 5);
    assert_int_equal(hg_vision_layer_index(&config, -6), 0);
    assert_int_equal(hg_vision_layer_index(&config, -7), -1);
    assert_int_equal(hg_vision_layer_index(&config, 1), 1);
    assert_int_equal(hg_vision_layer_index(&config, 5), 5);
    assert_int_equal(hg_vision_layer_index(&config, 6), -1);
}

static void limits_of_the_published_tower(void **state)
{
    (void)state;
    static const struct hg_vision_config large = {1024, 24, 16, 4096, 336, 14, 3, 1e-5f};
    struct hg_backend_limits limits = {.max_out = 9216};
    hg_vision_limits(&large, &limits);
    assert_int_equal(limits.max_rows, 577);
    assert_int_equal(limits.max_in, 4096);
    assert_int_equal(limits.max_out, 9216);
    assert_int_equal(hg_vision_layer_index(&large, -2), 23);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_equal_those_of_transformers),
        cmocka_unit_test(stored_in_half_precision_the_states_stay_near),
        cmocka_unit_test(names_may_carry_the_prefix_of_a_llava_checkpoint),
        cmocka_unit_test(only_the_layers_asked_for_are_loaded),
        cmocka_unit_test(a_picture_gives_the_same_bytes_every_time),
        cmocka_unit_test(the_rest_of_a_clip_checkpoint_is_ignored),
        cmocka_unit_test(surplus_tensors_of_the_tower_are_named),
        cmocka_unit_test(a_missing_or_misshapen_tensor_is_named),
        cmocka_unit_test(a_config_that_does_not_add_up_is_refused),
        cmocka_unit_test(negative_layers_count_from_the_last_state),
        cmocka_unit_test(limits_of_the_published_tower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
