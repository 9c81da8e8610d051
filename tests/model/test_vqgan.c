/* tests/model/test_vqgan.c - the codec against PyTorch in double precision (tests/golden/vqgan,
 * made by tools/oracle/vqgan_oracle.py), the published architecture, and what loading refuses. */
#include "tests/test.h"

#include <math.h>

#include "model/preprocess.h"
#include "model/vqgan.h"
#include "model/vqgan_net.h"
#include "tests/model/tiny_file.h"
#include "tests/parity/tiny_model.h"

/* NETS of the oracle, and the published network. */
struct shape {
    const char *name;
    int ch, n_levels, mult[4], blocks, attn_level, z, codes, groups, grid;
    bool plain;
};

static const struct shape gumbel = {"gumbel", 32, 2, {1, 2}, 1, 1, 16, 64, 8, 8, false};
static const struct shape plain = {"plain", 16, 3, {1, 1, 2}, 2, -1, 8, 32, 4, 4, true};
static const struct shape published = {"published", 128,  4,  {1, 1, 2, 4}, 2,    3,
                                       256,         8192, 32, 32,           false};

enum { MAX_SIDE = 16, MAX_CODES = 64 };

static int side_of(const struct shape *s)
{
    return s->grid << (s->n_levels - 1);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static void add_res(struct tiny_file *f, const char *name, int n_in, int n_out)
{
    char module[96];
    for (int i = 1; i <= 2; i++) {
        snprintf(module, sizeof module, "%s.norm%d", name, i);
        tiny_file_add_norm(f, module, i == 1 ? n_in : n_out);
        snprintf(module, sizeof module, "%s.conv%d", name, i);
        tiny_file_add_conv(f, module, n_out, i == 1 ? n_in : n_out, 3);
    }
    snprintf(module, sizeof module, "%s.nin_shortcut", name);
    if (n_in != n_out)
        tiny_file_add_conv(f, module, n_out, n_in, 1);
}

static void add_attn(struct tiny_file *f, const char *name, int c)
{
    static const char *const convs[] = {"q", "k", "v", "proj_out"};
    char module[96];
    snprintf(module, sizeof module, "%s.norm", name);
    tiny_file_add_norm(f, module, c);
    for (int i = 0; i < 4; i++) {
        snprintf(module, sizeof module, "%s.%s", name, convs[i]);
        tiny_file_add_conv(f, module, c, c, 1);
    }
}

static int add_level(struct tiny_file *f, const struct shape *s, const char *half, int level,
                     int width)
{
    char name[96];
    bool down = strcmp(half, "encoder.down") == 0;
    int out = s->ch * s->mult[level];
    for (int i = 0; i < s->blocks + (down ? 0 : 1); i++, width = out) {
        snprintf(name, sizeof name, "%s.%d.block.%d", half, level, i);
        add_res(f, name, width, out);
        snprintf(name, sizeof name, "%s.%d.attn.%d", half, level, i);
        if (level == s->attn_level)
            add_attn(f, name, out);
    }
    snprintf(name, sizeof name, "%s.%d.%s.conv", half, level, down ? "downsample" : "upsample");
    if (level != (down ? s->n_levels - 1 : 0))
        tiny_file_add_conv(f, name, out, out, 3);
    return out;
}

static void add_mid(struct tiny_file *f, const char *half, int c)
{
    char name[96];
    snprintf(name, sizeof name, "%s.mid.block_1", half);
    add_res(f, name, c, c);
    snprintf(name, sizeof name, "%s.mid.attn_1", half);
    add_attn(f, name, c);
    snprintf(name, sizeof name, "%s.mid.block_2", half);
    add_res(f, name, c, c);
}

static void add_encoder(struct tiny_file *f, const struct shape *s)
{
    int width = s->ch;
    tiny_file_add_conv(f, "encoder.conv_in", width, 3, 3);
    for (int i = 0; i < s->n_levels; i++)
        width = add_level(f, s, "encoder.down", i, width);
    add_mid(f, "encoder", width);
    tiny_file_add_norm(f, "encoder.norm_out", width);
    tiny_file_add_conv(f, "encoder.conv_out", s->z, width, 3);
}

static void add_decoder(struct tiny_file *f, const struct shape *s)
{
    int width = s->ch * s->mult[s->n_levels - 1];
    tiny_file_add_conv(f, "decoder.conv_in", width, s->z, 3);
    add_mid(f, "decoder", width);
    for (int i = s->n_levels - 1; i >= 0; i--)
        width = add_level(f, s, "decoder.up", i, width);
    tiny_file_add_norm(f, "decoder.norm_out", width);
    tiny_file_add_conv(f, "decoder.conv_out", 3, width, 3);
}

static void network(struct tiny_file *f, const struct shape *s, bool with_encoder)
{
    *f = (struct tiny_file){.hollow = s == &published};
    if (with_encoder)
        add_encoder(f, s);
    add_decoder(f, s);
    tiny_file_add_conv(f, "quant_conv", s->z, s->z, 1);
    tiny_file_add_conv(f, "post_quant_conv", s->z, s->z, 1);
    tiny_file_add(f, s->plain ? "quantize.embedding.weight" : "quantize.embed.weight", 2,
                  (int64_t[]){s->codes, s->z});
    if (!s->plain)
        tiny_file_add_conv(f, "quantize.proj", s->codes, s->z, 1);
    tiny_file_add(f, "loss.discriminator.main.0.weight", 4, (int64_t[]){2, 3, 4, 4});
}

/* ---- a loaded network on a backend --------------------------------------------------------------
 */

struct rig {
    struct hg_backend *b;
    struct hg_weights *w;
    struct hg_vqgan *v;
};

/* Takes w. */
static bool rig_load(struct rig *r, struct hg_weights *w, const struct shape *s,
                     const char *backend)
{
    struct hg_backend_limits limits = {0};
    struct hg_error err;
    r->w = w;
    HG_TEST_OK(hg_vqgan_limits(r->w, s->grid, &limits, &err), err);
    r->b = tiny_backend(backend, &limits);
    if (!r->b) {
        hg_weights_free(r->w);
        return false;
    }
    HG_TEST_OK(hg_vqgan_load(r->b, r->w, s->grid, s->groups, &r->v, &err), err);
    HG_TEST_OK(hg_weights_check_all_used(r->w, &err), err);
    return true;
}

static bool rig_open(struct rig *r, const struct tiny_file *f, const struct shape *s,
                     const char *backend)
{
    return rig_load(r, tiny_file_open(f), s, backend);
}

static void rig_close(struct rig *r)
{
    hg_vqgan_free(r->v);
    hg_weights_free(r->w);
    hg_backend_close(r->b);
}

static void some_codes(const struct shape *s, int32_t *codes)
{
    float u[MAX_CODES];
    size_t n = (size_t)s->grid * (size_t)s->grid;
    tiny_fill("codes", n, s->codes / 2.0, s->codes / 2.0, u);
    for (size_t i = 0; i < n; i++)
        codes[i] = (int32_t)u[i];
}

static void some_picture(const struct shape *s, struct hg_image *im)
{
    struct hg_error err;
    float u[MAX_SIDE * MAX_SIDE * 3];
    int side = side_of(s);
    size_t n = (size_t)side * (size_t)side * 3;
    HG_TEST_OK(hg_image_init(im, side, side, &err), err);
    tiny_fill("picture", n, 128, 128, u);
    for (size_t i = 0; i < n; i++)
        im->rgb[i] = (uint8_t)u[i];
}

static const char *golden_path(const struct shape *s)
{
    static char path[96];
    snprintf(path, sizeof path, "tests/golden/vqgan/%s.safetensors", s->name);
    return path;
}

/* ---- against PyTorch --------------------------------------------------------------------------
 */

/* `levels` are PyTorch's samples before the cut to uint8. fp32 errors are near 1e-4 levels, so a
 * sample may only differ by one level, and only where the cut is that near. */
static void check_pixels(const struct shape *s, const struct hg_image *im, const char *backend)
{
    size_t n = (size_t)im->width * (size_t)im->height * 3;
    float *levels = tiny_golden_tensor(golden_path(s), "levels", n);
    int off = 0;
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double want = levels[i], got = im->rgb[i];
        off += got != floor(want);
        worst = fmax(worst, fabs(got - floor(want)));
        if (want < got - 2e-3 || want >= got + 1 + 2e-3)
            fail_msg("%s on %s: sample %zu is %g, PyTorch has %.4f", s->name, backend, i, got,
                     want);
    }
    printf("%s on %s: %d of %zu samples differ, by at most %g level\n", s->name, backend, off, n,
           worst);
    free(levels);
}

static void pixels_equal_those_of_pytorch(void **state)
{
    (void)state;
    static const struct shape *const shapes[] = {&gumbel, &plain};
    static struct tiny_file f;
    for (int i = 0; i < 4; i++) {
        const struct shape *s = shapes[i / 2];
        struct rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[MAX_CODES];
        network(&f, s, i % 2 == 0);
        if (rig_open(&r, &f, s, tiny_backends[i % 2])) {
            some_codes(s, codes);
            HG_TEST_OK(hg_vqgan_decode(r.v, codes, &im, &err), err);
            assert_int_equal(im.width, side_of(s));
            check_pixels(s, &im, r.b->ops->name);
            hg_image_deinit(&im);
            rig_close(&r);
        }
        tiny_file_deinit(&f);
    }
}

static void codes_equal_those_of_pytorch(void **state)
{
    (void)state;
    static const struct shape *const shapes[] = {&gumbel, &plain};
    static struct tiny_file f;
    for (int i = 0; i < 4; i++) {
        const struct shape *s = shapes[i / 2];
        struct rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[MAX_CODES];
        network(&f, s, true);
        if (rig_open(&r, &f, s, tiny_backends[i % 2])) {
            size_t n = (size_t)s->grid * (size_t)s->grid;
            float *want = tiny_golden_tensor(golden_path(s), "codes", n);
            some_picture(s, &im);
            HG_TEST_OK(hg_vqgan_encode(r.v, &im, codes, &err), err);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(codes[k], (int)want[k]);
            printf("%s on %s: %zu codes equal\n", s->name, r.b->ops->name, n);
            free(want);
            hg_image_deinit(&im);
            rig_close(&r);
        }
        tiny_file_deinit(&f);
    }
}

static void the_same_codes_give_the_same_bytes(void **state)
{
    (void)state;
    static struct tiny_file f;
    network(&f, &gumbel, true);
    for (int i = 0; i < 2; i++) {
        struct rig r;
        struct hg_image first, second, in;
        struct hg_error err;
        int32_t codes[MAX_CODES], other[MAX_CODES];
        if (!rig_open(&r, &f, &gumbel, tiny_backends[i]))
            continue;
        some_codes(&gumbel, codes);
        some_picture(&gumbel, &in);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &first, &err), err);
        HG_TEST_OK(hg_vqgan_encode(r.v, &in, other, &err), err);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &second, &err), err);
        assert_memory_equal(first.rgb, second.rgb, MAX_SIDE * MAX_SIDE * 3);
        hg_image_deinit(&in);
        hg_image_deinit(&second);
        hg_image_deinit(&first);
        rig_close(&r);
    }
    tiny_file_deinit(&f);
}

/* ---- the demo model ---------------------------------------------------------------------------
 */

static double psnr(const struct hg_image *a, const struct hg_image *b)
{
    double sum = 0, n = (double)a->width * a->height * 3;
    for (size_t i = 0; i < (size_t)n; i++)
        sum += pow((double)a->rgb[i] - b->rgb[i], 2);
    return 10 * log10(255 * 255 * n / sum);
}

/* A film from outside the training data, grey on black at the edges; the demo's own test pictures
 * reach 32 dB. */
static void the_demo_codec_keeps_a_chest_film(void **state)
{
    (void)state;
    const struct shape demo = {.grid = 8, .groups = 8};
    const char *path = hg_test_shared("data/images/cxr/ml-workgroup_0957ce54.png");
    struct hg_image film, small, back;
    struct hg_error err;
    struct rig r;
    int32_t codes[MAX_CODES];
    if (!path)
        HG_TEST_SKIP("data/images/cxr is not there");
    HG_TEST_OK(hg_image_read(path, &film, &err), err);
    HG_TEST_OK(hg_image_resize(&film, 64, 64, HG_RESAMPLE_LANCZOS, &small, &err), err);
    for (int i = 0; i < 2; i++) {
        struct hg_weights *w;
        HG_TEST_OK(hg_weights_create(&w, &err), err);
        HG_TEST_OK(hg_weights_add_file(w, hg_test_file("config/models/demo/vqgan/last.ckpt"), &err),
                   err);
        if (!rig_load(&r, w, &demo, tiny_backends[i]))
            continue;
        HG_TEST_OK(hg_vqgan_encode(r.v, &small, codes, &err), err);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &back, &err), err);
        printf("demo codec on %s: %.2f dB\n", r.b->ops->name, psnr(&small, &back));
        assert_true(psnr(&small, &back) > 20);
        hg_image_deinit(&back);
        rig_close(&r);
    }
    hg_image_deinit(&small);
    hg_image_deinit(&film);
}

/* ---- the architecture -------------------------------------------------------------------------
 */

static int64_t parameters(const struct hg_vqgan_chain *chain, const char *prefix)
{
    int64_t n = 0;
    for (int i = 0; i < chain->n_nodes; i++)
        for (int j = 0; j < chain->nodes[i].n_convs; j++) {
            const struct hg_vqgan_conv *c = &chain->nodes[i].convs[j];
            if (strncmp(chain->nodes[i].name, prefix, strlen(prefix)) != 0)
                continue;
            n += ((int64_t)c->kernel * c->kernel * c->n_in + 1) * c->n_out * c->n_parts;
            n += c->norm ? 2 * c->n_in : 0;
        }
    return n;
}

static double multiply_adds(const struct hg_vqgan_chain *chain)
{
    double n = 0;
    for (int i = 0; i < chain->n_nodes; i++) {
        const struct hg_vqgan_node *node = &chain->nodes[i];
        for (int j = 0; j < node->n_convs; j++) {
            const struct hg_vqgan_conv *c = &node->convs[j];
            double out = (double)c->side * c->upsample / c->stride;
            n += out * out * c->kernel * c->kernel * c->n_in * c->n_out * c->n_parts;
        }
        double rows = (double)node->convs[0].side * node->convs[0].side;
        if (node->kind == HG_VQGAN_ATTN)
            n += 2 * rows * rows * node->convs[0].n_out;
    }
    return n;
}

/* Parameter counts and cost are those of reference.md 10.4. */
static void the_published_architecture_follows_from_its_shapes(void **state)
{
    (void)state;
    static struct tiny_file f;
    static struct hg_vqgan_net net;
    struct hg_error err;
    struct hg_backend_limits limits = {0};
    network(&f, &published, true);
    struct hg_weights *w = tiny_file_open(&f);
    HG_TEST_OK(hg_vqgan_net_derive(w, 32, &net, &err), err);
    assert_int_equal(net.n_codes, 8192);
    assert_int_equal(net.side, 256);
    assert_int_equal(net.n_levels, 4);
    assert_true(net.has_encoder);
    assert_int_equal(parameters(&net.decoder, "decoder"), 38316163);
    assert_int_equal(parameters(&net.encoder, "encoder"), 26345728);
    assert_int_equal(parameters(&net.decoder, "post") + parameters(&net.encoder, "quant_"), 131584);
    printf("decoder: %d layers, %.1f GMAC\n", net.decoder.n_nodes,
           multiply_adds(&net.decoder) / 1e9);
    assert_true(fabs(multiply_adds(&net.decoder) - 156.1e9) < 0.3e9);
    assert_int_equal(hg_vqgan_net_activation(&net), 128 * 65536);
    HG_TEST_OK(hg_vqgan_limits(w, 32, &limits, &err), err);
    assert_int_equal(limits.max_in, 9 * 512);
    assert_int_equal(limits.max_out, 8192);
    assert_int_equal(limits.max_context, 1024);
    assert_int_equal(limits.max_conv, (int64_t)9 * 128 * 65536);
    hg_weights_free(w);
    tiny_file_deinit(&f);
}

static void info_reports_what_was_derived(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct rig r;
    struct hg_vqgan_info info;
    network(&f, &gumbel, true);
    assert_true(rig_open(&r, &f, &gumbel, "ref"));
    hg_vqgan_info(r.v, &info);
    assert_int_equal(info.n_codes, 64);
    assert_int_equal(info.grid, 8);
    assert_int_equal(info.side, 16);
    assert_true(info.has_encoder);
    size_t values = 0;
    for (int i = 0; i < f.n - 1; i++) /* all but loss.* */
        values += (size_t)f.t[i].dims[0] * (size_t)(f.t[i].n_dims > 1 ? f.t[i].dims[1] : 1) *
                  (size_t)(f.t[i].n_dims > 2 ? f.t[i].dims[2] * f.t[i].dims[3] : 1);
    assert_int_equal(info.weight_bytes, values * sizeof(float));
    assert_true(info.workspace_bytes >= 3 * 16 * 16 * 64 * sizeof(float));
    rig_close(&r);
    tiny_file_deinit(&f);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void without_an_encoder_pictures_can_only_be_drawn(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct rig r;
    struct hg_vqgan_info info;
    struct hg_image im;
    struct hg_error err;
    int32_t codes[MAX_CODES];
    network(&f, &gumbel, false);
    assert_true(rig_open(&r, &f, &gumbel, "ref"));
    hg_vqgan_info(r.v, &info);
    assert_false(info.has_encoder);
    some_picture(&gumbel, &im);
    HG_TEST_FAILS(hg_vqgan_encode(r.v, &im, codes, &err), HG_STATUS_UNSUPPORTED, err, "encoder");
    hg_image_deinit(&im);
    rig_close(&r);
    tiny_file_deinit(&f);
}

static void a_code_outside_the_codebook_is_refused(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct rig r;
    struct hg_image im, wrong;
    struct hg_error err;
    int32_t codes[MAX_CODES] = {0};
    network(&f, &gumbel, true);
    assert_true(rig_open(&r, &f, &gumbel, "ref"));
    codes[5] = 64;
    HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_BAD_REQUEST, err,
                  "image code 5: 64");
    codes[5] = -1;
    HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_BAD_REQUEST, err, "-1");
    assert_null(im.rgb);
    HG_TEST_OK(hg_image_init(&wrong, 16, 15, &err), err);
    HG_TEST_FAILS(hg_vqgan_encode(r.v, &wrong, codes, &err), HG_STATUS_BAD_IMAGE, err, "16 x 15");
    hg_image_deinit(&wrong);
    rig_close(&r);
    tiny_file_deinit(&f);
}

static void a_pixel_that_is_not_finite_is_an_error(void **state)
{
    (void)state;
    static struct tiny_file f;
    for (int i = 0; i < 2; i++) {
        struct rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[MAX_CODES] = {0};
        network(&f, &gumbel, true);
        tiny_file_find(&f, "decoder.conv_out.weight")->data[7] = NAN;
        if (rig_open(&r, &f, &gumbel, tiny_backends[i])) {
            HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_NUMERIC, err, "finite");
            assert_null(im.rgb);
            rig_close(&r);
        }
        tiny_file_deinit(&f);
    }
}

static void refuse(const struct tiny_file *f, int grid, int groups, const char *part)
{
    struct hg_backend_limits limits = {.max_in = 1024, .max_out = 256, .max_conv = 1 << 20};
    struct hg_vqgan *v;
    struct hg_error err;
    struct hg_weights *w = tiny_file_open(f);
    struct hg_backend *b = tiny_backend("ref", &limits);
    HG_TEST_FAILS(hg_vqgan_load(b, w, grid, groups, &v, &err), HG_STATUS_BAD_FILE, err, part);
    assert_null(v);
    hg_weights_free(w);
    hg_backend_close(b);
}

static void every_missing_tensor_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"decoder.conv_in.weight",
                                        "decoder.conv_in.bias",
                                        "decoder.mid.attn_1.k.weight",
                                        "decoder.mid.block_2.norm2.weight",
                                        "decoder.up.1.attn.1.q.weight",
                                        "decoder.up.0.block.0.nin_shortcut.weight",
                                        "decoder.up.1.upsample.conv.weight",
                                        "decoder.norm_out.bias",
                                        "decoder.conv_out.weight",
                                        "post_quant_conv.weight",
                                        "quantize.embed.weight",
                                        "quantize.proj.weight",
                                        "quant_conv.weight",
                                        "encoder.down.0.downsample.conv.weight",
                                        "encoder.mid.attn_1.proj_out.bias",
                                        "encoder.conv_out.weight"};
    static struct tiny_file f;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        network(&f, &gumbel, true);
        tiny_file_drop(&f, names[i]);
        refuse(&f, 8, 8, names[i]);
        tiny_file_deinit(&f);
    }
}

static void a_shape_that_breaks_the_chain_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int dim;
        int64_t value;
    } cases[] = {{"decoder.conv_in.weight", 1, 8},
                 {"decoder.up.1.block.0.conv1.weight", 1, 32},
                 {"decoder.up.1.block.1.conv2.weight", 0, 32},
                 {"decoder.mid.attn_1.q.weight", 1, 32},
                 {"decoder.conv_out.weight", 2, 1},
                 {"decoder.conv_out.weight", 0, 1},
                 {"decoder.norm_out.weight", 0, 16},
                 {"post_quant_conv.weight", 1, 8},
                 {"encoder.conv_in.weight", 1, 1},
                 {"encoder.mid.block_1.conv1.weight", 1, 32},
                 {"quant_conv.weight", 0, 8},
                 {"quantize.proj.weight", 0, 32}};
    static struct tiny_file f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        network(&f, &gumbel, true);
        tiny_file_find(&f, cases[i].name)->dims[cases[i].dim] = cases[i].value;
        refuse(&f, 8, 8, cases[i].name);
        tiny_file_deinit(&f);
    }
}

static void levels_grid_and_groups_must_fit(void **state)
{
    (void)state;
    static struct tiny_file f;
    network(&f, &gumbel, true);
    refuse(&f, 0, 8, "grid 0");
    refuse(&f, 4096, 8, "grid 4096");
    refuse(&f, 8, 7, "64 channels in 7 groups");
    refuse(&f, 8, 0, "0 norm groups");
    tiny_file_drop(&f, "encoder.down.1.block.0.conv1.weight");
    refuse(&f, 8, 8, "encoder.down has 1 levels, decoder.up 2");
    tiny_file_deinit(&f);
    network(&f, &gumbel, true);
    tiny_file_drop(&f, "decoder.up.0.block.0.conv1.weight");
    refuse(&f, 8, 8, "decoder.up has 0 levels");
    tiny_file_deinit(&f);
}

static void a_network_deeper_than_the_table_is_refused(void **state)
{
    (void)state;
    static const struct shape deep = {"deep", 8, 1, {1}, 130, -1, 4, 8, 4, 2, false};
    static struct tiny_file f;
    network(&f, &deep, false);
    refuse(&f, 2, 4, "decoder.up.0.block.123: more than 128 layers");
    tiny_file_deinit(&f);
}

static void surplus_layers_are_named(void **state)
{
    (void)state;
    static const char *const extra[] = {"decoder.up.2.block.0", "decoder.mid.block_3",
                                        "decoder.up.0.attn.1"};
    static struct tiny_file f;
    struct hg_backend_limits limits = {.max_in = 1024, .max_out = 256, .max_conv = 1 << 20};
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        struct hg_vqgan *v = NULL;
        struct hg_error err;
        network(&f, &gumbel, true);
        tiny_file_add_norm(&f, extra[i], 32);
        struct hg_weights *w = tiny_file_open(&f);
        struct hg_backend *b = tiny_backend("ref", &limits);
        HG_TEST_OK(hg_vqgan_load(b, w, 8, 8, &v, &err), err);
        HG_TEST_FAILS(hg_weights_check_all_used(w, &err), HG_STATUS_BAD_FILE, err, extra[i]);
        hg_vqgan_free(v);
        hg_weights_free(w);
        hg_backend_close(b);
        tiny_file_deinit(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_equal_those_of_pytorch),
        cmocka_unit_test(codes_equal_those_of_pytorch),
        cmocka_unit_test(the_same_codes_give_the_same_bytes),
        cmocka_unit_test(the_demo_codec_keeps_a_chest_film),
        cmocka_unit_test(the_published_architecture_follows_from_its_shapes),
        cmocka_unit_test(info_reports_what_was_derived),
        cmocka_unit_test(without_an_encoder_pictures_can_only_be_drawn),
        cmocka_unit_test(a_code_outside_the_codebook_is_refused),
        cmocka_unit_test(a_pixel_that_is_not_finite_is_an_error),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(a_shape_that_breaks_the_chain_is_named),
        cmocka_unit_test(levels_grid_and_groups_must_fit),
        cmocka_unit_test(a_network_deeper_than_the_table_is_refused),
        cmocka_unit_test(surplus_layers_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
