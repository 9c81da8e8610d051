/* model/numerics.c - see numerics.h. */
#include "model/numerics.h"

#include <string.h>

static bool is(const char *option, const char *text)
{
    return option && strcmp(option, text) == 0;
}

/* Options that were left alone become what strict numerics need. */
static enum hg_status need(const char *name, const char **option, const char *value,
                           struct hg_error *err)
{
    if (*option && !is(*option, "auto") && !is(*option, value))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "numerics strict: %s: expected %s, got \"%.32s\"", name, value, *option);
    *option = value;
    return HG_STATUS_OK;
}

enum hg_status hg_numerics_apply(const struct hg_model_options *asked, struct hg_model_options *out,
                                 struct hg_error *err)
{
    *out = *asked;
    if (!asked->numerics || is(asked->numerics, "default"))
        return HG_STATUS_OK;
    if (!is(asked->numerics, "strict"))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "numerics: expected default or strict, got \"%.32s\"", asked->numerics);
    HG_TRY(need("backend", &out->backend, "ref", err));
    HG_TRY(need("dtype", &out->dtype, "f16", err));
    HG_TRY(need("plugin_dtype", &out->plugin_dtype, "f16", err));
    HG_TRY(need("kv_dtype", &out->kv_dtype, "f16", err));
    if (!out->rope)
        out->rope = "fp16";
    return HG_STATUS_OK;
}

enum hg_rounding hg_numerics_rounding(const struct hg_model_options *o, const char *arch)
{
    if (!is(o->numerics, "strict"))
        return HG_ROUND_NEVER;
    return is(arch, "qwen2") ? HG_ROUND_FP16_SDPA : HG_ROUND_FP16;
}
