/* tests/kernels/attention_case.h - paged caches with known contents, ragged causal attention.
 *
 * Keys and values enter a cache through the ordinary door, a linear with HG_EPILOGUE_ROPE_KV, whose
 * weight is the identity and whose rotary frequencies are zero, so they arrive unchanged. */
#ifndef HG_TESTS_KERNELS_ATTENTION_CASE_H
#define HG_TESTS_KERNELS_ATTENTION_CASE_H

#include "tests/kernels/parity.h"

enum { KT_MAX_SEQS = 6 };

struct kt_cache {
    struct hg_backend *b;
    struct hg_kv *kv;
    struct hg_weight *identity;
    void *inv_freq;
    int n_heads, n_kv_heads, head_dim, n_layers, n_blocks;
};

/* inv_freq: [P/2] or NULL for zeros. Every entry of every block holds NaN afterwards. */
void kt_cache_open(struct kt_cache *c, struct hg_backend *b, int n_heads, int n_kv_heads,
                   int head_dim, enum hg_dtype type, int n_layers, int n_blocks,
                   const float *inv_freq);
void kt_cache_open_zero(struct kt_cache *c, struct hg_backend *b, int n_heads, int n_kv_heads,
                        int head_dim, enum hg_dtype type, int n_layers, int n_blocks,
                        const float *inv_freq); /* as it comes: zeros */
void kt_cache_close(struct kt_cache *c);
void kt_cache_poison(struct kt_cache *c);

/* Positions pos0.. of one sequence; qkv [n, (H + 2G) P]; q (NULL or [n, H*P]) gets the rotated q.
 */
void kt_cache_append(struct kt_cache *c, int layer, const int32_t *table, int n_table, int pos0,
                     int n, const float *qkv, float *q);

/* Append again, with `broken` added to one of the (H + 2G) P numbers only. */
void kt_cache_break(struct kt_cache *c, const int32_t *table, int n_table, int pos,
                    const float *qkv, int at, float broken);

struct kt_attention_case {
    int n_heads, n_kv_heads, head_dim, window;
    enum hg_dtype type;
    int n_seqs, len[KT_MAX_SEQS];
    int n_query[KT_MAX_SEQS]; /* the last n tokens of the sequence ask */
};

struct kt_attention {
    struct kt_attention_case c;
    char label[160];
    int n_queries, max_blocks, n_blocks;
    int query_seq[512], query_pos[512];
    float *qkv[KT_MAX_SEQS]; /* [len, (H + 2G) P] */
    int32_t *table; /* [n_seqs, max_blocks], shuffled; unused entries name a poisoned block */
};

void kt_attention_init(struct kt_attention *a, const struct kt_attention_case *c, uint64_t seed);
void kt_attention_deinit(struct kt_attention *a);
void kt_attention_fill(const struct kt_attention *a, struct kt_cache *cache);
/* y[n, H*P] for queries picked by index (NULL: the first n), ascending, in one call. */
void kt_attention_run(const struct kt_attention *a, struct kt_cache *cache, const int *query, int n,
                      float *y);
/* Fresh cache, fill, all queries. */
void kt_attention_once(const struct kt_attention *a, struct hg_backend *b, float *y);
/* x[dim] as attention reads it from a cache of that type. */
void kt_cached(enum hg_dtype type, const float *x, int dim, double *y);
void kt_attention_formula(const struct kt_attention *a, float *y);

#endif
