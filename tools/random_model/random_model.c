/* random-model DIR LAYERS [DIM FFN VOCAB [HEAD_DIM]] - write a Phi-3-shaped model folder of random
 * bf16 weights with both H-LoRA plug-ins (rank 64 and 256, 4 experts), for benchmarks: memory
 * traffic and arithmetic are those of a real model, the answers are noise. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_TENSORS = 4096, CHUNK = 1 << 20 };

struct tensor {
    char name[112];
    int64_t rows, cols; /* cols 0: vector */
};

struct file {
    struct tensor t[MAX_TENSORS];
    int n;
};

static void add(struct file *f, const char *name, int64_t rows, int64_t cols)
{
    struct tensor *t = &f->t[f->n < MAX_TENSORS ? f->n++ : MAX_TENSORS - 1];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
}

static void add_layer(struct file *f, int layer, const char *what, int64_t rows, int64_t cols)
{
    char name[112];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, what);
    add(f, name, rows, cols);
}

static size_t count(const struct tensor *t)
{
    return (size_t)t->rows * (size_t)(t->cols ? t->cols : 1);
}

static FILE *open_in(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "wb");
    if (!out) {
        fprintf(stderr, "random-model: %s: %s\n", path, strerror(errno));
        exit(74);
    }
    return out;
}

static void close_file(FILE *out)
{
    if (fclose(out) != 0) {
        fprintf(stderr, "random-model: write failed: %s\n", strerror(errno));
        exit(74);
    }
}

/* Random sign and mantissa, |w| in [2^-7, 2^-6); norm weights are one. */
static void write_values(FILE *out, const struct tensor *t, uint64_t *state)
{
    static uint16_t chunk[CHUNK];
    for (size_t left = count(t); left > 0;) {
        size_t n = left < CHUNK ? left : CHUNK;
        for (size_t i = 0; i < n; i++) {
            *state = *state * 6364136223846793005ull + 1442695040888963407ull;
            chunk[i] = t->cols ? (uint16_t)(((*state >> 40) & 0x807f) | 0x3c00) : 0x3f80;
        }
        fwrite(chunk, sizeof *chunk, n, out);
        left -= n;
    }
}

static void save(struct file *f, const char *dir, const char *name)
{
    char *header = NULL;
    size_t len = 0;
    uint64_t offset = 0, state = 88172645463325252ull;
    FILE *text = open_memstream(&header, &len);
    for (int i = 0; text && i < f->n; i++) {
        const struct tensor *t = &f->t[i];
        uint64_t end = offset + count(t) * 2;
        fprintf(text, "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[%lld", i ? ',' : '{', t->name,
                (long long)t->rows);
        if (t->cols)
            fprintf(text, ",%lld", (long long)t->cols);
        fprintf(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                (unsigned long long)end);
        offset = end;
    }
    if (!text || fprintf(text, "}") < 0 || fclose(text) != 0)
        exit(70);
    FILE *out = open_in(dir, name);
    uint64_t n = (len + 7) / 8 * 8; /* padded with spaces, so that the data stay aligned */
    fwrite(&n, 8, 1, out);
    fprintf(out, "%-*s", (int)n, header);
    for (int i = 0; i < f->n; i++)
        write_values(out, &f->t[i], &state);
    close_file(out);
    free(header);
    f->n = 0;
}

struct shape {
    int64_t layers, dim, ffn, vocab, head_dim;
};

static void write_base(struct file *f, const struct shape *s, const char *dir)
{
    add(f, "model.embed_tokens.weight", s->vocab, s->dim);
    add(f, "lm_head.weight", s->vocab, s->dim);
    add(f, "model.norm.weight", s->dim, 0);
    for (int i = 0; i < (int)s->layers; i++) {
        add_layer(f, i, "input_layernorm", s->dim, 0);
        add_layer(f, i, "post_attention_layernorm", s->dim, 0);
        add_layer(f, i, "self_attn.qkv_proj", 3 * s->dim, s->dim);
        add_layer(f, i, "self_attn.o_proj", s->dim, s->dim);
        add_layer(f, i, "mlp.gate_up_proj", 2 * s->ffn, s->dim);
        add_layer(f, i, "mlp.down_proj", s->dim, s->ffn);
    }
    save(f, dir, "model.safetensors");
}

static void add_adapter(struct file *f, int layer, const char *module, int64_t out, int64_t in,
                        int64_t rank)
{
    char what[64];
    snprintf(what, sizeof what, "%s.lora_A", module);
    add_layer(f, layer, what, rank, in);
    snprintf(what, sizeof what, "%s.lora_B", module);
    add_layer(f, layer, what, out, rank);
    snprintf(what, sizeof what, "%s.lora_route", module);
    add_layer(f, layer, what, 4, in);
}

static void write_plugin(struct file *f, const struct shape *s, int64_t rank, const char *dir,
                         const char *name)
{
    for (int i = 0; i < (int)s->layers; i++) {
        add_adapter(f, i, "self_attn.qkv_proj", 3 * s->dim, s->dim, rank);
        add_adapter(f, i, "self_attn.o_proj", s->dim, s->dim, rank);
        add_adapter(f, i, "mlp.gate_up_proj", 2 * s->ffn, s->dim, rank);
        add_adapter(f, i, "mlp.down_proj", s->dim, s->ffn, rank);
    }
    save(f, dir, name);
}

static void write_cards(const struct shape *s, const char *dir, const char *llm)
{
    FILE *out = open_in(llm, "config.json");
    fprintf(out,
            "{\"model_type\":\"phi3\",\"hidden_size\":%lld,\"num_hidden_layers\":%lld,"
            "\"num_attention_heads\":%lld,\"num_key_value_heads\":%lld,\"intermediate_size\":%lld,"
            "\"vocab_size\":%lld,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
            "\"rope_scaling\":null,\"max_position_embeddings\":4096,\"sliding_window\":2047,"
            "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"eos_token_id\":2}\n",
            (long long)s->dim, (long long)s->layers, (long long)(s->dim / s->head_dim),
            (long long)(s->dim / s->head_dim), (long long)s->ffn, (long long)s->vocab);
    close_file(out);
    out = open_in(dir, "healthgpt.json");
    fprintf(out, "{\"format\":1,\"name\":\"random\",\"architecture\":\"healthgpt\",\"llm\":\"llm\","
                 "\"vision\":null,\"vqgan\":null,\"template\":\"phi3_instruct\","
                 "\"rope_inv_freq\":\"fp16\",\"license\":\"none\",\"notice\":\"random weights\","
                 "\"tasks\":{\"comprehension\":{\"hlora\":\"com.safetensors\",\"fusion\":null,"
                 "\"alpha\":128,\"vision_layer\":-2,\"max_new_tokens\":1024},"
                 "\"generation\":{\"hlora\":\"gen.safetensors\",\"fusion\":null,\"alpha\":512,"
                 "\"vision_layer\":1,\"max_new_tokens\":1026}}}\n");
    close_file(out);
}

int main(int argc, char **argv)
{
    static struct file f;
    struct shape s = {0, 2048, 5632, 8192, 128};
    char llm[4000];
    if (argc != 3 && argc != 6 && argc != 7) {
        fprintf(stderr, "usage: random-model DIR LAYERS [DIM FFN VOCAB [HEAD_DIM]]\n");
        return 64;
    }
    s.layers = atoll(argv[2]);
    if (argc >= 6) {
        s.dim = atoll(argv[3]);
        s.ffn = atoll(argv[4]);
        s.vocab = atoll(argv[5]);
        s.head_dim = argc > 6 ? atoll(argv[6]) : s.head_dim;
    }
    if (s.layers < 1 || s.layers > 128 || s.head_dim < 2 || s.dim < s.head_dim ||
        s.dim % s.head_dim || s.ffn < 1 || s.vocab < 3) {
        fprintf(stderr, "random-model: LAYERS 1..128, DIM a multiple of HEAD_DIM\n");
        return 64;
    }
    snprintf(llm, sizeof llm, "%s/llm", argv[1]);
    mkdir(argv[1], 0755);
    mkdir(llm, 0755);
    write_cards(&s, argv[1], llm);
    write_base(&f, &s, llm);
    write_plugin(&f, &s, 64, argv[1], "com.safetensors");
    write_plugin(&f, &s, 256, argv[1], "gen.safetensors");
    return 0;
}
