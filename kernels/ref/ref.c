/* kernels/ref/ref.c - open, reserve, close and the op table of the ref backend. */
#include "kernels/ref/ref.h"
#include "kernels/check.h"

#include <stdlib.h>
#include <string.h>

static void release_scratch(struct ref_backend *r)
{
    ref_row_deinit(&r->x);
    ref_row_deinit(&r->z);
    hg_sample_scratch_deinit(&r->sample);
    hg_host_steps_deinit(&r->steps);
    free(r->normed);
    free(r->row_out);
    free(r->sum);
    free(r->gate);
    free(r->score);
    r->normed = r->row_out = NULL;
    r->sum = r->gate = r->score = NULL;
    memset(&r->limits, 0, sizeof r->limits);
}

static void ref_close(struct hg_backend *b)
{
    release_scratch(ref_of(b));
    free(b);
}

static const char *ref_describe(struct hg_backend *b)
{
    (void)b;
    return "ref 1 thread";
}

static size_t larger(int a, int b)
{
    int n = a > b ? a : b;
    return n > 0 ? (size_t)n : 1;
}

static enum hg_status ref_reserve(struct hg_backend *b, const struct hg_backend_limits *limits,
                                  struct hg_error *err)
{
    struct ref_backend *r = ref_of(b);
    const struct hg_backend_limits l = *limits;
    enum hg_status status = HG_STATUS_OK;
    release_scratch(r);
    r->normed = calloc(larger(l.max_in, 0), sizeof *r->normed);
    r->row_out = calloc(larger(l.max_out, l.max_rank), sizeof *r->row_out);
    r->sum = calloc(larger(l.max_out, 0), sizeof *r->sum);
    r->gate = calloc(larger(l.max_rank, 0), sizeof *r->gate);
    r->score = calloc(larger(l.max_context, 0), sizeof *r->score);
    if (!r->normed || !r->row_out || !r->sum || !r->gate || !r->score)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "ref: scratch for K %d, N %d, context %d",
                         l.max_in, l.max_out, l.max_context);
    HG_TRY_OUT(status);
    HG_TRY_OUT(ref_row_init(&r->x, l.max_in, err));
    HG_TRY_OUT(ref_row_init(&r->z, l.max_rank, err));
    HG_TRY_OUT(hg_sample_scratch_init(&r->sample, l.max_out, err));
    HG_TRY_OUT(hg_host_steps_init(&r->steps, l.max_rows, err));
    r->limits = l;
out:
    if (status != HG_STATUS_OK)
        release_scratch(r);
    return status;
}

static enum hg_status ref_step_begin(struct hg_backend *b, const struct hg_plan *plan,
                                     bool *replayed)
{
    (void)plan;
    hg_host_steps_begin(&ref_of(b)->steps, replayed);
    return HG_STATUS_OK;
}

static enum hg_status ref_step_end(struct hg_backend *b, int64_t *step)
{
    hg_host_steps_end(&ref_of(b)->steps, step);
    return HG_STATUS_OK;
}

static enum hg_status ref_step_wait(struct hg_backend *b, int64_t step)
{
    return hg_host_steps_wait(&ref_of(b)->steps, step);
}

static const struct hg_backend_ops ref_ops = {
    .name = "ref",
    .act_type = HG_DTYPE_F32,
    .rounds_fp16 = true,
    .close = ref_close,
    .describe = ref_describe,
    .reserve = ref_reserve,
    .memory = hg_host_memory,
    .alloc = ref_alloc,
    .free = ref_free,
    .upload = ref_upload,
    .download = ref_download,
    .upload_act = ref_upload_act,
    .download_act = ref_download_act,
    .sync = ref_sync,
    .weight_create = ref_weight_create,
    .weight_free = ref_weight_free,
    .weight_bytes = ref_weight_bytes,
    .kv_create = ref_kv_create,
    .kv_free = ref_kv_free,
    .kv_zero = ref_kv_zero,
    .step_begin = ref_step_begin,
    .step_end = ref_step_end,
    .step_wait = ref_step_wait,
    .embed = ref_embed,
    .linear = ref_linear,
    .layernorm = ref_layernorm,
    .attention = ref_attention,
    .attention_full = ref_attention_full,
    .head = ref_head,
    .sample = ref_sample,
    .im2row = ref_im2row,
    .vision_embed = ref_vision_embed,
    .copy_rows = ref_copy_rows,
    .conv = ref_conv,
    .lookup = ref_lookup,
    .argmax = ref_argmax,
    .to_rgb = ref_to_rgb,
};

enum hg_status hg_ref_open(struct hg_backend **out, struct hg_error *err)
{
    struct ref_backend *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "ref backend");
    r->base.ops = &ref_ops;
    *out = &r->base;
    return HG_STATUS_OK;
}
