/* tests/parity/tiny_model.c - writes tiny models; twin of tools/oracle/golden_llm.py make(). */
#include "tests/parity/tiny_model.h"

#include <math.h>
#include <stdbool.h>

#include "tests/parity/model_writer.h"
#include "tests/test.h"

static uint64_t fnv1a64(const char *s)
{
    uint64_t h = 0xCBF29CE484222325ull;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001B3ull;
    return h;
}

void tiny_fill(const char *name, size_t n, double scale, double offset, float *out)
{
    uint64_t seed = fnv1a64(name);
    for (size_t i = 0; i < n; i++) {
        uint64_t z = seed + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        double u = (double)(z >> 40) * 0x1p-24;
        out[i] = (float)(offset + (2.0 * u - 1.0) * scale);
    }
}

/* key: salt + name, what the hash sees. */
static void add(struct writer *w, const char *key, const char *name, int rows, int cols,
                double scale, double offset)
{
    char full[320];
    snprintf(full, sizeof full, "%s%s", key, name);
    tiny_fill(full, (size_t)rows * (size_t)(cols ? cols : 1), scale, offset,
              writer_add(w, name, rows, cols));
}

struct linear {
    const char *name;
    int rows, cols;
};

static int geti(json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

static int linears(json_t *c, struct linear out[7])
{
    int d = geti(c, "hidden_size"), f = geti(c, "intermediate_size");
    int g = geti(c, "num_key_value_heads") * (d / geti(c, "num_attention_heads"));
    if (strcmp(json_string_value(json_object_get(c, "model_type")), "phi3") == 0) {
        struct linear fused[] = {{"self_attn.qkv_proj", d + 2 * g, d},
                                 {"self_attn.o_proj", d, d},
                                 {"mlp.gate_up_proj", 2 * f, d},
                                 {"mlp.down_proj", d, f}};
        memcpy(out, fused, sizeof fused);
        return 4;
    }
    struct linear split[] = {{"self_attn.q_proj", d, d}, {"self_attn.k_proj", g, d},
                             {"self_attn.v_proj", g, d}, {"self_attn.o_proj", d, d},
                             {"mlp.gate_proj", f, d},    {"mlp.up_proj", f, d},
                             {"mlp.down_proj", d, f}};
    memcpy(out, split, sizeof split);
    return 7;
}

static void base_file(json_t *c, const char *salt, struct writer *f)
{
    struct linear l[7];
    char name[160];
    int n = linears(c, l), d = geti(c, "hidden_size"), v = geti(c, "vocab_size");
    bool biases = strcmp(json_string_value(json_object_get(c, "model_type")), "qwen2") == 0;
    add(f, salt, "model.embed_tokens.weight", v, d, 1.0, 0);
    add(f, salt, "lm_head.weight", v, d, 4.0 / sqrt(d), 0);
    add(f, salt, "model.norm.weight", d, 0, 0.2, 1.0);
    for (int i = 0; i < geti(c, "num_hidden_layers"); i++) {
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
        add(f, salt, name, d, 0, 0.2, 1.0);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
        add(f, salt, name, d, 0, 0.2, 1.0);
        for (int k = 0; k < n; k++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, l[k].name);
            add(f, salt, name, l[k].rows, l[k].cols, sqrt(3.0 / l[k].cols), 0);
            if (!biases || k > 2)
                continue;
            snprintf(name, sizeof name, "model.layers.%d.%s.bias", i, l[k].name);
            add(f, salt, name, l[k].rows, 0, 0.1, 0);
        }
    }
}

static void plugin_file(json_t *c, const char *salt, int slot, json_t *task, struct writer *f)
{
    struct linear l[7];
    char key[128], name[160];
    int n = linears(c, l), r = geti(task, "rank"), e = geti(task, "experts");
    int d = geti(c, "hidden_size"), rows = geti(task, "fusion_rows");
    snprintf(key, sizeof key, "%s%d.", salt, slot);
    for (int i = 0; i < geti(c, "num_hidden_layers"); i++) {
        for (int k = 0; k < n; k++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.lora_A.weight", i, l[k].name);
            add(f, key, name, r, l[k].cols, sqrt(3.0 / l[k].cols), 0);
            snprintf(name, sizeof name, "model.layers.%d.%s.lora_B.weight", i, l[k].name);
            add(f, key, name, l[k].rows, r, 0.2 / sqrt(r), 0);
            snprintf(name, sizeof name, "model.layers.%d.%s.lora_route.weight", i, l[k].name);
            add(f, key, name, e, l[k].cols, 3.0 / sqrt(l[k].cols), 0);
        }
    }
    if (rows > 0) {
        add(f, key, "model.embed_tokens.weight", rows, d, 1.0, 0);
        add(f, key, "lm_head.weight", rows, d, 4.0 / sqrt(d), 0);
    }
}

void tiny_model_write(json_t *spec, char out[256])
{
    static const char *const names[] = {"comprehension", "generation"};
    static const char *const files[] = {"com.safetensors", "gen.safetensors"};
    const char *salt = json_string_value(json_object_get(spec, "salt"));
    json_t *c = json_object_get(spec, "config"), *cards = json_object();
    struct writer *f = calloc(1, sizeof *f);
    char llm[300];
    writer_temp_dir(out);
    writer_subdir(out, "llm", llm);
    writer_json(json_incref(c), llm, "config.json");
    writer_json(json_pack("{s:[i]}", "eos_token_id", geti(c, "eos_token_id")), llm,
                "generation_config.json");
    base_file(c, salt, f);
    writer_save(f, llm, "model.safetensors");
    for (int s = 0; s < 2; s++) {
        json_t *task = json_array_get(json_object_get(spec, "tasks"), (size_t)s);
        if (!json_is_object(task)) {
            json_object_set_new(cards, names[s], json_null());
            continue;
        }
        plugin_file(c, salt, s, task, f);
        writer_save(f, out, files[s]);
        json_object_set_new(cards, names[s],
                            json_pack("{s:s,s:n,s:i,s:i,s:i}", "hlora", files[s], "fusion", "alpha",
                                      geti(task, "alpha"), "vision_layer", -2, "max_new_tokens",
                                      64));
    }
    writer_json(json_pack("{s:i,s:O,s:s,s:s,s:n,s:n,s:s,s:s,s:s,s:s,s:o}", "format", 1, "name",
                          json_object_get(spec, "name"), "architecture", "healthgpt", "llm", "llm",
                          "vision", "vqgan", "template", "phi3_instruct", "rope_inv_freq", "fp32",
                          "license", "none", "notice", "random weights", "tasks", cards),
                out, "healthgpt.json");
    free(f);
}

static json_t *load(const char *name)
{
    json_error_t e;
    json_t *j = json_load_file(hg_test_file(name), 0, &e);
    if (!j)
        fail_msg("%s: %s", name, e.text);
    return j;
}

json_t *tiny_specs(void)
{
    return load("tests/golden/llm/specs.json");
}

json_t *tiny_golden(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/llm/%s.json", name);
    return load(path);
}
