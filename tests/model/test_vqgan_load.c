/* tests/model/test_vqgan_load.c - the architecture derived from shapes, and what is refused. */
#include "tests/test.h"

#include <math.h>

#include "model/vqgan_net.h"
#include "tests/model/vqgan_case.h"

/* ---- the architecture ------------------------------------------------------------------- */

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
    vq_network(&f, &vq_published, true);
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
    struct vq_rig r;
    struct hg_vqgan_info info;
    vq_network(&f, &vq_gumbel, true);
    assert_true(vq_open(&r, &f, &vq_gumbel, "ref"));
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
    vq_close(&r);
    tiny_file_deinit(&f);
}

/* ---- what the convolutions are asked for (reference.md 10.5) ----------------------------- */

static const struct hg_backend_ops *real_ops;
static int n_normed, n_swish;

static enum hg_status watch_conv(struct hg_backend *b, const struct hg_conv_args *a)
{
    if (a->norm_groups) {
        n_normed++;
        n_swish += a->swish;
        assert_true(a->norm_eps == 1e-6f);
        assert_int_equal(a->norm_groups, 8);
    } else {
        assert_false(a->swish);
    }
    assert_int_equal(a->pad_hi, a->kernel == 3);
    assert_int_equal(a->pad_lo, a->kernel == 3 && a->stride == 1);
    return real_ops->conv(b, a);
}

/* GroupNorm with eps 1e-6 before every 3x3 convolution of a block and before the last one, swish
 * behind it except in attention. The eps is too small for the goldens to notice. */
static void norms_have_eps_1e_6_and_swish_outside_attention(void **state)
{
    (void)state;
    static struct tiny_file f;
    static int32_t codes[64];
    struct hg_backend_ops ops;
    struct vq_rig r;
    struct hg_image im;
    struct hg_error err;
    vq_network(&f, &vq_gumbel, true);
    assert_true(vq_open(&r, &f, &vq_gumbel, "ref"));
    real_ops = r.b->ops;
    ops = *real_ops;
    ops.conv = watch_conv;
    r.b->ops = &ops;
    HG_TEST_OK(hg_vqgan_decode(r.v, codes, &im, &err), err);
    HG_TEST_OK(hg_vqgan_encode(r.v, &im, codes, &err), err);
    r.b->ops = real_ops;
    printf("%d normalised convolutions, %d of them with swish\n", n_normed, n_swish);
    assert_true(n_swish > 20 && n_normed > n_swish);
    hg_image_deinit(&im);
    vq_close(&r);
    tiny_file_deinit(&f);
}

/* ---- refusals --------------------------------------------------------------------------- */

static void without_an_encoder_pictures_can_only_be_drawn(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct vq_rig r;
    struct hg_vqgan_info info;
    struct hg_image im;
    struct hg_error err;
    int32_t codes[VQ_MAX_CODES];
    vq_network(&f, &vq_gumbel, false);
    assert_true(vq_open(&r, &f, &vq_gumbel, "ref"));
    hg_vqgan_info(r.v, &info);
    assert_false(info.has_encoder);
    vq_picture(&vq_gumbel, &im);
    HG_TEST_FAILS(hg_vqgan_encode(r.v, &im, codes, &err), HG_STATUS_UNSUPPORTED, err, "encoder");
    hg_image_deinit(&im);
    vq_close(&r);
    tiny_file_deinit(&f);
}

static void a_code_outside_the_codebook_is_refused(void **state)
{
    (void)state;
    static struct tiny_file f;
    struct vq_rig r;
    struct hg_image im, wrong;
    struct hg_error err;
    int32_t codes[VQ_MAX_CODES] = {0};
    vq_network(&f, &vq_gumbel, true);
    assert_true(vq_open(&r, &f, &vq_gumbel, "ref"));
    codes[5] = 64;
    HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_BAD_REQUEST, err,
                  "image code 5: 64");
    codes[5] = -1;
    HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_BAD_REQUEST, err, "-1");
    assert_null(im.rgb);
    HG_TEST_OK(hg_image_init(&wrong, 16, 15, &err), err);
    HG_TEST_FAILS(hg_vqgan_encode(r.v, &wrong, codes, &err), HG_STATUS_BAD_IMAGE, err, "16 x 15");
    hg_image_deinit(&wrong);
    vq_close(&r);
    tiny_file_deinit(&f);
}

static void a_pixel_that_is_not_finite_is_an_error(void **state)
{
    (void)state;
    static struct tiny_file f;
    for (int i = 0; i < 2; i++) {
        struct vq_rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[VQ_MAX_CODES] = {0};
        vq_network(&f, &vq_gumbel, true);
        tiny_file_find(&f, "decoder.conv_out.weight")->data[7] = NAN;
        if (vq_open(&r, &f, &vq_gumbel, tiny_backends[i])) {
            HG_TEST_FAILS(hg_vqgan_decode(r.v, codes, &im, &err), HG_STATUS_NUMERIC, err, "finite");
            assert_null(im.rgb);
            vq_close(&r);
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
        vq_network(&f, &vq_gumbel, true);
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
        vq_network(&f, &vq_gumbel, true);
        tiny_file_find(&f, cases[i].name)->dims[cases[i].dim] = cases[i].value;
        refuse(&f, 8, 8, cases[i].name);
        tiny_file_deinit(&f);
    }
}

static void levels_grid_and_groups_must_fit(void **state)
{
    (void)state;
    static struct tiny_file f;
    vq_network(&f, &vq_gumbel, true);
    refuse(&f, 0, 8, "grid 0");
    refuse(&f, 4096, 8, "grid 4096");
    refuse(&f, 8, 7, "64 channels in 7 groups");
    refuse(&f, 8, 0, "0 norm groups");
    tiny_file_drop(&f, "encoder.down.1.block.0.conv1.weight");
    refuse(&f, 8, 8, "encoder.down has 1 levels, decoder.up 2");
    tiny_file_deinit(&f);
    vq_network(&f, &vq_gumbel, true);
    tiny_file_drop(&f, "decoder.up.0.block.0.conv1.weight");
    refuse(&f, 8, 8, "decoder.up has 0 levels");
    tiny_file_deinit(&f);
}

static void a_network_deeper_than_the_table_is_refused(void **state)
{
    (void)state;
    static const struct vq_shape deep = {"deep", 8, 1, {1}, 130, -1, 4, 8, 4, 2, false};
    static struct tiny_file f;
    vq_network(&f, &deep, false);
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
        vq_network(&f, &vq_gumbel, true);
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
        cmocka_unit_test(the_published_architecture_follows_from_its_shapes),
        cmocka_unit_test(info_reports_what_was_derived),
        cmocka_unit_test(norms_have_eps_1e_6_and_swish_outside_attention),
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
