/* tests/model/test_feature_cache.c - slots of pictures: found again, shared, dropped after a fault.
 */
#include "model/feature_cache.h"

#include "tests/test.h"

static const struct hg_hash128 a = {1, 1}, b = {2, 2}, c = {3, 3};

static int fill(struct hg_feature_cache *cache, struct hg_hash128 key)
{
    int slot = hg_feature_cache_acquire(cache, key, false);
    assert_true(slot >= 0);
    assert_false(hg_feature_cache_is_complete(cache, slot));
    hg_feature_cache_complete(cache, slot);
    return slot;
}

static void a_dropped_picture_is_not_found_and_its_slot_goes_first(void **state)
{
    (void)state;
    struct hg_feature_cache cache;
    struct hg_error err = {0};
    HG_TEST_OK(hg_feature_cache_init(&cache, 2, &err), err);
    int first = fill(&cache, a), second = fill(&cache, b);
    hg_feature_cache_release(&cache, first);
    hg_feature_cache_release(&cache, second);
    hg_feature_cache_drop(&cache, b); /* the one that was used last */
    assert_int_equal(fill(&cache, c), second);
    assert_int_equal(hg_feature_cache_acquire(&cache, a, false), first);
    assert_true(hg_feature_cache_is_complete(&cache, first));
    hg_feature_cache_deinit(&cache);
}

static void owners_keep_a_dropped_picture_others_get_their_own(void **state)
{
    (void)state;
    struct hg_feature_cache cache;
    struct hg_error err = {0};
    HG_TEST_OK(hg_feature_cache_init(&cache, 2, &err), err);
    int mine = fill(&cache, a);
    hg_feature_cache_drop(&cache, a);
    assert_int_equal(hg_feature_cache_n_owned(&cache), 1);
    assert_true(hg_feature_cache_is_complete(&cache, mine));
    assert_int_not_equal(fill(&cache, a), mine);
    hg_feature_cache_deinit(&cache);
}

/* Two that want a picture own one slot; when the first leaves before it is filled, the other fills
 * it; when both have left, nothing is found, and the slot is the next to go. */
static void a_slot_to_be_filled_is_shared_until_its_last_owner_leaves(void **state)
{
    (void)state;
    struct hg_feature_cache cache;
    struct hg_error err = {0};
    HG_TEST_OK(hg_feature_cache_init(&cache, 2, &err), err);
    int kept = fill(&cache, b);
    hg_feature_cache_release(&cache, kept);
    int slot = hg_feature_cache_acquire(&cache, a, false);
    assert_int_equal(hg_feature_cache_acquire(&cache, a, false), slot);
    assert_int_equal(hg_feature_cache_n_owned(&cache), 1);
    hg_feature_cache_release(&cache, slot);
    assert_false(hg_feature_cache_is_complete(&cache, slot));
    hg_feature_cache_complete(&cache, slot); /* by the second */
    assert_int_equal(hg_feature_cache_acquire(&cache, a, false), slot);
    hg_feature_cache_release(&cache, slot);
    hg_feature_cache_release(&cache, slot);
    assert_int_equal(hg_feature_cache_acquire(&cache, b, false), kept); /* both are kept */
    hg_feature_cache_drop(&cache, a);
    slot = hg_feature_cache_acquire(&cache, c, false);
    hg_feature_cache_release(&cache, slot); /* never filled */
    hg_feature_cache_release(&cache, kept);
    assert_int_equal(fill(&cache, c), slot);
    hg_feature_cache_deinit(&cache);
}

static void who_is_apart_finds_nothing_and_is_not_found(void **state)
{
    (void)state;
    struct hg_feature_cache cache;
    struct hg_error err = {0};
    HG_TEST_OK(hg_feature_cache_init(&cache, 3, &err), err);
    int shared = fill(&cache, a), own = hg_feature_cache_acquire(&cache, a, true);
    assert_int_not_equal(own, shared);
    assert_false(hg_feature_cache_is_complete(&cache, own));
    hg_feature_cache_complete(&cache, own);
    hg_feature_cache_release(&cache, shared);
    hg_feature_cache_drop(&cache, a);
    assert_int_not_equal(fill(&cache, a), own);
    hg_feature_cache_release(&cache, own);
    assert_int_not_equal(hg_feature_cache_acquire(&cache, a, false), own);
    hg_feature_cache_deinit(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dropped_picture_is_not_found_and_its_slot_goes_first),
        cmocka_unit_test(a_slot_to_be_filled_is_shared_until_its_last_owner_leaves),
        cmocka_unit_test(who_is_apart_finds_nothing_and_is_not_found),
        cmocka_unit_test(owners_keep_a_dropped_picture_others_get_their_own),
    };
    return cmocka_run_group_tests_name("model/feature_cache", tests, NULL, NULL);
}
