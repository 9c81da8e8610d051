/* tests/parity/test_stories260k.c - the decoder on weights that we did not make: stories260K
 * (llama2.c), whose 256 greedy ids are known (golden_greedy.json of the shared data). The file is
 * converted into a Llama folder: rows of wq and wk are reordered from interleaved to half-split
 * rotary pairs. */
#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/test.h"

struct stories {
    int32_t dim, hidden, n_layers, n_heads, n_kv_heads, vocab, seq_len;
};

/* out[i] and out[i + P/2] take rows 2i and 2i + 1 of every head. */
static void half_split(float *out, const float *in, int n_heads, int head_dim, int cols)
{
    for (int h = 0; h < n_heads; h++)
        for (int r = 0; r < head_dim; r++) {
            int to = h * head_dim + r / 2 + (r % 2) * (head_dim / 2);
            memcpy(out + to * cols, in + (h * head_dim + r) * cols, (size_t)cols * sizeof *in);
        }
}

/* layer -1: a tensor of the whole model. */
static void layer_name(char out[128], const char *what, int layer)
{
    if (layer < 0)
        snprintf(out, 128, "model.%s.weight", what);
    else
        snprintf(out, 128, "model.layers.%d.%s.weight", layer, what);
}

static void copy(struct writer *w, const char *what, int layer, int rows, int cols, const float **p)
{
    char name[128];
    layer_name(name, what, layer);
    size_t n = (size_t)rows * (size_t)(cols ? cols : 1);
    memcpy(writer_add(w, name, rows, cols), *p, n * sizeof **p);
    *p += n;
}

static void copy_rotary(struct writer *w, const char *what, int layer, int n_heads, int head_dim,
                        int cols, const float **p)
{
    char name[128];
    layer_name(name, what, layer);
    half_split(writer_add(w, name, n_heads * head_dim, cols), *p, n_heads, head_dim, cols);
    *p += (size_t)(n_heads * head_dim) * (size_t)cols;
}

/* File order: embeddings, then each kind of tensor for all layers. */
static void convert(const struct stories *s, const float *p, struct writer *w)
{
    int d = s->dim, hd = d / s->n_heads, kv = s->n_kv_heads * hd, L = s->n_layers;
    copy(w, "embed_tokens", -1, s->vocab, d, &p);
    for (int i = 0; i < L; i++)
        copy(w, "input_layernorm", i, d, 0, &p);
    for (int i = 0; i < L; i++)
        copy_rotary(w, "self_attn.q_proj", i, s->n_heads, hd, d, &p);
    for (int i = 0; i < L; i++)
        copy_rotary(w, "self_attn.k_proj", i, s->n_kv_heads, hd, d, &p);
    for (int i = 0; i < L; i++)
        copy(w, "self_attn.v_proj", i, kv, d, &p);
    for (int i = 0; i < L; i++)
        copy(w, "self_attn.o_proj", i, d, d, &p);
    for (int i = 0; i < L; i++)
        copy(w, "post_attention_layernorm", i, d, 0, &p);
    for (int i = 0; i < L; i++)
        copy(w, "mlp.gate_proj", i, s->hidden, d, &p);
    for (int i = 0; i < L; i++)
        copy(w, "mlp.down_proj", i, d, s->hidden, &p);
    for (int i = 0; i < L; i++)
        copy(w, "mlp.up_proj", i, s->hidden, d, &p);
    copy(w, "norm", -1, d, 0, &p);
}

static void write_model(const char *path, char dir[256])
{
    size_t n;
    unsigned char *file = hg_test_read(path, &n);
    struct stories s;
    char llm[300];
    struct writer *w = calloc(1, sizeof *w);
    memcpy(&s, file, sizeof s);
    convert(&s, (const float *)(const void *)(file + sizeof s), w);
    writer_temp_dir(dir);
    writer_subdir(dir, "llm", llm);
    writer_save(w, llm, "model.safetensors");
    writer_json(json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:n,s:i,s:s,s:b,s:i,s:i}",
                          "model_type", "llama", "hidden_size", s.dim, "num_hidden_layers",
                          s.n_layers, "num_attention_heads", s.n_heads, "num_key_value_heads",
                          s.n_kv_heads, "intermediate_size", s.hidden, "vocab_size", s.vocab,
                          "rms_norm_eps", 1e-5, "rope_theta", 10000.0, "rope_scaling",
                          "max_position_embeddings", s.seq_len, "hidden_act", "silu",
                          "tie_word_embeddings", 1, "bos_token_id", 1, "eos_token_id", 1),
                llm, "config.json");
    writer_json(json_pack("{s:i}", "eos_token_id", 1), llm, "generation_config.json");
    json_t *task = json_pack("{s:n,s:n,s:i,s:i,s:i}", "hlora", "fusion", "alpha", 1, "vision_layer",
                             -2, "max_new_tokens", 256);
    writer_json(json_pack("{s:i,s:s,s:s,s:s,s:n,s:n,s:s,s:s,s:s,s:s,s:{s:o,s:n}}", "format", 1,
                          "name", "stories260K", "architecture", "healthgpt", "llm", "llm",
                          "vision", "vqgan", "template", "phi3_instruct", "rope_inv_freq", "fp32",
                          "license", "MIT", "notice", "stories", "tasks", "comprehension", task,
                          "generation"),
                dir, "healthgpt.json");
    free(w);
    free(file);
}

static void check(const char *backend, const char *dtype)
{
    const char *path = hg_test_shared("data/weights_formats/stories260K/stories260K.bin");
    if (!path)
        HG_TEST_SKIP("shared data stories260K is absent");
    char dir[256];
    write_model(path, dir);
    json_error_t e;
    json_t *golden = json_load_file(
        hg_test_shared("data/weights_formats/stories260K/golden_greedy.json"), 0, &e);
    json_t *ids = json_object_get(golden, "tokens");
    struct hg_error err = {0};
    struct hg_model *m = NULL;
    struct hg_prepared *p = NULL;
    struct hg_model_options o = {.path = dir, .backend = backend, .dtype = dtype, .n_threads = 2};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    hg_sampling_default(&in.sampling);
    in.sampling.ignore_stop = true;
    in.sampling.max_tokens = (int)json_array_size(ids);
    assert_true(json_array_size(ids) >= 256);
    HG_TEST_OK(hg_model_prepare_ids(m, &in, (int32_t[]){1}, 1, &p, &err), err);
    struct run_result r;
    run_together(m, &p, 1, 64, 0, &r);
    for (size_t i = 0; i < json_array_size(ids); i++)
        assert_int_equal(r.ids[i], json_integer_value(json_array_get(ids, i)));
    printf("# stories260K on %s %s: %zu known greedy ids reproduced\n", backend, dtype, r.n_ids);
    run_result_free(&r);
    hg_model_free(m);
    writer_remove(dir);
    json_decref(golden);
}

static void ref_reproduces_the_known_continuation(void **state)
{
    (void)state;
    check("ref", "f32");
}

static void cpu_reproduces_the_known_continuation(void **state)
{
    (void)state;
    check("cpu", "f32");
}

static void chosen_backend_reproduces_the_known_continuation(void **state)
{
    (void)state;
    check(hg_test_backend(), "f32");
}

int main(void)
{
    const struct CMUnitTest chosen[] = {
        cmocka_unit_test(chosen_backend_reproduces_the_known_continuation),
    };
    if (hg_test_backend())
        return cmocka_run_group_tests(chosen, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_reproduces_the_known_continuation),
        cmocka_unit_test(cpu_reproduces_the_known_continuation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
