/* tests/model/vqgan_case.c - see vqgan_case.h. */
#include "tests/model/vqgan_case.h"

#include "tests/parity/tiny_model.h"
#include "tests/test.h"

const struct vq_shape vq_gumbel = {"gumbel", 32, 2, {1, 2}, 1, 1, 16, 64, 8, 8, false};
const struct vq_shape vq_plain = {"plain", 16, 3, {1, 1, 2}, 2, -1, 8, 32, 4, 4, true};
const struct vq_shape vq_published = {"published", 128,  4,  {1, 1, 2, 4}, 2,    3,
                                      256,         8192, 32, 32,           false};

int vq_side(const struct vq_shape *s)
{
    return s->grid << (s->n_levels - 1);
}

/* ---- tensors ---------------------------------------------------------------------------- */

static void add_res(struct tiny_file *f, const char *name, int n_in, int n_out)
{
    char module[128];
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
    char module[128];
    snprintf(module, sizeof module, "%s.norm", name);
    tiny_file_add_norm(f, module, c);
    for (int i = 0; i < 4; i++) {
        snprintf(module, sizeof module, "%s.%s", name, convs[i]);
        tiny_file_add_conv(f, module, c, c, 1);
    }
}

static int add_level(struct tiny_file *f, const struct vq_shape *s, const char *half, int level,
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

static void add_encoder(struct tiny_file *f, const struct vq_shape *s)
{
    int width = s->ch;
    tiny_file_add_conv(f, "encoder.conv_in", width, 3, 3);
    for (int i = 0; i < s->n_levels; i++)
        width = add_level(f, s, "encoder.down", i, width);
    add_mid(f, "encoder", width);
    tiny_file_add_norm(f, "encoder.norm_out", width);
    tiny_file_add_conv(f, "encoder.conv_out", s->z, width, 3);
}

static void add_decoder(struct tiny_file *f, const struct vq_shape *s)
{
    int width = s->ch * s->mult[s->n_levels - 1];
    tiny_file_add_conv(f, "decoder.conv_in", width, s->z, 3);
    add_mid(f, "decoder", width);
    for (int i = s->n_levels - 1; i >= 0; i--)
        width = add_level(f, s, "decoder.up", i, width);
    tiny_file_add_norm(f, "decoder.norm_out", width);
    tiny_file_add_conv(f, "decoder.conv_out", 3, width, 3);
}

void vq_network(struct tiny_file *f, const struct vq_shape *s, bool with_encoder)
{
    *f = (struct tiny_file){.hollow = s == &vq_published};
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

bool vq_load(struct vq_rig *r, struct hg_weights *w, const struct vq_shape *s, const char *backend)
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

bool vq_open(struct vq_rig *r, const struct tiny_file *f, const struct vq_shape *s,
             const char *backend)
{
    return vq_load(r, tiny_file_open(f), s, backend);
}

void vq_close(struct vq_rig *r)
{
    hg_vqgan_free(r->v);
    hg_weights_free(r->w);
    hg_backend_close(r->b);
}

void vq_codes(const struct vq_shape *s, int32_t *codes)
{
    float u[VQ_MAX_CODES];
    size_t n = (size_t)s->grid * (size_t)s->grid;
    tiny_fill("codes", n, s->codes / 2.0, s->codes / 2.0, u);
    for (size_t i = 0; i < n; i++)
        codes[i] = (int32_t)u[i];
}

void vq_picture(const struct vq_shape *s, struct hg_image *im)
{
    struct hg_error err;
    float u[VQ_MAX_SIDE * VQ_MAX_SIDE * 3];
    int side = vq_side(s);
    size_t n = (size_t)side * (size_t)side * 3;
    HG_TEST_OK(hg_image_init(im, side, side, &err), err);
    tiny_fill("picture", n, 128, 128, u);
    for (size_t i = 0; i < n; i++)
        im->rgb[i] = (uint8_t)u[i];
}
