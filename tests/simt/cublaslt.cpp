/* tests/simt/cublaslt.cpp - see cublasLt.h. */
#include "cublasLt.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

extern "C" {
#include "common/half.h"
}

struct simt_lt {
    int unused;
};
struct simt_matmul {
    cublasOperation_t transpose_a;
};
struct simt_layout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct simt_preference {
    uint32_t reduction;
    size_t workspace;
};

namespace
{

enum { by_grid = 1, ascending = 2 }; /* algorithms */

long n_products;

bool planted(const char *what)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    return fault && strcmp(fault, what) == 0;
}

template <class T> cublasStatus_t make(T **out, const T &value)
{
    *out = new (std::nothrow) T(value);
    return *out ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

template <class T> cublasStatus_t destroy(T *p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

/* Columns of a k x n matrix as fp32. */
std::vector<float> decode(const void *data, const simt_layout &l)
{
    std::vector<float> v(l.rows * l.cols);
    const uint16_t *from = (const uint16_t *)data;
    for (uint64_t j = 0; j < l.cols; j++)
        for (uint64_t i = 0; i < l.rows; i++) {
            uint16_t h = from[(int64_t)j * l.ld + (int64_t)i];
            v[j * l.rows + i] = l.type == CUDA_R_16F ? hg_f16_to_f32(h) : hg_bf16_to_f32(h);
        }
    return v;
}

float dot(const float *a, const float *b, uint64_t k, uint64_t parts)
{
    float total = 0;
    for (uint64_t p = 0; p < parts; p++) {
        float sum = 0;
        for (uint64_t i = k * p / parts; i < k * (p + 1) / parts; i++)
            sum += a[i] * b[i];
        total = p ? total + sum : sum;
    }
    return total;
}

bool fits(const simt_layout &a, const simt_layout &b, const simt_layout &y)
{
    return a.rows == b.rows && a.cols == y.rows && b.cols == y.cols && y.type == CUDA_R_32F &&
           a.type == b.type && a.type != CUDA_R_32F && a.ld >= (int64_t)a.rows &&
           b.ld >= (int64_t)b.rows && y.ld >= (int64_t)y.rows;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    return planted("cublas") ? CUBLAS_STATUS_NOT_INITIALIZED : make(h, {0});
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    return destroy(h);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return make(d, {CUBLAS_OP_N});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    return destroy(d);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t bytes)
{
    if (attr != CUBLASLT_MATMUL_DESC_TRANSA || bytes != sizeof d->transpose_a)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&d->transpose_a, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    return make(l, {type, rows, cols, ld});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    return destroy(l);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    return make(p, {7, 0});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    return destroy(p);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *value, size_t bytes)
{
    void *to = attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? (void *)&p->workspace
                                                                : (void *)&p->reduction;
    if (bytes != (to == &p->workspace ? sizeof p->workspace : sizeof p->reduction))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t y,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int *n)
{
    *n = 0;
    if (d->transpose_a != CUBLAS_OP_T || !fits(*a, *b, *y))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (uint64_t id = by_grid; id <= (planted("gemm") ? by_grid : ascending) && *n < wanted;
         id++) {
        memset(&found[*n], 0, sizeof found[*n]);
        found[(*n)++].algo.data[0] = id;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *,
                              cublasLtMatrixLayout_t, void *y, cublasLtMatrixLayout_t ly,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t)
{
    if (d->transpose_a != CUBLAS_OP_T || !fits(*la, *lb, *ly) || *(const float *)alpha != 1 ||
        *(const float *)beta != 0 || (uintptr_t)a % 16 || (uintptr_t)b % 16)
        return CUBLAS_STATUS_INVALID_VALUE;
    n_products++;
    const std::vector<float> w = decode(a, *la), x = decode(b, *lb);
    uint64_t k = la->rows, parts = algo->data[0] == by_grid && lb->cols > 64 ? 2 : 1;
    for (uint64_t j = 0; j < lb->cols; j++)
        for (uint64_t i = 0; i < la->cols; i++)
            ((float *)y)[(int64_t)j * ly->ld + (int64_t)i] = dot(&w[i * k], &x[j * k], k, parts);
    return CUBLAS_STATUS_SUCCESS;
}

long simt_gemm_count(void)
{
    return n_products;
}
}
