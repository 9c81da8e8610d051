/* common/list.h - intrusive doubly linked list; the head is a node of its own. */
#ifndef HG_COMMON_LIST_H
#define HG_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct hg_list {
    struct hg_list *prev, *next;
};

static inline void hg_list_init(struct hg_list *l)
{
    l->prev = l->next = l;
}

static inline bool hg_list_empty(const struct hg_list *l)
{
    return l->next == l;
}

static inline void hg_list_push_back(struct hg_list *head, struct hg_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void hg_list_remove(struct hg_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    hg_list_init(node);
}

#define HG_LIST_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
