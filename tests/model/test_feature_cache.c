/* tests/model/test_feature_cache.c - slots of pictures: found again, shared, dropped after a fault.
 */
#include "model/feature_cache.h"

#include "tests/test.h"

static const struct hg_hash128 a = {1, 1}, b = {2, 2}, c = {3, 3};

static int fill(struct hg_feature_cache *cache, struct hg_hash128 key)
{
    bool complete;
    int slot = hg_feature_cache_acquire(cache, key, &complete);
    assert_true(slot >= 0 && !complete);
    hg_feature_cache_complete(cache, slot);
    return slot;
}

static void a_dropped_picture_is_not_found_and_its_slot_goes_first(void **state)
{
    (void)state;
    struct hg_feature_cache cache;
    struct hg_error err = {0};
    bool complete;
    HG_TEST_OK(hg_feature_cache_init(&cache, 2, &err), err);
    int first = fill(&cache, a), second = fill(&cache, b);
    hg_feature_cache_release(&cache, first);
    hg_feature_cache_release(&cache, second);
    hg_feature_cache_drop(&cache, b); /* the one that was used last */
    assert_int_equal(fill(&cache, c), second);
    assert_int_equal(hg_feature_cache_acquire(&cache, a, &complete), first);
    assert_true(complete);
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
    assert_int_not_equal(fill(&cache, a), mine);
    hg_feature_cache_deinit(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dropped_picture_is_not_found_and_its_slot_goes_first),
        cmocka_unit_test(owners_keep_a_dropped_picture_others_get_their_own),
    };
    return cmocka_run_group_tests_name("model/feature_cache", tests, NULL, NULL);
}
