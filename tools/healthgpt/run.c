/* tools/healthgpt/run.c - flags to model options and requests. */
#include "tools/healthgpt/run.h"

#include <stdlib.h>
#include <string.h>

enum { NO_DEADLINE_MS = 1000 * 86400 };

struct hg_model_options hg_run_options(const struct hg_cli *cli, int max_batch)
{
    return (struct hg_model_options){.path = cli->model,
                                     .weights = cli->weights,
                                     .backend = cli->backend,
                                     .dtype = cli->dtype,
                                     .kv_dtype = cli->kv_dtype,
                                     .lock = cli->lock,
                                     .quant_cache = cli->quant_cache,
                                     .plugin_dtype = cli->plugin_dtype,
                                     .numerics = cli->numerics,
                                     .n_threads = (int)cli->threads,
                                     .max_seqs = max_batch,
                                     .kv_tokens = cli->kv_tokens,
                                     .gpu_memory_utilization = cli->gpu_memory_utilization};
}

enum hg_status hg_run_open(const struct hg_cli *cli, int max_batch, struct hg_run *out,
                           struct hg_error *err)
{
    *out = (struct hg_run){0};
    struct hg_model_options o = hg_run_options(cli, max_batch);
    HG_TRY(hg_model_load(&o, &out->model, err));
    hg_model_info(out->model, &out->info);
    out->reply = (struct hg_reply_context){.model = out->info.name,
                                           .notice = out->info.notice,
                                           .weights_crc32c = out->info.weights_crc32c,
                                           .tokenizer = hg_model_tokenizer(out->model)};
    struct hg_scheduler_options s = {.max_batch = max_batch,
                                     .max_queue = 2 * max_batch,
                                     .timeout_ms = NO_DEADLINE_MS,
                                     .max_queue_tokens = -1};
    return hg_scheduler_create(out->model, &s, &out->scheduler, err);
}

void hg_run_close(struct hg_run *r)
{
    hg_scheduler_free(r->scheduler);
    hg_model_free(r->model);
}

enum hg_status hg_run_add_image(struct hg_ask *ask, const char *path, struct hg_error *err)
{
    if (ask->n_images == HG_REQUEST_MAX_IMAGES)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "images: at most %d", HG_REQUEST_MAX_IMAGES);
    struct hg_error why = {0};
    enum hg_status status = hg_image_read(path, &ask->images[ask->n_images], &why);
    if (status == HG_STATUS_OK) {
        ask->n_images++;
        return status;
    }
    /* What is wrong inside a file is said of "image"; with several, the name is needed. */
    const char *text = strncmp(why.text, "image: ", 7) == 0 ? why.text + 7 : why.text;
    return strstr(why.text, path) && *path ? hg_fail(err, status, "%s", why.text)
                                           : hg_fail(err, status, "%.90s: %s", path, text);
}

enum hg_status hg_run_ask_of(const struct hg_cli *cli, enum hg_task task, const char *question,
                             struct hg_ask *out, struct hg_error *err)
{
    hg_ask_init(out, task);
    out->question = strdup(question);
    out->system = cli->system ? strdup(cli->system) : NULL;
    if (!out->question || (cli->system && !out->system))
        return hg_fail(err, HG_STATUS_NO_MEMORY, "out of memory");
    out->n_question = strlen(question);
    out->has_temperature = cli->has_temperature;
    out->has_seed = cli->has_seed;
    out->no_plugin = cli->no_plugin;
    out->sampling.temperature = (float)cli->temperature;
    out->sampling.top_p = (float)cli->top_p;
    out->sampling.top_k = (int)cli->top_k;
    out->sampling.seed = (uint64_t)cli->seed;
    out->sampling.max_tokens = (int)cli->max_tokens;
    out->sampling.n_top = (int)cli->top_logprobs;
    for (size_t i = 0; i < cli->n_images; i++)
        HG_TRY(hg_run_add_image(out, cli->images[i], err));
    return HG_STATUS_OK;
}

enum hg_status hg_run_submit(struct hg_run *r, const struct hg_ask *ask, struct hg_request **out,
                             struct hg_error *err)
{
    HG_TRY(hg_request_create(r->model, ask, out, err));
    enum hg_status status = hg_scheduler_submit(r->scheduler, *out, err);
    if (status != HG_STATUS_OK) {
        hg_request_unref(*out);
        *out = NULL;
    }
    return status;
}
