/* model/dry_run.c - a backend without memory. */
#include "model/dry_run.h"

#include <string.h>

#include "common/clock.h"
#include "model/load/finite.h"

static const char *describe(struct hg_backend *b)
{
    (void)b;
    return "rehearsal";
}

static void close_backend(struct hg_backend *b)
{
    (void)b;
}

static enum hg_status reserve(struct hg_backend *b, const struct hg_backend_limits *limits,
                              struct hg_error *err)
{
    (void)b, (void)limits, (void)err;
    return HG_STATUS_OK;
}

static void memory(struct hg_backend *b, struct hg_backend_memory *out)
{
    (void)b;
    memset(out, 0, sizeof *out);
}

static enum hg_status no_memory(struct hg_backend *b, size_t bytes, void **out,
                                struct hg_error *err)
{
    (void)b, (void)bytes, (void)err;
    *out = NULL;
    return HG_STATUS_OK;
}

static void free_nothing(struct hg_backend *b, void *p)
{
    (void)b, (void)p;
}

static enum hg_status upload(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    (void)b, (void)dst, (void)src, (void)bytes;
    return HG_STATUS_OK;
}

static enum hg_status no_weight(struct hg_backend *b, const struct hg_weight_desc *desc,
                                struct hg_weight **out, struct hg_error *err)
{
    (void)b, (void)desc, (void)err;
    *out = NULL;
    return HG_STATUS_OK;
}

static void free_no_weight(struct hg_backend *b, struct hg_weight *w)
{
    (void)b, (void)w;
}

static size_t no_bytes(const struct hg_weight *w, int slot)
{
    (void)w, (void)slot;
    return 0;
}

static const struct hg_backend_ops ops = {.name = "dry",
                                          .act_type = HG_DTYPE_F32,
                                          .close = close_backend,
                                          .describe = describe,
                                          .reserve = reserve,
                                          .memory = memory,
                                          .alloc = no_memory,
                                          .free = free_nothing,
                                          .upload = upload,
                                          .weight_create = no_weight,
                                          .weight_free = free_no_weight,
                                          .weight_bytes = no_bytes};

void hg_dry_run_init(struct hg_dry_run *d)
{
    memset(d, 0, sizeof *d);
    d->backend.ops = &ops;
    d->values = true;
}

struct hg_dry_run *hg_dry_run_of(struct hg_backend *b)
{
    return b->ops == &ops ? (struct hg_dry_run *)(void *)b : NULL;
}

static void report(struct hg_dry_run *d, const struct hg_error *why)
{
    if (d->n_wrong++ == 0)
        d->first = *why;
    if (d->wrong)
        d->wrong(d->ctx, why);
}

static void look_at_values(struct hg_dry_run *d, struct hg_weights *w, const struct hg_tensor *t)
{
    bool whole = false;
    struct hg_error why;
    for (int i = 0; i < HG_DRY_WHOLE; i++)
        whole |= d->whole[i] == w;
    d->late |= d->deadline_ns && hg_now_ns() > d->deadline_ns;
    if (!d->values || d->late)
        return;
    if (hg_weights_check_finite(w, t, whole ? 0 : HG_DRY_PAGES, &why) != HG_STATUS_OK)
        report(d, &why);
    if (whole)
        hg_weights_forget(w, t);
}

enum hg_status hg_dry_run_saw(struct hg_dry_run *d, struct hg_weights *w, enum hg_status status,
                              const struct hg_tensor *t, struct hg_error *err)
{
    if (status == HG_STATUS_BAD_FILE && err) {
        report(d, err);
        return HG_STATUS_OK;
    }
    if (status == HG_STATUS_OK)
        look_at_values(d, w, t);
    return status;
}
