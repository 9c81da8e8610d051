/* kernels/cpu/simd.h - the vector primitives of one instruction set, as a table of functions.
 *
 * Everything a row's result depends on (order of sums, polynomial, rounding) is the same for any
 * number of rows in a call: a primitive either works element by element or sums in lanes counted
 * from index 0. simd_body.h holds the one source of the table, simd_scalar.c / simd_avx2.c /
 * simd_avx512.c compile it with their vectors. */
#ifndef HG_KERNELS_CPU_SIMD_H
#define HG_KERNELS_CPU_SIMD_H

#include <stdbool.h>
#include <stdint.h>

enum { CPU_LANES = 16 }; /* output columns of one panel */

/* How a panel of 16 columns keeps its elements, k group by k group, and what activations it meets.
 */
enum cpu_form {
    CPU_FORM_F32,       /* [K][16] float; x float */
    CPU_FORM_F16,       /* [K][16] binary16; x float */
    CPU_FORM_BF16,      /* [K/2][16][2] bf16; x bf16 */
    CPU_FORM_I8,        /* [K/4][16][4] w + 128 as uint8; x int8; sums are int32 */
    CPU_FORM_F8,        /* [K][16] E4M3; x float; sums are 2^-8 of the value */
    CPU_FORM_I4,        /* [K/8][16][4] w + 8 in nibbles: of a group's 8 inputs the first 4 low in
                           their bytes, the others high; x int8; sums are float, scaled per group */
    CPU_FORM_BF16_FLAT, /* [K][16] bf16; x float: the KV cache */
    CPU_FORM_I8_FLAT,   /* [K][16] int8 without its scales; x float: the KV cache */
    CPU_FORM_COUNT
};

enum { CPU_I4_STEPS = 16 /* k groups that share the scales of I4: 128 inputs */ };

/* acc[r][c] (+)= sum over k of x[r][k] * w[k][c] for n_rows rows and 16 * width columns: one chain
 * over ascending k per element, so a sum may be cut into several calls at any k group (I4: at any
 * CPU_I4_STEPS of them). */
struct cpu_tile {
    const void *w;
    int64_t w_step; /* bytes from one k group of the panel (or pair of panels) to the next */
    const void *x;
    int64_t ldx;    /* bytes between rows */
    float *acc;     /* int32 bits for CPU_FORM_I8 */
    int64_t ld_acc; /* elements between rows */
    int n_k;        /* k groups: of 1, 2 (BF16), 4 (I8) or 8 (I4) inputs */
    int n_rows;
    int width;      /* 1, or 2 panels */
    int64_t second; /* bytes from the first panel to the second, of forms that meet floats; 0, and
                       in the other forms: it follows in every k group */
    bool first;     /* true: start from 0 instead of acc */
    /* I4, from the first group of this call on */
    const uint16_t *w_scale; /* binary16 [groups][16 * width] */
    const float *x_scale;    /* [n_rows, ld_scale] per group */
    const int32_t *x_sum;    /* [n_rows, ld_scale] sum of x, which takes the 8 off again */
    int64_t ld_scale;
};

typedef void cpu_tile_fn(const struct cpu_tile *t);

/* acc[p][c] (+)= sum over k of x[k] * w[p][k][c]: one row through up to 4 panels side by side, each
 * element the same chain as in a tile. A tile of one row is a single chain and waits for its
 * latency; attention in decode has one row per key. */
enum { CPU_STRIP = 4, CPU_STRIP_ROWS = 3 /* from here on a tile has chains enough */ };

struct cpu_strip {
    const void *w[CPU_STRIP];     /* panels */
    const void *ahead[CPU_STRIP]; /* as many bytes that are wanted next: fetched, not read */
    int n_panels;
    int64_t w_step; /* bytes between k groups */
    const float *x;
    float *acc; /* [n_panels, 16] */
    int n_k;
    bool first; /* true: start from 0 instead of acc */
};

typedef void cpu_strip_fn(const struct cpu_strip *s);

/* A tile keeps its sums in named variables, low_0, high_0, low_1, ...: neither gcc 12 nor clang 14
 * reliably takes an array of 24 vectors apart. M(r) is expanded for every row of the largest tile;
 * `if (r < rows)` with a constant `rows` removes the rest. */
#define CPU_EACH_ROW_1(M) M(0)
#define CPU_EACH_ROW_6(M) CPU_EACH_ROW_1(M) M(1) M(2) M(3) M(4) M(5)
#define CPU_EACH_ROW_12(M) CPU_EACH_ROW_6(M) M(6) M(7) M(8) M(9) M(10) M(11)

/* The rows' inputs of a tile: every third row has its own pointer, the two after it are reached by
 * [pointer + ldx] and [pointer + 2 ldx]. Given one pointer, compilers keep eleven multiples of ldx:
 * more than there are registers, and gcc 12 then fetches some from vector registers in each turn,
 * through the ports that multiply. The empty asm hides that the pointers are related. */
#define CPU_HIDE(p) __asm__("" : "+r"(p))
#define CPU_ROWS_BEGIN(x, rows, ld)                                                                \
    int64_t ldx = (ld);                                                                            \
    const char *x_0 = (x), *x_3 = (rows) > 3 ? x_0 + 3 * ldx : x_0;                                \
    const char *x_6 = (rows) > 6 ? x_0 + 6 * ldx : x_0, *x_9 = (rows) > 9 ? x_0 + 9 * ldx : x_0;   \
    CPU_HIDE(x_3);                                                                                 \
    CPU_HIDE(x_6);                                                                                 \
    CPU_HIDE(x_9)
#define CPU_ROWS_NEXT(bytes) (x_0 += (bytes), x_3 += (bytes), x_6 += (bytes), x_9 += (bytes))
#define CPU_ROW_AT(r)                                                                              \
    (((r) < 3 ? x_0 : (r) < 6 ? x_3 : (r) < 9 ? x_6 : x_9) + (int64_t)((r) % 3) * ldx)

/* What follows the tiles of a pair of panels: acc[r][c] becomes the float sum + bias[c]. int32 sums
 * of offset weights are (acc - 128 * x_sum[r]) * x_scale[r] * w_scale[c] first, those of F8 acc *
 * w_scale[c]. */
struct cpu_finish {
    float *acc; /* [n_rows, 32] */
    int n_rows, width;
    const float *bias;    /* [16 * width] */
    const float *w_scale; /* [16 * width], NULL: 1 */
    const float *x_scale; /* NULL: acc holds floats */
    const int32_t *x_sum;
};

struct cpu_simd {
    const char *name;
    cpu_tile_fn *tile[CPU_FORM_COUNT];
    cpu_strip_fn *strip[CPU_FORM_COUNT]; /* of the forms that meet float activations, else NULL */

    void (*rmsnorm)(const float *x, const float *weight, float eps, int n, float *y);
    void (*layernorm)(const float *x, const float *weight, const float *bias, float eps, int n,
                      float *y);
    void (*to_bf16)(const float *x, int n, uint16_t *y);
    void (*to_f16)(const float *x, int n, uint16_t *y);
    /* q = nearest even of x / scale; returns scale = max|x| / 127 (NaN when x is not finite) and
     * the sum of q. */
    float (*quantise)(const float *x, int n, int8_t *q, int32_t *sum);
    void (*finish)(const struct cpu_finish *f);

    void (*add)(float *y, const float *x, int n); /* y += x */
    void (*scale)(float *y, float factor, int n); /* y *= factor */
    void (*quick_gelu)(float *y, int n);          /* y *= sigmoid(1.702 y) */
    void (*gelu)(float *y, int n);                /* y *= (1 + erf(y / sqrt 2)) / 2 */
    void (*swish)(float *y, int n);               /* y *= sigmoid(y) */
    void (*swiglu)(const float *gate, const float *up, int n, float *y);
    void (*affine)(float *y, const float *factor, const float *offset, int n); /* y = y*f + o */

    /* softmax pieces on scores padded with -inf to a multiple of 16 */
    float (*max)(const float *s, int n);
    float (*exp_sum)(float *s, int n, float max); /* s = exp(s - max), exact 0 for -inf; the sum */
};

extern const struct cpu_simd cpu_simd_scalar;
#if defined(__x86_64__)
extern const struct cpu_simd cpu_simd_avx2;
extern const struct cpu_simd cpu_simd_avx512;
/* The tiles that need more than AVX-512 F/BW/DQ/VL. */
cpu_tile_fn cpu_tile_avx512_bf16, cpu_tile_avx512_vnni, cpu_tile_avx512_vnni_i4;
#endif

#endif
