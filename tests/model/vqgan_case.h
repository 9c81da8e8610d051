/* tests/model/vqgan_case.h - the networks of the VQGAN tests: tensors, a backend, inputs. */
#ifndef HG_TESTS_MODEL_VQGAN_CASE_H
#define HG_TESTS_MODEL_VQGAN_CASE_H

#include "common/image_io.h"
#include "model/vqgan.h"
#include "tests/model/tiny_file.h"

struct vq_shape {
    const char *name;
    int ch, n_levels, mult[4], blocks, attn_level, z, codes, groups, grid;
    bool plain; /* VQModel layout */
};

/* NETS of tools/oracle/vqgan_oracle.py, and the published network (as a hollow file). */
extern const struct vq_shape vq_gumbel, vq_plain, vq_published;

enum { VQ_MAX_SIDE = 16, VQ_MAX_CODES = 64 }; /* of the small networks */

int vq_side(const struct vq_shape *s);
/* Every tensor of a checkpoint with this shape, and one of the training loss. */
void vq_network(struct tiny_file *f, const struct vq_shape *s, bool with_encoder);

struct vq_rig {
    struct hg_backend *b;
    struct hg_weights *w;
    struct hg_vqgan *v;
};

/* False when the backend is not there. vq_load takes w. */
bool vq_load(struct vq_rig *r, struct hg_weights *w, const struct vq_shape *s, const char *backend);
bool vq_open(struct vq_rig *r, const struct tiny_file *f, const struct vq_shape *s,
             const char *backend);
void vq_close(struct vq_rig *r);

/* The inputs of the oracle. */
void vq_codes(const struct vq_shape *s, int32_t *codes);
void vq_picture(const struct vq_shape *s, struct hg_image *im);

#endif
