#include "tests/kernels/linear_case.h"

#include <math.h>

static void *own(struct kt_linear *l, void *p)
{
    assert_non_null(p);
    assert_true(l->n_owned < 64);
    l->owned[l->n_owned++] = p;
    return p;
}

static struct hg_host_tensor tensor(struct kt_linear *l, size_t n, uint64_t *seed, float scale)
{
    float *x = kt_random(n, kt_next(seed), scale);
    struct hg_host_tensor t = {.data = own(l, kt_encode(x, n, l->c.host)), .type = l->c.host};
    free(x);
    return t;
}

static void make_part(struct kt_linear *l, int p, uint64_t *seed)
{
    const struct kt_linear_case *c = &l->c;
    struct hg_weight_part *part = &l->desc.parts[p];
    size_t k = (size_t)c->n_in, n = (size_t)c->n_out[p];
    float scale = 1 / sqrtf((float)c->n_in);
    part->n_out = c->n_out[p];
    part->w = tensor(l, n * k, seed, scale);
    if (c->bias)
        part->bias = tensor(l, n, seed, 0.3f);
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        struct hg_adapter *a = &part->adapters[s];
        size_t rank = (size_t)c->rank[p][s];
        if (!rank)
            continue;
        a->rank = c->rank[p][s];
        a->n_experts = c->n_experts;
        a->scaling = 8;
        a->a = tensor(l, rank * k, seed, scale);
        a->b = tensor(l, n * rank, seed, 0.2f);
        a->route = tensor(l, (size_t)c->n_experts * k, seed, 2 * scale);
    }
}

static enum hg_dtype plugin_type(const struct kt_linear_case *c)
{
    if (c->plugin)
        return (enum hg_dtype)(c->plugin - 1);
    return hg_dtype_is_quantised(c->store) ? HG_DTYPE_BF16 : c->store;
}

void kt_linear_init(struct kt_linear *l, const struct kt_linear_case *c, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    l->c = *c;
    for (int p = 0; p < c->n_parts; p++)
        l->n_out += c->n_out[p];
    l->y_dim = c->epilogue == HG_EPILOGUE_SWIGLU ? l->n_out / 2 : l->n_out;
    snprintf(l->label, sizeof l->label,
             "rows %d K %d N %d parts %d ranks %d/%d/%d/%d E %d host %s store %s plug-in %s%s%s "
             "epilogue %d",
             c->n_rows, c->n_in, l->n_out, c->n_parts, c->rank[0][0], c->rank[0][1], c->rank[0][2],
             c->rank[0][3], c->n_experts, hg_dtype_name(c->host), hg_dtype_name(c->store),
             hg_dtype_name(plugin_type(c)), c->bias ? " bias" : "", c->norm ? " norm" : "",
             (int)c->epilogue);
    l->desc.name = l->label;
    l->desc.n_in = c->n_in;
    l->desc.n_parts = c->n_parts;
    l->desc.store = c->store;
    l->desc.plugin = c->plugin;
    l->desc.pair = c->epilogue == HG_EPILOGUE_SWIGLU ? l->n_out : 0;
    for (int p = 0; p < c->n_parts; p++)
        make_part(l, p, &seed);
    size_t rows = (size_t)c->n_rows;
    l->x = own(l, kt_random(rows * (size_t)c->n_in, kt_next(&seed), 1));
    l->norm = own(l, kt_random((size_t)c->n_in, kt_next(&seed), 0.7f));
    l->residual = own(l, kt_random(rows * (size_t)l->n_out, kt_next(&seed), 1));
    l->slot = own(l, calloc(rows, sizeof *l->slot));
    for (int i = 0; i < c->n_rows; i++)
        l->slot[i] = i % (HG_MAX_PLUGINS + 1) - 1;
}

void kt_linear_deinit(struct kt_linear *l)
{
    for (int i = 0; i < l->n_owned; i++)
        free(l->owned[i]);
}

/* Rows of [?, dim] spread to a pitch of dim + pad; the gap holds NaN, which nobody may read. */
static void *spread(struct hg_backend *b, const float *x, const int *rows, int n, int dim, int pad)
{
    size_t pitch = (size_t)(dim + pad);
    float *to = malloc((size_t)n * pitch * sizeof *to);
    assert_non_null(to);
    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t j = 0; j < pitch; j++) {
            size_t row = rows ? (size_t)rows[i] : i;
            to[i * pitch + j] = j < (size_t)dim ? x[row * (size_t)dim + j] : NAN;
        }
    void *dev = kt_upload_act(b, to, (size_t)n * pitch);
    free(to);
    return dev;
}

void kt_linear_run(const struct kt_linear *l, struct hg_backend *b, const int *rows, int n,
                   float *y)
{
    const struct hg_backend_ops *ops = b->ops;
    const struct kt_linear_case *c = &l->c;
    struct hg_error err = {0};
    struct hg_weight *w = NULL;
    HG_TEST_OK(ops->weight_create(b, &l->desc, &w, &err), err);
    int32_t *slot = calloc((size_t)n, sizeof *slot);
    assert_non_null(slot);
    int n_prompt = 0;
    for (int i = 0; i < n; i++) {
        int row = rows ? rows[i] : i;
        slot[i] = l->slot[row];
        n_prompt += row >= c->n_rows - c->n_prompt;
    }
    size_t pitch = (size_t)(l->y_dim + c->pad);
    bool residual = c->epilogue == HG_EPILOGUE_RESIDUAL;
    void *x = spread(b, l->x, rows, n, c->n_in, c->pad);
    void *r = residual ? spread(b, l->residual, rows, n, l->n_out, c->pad) : NULL;
    void *dev = residual && c->pad ? r : kt_alloc_act(b, (size_t)n * pitch); /* also in place */
    void *norm = kt_upload(b, l->norm, (size_t)c->n_in * sizeof(float));
    struct hg_linear_args a = {
        .w = w,
        .n_rows = n,
        .n_prompt = n_prompt,
        .x = x,
        .ldx = c->n_in + c->pad,
        .norm = c->norm ? norm : NULL,
        .norm_eps = 1e-5f,
        .slot = slot,
        .epilogue = c->epilogue,
        .residual = r,
        .ld_residual = l->n_out + c->pad,
        .y = dev,
        .ldy = (int64_t)pitch,
    };
    assert_int_equal(ops->linear(b, &a), HG_STATUS_OK);
    for (size_t i = 0; i < (size_t)n; i++)
        kt_download_act(b, y + i * (size_t)l->y_dim, hg_act_at(b, dev, (int64_t)(i * pitch)),
                        (size_t)l->y_dim);
    ops->free(b, norm);
    if (dev != r)
        ops->free(b, dev);
    ops->free(b, r);
    ops->free(b, x);
    free(slot);
    ops->weight_free(b, w);
}

/* Host tensor element as the file holds it. */
static float element(const struct hg_host_tensor *t, size_t i)
{
    uint16_t h = t->type == HG_DTYPE_F32 ? 0 : ((const uint16_t *)t->data)[i];
    if (t->type == HG_DTYPE_F32)
        return ((const float *)t->data)[i];
    int e_bits = t->type == HG_DTYPE_F16 ? 5 : 8, m_bits = 15 - e_bits;
    int e = (h >> m_bits) & ((1 << e_bits) - 1), m = h & ((1 << m_bits) - 1);
    int bias = (1 << (e_bits - 1)) - 1;
    double v = e ? ldexp((1 << m_bits) + m, e - bias - m_bits) : ldexp(m, 1 - bias - m_bits);
    return (float)(h & 0x8000 ? -v : v);
}

static double row_dot(const struct hg_host_tensor *t, size_t row, enum hg_dtype store,
                      const float *x, int n)
{
    float *w = malloc((size_t)n * sizeof *w);
    assert_non_null(w);
    for (int i = 0; i < n; i++)
        w[i] = element(t, row * (size_t)n + (size_t)i);
    double sum = kt_dot(store, w, x, n);
    free(w);
    return sum;
}

static void adapter_formula(const struct hg_adapter *a, enum hg_dtype type, const float *x, int k,
                            int n_out, double *y)
{
    double gate[16], sum = 0;
    float z[512];
    for (int e = 0; e < a->n_experts; e++) {
        gate[e] = exp(row_dot(&a->route, (size_t)e, type, x, k)); /* small logits: no max needed */
        sum += gate[e];
    }
    for (int j = 0; j < a->rank; j++) {
        double g = gate[j * a->n_experts / a->rank] / sum;
        z[j] = (float)(g * a->scaling * row_dot(&a->a, (size_t)j, type, x, k));
    }
    for (int i = 0; i < n_out; i++)
        y[i] += row_dot(&a->b, (size_t)i, type, z, a->rank);
}

static void norm_formula(const struct kt_linear *l, const float *x, float *y)
{
    double square = 0;
    for (int i = 0; i < l->c.n_in; i++)
        square += (double)x[i] * x[i];
    double root = sqrt(square / l->c.n_in + 1e-5f);
    for (int i = 0; i < l->c.n_in; i++)
        y[i] = l->c.norm ? (float)(x[i] / root * l->norm[i]) : x[i];
}

static double activate(enum hg_epilogue e, double v, double up, double residual)
{
    switch (e) {
    case HG_EPILOGUE_RESIDUAL:
        return v + residual;
    case HG_EPILOGUE_SWIGLU:
        return v / (1 + exp(-v)) * up;
    case HG_EPILOGUE_QUICK_GELU:
        return v / (1 + exp(-1.702 * v));
    case HG_EPILOGUE_GELU:
        return v * 0.5 * erfc(-v / sqrt(2));
    default:
        return v;
    }
}

void kt_linear_formula(const struct kt_linear *l, float *y)
{
    size_t k = (size_t)l->c.n_in, n = (size_t)l->n_out;
    float *x = malloc(k * sizeof *x);
    double *v = calloc(n, sizeof *v);
    assert_non_null(x);
    assert_non_null(v);
    for (size_t r = 0; r < (size_t)l->c.n_rows; r++) {
        norm_formula(l, l->x + r * k, x);
        double *part_y = v;
        for (int p = 0; p < l->c.n_parts; p++) {
            const struct hg_weight_part *part = &l->desc.parts[p];
            for (size_t i = 0; i < (size_t)part->n_out; i++)
                part_y[i] = row_dot(&part->w, i, l->c.store, x, l->c.n_in) +
                            (l->c.bias ? element(&part->bias, i) : 0);
            int slot = l->slot[r];
            if (slot >= 0 && part->adapters[slot].rank)
                adapter_formula(&part->adapters[slot], plugin_type(&l->c), x, l->c.n_in,
                                part->n_out, part_y);
            part_y += part->n_out;
        }
        for (size_t i = 0; i < (size_t)l->y_dim; i++)
            y[r * (size_t)l->y_dim + i] =
                (float)activate(l->c.epilogue, v[i], v[(i + n / 2) % n], l->residual[r * n + i]);
    }
    free(x);
    free(v);
}

/* Why these numbers (peak = largest |y| of the case, about 3 standard deviations of y):
 * F32, F16  products and sums in fp32: an error of about sqrt(K) * 2^-24 of |w||x| per output; with
 *           K <= 4096 that is below 4e-6 of the peak, plus 1e-6 for fp32 exp/erf: 2e-5.
 * BF16      the same, unless an fp32 and a double norm (or gated A x) fall on two sides of a bf16
 *           rounding point: then one product changes by 2^-8 of itself. One flip per row, the
 *           largest product being a third of the peak at the smallest K: 3e-3.
 * I8        the same with one step of 1/127 of the largest |x|, against a sum of K products. The
 * peak grows with sqrt(K), the step does not: a third of the peak / 127 * 2 flips: 6e-3. Without
 *           norm and adapters the quantised inputs are equal and integer sums are exact: 2e-6.
 * F8        as F16: weights are equal numbers, activations fp32; beside adapters as BF16.
 * I8 adapters beside any weight: as I8 with a norm, for z is never equal to the last bit.
 * I4        as I8 with a step of 1/127 of the largest |x| of a group, which is smaller; up to 32
 *           groups are added in fp32, 2^-24 of the peak each: 2e-6 holds. */
double kt_linear_bound(const struct kt_linear_case *c)
{
    bool adapted = false;
    for (int p = 0; p < c->n_parts; p++)
        for (int s = 0; s < HG_MAX_PLUGINS; s++)
            adapted = adapted || c->rank[p][s] > 0;
    if (adapted && plugin_type(c) == HG_DTYPE_I8)
        return 6e-3;
    if (adapted && plugin_type(c) == HG_DTYPE_BF16 && c->store < HG_DTYPE_BF16)
        return 3e-3;
    if (c->store == HG_DTYPE_I8 || c->store == HG_DTYPE_I4)
        return c->norm ? 6e-3 : adapted ? 3e-3 : 2e-6;
    if (c->store == HG_DTYPE_F8)
        return adapted ? 3e-3 : 2e-5;
    return c->store == HG_DTYPE_BF16 && (c->norm || adapted) ? 3e-3 : 2e-5;
}

static void check(const struct kt_targets *ts, const struct kt_linear_case *c, uint64_t seed,
                  bool formula)
{
    struct kt_linear l;
    kt_linear_init(&l, c, seed);
    size_t n = (size_t)c->n_rows * (size_t)l.y_dim;
    float *want = malloc(n * sizeof *want), *ref = malloc(n * sizeof *ref);
    float *got = malloc(n * sizeof *got);
    kt_linear_run(&l, ts->at[0].b, NULL, c->n_rows, ref);
    if (formula) {
        kt_linear_formula(&l, want);
        kt_compare(l.label, "ref against the formula", ref, want, n, kt_linear_bound(c) / 10);
    }
    static const int prompts[] = {0, 1, 2}; /* no row, the second half, all */
    for (int i = 1; i < ts->n; i++)
        for (int k = 0; k < 3; k++) {
            if (!formula && (uint64_t)k != seed % 3) /* a sweep takes them in turns */
                continue;
            l.c.n_prompt = c->n_rows * prompts[k] / 2;
            kt_linear_run(&l, ts->at[i].b, NULL, c->n_rows, got);
            kt_compare(l.label, ts->at[i].name, got, ref, n, kt_linear_bound(c));
        }
    free(want);
    free(ref);
    free(got);
    kt_linear_deinit(&l);
}

void kt_linear_check(const struct kt_targets *ts, const struct kt_linear_case *c, uint64_t seed)
{
    check(ts, c, seed, true);
}

void kt_linear_check_ref(const struct kt_targets *ts, const struct kt_linear_case *c, uint64_t seed)
{
    check(ts, c, seed, false);
}
