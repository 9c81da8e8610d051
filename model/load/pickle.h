/* model/load/pickle.h - restricted reader of the pickles inside torch files (private to
 * model/load).
 *
 * Not an unpickler: bytes -> a graph of plain nodes. Nothing is imported, called or constructed.
 *
 * Rule for globals, in this order:
 *  1. A global of a module that is known for running code (os, subprocess, builtins.eval, pickle,
 * ...; table in pickle_object.c) refuses the whole file, by name, wherever it stands. This is a
 * courtesy to the operator: nothing would run anyhow, but such a file is an attack and not a model.
 *  2. A global with a meaning (OrderedDict, tensor and parameter rebuilders, torch.*Storage,
 *     torch.<dtype>, torch.Size) makes the dictionary, tensor or tuple it stands for.
 *  3. Any other global is opaque, and so is everything made by calling it or built on it. Opaque
 *     nodes hold no data and no tensor comes from them. torch_tree.c refuses a file whose root is
 * opaque, or that keeps an opaque node inside a dictionary that also holds tensors directly (there
 * it could only stand for a weight). Elsewhere, such as in the callbacks, arguments and optimizer
 *     states of a Lightning checkpoint, opaque nodes are passed over.
 *
 * Bounds: 1M opcodes, memo 1M, items of containers 2M, stack and marks 10,000, lists of dimensions
 * 8; strings are slices of the input, so memory is bounded by about 200 bytes for each opcode. */
#ifndef HG_MODEL_LOAD_PICKLE_H
#define HG_MODEL_LOAD_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "model/load/tensor_file.h"

enum hg_pickle_kind {
    HG_PICKLE_NONE,
    HG_PICKLE_BOOL,    /* .integer */
    HG_PICKLE_INT,     /* .integer */
    HG_PICKLE_NUMBER,  /* a float or an integer beyond 64 bits: the value is not kept */
    HG_PICKLE_STRING,  /* .text */
    HG_PICKLE_BYTES,   /* .text */
    HG_PICKLE_TUPLE,   /* .items */
    HG_PICKLE_LIST,    /* .items */
    HG_PICKLE_DICT,    /* .items: key, value, key, value ... */
    HG_PICKLE_GLOBAL,  /* .global */
    HG_PICKLE_STORAGE, /* .index into storages */
    HG_PICKLE_TENSOR,  /* .index into tensors */
    HG_PICKLE_OPAQUE,  /* .index: the GLOBAL node that it came from, or HG_PICKLE_NO_NODE */
};

#define HG_PICKLE_NO_NODE UINT32_MAX

struct hg_pickle_node {
    enum hg_pickle_kind kind;
    union {
        int64_t integer;
        uint32_t index;
        struct {
            const char *s; /* inside the input, not terminated */
            size_t n;
        } text;
        struct {
            uint32_t n, first, last; /* first and last: cells */
        } items;
        struct {
            uint32_t module, name; /* STRING nodes */
            int meaning;           /* enum meaning of pickle_object.c */
        } global;
    } u;
};

struct hg_pickle_cell {
    uint32_t node, next;
};

struct hg_pickle_storage {
    const char *key; /* not terminated */
    size_t key_len;
    enum hg_tensor_type type; /* U8 when untyped */
    int untyped;
    int64_t numel;                   /* of the whole storage, in elements (bytes when untyped) */
    int64_t view_offset, view_numel; /* legacy view of a storage; 0 and numel otherwise */
};

struct hg_pickle_tensor {
    uint32_t storage;
    int64_t offset;     /* elements */
    struct hg_tensor t; /* type, n_dims, dims, strides */
};

struct hg_pickle {
    struct hg_pickle_node *nodes;
    struct hg_pickle_cell *cells;
    struct hg_pickle_storage *storages;
    struct hg_pickle_tensor *tensors;
    size_t n_nodes, n_cells, n_storages, n_tensors;
    size_t cap_nodes, cap_cells, cap_storages, cap_tensors;
    uint32_t root;
    size_t used_bytes; /* up to and with STOP */
};

/* Read one pickle at data[0..n). `name` is for messages. On failure *out is empty. */
enum hg_status hg_pickle_parse(const char *name, const unsigned char *data, size_t n,
                               struct hg_pickle *out, struct hg_error *err);
void hg_pickle_deinit(struct hg_pickle *p);

/* Text of a STRING node equals s. */
int hg_pickle_text_is(const struct hg_pickle_node *node, const char *s);
/* "module.name" of a GLOBAL or OPAQUE node into out, unprintable bytes as '?'. */
const char *hg_pickle_global_text(const struct hg_pickle *p, uint32_t node, char *out, size_t cap);

/* A pickle outside a torch container cannot hold tensors: always fails, and names a code-running
 * global when there is one. */
enum hg_status hg_pickle_refuse_bare(const char *name, const unsigned char *data, size_t n,
                                     struct hg_error *err);

/* Give the tensors under the root (under root["state_dict"] when there is one) their dotted names
 * and append them to f. find(ctx, storage, view) finds the bytes of a storage. */
struct hg_tensor_file;
struct hg_storage_view;
typedef enum hg_status (*hg_storage_find_fn)(void *ctx, const struct hg_pickle_storage *s,
                                             struct hg_storage_view *out, struct hg_error *err);
enum hg_status hg_torch_tree_add(struct hg_tensor_file *f, const struct hg_pickle *p,
                                 hg_storage_find_fn find, void *ctx, struct hg_error *err);

#endif
