#include "tests/kernels/parity.h"

#include <math.h>

#include "common/half.h"

const enum hg_dtype kt_stores[KT_STORES] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16,
                                            HG_DTYPE_I8,  HG_DTYPE_F8,  HG_DTYPE_I4};

const struct hg_backend_limits kt_limits = {
    .max_rows = 256,
    .max_in = 4096,
    .max_out = 4096,
    .max_rank = 512,
    .max_context = 8192,
    .max_conv = 1 << 20,
};

/* FNV-1a over everything fetched from the backend under test. */
static uint64_t digest = 0xcbf29ce484222325u;
static size_t n_digested;

void kt_note(const struct hg_backend *b, const float *y, size_t n)
{
    if (!hg_test_backend() || strcmp(b->ops->name, "ref") == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = isnan(y[i]) ? 0x7fc00000u : hg_float_bits(y[i]);
        digest = (digest ^ bits) * 0x100000001b3u;
    }
    n_digested += n;
}

static void open_target(struct kt_targets *ts, const char *name, int n_threads)
{
    struct hg_error err = {0};
    struct kt_target *t = &ts->at[ts->n];
    enum hg_status status =
        hg_backend_open(name, &(struct hg_backend_options){.n_threads = n_threads}, &t->b, &err);
    if (status == HG_STATUS_UNSUPPORTED && !hg_test_backend())
        return;
    HG_TEST_OK(status, err);
    snprintf(t->name, sizeof t->name, "%s x%d", name, n_threads);
    ts->n++;
    HG_TEST_OK(t->b->ops->reserve(t->b, &kt_limits, &err), err);
}

int kt_setup(void **state)
{
    struct kt_targets *ts = calloc(1, sizeof *ts);
    if (!ts)
        return -1;
    *state = ts;
    open_target(ts, "ref", 1);
    if (hg_test_backend()) {
        open_target(ts, hg_test_backend(), 1);
        return 0;
    }
    open_target(ts, "simt", 1);
    for (int n = 1; n <= 2; n++) {
        open_target(ts, "cpu-scalar", n);
        open_target(ts, "cpu-avx2", n);
        open_target(ts, "cpu-avx512", n);
    }
    return 0;
}

int kt_teardown(void **state)
{
    struct kt_targets *ts = *state;
    if (hg_test_backend())
        printf("# digest %016llx of %zu values\n", (unsigned long long)digest, n_digested);
    for (int i = 0; i < ts->n; i++)
        hg_backend_close(ts->at[i].b);
    free(ts);
    return 0;
}

bool kt_sweep(size_t i, size_t every)
{
    return hg_test_full() || i % every == 0;
}

bool kt_is_cuda(const struct kt_target *t)
{
    return strncmp(t->name, "simt", 4) == 0 || strncmp(t->name, "cuda", 4) == 0;
}

uint64_t kt_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float kt_uniform(uint64_t *state)
{
    return (float)(int32_t)(kt_next(state) >> 40) / (float)(1 << 23) - 1;
}

int kt_below(uint64_t *state, int n)
{
    return (int)(kt_next(state) % (uint64_t)n);
}

float *kt_random(size_t n, uint64_t seed, float scale)
{
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int j = 0; j < 4; j++)
            sum += kt_uniform(&seed);
        x[i] = sum * scale;
    }
    return x;
}

void *kt_encode(const float *x, size_t n, enum hg_dtype type)
{
    void *to = malloc((n + 1) * sizeof *x);
    assert_non_null(to);
    for (size_t i = 0; i < n; i++)
        if (type == HG_DTYPE_F32)
            ((float *)to)[i] = x[i];
        else
            ((uint16_t *)to)[i] = type == HG_DTYPE_F16 ? hg_f32_to_f16(x[i]) : hg_f32_to_bf16(x[i]);
    return to;
}

void *kt_alloc_act(struct hg_backend *b, size_t n)
{
    struct hg_error err = {0};
    void *p = NULL;
    HG_TEST_OK(b->ops->alloc(b, n * hg_dtype_bytes(b->ops->act_type), &p, &err), err);
    return p;
}

void *kt_upload_act(struct hg_backend *b, const float *x, size_t n)
{
    void *p = kt_alloc_act(b, n);
    assert_int_equal(b->ops->upload_act(b, p, x, n), HG_STATUS_OK);
    return p;
}

void *kt_upload(struct hg_backend *b, const void *x, size_t bytes)
{
    struct hg_error err = {0};
    void *p = NULL;
    HG_TEST_OK(b->ops->alloc(b, bytes, &p, &err), err);
    assert_int_equal(b->ops->upload(b, p, x, bytes), HG_STATUS_OK);
    return p;
}

void kt_download_act(struct hg_backend *b, float *y, const void *dev, size_t n)
{
    assert_int_equal(b->ops->download_act(b, y, dev, n), HG_STATUS_OK);
    assert_int_equal(b->ops->sync(b), HG_STATUS_OK);
    kt_note(b, y, n);
}

double kt_round(enum hg_dtype type, double v)
{
    int bits = type == HG_DTYPE_F8 ? 4 : type == HG_DTYPE_F16 ? 11 : type == HG_DTYPE_BF16 ? 8 : 24;
    int least = type == HG_DTYPE_F8 ? -6 : type == HG_DTYPE_F16 ? -14 : -126;
    if (v == 0 || !isfinite(v))
        return v;
    int exponent = ilogb(v) > least ? ilogb(v) : least;
    double rounded = ldexp(rint(ldexp(v, bits - 1 - exponent)), exponent - bits + 1);
    if (type == HG_DTYPE_F8)
        return fabs(rounded) > 448 ? copysign(448, v) : rounded;
    double limit = type == HG_DTYPE_F16 ? 65504 : 3.4e38;
    return fabs(rounded) > limit ? copysign(INFINITY, v) : rounded;
}

float kt_quantise(const float *x, int n, int *q)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    float scale = max / 127.0f;
    for (int i = 0; i < n; i++)
        q[i] = scale > 0 ? (int)rintf(x[i] / scale) : 0;
    return scale;
}

float kt_quantise_i4(const float *w, int n, int *q)
{
    float extreme = 0;
    for (int i = 0; i < n; i++)
        extreme = fabsf(w[i]) > fabsf(extreme) ? w[i] : extreme;
    float scale = (float)kt_round(HG_DTYPE_F16, extreme / -8.0);
    for (int i = 0; i < n; i++) {
        q[i] = scale == 0 ? 0 : (int)rintf(w[i] / scale);
        q[i] = q[i] > 7 ? 7 : q[i] < -8 ? -8 : q[i];
    }
    return scale;
}

static void stored_i4(const float *row, int n, float *stored)
{
    int q[HG_I4_GROUP];
    for (int at = 0; at < n; at += HG_I4_GROUP) {
        int len = n - at < HG_I4_GROUP ? n - at : HG_I4_GROUP;
        float scale = kt_quantise_i4(row + at, len, q);
        for (int i = 0; i < len; i++)
            stored[at + i] = (float)q[i] * scale;
    }
}

void kt_stored(enum hg_dtype type, const float *row, int n, float *stored)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = fabsf(row[i]) > max ? fabsf(row[i]) : max;
    float levels = type == HG_DTYPE_I8 ? 127 : 448, scale = max / levels;
    if (type == HG_DTYPE_I4) {
        stored_i4(row, n, stored);
        return;
    }
    for (int i = 0; i < n; i++) {
        double q = scale > 0 ? (double)(row[i] / scale) : 0;
        stored[i] = type == HG_DTYPE_I8   ? (float)rint(q) * scale
                    : type == HG_DTYPE_F8 ? (float)kt_round(type, q) * scale
                                          : (float)kt_round(type, row[i]);
    }
}

static double dot_f8(const float *w, const float *x, int n)
{
    double sum = 0;
    float max = 0;
    for (int i = 0; i < n; i++)
        max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
    float scale = max / 448.0f;
    for (int i = 0; i < n; i++)
        sum += (scale > 0 ? kt_round(HG_DTYPE_F8, w[i] / scale) : 0) * x[i];
    return sum * scale;
}

static double dot_i4(const float *w, const float *x, int n)
{
    int qw[128], qx[128];
    double total = 0;
    for (int at = 0; at < n; at += 128) {
        int len = n - at < 128 ? n - at : 128, sum = 0;
        double scale = (double)kt_quantise_i4(w + at, len, qw) * kt_quantise(x + at, len, qx);
        for (int i = 0; i < len; i++)
            sum += qw[i] * qx[i];
        total += sum * scale;
    }
    return total;
}

double kt_dot(enum hg_dtype store, const float *w, const float *x, int n)
{
    double sum = 0;
    if (store == HG_DTYPE_F8)
        return dot_f8(w, x, n);
    if (store == HG_DTYPE_I4)
        return dot_i4(w, x, n);
    if (store != HG_DTYPE_I8) {
        for (int i = 0; i < n; i++)
            sum += kt_round(store, w[i]) *
                   (store == HG_DTYPE_BF16 ? kt_round(store, x[i]) : (double)x[i]);
        return sum;
    }
    int *qw = calloc((size_t)n, sizeof *qw), *qx = calloc((size_t)n, sizeof *qx);
    assert_non_null(qw);
    assert_non_null(qx);
    double scale = (double)kt_quantise(w, n, qw) * kt_quantise(x, n, qx);
    for (int i = 0; i < n; i++)
        sum += qw[i] * qx[i];
    free(qw);
    free(qx);
    return sum * scale;
}

void kt_compare(const char *label, const char *target, const float *got, const float *want,
                size_t n, double bound)
{
    double peak = 0, worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(want[i]) && fabs(want[i]) > peak)
            peak = fabs(want[i]);
        double diff = fabs((double)got[i] - want[i]);
        if ((isnan(got[i]) && isnan(want[i])) || got[i] == want[i])
            diff = 0;
        if (isnan(diff))
            diff = INFINITY;
        if (diff > worst) {
            worst = diff;
            at = i;
        }
    }
    double rel = worst == 0 ? 0 : worst / (peak > 0 ? peak : 1);
    printf("  %s | %s: max abs %.2e, of peak %.2e (bound %.0e)\n", label, target, worst, rel,
           bound);
    if (!(rel <= bound))
        fail_msg("%s on %s: element %zu is %.9g, expected %.9g", label, target, at, got[at],
                 want[at]);
}

void kt_identical(const char *label, const char *target, const float *got, const float *want,
                  size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (hg_float_bits(got[i]) != hg_float_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s on %s: element %zu is %.9g, expected exactly %.9g", label, target, i,
                     got[i], want[i]);
}
