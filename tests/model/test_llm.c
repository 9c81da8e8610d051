/* tests/model/test_llm.c - tables and parameters of the language model that do not need a forward:
 * rotary frequencies (reference.md 5.4), the history that the repetition penalty sees (11). */
#include "model/llm.h"

#include <math.h>

#include "common/half.h"
#include "model/sampler.h"
#include "tests/parity/run_seq.h"
#include "tests/test.h"

/* FP16 bit patterns of reference.md 5.4. */
static const uint16_t m3[48] = {
    0x3c00, 0x3a9a, 0x3973, 0x3880, 0x376d, 0x3621, 0x350f, 0x342d, 0x32e5, 0x31b1, 0x30b2, 0x2fc1,
    0x2e66, 0x2d48, 0x2c5c, 0x2b33, 0x29f1, 0x28e7, 0x280c, 0x26af, 0x2584, 0x248d, 0x2384, 0x2234,
    0x211f, 0x203a, 0x1efa, 0x1dc2, 0x1cc1, 0x1bd9, 0x1a7a, 0x1958, 0x186a, 0x1749, 0x1603, 0x14f6,
    0x1419, 0x12c3, 0x1195, 0x109b, 0x0f9b, 0x0e47, 0x0d2e, 0x0c47, 0x0b0f, 0x09d4, 0x08cf, 0x07f1};

static const uint16_t l14[64] = {
    0x3c00, 0x3a97, 0x396d, 0x3878, 0x375c, 0x360f, 0x34fd, 0x341c, 0x32c4, 0x3193, 0x3097,
    0x2f8f, 0x2e39, 0x2d20, 0x2c38, 0x2af4, 0x29b9, 0x28b7, 0x27c4, 0x2665, 0x2544, 0x2456,
    0x2324, 0x21e1, 0x20d8, 0x1ffa, 0x1e91, 0x1d68, 0x1c74, 0x1b56, 0x1a0a, 0x18f9, 0x1819,
    0x16bf, 0x158e, 0x1493, 0x1389, 0x1234, 0x111c, 0x1035, 0x0eee, 0x0db5, 0x0cb3, 0x0bbd,
    0x0a60, 0x0940, 0x0852, 0x071e, 0x05dd, 0x04d4, 0x03fa, 0x0346, 0x02b2, 0x0238, 0x01d4,
    0x0181, 0x013d, 0x0105, 0x00d7, 0x00b1, 0x0092, 0x0078, 0x0063, 0x0051};

static const uint16_t xl32[64] = {
    0x3c00, 0x3a72, 0x3932, 0x3830, 0x36bf, 0x3570, 0x3462, 0x3310, 0x31b1, 0x3096, 0x2f64,
    0x2df5, 0x2ccd, 0x2bbc, 0x2a3c, 0x2906, 0x280c, 0x2686, 0x2542, 0x243d, 0x22d4, 0x2181,
    0x206f, 0x1f25, 0x1dc2, 0x1ca4, 0x1b7b, 0x1a07, 0x18db, 0x17d4, 0x164f, 0x1515, 0x1419,
    0x129a, 0x1152, 0x1049, 0x0ee9, 0x0d91, 0x0c7d, 0x0b3b, 0x09d4, 0x08b2, 0x0791, 0x0619,
    0x04ea, 0x03f6, 0x0331, 0x0292, 0x0213, 0x01ac, 0x0159, 0x0116, 0x00e0, 0x00b4, 0x0091,
    0x0075, 0x005e, 0x004c, 0x003d, 0x0031, 0x0028, 0x0020, 0x001a, 0x0015};

static const struct {
    const char *name;
    const uint16_t *bits;
    int head_dim;
    double theta;
} tables[] = {{"M3", m3, 96, 1e4}, {"L14", l14, 128, 2.5e5}, {"XL32", xl32, 128, 1e6}};

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
    struct hg_step_item item = {s, 700};
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
