/* tools/random_model/random_model.h - tensors and files of a random model. */
#ifndef HG_TOOLS_RANDOM_MODEL_H
#define HG_TOOLS_RANDOM_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MAX_TENSORS = 4096, NAME_CAP = 112 };

struct tensor {
    char name[NAME_CAP];
    int64_t dims[4];
    int n_dims; /* 1: all ones, else random */
    bool zero;  /* all zeros */
};

/* A safetensors file (BF16) in the making. */
struct file {
    struct tensor t[MAX_TENSORS];
    int n;
};

struct shape {
    int64_t layers, dim, ffn, vocab, head_dim, kv_heads;
    int64_t ranks[2]; /* of the plug-ins; 0: the task is absent */
    bool split;       /* Qwen2: q, k, v apart and with bias, gate and up apart */
    bool pictures, small_pictures, wide_pictures;
};

/* Exit with a message where anything fails: this is a tool of benchmarks. */
void add(struct file *f, int n_dims, const int64_t *dims, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define ADD_VECTOR(f, n, ...) add(f, 1, (const int64_t[]){n}, __VA_ARGS__)
#define ADD_MATRIX(f, n, k, ...) add(f, 2, (const int64_t[]){n, k}, __VA_ARGS__)
#define ADD_CONV(f, n, c, side, ...) add(f, 4, (const int64_t[]){n, c, side, side}, __VA_ARGS__)
void save(struct file *f, const char *dir, const char *name); /* and empty it */
FILE *open_in(const char *dir, const char *name);
void close_file(FILE *out);

/* pictures.c: a CLIP tower of ViT-L/14-336's size in dir/vision and a VQGAN decoder f8-8192 of the
 * published size in dir/vqgan.safetensors, or both small, or of a size between. */
struct pictures {
    int64_t vision_dim, vision_ffn, vision_layers, vision_heads, side, patch;
    int64_t n_codes, grid;
};
struct pictures pictures_of(const struct shape *s);
void write_pictures(struct file *f, const struct shape *s, const char *dir);
void add_projector(struct file *f, const struct shape *s);

#endif
