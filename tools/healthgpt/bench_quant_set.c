/* tools/healthgpt/bench_quant_set.c - the questions of bench --quant, read from JSON lines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "model/model_path.h"
#include "model/text/tokenizer.h"
#include "server/json_text.h"
#include "tools/healthgpt/bench_quant.h"

static void item_deinit(struct hg_quant_item *q)
{
    free(q->question);
    free(q->expect);
    free(q->ids);
    for (int i = 0; i < q->n_images; i++)
        free(q->images[i]);
    *q = (struct hg_quant_item){0};
}

void hg_quant_set_deinit(struct hg_quant_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        item_deinit(&s->items[i]);
    free(s->items);
    *s = (struct hg_quant_set){0};
}

/* Room for one more, zeroed. */
static struct hg_quant_item *add(struct hg_quant_set *s)
{
    struct hg_quant_item *more = realloc(s->items, (s->n + 1) * sizeof *more);
    if (!more)
        return NULL;
    s->items = more;
    more[s->n] = (struct hg_quant_item){0};
    return &more[s->n++];
}

static enum hg_status no_memory(struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
}

/* ---- a line ---------------------------------------------------------------------------------- */

static enum hg_status read_ids(const json_t *list, const char *key, struct hg_quant_item *q,
                               struct hg_error *err)
{
    size_t n = json_array_size(list);
    if (n == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "%s: expected a list of token ids", key);
    q->ids = calloc(n, sizeof *q->ids);
    if (!q->ids)
        return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v > INT32_MAX)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "%s: expected a list of token ids", key);
        q->ids[i] = (int32_t)v;
    }
    q->n_ids = n;
    return HG_STATUS_OK;
}

static enum hg_status read_text(const json_t *text, const struct hg_model *m,
                                struct hg_quant_item *q, struct hg_error *err)
{
    struct hg_ids ids = {0};
    struct hg_text_part part = {json_string_value(text), json_string_length(text), false};
    if (!part.text)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "text: expected a string");
    if (!hg_model_tokenizer(m))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "text: the model has no tokenizer; text_ids?");
    enum hg_status status = hg_tokenizer_encode(hg_model_tokenizer(m), &part, 1, &ids, err);
    q->ids = ids.data;
    q->n_ids = ids.n;
    return status;
}

static enum hg_status read_images(const json_t *list, struct hg_quant_item *q, struct hg_error *err)
{
    if (list && (!json_is_array(list) || json_array_size(list) > HG_QUANT_IMAGES))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: expected a list of at most %d paths",
                       HG_QUANT_IMAGES);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *path = json_string_value(json_array_get(list, i));
        if (!path)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: expected a list of paths");
        q->images[q->n_images] = strdup(path);
        if (!q->images[q->n_images++])
            return no_memory(err);
    }
    return HG_STATUS_OK;
}

static enum hg_status read_line(const json_t *line, const struct hg_model *m,
                                struct hg_quant_item *q, struct hg_error *err)
{
    const json_t *task = json_object_get(line, "task"), *text = json_object_get(line, "text");
    const json_t *question = json_object_get(line, "question");
    const json_t *expect = json_object_get(line, "expect");
    const json_t *prompt = json_object_get(line, "prompt_ids");
    const json_t *given = json_object_get(line, "text_ids");
    const char *name = json_string_value(task);
    if (task && (!name || (strcmp(name, "ask") != 0 && strcmp(name, "draw") != 0)))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "task: expected \"ask\" or \"draw\"");
    q->task = name && strcmp(name, "draw") == 0 ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION;
    q->max_tokens = (int)json_integer_value(json_object_get(line, "max_tokens"));
    if (!json_is_string(question) + !text + !prompt + !given != 3 || q->max_tokens < 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "expected one of question, prompt_ids, text, text_ids");
    HG_TRY(read_images(json_object_get(line, "images"), q, err));
    q->kind = text || given ? HG_QUANT_TEXT : HG_QUANT_ANSWER;
    if (prompt)
        return read_ids(prompt, "prompt_ids", q, err);
    if (given)
        return read_ids(given, "text_ids", q, err);
    if (text)
        return read_text(text, m, q, err);
    q->question = strdup(json_string_value(question));
    q->expect = json_is_string(expect) ? strdup(json_string_value(expect)) : NULL;
    return q->question && (!json_is_string(expect) || q->expect) ? HG_STATUS_OK : no_memory(err);
}

static enum hg_status read_file(const char *path, const struct hg_model *m,
                                struct hg_quant_set *out, struct hg_error *err)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t cap = 0;
    ssize_t n;
    enum hg_status status = HG_STATUS_OK;
    if (!f)
        return hg_fail(err, HG_STATUS_IO, "%s: %s", path, strerror(errno));
    for (int number = 1; status == HG_STATUS_OK && (n = getline(&text, &cap, f)) >= 0; number++) {
        struct hg_error why = {0};
        json_t *line = NULL;
        if (text[strspn(text, " \t\r\n")] == '\0')
            continue;
        struct hg_quant_item *q = add(out);
        status = q ? hg_json_body_parse(text, (size_t)n, &line, &why) : no_memory(&why);
        if (status == HG_STATUS_OK)
            status = read_line(line, m, q, &why);
        json_decref(line);
        if (status != HG_STATUS_OK)
            hg_fail(err, status, "%s:%d: %s", path, number, why.text);
    }
    free(text);
    fclose(f);
    return status;
}

/* ---- without a file -------------------------------------------------------------------------- */

static enum hg_status add_question(struct hg_quant_set *s, enum hg_task task, const char *text,
                                   struct hg_error *err)
{
    struct hg_quant_item *q = add(s);
    if (!q || !(q->question = strdup(text)))
        return no_memory(err);
    q->task = task;
    return HG_STATUS_OK;
}

/* Of a model that draws, when nothing is drawn yet. */
static enum hg_status add_drawings(const struct hg_model *m, const struct hg_model_info *info,
                                   struct hg_quant_set *s, struct hg_error *err)
{
    static const char *const drawn[] = {"Draw a chest X-ray with pneumonia.",
                                        "Draw a chest X-ray without pneumonia.",
                                        "Draw a brain with a lesion.", "Draw three circles."};
    for (size_t i = 0; i < s->n; i++)
        if (s->items[i].task == HG_TASK_GENERATION)
            return HG_STATUS_OK;
    for (size_t i = 0; i < 4 && hg_model_tokenizer(m) && info->has_task[HG_TASK_GENERATION]; i++)
        HG_TRY(add_question(s, HG_TASK_GENERATION, drawn[i], err));
    return HG_STATUS_OK;
}

static enum hg_status our_own(const struct hg_model *m, struct hg_quant_set *s,
                              struct hg_error *err)
{
    static const char *const asked[] = {"What is pneumonia?", "What is an X-ray?", "Who are you?",
                                        "How large are your images?"};
    const int32_t first = 1;
    for (size_t i = 0; i < 4 && hg_model_tokenizer(m); i++)
        HG_TRY(add_question(s, HG_TASK_COMPREHENSION, asked[i], err));
    if (s->n > 0)
        return HG_STATUS_OK;
    struct hg_quant_item *q = add(s); /* no words at all */
    if (!q || !(q->ids = malloc(sizeof first)))
        return no_memory(err);
    memcpy(q->ids, &first, sizeof first);
    q->n_ids = 1;
    return HG_STATUS_OK;
}

/* `limit` items chosen by the seed stay, in their order. */
static void choose(struct hg_quant_set *s, int64_t limit, uint64_t seed)
{
    size_t kept = 0, left = s->n;
    if (limit <= 0 || (size_t)limit >= s->n)
        return;
    for (size_t i = 0; i < s->n; i++, left--) {
        double draw = (double)hg_uniform(seed, i, 0) * (double)left;
        if (draw < (double)((size_t)limit - kept))
            s->items[kept++] = s->items[i];
        else
            item_deinit(&s->items[i]);
    }
    s->n = kept;
}

enum hg_status hg_quant_set_read(const char *path, const struct hg_model *m, const char *model_path,
                                 int64_t limit, uint64_t seed, struct hg_quant_set *out,
                                 struct hg_error *err)
{
    struct hg_model_info info;
    char folder[1024], own[1100];
    bool given = path != NULL;
    hg_model_info(m, &info);
    if (hg_model_path_resolve(model_path, folder, sizeof folder, NULL) != HG_STATUS_OK)
        folder[0] = '\0';
    snprintf(own, sizeof own, "%s/selftest.jsonl", folder);
    FILE *there = path ? NULL : fopen(own, "r");
    if (there) {
        fclose(there);
        path = own;
    }
    HG_TRY(path ? read_file(path, m, out, err) : our_own(m, out, err));
    if (!given)
        HG_TRY(add_drawings(m, &info, out, err));
    for (size_t i = 0; i < out->n; i++)
        if (!info.has_task[out->items[i].task])
            return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: question %zu: the model has no %s",
                           path ? path : "bench", i + 1, hg_task_name(out->items[i].task));
    if (out->n == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "%s: no questions", path);
    choose(out, limit, seed);
    return HG_STATUS_OK;
}
