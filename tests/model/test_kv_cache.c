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

static bool contains(const int32_t *blocks, int n, int32_t block)
{
    for (int i = 0; i < n; i++)
        if (blocks[i] == block)
            return true;
    return false;
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
    for (int i = 0; i < 5; i++)
        assert_true(contains(zeroed, 5, mine[i]));
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

/* ---- what blocks hold ------------------------------------------------------------------------ */

static struct hg_hash128 key_of(uint64_t i)
{
    return (struct hg_hash128){i * 0x9e3779b97f4a7c15u, ~i};
}

static struct hg_kv_text text_of(uint64_t before, uint64_t i)
{
    struct hg_kv_text t = {.before = key_of(before)};
    for (int k = 0; k < HG_BLOCK_TOKENS; k++)
        t.word[k] = i * 100 + (uint64_t)k;
    return t;
}

static struct hg_backend *open_cache(struct hg_backend_ops *ops, int n_blocks)
{
    struct hg_backend_limits limits = {.max_rows = 8, .max_in = 64, .max_out = 64};
    struct hg_kv_desc desc = {
        .n_layers = 1, .n_kv_heads = 1, .head_dim = 4, .n_blocks = n_blocks, .type = HG_DTYPE_F32};
    struct hg_backend *b = tiny_backend("ref", &limits);
    struct hg_error err = {0};
    real_ops = b->ops;
    *ops = *real_ops;
    ops->kv_zero = watch_zero;
    b->ops = ops;
    n_zeroed = 0;
    zero_fails = false;
    HG_TEST_OK(hg_kv_cache_init(&cache, b, &desc, &err), err);
    return b;
}

static void close_cache(struct hg_backend *b)
{
    hg_kv_cache_deinit(&cache);
    b->ops = real_ops;
    hg_backend_close(b);
}

static void published_blocks_are_found_again_with_their_content(void **state)
{
    struct hg_backend_ops ops;
    struct hg_error err = {0};
    struct hg_kv_text one = text_of(0, 1), other = text_of(0, 2), elsewhere = text_of(7, 1);
    int32_t mine[2], again;
    (void)state;
    struct hg_backend *b = open_cache(&ops, 4);
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 2, mine, &err), err);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(1), &one), -1);
    hg_kv_cache_publish(&cache, mine[0], key_of(1), &one);
    again = hg_kv_cache_find(&cache, key_of(1), &one); /* shared while its maker runs */
    assert_int_equal(again, mine[0]);
    /* the same key with other tokens, or after another beginning: a collision is not a hit */
    assert_int_equal(hg_kv_cache_find(&cache, key_of(1), &other), -1);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(1), &elsewhere), -1);
    /* a second block with the content stays without a key */
    hg_kv_cache_publish(&cache, mine[1], key_of(1), &one);
    hg_kv_cache_release(&cache, mine, 2);
    assert_int_equal(n_zeroed, 1);
    assert_int_equal(zeroed[0], mine[1]);
    assert_int_equal(atomic_load(&cache.n_free), 3); /* the sharer still owns the first */
    hg_kv_cache_release(&cache, &again, 1);
    assert_int_equal(n_zeroed, 1); /* kept, not zeroed */
    assert_int_equal(atomic_load(&cache.n_free), 4);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(1), &one), again);
    hg_kv_cache_suspect(&cache, &again, 1);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(1), &one), -1);
    hg_kv_cache_release(&cache, &again, 1);
    assert_int_equal(n_zeroed, 2);
    assert_int_equal(atomic_load(&cache.n_free), 3); /* a suspect waits for a probe */
    assert_int_equal(atomic_load(&cache.n_quarantine), 1);
    close_cache(b);
}

static void kept_blocks_make_room_the_longest_unused_first(void **state)
{
    struct hg_backend_ops ops;
    struct hg_error err = {0};
    int32_t blocks[4], taken[3], got;
    (void)state;
    struct hg_backend *b = open_cache(&ops, 4);
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 4, blocks, &err), err);
    for (uint64_t i = 0; i < 4; i++) {
        struct hg_kv_text t = text_of(i, i + 1);
        hg_kv_cache_publish(&cache, blocks[i], key_of(i + 1), &t);
    }
    hg_kv_cache_release(&cache, blocks, 4);
    struct hg_kv_text first = text_of(0, 1), second = text_of(1, 2), last = text_of(3, 4);
    /* used again, so not the oldest any more */
    got = hg_kv_cache_find(&cache, key_of(4), &last);
    hg_kv_cache_release(&cache, &got, 1);
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 1, taken, &err), err);
    assert_int_equal(taken[0], blocks[2]); /* of a chain the end goes first */
    assert_int_equal(n_zeroed, 1);
    HG_TEST_OK(hg_kv_cache_acquire(&cache, 1, taken + 1, &err), err);
    assert_int_equal(taken[1], blocks[1]);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(2), &second), -1);
    got = hg_kv_cache_find(&cache, key_of(1), &first);
    assert_int_equal(got, blocks[0]);
    HG_TEST_FAILS(hg_kv_cache_acquire(&cache, 2, taken, &err), HG_STATUS_BUSY, err,
                  "2 blocks needed, 1 of 4 free");
    hg_kv_cache_forget(&cache);
    assert_int_equal(hg_kv_cache_find(&cache, key_of(4), &last), -1);
    assert_int_equal(n_zeroed, 3);
    close_cache(b);
}

/* Random use of a small pool by owners that remember what they hold; the last two are probes. A
 * suspect comes back to other owners only after a probe was right. */
static void no_block_is_ever_lost_or_handed_out_twice(void **state)
{
    enum { BLOCKS = 13, OWNERS = 6, MOST = 4, TURNS = 20000 };
    static int32_t held[OWNERS][MOST];
    int n_held[OWNERS] = {0}, n_tried = 0;
    bool suspect[BLOCKS] = {0};
    struct hg_backend_ops ops;
    struct hg_error err = {0};
    uint64_t seed = 1;
    (void)state;
    struct hg_backend *b = open_cache(&ops, BLOCKS);
    for (int turn = 0; turn < TURNS; turn++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int who = (int)(seed >> 33) % OWNERS, what = (int)(seed >> 40) % 6;
        bool probe = who >= OWNERS - 2;
        uint64_t content = seed >> 45 & 15;
        struct hg_kv_text text = text_of(content, content);
        n_zeroed = 0;
        if (what == 0 && n_held[who] == 0) {
            int n = 1 + (int)(seed >> 50) % MOST;
            if ((probe ? hg_kv_cache_acquire_probe : hg_kv_cache_acquire)(&cache, n, held[who],
                                                                          &err) == HG_STATUS_OK)
                n_held[who] = n;
            for (int i = 0; i < n_held[who]; i++)
                assert_true(probe || !suspect[held[who][i]]);
        } else if (what == 1 && n_held[who] < MOST && !probe) {
            int32_t found = hg_kv_cache_find(&cache, key_of(content), &text);
            assert_true(found < 0 || !suspect[found]);
            if (found >= 0)
                held[who][n_held[who]++] = found;
        } else if (what == 2 && n_held[who] > 0) {
            hg_kv_cache_publish(&cache, held[who][0], key_of(content), &text);
        } else if (what == 3) {
            hg_kv_cache_release(&cache, held[who], n_held[who]);
            n_held[who] = 0;
        } else if (what == 4 && !probe && seed >> 50 & 1) {
            hg_kv_cache_suspect(&cache, held[who], n_held[who]);
            for (int i = 0; i < n_held[who]; i++)
                suspect[held[who][i]] = true;
        } else if (what == 5 && probe) {
            hg_kv_cache_trust(&cache, held[who], n_held[who]);
            for (int i = 0; i < n_held[who]; i++) {
                n_tried += suspect[held[who][i]];
                suspect[held[who][i]] = false;
            }
        }
        int n_used = 0, owners[BLOCKS] = {0};
        for (int o = 0; o < OWNERS; o++)
            for (int i = 0; i < n_held[o]; i++)
                n_used += owners[held[o][i]]++ == 0;
        assert_int_equal(atomic_load(&cache.n_free) + atomic_load(&cache.n_quarantine),
                         BLOCKS - n_used);
    }
    assert_true(n_tried > 100);
    for (int o = 0; o < OWNERS; o++)
        hg_kv_cache_release(&cache, held[o], n_held[o]);
    hg_kv_cache_trust_all(&cache);
    assert_int_equal(atomic_load(&cache.n_free), BLOCKS);
    close_cache(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_blocks_are_zeroed_before_they_are_free),
        cmocka_unit_test(published_blocks_are_found_again_with_their_content),
        cmocka_unit_test(kept_blocks_make_room_the_longest_unused_first),
        cmocka_unit_test(no_block_is_ever_lost_or_handed_out_twice),
        cmocka_unit_test(blocks_for_positions_round_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
