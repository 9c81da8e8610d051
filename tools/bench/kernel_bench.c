/* tools/bench/kernel_bench.c - speed of the cpu backend's linear as shares of this machine's
 * limits.
 *
 *   build/release/kernel-bench [backend [MiB of weights [rounds]]]       default: cpu 384 5
 *   build/release/kernel-bench limits [threads]          the machine's limits alone, as JSON
 *   build/release/kernel-bench cases BACKEND [MiB [rounds [tiny|one|brief]]]  see kernel_cases.h;
 * JSON lines
 *
 * Decode: every weight of a set larger than the caches, once per round, for 1, 2, 4 and 8 rows,
 * with and without H-LoRA adapters. Prefill: one weight, 256 and 696 rows. Rounds of all cases and
 * of the machine's own limits are interleaved, so that a neighbour's load falls on all alike;
 * medians. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/half.h"
#include "kernels/backend.h"
#include "tools/bench/kernel_cases.h"
#include "tools/bench/peak.h"

enum {
    K = 3072,
    N = 16384,
    RANK = 64,
    EXPERTS = 4,
    MAX_ROWS = 696,
    MAX_ROUNDS = 99,
    N_TYPES = 5,
    N_BATCHES = 4,
    N_PREFILLS = 2
};

static const enum hg_dtype types[N_TYPES] = {HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8, HG_DTYPE_F8,
                                             HG_DTYPE_I4};
static const enum peak_kind kinds[N_TYPES] = {PEAK_FP32, PEAK_BF16, PEAK_INT8, PEAK_FP32,
                                              PEAK_INT8};
static const int batches[N_BATCHES] = {1, 2, 4, 8}, prefills[N_PREFILLS] = {256, 696};

struct bench {
    struct hg_backend *b;
    struct hg_pool *pool;
    size_t mib;
    int rounds;
    uint16_t *host; /* [N, K] bf16, also read as the adapters */
    void *x, *y;    /* (dev) [MAX_ROWS, K], [MAX_ROWS, N] */
    struct hg_weight **sets[N_TYPES];
    int n_weights[N_TYPES];
    double read[MAX_ROUNDS], peak[PEAK_COUNT][MAX_ROUNDS];
    double decode[N_TYPES][2][N_BATCHES][MAX_ROUNDS]; /* seconds, [1]: with adapters */
    double prefill[N_TYPES][N_PREFILLS][MAX_ROUNDS];
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return v[n / 2];
}

static enum hg_status make_set(struct bench *s, int t, struct hg_error *err)
{
    struct hg_host_tensor host = {.data = s->host, .type = HG_DTYPE_BF16};
    struct hg_weight_desc d = {.name = "bench",
                               .n_in = K,
                               .n_parts = 1,
                               .store = types[t],
                               .parts = {{.w = host,
                                          .n_out = N,
                                          .adapters = {{.a = host,
                                                        .b = host,
                                                        .route = host,
                                                        .rank = RANK,
                                                        .n_experts = EXPERTS,
                                                        .scaling = 0.5f}}}}};
    size_t bytes = (size_t)N * K * hg_dtype_bits(types[t]) / 8;
    int n = (int)((s->mib * 1024 * 1024 + bytes - 1) / bytes);
    s->sets[t] = calloc((size_t)n, sizeof(struct hg_weight *));
    if (!s->sets[t])
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight list");
    for (; s->n_weights[t] < n; s->n_weights[t]++)
        HG_TRY(s->b->ops->weight_create(s->b, &d, &s->sets[t][s->n_weights[t]], err));
    return HG_STATUS_OK;
}

static enum hg_status setup(struct bench *s, const char *name, struct hg_error *err)
{
    const struct hg_backend_limits limits = {.max_rows = MAX_ROWS,
                                             .max_in = K,
                                             .max_out = N,
                                             .max_rank = RANK + EXPERTS,
                                             .max_context = 16};
    HG_TRY(hg_backend_open(name, NULL, &s->b, err));
    HG_TRY(hg_pool_create(0, &s->pool, err));
    HG_TRY(s->b->ops->reserve(s->b, &limits, err));
    s->host = malloc((size_t)N * K * sizeof *s->host);
    if (!s->host)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "host weight");
    uint32_t seed = 1;
    for (size_t i = 0; i < (size_t)N * K; i++) {
        seed = seed * 1664525u + 1013904223u;
        s->host[i] = hg_f32_to_bf16((float)(int32_t)seed / 2147483648.0f * 0.03f);
    }
    HG_TRY(s->b->ops->alloc(s->b, (size_t)MAX_ROWS * K * sizeof(float), &s->x, err));
    HG_TRY(s->b->ops->alloc(s->b, (size_t)MAX_ROWS * N * sizeof(float), &s->y, err));
    float row[K];
    for (int r = 0; r < MAX_ROWS; r++) {
        for (int i = 0; i < K; i++) {
            seed = seed * 1664525u + 1013904223u;
            row[i] = (float)(int32_t)seed / 2147483648.0f;
        }
        HG_TRY(s->b->ops->upload_act(s->b, (float *)s->x + (size_t)r * K, row, K));
    }
    for (int t = 0; t < N_TYPES; t++)
        HG_TRY(make_set(s, t, err));
    return HG_STATUS_OK;
}

static void teardown(struct bench *s)
{
    if (s->b) {
        for (int t = 0; t < N_TYPES; t++) {
            for (int i = 0; i < s->n_weights[t]; i++)
                s->b->ops->weight_free(s->b, s->sets[t][i]);
            free(s->sets[t]);
        }
        s->b->ops->free(s->b, s->x);
        s->b->ops->free(s->b, s->y);
        hg_backend_close(s->b);
    }
    hg_pool_destroy(s->pool);
    free(s->host);
}

/* Seconds for the first n_weights of a set; the caller is one of the workers. */
static enum hg_status run_linears(struct bench *s, int t, int n_weights, int n_rows, bool adapters,
                                  double *seconds)
{
    static const int32_t slots[MAX_ROWS]; /* all 0: the only plug-in */
    int64_t start = hg_now_ns();
    for (int i = 0; i < n_weights; i++) {
        struct hg_linear_args a = {.w = s->sets[t][i],
                                   .n_rows = n_rows,
                                   .x = s->x,
                                   .ldx = K,
                                   .slot = adapters ? slots : NULL,
                                   .y = s->y,
                                   .ldy = N};
        HG_TRY(s->b->ops->linear(s->b, &a));
    }
    HG_TRY(s->b->ops->sync(s->b));
    *seconds = (double)(hg_now_ns() - start) * 1e-9;
    return HG_STATUS_OK;
}

static enum hg_status run_round(struct bench *s, int round)
{
    s->read[round] = peak_read(s->pool, s->host, (size_t)N * K * sizeof *s->host);
    for (int k = 0; k < PEAK_COUNT; k++)
        s->peak[k][round] = peak_ops(s->pool, (enum peak_kind)k);
    for (int t = 0; t < N_TYPES; t++) {
        for (int b = 0; b < N_BATCHES; b++)
            for (int a = 0; a < 2; a++)
                HG_TRY(
                    run_linears(s, t, s->n_weights[t], batches[b], a, &s->decode[t][a][b][round]));
        for (int p = 0; p < N_PREFILLS; p++)
            HG_TRY(run_linears(s, t, 1, prefills[p], false, &s->prefill[t][p][round]));
    }
    return HG_STATUS_OK;
}

/* Bytes that one decode step over the set reads. */
static double set_bytes(const struct bench *s, int t, bool adapters)
{
    double base = (double)N * K * (double)hg_dtype_bits(types[t]) / 8;
    double extra = (double)(RANK + EXPERTS) * K + (double)N * RANK;
    extra *= (double)hg_dtype_bytes(hg_dtype_beside(types[t]));
    if (types[t] == HG_DTYPE_I4)
        base += (double)N * K / HG_I4_GROUP * 2;
    return s->n_weights[t] * (base + (adapters ? extra : 0));
}

static void report(struct bench *s)
{
    double read = median(s->read, s->rounds), peak[PEAK_COUNT], worst = 0;
    for (int k = 0; k < PEAK_COUNT; k++)
        peak[k] = median(s->peak[k], s->rounds);
    printf("%s; weights [%d, %d], %zu MiB per type, medians of %d interleaved rounds\n",
           s->b->ops->describe(s->b), N, K, s->mib, s->rounds);
    printf("machine: read %.1f GB/s; fp32 %.0f, bf16 %.0f GFLOP/s, int8 %.0f GOP/s\n", read / 1e9,
           peak[PEAK_FP32] / 1e9, peak[PEAK_BF16] / 1e9, peak[PEAK_INT8] / 1e9);
    for (int t = 0; t < N_TYPES; t++)
        for (int a = 0; a < 2; a++) {
            printf("decode %-4s %-12s", hg_dtype_name(types[t]), a ? "+ adapters" : "");
            for (int b = 0; b < N_BATCHES; b++) {
                double rate = set_bytes(s, t, a) / median(s->decode[t][a][b], s->rounds);
                worst = rate / read > worst ? rate / read : worst;
                printf("  B=%d %5.1f GB/s %3.0f %%", batches[b], rate / 1e9, 100 * rate / read);
            }
            printf("\n");
        }
    for (int t = 0; t < N_TYPES; t++) {
        printf("prefill %-4s", hg_dtype_name(types[t]));
        for (int p = 0; p < N_PREFILLS; p++) {
            double rate = 2.0 * prefills[p] * N * K / median(s->prefill[t][p], s->rounds);
            printf("  T=%d %5.0f GFLOP/s", prefills[p], rate / 1e9);
            if (peak[kinds[t]] > 0) {
                worst = rate / peak[kinds[t]] > worst ? rate / peak[kinds[t]] : worst;
                printf(" %3.0f %%", 100 * rate / peak[kinds[t]]);
            }
        }
        printf("\n");
    }
    if (worst > 1)
        printf("BUG OF THE BENCH: above 100 %% of a limit; the limits were measured too low\n");
}

/* What bench.py divides by; needs no weights. */
static int print_limits(int n_threads)
{
    struct hg_error err = {0};
    struct hg_pool *pool = NULL;
    size_t bytes = (size_t)256 << 20;
    uint8_t *data = malloc(bytes);
    enum hg_status status = hg_pool_create(n_threads, &pool, &err);
    if (!data) {
        status = hg_fail(&err, HG_STATUS_NO_MEMORY, "limits: no memory for a read buffer");
    } else if (status == HG_STATUS_OK) {
        memset(data, 1, bytes);
        printf("{\"threads\":%d,\"read\":%.0f", hg_pool_size(pool), peak_read(pool, data, bytes));
        printf(",\"fp32\":%.0f", peak_ops(pool, PEAK_FP32));
        printf(",\"bf16\":%.0f", peak_ops(pool, PEAK_BF16));
        printf(",\"int8\":%.0f}\n", peak_ops(pool, PEAK_INT8));
    }
    if (status != HG_STATUS_OK)
        fprintf(stderr, "kernel-bench: %s: %s\n", hg_status_text(status), err.text);
    hg_pool_destroy(pool);
    free(data);
    return hg_status_exit_code(status);
}

static int number(const char *text, int lo, int hi, int otherwise)
{
    char *end;
    long v = strtol(text, &end, 10);
    return *end || end == text || v < lo || v > hi ? otherwise : (int)v;
}

int main(int argc, char **argv)
{
    struct hg_error err = {0};
    if (argc > 1 && argc < 4 && strcmp(argv[1], "limits") == 0)
        return print_limits(argc > 2 ? number(argv[2], 1, 64, 0) : 0);
    if (argc > 2 && strcmp(argv[1], "cases") == 0) {
        enum hg_status done =
            kernel_cases(argv[2], (size_t)(argc > 3 ? number(argv[3], 1, 65536, 384) : 384),
                         argc > 4 ? number(argv[4], 1, MAX_ROUNDS, 9) : 9,
                         argc > 5 && strcmp(argv[5], "tiny") == 0    ? KERNEL_CASES_TINY
                         : argc > 5 && strcmp(argv[5], "one") == 0   ? KERNEL_CASES_ONE
                         : argc > 5 && strcmp(argv[5], "brief") == 0 ? KERNEL_CASES_BRIEF
                                                                     : KERNEL_CASES_FULL,
                         &err);
        if (done != HG_STATUS_OK)
            fprintf(stderr, "kernel-bench: %s: %s\n", hg_status_text(done), err.text);
        return hg_status_exit_code(done);
    }
    struct bench *s = calloc(1, sizeof *s);
    if (!s)
        return EXIT_FAILURE;
    s->mib = (size_t)(argc > 2 ? number(argv[2], 1, 65536, 384) : 384);
    s->rounds = argc > 3 ? number(argv[3], 1, MAX_ROUNDS, 5) : 5;
    enum hg_status status = setup(s, argc > 1 ? argv[1] : "cpu", &err);
    for (int r = 0; r < s->rounds && status == HG_STATUS_OK; r++)
        status = run_round(s, r);
    if (status == HG_STATUS_OK)
        report(s);
    else
        fprintf(stderr, "kernel-bench: %s: %s\n", hg_status_text(status), err.text);
    teardown(s);
    free(s);
    return hg_status_exit_code(status);
}
