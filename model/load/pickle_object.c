/* model/load/pickle_object.c - what globals mean, and the few calls that make tensors.
 *
 * A tensor is _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]);
 * a storage is the persistent id ('storage', torch.<X>Storage, key, location, numel[, view]). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/load/pickle_vm.h"

enum meaning {
    MEANS_NOTHING,   /* opaque */
    MEANS_DICT,      /* collections.OrderedDict */
    MEANS_TENSOR,    /* _rebuild_tensor(storage, offset, size, stride[, requires_grad, hooks[,
                        metadata]]) */
    MEANS_TENSOR_V3, /* ... (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])
                      */
    MEANS_PARAMETER, /* (tensor, ...): the tensor */
    MEANS_FROM_TYPE, /* (function, type, arguments, state): function(*arguments) */
    MEANS_SIZE,      /* torch.Size(tuple): the tuple */
    MEANS_UNTYPED_STORAGE,
    MEANS_STORAGE,                                      /* + enum hg_tensor_type */
    MEANS_DTYPE = MEANS_STORAGE + HG_TENSOR_TYPE_COUNT, /* + enum hg_tensor_type */
};

static const struct {
    const char *module, *name;
    int meaning;
} known[] = {
    {"collections", "OrderedDict", MEANS_DICT},
    {"torch._utils", "_rebuild_tensor", MEANS_TENSOR},
    {"torch._utils", "_rebuild_tensor_v2", MEANS_TENSOR},
    {"torch._utils", "_rebuild_tensor_v3", MEANS_TENSOR_V3},
    {"torch._utils", "_rebuild_parameter", MEANS_PARAMETER},
    {"torch._utils", "_rebuild_parameter_with_state", MEANS_PARAMETER},
    {"torch._tensor", "_rebuild_from_type_v2", MEANS_FROM_TYPE},
    {"torch", "Size", MEANS_SIZE},
    {"torch", "UntypedStorage", MEANS_UNTYPED_STORAGE},
    {"torch.storage", "UntypedStorage", MEANS_UNTYPED_STORAGE},
    {"torch", "FloatStorage", MEANS_STORAGE + HG_TENSOR_TYPE_F32},
    {"torch", "HalfStorage", MEANS_STORAGE + HG_TENSOR_TYPE_F16},
    {"torch", "BFloat16Storage", MEANS_STORAGE + HG_TENSOR_TYPE_BF16},
    {"torch", "DoubleStorage", MEANS_STORAGE + HG_TENSOR_TYPE_F64},
    {"torch", "LongStorage", MEANS_STORAGE + HG_TENSOR_TYPE_I64},
    {"torch", "IntStorage", MEANS_STORAGE + HG_TENSOR_TYPE_I32},
    {"torch", "ShortStorage", MEANS_STORAGE + HG_TENSOR_TYPE_I16},
    {"torch", "CharStorage", MEANS_STORAGE + HG_TENSOR_TYPE_I8},
    {"torch", "ByteStorage", MEANS_STORAGE + HG_TENSOR_TYPE_U8},
    {"torch", "BoolStorage", MEANS_STORAGE + HG_TENSOR_TYPE_BOOL},
    {"torch", "float32", MEANS_DTYPE + HG_TENSOR_TYPE_F32},
    {"torch", "float16", MEANS_DTYPE + HG_TENSOR_TYPE_F16},
    {"torch", "bfloat16", MEANS_DTYPE + HG_TENSOR_TYPE_BF16},
    {"torch", "float64", MEANS_DTYPE + HG_TENSOR_TYPE_F64},
    {"torch", "int64", MEANS_DTYPE + HG_TENSOR_TYPE_I64},
    {"torch", "int32", MEANS_DTYPE + HG_TENSOR_TYPE_I32},
    {"torch", "int16", MEANS_DTYPE + HG_TENSOR_TYPE_I16},
    {"torch", "int8", MEANS_DTYPE + HG_TENSOR_TYPE_I8},
    {"torch", "uint8", MEANS_DTYPE + HG_TENSOR_TYPE_U8},
    {"torch", "bool", MEANS_DTYPE + HG_TENSOR_TYPE_BOOL},
};

/* Modules and functions known for running code, opening files or reaching the network. NULL name:
 * the whole module with its submodules. Not needed for safety (see pickle.h), hence no ambition to
 * be complete; getattr and functools.partial are left out because honest checkpoints have them. */
static const struct {
    const char *module, *name;
} running[] = {
    {"os", NULL},
    {"posix", NULL},
    {"nt", NULL},
    {"subprocess", NULL},
    {"sys", NULL},
    {"runpy", NULL},
    {"code", NULL},
    {"codeop", NULL},
    {"imp", NULL},
    {"importlib", NULL},
    {"pty", NULL},
    {"commands", NULL},
    {"popen2", NULL},
    {"shutil", NULL},
    {"socket", NULL},
    {"ctypes", NULL},
    {"pickle", NULL},
    {"_pickle", NULL},
    {"cPickle", NULL},
    {"marshal", NULL},
    {"shelve", NULL},
    {"bdb", NULL},
    {"pdb", NULL},
    {"pip", NULL},
    {"ensurepip", NULL},
    {"venv", NULL},
    {"pydoc", NULL},
    {"doctest", NULL},
    {"timeit", NULL},
    {"cProfile", NULL},
    {"profile", NULL},
    {"trace", NULL},
    {"idlelib", NULL},
    {"webbrowser", NULL},
    {"http", NULL},
    {"httplib", NULL},
    {"urllib", NULL},
    {"urllib2", NULL},
    {"urllib3", NULL},
    {"requests", NULL},
    {"aiohttp", NULL},
    {"httpx", NULL},
    {"ftplib", NULL},
    {"smtplib", NULL},
    {"telnetlib", NULL},
    {"torch.hub", NULL},
    {"torch.serialization", NULL},
    {"torch._inductor", NULL},
    {"torch.utils.cpp_extension", NULL},
    {"torch", "load"},
    {"types", "CodeType"},
    {"types", "FunctionType"},
    {"builtins", "eval"},
    {"builtins", "exec"},
    {"builtins", "compile"},
    {"builtins", "open"},
    {"builtins", "__import__"},
    {"builtins", "globals"},
    {"builtins", "locals"},
    {"builtins", "vars"},
    {"builtins", "input"},
    {"builtins", "breakpoint"},
    {"__builtin__", "eval"},
    {"__builtin__", "exec"},
    {"__builtin__", "execfile"},
    {"__builtin__", "compile"},
    {"__builtin__", "open"},
    {"__builtin__", "file"},
    {"__builtin__", "__import__"},
    {"__builtin__", "globals"},
    {"__builtin__", "locals"},
    {"__builtin__", "vars"},
    {"__builtin__", "input"},
    {"__builtin__", "raw_input"},
    {"__builtin__", "apply"},
};

int hg_pickle_text_is(const struct hg_pickle_node *node, const char *s)
{
    size_t n = strlen(s);
    return node->kind == HG_PICKLE_STRING && node->u.text.n == n &&
           memcmp(node->u.text.s, s, n) == 0;
}

static size_t copy_text(const struct hg_pickle_node *node, char *out, size_t cap)
{
    size_t n = node->u.text.n < cap ? node->u.text.n : cap;
    for (size_t i = 0; i < n; i++) {
        char c = node->u.text.s[i];
        out[i] = (char)(c < 0x20 || c > 0x7e ? '?' : c);
    }
    return n;
}

const char *hg_pickle_global_text(const struct hg_pickle *p, uint32_t node, char *out, size_t cap)
{
    if (node != HG_PICKLE_NO_NODE && p->nodes[node].kind == HG_PICKLE_OPAQUE)
        node = p->nodes[node].u.index;
    if (node == HG_PICKLE_NO_NODE || p->nodes[node].kind != HG_PICKLE_GLOBAL || cap < 8) {
        snprintf(out, cap, "a set or unknown object");
        return out;
    }
    const struct hg_pickle_node *g = &p->nodes[node];
    size_t n = copy_text(&p->nodes[g->u.global.module], out, cap / 2);
    out[n++] = '.';
    n += copy_text(&p->nodes[g->u.global.name], out + n, cap - n - 1);
    out[n] = '\0';
    return out;
}

/* Module equals `s` or is below it ("os.path" is below "os"). */
static int module_within(const struct hg_pickle_node *m, const char *s)
{
    size_t n = strlen(s);
    return m->u.text.n >= n && memcmp(m->u.text.s, s, n) == 0 &&
           (m->u.text.n == n || m->u.text.s[n] == '.');
}

static int runs_code(const struct hg_pickle_node *m, const struct hg_pickle_node *n)
{
    for (size_t i = 0; i < sizeof running / sizeof running[0]; i++)
        if (running[i].name
                ? hg_pickle_text_is(m, running[i].module) && hg_pickle_text_is(n, running[i].name)
                : module_within(m, running[i].module))
            return 1;
    return 0;
}

static int meaning_of(const struct hg_pickle_node *m, const struct hg_pickle_node *n)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (hg_pickle_text_is(n, known[i].name) && hg_pickle_text_is(m, known[i].module))
            return known[i].meaning;
    return MEANS_NOTHING;
}

enum hg_status hg_pickle_make_global(struct hg_pickle_vm *v, uint32_t module, uint32_t name,
                                     uint32_t *out)
{
    if (v->p->nodes[module].kind != HG_PICKLE_STRING || v->p->nodes[name].kind != HG_PICKLE_STRING)
        return hg_vm_bad(v, "global whose name is not a string");
    HG_TRY(hg_vm_node_new(v, HG_PICKLE_GLOBAL, out));
    const struct hg_pickle_node *m = &v->p->nodes[module], *n = &v->p->nodes[name];
    struct hg_pickle_node *g = &v->p->nodes[*out];
    g->u.global.module = module;
    g->u.global.name = name;
    g->u.global.meaning = meaning_of(m, n);
    if (!runs_code(m, n))
        return HG_STATUS_OK;
    char text[96];
    return hg_vm_bad(v, "refused: %s can run code",
                     hg_pickle_global_text(v->p, *out, text, sizeof text));
}

static enum hg_status make_opaque(struct hg_pickle_vm *v, uint32_t from, uint32_t *out)
{
    HG_TRY(hg_vm_node_new(v, HG_PICKLE_OPAQUE, out));
    if (v->p->nodes[from].kind == HG_PICKLE_OPAQUE)
        from = v->p->nodes[from].u.index;
    v->p->nodes[*out].u.index = from;
    return HG_STATUS_OK;
}

/* OrderedDict() or OrderedDict([[key, value], ...]). */
static enum hg_status make_dict(struct hg_pickle_vm *v, uint32_t args, uint32_t *out)
{
    uint32_t list, pair[2];
    HG_TRY(hg_vm_node_new(v, HG_PICKLE_DICT, out));
    int64_t n_args = hg_pickle_items(v->p, args, &list, 1);
    if (n_args == 0)
        return HG_STATUS_OK;
    if (n_args != 1 || hg_pickle_items(v->p, list, NULL, 0) < 0)
        return hg_vm_bad(v, "OrderedDict: expected no argument or a list of pairs");
    const struct hg_pickle_node l = v->p->nodes[list];
    uint32_t cell = l.u.items.first;
    for (uint32_t i = 0; i < l.u.items.n; i++, cell = v->p->cells[cell].next) {
        if (hg_pickle_items(v->p, v->p->cells[cell].node, pair, 2) != 2)
            return hg_vm_bad(v, "OrderedDict: expected a list of pairs");
        HG_TRY(hg_vm_item_add(v, *out, pair[0]));
        HG_TRY(hg_vm_item_add(v, *out, pair[1]));
    }
    return HG_STATUS_OK;
}

static int read_int(const struct hg_pickle *p, uint32_t node, int64_t *out)
{
    *out = p->nodes[node].u.integer;
    return p->nodes[node].kind == HG_PICKLE_INT;
}

/* A tuple of at most 8 integers; returns how many, -1 when it is something else. */
static int read_dims(const struct hg_pickle *p, uint32_t node, int64_t *out)
{
    uint32_t items[HG_TENSOR_MAX_DIMS];
    int64_t n = hg_pickle_items(p, node, items, HG_TENSOR_MAX_DIMS);
    if (n < 0 || n > HG_TENSOR_MAX_DIMS)
        return -1;
    for (int i = 0; i < (int)n; i++)
        if (!read_int(p, items[i], &out[i]))
            return -1;
    return (int)n;
}

static int dtype_of(const struct hg_pickle *p, uint32_t node, int base, enum hg_tensor_type *out)
{
    const struct hg_pickle_node *g = &p->nodes[node];
    if (g->kind != HG_PICKLE_GLOBAL || g->u.global.meaning < base ||
        g->u.global.meaning >= base + HG_TENSOR_TYPE_COUNT)
        return 0;
    *out = (enum hg_tensor_type)(g->u.global.meaning - base);
    return 1;
}

static enum hg_status make_tensor(struct hg_pickle_vm *v, int meaning, uint32_t args, uint32_t *out)
{
    uint32_t a[8];
    struct hg_pickle *p = v->p;
    struct hg_pickle_tensor x = {0};
    int64_t n = hg_pickle_items(p, args, a, 8);
    if (n < (meaning == MEANS_TENSOR_V3 ? 7 : 4) || n > 8)
        return hg_vm_bad(v, "tensor with %lld arguments", (long long)n);
    if (p->nodes[a[0]].kind == HG_PICKLE_OPAQUE)
        return make_opaque(v, a[0], out);
    if (p->nodes[a[0]].kind != HG_PICKLE_STORAGE)
        return hg_vm_bad(v, "tensor without a storage");
    x.storage = p->nodes[a[0]].u.index;
    x.t.type = p->storages[x.storage].type;
    x.t.n_dims = read_dims(p, a[2], x.t.dims);
    if (!read_int(p, a[1], &x.offset) || x.t.n_dims < 0 ||
        read_dims(p, a[3], x.t.strides) != x.t.n_dims)
        return hg_vm_bad(v, "tensor: expected an offset and up to %d sizes and strides",
                         HG_TENSOR_MAX_DIMS);
    if (meaning == MEANS_TENSOR_V3 && !dtype_of(p, a[6], MEANS_DTYPE, &x.t.type))
        return hg_vm_bad(v, "tensor of an unknown dtype");
    if (meaning == MEANS_TENSOR && p->storages[x.storage].untyped)
        return hg_vm_bad(v, "tensor of an untyped storage has no dtype");
    if (p->n_tensors >= HG_VM_MAX_OPS)
        return hg_vm_bad(v, "too many tensors");
    struct hg_pickle_tensor *tensors =
        hg_vm_grow(p->tensors, p->n_tensors, &p->cap_tensors, sizeof *tensors);
    if (!tensors)
        return hg_vm_no_memory(v);
    p->tensors = tensors;
    tensors[p->n_tensors] = x;
    HG_TRY(hg_vm_node_new(v, HG_PICKLE_TENSOR, out));
    p->nodes[*out].u.index = (uint32_t)p->n_tensors++;
    return HG_STATUS_OK;
}

/* _rebuild_from_type_v2(function, type, arguments, state): a tensor with Python attributes. */
static enum hg_status make_from_type(struct hg_pickle_vm *v, uint32_t callable, uint32_t args,
                                     uint32_t *out)
{
    uint32_t a[4];
    if (hg_pickle_items(v->p, args, a, 4) == 4 && v->p->nodes[a[0]].kind == HG_PICKLE_GLOBAL) {
        int m = v->p->nodes[a[0]].u.global.meaning;
        if (m == MEANS_TENSOR || m == MEANS_TENSOR_V3)
            return make_tensor(v, m, a[2], out);
    }
    return make_opaque(v, callable, out);
}

enum hg_status hg_pickle_call(struct hg_pickle_vm *v, uint32_t callable, uint32_t args,
                              uint32_t *out)
{
    const struct hg_pickle_node *c = &v->p->nodes[callable];
    if (c->kind == HG_PICKLE_OPAQUE)
        return make_opaque(v, callable, out);
    if (c->kind != HG_PICKLE_GLOBAL)
        return hg_vm_bad(v, "call of something that is not a global");
    int64_t n = hg_pickle_items(v->p, args, out, 1);
    if (n < 0)
        return hg_vm_bad(v, "arguments are not a tuple");
    int meaning = c->u.global.meaning;
    switch (meaning) {
    case MEANS_DICT:
        return make_dict(v, args, out);
    case MEANS_TENSOR:
    case MEANS_TENSOR_V3:
        return make_tensor(v, meaning, args, out);
    case MEANS_FROM_TYPE:
        return make_from_type(v, callable, args, out);
    case MEANS_PARAMETER:
        if (n < 1 || v->p->nodes[*out].kind != HG_PICKLE_TENSOR)
            return hg_vm_bad(v, "parameter without a tensor");
        return HG_STATUS_OK;
    case MEANS_SIZE:
        if (n == 1 && hg_pickle_items(v->p, *out, NULL, 0) >= 0)
            return HG_STATUS_OK;
        return make_opaque(v, callable, out);
    default:
        return make_opaque(v, callable, out);
    }
}

/* view_metadata: None or (key, offset, numel), a window of the storage (legacy files). */
static int read_view(const struct hg_pickle *p, uint32_t node, struct hg_pickle_storage *s)
{
    uint32_t a[3];
    if (p->nodes[node].kind == HG_PICKLE_NONE)
        return 1;
    return hg_pickle_items(p, node, a, 3) == 3 && read_int(p, a[1], &s->view_offset) &&
           read_int(p, a[2], &s->view_numel) && s->view_offset >= 0 && s->view_numel >= 0 &&
           s->view_offset <= s->numel && s->view_numel <= s->numel - s->view_offset;
}

enum hg_status hg_pickle_persistent(struct hg_pickle_vm *v, uint32_t id, uint32_t *out)
{
    uint32_t a[6];
    struct hg_pickle *p = v->p;
    struct hg_pickle_storage s = {0};
    int64_t n = hg_pickle_items(p, id, a, 6);
    if (n < 5 || n > 6 || !hg_pickle_text_is(&p->nodes[a[0]], "storage"))
        return hg_vm_bad(v, "persistent id that is not a storage");
    const struct hg_pickle_node *g = &p->nodes[a[1]], *key = &p->nodes[a[2]];
    s.untyped = g->kind == HG_PICKLE_GLOBAL && g->u.global.meaning == MEANS_UNTYPED_STORAGE;
    s.type = HG_TENSOR_TYPE_U8;
    if (g->kind == HG_PICKLE_GLOBAL && !s.untyped && !dtype_of(p, a[1], MEANS_STORAGE, &s.type))
        return make_opaque(v, a[1], out); /* complex, quantised: no weight of ours */
    if (g->kind != HG_PICKLE_GLOBAL || key->kind != HG_PICKLE_STRING ||
        !read_int(p, a[4], &s.numel) || s.numel < 0)
        return hg_vm_bad(v, "storage: expected a type, a key and a size");
    s.key = key->u.text.s;
    s.key_len = key->u.text.n;
    s.view_numel = s.numel;
    if (n == 6 && !read_view(p, a[5], &s))
        return hg_vm_bad(v, "storage view is outside its storage");
    struct hg_pickle_storage *list =
        hg_vm_grow(p->storages, p->n_storages, &p->cap_storages, sizeof *list);
    if (!list)
        return hg_vm_no_memory(v);
    p->storages = list;
    list[p->n_storages] = s;
    HG_TRY(hg_vm_node_new(v, HG_PICKLE_STORAGE, out));
    p->nodes[*out].u.index = (uint32_t)p->n_storages++;
    return HG_STATUS_OK;
}

enum hg_status hg_pickle_refuse_bare(const char *name, const unsigned char *data, size_t n,
                                     struct hg_error *err)
{
    struct hg_pickle p;
    HG_TRY(hg_pickle_parse(name, data, n, &p, err));
    char text[96] = "plain values";
    if (p.nodes[p.root].kind == HG_PICKLE_OPAQUE || p.nodes[p.root].kind == HG_PICKLE_GLOBAL)
        hg_pickle_global_text(&p, p.root, text, sizeof text);
    hg_pickle_deinit(&p);
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "%s: a bare pickle (%s), which holds no tensors; expected a file of torch.save",
                   name, text);
}
