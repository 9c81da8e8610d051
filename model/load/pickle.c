/* model/load/pickle.c - the opcodes of the restricted pickle reader. */
#include "model/load/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "model/load/pickle_vm.h"

#define NO_NODE HG_PICKLE_NO_NODE

/* One row of the opcode table; opcodes that differ in a kind or a width share a function. */
struct op {
    enum hg_status (*fn)(struct hg_pickle_vm *v, const struct op *o);
    int kind;  /* enum hg_pickle_kind of what is made or filled, where that differs */
    int bytes; /* width of the number that follows the opcode, or number of items */
};

/* ---- scalars -------------------------------------------------------------------------- */

static enum hg_status op_proto(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint64_t version;
    HG_TRY(hg_vm_take_uint(v, 1, &version));
    return version <= 5 ? HG_STATUS_OK : hg_vm_bad(v, "protocol %d", (int)version);
}

static enum hg_status op_frame(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint64_t n;
    HG_TRY(hg_vm_take_uint(v, 8, &n));
    return n <= v->n - v->pos ? HG_STATUS_OK : hg_vm_bad(v, "frame beyond the end");
}

static enum hg_status op_stop(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    HG_TRY(hg_vm_pop(v, &v->p->root));
    if (v->n_stack || v->n_marks)
        return hg_vm_bad(v, "%zu values left on the stack", v->n_stack);
    v->done = 1;
    return HG_STATUS_OK;
}

static enum hg_status op_constant(struct hg_pickle_vm *v, const struct op *o)
{
    return hg_vm_push_int(v, (enum hg_pickle_kind)o->kind, o->bytes);
}

static enum hg_status op_binint(struct hg_pickle_vm *v, const struct op *o)
{
    uint64_t x;
    HG_TRY(hg_vm_take_uint(v, o->bytes, &x));
    return hg_vm_push_int(v, HG_PICKLE_INT, o->bytes == 4 ? (int32_t)(uint32_t)x : (int64_t)x);
}

/* Length, then two's complement, little-endian; longer than 8 bytes keeps no value. */
static enum hg_status op_long(struct hg_pickle_vm *v, const struct op *o)
{
    uint64_t n;
    const unsigned char *b;
    HG_TRY(hg_vm_take_uint(v, o->bytes, &n));
    HG_TRY(hg_vm_take(v, n, &b));
    if (n > 8)
        return hg_vm_push_int(v, HG_PICKLE_NUMBER, 0);
    uint64_t x = n && b[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = (size_t)n; i-- > 0;)
        x = x << 8 | b[i];
    return hg_vm_push_int(v, HG_PICKLE_INT, (int64_t)x);
}

/* INT and LONG lines: "12", "12L", "00" and "01" for booleans. */
static enum hg_status op_int_line(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const char *s;
    size_t n;
    char copy[24], *end;
    HG_TRY(hg_vm_take_line(v, &s, &n));
    if (n == 2 && s[0] == '0' && (s[1] == '0' || s[1] == '1'))
        return hg_vm_push_int(v, HG_PICKLE_BOOL, s[1] - '0');
    if (n && s[n - 1] == 'L')
        n--;
    if (n == 0)
        return hg_vm_bad(v, "empty integer");
    if (n > 18)
        return hg_vm_push_int(v, HG_PICKLE_NUMBER, 0);
    memcpy(copy, s, n);
    copy[n] = '\0';
    long long x = strtoll(copy, &end, 10);
    if (*end)
        return hg_vm_bad(v, "bad integer");
    return hg_vm_push_int(v, HG_PICKLE_INT, x);
}

static enum hg_status op_float_line(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const char *s;
    size_t n;
    HG_TRY(hg_vm_take_line(v, &s, &n));
    return hg_vm_push_int(v, HG_PICKLE_NUMBER, 0);
}

static enum hg_status op_binfloat(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const unsigned char *b;
    HG_TRY(hg_vm_take(v, 8, &b));
    return hg_vm_push_int(v, HG_PICKLE_NUMBER, 0);
}

/* A string or bytes behind its length. */
static enum hg_status op_counted(struct hg_pickle_vm *v, const struct op *o)
{
    uint64_t n;
    uint32_t node;
    const unsigned char *s;
    HG_TRY(hg_vm_take_uint(v, o->bytes, &n));
    HG_TRY(hg_vm_take(v, n, &s));
    HG_TRY(hg_vm_text_new(v, (enum hg_pickle_kind)o->kind, (const char *)s, (size_t)n, &node));
    return hg_vm_push(v, node);
}

/* Escapes in text lines stay as they are: names with escapes are of no use to us. */
static enum hg_status op_string_line(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const char *s;
    size_t n;
    uint32_t node;
    HG_TRY(hg_vm_take_line(v, &s, &n));
    if (n >= 2 && (s[0] == '\'' || s[0] == '"') && s[n - 1] == s[0]) {
        s++;
        n -= 2;
    }
    HG_TRY(hg_vm_text_new(v, HG_PICKLE_STRING, s, n, &node));
    return hg_vm_push(v, node);
}

static enum hg_status op_unicode_line(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const char *s;
    size_t n;
    uint32_t node;
    HG_TRY(hg_vm_take_line(v, &s, &n));
    HG_TRY(hg_vm_text_new(v, HG_PICKLE_STRING, s, n, &node));
    return hg_vm_push(v, node);
}

/* ---- stack and memo ------------------------------------------------------------------- */

static enum hg_status op_mark(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    if (v->n_marks >= HG_VM_MAX_STACK)
        return hg_vm_bad(v, "more than %d marks", HG_VM_MAX_STACK);
    v->marks[v->n_marks++] = (uint32_t)v->n_stack;
    return HG_STATUS_OK;
}

static enum hg_status op_pop(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t node;
    size_t first;
    if (v->n_marks && v->n_stack == hg_vm_floor(v))
        return hg_vm_pop_mark(v, &first);
    return hg_vm_pop(v, &node);
}

static enum hg_status op_pop_mark(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    return hg_vm_pop_mark(v, &v->n_stack);
}

static enum hg_status op_dup(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t node;
    HG_TRY(hg_vm_top(v, &node));
    return hg_vm_push(v, node);
}

/* The number behind PUT and GET: a line of digits, or `bytes` binary bytes. */
static enum hg_status take_key(struct hg_pickle_vm *v, const struct op *o, uint64_t *key)
{
    const char *s;
    size_t n;
    if (o->bytes)
        return hg_vm_take_uint(v, o->bytes, key);
    HG_TRY(hg_vm_take_line(v, &s, &n));
    *key = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || n > 9)
            return hg_vm_bad(v, "bad memo number");
        *key = *key * 10 + (uint64_t)(s[i] - '0');
    }
    return n ? HG_STATUS_OK : hg_vm_bad(v, "bad memo number");
}

static enum hg_status op_put(struct hg_pickle_vm *v, const struct op *o)
{
    uint64_t key;
    HG_TRY(take_key(v, o, &key));
    return hg_vm_memo_put(v, key);
}

static enum hg_status op_get(struct hg_pickle_vm *v, const struct op *o)
{
    uint64_t key;
    HG_TRY(take_key(v, o, &key));
    return hg_vm_memo_get(v, key);
}

static enum hg_status op_memoize(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    return hg_vm_memo_put(v, v->n_memo);
}

/* ---- containers ----------------------------------------------------------------------- */

/* Replace stack[first .. n_stack) by one new container of these items. */
static enum hg_status gather(struct hg_pickle_vm *v, enum hg_pickle_kind kind, size_t first,
                             uint32_t *out)
{
    HG_TRY(hg_vm_node_new(v, kind, out));
    for (size_t i = first; i < v->n_stack; i++)
        HG_TRY(hg_vm_item_add(v, *out, v->stack[i]));
    v->n_stack = first;
    return HG_STATUS_OK;
}

static enum hg_status op_empty(struct hg_pickle_vm *v, const struct op *o)
{
    uint32_t node;
    return hg_vm_push_new(v, (enum hg_pickle_kind)o->kind, &node);
}

/* TUPLE1, TUPLE2, TUPLE3 */
static enum hg_status op_tuple_of(struct hg_pickle_vm *v, const struct op *o)
{
    uint32_t node;
    size_t n = (size_t)o->bytes;
    if (v->n_stack < hg_vm_floor(v) + n)
        return hg_vm_bad(v, "stack is empty");
    HG_TRY(gather(v, HG_PICKLE_TUPLE, v->n_stack - n, &node));
    return hg_vm_push(v, node);
}

/* TUPLE, LIST, DICT: what stands above the mark */
static enum hg_status op_gather(struct hg_pickle_vm *v, const struct op *o)
{
    size_t first;
    uint32_t node;
    HG_TRY(hg_vm_pop_mark(v, &first));
    if (o->kind == HG_PICKLE_DICT && (v->n_stack - first) % 2)
        return hg_vm_bad(v, "dictionary with a key but no value");
    HG_TRY(gather(v, (enum hg_pickle_kind)o->kind, first, &node));
    return hg_vm_push(v, node);
}

/* APPEND, SETITEM (`bytes` items) and APPENDS, SETITEMS (0: up to the mark) move the top of the
 * stack into the container below; an opaque one swallows it. */
static enum hg_status op_add(struct hg_pickle_vm *v, const struct op *o)
{
    size_t first = v->n_stack - (size_t)o->bytes;
    if (v->n_stack < (size_t)o->bytes)
        return hg_vm_bad(v, "stack is empty");
    if (o->bytes == 0)
        HG_TRY(hg_vm_pop_mark(v, &first));
    if (first <= hg_vm_floor(v))
        return hg_vm_bad(v, "stack is empty");
    uint32_t target = v->stack[first - 1];
    int found = (int)v->p->nodes[target].kind;
    if (found != o->kind && found != HG_PICKLE_OPAQUE)
        return hg_vm_bad(v, "items added to something that is not a %s",
                         o->kind == HG_PICKLE_LIST ? "list" : "dictionary");
    if (o->kind == HG_PICKLE_DICT && (v->n_stack - first) % 2)
        return hg_vm_bad(v, "dictionary with a key but no value");
    for (size_t i = first; found == o->kind && i < v->n_stack; i++)
        HG_TRY(hg_vm_item_add(v, target, v->stack[i]));
    v->n_stack = first;
    return HG_STATUS_OK;
}

/* Sets hold nothing that we read. */
static enum hg_status op_set(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t node;
    HG_TRY(hg_vm_push_new(v, HG_PICKLE_OPAQUE, &node));
    v->p->nodes[node].u.index = NO_NODE;
    return HG_STATUS_OK;
}

static enum hg_status op_additems(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    size_t first;
    HG_TRY(hg_vm_pop_mark(v, &first));
    if (first <= hg_vm_floor(v) || v->p->nodes[v->stack[first - 1]].kind != HG_PICKLE_OPAQUE)
        return hg_vm_bad(v, "items added to something that is not a set");
    v->n_stack = first;
    return HG_STATUS_OK;
}

static enum hg_status op_frozenset(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    HG_TRY(hg_vm_pop_mark(v, &v->n_stack));
    return op_set(v, o);
}

/* ---- globals and objects -------------------------------------------------------------- */

static enum hg_status op_global(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    const char *module, *name;
    size_t module_len, name_len;
    uint32_t m, n, node;
    HG_TRY(hg_vm_take_line(v, &module, &module_len));
    HG_TRY(hg_vm_take_line(v, &name, &name_len));
    HG_TRY(hg_vm_text_new(v, HG_PICKLE_STRING, module, module_len, &m));
    HG_TRY(hg_vm_text_new(v, HG_PICKLE_STRING, name, name_len, &n));
    HG_TRY(hg_pickle_make_global(v, m, n, &node));
    return hg_vm_push(v, node);
}

static enum hg_status op_stack_global(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t module, name, node;
    HG_TRY(hg_vm_pop(v, &name));
    HG_TRY(hg_vm_pop(v, &module));
    HG_TRY(hg_pickle_make_global(v, module, name, &node));
    return hg_vm_push(v, node);
}

static enum hg_status op_reduce(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t callable, args, node;
    HG_TRY(hg_vm_pop(v, &args));
    HG_TRY(hg_vm_pop(v, &callable));
    HG_TRY(hg_pickle_call(v, callable, args, &node));
    return hg_vm_push(v, node);
}

static enum hg_status op_newobj_ex(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t keywords;
    HG_TRY(hg_vm_pop(v, &keywords));
    return op_reduce(v, o);
}

/* INST: class in two lines, arguments above the mark. OBJ: the class is the first of them. */
static enum hg_status op_inst(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t class_node, args, node;
    size_t first;
    HG_TRY(op_global(v, o));
    HG_TRY(hg_vm_pop(v, &class_node));
    HG_TRY(hg_vm_pop_mark(v, &first));
    HG_TRY(gather(v, HG_PICKLE_TUPLE, first, &args));
    HG_TRY(hg_pickle_call(v, class_node, args, &node));
    return hg_vm_push(v, node);
}

static enum hg_status op_obj(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t args, node;
    size_t first;
    HG_TRY(hg_vm_pop_mark(v, &first));
    if (v->n_stack == first)
        return hg_vm_bad(v, "object without a class");
    HG_TRY(gather(v, HG_PICKLE_TUPLE, first + 1, &args));
    uint32_t class_node = v->stack[--v->n_stack];
    HG_TRY(hg_pickle_call(v, class_node, args, &node));
    return hg_vm_push(v, node);
}

/* The state of an OrderedDict (module versions), of a parameter or of an opaque object is dropped.
 */
static enum hg_status op_build(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t state, target;
    HG_TRY(hg_vm_pop(v, &state));
    HG_TRY(hg_vm_top(v, &target));
    enum hg_pickle_kind kind = v->p->nodes[target].kind;
    if (kind == HG_PICKLE_DICT || kind == HG_PICKLE_TENSOR || kind == HG_PICKLE_OPAQUE)
        return HG_STATUS_OK;
    return hg_vm_bad(v, "state set on something that has none");
}

static enum hg_status op_persid(struct hg_pickle_vm *v, const struct op *o)
{
    (void)o;
    uint32_t id, node;
    HG_TRY(hg_vm_pop(v, &id));
    HG_TRY(hg_pickle_persistent(v, id, &node));
    return hg_vm_push(v, node);
}

/* ---- the machine ---------------------------------------------------------------------- */

/* Absent: PERSID (text), EXT1/2/4, NEXT_BUFFER, READONLY_BUFFER: no torch writer makes them. */
static const struct op ops[256] = {
    ['.'] = {op_stop, 0, 0},
    [0x80] = {op_proto, 0, 0},
    [0x95] = {op_frame, 0, 0},
    ['N'] = {op_constant, HG_PICKLE_NONE, 0},
    [0x88] = {op_constant, HG_PICKLE_BOOL, 1},
    [0x89] = {op_constant, HG_PICKLE_BOOL, 0},
    ['K'] = {op_binint, 0, 1},
    ['M'] = {op_binint, 0, 2},
    ['J'] = {op_binint, 0, 4},
    [0x8a] = {op_long, 0, 1},
    [0x8b] = {op_long, 0, 4},
    ['I'] = {op_int_line, 0, 0},
    ['L'] = {op_int_line, 0, 0},
    ['F'] = {op_float_line, 0, 0},
    ['G'] = {op_binfloat, 0, 0},
    ['S'] = {op_string_line, 0, 0},
    ['V'] = {op_unicode_line, 0, 0},
    ['U'] = {op_counted, HG_PICKLE_STRING, 1},
    ['T'] = {op_counted, HG_PICKLE_STRING, 4},
    [0x8c] = {op_counted, HG_PICKLE_STRING, 1},
    ['X'] = {op_counted, HG_PICKLE_STRING, 4},
    [0x8d] = {op_counted, HG_PICKLE_STRING, 8},
    ['C'] = {op_counted, HG_PICKLE_BYTES, 1},
    ['B'] = {op_counted, HG_PICKLE_BYTES, 4},
    [0x8e] = {op_counted, HG_PICKLE_BYTES, 8},
    [0x96] = {op_counted, HG_PICKLE_BYTES, 8},
    ['('] = {op_mark, 0, 0},
    ['0'] = {op_pop, 0, 0},
    ['1'] = {op_pop_mark, 0, 0},
    ['2'] = {op_dup, 0, 0},
    ['p'] = {op_put, 0, 0},
    ['q'] = {op_put, 0, 1},
    ['r'] = {op_put, 0, 4},
    [0x94] = {op_memoize, 0, 0},
    ['g'] = {op_get, 0, 0},
    ['h'] = {op_get, 0, 1},
    ['j'] = {op_get, 0, 4},
    [')'] = {op_empty, HG_PICKLE_TUPLE, 0},
    [']'] = {op_empty, HG_PICKLE_LIST, 0},
    ['}'] = {op_empty, HG_PICKLE_DICT, 0},
    [0x8f] = {op_set, 0, 0},
    [0x85] = {op_tuple_of, 0, 1},
    [0x86] = {op_tuple_of, 0, 2},
    [0x87] = {op_tuple_of, 0, 3},
    ['t'] = {op_gather, HG_PICKLE_TUPLE, 0},
    ['l'] = {op_gather, HG_PICKLE_LIST, 0},
    ['d'] = {op_gather, HG_PICKLE_DICT, 0},
    ['a'] = {op_add, HG_PICKLE_LIST, 1},
    ['e'] = {op_add, HG_PICKLE_LIST, 0},
    ['s'] = {op_add, HG_PICKLE_DICT, 2},
    ['u'] = {op_add, HG_PICKLE_DICT, 0},
    [0x90] = {op_additems, 0, 0},
    [0x91] = {op_frozenset, 0, 0},
    ['c'] = {op_global, 0, 0},
    [0x93] = {op_stack_global, 0, 0},
    ['R'] = {op_reduce, 0, 0},
    [0x81] = {op_reduce, 0, 0},
    [0x92] = {op_newobj_ex, 0, 0},
    ['i'] = {op_inst, 0, 0},
    ['o'] = {op_obj, 0, 0},
    ['b'] = {op_build, 0, 0},
    ['Q'] = {op_persid, 0, 0},
};

static enum hg_status run(struct hg_pickle_vm *v)
{
    for (size_t i = 0; !v->done; i++) {
        v->op_pos = v->pos;
        if (i >= HG_VM_MAX_OPS)
            return hg_vm_bad(v, "more than %d opcodes", HG_VM_MAX_OPS);
        if (v->pos >= v->n)
            return hg_vm_bad(v, "ends without STOP");
        unsigned char code = v->data[v->pos++];
        if (!ops[code].fn)
            return hg_vm_bad(v, "opcode 0x%02x is not allowed", code);
        HG_TRY(ops[code].fn(v, &ops[code]));
    }
    v->p->used_bytes = v->pos;
    return HG_STATUS_OK;
}

enum hg_status hg_pickle_parse(const char *name, const unsigned char *data, size_t n,
                               struct hg_pickle *out, struct hg_error *err)
{
    *out = (struct hg_pickle){.root = NO_NODE};
    struct hg_pickle_vm v = {.p = out, .name = name, .data = data, .n = n, .err = err};
    v.stack = malloc(HG_VM_MAX_STACK * sizeof *v.stack);
    v.marks = malloc(HG_VM_MAX_STACK * sizeof *v.marks);
    enum hg_status status = v.stack && v.marks ? run(&v) : hg_vm_no_memory(&v);
    free(v.stack);
    free(v.marks);
    free(v.memo);
    if (status != HG_STATUS_OK)
        hg_pickle_deinit(out);
    return status;
}

void hg_pickle_deinit(struct hg_pickle *p)
{
    free(p->nodes);
    free(p->cells);
    free(p->storages);
    free(p->tensors);
    *p = (struct hg_pickle){.root = NO_NODE};
}
