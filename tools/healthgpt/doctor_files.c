/* tools/healthgpt/doctor_files.c - is a file there, and is it what its name says? */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/json_read.h"
#include "model/load/json_check.h"
#include "model/load/odd_file.h"
#include "tools/healthgpt/doctor_model.h"

enum { HEAD_CAP = 512, MAX_SHARDS = 256, MAX_INDEX_BYTES = 16 << 20, MAX_INDEX_VALUES = 400000 };

/* Is the name that of a piece, or below it? Then where it was found, and the rest of the name. */
static const char *found_at(const struct hg_doctor_model *m, const char *name, const char **rest)
{
    for (int i = 0; i < HG_PART_COUNT; i++) {
        const char *piece = hg_model_piece_name(&m->card, i);
        size_t n = strlen(piece);
        if (n == 0 || !m->found[i][0] || strncmp(name, piece, n) != 0)
            continue;
        *rest = name + n;
        if (name[n] == '\0' || name[n] == '/')
            return m->found[i];
    }
    return NULL;
}

bool hg_doctor_path(const struct hg_doctor_model *m, const char *name, char out[HG_DOCTOR_PATH])
{
    const char *rest, *found = found_at(m, name, &rest);
    if (found)
        return snprintf(out, HG_DOCTOR_PATH, "%s%s", found, rest) < HG_DOCTOR_PATH;
    return name[0] ? hg_path_join(out, HG_DOCTOR_PATH, m->root, name) == HG_STATUS_OK
                   : snprintf(out, HG_DOCTOR_PATH, "%s", m->root) < HG_DOCTOR_PATH;
}

/* ---- what lies under a name ------------------------------------------------------------------ */

struct look {
    const char *state; /* in the document */
    char why[200];
    int64_t bytes, real_bytes; /* real: what a git-LFS pointer stands for; 0: not known */
    enum hg_status status;
};

static void set(struct look *l, const char *state, enum hg_status status, const char *why)
{
    l->state = state;
    l->status = status;
    snprintf(l->why, sizeof l->why, "%.199s", why);
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a folder, not a file"
           : S_ISFIFO(mode) ? "a FIFO, not a file"
           : S_ISSOCK(mode) ? "a socket, not a file"
                            : "a device, not a file";
}

/* The first bytes of a regular file. */
static bool read_head(const char *path, char head[HEAD_CAP], size_t *n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd >= 0 ? read(fd, head, HEAD_CAP) : -1;
    if (fd >= 0)
        close(fd);
    *n = got > 0 ? (size_t)got : 0;
    return got >= 0;
}

static void look_at_head(const char *path, struct look *l)
{
    char head[HEAD_CAP];
    size_t n = 0;
    if (!read_head(path, head, &n)) {
        set(l, "unreadable", HG_STATUS_IO, strerror(errno));
        return;
    }
    enum hg_odd_file odd = hg_odd_file_of(head, n, &l->real_bytes);
    if (odd != HG_ODD_NONE)
        set(l, odd == HG_ODD_LFS_POINTER ? "git_lfs_pointer" : "web_page", HG_STATUS_BAD_FILE,
            hg_odd_file_text(odd));
}

static struct look look_at(const char *path)
{
    struct look l = {.state = "ok"};
    struct stat st;
    if (stat(path, &st) != 0) {
        int e = errno;
        bool dangling = e == ENOENT && lstat(path, &st) == 0;
        if (dangling)
            set(&l, "missing", HG_STATUS_NOT_FOUND, "a symbolic link to nothing");
        else if (e == ENOENT || e == ENOTDIR)
            set(&l, "missing", HG_STATUS_NOT_FOUND, "missing");
        else
            set(&l, "unreadable", HG_STATUS_IO,
                e == ELOOP ? "symbolic links that run in a circle" : strerror(e));
        return l;
    }
    l.bytes = (int64_t)st.st_size;
    if (!S_ISREG(st.st_mode))
        set(&l, "not_a_file", HG_STATUS_BAD_FILE, kind_of(st.st_mode));
    else if (st.st_size == 0)
        set(&l, "empty", HG_STATUS_BAD_FILE, "empty");
    else
        look_at_head(path, &l);
    return l;
}

/* ---- findings -------------------------------------------------------------------------------- */

void hg_doctor_size_text(int64_t bytes, char out[32])
{
    if (bytes >= 100000000)
        snprintf(out, 32, "%.2f GB", (double)bytes / 1e9);
    else if (bytes >= 100000)
        snprintf(out, 32, "%.1f MB", (double)bytes / 1e6);
    else
        snprintf(out, 32, "%d bytes", (int)bytes);
}

static void put_file(struct hg_doctor_model *m, const char *name, const struct look *l,
                     const struct hg_tensor_file *f, const struct hg_inspect_sum *sum)
{
    struct hg_json_out *o = m->d->o;
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "file", name);
    hg_out_int(o, "bytes", l->bytes);
    hg_out_string(o, "state", l->state);
    if (f) {
        hg_out_string(o, "container", hg_tensor_file_container(f));
        hg_out_uint(o, "n_tensors", hg_tensor_file_count(f));
        hg_inspect_put_types(sum, o);
    }
    hg_out_close(o, '}');
}

/* Where it comes from, and with --weights where it was looked for. */
static void say_missing(struct hg_doctor_model *m, const char *name, const char *why,
                        enum hg_doctor_part part)
{
    static const int piece_of[] = {HG_PART_LLM,   HG_PART_VISION,    HG_PART_VQGAN,
                                   HG_PART_HLORA, HG_PART_HLORA + 1, HG_PART_FUSION + 1,
                                   HG_PART_COUNT};
    struct hg_buf places = {0};
    char source[256];
    int piece = piece_of[part];
    hg_doctor_source(m, part, source);
    if (m->lists_places && piece < HG_PART_COUNT && !m->found[piece][0])
        hg_model_places_text(&m->card, piece, &places);
    HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "missing",
                        "%.120s: %s\nit comes from %s%s%.500s", name, why, source,
                        places.len ? "; looked for " : "", places.len ? places.data : "");
    hg_buf_deinit(&places);
}

/* What is wrong, and where the file comes from. */
static void complain(struct hg_doctor_model *m, const char *name, const struct look *l,
                     enum hg_doctor_part part)
{
    char source[256], real[32], bytes[32];
    hg_doctor_source(m, part, source);
    hg_doctor_size_text(l->bytes, bytes);
    hg_doctor_size_text(l->real_bytes, real);
    m->n_bad++;
    if (strcmp(l->state, "git_lfs_pointer") == 0)
        HG_DOCTOR_FAIL_NOTE(m->d, l->status, l->state,
                            "%.120s: %s (%s here, %s there)\nrun \"git lfs pull\" in the clone it "
                            "is from, or download it from %s",
                            name, l->why, bytes, l->real_bytes > 0 ? real : "more", source);
    else if (strcmp(l->state, "missing") == 0)
        say_missing(m, name, l->why, part);
    else
        HG_DOCTOR_FAIL_NOTE(m->d, l->status, l->state, "%.120s: %s (%s)\ndownload it again: %s",
                            name, l->why, bytes, source);
}

bool hg_doctor_small_file(struct hg_doctor_model *m, const char *sub, const char *name,
                          enum hg_doctor_part part)
{
    char path[HG_DOCTOR_PATH], shown[300];
    snprintf(shown, sizeof shown, "%.200s%s%.80s", sub, sub[0] ? "/" : "", name);
    if (!hg_doctor_path(m, shown, path))
        return false;
    struct look l = look_at(path);
    put_file(m, shown, &l, NULL, NULL);
    if (l.status == HG_STATUS_OK)
        return true;
    complain(m, shown, &l, part);
    return false;
}

/* The reader's own message without the path before it; a cut file is named so. */
static void explain(struct look *l, const char *path, const struct hg_error *err)
{
    size_t n = strlen(path);
    bool named = strncmp(err->text, path, n) == 0 && strncmp(err->text + n, ": ", 2) == 0;
    const char *text = named ? err->text + n + 2 : err->text;
    bool cut = strstr(text, "cut short") || strstr(text, "truncated") ||
               (strncmp(text, "header of ", 10) == 0 && strstr(text, " in a file of "));
    set(l, cut ? "truncated" : "unreadable", err->status, text);
}

bool hg_doctor_weight_file(struct hg_doctor_model *m, const char *name, enum hg_doctor_part part,
                           struct hg_inspect_sum *sum)
{
    char path[HG_DOCTOR_PATH], bytes[32];
    struct hg_tensor_file *f = NULL;
    struct hg_error err = {0};
    struct hg_inspect_sum own = {0};
    if (!hg_doctor_path(m, name, path))
        return false;
    struct look l = look_at(path);
    bool late = hg_now_ns() > m->d->deadline_ns;
    if (l.status == HG_STATUS_OK && late) {
        if (!m->late)
            HG_DOCTOR_WARN_NOTE(m->d, "late",
                                "%.120s and later files: headers not read, it has taken too long\n"
                                "look at the disk or network that the folder is on",
                                name);
        m->late = true;
        set(&l, "not_read", HG_STATUS_OK, "");
    } else if (l.status == HG_STATUS_OK && hg_tensor_file_open(path, &f, &err) != HG_STATUS_OK) {
        explain(&l, path, &err);
    }
    if (f)
        hg_inspect_add_tensors(&own, f);
    own.file_bytes = l.bytes;
    own.n_files = 1;
    put_file(m, name, &l, f, &own);
    hg_doctor_size_text(l.bytes, bytes);
    if (l.status != HG_STATUS_OK)
        complain(m, name, &l, part);
    else if (f)
        HG_DOCTOR_OK_NOTE(m->d, "file", "%.120s: %s, %s, %zu tensors", name, bytes,
                          hg_tensor_file_container(f), hg_tensor_file_count(f));
    hg_tensor_file_close(f);
    if (sum)
        hg_inspect_add(sum, &own);
    hg_inspect_add(&m->part.all, &own);
    return l.status == HG_STATUS_OK && !m->late;
}

/* ---- folders --------------------------------------------------------------------------------- */

/* The index as model/load/weights.c bounds it; NULL: a finding says why. */
static json_t *read_index(struct hg_doctor_model *m, const char *name, const char *path)
{
    struct hg_buf text = {0};
    struct hg_error err = {0};
    json_t *doc = NULL;
    json_error_t why;
    if (hg_file_read(path, MAX_INDEX_BYTES, &text, &err) == HG_STATUS_OK &&
        hg_json_check(name, text.data, text.len, MAX_INDEX_VALUES, 8, &err) == HG_STATUS_OK &&
        hg_json_read(text.data, text.len, JSON_REJECT_DUPLICATES, &doc, &why) != HG_STATUS_OK)
        doc = NULL;
    if (!doc || json_object_size(json_object_get(doc, "weight_map")) == 0) {
        HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_BAD_FILE, "index",
                            "%.120s: no index of shards%s%.150s\ndownload it again", name,
                            err.text[0] ? ": " : "", err.text);
        m->n_bad++;
        json_decref(doc);
        doc = NULL;
    }
    hg_buf_deinit(&text);
    return doc;
}

static bool shards_of(struct hg_doctor_model *m, const char *sub, const char *index,
                      const char *path, enum hg_doctor_part part, struct hg_inspect_sum *sum)
{
    char name[300];
    const char *tensor, *shard;
    json_t *value, *seen = json_object(), *doc = read_index(m, index, path);
    bool good = doc != NULL;
    json_object_foreach(json_object_get(doc, "weight_map"), tensor, value)
    {
        shard = json_string_value(value);
        if (!shard || !shard[0] || strchr(shard, '/') || json_object_get(seen, shard) ||
            json_object_size(seen) >= MAX_SHARDS)
            continue;
        json_object_set_new(seen, shard, json_true());
        snprintf(name, sizeof name, "%.200s%s%.90s", sub, sub[0] ? "/" : "", shard);
        good &= hg_doctor_weight_file(m, name, part, sum);
    }
    json_decref(seen);
    json_decref(doc);
    return good;
}

/* Is there a folder of this name? Its path; a finding when there is not. */
static bool is_folder(struct hg_doctor_model *m, const char *sub, enum hg_doctor_part part)
{
    char path[HG_DOCTOR_PATH], source[256], shown[260];
    struct stat st;
    snprintf(shown, sizeof shown, "%.250s/", sub);
    if (!hg_doctor_path(m, sub, path))
        return false;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    int e = errno;
    bool there = lstat(path, &st) == 0, loop = there && S_ISLNK(st.st_mode) && e == ELOOP;
    hg_doctor_source(m, part, source);
    m->n_bad++;
    if (there)
        HG_DOCTOR_FAIL_NOTE(m->d, loop ? HG_STATUS_IO : HG_STATUS_BAD_FILE, "not_a_folder",
                            "%.120s: %s\nmake it a folder with the files of %s", sub,
                            loop                  ? "symbolic links that run in a circle"
                            : S_ISLNK(st.st_mode) ? "a symbolic link to nothing"
                                                  : "not a folder",
                            source);
    else
        say_missing(m, shown, "the folder is missing", part);
    return false;
}

bool hg_doctor_weight_folder(struct hg_doctor_model *m, const char *sub, enum hg_doctor_part part,
                             struct hg_inspect_sum *sum)
{
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors",
                                        "pytorch_model.bin.index.json", "pytorch_model.bin"};
    char path[HG_DOCTOR_PATH], name[300], source[256];
    struct stat st;
    if (!is_folder(m, sub, part))
        return false;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%.200s%s%s", sub, sub[0] ? "/" : "", names[i]);
        if (!hg_doctor_path(m, name, path) || lstat(path, &st) != 0)
            continue;
        return i % 2 ? hg_doctor_weight_file(m, name, part, sum)
                     : hg_doctor_small_file(m, sub, names[i], part) &&
                           shards_of(m, sub, name, path, part, sum);
    }
    hg_doctor_source(m, part, source);
    m->n_bad++;
    HG_DOCTOR_FAIL_NOTE(m->d, HG_STATUS_NOT_FOUND, "missing",
                        "%.120s%sno weights: expected model.safetensors, shards with "
                        "model.safetensors.index.json, or pytorch_model.bin\nthey come from %s",
                        sub, sub[0] ? "/: " : "", source);
    return false;
}
