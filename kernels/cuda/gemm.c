/* kernels/cuda/gemm.c - see gemm.h. cuBLASLt counts columns first: y^T [N, M] = W [N, K] times x^T
 * [K, M], W being stored by rows. */
#include "kernels/cuda/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kernels/cuda/cublaslt.h"

enum {
    ROW_STEP = 64, /* rows of a product are padded to it */
    MAX_SHAPES = 64,
    MAX_TRIES = 16,
    WORKSPACE_BYTES = 32 << 20,
    SLAB_BYTES = 128 << 20, /* of unpacked weights */
    RESULT_BYTES = 64 << 20
};

struct shape {
    enum hg_dtype type;
    int n, k; /* of a slab, K with both planes */
    bool usable;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_gemm {
    struct cublaslt lt;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc; /* fp32 sums, first operand by rows */
    struct shape shapes[MAX_SHAPES];
    int n_shapes;
};

/* One product's layouts; made and freed around it: they are small host objects. */
struct product {
    cublasLtMatrixLayout_t w, x, y;
};

static bool check(cublasStatus_t s, const char *what)
{
    if (s != CUBLAS_STATUS_SUCCESS)
        hg_log(HG_LOG_WARN, "cuda: cuBLASLt: %s: status %d", what, (int)s);
    return s == CUBLAS_STATUS_SUCCESS;
}

struct cuda_gemm *cuda_gemm_open(void)
{
    cublasOperation_t by_rows = CUBLAS_OP_T;
    struct cuda_gemm *g = calloc(1, sizeof *g);
    if (!g || !cublaslt_open(&g->lt)) {
        hg_log(HG_LOG_WARN, "cuda: cuBLASLt %d was not found: prompts go through our own kernels",
               CUDART_VERSION / 1000);
        free(g);
        return NULL;
    }
    if (check(g->lt.cublasLtCreate(&g->handle), "create") &&
        check(g->lt.cublasLtMatmulDescCreate(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul") &&
        check(g->lt.cublasLtMatmulDescSetAttribute(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &by_rows,
                                                   sizeof by_rows),
              "transpose"))
        return g;
    cuda_gemm_close(g);
    return NULL;
}

void cuda_gemm_close(struct cuda_gemm *g)
{
    if (!g)
        return;
    if (g->desc)
        g->lt.cublasLtMatmulDescDestroy(g->desc);
    if (g->handle)
        g->lt.cublasLtDestroy(g->handle);
    cublaslt_close(&g->lt);
    free(g);
}

/* ---- scratch --------------------------------------------------------------------------------- */

static int64_t rows_at_once(const struct hg_backend_limits *l)
{
    int64_t rows = ((int64_t)l->max_rows + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
    return rows < ROW_STEP ? ROW_STEP : rows > CUDA_GEMM_ROWS ? CUDA_GEMM_ROWS : rows;
}

static size_t smaller(int64_t a, int64_t b)
{
    return (size_t)(a < b ? a : b);
}

enum hg_status cuda_gemm_reserve(struct cuda_backend *c, const struct hg_backend_limits *l,
                                 struct hg_error *err)
{
    struct cuda_gemm_scratch *s = &c->scratch.gemm;
    int64_t outs = ((int64_t)l->max_out + TILE_ROWS) / TILE_ROWS * TILE_ROWS + TILE_ROWS;
    int64_t row_bytes = ((int64_t)l->max_in + 31) / 32 * 2 * STEP_BYTES;
    if (!c->gemm && !(c->gemm = cuda_gemm_open()))
        return HG_STATUS_OK;
    s->weight_bytes = smaller(outs * row_bytes, SLAB_BYTES);
    s->result_bytes = smaller(rows_at_once(l) * outs * (int64_t)sizeof(float), RESULT_BYTES);
    HG_TRY(cuda_alloc(&c->base, s->weight_bytes, &s->weight, err));
    HG_TRY(cuda_alloc(&c->base, s->result_bytes, (void **)&s->result, err));
    /* of two results that a trial compares */
    HG_TRY(cuda_alloc(&c->base, ROW_STEP * (size_t)outs * sizeof(float), (void **)&s->trial, err));
    HG_TRY(cuda_alloc(&c->base, sizeof(int), (void **)&s->differs, err));
    return cuda_alloc(&c->base, WORKSPACE_BYTES, &s->workspace, err);
}

/* ---- a product ------------------------------------------------------------------------------- */

static cudaDataType_t operand(enum hg_dtype type)
{
    return type == HG_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static void free_product(struct cuda_gemm *g, struct product *p)
{
    if (p->w)
        g->lt.cublasLtMatrixLayoutDestroy(p->w);
    if (p->x)
        g->lt.cublasLtMatrixLayoutDestroy(p->x);
    if (p->y)
        g->lt.cublasLtMatrixLayoutDestroy(p->y);
}

static bool make_product(struct cuda_gemm *g, const struct shape *s, int n_rows, struct product *p)
{
    uint64_t n = (uint64_t)s->n, k = (uint64_t)s->k, m = (uint64_t)n_rows;
    cudaDataType_t type = operand(s->type);
    memset(p, 0, sizeof *p);
    if (check(g->lt.cublasLtMatrixLayoutCreate(&p->w, type, k, n, s->k), "layout") &&
        check(g->lt.cublasLtMatrixLayoutCreate(&p->x, type, k, m, s->k), "layout") &&
        check(g->lt.cublasLtMatrixLayoutCreate(&p->y, CUDA_R_32F, n, m, s->n), "layout"))
        return true;
    free_product(g, p);
    return false;
}

/* y [n_rows, n] = the unpacked slab times n_rows rows of x, a multiple of ROW_STEP. */
static cublasStatus_t multiply(struct cuda_backend *c, const struct shape *s, const void *x,
                               int n_rows, float *y)
{
    struct cuda_gemm *g = c->gemm;
    const float one = 1, zero = 0;
    struct product p;
    if (!make_product(g, s, n_rows, &p))
        return CUBLAS_STATUS_ALLOC_FAILED;
    cublasStatus_t status = g->lt.cublasLtMatmul(
        g->handle, g->desc, &one, c->scratch.gemm.weight, p.w, x, p.x, &zero, y, p.y, y, p.y,
        &s->algo, c->scratch.gemm.workspace, WORKSPACE_BYTES, c->stream);
    free_product(g, &p);
    return status;
}

/* ---- the choice of an algorithm -------------------------------------------------------------- */

static bool same_bits(struct cuda_backend *c, const float *a, const float *b, int64_t n)
{
    int differs = 1;
    if (cuda_compare(c, a, b, n, c->scratch.gemm.differs) != HG_STATUS_OK ||
        cuda_download(&c->base, &differs, c->scratch.gemm.differs, sizeof differs) !=
            HG_STATUS_OK ||
        cuda_sync(&c->base) != HG_STATUS_OK)
        return false;
    return !differs;
}

/* The same rows alone, among others, first and last. */
static bool keeps_bits(struct cuda_backend *c, const struct shape *s, int n_rows)
{
    const struct cuda_gemm_scratch *m = &c->scratch.gemm;
    int64_t part = (int64_t)ROW_STEP * s->n;
    int zero = 0;
    if (cuda_upload(&c->base, m->differs, &zero, sizeof zero) != HG_STATUS_OK ||
        multiply(c, s, c->scratch.x, n_rows, m->result) != CUBLAS_STATUS_SUCCESS)
        return false;
    for (int first = 0; first < n_rows; first += ROW_STEP) {
        const char *x = (const char *)c->scratch.x + (int64_t)first * s->k * 2;
        if (multiply(c, s, x, ROW_STEP, m->trial) != CUBLAS_STATUS_SUCCESS ||
            !same_bits(c, m->trial, m->result + first / ROW_STEP * part, part))
            return false;
    }
    return true;
}

static int list_algorithms(struct cuda_gemm *g, const struct shape *s, int n_rows,
                           cublasLtMatmulHeuristicResult_t *found)
{
    cublasLtMatmulPreference_t wish = NULL;
    struct product p;
    int n = 0;
    size_t workspace = WORKSPACE_BYTES;
    uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    if (!make_product(g, s, n_rows, &p))
        return 0;
    if (!check(g->lt.cublasLtMatmulPreferenceCreate(&wish), "preference") ||
        !check(g->lt.cublasLtMatmulPreferenceSetAttribute(
                   wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace),
               "workspace") ||
        !check(g->lt.cublasLtMatmulPreferenceSetAttribute(
                   wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split),
               "reduction") ||
        g->lt.cublasLtMatmulAlgoGetHeuristic(g->handle, g->desc, p.w, p.x, p.y, p.y, wish,
                                             MAX_TRIES, found, &n) != CUBLAS_STATUS_SUCCESS)
        n = 0;
    if (wish)
        g->lt.cublasLtMatmulPreferenceDestroy(wish);
    free_product(g, &p);
    return n;
}

/* The library's favourite of those that keep a row's bits. */
static void choose(struct cuda_backend *c, struct shape *s)
{
    cublasLtMatmulHeuristicResult_t found[MAX_TRIES];
    int n_rows = (int)rows_at_once(&c->limits);
    int64_t x_bytes = (int64_t)n_rows * s->k * 2;
    if (x_bytes > (int64_t)c->scratch.x_bytes ||
        cuda_fill_trial(c, c->scratch.x, x_bytes / 2, s->type == HG_DTYPE_BF16) != HG_STATUS_OK ||
        cuda_fill_trial(c, c->scratch.gemm.weight, (int64_t)s->n * s->k,
                        s->type == HG_DTYPE_BF16) != HG_STATUS_OK)
        return;
    int n = list_algorithms(c->gemm, s, n_rows, found);
    for (int i = 0; i < n && !s->usable; i++) {
        s->algo = found[i].algo;
        s->usable = found[i].state == CUBLAS_STATUS_SUCCESS && keeps_bits(c, s, n_rows);
    }
    if (!s->usable)
        hg_log(HG_LOG_WARN,
               "cuda: cuBLASLt: none of %d algorithms for [%d, %d] gives a row the same bits in "
               "every product: such prompts go through our own kernels",
               n, s->n, s->k);
}

static const struct shape *shape_of(struct cuda_backend *c, enum hg_dtype type, int n, int k)
{
    struct cuda_gemm *g = c->gemm;
    for (int i = 0; i < g->n_shapes; i++)
        if (g->shapes[i].type == type && g->shapes[i].n == n && g->shapes[i].k == k)
            return &g->shapes[i];
    if (g->n_shapes == MAX_SHAPES)
        return NULL;
    struct shape *s = &g->shapes[g->n_shapes++];
    *s = (struct shape){.type = type, .n = n, .k = k};
    choose(c, s);
    return s;
}

/* ---- what linear.cu calls -------------------------------------------------------------------- */

static int copies_of(enum hg_dtype type)
{
    return type == HG_DTYPE_F16 ? 2 : 1;
}

static int width_of(const struct cuda_matrix *m)
{
    return m->steps * (STEP_BYTES / 2) * copies_of(m->type);
}

/* Equal slabs, by the weight's shape and the scratch. */
static int slab_tiles(const struct cuda_backend *c, const struct cuda_matrix *m)
{
    const struct cuda_gemm_scratch *s = &c->scratch.gemm;
    int64_t row = (int64_t)width_of(m) * 2, rows = rows_at_once(&c->limits);
    int64_t most = (int64_t)s->weight_bytes / (row * TILE_ROWS);
    int64_t most_out = (int64_t)s->result_bytes / (rows * TILE_ROWS * (int64_t)sizeof(float));
    most = most < most_out ? most : most_out;
    if (most < 1)
        return 0;
    int64_t n_slabs = (m->tiles + most - 1) / most;
    return (int)((m->tiles + n_slabs - 1) / n_slabs);
}

int cuda_gemm_tiles(struct cuda_backend *c, const struct hg_weight *w)
{
    const struct cuda_matrix *m = &w->w;
    if (!c->gemm || (m->type != HG_DTYPE_BF16 && m->type != HG_DTYPE_F16))
        return 0;
    int tiles = slab_tiles(c, m);
    const struct shape *s = tiles ? shape_of(c, m->type, tiles * TILE_ROWS, width_of(m)) : NULL;
    return s && s->usable ? tiles : 0;
}

enum hg_status cuda_gemm_run(struct cuda_backend *c, const struct hg_weight *w, int tile,
                             int n_tiles, const void *x, int64_t pitch, int n_rows, const float **y,
                             int64_t *ld)
{
    const struct cuda_matrix *m = &w->w;
    int tiles = slab_tiles(c, m), padded = (n_rows + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
    const struct shape *s = shape_of(c, m->type, tiles * TILE_ROWS, width_of(m));
    if (!s || !s->usable || n_tiles > tiles || pitch != (int64_t)s->k * 2 ||
        padded > rows_at_once(&c->limits))
        return cuda_refuse("gemm: %d rows of %lld bytes, %d tiles at %d of [%d, %d]", n_rows,
                           (long long)pitch, n_tiles, tile, w->n_out, w->n_in);
    HG_TRY(cuda_unpack(c, m, tile, n_tiles, copies_of(m->type), c->scratch.gemm.weight));
    cublasStatus_t status = multiply(c, s, x, padded, c->scratch.gemm.result);
    if (status != CUBLAS_STATUS_SUCCESS) {
        hg_log(HG_LOG_ERROR, "cuda: cuBLASLt: [%d, %d] times %d rows: status %d", s->n, s->k,
               padded, (int)status);
        c->lost = true;
        return HG_STATUS_DEVICE;
    }
    *y = c->scratch.gemm.result;
    *ld = s->n;
    return HG_STATUS_OK;
}
