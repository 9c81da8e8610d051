/* random-model DIR LAYERS [DIM FFN VOCAB [HEAD_DIM [KV_HEADS]]] [--ranks COM,GEN] [--split]
 * [--pictures | --small-pictures | --wide-pictures] - write a model folder of random bf16 weights
 * with H-LoRA plug-ins (4 experts), for benchmarks: memory traffic and arithmetic are those of a
 * real model, the answers are noise.
 *
 * Phi-3-shaped, or with --split Qwen2-shaped (q, k, v with bias; gate, up). --ranks: 64,256 unless
 * given; 0: no such task. --pictures: with CLIP ViT-L/14-336, projectors, a VQGAN f8-8192 decoder
 * and the embedding and head rows of its index tokens; --small-pictures: all of that small;
 * --wide-pictures: small, but much work beside a language model of a few small layers.
 *
 * Random: sign and mantissa, |w| in [2^-7, 2^-6). One block of 64 MiB is written over and over: a
 * device reads each weight from its own place all the same. */
#include "tools/random_model/random_model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 32 << 20 };

static _Noreturn void give_up(const char *what, const char *why)
{
    fprintf(stderr, "random-model: %s: %s\n", what, why);
    exit(74);
}

void add(struct file *f, int n_dims, const int64_t *dims, const char *format, ...)
{
    va_list ap;
    if (f->n == MAX_TENSORS)
        give_up("tensors", "too many");
    struct tensor *t = &f->t[f->n++];
    t->n_dims = n_dims;
    t->zero = false;
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = dims[i];
    va_start(ap, format);
    vsnprintf(t->name, sizeof t->name, format, ap);
    va_end(ap);
}

static size_t count(const struct tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (size_t)t->dims[i];
    return n;
}

FILE *open_in(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "wb");
    if (!out)
        give_up(path, strerror(errno));
    return out;
}

void close_file(FILE *out)
{
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed)
        give_up("write", strerror(errno));
}

static const uint16_t *random_chunk(void)
{
    static uint16_t *chunk;
    if (chunk)
        return chunk;
    chunk = malloc(CHUNK * sizeof *chunk);
    if (!chunk)
        give_up("random values", "out of memory");
    uint64_t state = 88172645463325252ull;
    for (size_t i = 0; i < CHUNK; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        chunk[i] = (uint16_t)(((state >> 40) & 0x807f) | 0x3c00);
    }
    return chunk;
}

static void write_values(FILE *out, const struct tensor *t)
{
    static size_t at; /* tensors of one shape differ */
    static uint16_t same[4096];
    const uint16_t *chunk = random_chunk();
    for (size_t i = 0; i < 4096; i++)
        same[i] = t->zero ? 0 : 0x3f80;
    for (size_t left = count(t); left > 0;) {
        size_t most = t->n_dims == 1 ? 4096 : CHUNK - at, n = left < most ? left : most;
        fwrite(t->n_dims == 1 ? same : chunk + at, sizeof *chunk, n, out);
        left -= n;
        at = t->n_dims == 1 ? at : (at + n) % CHUNK;
    }
}

void save(struct file *f, const char *dir, const char *name)
{
    char *header = NULL;
    size_t len = 0;
    uint64_t offset = 0;
    FILE *text = open_memstream(&header, &len);
    if (!text)
        give_up(name, "out of memory");
    for (int i = 0; i < f->n; i++) {
        const struct tensor *t = &f->t[i];
        uint64_t end = offset + count(t) * 2;
        fprintf(text, "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[", i ? ',' : '{', t->name);
        for (int d = 0; d < t->n_dims; d++)
            fprintf(text, "%s%lld", d ? "," : "", (long long)t->dims[d]);
        fprintf(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                (unsigned long long)end);
        offset = end;
    }
    fprintf(text, "}");
    close_file(text);
    FILE *out = open_in(dir, name);
    uint64_t n = (len + 7) / 8 * 8; /* padded with spaces, so that the data stay aligned */
    fwrite(&n, 8, 1, out);
    fprintf(out, "%-*s", (int)n, header);
    for (int i = 0; i < f->n; i++)
        write_values(out, &f->t[i]);
    close_file(out);
    free(header);
    f->n = 0;
}

/* ---- the language model
 * -------------------------------------------------------------------------- */

struct module {
    const char *name;
    int64_t out, in;
    bool bias;
};

/* Linears of a layer; returns how many. */
static int modules_of(const struct shape *s, struct module out[7])
{
    int64_t d = s->dim, kv = s->kv_heads * s->head_dim;
    const struct module fused[] = {{"self_attn.qkv_proj", d + 2 * kv, d, false},
                                   {"self_attn.o_proj", d, d, false},
                                   {"mlp.gate_up_proj", 2 * s->ffn, d, false},
                                   {"mlp.down_proj", d, s->ffn, false}};
    const struct module split[] = {
        {"self_attn.q_proj", d, d, true},    {"self_attn.k_proj", kv, d, true},
        {"self_attn.v_proj", kv, d, true},   {"self_attn.o_proj", d, d, false},
        {"mlp.gate_proj", s->ffn, d, false}, {"mlp.up_proj", s->ffn, d, false},
        {"mlp.down_proj", d, s->ffn, false}};
    memcpy(out, s->split ? split : fused, s->split ? sizeof split : sizeof fused);
    return s->split ? 7 : 4;
}

static void write_base(struct file *f, const struct shape *s, const char *dir)
{
    struct module m[7];
    int n = modules_of(s, m);
    ADD_MATRIX(f, s->vocab, s->dim, "model.embed_tokens.weight");
    ADD_MATRIX(f, s->vocab, s->dim, "lm_head.weight");
    ADD_VECTOR(f, s->dim, "model.norm.weight");
    for (int i = 0; i < (int)s->layers; i++) {
        ADD_VECTOR(f, s->dim, "model.layers.%d.input_layernorm.weight", i);
        ADD_VECTOR(f, s->dim, "model.layers.%d.post_attention_layernorm.weight", i);
        for (int k = 0; k < n; k++) {
            ADD_MATRIX(f, m[k].out, m[k].in, "model.layers.%d.%s.weight", i, m[k].name);
            if (m[k].bias)
                ADD_VECTOR(f, m[k].out, "model.layers.%d.%s.bias", i, m[k].name);
        }
    }
    save(f, dir, "model.safetensors");
}

static void write_plugin(struct file *f, const struct shape *s, int task, const char *dir)
{
    struct module m[7];
    int n = modules_of(s, m);
    int64_t rank = s->ranks[task];
    for (int i = 0; i < (int)s->layers; i++)
        for (int k = 0; k < n; k++) {
            ADD_MATRIX(f, rank, m[k].in, "model.layers.%d.%s.lora_A.weight", i, m[k].name);
            ADD_MATRIX(f, m[k].out, rank, "model.layers.%d.%s.lora_B.weight", i, m[k].name);
            ADD_MATRIX(f, 4, m[k].in, "model.layers.%d.%s.lora_route.weight", i, m[k].name);
        }
    if (s->pictures)
        add_projector(f, s);
    if (s->pictures && task == 1) { /* text, start, the index tokens, end, one more */
        int64_t rows = s->vocab + pictures_of(s).n_codes + 3;
        ADD_MATRIX(f, rows, s->dim, "model.embed_tokens.weight");
        ADD_MATRIX(f, rows, s->dim, "lm_head.weight");
    }
    save(f, dir, task ? "gen.safetensors" : "com.safetensors");
}

static void write_cards(const struct shape *s, const char *dir, const char *llm)
{
    FILE *out = open_in(llm, "config.json");
    fprintf(out,
            "{\"model_type\":\"%s\",\"hidden_size\":%lld,\"num_hidden_layers\":%lld,"
            "\"num_attention_heads\":%lld,\"num_key_value_heads\":%lld,\"intermediate_size\":%lld,"
            "\"vocab_size\":%lld,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
            "\"rope_scaling\":null,\"max_position_embeddings\":4096,%s"
            "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"eos_token_id\":2}\n",
            s->split ? "qwen2" : "phi3", (long long)s->dim, (long long)s->layers,
            (long long)(s->dim / s->head_dim), (long long)s->kv_heads, (long long)s->ffn,
            (long long)s->vocab, s->split ? "" : "\"sliding_window\":2047,");
    close_file(out);
    out = open_in(dir, "healthgpt.json");
    fprintf(out,
            "{\"format\":1,\"name\":\"random\",\"architecture\":\"healthgpt\",\"llm\":\"llm\","
            "\"vision\":%s,\"vqgan\":",
            s->pictures ? "\"vision\"" : "null");
    if (s->pictures)
        fprintf(out, "{\"path\":\"vqgan.safetensors\",\"grid\":%lld}",
                (long long)pictures_of(s).grid);
    else
        fprintf(out, "null");
    fprintf(out, ",\"template\":\"phi3_instruct\",\"rope_inv_freq\":\"fp16\",\"license\":\"none\","
                 "\"notice\":\"random weights\",\"tasks\":{");
    for (int i = 0, n = 0; i < 2; i++)
        if (s->ranks[i])
            fprintf(out,
                    "%s\"%s\":{\"hlora\":\"%s.safetensors\",\"fusion\":null,\"alpha\":%lld,"
                    "\"vision_layer\":%d,\"max_new_tokens\":1026}",
                    n++ ? "," : "", i ? "generation" : "comprehension", i ? "gen" : "com",
                    2LL * s->ranks[i], i ? 1 : -2);
    fprintf(out, "}}\n");
    close_file(out);
}

/* ---- command line
 * -------------------------------------------------------------------------------- */

static _Noreturn void usage(void)
{
    fprintf(
        stderr,
        "usage: random-model DIR LAYERS [DIM FFN VOCAB [HEAD_DIM [KV_HEADS]]] [--ranks COM,GEN] "
        "[--split] [--pictures | --small-pictures | --wide-pictures]\n");
    exit(64);
}

/* Options are taken out of argv; returns what is left. */
static int take_options(int argc, char **argv, struct shape *s)
{
    int n = 0;
    for (int i = 0; i < argc; i++) {
        long long com, gen;
        if (strcmp(argv[i], "--split") == 0) {
            s->split = true;
        } else if (strcmp(argv[i], "--pictures") == 0) {
            s->pictures = true;
        } else if (strcmp(argv[i], "--small-pictures") == 0) {
            s->pictures = s->small_pictures = true;
        } else if (strcmp(argv[i], "--wide-pictures") == 0) {
            s->pictures = s->wide_pictures = true;
        } else if (strcmp(argv[i], "--ranks") == 0 && i + 1 < argc &&
                   sscanf(argv[i + 1], "%lld,%lld", &com, &gen) == 2) {
            s->ranks[0] = com;
            s->ranks[1] = gen;
            i++;
        } else if (strncmp(argv[i], "--", 2) == 0) {
            usage();
        } else {
            argv[n++] = argv[i];
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    static struct file f;
    struct shape s = {.dim = 2048, .ffn = 5632, .vocab = 8192, .head_dim = 128, .ranks = {64, 256}};
    char llm[4000];
    argc = take_options(argc, argv, &s);
    if (argc < 3 || argc == 4 || argc == 5 || argc > 8)
        usage();
    int64_t *at[] = {&s.layers, &s.dim, &s.ffn, &s.vocab, &s.head_dim, &s.kv_heads};
    for (int i = 2; i < argc; i++)
        *at[i - 2] = atoll(argv[i]);
    if (s.head_dim >= 2 && !s.kv_heads)
        s.kv_heads = s.dim / s.head_dim;
    if (s.layers < 1 || s.layers > 128 || s.head_dim < 2 || s.dim < s.head_dim ||
        s.dim % s.head_dim || s.kv_heads < 1 || s.dim / s.head_dim % s.kv_heads || s.ffn < 1 ||
        s.vocab < 3 || s.ranks[0] % 4 || s.ranks[1] % 4 || s.ranks[0] < 0 || s.ranks[1] < 0 ||
        s.ranks[0] + s.ranks[1] == 0)
        usage();
    snprintf(llm, sizeof llm, "%s/llm", argv[1]);
    mkdir(argv[1], 0755);
    mkdir(llm, 0755);
    write_cards(&s, argv[1], llm);
    write_base(&f, &s, llm);
    for (int i = 0; i < 2; i++)
        if (s.ranks[i])
            write_plugin(&f, &s, i, argv[1]);
    if (s.pictures)
        write_pictures(&f, &s, argv[1]);
    return 0;
}
