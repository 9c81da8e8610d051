#include "kernels/cpu/features.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* F16C has no name in clang 14's __builtin_cpu_supports; AVX, checked beside it, covers the saved
 * registers. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29));
}

struct cpu_features cpu_features_here(void)
{
    struct cpu_features f = {0};
    __builtin_cpu_init();
    f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    f.vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
    f.bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
    return f;
}

static void select_avx512(const struct cpu_features *f, struct cpu_simd *out)
{
    static const char *const names[2][2] = {{"avx512", "avx512-vnni"},
                                            {"avx512-bf16", "avx512-bf16-vnni"}};
    *out = cpu_simd_avx512;
    out->name = names[f->bf16][f->vnni];
    if (f->bf16)
        out->tile[CPU_FORM_BF16] = cpu_tile_avx512_bf16;
    if (f->vnni) {
        out->tile[CPU_FORM_I8] = cpu_tile_avx512_vnni;
        out->tile[CPU_FORM_I4] = cpu_tile_avx512_vnni_i4;
    }
}
#else
struct cpu_features cpu_features_here(void)
{
    return (struct cpu_features){0};
}
#endif

enum hg_status cpu_select_from(const char *path, const struct cpu_features *f, struct cpu_simd *out,
                               struct hg_error *err)
{
    bool any = strcmp(path, "auto") == 0, avx2 = strcmp(path, "avx2") == 0;
    bool avx512 = strcmp(path, "avx512") == 0;
    if (!any && !avx2 && !avx512 && strcmp(path, "scalar") != 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "cpu path '%.32s' is unknown; known: auto, scalar, avx2, avx512", path);
    if ((avx2 && !f->avx2) || (avx512 && !f->avx512))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "this processor lacks %s",
                       avx2 ? "AVX2, FMA or F16C" : "AVX-512 F, BW, DQ or VL");
    *out = cpu_simd_scalar;
#if defined(__x86_64__)
    if (avx512 || (any && f->avx512))
        select_avx512(f, out);
    else if (avx2 || (any && f->avx2))
        *out = cpu_simd_avx2;
#endif
    return HG_STATUS_OK;
}

enum hg_status cpu_select(const char *path, struct cpu_simd *out, struct hg_error *err)
{
    struct cpu_features f = cpu_features_here();
    return cpu_select_from(path, &f, out, err);
}
