/* model/load/pickle_vm.c - nodes, stack, marks, memo and input of the pickle machine. */
#include "model/load/pickle_vm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_NODE HG_PICKLE_NO_NODE

enum hg_status hg_vm_bad(struct hg_pickle_vm *v, const char *format, ...)
{
    char text[128];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hg_fail(v->err, HG_STATUS_BAD_FILE, "%s: pickle byte %zu: %s", v->name, v->op_pos, text);
    return HG_STATUS_BAD_FILE;
}

void *hg_vm_grow(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    size_t want = *cap ? *cap * 2 : 256;
    void *p = realloc(array, want * size);
    if (p)
        *cap = want;
    return p;
}

enum hg_status hg_vm_no_memory(struct hg_pickle_vm *v)
{
    return hg_fail(v->err, HG_STATUS_NO_MEMORY, "%s: out of memory", v->name);
}

enum hg_status hg_vm_node_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, uint32_t *out)
{
    struct hg_pickle *p = v->p;
    struct hg_pickle_node *nodes = hg_vm_grow(p->nodes, p->n_nodes, &p->cap_nodes, sizeof *nodes);
    if (!nodes)
        return hg_vm_no_memory(v);
    p->nodes = nodes;
    nodes[p->n_nodes] = (struct hg_pickle_node){.kind = kind};
    *out = (uint32_t)p->n_nodes++;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_item_add(struct hg_pickle_vm *v, uint32_t container, uint32_t item)
{
    struct hg_pickle *p = v->p;
    if (p->n_cells >= HG_VM_MAX_CELLS)
        return hg_vm_bad(v, "more than %d items", HG_VM_MAX_CELLS);
    struct hg_pickle_cell *cells = hg_vm_grow(p->cells, p->n_cells, &p->cap_cells, sizeof *cells);
    if (!cells)
        return hg_vm_no_memory(v);
    p->cells = cells;
    uint32_t cell = (uint32_t)p->n_cells++;
    cells[cell] = (struct hg_pickle_cell){item, NO_NODE};
    struct hg_pickle_node *c = &p->nodes[container];
    if (c->u.items.n++)
        cells[c->u.items.last].next = cell;
    else
        c->u.items.first = cell;
    c->u.items.last = cell;
    return HG_STATUS_OK;
}

int64_t hg_pickle_items(const struct hg_pickle *p, uint32_t node, uint32_t *out, size_t cap)
{
    const struct hg_pickle_node *c = &p->nodes[node];
    if (c->kind != HG_PICKLE_TUPLE && c->kind != HG_PICKLE_LIST)
        return -1;
    uint32_t cell = c->u.items.first;
    for (size_t i = 0; i < c->u.items.n && i < cap; i++, cell = p->cells[cell].next)
        out[i] = p->cells[cell].node;
    return c->u.items.n;
}

/* ---- stack and input ------------------------------------------------------------------ */

enum hg_status hg_vm_push(struct hg_pickle_vm *v, uint32_t node)
{
    if (v->n_stack >= HG_VM_MAX_STACK)
        return hg_vm_bad(v, "stack deeper than %d", HG_VM_MAX_STACK);
    v->stack[v->n_stack++] = node;
    return HG_STATUS_OK;
}

size_t hg_vm_floor(const struct hg_pickle_vm *v)
{
    return v->n_marks ? v->marks[v->n_marks - 1] : 0;
}

enum hg_status hg_vm_pop(struct hg_pickle_vm *v, uint32_t *node)
{
    if (v->n_stack <= hg_vm_floor(v))
        return hg_vm_bad(v, "stack is empty");
    *node = v->stack[--v->n_stack];
    return HG_STATUS_OK;
}

/* The node under the items above the topmost mark; the mark is gone afterwards, the items stand in
 * stack[*first .. n_stack). */
enum hg_status hg_vm_pop_mark(struct hg_pickle_vm *v, size_t *first)
{
    if (v->n_marks == 0)
        return hg_vm_bad(v, "no mark");
    *first = v->marks[--v->n_marks];
    return HG_STATUS_OK;
}

enum hg_status hg_vm_top(struct hg_pickle_vm *v, uint32_t *node)
{
    if (v->n_stack <= hg_vm_floor(v))
        return hg_vm_bad(v, "stack is empty");
    *node = v->stack[v->n_stack - 1];
    return HG_STATUS_OK;
}

enum hg_status hg_vm_take(struct hg_pickle_vm *v, uint64_t n, const unsigned char **out)
{
    if (n > v->n - v->pos)
        return hg_vm_bad(v, "%llu bytes wanted, %zu left", (unsigned long long)n, v->n - v->pos);
    *out = v->data + v->pos;
    v->pos += (size_t)n;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_take_line(struct hg_pickle_vm *v, const char **s, size_t *n)
{
    const unsigned char *at = v->data + v->pos;
    const unsigned char *end = v->n > v->pos ? memchr(at, '\n', v->n - v->pos) : NULL;
    if (!end)
        return hg_vm_bad(v, "line without end");
    *s = (const char *)at;
    *n = (size_t)(end - at);
    v->pos += *n + 1;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_take_uint(struct hg_pickle_vm *v, int bytes, uint64_t *out)
{
    const unsigned char *b = v->data;
    HG_TRY(hg_vm_take(v, (uint64_t)bytes, &b));
    *out = 0;
    for (int i = bytes - 1; i >= 0; i--)
        *out = *out << 8 | b[i];
    return HG_STATUS_OK;
}

enum hg_status hg_vm_push_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, uint32_t *out)
{
    HG_TRY(hg_vm_node_new(v, kind, out));
    return hg_vm_push(v, *out);
}

enum hg_status hg_vm_push_int(struct hg_pickle_vm *v, enum hg_pickle_kind kind, int64_t value)
{
    uint32_t node = NO_NODE;
    HG_TRY(hg_vm_push_new(v, kind, &node));
    v->p->nodes[node].u.integer = value;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_text_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, const char *s,
                              size_t n, uint32_t *out)
{
    HG_TRY(hg_vm_node_new(v, kind, out));
    v->p->nodes[*out].u.text.s = s;
    v->p->nodes[*out].u.text.n = n;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_memo_put(struct hg_pickle_vm *v, uint64_t key)
{
    uint32_t node = NO_NODE;
    HG_TRY(hg_vm_top(v, &node));
    if (key >= HG_VM_MAX_MEMO)
        return hg_vm_bad(v, "memo entry %llu, at most %d", (unsigned long long)key, HG_VM_MAX_MEMO);
    while (key >= v->cap_memo) {
        size_t old = v->cap_memo;
        uint32_t *memo = hg_vm_grow(v->memo, old, &v->cap_memo, sizeof *memo);
        if (!memo)
            return hg_vm_no_memory(v);
        v->memo = memo;
        memset(memo + old, 0xff, (v->cap_memo - old) * sizeof *memo);
    }
    v->n_memo += v->memo[key] == NO_NODE;
    v->memo[key] = node;
    return HG_STATUS_OK;
}

enum hg_status hg_vm_memo_get(struct hg_pickle_vm *v, uint64_t key)
{
    if (key >= v->cap_memo || v->memo[key] == NO_NODE)
        return hg_vm_bad(v, "memo entry %llu was never stored", (unsigned long long)key);
    return hg_vm_push(v, v->memo[key]);
}
