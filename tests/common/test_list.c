#include "tests/test.h"

#include "common/list.h"

struct item {
    int value;
    struct hg_list node;
};

static void items_come_back_in_push_order(void **state)
{
    (void)state;
    struct hg_list head;
    struct item items[3];
    hg_list_init(&head);
    assert_true(hg_list_empty(&head));
    for (int i = 0; i < 3; i++) {
        items[i].value = i;
        hg_list_push_back(&head, &items[i].node);
    }
    int expected = 0;
    for (struct hg_list *n = head.next; n != &head; n = n->next)
        assert_int_equal(HG_LIST_ENTRY(n, struct item, node)->value, expected++);
    assert_int_equal(expected, 3);
}

static void removed_item_leaves_and_may_be_removed_again(void **state)
{
    (void)state;
    struct hg_list head;
    struct item items[3];
    hg_list_init(&head);
    for (int i = 0; i < 3; i++)
        hg_list_push_back(&head, &items[i].node);
    hg_list_remove(&items[1].node);
    hg_list_remove(&items[1].node);
    assert_ptr_equal(head.next, &items[0].node);
    assert_ptr_equal(items[0].node.next, &items[2].node);
    assert_ptr_equal(head.prev, &items[2].node);
    hg_list_remove(&items[0].node);
    hg_list_remove(&items[2].node);
    assert_true(hg_list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_back_in_push_order),
        cmocka_unit_test(removed_item_leaves_and_may_be_removed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
