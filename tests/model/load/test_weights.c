/* tests/model/load/test_weights.c - folders, shards, overlays, names, shapes and what is left over.
 */
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/file.h"
#include "model/load/weights.h"
#include "tests/model/load/build_file.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hg_weights_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_text(const char *name, const char *text)
{
    struct hg_error err = {0};
    HG_TEST_OK(hg_file_write(in_dir(name), text, strlen(text), &err), err);
}

/* A safetensors file of F32 vectors of two elements: both are `value`. */
static void write_vectors(const char *file, const char *const *names, float value)
{
    struct hg_buf header = {0}, out = {0};
    struct hg_error err = {0};
    float data[64];
    int n = 0;
    for (; names[n]; n++) {
        hg_buf_printf(&header,
                      "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%d,%d]}",
                      n ? "," : "{", names[n], 8 * n, 8 * n + 8);
        data[2 * n] = data[2 * n + 1] = value;
    }
    hg_buf_append_str(&header, "}");
    hg_build_safetensors(&out, header.data, data, 8 * (size_t)n);
    HG_TEST_OK(hg_file_write(in_dir(file), out.data, out.len, &err), err);
    hg_buf_deinit(&header);
    hg_buf_deinit(&out);
}

static struct hg_weights *create(void)
{
    struct hg_weights *w;
    struct hg_error err = {0};
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    return w;
}

static float value_of(const struct hg_weights *w, const char *name)
{
    float x;
    const struct hg_tensor *t = hg_weights_find(w, name);
    if (!t)
        fail_msg("%s is missing", name);
    memcpy(&x, t->data, 4);
    return x;
}

static void later_files_override_earlier_names(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    write_vectors("one", (const char *[]){"a", "b", NULL}, 1);
    write_vectors("two", (const char *[]){"b", "c", NULL}, 2);
    write_vectors("three", (const char *[]){"c", NULL}, 3);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("one"), &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("two"), &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("three"), &err), err);
    assert_int_equal(hg_weights_count(w), 3);
    assert_true(value_of(w, "a") == 1 && value_of(w, "b") == 2 && value_of(w, "c") == 3);
    const char *file = NULL;
    assert_string_equal(hg_weights_at(w, 1, &file)->name, "b");
    assert_non_null(strstr(file, "/two"));
    assert_null(hg_weights_at(w, 3, &file));
    hg_weights_free(w);
}

static void names_are_normalised(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight",
         "model.layers.0.self_attn.qkv_proj.lora_A.weight"},
        {"module.base_model.model.model.layers.1.mlp.down_proj.lora_B.default.weight",
         "model.layers.1.mlp.down_proj.lora_B.weight"},
        {"base_model.model.model.layers.2.mlp.down_proj.lora_route",
         "model.layers.2.mlp.down_proj.lora_route.weight"},
        {"base_model.model.model.layers.3.mlp.down_proj.lora_B.default",
         "model.layers.3.mlp.down_proj.lora_B.weight"},
        {"mm_projector.0.bias", "model.mm_projector.0.bias"},
        {"base_model.model.mm_projector.2.bias", "model.mm_projector.2.bias"},
        {"base_model.model.model.mm_projector.2.weight", "model.mm_projector.2.weight"},
        {"module.lm_head.weight", "lm_head.weight"},
        {"model.model.mm_projector.4.weight", "model.mm_projector.4.weight"},
        {"base_model.model.model.model.layers.5.mlp.down_proj.lora_A.default.weight",
         "model.layers.5.mlp.down_proj.lora_A.weight"},
        {"model.defaults.weight", "model.defaults.weight"},
        {"vision_model.embeddings.class_embedding", "vision_model.embeddings.class_embedding"},
    };
    struct hg_error err = {0};
    const char *list[24] = {NULL};
    struct hg_weights *w = create();
    size_t n = sizeof names / sizeof names[0];
    for (size_t i = 0; i < n; i++)
        list[i] = names[i][0];
    write_vectors("keys", list, 1);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("keys"), &err), err);
    for (size_t i = 0; i < n; i++)
        if (!hg_weights_find(w, names[i][1]))
            fail_msg("%s did not become %s", names[i][0], names[i][1]);
    hg_weights_free(w);
}

static void one_name_under_two_spellings_is_refused(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    write_vectors("twice", (const char *[]){"lm_head.weight", "module.lm_head.weight", NULL}, 1);
    HG_TEST_FAILS(hg_weights_add_file(w, in_dir("twice"), &err), HG_STATUS_BAD_FILE, err,
                  "two spellings");
    hg_weights_free(w);
}

static void get_names_tensor_expected_and_found(void **state)
{
    (void)state;
    struct hg_error err = {0};
    const struct hg_tensor *t;
    struct hg_weights *w = create();
    struct hg_buf file = {0};
    hg_build_safetensors(
        &file,
        "{\"x.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
        "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[12,20]}}",
        "01234567890123456789", 20);
    HG_TEST_OK(hg_file_write(in_dir("m.safetensors"), file.data, file.len, &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("m.safetensors"), &err), err);
    HG_TEST_OK(hg_weights_get(w, "x.weight", 2, (int64_t[]){2, 3}, &t, &err), err);
    HG_TEST_OK(hg_weights_get(w, "x.weight", 2, (int64_t[]){-1, 3}, &t, &err), err);
    HG_TEST_FAILS(hg_weights_get(w, "x.weight", 2, (int64_t[]){3, 2}, &t, &err), HG_STATUS_BAD_FILE,
                  err, "m.safetensors: tensor x.weight: expected [3, 2], got [2, 3]");
    assert_null(t);
    HG_TEST_FAILS(hg_weights_get(w, "x.weight", 1, (int64_t[]){6}, &t, &err), HG_STATUS_BAD_FILE,
                  err, "expected [6], got [2, 3]");
    HG_TEST_FAILS(hg_weights_get(w, "y.weight", 1, (int64_t[]){6}, &t, &err), HG_STATUS_BAD_FILE,
                  err, "m.safetensors: tensor y.weight: missing");
    HG_TEST_FAILS(hg_weights_get(w, "ids", 1, (int64_t[]){1}, &t, &err), HG_STATUS_BAD_FILE, err,
                  "tensor ids: expected F32, F16, BF16 or F64, got I64");
    hg_buf_deinit(&file);
    hg_weights_free(w);
}

static void surplus_tensors_are_named(void **state)
{
    (void)state;
    struct hg_error err = {0};
    const struct hg_tensor *t;
    int64_t two = 2;
    struct hg_weights *w = create();
    HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
    write_vectors("many", (const char *[]){"a", "b", "loss.x", "loss.y", "z", NULL}, 1);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("many"), &err), err);
    HG_TEST_FAILS(hg_weights_check_all_used(w, &err), HG_STATUS_BAD_FILE, err,
                  "tensor a: not expected by this model (5 such)");
    HG_TEST_OK(hg_weights_get(w, "a", 1, &two, &t, &err), err);
    HG_TEST_OK(hg_weights_get(w, "b", 1, &two, &t, &err), err);
    hg_weights_ignore_prefix(w, "loss.");
    HG_TEST_FAILS(hg_weights_check_all_used(w, &err), HG_STATUS_BAD_FILE, err,
                  "tensor z: not expected by this model (1 such)");
    HG_TEST_OK(hg_weights_get(w, "z", 1, &two, &t, &err), err);
    HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
    hg_weights_free(w);
}

static void surplus_of_a_plugin_is_a_warning_unless_it_is_an_adapter(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    write_vectors("extra", (const char *[]){"model.vision_tower.x", "epoch", NULL}, 1);
    write_vectors(
        "adapter",
        (const char *[]){"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", NULL}, 1);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("extra"), &err), err);
    HG_TEST_OK(hg_weights_warn_unused(w, true, &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("adapter"), &err), err);
    HG_TEST_FAILS(hg_weights_warn_unused(w, false, &err), HG_STATUS_BAD_FILE, err,
                  "layers.9.mlp.up_proj.lora_A.weight: not expected by this model");
    hg_weights_free(w);
}

static void a_folder_of_llava_is_a_plugin(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    HG_TEST_FAILS(hg_weights_add_file(w, dir, &err), HG_STATUS_NOT_FOUND, err, "adapter_model");
    write_vectors("non_lora_trainables.bin",
                  (const char *[]){"model.model.mm_projector.0.weight", NULL}, 2);
    write_vectors(
        "adapter_model.bin",
        (const char *[]){"base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", NULL}, 1);
    HG_TEST_OK(hg_weights_add_file(w, dir, &err), err);
    assert_true(value_of(w, "model.mm_projector.0.weight") == 2);
    assert_true(value_of(w, "model.layers.0.mlp.down_proj.lora_A.weight") == 1);
    hg_weights_free(w);
}

static void a_folder_is_one_file_or_shards(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    HG_TEST_FAILS(hg_weights_add_dir(w, dir, &err), HG_STATUS_NOT_FOUND, err, "model.safetensors");
    write_vectors("model.safetensors", (const char *[]){"single", NULL}, 1);
    HG_TEST_OK(hg_weights_add_dir(w, dir, &err), err);
    assert_non_null(hg_weights_find(w, "single"));
    hg_weights_free(w);

    w = create();
    write_vectors("s-1.safetensors", (const char *[]){"a", "b", NULL}, 1);
    write_vectors("s-2.safetensors", (const char *[]){"c", NULL}, 2);
    write_text("model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":24},\"weight_map\":{\"a\":\"s-1.safetensors\",\"c\":"
               "\"s-2.safetensors\",\"b\":\"s-1.safetensors\"}}");
    HG_TEST_OK(hg_weights_add_dir(w, dir, &err), err);
    assert_int_equal(hg_weights_count(w), 3);
    assert_true(value_of(w, "b") == 1 && value_of(w, "c") == 2);
    hg_weights_free(w);
}

static void wrong_indices_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"weight_map\":{\"a\":\"s-9.safetensors\"}}", "s-9.safetensors"},
        {"{\"weight_map\":{\"a\":\"../s-1.safetensors\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":7}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"s-1.safetensors\",\"q\":\"s-1.safetensors\"}}",
         "tensor q: missing, though the index"},
        {"{\"weight_map\":{\"a\":\"s-1.safetensors\",\"a\":\"s-1.safetensors\"}}", "duplicate"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{}", "weight_map"},
        {"[]", "weight_map"},
        {"", "index.json"},
        {"{\"weight_map\":", "line 1"},
        {"{\"a\":[[[[[[[[[[]]]]]]]]]]}", "nested"},
    };
    struct hg_error err = {0};
    write_vectors("s-1.safetensors", (const char *[]){"a", "b", NULL}, 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hg_weights *w = create();
        write_text("model.safetensors.index.json", bad[i][0]);
        if (hg_weights_add_dir(w, dir, &err) == HG_STATUS_OK)
            fail_msg("accepted: %s", bad[i][0]);
        if (!strstr(err.text, bad[i][1]))
            fail_msg("%s: \"%s\" does not name \"%s\"", bad[i][0], err.text, bad[i][1]);
        hg_weights_free(w);
    }
    unlink(in_dir("model.safetensors.index.json"));
}

static void a_torch_folder_is_read(void **state)
{
    (void)state;
    size_t n;
    struct hg_error err = {0};
    struct hg_weights *w = create();
    unsigned char *data = hg_test_read(hg_test_file("tests/data/weights/lightning.ckpt"), &n);
    unlink(in_dir("model.safetensors"));
    HG_TEST_OK(hg_file_write(in_dir("pytorch_model.bin"), data, n, &err), err);
    HG_TEST_OK(hg_weights_add_dir(w, dir, &err), err);
    assert_int_equal(hg_weights_count(w), 8);
    hg_weights_free(w);
    w = create();
    write_text("pytorch_model.bin.index.json",
               "{\"weight_map\":{\"0.bias\":\"pytorch_model.bin\"}}");
    HG_TEST_OK(hg_weights_add_dir(w, dir, &err), err);
    assert_int_equal(hg_weights_count(w), 8);
    hg_weights_free(w);
    free(data);
}

/* The sum over the sums, written out: it does not depend on the order of reading, and a tensor that
 * is read twice counts once. */
static void what_was_read_is_summed_and_metered(void **state)
{
    (void)state;
    static const char *const names[] = {"b", "a", "unread", NULL};
    const int64_t two = 2;
    struct hg_error err = {0};
    struct hg_load_meter meter;
    struct hg_weights *w = create();
    const struct hg_tensor *a, *b;
    float value = 7, data[2] = {7, 7};
    write_vectors("x.safetensors", names, value);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("x.safetensors"), &err), err);
    assert_int_equal(hg_weights_bytes(w), 3 * sizeof data);
    hg_load_meter_start(&meter, hg_weights_bytes(w));
    hg_weights_set_meter(w, &meter);
    HG_TEST_OK(hg_weights_get(w, "b", 1, &two, &b, &err), err);
    HG_TEST_OK(hg_weights_get(w, "a", 1, &two, &a, &err), err);
    assert_int_equal(hg_weights_crc32c(w, 5), 5); /* nothing was read yet */
    hg_weights_done(w, b);
    hg_weights_done(w, a);
    hg_weights_done(w, b);
    assert_int_equal(meter.done, 2 * sizeof data);
    uint32_t each = hg_crc32c(0, data, sizeof data), want = 0;
    unsigned char bytes[] = {(unsigned char)each, (unsigned char)(each >> 8),
                             (unsigned char)(each >> 16), (unsigned char)(each >> 24)};
    for (const char *name = "ab"; *name; name++)
        want = hg_crc32c(hg_crc32c(want, name, 1), bytes, 4);
    assert_int_equal(hg_weights_crc32c(w, 0), want);
    assert_true(((const float *)(const void *)a->data)[1] == value); /* its page comes back */
    hg_weights_free(w);
}

static void the_demo_model_opens(void **state)
{
    (void)state;
    static const char *const files[] = {"com_hlora_weights.bin", "gen_hlora_weights.bin",
                                        "fusion_layer_weights.bin", "vqgan/last.ckpt"};
    struct hg_error err = {0};
    struct hg_weights *w = create();
    size_t n_tensors = 0;
    if (!hg_file_exists(hg_test_file("config/models/demo/llm/model.safetensors"))) {
        hg_weights_free(w);
        HG_TEST_SKIP("config/models/demo has no weights");
    }
    HG_TEST_OK(hg_weights_add_dir(w, hg_test_file("config/models/demo/llm"), &err), err);
    HG_TEST_OK(hg_weights_add_dir(w, hg_test_file("config/models/demo/vision"), &err), err);
    for (int i = 0; i < 4; i++) {
        char name[100];
        snprintf(name, sizeof name, "config/models/demo/%s", files[i]);
        HG_TEST_OK(hg_weights_add_file(w, hg_test_file(name), &err), err);
    }
    n_tensors = hg_weights_count(w);
    assert_non_null(hg_weights_find(w, "model.layers.0.self_attn.qkv_proj.lora_A.weight"));
    assert_non_null(hg_weights_find(w, "model.mm_projector.0.weight"));
    assert_non_null(hg_weights_find(w, "decoder.conv_in.weight"));
    /* The fusion file comes last and has more rows than the base. */
    const struct hg_tensor *t = hg_weights_find(w, "model.embed_tokens.weight");
    const char *file = NULL;
    for (size_t i = 0; i < n_tensors; i++)
        if (hg_weights_at(w, i, &file) == t)
            break;
    assert_non_null(strstr(file, "fusion"));
    printf("%zu names\n", n_tensors);
    hg_weights_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(later_files_override_earlier_names, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_are_normalised, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(one_name_under_two_spellings_is_refused, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(get_names_tensor_expected_and_found, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(surplus_tensors_are_named, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(surplus_of_a_plugin_is_a_warning_unless_it_is_an_adapter,
                                        make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_folder_of_llava_is_a_plugin, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_folder_is_one_file_or_shards, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(wrong_indices_are_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_torch_folder_is_read, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_was_read_is_summed_and_metered, make_dir, remove_dir),
        cmocka_unit_test(the_demo_model_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
