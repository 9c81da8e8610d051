/* model/load/pickle_vm.h - the machine shared by pickle_vm.c (stack, memo, input), pickle.c
 * (opcodes) and pickle_object.c (globals, persistent ids, REDUCE). Private to these three. */
#ifndef HG_MODEL_LOAD_PICKLE_VM_H
#define HG_MODEL_LOAD_PICKLE_VM_H

#include "model/load/pickle.h"

enum {
    HG_VM_MAX_OPS = 1000000,
    HG_VM_MAX_MEMO = 1000000,
    HG_VM_MAX_STACK = 10000,
    HG_VM_MAX_CELLS =
        2 * HG_VM_MAX_OPS, /* an opcode adds one item; OrderedDict(list) copies many */
};

struct hg_pickle_vm {
    struct hg_pickle *p;
    const char *name;
    const unsigned char *data;
    size_t n, pos;
    size_t op_pos; /* of the current opcode, for messages */
    uint32_t *stack;
    size_t n_stack;
    uint32_t *marks; /* stack heights */
    size_t n_marks;
    uint32_t *memo; /* NO_NODE: empty */
    size_t n_memo, cap_memo;
    struct hg_error *err;
    int done;
};

enum hg_status hg_vm_bad(struct hg_pickle_vm *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

enum hg_status hg_vm_no_memory(struct hg_pickle_vm *v);

/* Stack. A value below the topmost mark is out of reach. */
enum hg_status hg_vm_push(struct hg_pickle_vm *v, uint32_t node);
enum hg_status hg_vm_pop(struct hg_pickle_vm *v, uint32_t *node);
enum hg_status hg_vm_top(struct hg_pickle_vm *v, uint32_t *node);
size_t hg_vm_floor(const struct hg_pickle_vm *v); /* stack height of the topmost mark */
/* Take the topmost mark away; what stood above it is stack[*first .. n_stack). */
enum hg_status hg_vm_pop_mark(struct hg_pickle_vm *v, size_t *first);
enum hg_status hg_vm_push_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, uint32_t *out);
enum hg_status hg_vm_push_int(struct hg_pickle_vm *v, enum hg_pickle_kind kind, int64_t value);

/* Input: n bytes; a line without its end; a little-endian number of 1..8 bytes. */
enum hg_status hg_vm_take(struct hg_pickle_vm *v, uint64_t n, const unsigned char **out);
enum hg_status hg_vm_take_line(struct hg_pickle_vm *v, const char **s, size_t *n);
enum hg_status hg_vm_take_uint(struct hg_pickle_vm *v, int bytes, uint64_t *out);

/* Memo: store the top of the stack; push a stored node. */
enum hg_status hg_vm_memo_put(struct hg_pickle_vm *v, uint64_t key);
enum hg_status hg_vm_memo_get(struct hg_pickle_vm *v, uint64_t key);

enum hg_status hg_vm_text_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, const char *s,
                              size_t n, uint32_t *out);
/* New node of a kind, zeroed; its number goes to *out. */
enum hg_status hg_vm_node_new(struct hg_pickle_vm *v, enum hg_pickle_kind kind, uint32_t *out);
/* Append an item to a TUPLE, LIST or DICT node. */
enum hg_status hg_vm_item_add(struct hg_pickle_vm *v, uint32_t container, uint32_t item);
/* The first `cap` items of a TUPLE or LIST into out; returns how many it has, -1 for other kinds.
 */
int64_t hg_pickle_items(const struct hg_pickle *p, uint32_t node, uint32_t *out, size_t cap);

/* GLOBAL: refuse a code-running one, else make the node. */
enum hg_status hg_pickle_make_global(struct hg_pickle_vm *v, uint32_t module, uint32_t name,
                                     uint32_t *out);
/* REDUCE, NEWOBJ, INST, OBJ: `args` is a TUPLE node. */
enum hg_status hg_pickle_call(struct hg_pickle_vm *v, uint32_t callable, uint32_t args,
                              uint32_t *out);
enum hg_status hg_pickle_persistent(struct hg_pickle_vm *v, uint32_t id, uint32_t *out);

/* Make room for one more element of `size` bytes in a growing array; NULL when out of memory. */
void *hg_vm_grow(void *array, size_t n, size_t *cap, size_t size);

#endif
