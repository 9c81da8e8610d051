/* tests/model/test_llm.c - tables and parameters of the language model that do not need a forward:
 * rotary frequencies (reference.md 5.4), the history that the repetition penalty sees (11). */
#include "model/llm.h"

#include <math.h>

#include "common/half.h"
#include "model/sampler.h"
#include "tests/kernels/rope_tables.h"
#include "tests/parity/run_seq.h"
#include "tests/test.h"

static void fp16_frequencies_are_those_of_the_reference(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        float table[64];
        hg_llm_inv_freq(tables[k].theta, tables[k].head_dim, HG_ROPE_FP16, table);
        for (int i = 0; i < tables[k].head_dim / 2; i++)
            if (table[i] != hg_f16_to_f32(tables[k].bits[i]))
                fail_msg("%s entry %d: %.9g, reference %04x = %.9g", tables[k].name, i, table[i],
                         tables[k].bits[i], hg_f16_to_f32(tables[k].bits[i]));
    }
}

/* fp32: within one unit in the last place of the exact value (fp32 power, then fp32 division);
 * bf16: that value rounded. */
static void other_modes_round_the_exact_frequencies(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        float exact[64], bf16[64];
        hg_llm_inv_freq(tables[k].theta, tables[k].head_dim, HG_ROPE_FP32, exact);
        hg_llm_inv_freq(tables[k].theta, tables[k].head_dim, HG_ROPE_BF16, bf16);
        for (int i = 0; i < tables[k].head_dim / 2; i++) {
            double want = pow(tables[k].theta, -2.0 * i / tables[k].head_dim);
            /* the exponent is an fp32 number: half a unit of it weighs log(theta) */
            assert_true(fabs((double)exact[i] / want - 1) < 0x1p-24 * (2 + log(tables[k].theta)));
            assert_true(bf16[i] == hg_bf16_to_f32(hg_f32_to_bf16(exact[i])));
        }
    }
}

static void sampler_sees_generated_ids_only(void **state)
{
    (void)state;
    static const int32_t generated[] = {7, 7, 9};
    struct hg_sampling s;
    struct hg_sample_params p;
    hg_sampling_default(&s);
    s.seed = 5;
    hg_sampling_params(&s, 1.05f, 3, 11, generated, 3, &p);
    assert_true(p.history == generated && p.n_history == 3);
    assert_true(p.repetition_penalty == 1.05f); /* the model's own */
    assert_true(p.lo == 3 && p.hi == 11 && p.seed == 5 && p.position == 3);
    s.repetition_penalty = 1;
    hg_sampling_params(&s, 1.05f, 3, 11, NULL, 0, &p);
    assert_true(p.repetition_penalty == 1 && p.n_history == 0 && p.position == 0);
}

static void run(struct hg_model *m, float penalty, struct hg_token *first, struct hg_token *second)
{
    int32_t prompt[700]; /* every text id of the demo model: a penalty on them would move all */
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    for (int i = 0; i < 700; i++)
        prompt[i] = i * 331 % 768;
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = 4;
    in.sampling.ignore_stop = true;
    in.sampling.repetition_penalty = penalty;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, prompt, 700, &p, &err), err);
    HG_TEST_OK(hg_seq_create(m, p, &s, &err), err);
    struct hg_step_item item = {s, hg_seq_n_waiting(s)}; /* an earlier run left most of it */
    HG_TEST_OK(hg_model_step(m, &item, 1, first, &err), err);
    item.n_tokens = 1;
    HG_TEST_OK(hg_model_step(m, &item, 1, second, &err), err);
    hg_seq_free(s);
}

/* reference.md 11: prompt ids are unknown to HF's penalty, so the first token is untouched. */
static void penalty_leaves_the_first_token_alone(void **state)
{
    (void)state;
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {
        .path = hg_test_file("config/models/demo"), .n_threads = 1, .kv_tokens = 1024};
    struct hg_token a[2], b[2];
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    run(m, 1, &a[0], &a[1]);
    run(m, 1.3f, &b[0], &b[1]);
    assert_int_equal(a[0].id, b[0].id);
    assert_true(a[0].logprob == b[0].logprob);
    assert_true(a[1].logprob != b[1].logprob); /* it does act on what was generated */
    hg_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp16_frequencies_are_those_of_the_reference),
        cmocka_unit_test(other_modes_round_the_exact_frequencies),
        cmocka_unit_test(sampler_sees_generated_ids_only),
        cmocka_unit_test(penalty_leaves_the_first_token_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
