/* tests/model/load/test_tensor_convert.c - conversion against common/half, element by element. */
#include "common/checksum.h"
#include "tests/test.h"

#include <math.h>
#include <time.h>

#include "common/half.h"
#include "model/load/weights.h"
#include "tests/model/load/build_file.h"

static const enum hg_dtype targets[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16};
static const enum hg_tensor_type sources[] = {HG_TENSOR_TYPE_F32, HG_TENSOR_TYPE_F16,
                                              HG_TENSOR_TYPE_BF16, HG_TENSOR_TYPE_F64};

/* The definition: widen one element, round once (F64 -> F32 first), as common/half does it. */
static float widen(enum hg_tensor_type type, const unsigned char *p)
{
    uint16_t half;
    float single;
    double wide;
    memcpy(&half, p, 2);
    switch (type) {
    case HG_TENSOR_TYPE_F16:
        return hg_f16_to_f32(half);
    case HG_TENSOR_TYPE_BF16:
        return hg_bf16_to_f32(half);
    case HG_TENSOR_TYPE_F64:
        memcpy(&wide, p, 8);
        return (float)wide;
    default:
        memcpy(&single, p, 4);
        return single;
    }
}

static uint32_t narrow(enum hg_dtype type, float x)
{
    return type == HG_DTYPE_F32   ? hg_float_bits(x)
           : type == HG_DTYPE_F16 ? hg_f32_to_f16(x)
                                  : hg_f32_to_bf16(x);
}

static void check(const struct hg_tensor *t, enum hg_dtype type, const char *what)
{
    size_t n, size = hg_tensor_type_bytes(t->type), count = (size_t)hg_tensor_count(t);
    unsigned char *packed = hg_build_pack(t, &n);
    unsigned char *out = malloc(count * hg_dtype_bytes(type) + 1);
    out[count * hg_dtype_bytes(type)] = 0x5a;
    hg_tensor_convert(t, type, out);
    for (size_t i = 0; i < count; i++) {
        float x = widen(t->type, packed + i * size);
        uint32_t want = narrow(type, x), got = 0;
        memcpy(&got, out + i * hg_dtype_bytes(type), hg_dtype_bytes(type));
        if (got != want && !isnan(x))
            fail_msg("%s: element %zu (%g): expected %08x, got %08x", what, i, (double)x, want,
                     got);
        if (isnan(x) && hg_dtype_bytes(type) == 2)
            assert_true(isnan(type == HG_DTYPE_F16 ? hg_f16_to_f32((uint16_t)got)
                                                   : hg_bf16_to_f32((uint16_t)got)));
    }
    assert_int_equal(out[count * hg_dtype_bytes(type)], 0x5a);
    free(packed);
    free(out);
}

/* Every 16-bit pattern for the half types; the float values around every rounding edge of F16. */
static void every_pattern_of_a_half_converts(void **state)
{
    (void)state;
    uint16_t *all = malloc(65536 * 2 + 1);
    for (size_t i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    /* One byte off, so that the data is not aligned. */
    unsigned char *off = malloc(65536 * 2 + 1);
    memcpy(off + 1, all, 65536 * 2);
    for (size_t s = 1; s <= 2; s++)
        for (size_t d = 0; d < 3; d++) {
            struct hg_tensor t = {.name = "t",
                                  .type = sources[s],
                                  .n_dims = 1,
                                  .dims = {65536},
                                  .strides = {1},
                                  .data = off + 1};
            check(&t, targets[d], "halves");
        }
    free(all);
    free(off);
}

static void rounding_edges_of_singles_convert(void **state)
{
    (void)state;
    size_t n = 0;
    float *v = malloc(65536 * 3 * 2 * sizeof *v);
    for (uint32_t h = 0; h < 65536; h += 1) {
        /* The midpoint between two halves and its neighbours, both for F16 and for BF16. */
        uint32_t a = hg_float_bits(hg_f16_to_f32((uint16_t)h)), b = h << 16;
        for (int k = -1; k <= 1; k++) {
            v[n++] = hg_bits_float(a + 0x1000u + (uint32_t)k);
            v[n++] = hg_bits_float(b + 0x8000u + (uint32_t)k);
        }
    }
    for (size_t d = 0; d < 3; d++) {
        struct hg_tensor t = {.name = "t",
                              .type = HG_TENSOR_TYPE_F32,
                              .n_dims = 1,
                              .dims = {(int64_t)n},
                              .strides = {1},
                              .data = (const unsigned char *)v};
        check(&t, targets[d], "singles");
    }
    free(v);
}

/* The checksum is that of the elements one after the other, whatever the strides. */
static void check_sum(const struct hg_tensor *t, const char *what)
{
    size_t size = hg_tensor_type_bytes(t->type);
    int64_t n = hg_tensor_count(t), at[HG_TENSOR_MAX_DIMS];
    unsigned char *copy = malloc((size_t)n * size + 1);
    for (int64_t k = 0; k < n; k++) {
        int64_t rest = k, offset = 0;
        for (int i = t->n_dims - 1; i >= 0; i--) {
            at[i] = rest % t->dims[i];
            rest /= t->dims[i];
            offset += at[i] * t->strides[i];
        }
        memcpy(copy + (size_t)k * size, t->data + (size_t)offset * size, size);
        if ((size_t)(offset + 1) * size > hg_tensor_extent(t))
            fail_msg("%s: element %lld lies beyond the extent", what, (long long)k);
    }
    if (hg_tensor_crc32c(t) != hg_crc32c(0, copy, (size_t)n * size))
        fail_msg("%s: checksum", what);
    free(copy);
}

/* Sizes around the block of 512 elements; plain, transposed, stepped, repeated and empty views. */
static void every_view_of_every_type_converts(void **state)
{
    (void)state;
    double *data = malloc(40000 * 8);
    uint64_t seed = 1;
    size_t n_checked = 0;
    for (size_t i = 0; i < 40000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        memcpy(&data[i], &seed, 8);
    }
    static const struct hg_tensor views[] = {
        {.n_dims = 0},
        {.n_dims = 1, .dims = {511}, .strides = {1}},
        {.n_dims = 1, .dims = {513}, .strides = {1}},
        {.n_dims = 2, .dims = {64, 80}, .strides = {1, 64}},
        {.n_dims = 2, .dims = {33, 50}, .strides = {101, 2}},
        {.n_dims = 2, .dims = {30, 40}, .strides = {0, 1}},
        {.n_dims = 2, .dims = {1, 40}, .strides = {7, 1}},
        {.n_dims = 3, .dims = {4, 1, 300}, .strides = {300, 9, 1}},
        {.n_dims = 3, .dims = {3, 0, 5}, .strides = {5, 5, 1}},
        {.n_dims = 4, .dims = {5, 6, 7, 8}, .strides = {1, 5, 240, 30}},
        {.n_dims = 8, .dims = {2, 2, 2, 2, 2, 2, 2, 9}, .strides = {1, 2, 4, 8, 16, 32, 64, 128}},
    };
    for (size_t v = 0; v < sizeof views / sizeof views[0]; v++)
        for (size_t s = 0; s < 4; s++)
            for (size_t d = 0; d < 3; d++, n_checked++) {
                char what[80];
                struct hg_tensor t = views[v];
                t.type = sources[s];
                t.data = (const unsigned char *)data + 3; /* unaligned */
                snprintf(what, sizeof what, "view %zu %s -> %s", v, hg_tensor_type_name(t.type),
                         hg_dtype_name(targets[d]));
                check(&t, targets[d], what);
                check_sum(&t, what);
            }
    free(data);
    printf("%zu conversions equal\n", n_checked);
}

static void contiguity_ignores_dimensions_of_one(void **state)
{
    (void)state;
    struct hg_tensor t = {.n_dims = 3, .dims = {1, 4, 3}, .strides = {99, 3, 1}};
    assert_true(hg_tensor_is_contiguous(&t));
    t.strides[1] = 4;
    assert_false(hg_tensor_is_contiguous(&t));
    t.dims[2] = 0;
    assert_true(hg_tensor_is_contiguous(&t));
    /* Nothing at all, beside dimensions whose product is 2^63 (UBSan watches). */
    struct hg_tensor none = {
        .n_dims = 3, .dims = {0, 1 << 24, (int64_t)1 << 39}, .strides = {1, (int64_t)1 << 39, 1}};
    assert_true(hg_tensor_is_contiguous(&none));
}

static void contiguous_conversion_is_fast(void **state)
{
    (void)state;
    enum { N = 8 << 20 };
    uint16_t *src = calloc(N, 2);
    float *dst = malloc(N * 4);
    for (size_t i = 0; i < N; i++)
        src[i] = (uint16_t)(i * 40503u);
    struct timespec a, b;
    for (size_t d = 0; d < 3; d++) {
        struct hg_tensor t = {.type = HG_TENSOR_TYPE_BF16,
                              .n_dims = 1,
                              .dims = {N},
                              .strides = {1},
                              .data = (const unsigned char *)src};
        memset(dst, 0, N * 4);
        clock_gettime(CLOCK_MONOTONIC, &a);
        hg_tensor_convert(&t, targets[d], dst);
        clock_gettime(CLOCK_MONOTONIC, &b);
        double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        printf("BF16 -> %s: %.2f G elements/s\n", hg_dtype_name(targets[d]), N / s * 1e-9);
    }
    free(src);
    free(dst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_of_a_half_converts),
        cmocka_unit_test(rounding_edges_of_singles_convert),
        cmocka_unit_test(every_view_of_every_type_converts),
        cmocka_unit_test(contiguity_ignores_dimensions_of_one),
        cmocka_unit_test(contiguous_conversion_is_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
