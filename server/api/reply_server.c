/* server/api/reply_server.c - what the server says about itself: /health, /v1/models. */
#include <string.h>

#include "server/api/reply_parts.h"
#include "server/notice.h"
#include "server/version.h"

static void put_tasks(struct hg_json_out *o, const struct hg_model_info *info)
{
    hg_out_open(o, "tasks", '[');
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (info->has_task[t])
            hg_out_string(o, NULL, hg_task_name((enum hg_task)t));
    hg_out_close(o, ']');
}

/* Honest: what the weights of each task can do, and why there are none. */
static void put_abilities(struct hg_json_out *o, const struct hg_model_info *info)
{
    hg_out_open(o, "abilities", '{');
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        hg_out_open(o, hg_task_name((enum hg_task)t), '{');
        hg_out_bool(o, "available", info->has_task[t]);
        hg_out_int(o, "max_new_tokens", info->max_new_tokens[t]);
        hg_out_string(o, "can", info->can[t] && info->can[t][0] ? info->can[t] : NULL);
        hg_out_string(o, "unpublished",
                      info->unpublished[t] && info->unpublished[t][0] ? info->unpublished[t]
                                                                      : NULL);
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
}

/* What is held now, and what was cut; all of "open" is 0 on an idle server but for the asker. */
static void put_guard(struct hg_json_out *o, const struct hg_scheduler_stats *stats,
                      const struct hg_guard_stats *guard)
{
    hg_out_open(o, "open", '{');
    hg_out_uint(o, "requests", stats->requests.n_open);
    hg_out_uint(o, "working", guard->n_working);
    hg_out_uint(o, "connections", guard->n_open);
    hg_out_close(o, '}');
    hg_out_open(o, "ledger", '{');
    hg_out_uint(o, "accepted", stats->requests.n_accepted);
    hg_out_uint(o, "ended", stats->requests.n_ended);
    hg_out_uint(o, "stalled", stats->requests.n_stalled);
    hg_out_uint(o, "ended_twice", stats->requests.n_ended_twice);
    hg_out_close(o, '}');
    hg_out_open(o, "kv", '{');
    hg_out_uint(o, "blocks", stats->kv_blocks);
    hg_out_uint(o, "free", stats->kv_free);
    hg_out_close(o, '}');
    hg_out_open(o, "cut", '{');
    for (int c = 0; c < HG_CUT_COUNT; c++)
        hg_out_uint(o, hg_cut_name((enum hg_cut)c), guard->n_cut[c]);
    hg_out_close(o, '}');
}

enum hg_status hg_reply_health(const struct hg_reply_context *c, const struct hg_model_info *info,
                               const struct hg_scheduler_stats *stats,
                               const struct hg_guard_stats *guard, int max_queue, const char *state,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "status", state);
    hg_out_string(&o, "version", HG_VERSION);
    hg_out_string(&o, "model", c->model);
    hg_out_string(&o, "arch", info->arch);
    hg_out_string(&o, "backend", info->backend);
    put_tasks(&o, info);
    hg_out_open(&o, "queue", '{');
    hg_out_uint(&o, "depth", stats->queued);
    hg_out_int(&o, "max", max_queue);
    hg_out_int(&o, "tokens", stats->queued_tokens);
    hg_out_int(&o, "max_tokens", stats->max_queued_tokens);
    hg_out_uint(&o, "running", stats->running);
    hg_out_close(&o, '}');
    hg_out_open(&o, "requests", '{');
    hg_out_uint(&o, "done", stats->n_done);
    hg_out_uint(&o, "failed", stats->n_failed);
    hg_out_uint(&o, "cancelled", stats->n_cancelled);
    hg_out_close(&o, '}');
    put_guard(&o, stats, guard);
    hg_out_open(&o, "engine", '{');
    hg_out_uint(&o, "steps", stats->n_steps);
    hg_out_uint(&o, "tokens", stats->n_tokens);
    hg_out_uint(&o, "cached_tokens", stats->n_found);
    hg_out_uint(&o, "pictures_encoded", stats->n_encoded);
    hg_out_uint(&o, "preempted", stats->n_preempted);
    hg_out_uint(&o, "canaries", stats->n_canaries);
    hg_out_uint(&o, "numeric_faults", stats->n_numeric);
    hg_out_int(&o, "quarantined_blocks", stats->n_quarantined);
    hg_out_int(&o, "restarts", c->n_restarts);
    hg_out_close(&o, '}');
    hg_out_string(&o, "notice", c->notice);
    return hg_line_close(&o);
}

/* The names a model answers to: without a task (the route, or a chat's modalities, says it), and
 * with each. task HG_TASK_COUNT: without. */
static void name_of(const struct hg_reply_context *c, int task, char out[112])
{
    snprintf(out, 112, "%s%s%s", c->model, task < HG_TASK_COUNT ? ":" : "",
             task < HG_TASK_COUNT ? hg_task_name((enum hg_task)task) : "");
}

/* What the numbers are kept in: they decide what an answer may differ by. */
static void put_storage(struct hg_json_out *o, const struct hg_model_info *info)
{
    hg_out_open(o, "storage", '{');
    hg_out_string(o, "weights", info->dtype);
    hg_out_string(o, "plugins", info->plugin_dtype);
    hg_out_string(o, "kv_cache", info->kv_dtype);
    hg_out_close(o, '}');
}

static void put_model(struct hg_json_out *o, const struct hg_reply_context *c,
                      const struct hg_model_info *info, int task)
{
    char name[112];
    name_of(c, task, name);
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "id", name);
    hg_out_string(o, "object", "model");
    hg_out_int(o, "created", 0);
    hg_out_string(o, "owned_by", "healthgpt");
    if (task < HG_TASK_COUNT) {
        hg_out_string(o, "root", c->model);
        hg_out_open(o, "tasks", '[');
        hg_out_string(o, NULL, hg_task_name((enum hg_task)task));
        hg_out_close(o, ']');
    } else {
        put_tasks(o, info);
    }
    hg_out_int(o, "max_context", info->max_context);
    hg_out_int(o, "image_side", info->image_side);
    hg_out_int(o, "output_side", info->output_side);
    hg_out_string(o, "notice", c->notice);
    hg_out_close(o, '}');
}

/* -1: no such model. */
static int task_of_name(const struct hg_reply_context *c, const struct hg_model_info *info,
                        const char *id)
{
    for (int t = 0; t <= HG_TASK_COUNT; t++) {
        char name[112];
        name_of(c, t, name);
        if ((t == HG_TASK_COUNT || info->has_task[t]) && strcmp(id, name) == 0)
            return t;
    }
    return -1;
}

enum hg_status hg_reply_models(const struct hg_reply_context *c, const struct hg_model_info *info,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "object", "list");
    hg_out_open(&o, "data", '[');
    put_model(&o, c, info, HG_TASK_COUNT);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (info->has_task[t])
            put_model(&o, c, info, t);
    hg_out_close(&o, ']');
    return hg_line_close(&o);
}

enum hg_status hg_reply_model(const struct hg_reply_context *c, const struct hg_model_info *info,
                              const char *id, struct hg_buf *out)
{
    struct hg_json_out o;
    int task = task_of_name(c, info, id);
    if (task < 0)
        return HG_STATUS_NOT_FOUND;
    hg_out_begin(&o, out);
    put_model(&o, c, info, task);
    HG_TRY(hg_out_status(&o));
    return hg_buf_append_str(out, "\n");
}

enum hg_status hg_reply_card(const struct hg_reply_context *c, const struct hg_model_info *info,
                             const char *id, struct hg_buf *out)
{
    struct hg_json_out o;
    if (task_of_name(c, info, id) < 0)
        return HG_STATUS_NOT_FOUND;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "id", c->model);
    hg_out_string(&o, "object", "model.card");
    hg_out_string(&o, "arch", info->arch);
    put_tasks(&o, info);
    put_abilities(&o, info);
    hg_out_string(&o, "fingerprint", c->fingerprint);
    hg_out_int(&o, "max_context", info->max_context);
    hg_out_int(&o, "image_side", info->image_side);
    hg_out_int(&o, "image_tokens", info->n_image_rows);
    hg_out_int(&o, "output_side", info->output_side);
    hg_out_int(&o, "output_tokens", (int64_t)info->grid_h * info->grid_w);
    put_storage(&o, info);
    hg_out_string(&o, "intended_use", HG_NOTICE);
    hg_out_string(&o, "notice", c->notice);
    return hg_line_close(&o);
}
