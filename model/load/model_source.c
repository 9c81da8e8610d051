/* model/load/model_source.c - the search for the pieces of a model. */
#include "model/load/model_source.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"

enum { MAX_SNAPSHOTS = 64, HASH_CAP = 72, MAX_REF_BYTES = 128, REL_CAP = 640, SHOWN_ROOT = 60 };

/* ---- the pieces of a card -------------------------------------------------------------------- */

static int task_of(int piece)
{
    return (piece - HG_PART_HLORA) % HG_CARD_TASKS;
}

static bool is_folder_piece(int piece)
{
    return piece == HG_PART_LLM || piece == HG_PART_VISION;
}

const char *hg_model_piece_role(int piece)
{
    static const char *const roles[HG_PART_COUNT] = {
        "language model",        "vision tower",       "VQGAN",
        "comprehension plug-in", "generation plug-in", "comprehension fusion file",
        "generation fusion file"};
    return piece >= 0 && piece < HG_PART_COUNT ? roles[piece] : "?";
}

const char *hg_model_piece_name(const struct hg_model_card *c, int piece)
{
    switch (piece) {
    case HG_PART_LLM:
        return c->llm;
    case HG_PART_VISION:
        return c->has_vision ? c->vision : "";
    case HG_PART_VQGAN:
        return c->has_vqgan ? c->vqgan_path : "";
    default:
        break;
    }
    const struct hg_task_card *t = &c->tasks[task_of(piece)];
    if (!t->present)
        return "";
    return piece < HG_PART_FUSION ? t->hlora : t->fusion;
}

const struct hg_source *hg_model_piece_source(const struct hg_model_card *c, int piece)
{
    return &c->sources[piece == HG_PART_LLM      ? HG_SOURCE_LLM
                       : piece == HG_PART_VISION ? HG_SOURCE_VISION
                       : piece == HG_PART_VQGAN  ? HG_SOURCE_VQGAN
                                                 : HG_SOURCE_PLUGINS];
}

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

void hg_model_piece_page(const struct hg_model_card *c, int piece, char *out, size_t cap)
{
    const struct hg_source *s = hg_model_piece_source(c, piece);
    const char *name = is_folder_piece(piece) ? "" : base_of(hg_model_piece_name(c, piece));
    out[0] = '\0';
    if (s->page[0] || s->repository[0])
        snprintf(out, cap, "%s%s%s%s", name, name[0] ? " of " : "",
                 s->page[0] ? s->page : "https://huggingface.co/", s->page[0] ? "" : s->repository);
}

/* ---- what is there --------------------------------------------------------------------------- */

/* One search: `found` is the best place so far. */
struct search {
    const struct hg_model_place *place;
    const struct hg_model_card *card;
    int piece;
    bool folder;
    char found[HG_PLACE_CAP];
    bool exact; /* nothing better will come */
};

static bool is_kind(const char *path, mode_t kind)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* Is the piece at root/rel? Something of the right name that is not it is kept for the message that
 * says what is wrong with it. */
static void try_place(struct search *s, const char *rel)
{
    char path[HG_PLACE_CAP], config[HG_PLACE_CAP + 16];
    struct stat st;
    if (s->exact || hg_path_join(path, sizeof path, s->place->root, rel) != HG_STATUS_OK)
        return;
    if (s->folder) {
        snprintf(config, sizeof config, "%s/config.json", path);
        s->exact = is_kind(path, S_IFDIR) && is_kind(config, S_IFREG);
    } else {
        s->exact = is_kind(path, S_IFREG);
    }
    if (s->exact || (!s->found[0] && lstat(path, &st) == 0))
        snprintf(s->found, sizeof s->found, "%s", path);
}

/* ---- a cache of huggingface_hub -------------------------------------------------------------- */

struct snapshot {
    char name[HASH_CAP];
    struct timespec when;
};

static bool is_hash(const char *s)
{
    size_t n = strspn(s, "0123456789abcdef");
    return n >= 7 && n < HASH_CAP && s[n] == '\0';
}

/* The hash in refs/main; "" when there is none. */
static void read_ref(const char *repo, char out[HASH_CAP])
{
    char path[HG_PLACE_CAP + 16];
    struct hg_buf text = {0};
    out[0] = '\0';
    snprintf(path, sizeof path, "%s/refs/main", repo);
    if (hg_file_read(path, MAX_REF_BYTES, &text, NULL) == HG_STATUS_OK && text.len > 0) {
        text.data[strcspn(text.data, " \t\r\n")] = '\0';
        if (is_hash(text.data))
            snprintf(out, HASH_CAP, "%s", text.data);
    }
    hg_buf_deinit(&text);
}

static int newest_first(const void *pa, const void *pb)
{
    const struct snapshot *a = pa, *b = pb;
    if (a->when.tv_sec != b->when.tv_sec)
        return a->when.tv_sec > b->when.tv_sec ? -1 : 1;
    if (a->when.tv_nsec != b->when.tv_nsec)
        return a->when.tv_nsec > b->when.tv_nsec ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int list_snapshots(const char *repo, struct snapshot out[MAX_SNAPSHOTS])
{
    char path[HG_PLACE_CAP + HASH_CAP + 16];
    struct stat st;
    int n = 0;
    snprintf(path, sizeof path, "%s/snapshots", repo);
    DIR *d = opendir(path);
    for (struct dirent *e; d && n < MAX_SNAPSHOTS && (e = readdir(d)) != NULL;) {
        if (!is_hash(e->d_name))
            continue;
        snprintf(out[n].name, HASH_CAP, "%.*s", HASH_CAP - 1, e->d_name);
        snprintf(path, sizeof path, "%s/snapshots/%s", repo, out[n].name);
        if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
            continue;
        out[n++].when = st.st_mtim;
    }
    if (d)
        closedir(d);
    qsort(out, (size_t)n, sizeof out[0], newest_first);
    return n;
}

static void try_snapshot(struct search *s, const char *repo, const char *hash, const char *file)
{
    char rel[REL_CAP + HASH_CAP + 16];
    int n = snprintf(rel, sizeof rel, "%s/snapshots/%s%s%s", repo, hash, file[0] ? "/" : "", file);
    if (n > 0 && (size_t)n < sizeof rel)
        try_place(s, rel);
}

/* repo: "models--owner--name" below the root. */
static void try_cache(struct search *s, const char *repo, const char *file)
{
    char path[HG_PLACE_CAP], main_hash[HASH_CAP];
    struct snapshot list[MAX_SNAPSHOTS];
    if (s->exact || hg_path_join(path, sizeof path, s->place->root, repo) != HG_STATUS_OK ||
        !is_kind(path, S_IFDIR))
        return;
    read_ref(path, main_hash);
    if (main_hash[0])
        try_snapshot(s, repo, main_hash, file);
    int n = s->exact ? 0 : list_snapshots(path, list);
    for (int i = 0; i < n; i++)
        try_snapshot(s, repo, list[i].name, file);
}

/* ---- all places ------------------------------------------------------------------------------ */

typedef void place_fn(void *ctx, const char *rel, const char *file, bool cache);

/* Every place in its order: a folder or file `rel`; with `cache` a repository of a cache, and the
 * file in its snapshots ("": the folder itself). */
static void each_place(const struct hg_model_card *c, int piece, place_fn *fn, void *ctx)
{
    const struct hg_source *s = hg_model_piece_source(c, piece);
    const char *name = hg_model_piece_name(c, piece);
    const char *file = is_folder_piece(piece) ? "" : base_of(name);
    char rel[REL_CAP], repo[2 * HG_REPOSITORY_CAP];
    fn(ctx, name, "", false);
    for (int i = 0; i < s->n_names; i++)
        fn(ctx, s->names[i], "", false);
    for (int i = -1; i < s->n_alternatives; i++) {
        const char *full = i < 0 ? s->repository : s->alternatives[i];
        const char *slash = strchr(full, '/');
        if (!slash)
            continue;
        const char *end = file[0] ? "/" : "";
        snprintf(rel, sizeof rel, "%s%s%s", slash + 1, end, file);
        fn(ctx, rel, "", false);
        snprintf(rel, sizeof rel, "%s%s%s", full, end, file);
        fn(ctx, rel, "", false);
        snprintf(repo, sizeof repo, "models--%.*s--%s", (int)(slash - full), full, slash + 1);
        fn(ctx, repo, file, true);
        snprintf(rel, sizeof rel, "hub/%s", repo);
        fn(ctx, rel, file, true);
    }
}

static void search_place(void *ctx, const char *rel, const char *file, bool cache)
{
    if (cache)
        try_cache(ctx, rel, file);
    else
        try_place(ctx, rel);
}

struct listing {
    struct hg_buf *out;
    bool failed;
};

static void list_place(void *ctx, const char *rel, const char *file, bool cache)
{
    struct listing *l = ctx;
    l->failed |= hg_buf_printf(l->out, "%s%s%s%s%s", l->out->len ? ", " : "", rel,
                               cache ? "/snapshots/*" : "", cache && file[0] ? "/" : "",
                               file) != HG_STATUS_OK;
}

enum hg_status hg_model_places_text(const struct hg_model_card *c, int piece, struct hg_buf *out)
{
    struct listing l = {.out = out};
    each_place(c, piece, list_place, &l);
    return l.failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}

static enum hg_status not_found(const struct hg_model_place *p, const struct hg_model_card *c,
                                int piece, struct hg_error *err)
{
    char page[400];
    struct hg_buf places = {0};
    size_t n = strlen(p->root);
    const char *root = n > SHOWN_ROOT ? p->root + n - SHOWN_ROOT : p->root;
    hg_model_piece_page(c, piece, page, sizeof page);
    enum hg_status status = hg_model_places_text(c, piece, &places);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "%s: out of memory", hg_model_piece_role(piece));
    else
        status =
            hg_fail(err, HG_STATUS_NOT_FOUND, "%s: %.80s: not found%s%.120s; looked in %s%s for %s",
                    hg_model_piece_role(piece), hg_model_piece_name(c, piece),
                    page[0] ? "; it comes from " : "", page, n > SHOWN_ROOT ? "..." : "", root,
                    places.data);
    hg_buf_deinit(&places);
    return status;
}

enum hg_status hg_model_find(const struct hg_model_place *p, const struct hg_model_card *c,
                             int piece, char out[HG_PLACE_CAP], struct hg_error *err)
{
    struct search s = {.place = p, .card = c, .piece = piece, .folder = is_folder_piece(piece)};
    each_place(c, piece, search_place, &s);
    if (!s.found[0])
        return not_found(p, c, piece, err);
    memcpy(out, s.found, sizeof s.found);
    return HG_STATUS_OK;
}

void hg_model_settle_tasks(const struct hg_model_place *p, struct hg_model_card *c)
{
    char path[HG_PLACE_CAP];
    for (int t = 0; t < HG_CARD_TASKS; t++) {
        struct hg_task_card *k = &c->tasks[t];
        if (k->present && k->unpublished[0])
            k->present = hg_model_find(p, c, HG_PART_HLORA + t, path, NULL) == HG_STATUS_OK;
    }
    const struct hg_task_card *draws = &c->tasks[1];
    if (!draws->present && draws->unpublished[0])
        c->has_vqgan = false;
}

/* ---- the card itself ------------------------------------------------------------------------- */

enum hg_status hg_model_place(const char *path, const char *weights, struct hg_model_place *out,
                              struct hg_error *err)
{
    memset(out, 0, sizeof *out);
    bool folder = is_kind(path, S_IFDIR);
    if (strlen(path) >= sizeof out->dir ||
        (folder && hg_path_join(out->card, sizeof out->card, path, "healthgpt.json") != 0))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "--model: path too long");
    snprintf(out->dir, sizeof out->dir, "%s", path);
    if (!folder) {
        snprintf(out->card, sizeof out->card, "%s", path);
        char *slash = strrchr(out->dir, '/');
        if (slash)
            slash[slash == out->dir] = '\0';
        else
            snprintf(out->dir, sizeof out->dir, ".");
    }
    if (!hg_file_exists(out->card))
        return hg_fail(err, HG_STATUS_NOT_FOUND, "--model %.120s: no %s", path,
                       folder ? "healthgpt.json in this folder"
                              : "such card file, nor a folder with healthgpt.json");
    if (!weights || !weights[0])
        weights = out->dir;
    else if (!is_kind(weights, S_IFDIR))
        return hg_fail(err, HG_STATUS_NOT_FOUND, "--weights %.200s: no such folder", weights);
    if (strlen(weights) >= sizeof out->root)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "--weights: path too long");
    snprintf(out->root, sizeof out->root, "%s", weights);
    return HG_STATUS_OK;
}
