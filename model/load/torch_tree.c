/* model/load/torch_tree.c - from the graph of a torch pickle to a flat list of named tensors.
 *
 * Nested dictionaries and lists become dotted names. What is not a tensor is passed over, except an
 * opaque object in a dictionary that holds tensors itself (rule 3 of pickle.h). The walk is
 * bounded, because a memo lets a short file describe a graph with endless paths. */
#include <stdio.h>
#include <string.h>

#include "model/load/pickle.h"
#include "model/load/tensor_file_build.h"

enum { MAX_DEPTH = 32, MAX_STEPS = 1000000 /* items seen */ };

struct walk {
    struct hg_tensor_file *f;
    const struct hg_pickle *p;
    hg_storage_find_fn find;
    void *ctx;
    struct hg_error *err;
    char path[HG_TENSOR_NAME_MAX + 1];
    size_t steps;
};

static enum hg_status add_tensor(struct walk *w, size_t len, const struct hg_pickle_tensor *x)
{
    const struct hg_pickle_storage *s = &w->p->storages[x->storage];
    struct hg_storage_view view = {0};
    struct hg_error why = {0};
    struct hg_tensor t = x->t;
    size_t unit = hg_tensor_type_bytes(s->type);
    enum hg_status status = w->find(w->ctx, s, &view, &why);
    if (status == HG_STATUS_OK) {
        /* find() has checked that the whole storage is there, and the pickle that the view fits. */
        view.data += (size_t)s->view_offset * unit;
        view.bytes = (size_t)s->view_numel * unit;
        status = hg_tensor_place(&t, x->offset, view, &why);
    }
    if (status != HG_STATUS_OK)
        return hg_fail(w->err, status, "%s: tensor %.*s: %s", w->f->name, (int)len, w->path,
                       why.text);
    return hg_tensor_file_add(w->f, w->path, len, &t, w->err);
}

/* Append ".key" to the path; 0 when the key can name nothing (not text, not an integer). */
static int extend(struct walk *w, size_t *len, const struct hg_pickle_node *key)
{
    char number[24];
    const char *s = number;
    size_t n;
    if (key->kind == HG_PICKLE_STRING) {
        s = key->u.text.s;
        n = key->u.text.n;
    } else if (key->kind == HG_PICKLE_INT) {
        n = (size_t)snprintf(number, sizeof number, "%lld", (long long)key->u.integer);
    } else {
        return 0;
    }
    /* A name that is too long is cut at one byte above the limit, where adding a tensor refuses it.
     */
    size_t room = sizeof w->path - *len;
    size_t dot = *len > 0 && room > 0;
    if (n > room - dot)
        n = room - dot;
    if (dot)
        w->path[*len] = '.';
    memcpy(w->path + *len + dot, s, n);
    *len += dot + n;
    return 1;
}

static enum hg_status walk_node(struct walk *w, uint32_t node, size_t len, int depth);

static int holds_tensors(const struct hg_pickle *p, const struct hg_pickle_node *dict)
{
    uint32_t cell = dict->u.items.first;
    for (uint32_t i = 0; i < dict->u.items.n; i++, cell = p->cells[cell].next)
        if (i % 2 && p->nodes[p->cells[cell].node].kind == HG_PICKLE_TENSOR)
            return 1;
    return 0;
}

/* Whether a value needs a look: a tensor or container, or an opaque object beside tensors. */
static int may_hold(const struct hg_pickle *p, uint32_t value, int beside_tensors)
{
    enum hg_pickle_kind k = p->nodes[value].kind;
    return k == HG_PICKLE_TENSOR || k == HG_PICKLE_DICT || k == HG_PICKLE_LIST ||
           k == HG_PICKLE_TUPLE || (k == HG_PICKLE_OPAQUE && beside_tensors);
}

static enum hg_status walk_dict(struct walk *w, const struct hg_pickle_node *dict, size_t len,
                                int depth)
{
    const struct hg_pickle *p = w->p;
    int tensors = holds_tensors(p, dict);
    uint32_t cell = dict->u.items.first;
    for (uint32_t i = 0; i < dict->u.items.n; i += 2) {
        uint32_t key = p->cells[cell].node;
        cell = p->cells[cell].next;
        uint32_t value = p->cells[cell].node;
        cell = p->cells[cell].next;
        size_t end = len;
        if (!may_hold(p, value, tensors) || !extend(w, &end, &p->nodes[key]))
            continue;
        if (tensors && p->nodes[value].kind == HG_PICKLE_OPAQUE) {
            char text[96];
            return hg_fail(w->err, HG_STATUS_BAD_FILE,
                           "%s: %.*s: expected a tensor, got the opaque %s", w->f->name, (int)end,
                           w->path, hg_pickle_global_text(p, value, text, sizeof text));
        }
        HG_TRY(walk_node(w, value, end, depth));
    }
    return HG_STATUS_OK;
}

static enum hg_status walk_list(struct walk *w, const struct hg_pickle_node *list, size_t len,
                                int depth)
{
    uint32_t cell = list->u.items.first;
    for (uint32_t i = 0; i < list->u.items.n; i++, cell = w->p->cells[cell].next) {
        struct hg_pickle_node key = {.kind = HG_PICKLE_INT, .u.integer = i};
        size_t end = len;
        if (!may_hold(w->p, w->p->cells[cell].node, 0))
            continue;
        extend(w, &end, &key);
        HG_TRY(walk_node(w, w->p->cells[cell].node, end, depth));
    }
    return HG_STATUS_OK;
}

/* node: a tensor or a container. */
static enum hg_status walk_node(struct walk *w, uint32_t node, size_t len, int depth)
{
    const struct hg_pickle_node *x = &w->p->nodes[node];
    w->steps += x->kind == HG_PICKLE_TENSOR ? 1 : 1 + (size_t)x->u.items.n;
    if (w->steps > MAX_STEPS || depth > MAX_DEPTH)
        return hg_fail(w->err, HG_STATUS_BAD_FILE, "%s: nested too deeply or endlessly at %.*s",
                       w->f->name, len > 60 ? 60 : (int)len, w->path);
    switch (x->kind) {
    case HG_PICKLE_TENSOR:
        return add_tensor(w, len, &w->p->tensors[x->u.index]);
    case HG_PICKLE_DICT:
        return walk_dict(w, x, len, depth + 1);
    case HG_PICKLE_LIST:
    case HG_PICKLE_TUPLE:
        return walk_list(w, x, len, depth + 1);
    default:
        return HG_STATUS_OK;
    }
}

/* The value of root["state_dict"] when that is a dictionary, else the root. */
static uint32_t choose_root(const struct hg_pickle *p)
{
    const struct hg_pickle_node *root = &p->nodes[p->root];
    uint32_t cell = root->u.items.first;
    for (uint32_t i = 0; i < root->u.items.n; i += 2) {
        const struct hg_pickle_node *key = &p->nodes[p->cells[cell].node];
        cell = p->cells[cell].next;
        uint32_t value = p->cells[cell].node;
        cell = p->cells[cell].next;
        if (hg_pickle_text_is(key, "state_dict") && p->nodes[value].kind == HG_PICKLE_DICT)
            return value;
    }
    return p->root;
}

enum hg_status hg_torch_tree_add(struct hg_tensor_file *f, const struct hg_pickle *p,
                                 hg_storage_find_fn find, void *ctx, struct hg_error *err)
{
    struct walk w = {.f = f, .p = p, .find = find, .ctx = ctx, .err = err};
    enum hg_pickle_kind kind = p->nodes[p->root].kind;
    if (kind == HG_PICKLE_OPAQUE || kind == HG_PICKLE_GLOBAL) {
        char text[96];
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: expected a dictionary of tensors, got the opaque %s", f->name,
                       hg_pickle_global_text(p, p->root, text, sizeof text));
    }
    if (kind != HG_PICKLE_DICT)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected a dictionary of tensors, got a %s",
                       f->name, kind == HG_PICKLE_TENSOR ? "single tensor" : "different value");
    HG_TRY(walk_node(&w, choose_root(p), 0, 0));
    if (f->n == 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: the dictionary holds no tensors", f->name);
    return HG_STATUS_OK;
}
