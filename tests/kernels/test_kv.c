/* The cache itself: refusals, zeroing of blocks. */
#include <math.h>

#include "tests/kernels/attention_case.h"

static void kv_create_refuses_wrong_types_and_sizes(void **state)
{
    struct kt_targets *ts = *state;
    static const struct hg_kv_desc wrong[] = {
        {1, 1, 1, 4, HG_DTYPE_COUNT},
        {0, 1, 1, 4, HG_DTYPE_F16},
        {1, -1, 1, 4, HG_DTYPE_F16},
        {1, 1, 1, 0, HG_DTYPE_F16},
        {1 << 30, 1 << 30, 1 << 20, 1 << 20, HG_DTYPE_F32},
    };
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            struct hg_error err = {0};
            struct hg_kv *kv = NULL;
            enum hg_status s = ts->at[i].b->ops->kv_create(ts->at[i].b, &wrong[k], &kv, &err);
            if (s == HG_STATUS_OK)
                fail_msg("%s accepts kv description %zu", ts->at[i].name, k);
            assert_true(err.text[0] != 0);
            assert_null(kv);
            ts->at[i].b->ops->kv_free(ts->at[i].b, kv);
        }
}

static void read_value(struct kt_cache *c, int layer, int32_t block, int entry, float *y)
{
    struct hg_backend *b = c->b;
    int32_t pos = entry, zero = 0, none = -1;
    struct hg_plan plan = {.n_tokens = 1,
                           .n_seqs = 1,
                           .max_blocks = 1,
                           .token = &zero,
                           .pos = &pos,
                           .seq = &zero,
                           .slot = &none,
                           .table = &zero,
                           .block_table = &block};
    void *q = kt_alloc_act(b, (size_t)c->head_dim), *dy = kt_alloc_act(b, (size_t)c->head_dim);
    struct hg_attention_args a = {&plan, c->kv, layer,          1, 1, c->head_dim,
                                  1,     1,     HG_ROUND_NEVER, q, dy};
    assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(b->ops->attention(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->step_end(b, NULL), HG_STATUS_OK);
    kt_download_act(b, y, dy, (size_t)c->head_dim);
    b->ops->free(b, q);
    b->ops->free(b, dy);
}

static void kv_zero_clears_the_named_blocks_in_every_layer_only(void **state)
{
    struct kt_targets *ts = *state;
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
    static const int32_t cleared[] = {3, 1};
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < 4; k++) {
            struct kt_cache c;
            kt_cache_open(&c, ts->at[i].b, 1, 1, 6, types[k], 2, 5, NULL);
            assert_int_equal(c.b->ops->kv_zero(c.b, c.kv, cleared, 2), HG_STATUS_OK);
            for (int layer = 0; layer < 2; layer++)
                for (int32_t block = 0; block < 5; block++)
                    for (int entry = 0; entry < HG_BLOCK_TOKENS; entry++) {
                        float y[6];
                        read_value(&c, layer, block, entry, y);
                        for (int j = 0; j < 6; j++)
                            assert_true(block % 2 ? y[j] == 0 : isnan(y[j]));
                    }
            kt_cache_close(&c);
        }
}

static void a_new_cache_holds_zeros(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < 2 * ts->n; i++) {
        struct hg_kv_desc d = {1, 2, 1, 6, i < ts->n ? HG_DTYPE_F16 : HG_DTYPE_I8};
        struct hg_error err = {0};
        struct kt_cache c = {.b = ts->at[i % ts->n].b, .head_dim = 6};
        float y[6];
        HG_TEST_OK(c.b->ops->kv_create(c.b, &d, &c.kv, &err), err);
        read_value(&c, 0, 1, 7, y);
        for (int j = 0; j < 6; j++)
            assert_true(y[j] == 0);
        c.b->ops->kv_free(c.b, c.kv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_create_refuses_wrong_types_and_sizes),
        cmocka_unit_test(kv_zero_clears_the_named_blocks_in_every_layer_only),
        cmocka_unit_test(a_new_cache_holds_zeros),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
