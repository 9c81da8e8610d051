/* model/load/weights_dir.c - weight files of a folder: one, shards under an index, a plug-in. */
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json_read.h"
#include "model/load/json_check.h"
#include "model/load/weights.h"

enum {
    PATH_CAP = 4096,
    MAX_INDEX_BYTES = 16 << 20,
    MAX_INDEX_VALUES = 400000,
    MAX_INDEX_DEPTH = 8,
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

/* "folder/name" of a path. */
static const char *short_path(const char *path)
{
    size_t n = strlen(path), slashes = 0, i = n;
    while (i > 0 && n - i < 72 && (slashes += path[i - 1] == '/') < 2)
        i--;
    return path + i;
}

/* A folder of LLaVA's training: what PEFT saved, and what was trained beside it. */
enum hg_status hg_weights_add_adapter_dir(struct hg_weights *w, const char *dir,
                                          struct hg_error *err)
{
    static const char *const names[] = {"adapter_model.safetensors", "adapter_model.bin",
                                        "non_lora_trainables.bin"};
    char path[PATH_CAP];
    bool adapter = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (hg_path_join(path, sizeof path, dir, names[i]) != HG_STATUS_OK)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: path is too long", dir);
        if (!hg_file_exists(path) || (i == 1 && adapter))
            continue;
        HG_TRY(hg_weights_add_file(w, path, err));
        adapter |= i < 2;
    }
    return adapter ? HG_STATUS_OK
                   : hg_fail(err, HG_STATUS_NOT_FOUND,
                             "%.100s: a folder without adapter_model.safetensors or .bin", dir);
}

/* A shard is a plain file name beside its index. */
static bool shard_name_is_plain(const char *s)
{
    return s && s[0] && s[0] != '.' && !strchr(s, '/') && !strchr(s, '\\') && !strstr(s, "..");
}

static enum hg_status add_shard(struct hg_weights *w, const char *dir, json_t *map,
                                const char *shard, struct hg_error *err)
{
    char path[PATH_CAP];
    const char *name;
    json_t *value;
    if (hg_path_join(path, sizeof path, dir, shard) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: path is too long", shard);
    enum hg_status status = hg_weights_add_file(w, path, err);
    if (status == HG_STATUS_NOT_FOUND)
        return hg_fail(err, status, "%s: missing, though the index of shards beside it names it",
                       short_path(path));
    HG_TRY(status);
    struct hg_weights_file f = hg_weights_file_at(w, hg_weights_n_files(w) - 1);
    json_object_foreach(map, name, value)
    {
        if (strcmp(json_string_value(value), shard) == 0 && !hg_tensor_file_find(f.tensors, name))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "%s: tensor %.80s: missing, though the index places it here", f.name,
                           name);
    }
    return HG_STATUS_OK;
}

/* Each shard once, in the order of first mention. */
static enum hg_status add_shards(struct hg_weights *w, const char *dir, const char *index,
                                 json_t *root, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    const char *name;
    json_t *value, *map = json_object_get(root, "weight_map"), *seen = json_object();
    if (!seen || !json_object_size(map)) {
        status =
            hg_fail(err, HG_STATUS_BAD_FILE, "%s: weight_map: expected a filled object", index);
        goto out;
    }
    json_object_foreach(map, name, value)
    {
        if (!shard_name_is_plain(json_string_value(value))) {
            status = hg_fail(err, HG_STATUS_BAD_FILE,
                             "%s: weight_map.%.60s: expected a plain file name, got \"%.60s\"",
                             index, name, json_is_string(value) ? json_string_value(value) : "?");
            goto out;
        }
    }
    json_object_foreach(map, name, value)
    {
        const char *shard = json_string_value(value);
        if (json_object_get(seen, shard))
            continue;
        if (json_object_set_new(seen, shard, json_true()) != 0) {
            status = hg_fail(err, HG_STATUS_NO_MEMORY, "%s: out of memory", index);
            goto out;
        }
        HG_TRY_OUT(add_shard(w, dir, map, shard, err));
    }
out:
    json_decref(seen);
    return status;
}

static enum hg_status add_index(struct hg_weights *w, const char *dir, const char *path,
                                struct hg_error *err)
{
    struct hg_buf text = {0};
    json_t *root = NULL;
    json_error_t why;
    const char *index = short_path(path);
    enum hg_status status = HG_STATUS_OK;
    HG_TRY_OUT(hg_file_read(path, MAX_INDEX_BYTES, &text, err));
    HG_TRY_OUT(hg_json_check(index, text.data, text.len, MAX_INDEX_VALUES, MAX_INDEX_DEPTH, err));
    status = hg_json_read(text.data, text.len, JSON_REJECT_DUPLICATES, &root, &why);
    if (status == HG_STATUS_OK)
        status = add_shards(w, dir, index, root, err);
    else if (status == HG_STATUS_NO_MEMORY)
        hg_fail(err, status, "%s: out of memory", index);
    else
        status = hg_fail(err, HG_STATUS_BAD_FILE, "%s: line %d: %s", index, why.line, why.text);
out:
    json_decref(root);
    hg_buf_deinit(&text);
    return status;
}

enum hg_status hg_weights_add_dir(struct hg_weights *w, const char *dir, struct hg_error *err)
{
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors",
                                        "pytorch_model.bin.index.json", "pytorch_model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_CAP];
        if (hg_path_join(path, sizeof path, dir, names[i]) != HG_STATUS_OK)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%.80s: path is too long", dir);
        if (!hg_file_exists(path))
            continue;
        return ends_with(path, ".json") ? add_index(w, dir, path, err)
                                        : hg_weights_add_file(w, path, err);
    }
    return hg_fail(err, HG_STATUS_NOT_FOUND,
                   "%.100s: has no model.safetensors, pytorch_model.bin or index of shards", dir);
}
