/* tests/model/test_vqgan.c - the codec against PyTorch in double precision (tests/golden/vqgan,
 * made by tools/oracle/vqgan_oracle.py), and on the demo model. */
#include "tests/test.h"

#include <math.h>

#include "model/preprocess.h"
#include "tests/model/vqgan_case.h"

static const char *golden_path(const struct vq_shape *s)
{
    static char path[96];
    snprintf(path, sizeof path, "tests/golden/vqgan/%s.safetensors", s->name);
    return path;
}

/* ---- against PyTorch -------------------------------------------------------------------- */

/* `levels` are PyTorch's samples before the cut to uint8. fp32 errors are near 1e-4 levels, so a
 * sample may only differ by one level, and only where the cut is that near. */
static void check_pixels(const struct vq_shape *s, const struct hg_image *im, const char *backend)
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
    static const struct vq_shape *const shapes[] = {&vq_gumbel, &vq_plain};
    static struct tiny_file f;
    for (int i = 0; i < 4; i++) {
        const struct vq_shape *s = shapes[i / 2];
        struct vq_rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[VQ_MAX_CODES];
        vq_network(&f, s, i % 2 == 0);
        if (vq_open(&r, &f, s, tiny_backends[i % 2])) {
            vq_codes(s, codes);
            HG_TEST_OK(hg_vqgan_decode(r.v, codes, &im, &err), err);
            assert_int_equal(im.width, vq_side(s));
            check_pixels(s, &im, r.b->ops->name);
            hg_image_deinit(&im);
            vq_close(&r);
        }
        tiny_file_deinit(&f);
    }
}

static void codes_equal_those_of_pytorch(void **state)
{
    (void)state;
    static const struct vq_shape *const shapes[] = {&vq_gumbel, &vq_plain};
    static struct tiny_file f;
    for (int i = 0; i < 4; i++) {
        const struct vq_shape *s = shapes[i / 2];
        struct vq_rig r;
        struct hg_image im;
        struct hg_error err;
        int32_t codes[VQ_MAX_CODES];
        vq_network(&f, s, true);
        if (vq_open(&r, &f, s, tiny_backends[i % 2])) {
            size_t n = (size_t)s->grid * (size_t)s->grid;
            float *want = tiny_golden_tensor(golden_path(s), "codes", n);
            vq_picture(s, &im);
            HG_TEST_OK(hg_vqgan_encode(r.v, &im, codes, &err), err);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(codes[k], (int)want[k]);
            printf("%s on %s: %zu codes equal\n", s->name, r.b->ops->name, n);
            free(want);
            hg_image_deinit(&im);
            vq_close(&r);
        }
        tiny_file_deinit(&f);
    }
}

static void the_same_codes_give_the_same_bytes(void **state)
{
    (void)state;
    static struct tiny_file f;
    vq_network(&f, &vq_gumbel, true);
    for (int i = 0; i < 2; i++) {
        struct vq_rig r;
        struct hg_image first, second, in;
        struct hg_error err;
        int32_t codes[VQ_MAX_CODES], other[VQ_MAX_CODES];
        if (!vq_open(&r, &f, &vq_gumbel, tiny_backends[i]))
            continue;
        vq_codes(&vq_gumbel, codes);
        vq_picture(&vq_gumbel, &in);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &first, &err), err);
        HG_TEST_OK(hg_vqgan_encode(r.v, &in, other, &err), err);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &second, &err), err);
        assert_memory_equal(first.rgb, second.rgb, VQ_MAX_SIDE * VQ_MAX_SIDE * 3);
        hg_image_deinit(&in);
        hg_image_deinit(&second);
        hg_image_deinit(&first);
        vq_close(&r);
    }
    tiny_file_deinit(&f);
}

/* ---- the demo model --------------------------------------------------------------------- */

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
    const struct vq_shape demo = {.grid = 8, .groups = 8};
    const char *path = hg_test_shared("data/images/cxr/ml-workgroup_0957ce54.png");
    struct hg_image film, small, back;
    struct hg_error err;
    struct vq_rig r;
    int32_t codes[VQ_MAX_CODES];
    if (!path)
        HG_TEST_SKIP("data/images/cxr is not there");
    HG_TEST_OK(hg_image_read(path, &film, &err), err);
    HG_TEST_OK(hg_image_resize(&film, 64, 64, HG_RESAMPLE_LANCZOS, &small, &err), err);
    for (int i = 0; i < 2; i++) {
        struct hg_weights *w;
        HG_TEST_OK(hg_weights_create(&w, &err), err);
        HG_TEST_OK(hg_weights_add_file(w, hg_test_file("config/models/demo/vqgan/last.ckpt"), &err),
                   err);
        if (!vq_load(&r, w, &demo, tiny_backends[i]))
            continue;
        HG_TEST_OK(hg_vqgan_encode(r.v, &small, codes, &err), err);
        HG_TEST_OK(hg_vqgan_decode(r.v, codes, &back, &err), err);
        printf("demo codec on %s: %.2f dB\n", r.b->ops->name, psnr(&small, &back));
        assert_true(psnr(&small, &back) > 20);
        hg_image_deinit(&back);
        vq_close(&r);
    }
    hg_image_deinit(&small);
    hg_image_deinit(&film);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_equal_those_of_pytorch),
        cmocka_unit_test(codes_equal_those_of_pytorch),
        cmocka_unit_test(the_same_codes_give_the_same_bytes),
        cmocka_unit_test(the_demo_codec_keeps_a_chest_film),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
