/* kernels/cpu/cpu_backend.c - open, reserve, close, threads and the op table of the cpu backend. */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/features.h"

enum {
    WORTH_A_WAKE_UP = 20000,       /* elementary operations: about 2 us on one core */
    SUM_BYTES = 64 * 1024 * 1024,  /* of the sum buffer, which bounds the rows of a chunk */
    BAND_FLOATS = 4 * 1024 * 1024, /* of the convolution's line buffer */
    CONV_INPUTS = 64 * 1024        /* kernel * kernel * C that x32 can always hold */
};

void cpu_run(struct cpu_backend *c, int64_t work, hg_pool_fn *fn, void *ctx)
{
    if (work < WORTH_A_WAKE_UP || c->n_threads == 1)
        fn(ctx, 0, 1);
    else
        hg_pool_run(c->pool, fn, ctx);
}

/* ---- scratch
 * -------------------------------------------------------------------------------------- */

static enum hg_status scratch(struct cpu_backend *c, void *out, int64_t count, size_t size,
                              struct hg_error *err)
{
    HG_TRY(cpu_scratch(out, count, size, err));
    c->scratch_bytes += (size_t)count * size;
    return HG_STATUS_OK;
}

static void memory(struct hg_backend *b, struct hg_backend_memory *out)
{
    *out = (struct hg_backend_memory){.scratch = cpu_of(b)->scratch_bytes};
}

static void release_scratch(struct cpu_backend *c)
{
    void *shared[] = {c->x32,      c->x16,    c->x8,      c->x_scale, c->x_sum,   c->z,
                      c->z_act,    c->sum,    c->row,     c->band,    c->moments, c->norm_affine,
                      c->xa_scale, c->xa_sum, c->z_scale, c->z_sum};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        free(shared[i]);
    for (int i = 0; c->threads && i < c->n_threads; i++) {
        struct cpu_thread *t = &c->threads[i];
        void *own[] = {t->acc, t->up, t->cos, t->sin, t->q, t->out, t->score, t->keys, t->values};
        for (size_t j = 0; j < sizeof own / sizeof *own; j++)
            free(own[j]);
        hg_sample_scratch_deinit(&t->sample);
    }
    free(c->threads);
    hg_host_steps_deinit(&c->steps);
    c->x32 = c->z = c->z_act = c->sum = c->x_scale = c->band = c->norm_affine = NULL;
    c->x16 = NULL;
    c->x8 = NULL;
    c->x_sum = c->row = c->xa_sum = c->z_sum = NULL;
    c->xa_scale = c->z_scale = NULL;
    c->moments = NULL;
    c->threads = NULL;
    c->chunk = 0;
    c->scratch_bytes = 0;
    c->x_cap = c->ld_z = c->ld_sum = c->band_cap = 0;
    memset(&c->limits, 0, sizeof c->limits);
}

static enum hg_status reserve_thread(struct cpu_backend *c, struct cpu_thread *t, int max_out,
                                     struct hg_error *err)
{
    int64_t dim = CPU_MAX_HEAD_DIM, block = (int64_t)c->chunk * CPU_PAIR;
    HG_TRY(scratch(c, &t->acc, block, sizeof *t->acc, err));
    HG_TRY(scratch(c, &t->up, block, sizeof *t->up, err));
    HG_TRY(scratch(c, &t->cos, dim / 2, sizeof *t->cos, err));
    HG_TRY(scratch(c, &t->sin, dim / 2, sizeof *t->sin, err));
    HG_TRY(scratch(c, &t->q, CPU_QUERIES * dim, sizeof *t->q, err));
    HG_TRY(scratch(c, &t->out, CPU_QUERIES * dim, sizeof *t->out, err));
    HG_TRY(scratch(c, &t->score, CPU_QUERIES * CPU_KEYS, sizeof *t->score, err));
    HG_TRY(scratch(c, &t->keys, CPU_KEYS * dim, sizeof *t->keys, err));
    HG_TRY(scratch(c, &t->values, CPU_KEYS * dim, sizeof *t->values, err));
    return hg_sample_scratch_init(&t->sample, max_out, err);
}

static int64_t at_least(int64_t n, int64_t least)
{
    return n > least ? n : least;
}

static enum hg_status reserve_rows(struct cpu_backend *c, const struct hg_backend_limits *l,
                                   struct hg_error *err)
{
    int64_t ld_x = cpu_round_up(at_least(l->max_in, 1), 64);
    int64_t n = at_least(l->max_rows, 1);
    c->ld_sum = cpu_round_up(at_least(l->max_out, 1), CPU_PAIR);
    c->ld_z = cpu_round_up(at_least(l->max_rank, 0), CPU_PAIR) + HG_MAX_PARTS * CPU_PAIR;
    int64_t fit = SUM_BYTES / (int64_t)sizeof(float) / c->ld_sum;
    n = n < CPU_MAX_CHUNK ? n : CPU_MAX_CHUNK;
    n = n < fit ? n : at_least(fit, 1);
    if (l->max_conv > 0)
        n = CPU_MAX_CHUNK < fit ? CPU_MAX_CHUNK : at_least(fit, 1);
    c->chunk = (int)n;
    c->x_cap = ld_x * n;
    if (l->max_conv > 0)
        c->x_cap = at_least(c->x_cap, l->max_conv < CONV_INPUTS ? l->max_conv + 64 : CONV_INPUTS);
    HG_TRY(scratch(c, &c->x32, c->x_cap, sizeof *c->x32, err));
    HG_TRY(scratch(c, &c->x16, c->x_cap, sizeof *c->x16, err));
    HG_TRY(scratch(c, &c->x8, c->x_cap, sizeof *c->x8, err));
    int64_t scales = n + c->x_cap / 64; /* rows are padded to 64 inputs, so groups fit */
    HG_TRY(scratch(c, &c->x_scale, scales, sizeof *c->x_scale, err));
    HG_TRY(scratch(c, &c->x_sum, scales, sizeof *c->x_sum, err));
    HG_TRY(scratch(c, &c->xa_scale, n, sizeof *c->xa_scale, err));
    HG_TRY(scratch(c, &c->xa_sum, n, sizeof *c->xa_sum, err));
    HG_TRY(scratch(c, &c->z_scale, n * HG_MAX_PARTS, sizeof *c->z_scale, err));
    HG_TRY(scratch(c, &c->z_sum, n * HG_MAX_PARTS, sizeof *c->z_sum, err));
    HG_TRY(scratch(c, &c->z, n * c->ld_z, sizeof *c->z, err));
    HG_TRY(scratch(c, &c->z_act, n * c->ld_z, sizeof *c->z_act, err));
    HG_TRY(scratch(c, &c->sum, n * c->ld_sum, sizeof *c->sum, err));
    return scratch(c, &c->row, n, sizeof *c->row, err);
}

static enum hg_status cpu_reserve(struct hg_backend *b, const struct hg_backend_limits *limits,
                                  struct hg_error *err)
{
    struct cpu_backend *c = cpu_of(b);
    const struct hg_backend_limits l = *limits;
    enum hg_status status = HG_STATUS_OK;
    release_scratch(c);
    HG_TRY_OUT(reserve_rows(c, &l, err));
    HG_TRY_OUT(hg_host_steps_init(&c->steps, l.max_rows, err));
    c->threads = calloc((size_t)c->n_threads, sizeof *c->threads);
    if (!c->threads)
        HG_TRY_OUT(hg_fail(err, HG_STATUS_NO_MEMORY, "cpu: scratch of %d threads", c->n_threads));
    for (int i = 0; i < c->n_threads; i++)
        HG_TRY_OUT(reserve_thread(c, &c->threads[i], l.max_out, err));
    if (l.max_conv > 0) {
        c->band_cap = l.max_conv < BAND_FLOATS ? l.max_conv : BAND_FLOATS;
        HG_TRY_OUT(scratch(c, &c->band, c->band_cap, sizeof *c->band, err));
        HG_TRY_OUT(scratch(c, &c->moments, 2 * CPU_MOMENT_RUNS * (int64_t)CPU_MAX_CHANNELS,
                           sizeof *c->moments, err));
        HG_TRY_OUT(scratch(c, &c->norm_affine, 2 * CPU_MAX_CHANNELS, sizeof(float), err));
    }
    c->limits = l;
out:
    if (status != HG_STATUS_OK)
        release_scratch(c);
    return status;
}

/* ---- open and close
 * ------------------------------------------------------------------------------- */

static void cpu_close(struct hg_backend *b)
{
    struct cpu_backend *c = cpu_of(b);
    release_scratch(c);
    hg_pool_destroy(c->pool);
    free(c);
}

static const char *cpu_describe(struct hg_backend *b)
{
    return cpu_of(b)->description;
}

/* A step needs no preparation: nothing is captured, the plan is read while the op runs. */
static enum hg_status cpu_step_begin(struct hg_backend *b, const struct hg_plan *plan,
                                     bool *replayed)
{
    (void)plan;
    hg_host_steps_begin(&cpu_of(b)->steps, replayed);
    return HG_STATUS_OK;
}

static enum hg_status cpu_step_end(struct hg_backend *b, int64_t *step)
{
    hg_host_steps_end(&cpu_of(b)->steps, step);
    return HG_STATUS_OK;
}

static enum hg_status cpu_step_wait(struct hg_backend *b, int64_t step)
{
    return hg_host_steps_wait(&cpu_of(b)->steps, step);
}

static const struct hg_backend_ops cpu_ops = {
    .name = "cpu",
    .act_type = HG_DTYPE_F32,
    .close = cpu_close,
    .describe = cpu_describe,
    .reserve = cpu_reserve,
    .memory = memory,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .upload_act = cpu_upload_act,
    .download_act = cpu_download_act,
    .sync = cpu_sync,
    .weight_create = cpu_weight_create,
    .weight_free = cpu_weight_free,
    .weight_bytes = cpu_weight_bytes,
    .kv_create = cpu_kv_create,
    .kv_free = cpu_kv_free,
    .kv_zero = cpu_kv_zero,
    .step_begin = cpu_step_begin,
    .step_end = cpu_step_end,
    .step_wait = cpu_step_wait,
    .embed = cpu_embed,
    .linear = cpu_linear,
    .layernorm = cpu_layernorm,
    .attention = cpu_attention,
    .attention_full = cpu_attention_full,
    .head = cpu_head,
    .sample = cpu_sample,
    .im2row = cpu_im2row,
    .vision_embed = cpu_vision_embed,
    .copy_rows = cpu_copy_rows,
    .conv = cpu_conv,
    .lookup = cpu_lookup,
    .argmax = cpu_argmax,
    .to_rgb = cpu_to_rgb,
};

enum hg_status hg_cpu_open(const char *path, int n_threads, struct hg_backend **out,
                           struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    *out = NULL;
    struct cpu_backend *c = calloc(1, sizeof *c);
    if (!c)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "cpu backend");
    HG_TRY_OUT(cpu_select(path, &c->simd, err));
    HG_TRY_OUT(hg_pool_create(n_threads, &c->pool, err));
    c->n_threads = hg_pool_size(c->pool);
    c->base.ops = &cpu_ops;
    snprintf(c->description, sizeof c->description, "cpu %s, %d thread%s", c->simd.name,
             c->n_threads, c->n_threads == 1 ? "" : "s");
    *out = &c->base;
    c = NULL;
out:
    free(c);
    return status;
}
