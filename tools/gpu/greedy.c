/* greedy MODEL BACKEND DTYPE TASK N_PROMPT N_NEW - greedy tokens of a model without a tokenizer,
 * for torch_parity.py. TASK: comprehension, generation or none (comprehension without its plug-in).
 *
 * The prompt is a fixed sequence of ids, stop tokens are ignored, no token is forbidden. Prints one
 * JSON object: the ids of the prompt and of the answer and, for every token of the answer, the best
 * TOP ids with their natural log probabilities. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/healthgpt.h"

enum { TOP = 5, MOST = 2048 };

static enum hg_status start(struct hg_model *m, const char *task, int n_prompt, int n_new,
                            struct hg_seq **out, struct hg_error *err)
{
    static int32_t ids[MOST];
    struct hg_model_info info;
    struct hg_prepared *p = NULL;
    struct hg_request_input in = {.task = strcmp(task, "generation") == 0 ? HG_TASK_GENERATION
                                                                          : HG_TASK_COMPREHENSION,
                                  .no_plugin = strcmp(task, "none") == 0};
    hg_model_info(m, &info);
    int text = info.first_index_id > 0 ? info.first_index_id - 1 : info.n_vocab;
    for (int i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)((7919LL * (i + 1) + i * i) % text);
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = n_new;
    in.sampling.n_top = TOP;
    in.sampling.ignore_stop = in.sampling.unconstrained_image = true;
    HG_TRY(hg_model_prepare_ids(m, &in, ids, (size_t)n_prompt, &p, err));
    enum hg_status status = hg_seq_create(m, p, out, err);
    if (status != HG_STATUS_OK)
        hg_prepared_free(p);
    printf("{\"task\":\"%s\",\"prompt\":[", task);
    for (int i = 0; i < n_prompt; i++)
        printf("%s%d", i ? "," : "", ids[i]);
    return status;
}

static enum hg_status run(struct hg_model *m, struct hg_seq *seq, int n_new, struct hg_error *err)
{
    printf("],\"steps\":[");
    for (int k = 0; k < n_new;) {
        struct hg_token t;
        int waiting = hg_seq_n_waiting(seq), most = 256; /* a prompt in parts, as a server would */
        struct hg_step_item item = {seq, waiting == 0 ? 1 : waiting < most ? waiting : most};
        HG_TRY(hg_model_step(m, &item, 1, &t, err));
        if (t.id < 0)
            continue;
        printf("%s{\"id\":%d,\"top\":[", k++ ? "," : "", t.id);
        for (int i = 0; i < t.n_top; i++)
            printf("%s[%d,%.7g]", i ? "," : "", t.top_id[i], (double)t.top_logprob[i]);
        printf("]}");
    }
    printf("]}\n");
    return HG_STATUS_OK;
}

int main(int argc, char **argv)
{
    struct hg_error err = {0};
    struct hg_model *m = NULL;
    struct hg_seq *seq = NULL;
    enum hg_status status = HG_STATUS_OK;
    int n_prompt = argc == 7 ? atoi(argv[5]) : 0, n_new = argc == 7 ? atoi(argv[6]) : 0;
    if (n_prompt < 1 || n_prompt > MOST || n_new < 1 || n_new > MOST) {
        fprintf(stderr, "usage: greedy MODEL BACKEND DTYPE TASK N_PROMPT N_NEW\n");
        return 64;
    }
    struct hg_model_options o = {.path = argv[1],
                                 .backend = argv[2],
                                 .dtype = argv[3],
                                 .max_seqs = 1,
                                 .kv_tokens = n_prompt + n_new + 64};
    HG_TRY_OUT(hg_model_load(&o, &m, &err));
    HG_TRY_OUT(start(m, argv[4], n_prompt, n_new, &seq, &err));
    HG_TRY_OUT(run(m, seq, n_new, &err));
out:
    hg_seq_free(seq);
    hg_model_free(m);
    if (status != HG_STATUS_OK)
        fprintf(stderr, "greedy: %s: %s\n", hg_status_text(status), err.text);
    return hg_status_exit_code(status);
}
