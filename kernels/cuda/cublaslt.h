/* kernels/cuda/cublaslt.h - the functions of cuBLASLt that gemm.c calls, found at run time: the
 * library is large and a machine may lack it. */
#ifndef HG_KERNELS_CUDA_CUBLASLT_H
#define HG_KERNELS_CUDA_CUBLASLT_H

#include <cublasLt.h>
#include <stdbool.h>

#define CUBLASLT_FUNCTIONS(F)                                                                      \
    F(cublasLtCreate)                                                                              \
    F(cublasLtDestroy)                                                                             \
    F(cublasLtMatmulDescCreate)                                                                    \
    F(cublasLtMatmulDescDestroy)                                                                   \
    F(cublasLtMatmulDescSetAttribute)                                                              \
    F(cublasLtMatrixLayoutCreate)                                                                  \
    F(cublasLtMatrixLayoutDestroy)                                                                 \
    F(cublasLtMatmulPreferenceCreate)                                                              \
    F(cublasLtMatmulPreferenceDestroy)                                                             \
    F(cublasLtMatmulPreferenceSetAttribute)                                                        \
    F(cublasLtMatmulAlgoGetHeuristic)                                                              \
    F(cublasLtMatmul)

struct cublaslt {
    void *library;
#define HG_MEMBER(name) __typeof__ (&(name))(name);
    CUBLASLT_FUNCTIONS(HG_MEMBER)
#undef HG_MEMBER
};

/* false: no library of this CUDA version, or a function is missing; then everything is NULL. */
bool cublaslt_open(struct cublaslt *t);
void cublaslt_close(struct cublaslt *t);

#endif
