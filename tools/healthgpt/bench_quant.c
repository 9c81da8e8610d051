/* tools/healthgpt/bench_quant.c - one storage type after the other: load, run, compare, free. */
#include "tools/healthgpt/bench_quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/machine.h"
#include "model/text/tokenizer.h"
#include "server/config/config_table.h"
#include "tools/healthgpt/bench_floor.h"
#include "tools/healthgpt/run.h"

static const char default_types[] =
    "f32,bf16,f16,int8,fp8,int4,int8/kv-int8,int8/plugins-int8,int4/kv-int8/plugins-int8";

/* What is kept of a yardstick: a distribution per position of every item. */
struct kept {
    struct hg_quant_dist **at; /* [set.n][forced.n], NULL: it did not run */
};

struct bench {
    const struct hg_cli *cli;
    struct hg_quant_set set;
    struct hg_quant_report report;
    struct hg_quant_ids *text; /* [set.n] what all are held to: bf16's answers, given texts */
    struct kept kept[HG_QUANT_YARDSTICKS];
    bool *right; /* [set.n] of bf16 */
};

/* One type's run. */
struct trial {
    struct bench *b;
    struct hg_quant_row *row;
    int yardstick; /* it is one itself, or HG_QUANT_YARDSTICKS */
    struct hg_quant_sample kl[HG_QUANT_YARDSTICKS][HG_TASK_COUNT];
    size_t *differs; /* [set.n] first position with another choice than bf16's; SIZE_MAX: none */
    double nll;
};

static enum hg_status no_memory(struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
}

/* ---- types ----------------------------------------------------------------------------------- */

static enum hg_status set_type(char out[8], const char *key, const char *value, size_t n,
                               struct hg_error *err)
{
    char text[16], near[32];
    struct hg_config scratch;
    const struct hg_config_row *r = hg_config_row_of_key(key);
    snprintf(text, sizeof text, "%.*s", (int)(n < 15 ? n : 15), value);
    if (!r || strcmp(text, "auto") == 0 || !hg_config_put_text(&scratch, r, text)) {
        const char *meant = r ? hg_config_nearest_choice(r, text, near) : NULL;
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "--types: %s: expected one of %s, got \"%s\"%s%s%s", key,
                       r ? r->choices + strlen("auto|") : "", text, meant ? "; did you mean " : "",
                       meant ? meant : "", meant ? "?" : "");
    }
    snprintf(out, 8, "%.7s", text);
    return HG_STATUS_OK;
}

/* "int8/kv-int8/plugins-int8" */
static enum hg_status read_type(const char *text, size_t n, struct hg_quant_row *row,
                                struct hg_error *err)
{
    *row = (struct hg_quant_row){.kv_dtype = "auto", .plugin_dtype = "auto"};
    snprintf(row->name, sizeof row->name, "%.*s", (int)(n < 63 ? n : 63), text);
    for (size_t at = 0, i = 0; at <= n; i++) {
        const char *piece = text + at;
        size_t len = strcspn(piece, "/,");
        len = len < n - at ? len : n - at;
        if (i == 0)
            HG_TRY(set_type(row->dtype, "dtype", piece, len, err));
        else if (len > 3 && strncmp(piece, "kv-", 3) == 0)
            HG_TRY(set_type(row->kv_dtype, "kv_dtype", piece + 3, len - 3, err));
        else if (len > 8 && strncmp(piece, "plugins-", 8) == 0)
            HG_TRY(set_type(row->plugin_dtype, "plugin_dtype", piece + 8, len - 8, err));
        else
            return hg_fail(err, HG_STATUS_BAD_REQUEST,
                           "--types: expected TYPE, TYPE/kv-TYPE, TYPE/plugins-TYPE, got %.*s",
                           (int)(n < 63 ? n : 63), text);
        at += len + 1;
    }
    return HG_STATUS_OK;
}

/* bf16 is among them: it says what all are held to. */
static enum hg_status read_types(const char *list, struct hg_quant_report *r, struct hg_error *err)
{
    bool found = false;
    for (const char *at = list ? list : default_types; at;) {
        size_t n = strcspn(at, ",");
        if (r->n_rows == HG_QUANT_MAX_TYPES - 1)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "--types: at most %d",
                           HG_QUANT_MAX_TYPES - 1);
        HG_TRY(read_type(at, n, &r->rows[r->n_rows], err));
        found |= strcmp(r->rows[r->n_rows++].name, "bf16") == 0;
        at = at[n] ? at + n + 1 : NULL;
    }
    return found ? HG_STATUS_OK : read_type("bf16", 4, &r->rows[r->n_rows++], err);
}

/* ---- positions ------------------------------------------------------------------------------- */

static enum hg_status on_position(void *ctx, size_t item, size_t k, int32_t own,
                                  const float *logits, size_t n, int32_t first,
                                  struct hg_error *err)
{
    struct trial *t = ctx;
    struct bench *b = t->b;
    const struct hg_quant_item *q = &b->set.items[item];
    const struct hg_quant_dist *bf16 = NULL;
    enum hg_status status = HG_STATUS_OK;
    if (q->kind == HG_QUANT_TEXT) {
        int32_t at = b->text[item].at[k] - first;
        if (at < 0 || (size_t)at >= n)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "text_ids: id %d is not one of a text's",
                           b->text[item].at[k]);
        t->nll += hg_quant_log_sum(logits, n) - (double)logits[at];
        t->row->n_text++;
    }
    b->report.truncated |= n > HG_QUANT_FULL;
    for (int y = 0; y < HG_QUANT_YARDSTICKS && status == HG_STATUS_OK; y++) {
        if (!b->kept[y].at || y == t->yardstick)
            continue;
        const struct hg_quant_dist *p = &b->kept[y].at[item][k];
        bf16 = y == HG_QUANT_BF16 ? p : bf16;
        status = hg_quant_sample_add(&t->kl[y][q->task], hg_quant_divergence(p, logits, n),
                                     p->own == own);
    }
    if (bf16 && bf16->own != own && k < t->differs[item])
        t->differs[item] = k;
    if (status == HG_STATUS_OK && t->yardstick < HG_QUANT_YARDSTICKS)
        status = hg_quant_dist_set(&b->kept[t->yardstick].at[item][k], own, logits, n);
    return status == HG_STATUS_OK ? status : no_memory(err);
}

static enum hg_status open_kept(struct bench *b, int yardstick, struct hg_error *err)
{
    struct kept *k = &b->kept[yardstick];
    k->at = calloc(b->set.n, sizeof(struct hg_quant_dist *));
    if (!k->at)
        return no_memory(err);
    for (size_t i = 0; i < b->set.n; i++) {
        k->at[i] = calloc(b->text[i].n ? b->text[i].n : 1, sizeof **k->at);
        if (!k->at[i])
            return no_memory(err);
    }
    return HG_STATUS_OK;
}

static void close_kept(struct bench *b, int yardstick)
{
    struct kept *k = &b->kept[yardstick];
    for (size_t i = 0; k->at && i < b->set.n; i++) {
        for (size_t p = 0; k->at[i] && p < b->text[i].n; p++)
            hg_quant_dist_deinit(&k->at[i][p]);
        free(k->at[i]);
    }
    free(k->at);
    k->at = NULL;
}

/* bf16 against f32, when both are kept. */
static enum hg_status compare_kept(struct bench *b, struct hg_quant_row *bf16, struct hg_error *err)
{
    struct hg_quant_sample kl[HG_TASK_COUNT] = {0};
    enum hg_status status = HG_STATUS_OK;
    for (size_t i = 0; i < b->set.n && status == HG_STATUS_OK; i++)
        for (size_t k = 0; k < b->text[i].n && status == HG_STATUS_OK; k++) {
            const struct hg_quant_dist *p = &b->kept[HG_QUANT_F32].at[i][k];
            const struct hg_quant_dist *q = &b->kept[HG_QUANT_BF16].at[i][k];
            status = hg_quant_sample_add(&kl[b->set.items[i].task], hg_quant_divergence_kept(p, q),
                                         p->own == q->own);
        }
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        hg_quant_summarise(&kl[t], &bf16->kl[HG_QUANT_F32][t]);
        free(kl[t].v);
    }
    return status == HG_STATUS_OK ? status : no_memory(err);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Whether the ids, the last of which may be a stop, say what is expected, blanks around it aside.
 */
static bool is_right(const struct hg_model *m, const struct hg_quant_ids *ids, const char *expect)
{
    struct hg_detok d;
    struct hg_buf text = {0};
    const struct hg_tokenizer *t = hg_model_tokenizer(m);
    if (!t)
        return false;
    hg_detok_init(&d, t, false);
    for (size_t i = 0; i < ids->n; i++)
        hg_detok_push(&d, ids->at[i], &text);
    hg_detok_finish(&d, &text);
    const char *blanks = " \t\r\n", *from = text.data ? text.data : "";
    from += strspn(from, blanks);
    size_t n = strlen(from);
    while (n > 0 && strchr(blanks, from[n - 1]))
        n--;
    bool right = strlen(expect) == n && memcmp(from, expect, n) == 0;
    hg_buf_deinit(&text);
    return right;
}

static bool is_answer(const struct hg_quant_item *q)
{
    return q->kind == HG_QUANT_ANSWER && q->task == HG_TASK_COMPREHENSION;
}

static bool is_drawing(const struct hg_quant_item *q)
{
    return q->kind == HG_QUANT_ANSWER && q->task == HG_TASK_GENERATION;
}

/* own: free answers of the items that went another way, NULL for bf16 itself. */
static void count_answers(struct bench *b, const struct hg_model *m, const struct trial *t,
                          const struct hg_quant_ids *own)
{
    struct hg_quant_row *row = t->row;
    for (size_t i = 0; i < b->set.n; i++) {
        const struct hg_quant_item *q = &b->set.items[i];
        bool same = !own || t->differs[i] == SIZE_MAX;
        const struct hg_quant_ids *said = same ? &b->text[i] : &own[i], *text = &b->text[i];
        if (is_answer(q)) {
            row->n_answers++;
            row->n_equal += same;
            row->n_tokens += text->n;
            row->n_leading += same ? text->n : t->differs[i];
        }
        if (is_drawing(q)) {
            row->n_drawn += text->n;
            for (size_t k = 0; k < text->n && k < said->n; k++)
                row->n_drawn_equal += said->at[k] == text->at[k];
        }
        if (!is_answer(q) || !q->expect)
            continue;
        bool right = is_right(m, said, q->expect);
        if (!own)
            b->right[i] = right;
        row->n_known++;
        row->n_right += right;
        row->n_better += right && !b->right[i];
        row->n_worse += !right && b->right[i];
    }
}

/* Free answers where they can differ and where somebody wants to know. */
static enum hg_status run_freely(struct bench *b, struct hg_model *m, struct trial *t,
                                 struct hg_error *err)
{
    bool *only = calloc(b->set.n, sizeof *only);
    struct hg_quant_ids *own = calloc(b->set.n, sizeof *own);
    enum hg_status status = HG_STATUS_OK;
    char label[96];
    snprintf(label, sizeof label, "%s, own answers", t->row->name);
    if (!only || !own) {
        status = no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < b->set.n; i++) {
        const struct hg_quant_item *q = &b->set.items[i];
        only[i] = t->differs[i] != SIZE_MAX && (is_drawing(q) || (is_answer(q) && q->expect));
    }
    struct hg_quant_run r = {.model = m, .set = &b->set, .only = only, .own = own, .label = label};
    HG_TRY_OUT(hg_quant_run(&r, err));
    count_answers(b, m, t, own);
out:
    hg_quant_ids_free(own, own ? b->set.n : 0);
    free(only);
    return status;
}

/* ---- a type ---------------------------------------------------------------------------------- */

static void put_sizes(const struct hg_model *m, struct hg_quant_row *row)
{
    struct hg_model_info i;
    hg_model_info(m, &i);
    row->linear_bytes = hg_bench_linear_bytes(m);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        row->plugin_bytes += (double)i.plugin_bytes[t];
    double tokens = (double)i.kv_blocks * HG_BLOCK_TOKENS;
    row->kv_token_bytes = tokens > 0 ? (double)i.kv_bytes / tokens : 0;
    row->all_bytes = (double)i.weight_bytes + (double)i.kv_bytes + (double)i.workspace_bytes;
    snprintf(row->dtype, sizeof row->dtype, "%.7s", i.dtype);
    snprintf(row->kv_dtype, sizeof row->kv_dtype, "%.7s", i.kv_dtype);
    snprintf(row->plugin_dtype, sizeof row->plugin_dtype, "%.7s", i.plugin_dtype);
}

static enum hg_status load(const struct bench *b, const struct hg_quant_row *row,
                           struct hg_model **out, struct hg_error *err)
{
    struct hg_model_options o = hg_run_options(b->cli, (int)b->cli->max_batch);
    o.dtype = row->dtype;
    o.kv_dtype = row->kv_dtype;
    o.plugin_dtype = row->plugin_dtype;
    return hg_model_load(&o, out, err);
}

/* Along the text, then freely. */
static enum hg_status measure(struct bench *b, struct hg_model *m, struct trial *t,
                              struct hg_error *err)
{
    struct hg_quant_row *row = t->row;
    for (size_t i = 0; i < b->set.n; i++)
        t->differs[i] = SIZE_MAX;
    if (t->yardstick < HG_QUANT_YARDSTICKS)
        HG_TRY(open_kept(b, t->yardstick, err));
    struct hg_quant_run r = {.model = m,
                             .set = &b->set,
                             .forced = b->text,
                             .position = on_position,
                             .ctx = t,
                             .label = row->name};
    HG_TRY(hg_quant_run(&r, err));
    if (t->yardstick == HG_QUANT_BF16)
        count_answers(b, m, t, NULL);
    else
        HG_TRY(run_freely(b, m, t, err));
    row->nll = row->n_text ? t->nll / (double)row->n_text : 0;
    return HG_STATUS_OK;
}

static enum hg_status try_type(struct bench *b, struct hg_model *m, struct hg_quant_row *row,
                               struct hg_error *err)
{
    struct trial t = {.b = b, .row = row, .yardstick = HG_QUANT_YARDSTICKS};
    if (strcmp(row->name, "bf16") == 0)
        t.yardstick = HG_QUANT_BF16;
    if (strcmp(row->name, "f32") == 0)
        t.yardstick = HG_QUANT_F32;
    t.differs = calloc(b->set.n, sizeof *t.differs);
    int64_t start = hg_now_ns();
    enum hg_status status = t.differs ? measure(b, m, &t, err) : no_memory(err);
    row->seconds = (double)(hg_now_ns() - start) / 1e9;
    for (int y = 0; y < HG_QUANT_YARDSTICKS; y++)
        for (int task = 0; task < HG_TASK_COUNT; task++) {
            hg_quant_summarise(&t.kl[y][task], &row->kl[y][task]);
            free(t.kl[y][task].v);
        }
    free(t.differs);
    return status;
}

/* bf16's answers, and the given texts behind their first token. */
static enum hg_status make_text(struct bench *b, struct hg_model *m, struct hg_error *err)
{
    bool *only = calloc(b->set.n, sizeof *only);
    b->text = calloc(b->set.n, sizeof *b->text);
    b->right = calloc(b->set.n, sizeof *b->right);
    if (!only || !b->text || !b->right) {
        free(only);
        return no_memory(err);
    }
    for (size_t i = 0; i < b->set.n; i++)
        only[i] = b->set.items[i].kind == HG_QUANT_ANSWER;
    struct hg_quant_run r = {
        .model = m, .set = &b->set, .only = only, .own = b->text, .label = "bf16, own answers"};
    enum hg_status status = hg_quant_run(&r, err);
    free(only);
    for (size_t i = 0; i < b->set.n && status == HG_STATUS_OK; i++) {
        const struct hg_quant_item *q = &b->set.items[i];
        size_t n = q->n_ids > 1 ? q->n_ids - 1 : 0;
        if (q->kind == HG_QUANT_TEXT && n > 0) {
            b->text[i].at = malloc(n * sizeof *q->ids);
            if (!b->text[i].at)
                return no_memory(err);
            memcpy(b->text[i].at, q->ids + 1, n * sizeof *q->ids);
            b->text[i].n = n;
        }
        b->report.n_positions[q->task] += b->text[i].n;
    }
    return status;
}

/* f32 takes twice what bf16 took; a machine that has not so much would swap or be killed. */
static bool fits(const struct bench *b, const struct hg_quant_row *bf16, struct hg_quant_row *row)
{
    struct hg_machine machine;
    hg_machine_read("", &machine);
    double have = (double)hg_machine_memory_free(&machine), need = 2 * bf16->all_bytes;
    if (b->report.info.pool_bytes || have == 0 || need < have)
        return true;
    snprintf(row->why, sizeof row->why, "needs about %.1f GB, %.1f are free", need / 1e9,
             have / 1e9);
    return false;
}

static enum hg_status run_type(struct bench *b, struct hg_quant_row *row, struct hg_error *err)
{
    struct hg_model *m = NULL;
    struct hg_error why = {0};
    bool first = b->text == NULL;
    enum hg_status status = load(b, row, &m, &why);
    if (!first && (status == HG_STATUS_NO_MEMORY || status == HG_STATUS_UNSUPPORTED)) {
        snprintf(row->why, sizeof row->why, "%.190s", why.text);
        return HG_STATUS_OK;
    }
    if (status != HG_STATUS_OK)
        return hg_fail(err, status, "%s", why.text);
    put_sizes(m, row);
    if (first) {
        hg_model_info(m, &b->report.info);
        snprintf(b->report.backend, sizeof b->report.backend, "%s", b->report.info.backend);
        HG_TRY_OUT(hg_quant_set_read(b->cli->questions, m, b->cli->model, b->cli->limit,
                                     (uint64_t)b->cli->seed, &b->set, err));
        b->report.n_items = b->set.n;
        HG_TRY_OUT(make_text(b, m, err));
    }
    HG_TRY_OUT(try_type(b, m, row, err));
out:
    hg_model_free(m);
    return status;
}

static enum hg_status run_types(struct bench *b, struct hg_error *err)
{
    struct hg_quant_report *r = &b->report;
    struct hg_quant_row *bf16 = NULL, *f32 = NULL;
    for (int i = 0; i < r->n_rows; i++) {
        bf16 = strcmp(r->rows[i].name, "bf16") == 0 ? &r->rows[i] : bf16;
        f32 = strcmp(r->rows[i].name, "f32") == 0 ? &r->rows[i] : f32;
    }
    if (!bf16)
        return hg_fail(err, HG_STATUS_INTERNAL, "bench: no bf16");
    HG_TRY(run_type(b, bf16, err));
    if (f32 && fits(b, bf16, f32))
        HG_TRY(run_type(b, f32, err));
    if (b->kept[HG_QUANT_F32].at)
        HG_TRY(compare_kept(b, bf16, err));
    for (int i = 0; i < r->n_rows; i++)
        if (&r->rows[i] != bf16 && &r->rows[i] != f32)
            HG_TRY(run_type(b, &r->rows[i], err));
    return HG_STATUS_OK;
}

enum hg_status hg_bench_quant(const struct hg_cli *cli, struct hg_error *err)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return no_memory(err);
    b->cli = cli;
    enum hg_status status = read_types(cli->types, &b->report, err);
    if (status == HG_STATUS_OK)
        status = run_types(b, err);
    if (status == HG_STATUS_OK && cli->json)
        hg_quant_print_json(&b->report);
    else if (status == HG_STATUS_OK)
        hg_quant_print(&b->report);
    for (int y = 0; y < HG_QUANT_YARDSTICKS; y++)
        close_kept(b, y);
    hg_quant_ids_free(b->text, b->text ? b->set.n : 0);
    hg_quant_set_deinit(&b->set);
    free(b->right);
    free(b);
    return status;
}
