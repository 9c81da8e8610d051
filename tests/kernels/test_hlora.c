/* H-LoRA adapters (reference.md 6): gate per token, ragged ranks, mixed slots, stacked parts. */
#include <math.h>

#include "tests/kernels/linear_case.h"

/* Slots cycle through -1, 0, 1, 2, 3, so every batch mixes ranks 64, 256, 0 and an odd one. */
static void mixed_slots_of_ragged_ranks_match_the_formula(void **state)
{
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear_case c = {.n_rows = 11,
                                   .n_in = 96,
                                   .n_parts = 1,
                                   .n_out = {70},
                                   .rank = {{64, 256, 0, 12}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_BF16,
                                   .store = kt_stores[t]};
        kt_linear_check(*state, &c, t);
        c.norm = true;
        c.n_rows = 1;
        c.n_in = 131;
        kt_linear_check(*state, &c, 10 + t);
    }
}

/* Rows so long that a warp's eighth fills whatever ring it reads weights through, for 1, 2, 3 and 9
 * tokens: each count has its own way of preparing rows. */
static void long_rows_fill_the_rings(void **state)
{
    static const int rows[] = {1, 2, 3, 9};
    for (size_t t = 0; t < KT_STORES; t++)
        for (size_t i = 0; i < 4; i++) {
            struct kt_linear_case c = {.n_rows = rows[i],
                                       .n_in = 4090,
                                       .n_parts = 1,
                                       .n_out = {40},
                                       .rank = {{16, 32, 0, 12}},
                                       .n_experts = 4,
                                       .host = HG_DTYPE_BF16,
                                       .store = kt_stores[t],
                                       .norm = i % 2 == 0};
            kt_linear_check(*state, &c, 300 + t * 4 + i);
        }
}

static void one_two_and_three_parts_keep_their_own_adapters(void **state)
{
    for (int parts = 1; parts <= 3; parts++)
        for (size_t t = 0; t < KT_STORES; t++) {
            struct kt_linear_case c = {.n_rows = 7,
                                       .n_in = 50,
                                       .n_parts = parts,
                                       .n_out = {24, 10, 13},
                                       .rank = {{8, 4, 0, 20}, {0, 16, 8, 20}, {12, 0, 0, 4}},
                                       .n_experts = 4,
                                       .host = HG_DTYPE_F16,
                                       .store = kt_stores[t],
                                       .bias = parts == 2,
                                       .norm = parts == 3};
            kt_linear_check(*state, &c, 20 + (size_t)parts * 4 + t);
        }
}

static void any_number_of_experts_divides_the_rank(void **state)
{
    static const int experts[] = {1, 2, 3, 8};
    for (size_t e = 0; e < 4; e++) {
        int r = experts[e];
        struct kt_linear_case c = {.n_rows = 6,
                                   .n_in = 33,
                                   .n_parts = 1,
                                   .n_out = {9},
                                   .rank = {{r, 2 * r, 3 * r, 5 * r}},
                                   .n_experts = r,
                                   .host = HG_DTYPE_F32,
                                   .store = kt_stores[e]};
        kt_linear_check(*state, &c, 40 + e);
    }
}

static void adapters_meet_every_epilogue(void **state)
{
    for (int e = HG_EPILOGUE_NONE; e <= HG_EPILOGUE_GELU; e++) {
        struct kt_linear_case c = {.n_rows = 8,
                                   .n_in = 60,
                                   .n_parts = 2,
                                   .n_out = {26, 26},
                                   .rank = {{16, 8, 4, 0}, {16, 0, 4, 8}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_F32,
                                   .store = kt_stores[e % KT_STORES],
                                   .norm = e % 2 == 0,
                                   .epilogue = (enum hg_epilogue)e,
                                   .pad = e};
        kt_linear_check(*state, &c, 50 + (uint64_t)e);
    }
}

/* Many rows take other paths than few; the router of a slot must still see its own tokens only. */
static void long_prompts_keep_every_token_in_its_slot(void **state)
{
    static const int rows[] = {75, 210};
    for (size_t i = 0; i < 2; i++)
        for (size_t t = 0; t < KT_STORES; t++) {
            struct kt_linear_case c = {.n_rows = rows[i],
                                       .n_in = 80,
                                       .n_parts = 2,
                                       .n_out = {100, 180},
                                       .rank = {{64, 200, 0, 12}, {64, 0, 8, 12}},
                                       .n_experts = 4,
                                       .host = HG_DTYPE_BF16,
                                       .store = kt_stores[t],
                                       .bias = true,
                                       .norm = true};
            kt_linear_check(*state, &c, 80 + i * 4 + t);
        }
}

/* W = 0, A x = (1, 2, 3, 4), one rank row per expert, R x = (0, ln 2, ln 3, ln 4) so that the gate
 * is (0.1, 0.2, 0.3, 0.4); scaling 8; B sums: y = 8 * (0.1 + 0.4 + 0.9 + 1.6) = 24. For x = 2 *
 * that row the gate is (1, 4, 9, 16) / 30 and y = 8 * 2 * (1 + 8 + 27 + 64) / 30 = 160 / 3. */
static void gate_is_a_softmax_over_experts_for_every_token(void **state)
{
    struct kt_targets *ts = *state;
    static const float w[] = {0, 0}, b_up[] = {1, 1, 1, 1};
    static const float a_down[] = {1, 0, 2, 0, 3, 0, 4, 0};
    static const float route[] = {0, 0, 0.693147181f, 0, 1.098612289f, 0, 1.386294361f, 0};
    static const float x[] = {1, 5, 2, 5, 1, 5};
    static const float want[] = {24, 160.0f / 3, 0};
    static const int32_t slot[] = {1, 1, -1};
    struct hg_weight_desc d = {.name = "hand", .n_in = 2, .n_parts = 1, .store = HG_DTYPE_F32};
    d.parts[0].w = (struct hg_host_tensor){.data = w, .type = HG_DTYPE_F32};
    d.parts[0].n_out = 1;
    d.parts[0].adapters[1] = (struct hg_adapter){{.data = a_down, .type = HG_DTYPE_F32},
                                                 {.data = b_up, .type = HG_DTYPE_F32},
                                                 {.data = route, .type = HG_DTYPE_F32},
                                                 4,
                                                 4,
                                                 8};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        struct hg_weight *weight = NULL;
        float y[3];
        HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
        void *dx = kt_upload_act(b, x, 6), *dy = kt_alloc_act(b, 3);
        struct hg_linear_args a = {
            .w = weight, .n_rows = 3, .x = dx, .ldx = 2, .slot = slot, .y = dy, .ldy = 1};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, 3);
        kt_compare("hand-computed gate", ts->at[i].name, y, want, 3, 1e-6);
        a.slot = NULL; /* no plug-in at all */
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, 3);
        assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        b->ops->weight_free(b, weight);
    }
}

/* Router logits of +-2000 must not overflow the softmax. */
static void gate_survives_large_router_logits(void **state)
{
    struct kt_targets *ts = *state;
    struct kt_linear l;
    struct kt_linear_case c = {.n_rows = 10,
                               .n_in = 40,
                               .n_parts = 1,
                               .n_out = {12},
                               .rank = {{8, 8, 8, 8}},
                               .n_experts = 4,
                               .host = HG_DTYPE_F32,
                               .store = HG_DTYPE_F32};
    kt_linear_init(&l, &c, 77);
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        float *route = (float *)(uintptr_t)l.desc.parts[0].adapters[s].route.data;
        for (int i = 0; i < 4 * 40; i++)
            route[i] *= 1000;
    }
    float ref[120], got[120];
    for (int i = 0; i < ts->n; i++) {
        kt_linear_run(&l, ts->at[i].b, NULL, 10, i ? got : ref);
        for (int j = 0; j < 120; j++)
            assert_true(isfinite(i ? got[j] : ref[j]));
        /* fp32 logits of 2000 are known to 2^-13, which moves a gate by that share: 1e-3 */
        if (i)
            kt_compare("router logits of 2000", ts->at[i].name, got, ref, 120, 1e-3);
    }
    kt_linear_deinit(&l);
}

/* A random rank for every slot, absent ones among them, of a multiple of E. */
static void random_ranks(struct kt_linear_case *c, uint64_t *seed)
{
    static const int experts[] = {1, 2, 3, 4, 4, 4, 8};
    static const int most[] = {8, 16, 40, 64, 120, 256};
    int left = 440; /* kt_limits.max_rank less the routers */
    c->n_experts = experts[kt_below(seed, 7)];
    for (int p = 0; p < c->n_parts; p++)
        for (int s = 0; s < HG_MAX_PLUGINS; s++) {
            int rank = kt_below(seed, 4) ? 1 + kt_below(seed, most[kt_below(seed, 6)]) : 0;
            rank = (rank + c->n_experts - 1) / c->n_experts * c->n_experts;
            c->rank[p][s] = rank <= left ? rank : 0;
            left -= c->rank[p][s];
        }
}

/* Every number of rows up to 64 and some beyond, with ragged ranks in up to three parts. */
static void sweep_of_rows_and_ragged_ranks_matches_ref(void **state)
{
    static const int more_rows[] = {65, 80, 128, 130, 200, 256};
    static const int inputs[] = {8, 17, 33, 64, 72, 96, 127, 130, 200, 256, 385, 640};
    static const int outputs[] = {4, 8, 9, 17, 24, 32, 50, 64, 70, 96, 129, 180, 258};
    enum { N_TYPES = KT_STORES, ROUNDS = 5 };
    size_t n_rows = 64 + sizeof more_rows / sizeof *more_rows;
    uint64_t seed = 2000;
    for (size_t i = 0; i < n_rows * N_TYPES * ROUNDS; i++) {
        uint64_t s = ++seed;
        int rows = (int)(i / (N_TYPES * ROUNDS)) + 1;
        struct kt_linear_case c = {.n_rows = rows > 64 ? more_rows[rows - 65] : rows,
                                   .n_in = inputs[kt_below(&s, 12)],
                                   .n_parts = 1 + kt_below(&s, 3),
                                   .host = HG_DTYPE_BF16,
                                   .store = kt_stores[i % N_TYPES],
                                   .bias = kt_below(&s, 2),
                                   .norm = kt_below(&s, 2),
                                   .epilogue = (enum hg_epilogue)kt_below(&s, HG_EPILOGUE_ROPE_KV)};
        if (c.epilogue == HG_EPILOGUE_SWIGLU)
            c.n_parts = 2;
        for (int p = 0; p < c.n_parts; p++)
            c.n_out[p] = outputs[c.epilogue == HG_EPILOGUE_SWIGLU && p ? 0 : kt_below(&s, 13)];
        if (c.epilogue == HG_EPILOGUE_SWIGLU)
            c.n_out[1] = c.n_out[0];
        random_ranks(&c, &s);
        if (kt_sweep(i, 80))
            kt_linear_check_ref(*state, &c, seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_slots_of_ragged_ranks_match_the_formula),
        cmocka_unit_test(long_rows_fill_the_rings),
        cmocka_unit_test(one_two_and_three_parts_keep_their_own_adapters),
        cmocka_unit_test(any_number_of_experts_divides_the_rank),
        cmocka_unit_test(adapters_meet_every_epilogue),
        cmocka_unit_test(long_prompts_keep_every_token_in_its_slot),
        cmocka_unit_test(gate_is_a_softmax_over_experts_for_every_token),
        cmocka_unit_test(gate_survives_large_router_logits),
        cmocka_unit_test(sweep_of_rows_and_ragged_ranks_matches_ref),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
