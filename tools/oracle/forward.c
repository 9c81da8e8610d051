/* forward JOBS.json - runs parts of the model on files, for tests/parity/live: numbers in, numbers
 * out.
 *
 * JOBS.json is a list; every job has "kind", "backend" and "out", a file of raw little-endian
 * numbers. Numerics: "default" or "strict"; strict stores f16. Others than those of their kind are
 * not read:
 *   llm        model, dtype, rope (fp32, fp16, bf16), sequences: [{task, plugin, ids, n_new,
 * stop}]. out, for each sequence: int32 n_ids, int32 n_logits, int32 ids[n_ids], float
 *              logits[n_ids, n_logits]. "stop": let a stop id end it; without, only n_new does.
 *   vision     model (folder with config.json), layer, pixels (file of float [3, side, side]).
 *              out: float [patches, dim].
 *   projector  weights (file), n_in, n_out, rows, x (file of float [rows, n_in]).
 *              out: float [rows, n_out].
 *   decode     weights (file), grid, groups, codes: [..]. out: bytes [side, side, 3].
 *   encode     the same, rgb (file of bytes) instead of codes. out: int32 [grid * grid].
 * "sdpa": true (vision, with strict): fused attention, as beside Qwen2. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/healthgpt.h"
#include "model/load/model_config.h"
#include "model/preprocess.h"
#include "model/projector.h"
#include "model/vision.h"
#include "model/vqgan.h"

struct job {
    json_t *j;
    FILE *out;
    struct hg_backend *b; /* of kinds that load no whole model */
    struct hg_weights *w;
};

static const char *text(const struct job *t, const char *key, const char *absent)
{
    const char *s = json_string_value(json_object_get(t->j, key));
    return s ? s : absent;
}

static int number(const json_t *j, const char *key)
{
    return (int)json_integer_value(json_object_get(j, key));
}

static enum hg_status put(struct job *t, const void *data, size_t size, size_t n,
                          struct hg_error *err)
{
    if (fwrite(data, size, n, t->out) == n)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_INTERNAL, "%s: cannot be written", text(t, "out", "out"));
}

/* n numbers of `size` bytes from the file under `key`; NULL: there are not as many. */
static void *get(const struct job *t, const char *key, size_t size, size_t n, struct hg_error *err)
{
    FILE *in = fopen(text(t, key, ""), "rb");
    void *data = calloc(n ? n : 1, size);
    bool whole = in && data && fread(data, size, n, in) == n && fgetc(in) == EOF;
    if (in)
        fclose(in);
    if (whole)
        return data;
    free(data);
    hg_fail(err, HG_STATUS_BAD_FILE, "%s %s: expected %zu numbers of %zu bytes", key,
            text(t, key, ""), n, size);
    return NULL;
}

static int32_t *get_ids(json_t *a, size_t *n)
{
    *n = json_array_size(a);
    int32_t *ids = calloc(*n + 1, sizeof *ids);
    for (size_t i = 0; ids && i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(a, i));
    return ids;
}

/* ---- llm ------------------------------------------------------------------------------------- */

struct answer {
    int32_t *ids;
    float *logits;
    size_t n_ids, n_logits;
};

static enum hg_status start(struct hg_model *m, json_t *s, struct hg_seq **out,
                            struct hg_error *err)
{
    struct hg_prepared *p = NULL;
    struct hg_request_input in = {.task = (enum hg_task)number(s, "task"),
                                  .no_plugin = !json_is_true(json_object_get(s, "plugin"))};
    size_t n = 0;
    int32_t *ids = get_ids(json_object_get(s, "ids"), &n);
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = number(s, "n_new");
    in.sampling.ignore_stop = !json_is_true(json_object_get(s, "stop"));
    in.sampling.unconstrained_image = true;
    enum hg_status status = hg_model_prepare_ids(m, &in, ids, n, &p, err);
    free(ids);
    HG_TRY(status);
    status = hg_seq_create(m, p, out, err);
    if (status != HG_STATUS_OK)
        hg_prepared_free(p);
    return status;
}

/* Prompts in chunks of 96 and steps of one token, as a server would. */
static enum hg_status generate(struct hg_model *m, struct hg_seq *seq, size_t cap, struct answer *a,
                               struct hg_error *err)
{
    enum { CHUNK = 96 };
    struct hg_token token = {.finish = HG_FINISH_NONE};
    while (token.finish == HG_FINISH_NONE) {
        int waiting = hg_seq_n_waiting(seq);
        struct hg_step_item item = {seq, waiting == 0 ? 1 : waiting < CHUNK ? waiting : CHUNK};
        int32_t first = 0;
        HG_TRY(hg_model_step(m, &item, 1, &token, err));
        if (token.id < 0)
            continue;
        float *row = a->logits + a->n_ids * (a->n_logits ? a->n_logits : cap);
        HG_TRY(hg_model_last_logits(m, 0, row, cap, &a->n_logits, &first, err));
        a->ids[a->n_ids++] = token.id;
    }
    return HG_STATUS_OK;
}

static enum hg_status run_sequence(struct job *t, struct hg_model *m, json_t *s,
                                   struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct hg_model_info info;
    struct hg_seq *seq = NULL;
    hg_model_info(m, &info);
    size_t n_new = (size_t)number(s, "n_new"), cap = (size_t)info.n_vocab;
    struct answer a = {.ids = calloc(n_new + 1, sizeof *a.ids),
                       .logits = calloc(n_new * cap + 1, sizeof *a.logits)};
    if (!a.ids || !a.logits)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "%zu rows of %zu logits", n_new, cap);
    HG_TRY_OUT(status);
    HG_TRY_OUT(start(m, s, &seq, err));
    HG_TRY_OUT(generate(m, seq, cap, &a, err));
    int32_t head[2] = {(int32_t)a.n_ids, (int32_t)a.n_logits};
    HG_TRY_OUT(put(t, head, sizeof *head, 2, err));
    HG_TRY_OUT(put(t, a.ids, sizeof *a.ids, a.n_ids, err));
    HG_TRY_OUT(put(t, a.logits, sizeof *a.logits, a.n_ids * a.n_logits, err));
out:
    hg_seq_free(seq);
    free(a.ids);
    free(a.logits);
    return status;
}

static enum hg_status run_llm(struct job *t, struct hg_error *err)
{
    struct hg_model_options o = {.path = text(t, "model", ""),
                                 .backend = text(t, "backend", NULL),
                                 .dtype = text(t, "dtype", "auto"),
                                 .rope = text(t, "rope", NULL),
                                 .numerics = text(t, "numerics", "default"),
                                 .max_seqs = 1,
                                 .n_threads = 2,
                                 .max_batch_tokens = 128,
                                 .kv_tokens = 8192};
    struct hg_model *m = NULL;
    json_t *s;
    size_t i;
    HG_TRY(hg_model_load(&o, &m, err));
    enum hg_status status = HG_STATUS_OK;
    json_array_foreach(json_object_get(t->j, "sequences"), i, s)
    {
        HG_TRY_OUT(run_sequence(t, m, s, err));
    }
out:
    hg_model_free(m);
    return status;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static enum hg_rounding rounding(const struct job *t)
{
    if (strcmp(text(t, "numerics", "default"), "strict") != 0)
        return HG_ROUND_NEVER;
    return json_is_true(json_object_get(t->j, "sdpa")) ? HG_ROUND_FP16_SDPA : HG_ROUND_FP16;
}

static enum hg_dtype store(const struct job *t)
{
    return rounding(t) ? HG_DTYPE_F16 : HG_DTYPE_F32;
}

static enum hg_status open_backend(struct job *t, const struct hg_backend_limits *limits,
                                   struct hg_error *err)
{
    struct hg_backend_options o = {.n_threads = 2};
    HG_TRY(hg_backend_open(text(t, "backend", "cpu"), &o, &t->b, err));
    return t->b->ops->reserve(t->b, limits, err);
}

/* n activations from y (dev) to the file. */
static enum hg_status put_act(struct job *t, const void *y, size_t n, struct hg_error *err)
{
    float *host = calloc(n ? n : 1, sizeof *host);
    if (!host)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%zu numbers", n);
    enum hg_status status = t->b->ops->download_act(t->b, host, y, n);
    if (status == HG_STATUS_OK)
        status = put(t, host, sizeof *host, n, err);
    free(host);
    return status;
}

static enum hg_status run_vision(struct job *t, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct hg_vision_config c;
    struct hg_backend_limits limits = {0};
    struct hg_vision *v = NULL;
    int layer = number(t->j, "layer");
    void *y = NULL;
    float *pixels = NULL;
    HG_TRY(hg_vision_config_read(text(t, "model", ""), &c, err));
    hg_vision_limits(&c, &limits);
    size_t n = (size_t)c.dim * (size_t)(c.image_side / c.patch) * (size_t)(c.image_side / c.patch);
    HG_TRY_OUT(open_backend(t, &limits, err));
    HG_TRY_OUT(hg_weights_create(&t->w, err));
    HG_TRY_OUT(hg_weights_add_dir(t->w, text(t, "model", ""), err));
    HG_TRY_OUT(hg_vision_load(t->b, &c, t->w, hg_vision_layer_index(&c, layer), store(t), &v, err));
    HG_TRY_OUT(hg_weights_check_all_used(t->w, err));
    hg_vision_set_rounding(v, rounding(t));
    HG_TRY_OUT(t->b->ops->alloc(t->b, n * hg_dtype_bytes(t->b->ops->act_type), &y, err));
    pixels = get(t, "pixels", sizeof *pixels, 3 * (size_t)c.image_side * (size_t)c.image_side, err);
    HG_TRY_OUT(pixels ? HG_STATUS_OK : HG_STATUS_BAD_FILE);
    HG_TRY_OUT(hg_vision_encode(v, pixels, layer, y, err));
    HG_TRY_OUT(put_act(t, y, n, err));
out:
    free(pixels);
    if (t->b)
        t->b->ops->free(t->b, y);
    hg_vision_free(v);
    return status;
}

static enum hg_status run_projector(struct job *t, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct hg_projector *p = NULL;
    int n_in = number(t->j, "n_in"), n_out = number(t->j, "n_out"), rows = number(t->j, "rows");
    int most = n_in > n_out ? n_in : n_out;
    struct hg_backend_limits limits = {.max_rows = rows, .max_in = most, .max_out = most};
    void *x = NULL, *y = NULL;
    size_t in = (size_t)rows * (size_t)n_in, out = (size_t)rows * (size_t)n_out;
    float *host = get(t, "x", sizeof *host, in, err);
    HG_TRY_OUT(host ? HG_STATUS_OK : HG_STATUS_BAD_FILE);
    HG_TRY_OUT(open_backend(t, &limits, err));
    size_t bytes = hg_dtype_bytes(t->b->ops->act_type);
    HG_TRY_OUT(hg_weights_create(&t->w, err));
    HG_TRY_OUT(hg_weights_add_file(t->w, text(t, "weights", ""), err));
    HG_TRY_OUT(hg_projector_load(t->b, t->w, n_in, n_out, rows, store(t), &p, err));
    hg_projector_set_rounding(p, rounding(t));
    HG_TRY_OUT(t->b->ops->alloc(t->b, in * bytes, &x, err));
    HG_TRY_OUT(t->b->ops->alloc(t->b, out * bytes, &y, err));
    HG_TRY_OUT(t->b->ops->upload_act(t->b, x, host, in));
    HG_TRY_OUT(hg_projector_run(p, x, rows, y));
    HG_TRY_OUT(put_act(t, y, out, err));
out:
    free(host);
    hg_projector_free(p);
    if (t->b) {
        t->b->ops->free(t->b, x);
        t->b->ops->free(t->b, y);
    }
    return status;
}

static enum hg_status open_vqgan(struct job *t, struct hg_vqgan **out, struct hg_vqgan_info *info,
                                 struct hg_error *err)
{
    struct hg_backend_limits limits = {0};
    int grid = number(t->j, "grid");
    HG_TRY(hg_weights_create(&t->w, err));
    HG_TRY(hg_weights_add_file(t->w, text(t, "weights", ""), err));
    HG_TRY(hg_vqgan_limits(t->w, grid, &limits, err));
    HG_TRY(open_backend(t, &limits, err));
    HG_TRY(hg_vqgan_load(t->b, t->w, grid, number(t->j, "groups"), out, err));
    hg_vqgan_info(*out, info);
    return hg_weights_check_all_used(t->w, err);
}

static enum hg_status run_decode(struct job *t, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct hg_vqgan *v = NULL;
    struct hg_vqgan_info info;
    struct hg_image im = {0};
    size_t n = 0;
    int32_t *codes = get_ids(json_object_get(t->j, "codes"), &n);
    HG_TRY_OUT(open_vqgan(t, &v, &info, err));
    if (n != (size_t)info.grid * (size_t)info.grid)
        status = hg_fail(err, HG_STATUS_BAD_REQUEST, "codes: %zu for a grid of %d", n, info.grid);
    HG_TRY_OUT(status);
    HG_TRY_OUT(hg_vqgan_decode(v, codes, &im, err));
    HG_TRY_OUT(put(t, im.rgb, 3, (size_t)im.width * (size_t)im.height, err));
out:
    free(codes);
    hg_image_deinit(&im);
    hg_vqgan_free(v);
    return status;
}

static enum hg_status run_encode(struct job *t, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct hg_vqgan *v = NULL;
    struct hg_vqgan_info info;
    struct hg_image im = {0};
    int32_t *codes = NULL;
    uint8_t *rgb = NULL;
    HG_TRY_OUT(open_vqgan(t, &v, &info, err));
    size_t pixels = (size_t)info.side * (size_t)info.side,
           n = (size_t)info.grid * (size_t)info.grid;
    HG_TRY_OUT(hg_image_init(&im, info.side, info.side, err));
    rgb = get(t, "rgb", 3, pixels, err);
    HG_TRY_OUT(rgb ? HG_STATUS_OK : HG_STATUS_BAD_FILE);
    memcpy(im.rgb, rgb, 3 * pixels);
    codes = calloc(n, sizeof *codes);
    HG_TRY_OUT(codes ? HG_STATUS_OK : HG_STATUS_NO_MEMORY);
    HG_TRY_OUT(hg_vqgan_encode(v, &im, codes, err));
    HG_TRY_OUT(put(t, codes, sizeof *codes, n, err));
out:
    free(rgb);
    free(codes);
    hg_image_deinit(&im);
    hg_vqgan_free(v);
    return status;
}

/* ---- */

static enum hg_status run_job(json_t *j, struct hg_error *err)
{
    static const struct {
        const char *kind;
        enum hg_status (*run)(struct job *, struct hg_error *);
    } kinds[] = {{"llm", run_llm},
                 {"vision", run_vision},
                 {"projector", run_projector},
                 {"decode", run_decode},
                 {"encode", run_encode}};
    struct job t = {.j = j};
    const char *kind = text(&t, "kind", "");
    enum hg_status status = HG_STATUS_BAD_REQUEST;
    t.out = fopen(text(&t, "out", ""), "wb");
    if (!t.out)
        return hg_fail(err, HG_STATUS_INTERNAL, "%s: cannot be written", text(&t, "out", "out"));
    hg_fail(err, status, "kind \"%.20s\" is unknown", kind);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kind, kinds[i].kind) == 0)
            status = kinds[i].run(&t, err);
    hg_weights_free(t.w);
    hg_backend_close(t.b);
    if (fclose(t.out) != 0 && status == HG_STATUS_OK)
        status = hg_fail(err, HG_STATUS_INTERNAL, "%s: cannot be written", text(&t, "out", "out"));
    return status;
}

int main(int argc, char **argv)
{
    struct hg_error err = {0};
    json_error_t e;
    json_t *jobs = argc == 2 ? json_load_file(argv[1], 0, &e) : NULL, *j;
    enum hg_status status = HG_STATUS_OK;
    size_t i;
    if (!json_is_array(jobs)) {
        fprintf(stderr, "usage: forward JOBS.json, a list of jobs\n");
        json_decref(jobs);
        return 64;
    }
    json_array_foreach(jobs, i, j)
    {
        status = run_job(j, &err);
        if (status == HG_STATUS_OK)
            continue;
        fprintf(stderr, "forward: job %zu: %s: %s\n", i, hg_status_text(status), err.text);
        break;
    }
    json_decref(jobs);
    return hg_status_exit_code(status);
}
