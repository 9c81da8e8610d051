/* tests/model/test_kv_cache.c - blocks: each belongs to one owner, and comes back zeroed. */
#include "model/kv_cache.h"

#include "tests/model/tiny_file.h"
#include "tests/test.h"

enum { N_BLOCKS = 8 };

static int32_t zeroed[32];
static int n_zeroed, n_free_at_zero;
static bool zero_fails;
static struct hg_kv_cache cache;
static const struct hg_backend_ops *real_ops;

static enum hg_status watch_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks,
                                 int n)
{
    n_free_at_zero = atomic_load(&cache.n_free);
    if (zero_fails)
        return HG_STATUS_DEVICE;
    for (int i = 0; i < n; i++)
        zeroed[n_zeroed++] = blocks[i];
    return real_ops->kv_zero(b, kv, blocks, n);
}

static void released_blocks_are_zeroed_before_they_are_free(void **state)
{
    (void)state;
    struct hg_backend_limits limits = {.max_rows = 8, .max_in = 64, .max_out = 64};
    struct hg_kv_desc desc = {
        .n_layers = 2, .n_kv_heads = 2, .head_dim = 16, .n_blocks = N_BLOCKS, .type = HG_DTYPE_F32};
    struct hg_backend *b = tiny_backend("ref", &limits);
    struct hg_backend_ops ops;
    struct hg_error err = {0};
    int32_t mine[5], yours[5];
    real_ops = b->ops;
    ops = *real_ops;
    ops.kv_zero = watch_zero;
    b->ops = &ops;
    HG_TEST_OK(hg_kv_cache_init(&cache, b, &desc, &err), err);
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 5, mine, &err), err);
    HG_TEST_FAILS(hg_kv_cache_acquire(&cache, 4, yours, &err), HG_STATUS_BUSY, err,
                  "4 blocks needed, 3 of 8 free");
    assert_int_equal(atomic_load(&cache.n_free), 3); /* a refusal takes nothing */
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 3, yours, &err), err);
    bool seen[N_BLOCKS] = {0};
    for (int i = 0; i < N_BLOCKS; i++) {
        int32_t block = i < 5 ? mine[i] : yours[i - 5];
        assert_in_range(block, 0, N_BLOCKS - 1);
        assert_false(seen[block]);
        seen[block] = true;
    }
    hg_kv_cache_release(&cache, mine, 5);
    assert_int_equal(n_free_at_zero, 0);
    assert_int_equal(n_zeroed, 5);
    assert_memory_equal(zeroed, mine, sizeof mine);
    assert_int_equal(atomic_load(&cache.n_free), 5);
    hg_kv_cache_release(&cache, mine, 0);
    assert_int_equal(n_zeroed, 5);
    zero_fails = true; /* what may still hold keys and values has no next owner */
    hg_kv_cache_release(&cache, yours, 3);
    assert_int_equal(atomic_load(&cache.n_free), 5);
    hg_kv_cache_deinit(&cache);
    b->ops = real_ops;
    hg_backend_close(b);
}

static void blocks_for_positions_round_up(void **state)
{
    (void)state;
    assert_int_equal(hg_kv_cache_blocks_for(0), 0);
    assert_int_equal(hg_kv_cache_blocks_for(1), 1);
    assert_int_equal(hg_kv_cache_blocks_for(HG_BLOCK_TOKENS), 1);
    assert_int_equal(hg_kv_cache_blocks_for(HG_BLOCK_TOKENS + 1), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_blocks_are_zeroed_before_they_are_free),
        cmocka_unit_test(blocks_for_positions_round_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
