/* tests/parity/test_steps_ahead.c - steps begun ahead of the one that is waited for, and steps that
 * a backend replays: the ids and the logits are those of steps made one by one. On a random tiny
 * model of tests/golden/llm/specs.json. */
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "model/internal.h"
#include "tests/kernels/child.h"
#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/parity/simt_counts.h"
#include "tests/parity/tiny_model.h"
#include "tests/test.h"

enum { MAX_SEQS = 6, PROMPT = 7, MOST = 48 };

static char dir[256];

/* One request; all ignore stop ids. */
struct job {
    enum hg_task task;
    bool no_plugin;
    float temperature, top_p, penalty;
    int top_k, max_tokens;
    int join; /* begun with this step */
};

struct answer {
    int32_t ids[MOST];
    int n;
    enum hg_finish finish;
};

static const struct job jobs[MAX_SEQS] = {
    {.task = HG_TASK_GENERATION, .temperature = 0.9f, .top_p = 1, .max_tokens = 14},
    {.task = HG_TASK_GENERATION, .temperature = 0, .top_p = 1, .max_tokens = 7, .join = 2},
    {.task = HG_TASK_COMPREHENSION,
     .temperature = 1.2f,
     .top_p = 0.9f,
     .top_k = 40,
     .max_tokens = 9,
     .join = 4},
    {.task = HG_TASK_COMPREHENSION,
     .no_plugin = true,
     .temperature = 0.7f,
     .top_p = 1,
     .max_tokens = 6,
     .join = 4},
};

static int write_model(void **state)
{
    json_t *specs = tiny_specs();
    (void)state;
    tiny_model_write(json_array_get(specs, 1), dir);
    json_decref(specs);
    hg_log_set(HG_LOG_OFF, 0);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    writer_remove(dir);
    return 0;
}

static struct hg_model *load(const char *backend)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = dir,
                                 .backend = backend,
                                 .dtype = "f32",
                                 .n_threads = 1,
                                 .max_seqs = MAX_SEQS,
                                 .kv_tokens = 1024};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    return m;
}

static struct hg_prepared *prepare(struct hg_model *m, const struct job *j, uint64_t seed)
{
    int32_t prompt[PROMPT];
    struct hg_request_input in = {.task = j->task, .no_plugin = j->no_plugin};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    in.sampling.temperature = j->temperature;
    in.sampling.top_p = j->top_p;
    in.sampling.top_k = j->top_k;
    in.sampling.repetition_penalty = j->penalty;
    in.sampling.max_tokens = j->max_tokens;
    in.sampling.seed = seed;
    in.sampling.ignore_stop = true;
    in.sampling.unconstrained_image = true;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = 3 + (i * 17 + (int)seed * 5) % 80;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, prompt, PROMPT, &p, &err), err);
    return p;
}

static struct hg_seq *start(struct hg_model *m, const struct job *j, uint64_t seed)
{
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_seq_create(m, prepare(m, j, seed), &s, &err), err);
    return s;
}

/* The step that is begun now, of all sequences that have joined; 0: none goes on. */
static size_t items_of(const struct job *j, struct hg_seq **s, size_t n, int step,
                       struct hg_step_item *items)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int waiting = hg_seq_n_waiting(s[i]);
        if (step >= j[i].join && hg_seq_n_left(s[i]) > 0)
            items[k++] = (struct hg_step_item){s[i], waiting ? waiting : 1};
    }
    return k;
}

static void take(struct answer *a, struct hg_seq **s, size_t n, const struct hg_token *tokens,
                 size_t n_tokens)
{
    for (size_t k = 0; k < n_tokens; k++)
        for (size_t i = 0; i < n; i++)
            if (tokens[k].seq == s[i] && tokens[k].id >= 0) {
                a[i].ids[a[i].n++] = tokens[k].id;
                a[i].finish = tokens[k].finish;
            }
}

/* All jobs to their ends with up to `ahead` steps in flight. */
static void run_jobs(struct hg_model *m, const struct job *j, size_t n, int ahead, struct answer *a)
{
    struct hg_seq *s[MAX_SEQS];
    struct hg_step_item items[MAX_SEQS];
    struct hg_token tokens[MAX_SEQS];
    struct hg_error err = {0};
    size_t k = 1, n_tokens = 0;
    memset(a, 0, n * sizeof *a);
    for (size_t i = 0; i < n; i++)
        s[i] = start(m, &j[i], i);
    for (int step = 0; k > 0 || hg_model_steps_in_flight(m) > 0;) {
        k = items_of(j, s, n, step, items);
        if (k > 0 && hg_model_steps_in_flight(m) < ahead) {
            HG_TEST_OK(hg_model_step_begin(m, items, k, &err), err);
            step++;
            continue;
        }
        HG_TEST_OK(hg_model_step_end(m, tokens, &n_tokens, &err), err);
        take(a, s, n, tokens, n_tokens);
    }
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].n, j[i].max_tokens);
        assert_int_equal(a[i].finish, HG_FINISH_LENGTH);
        assert_int_equal(hg_seq_n_generated(s[i]), a[i].n);
        assert_memory_equal(hg_seq_generated(s[i]), a[i].ids, (size_t)a[i].n * sizeof(int32_t));
        hg_seq_free(s[i]);
    }
}

static void compare(const struct answer *got, const struct answer *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got[i].n, want[i].n);
        assert_memory_equal(got[i].ids, want[i].ids, (size_t)want[i].n * sizeof(int32_t));
    }
}

/* The backends to test, in turns; NULL after the last. */
static const char *backend(int i)
{
    static const char *const usual[] = {"ref", "cpu", "simt", NULL};
    if (hg_test_backend())
        return i == 0 ? "ref" : i == 1 ? hg_test_backend() : NULL;
    return usual[i];
}

static bool missing(const char *name)
{
    struct hg_backend *b = NULL;
    bool there = hg_backend_open(name, NULL, &b, NULL) == HG_STATUS_OK;
    hg_backend_close(b);
    return !there && !hg_test_backend();
}

static void need_simt(void)
{
    struct simt_counts c;
    struct hg_backend *b = NULL;
    hg_backend_open("simt", NULL, &b, NULL);
    hg_backend_close(b);
    if (!simt_counts_of_library(&c))
        HG_TEST_SKIP("counts and faults: libhealthgpt_simt.so is not found");
}

/* ---- any backend ----------------------------------------------------------------------------- */

static void steps_ahead_give_the_ids_of_steps_one_by_one(void **state)
{
    (void)state;
    struct answer want[4], got[4];
    for (int i = 0; backend(i); i++) {
        if (missing(backend(i)))
            continue;
        struct hg_model *m = load(backend(i));
        run_jobs(m, jobs, 4, 1, want);
        bool slow = strcmp(backend(i), "simt") == 0;
        for (int ahead = slow ? HG_STEPS_AHEAD : 2; ahead <= HG_STEPS_AHEAD; ahead++) {
            run_jobs(m, jobs, 4, ahead, got);
            compare(got, want, 4);
        }
        run_jobs(m, jobs, 1, HG_STEPS_AHEAD, got); /* in other company, on the same model */
        compare(got, want, 1);
        hg_model_free(m);
    }
}

static void begin(struct hg_model *m, struct hg_seq *s, int n_tokens)
{
    struct hg_error err = {0};
    struct hg_step_item item = {s, n_tokens};
    HG_TEST_OK(hg_model_step_begin(m, &item, 1, &err), err);
}

static void refuse(struct hg_model *m, struct hg_seq *s, const char *text)
{
    struct hg_error err = {0};
    struct hg_step_item item = {s, 1};
    HG_TEST_FAILS(hg_model_step_begin(m, &item, 1, &err), HG_STATUS_INTERNAL, err, text);
}

static struct hg_token end(struct hg_model *m)
{
    struct hg_token t[MAX_SEQS];
    struct hg_error err = {0};
    size_t n = 0;
    HG_TEST_OK(hg_model_step_end(m, t, &n, &err), err);
    assert_int_equal(n, 1);
    return t[0];
}

static void what_cannot_run_ahead_is_refused_and_nothing_changes(void **state)
{
    (void)state;
    struct job free_run = jobs[0], penalised = jobs[0];
    struct hg_error err = {0};
    struct hg_token t[MAX_SEQS];
    struct hg_model *m = load("cpu");
    float logits[2048];
    size_t n = 0;
    int32_t first = 0;
    penalised.penalty = 1.5f;
    free_run.max_tokens = 6;
    HG_TEST_FAILS(hg_model_step_end(m, t, &n, &err), HG_STATUS_INTERNAL, err, "none is in flight");
    struct hg_seq *a = start(m, &free_run, 0), *b = start(m, &penalised, 1);
    assert_true(hg_seq_runs_ahead(a) && !hg_seq_runs_ahead(b));
    begin(m, b, PROMPT);
    refuse(m, b, "has to know its token");
    begin(m, a, PROMPT);
    begin(m, a, 1);
    struct hg_step_item item = {a, 1};
    HG_TEST_FAILS(hg_model_step(m, &item, 1, t, &err), HG_STATUS_INTERNAL, err, "in flight");
    HG_TEST_FAILS(hg_model_last_logits(m, 0, logits, 2048, &n, &first, &err), HG_STATUS_INTERNAL,
                  err, "in flight");
    assert_ptr_equal(end(m).seq, b);
    begin(m, b, 1);
    refuse(m, a, "not of the step begun last"); /* it stayed away from b's step */
    assert_int_equal(hg_seq_n_left(a), 4);
    assert_ptr_equal(end(m).seq, a);
    assert_ptr_equal(end(m).seq, a);
    assert_ptr_equal(end(m).seq, b);
    for (int i = 0; i < 4; i++)
        begin(m, a, 1);
    refuse(m, a, "4 are in flight already");
    assert_int_equal(hg_seq_n_left(a), 0);
    assert_int_equal(end(m).finish, HG_FINISH_NONE);
    refuse(m, a, "on the way");
    for (int i = 0; i < 2; i++)
        assert_int_equal(end(m).finish, HG_FINISH_NONE);
    assert_int_equal(end(m).finish, HG_FINISH_LENGTH);
    refuse(m, a, "finished");
    hg_seq_free(a);
    hg_seq_free(b);
    hg_model_free(m);
}

/* It leaves the steps in flight; its neighbour's ids stay what they are alone. */
static void a_sequence_may_be_freed_while_its_steps_are_in_flight(void **state)
{
    (void)state;
    struct answer want, got = {.n = 0};
    struct hg_model_info before, after;
    for (int k = 0; backend(k); k++) {
        if (missing(backend(k)))
            continue;
        struct hg_model *m = load(backend(k));
        struct hg_error err = {0};
        struct hg_token t[MAX_SEQS];
        size_t n = 0;
        run_jobs(m, jobs, 1, 1, &want);
        hg_model_info(m, &before);
        struct hg_seq *s[2] = {start(m, &jobs[0], 0), start(m, &jobs[0], 1)};
        struct hg_step_item items[2] = {{s[0], PROMPT}, {s[1], PROMPT}};
        got.n = 0;
        for (int i = 0; i < HG_STEPS_AHEAD; i++) {
            HG_TEST_OK(hg_model_step_begin(m, items, 2, &err), err);
            items[0].n_tokens = items[1].n_tokens = 1;
        }
        hg_seq_free(s[1]);
        while (hg_seq_n_left(s[0]) > 0 || hg_model_steps_in_flight(m) > 0) {
            HG_TEST_OK(hg_model_step_end(m, t, &n, &err), err);
            assert_true(n == 1 || (n == 2 && !t[1].seq && t[1].id == -1));
            take(&got, s, 1, t, n);
            if (hg_seq_n_left(s[0]) > 0)
                HG_TEST_OK(hg_model_step_begin(m, items, 1, &err), err);
        }
        compare(&got, &want, 1);
        hg_seq_free(s[0]);
        hg_model_info(m, &after);
        assert_int_equal(after.kv_blocks_free, before.kv_blocks_free);
        s[0] = start(m, &jobs[0], 0);
        begin(m, s[0], PROMPT);
        hg_seq_free(s[0]);
        hg_model_free(m); /* with a step of nobody in flight */
    }
}

/* ---- replayed steps (on the emulation, which counts) ------------------------------------------
 */

/* All 0 on a real device. */
static struct simt_counts counts(void)
{
    struct simt_counts c = {0};
    simt_counts_of_library(&c);
    return c;
}

static struct hg_model *load_graphs(const char *name, const char *graphs)
{
    setenv("HG_CUDA_GRAPHS", graphs, 1);
    struct hg_model *m = load(name);
    unsetenv("HG_CUDA_GRAPHS");
    return m;
}

/* Each new sequence and each that ends changes the shape; penalties bring histories. */
static void run_shapes(const char *name, const char *graphs, struct run_result *r,
                       struct simt_counts *spent)
{
    struct job own[5];
    struct hg_prepared *p[5];
    struct hg_model *m = load_graphs(name, graphs);
    struct simt_counts before = counts();
    memcpy(own, jobs, 4 * sizeof *own);
    own[3].penalty = 1.3f;
    own[4] = own[2];
    own[4].penalty = 0.8f;
    own[4].temperature = 0;
    for (int i = 0; i < 5; i++) {
        own[i].max_tokens += 6;
        p[i] = prepare(m, &own[i], (uint64_t)i);
    }
    run_together(m, p, 5, 512, 3, r);
    struct simt_counts after = counts();
    spent->launches = after.launches - before.launches;
    spent->graph_launches = after.graph_launches - before.graph_launches;
    spent->graph_kernels = after.graph_kernels - before.graph_kernels;
    spent->graphs = after.graphs - before.graphs;
    hg_model_free(m);
}

static void replayed_steps_equal_eager_ones_bit_for_bit(void **state)
{
    (void)state;
    const char *name = hg_test_backend() ? hg_test_backend() : "simt";
    struct run_result eager[5], replayed[5];
    struct simt_counts without, with;
    if (missing(name))
        HG_TEST_SKIP("graphs: libhealthgpt_simt.so is not found");
    run_shapes(name, "0", eager, &without);
    run_shapes(name, "1", replayed, &with);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(replayed[i].n_ids, eager[i].n_ids);
        assert_memory_equal(replayed[i].ids, eager[i].ids, eager[i].n_ids * sizeof(int32_t));
        assert_memory_equal(replayed[i].logits, eager[i].logits,
                            eager[i].n_ids * eager[i].n_logits * sizeof(float));
        run_result_free(&eager[i]);
        run_result_free(&replayed[i]);
    }
    printf("  eager %ld launches; with graphs %ld, %ld graphs launched %ld times\n",
           without.launches, with.launches, with.graphs, with.graph_launches);
    if (strcmp(name, "simt") != 0)
        return; /* nobody counts */
    assert_int_equal(without.graph_launches, 0);
    assert_true(with.graphs >= 4 && with.graph_launches > with.graphs);
    assert_true(with.graph_kernels > 0);
    assert_true(with.launches + with.graph_kernels >= without.launches); /* idle ones included */
}

static void a_shape_runs_once_op_by_op_and_is_replayed_from_then_on(void **state)
{
    (void)state;
    need_simt();
    enum { STEPS = 16 };
    struct job j = jobs[0];
    struct hg_model *m = load_graphs("simt", "1");
    j.max_tokens = STEPS + 1;
    struct hg_seq *s = start(m, &j, 0);
    begin(m, s, PROMPT);
    end(m);
    struct simt_counts before = counts();
    begin(m, s, 1);
    end(m);
    struct simt_counts once = counts();
    begin(m, s, 1);
    end(m);
    struct simt_counts warm = counts();
    for (int i = 2; i < STEPS; i++) {
        begin(m, s, 1);
        end(m);
    }
    struct simt_counts after = counts();
    long kernels = once.launches - before.launches;
    printf("  %ld kernels for a step of %d layers\n", kernels, m->llm_config.n_layers);
    assert_true(kernels > 10);
    assert_true(kernels <=
                6 * m->llm_config.n_layers + 4); /* embed, head, sample beside the layers */
    assert_int_equal(after.launches, once.launches);
    assert_int_equal(after.graphs - before.graphs, 1);
    assert_int_equal(after.graph_launches - before.graph_launches, STEPS - 1);
    assert_int_equal(after.graph_kernels - before.graph_kernels, (STEPS - 1) * kernels);
    assert_int_equal(after.allocations, warm.allocations); /* nothing is allocated per step */
    assert_int_equal(after.waits - warm.waits, STEPS - 2); /* one for each end, none for a begin */
    hg_seq_free(s);
    hg_model_free(m);
}

/* ---- faults (the device lives as long as its library: each in a child) ------------------------
 */

/* The n-th call from now on fails. */
static void plant(const char *what, long n)
{
    char fault[64];
    snprintf(fault, sizeof fault, "%s:%ld", what, n);
    setenv("HG_SIMT_FAULT", fault, 1);
}

static void in_child(void (*run)(const char *what, long n), const char *what, long n)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(120); /* a hang is a failure */
        run(what, n);
        fflush(NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("with %s:%ld the child ended with status %d", what, n, status);
}

static void fall_back(const char *what, long n)
{
    struct answer want, got;
    struct job j = jobs[0];
    struct hg_model *m = load_graphs("simt", "0");
    j.max_tokens = 8;
    run_jobs(m, &j, 1, 1, &want);
    hg_model_free(m);
    struct simt_counts before = counts();
    m = load_graphs("simt", "1");
    plant(what, n);
    run_jobs(m, &j, 1, HG_STEPS_AHEAD, &got);
    hg_model_free(m);
    struct simt_counts after = counts();
    EXPECT(after.captures - before.captures == 1); /* tried once, then never again */
    EXPECT(after.graph_launches == before.graph_launches);
    EXPECT(memcmp(&got, &want, sizeof want) == 0);
    printf("  %s fails: the same ids without graphs\n", what);
}

static void a_capture_that_fails_leaves_the_steps_eager(void **state)
{
    (void)state;
    need_simt();
    in_child(fall_back, "capture", 1);
    in_child(fall_back, "instantiate", 1);
}

/* The n-th kernel breaks the device while steps are in flight. */
static void break_in_flight(const char *what, long nth)
{
    struct hg_model *m = load_graphs("simt", "1");
    struct hg_seq *s[2] = {start(m, &jobs[0], 0), start(m, &jobs[0], 1)};
    struct hg_step_item items[2] = {{s[0], PROMPT}, {s[1], PROMPT}};
    struct hg_token t[MAX_SEQS];
    struct hg_error err = {0};
    enum hg_status status = HG_STATUS_OK;
    size_t n = 0;
    int n_known = 0;
    plant(what, nth);
    while (status == HG_STATUS_OK && hg_seq_n_left(s[0]) > 0) {
        status = hg_model_step_begin(m, items, 2, &err);
        items[0].n_tokens = items[1].n_tokens = 1;
        if (status == HG_STATUS_OK && hg_model_steps_in_flight(m) == HG_STEPS_AHEAD) {
            status = hg_model_step_end(m, t, &n, &err);
            n_known += status == HG_STATUS_OK;
        }
    }
    EXPECT(status == HG_STATUS_DEVICE);
    while (hg_model_steps_in_flight(m) > 0)
        if (hg_model_step_end(m, t, &n, &err) == HG_STATUS_OK)
            n_known++;
    for (int i = 0; i < 2; i++) {
        EXPECT((int)hg_seq_n_generated(s[i]) == n_known);
        EXPECT(hg_seq_n_left(s[i]) == jobs[0].max_tokens - n_known); /* the rest was taken back */
    }
    EXPECT(hg_model_step_begin(m, items, 2, &err) == HG_STATUS_DEVICE);
    printf("  %s %ld: device error after %d tokens: %s\n", what, nth, n_known, err.text);
    hg_seq_free(s[0]);
    hg_seq_free(s[1]);
    hg_model_free(m);
}

static void a_device_that_breaks_with_steps_in_flight_is_an_error(void **state)
{
    (void)state;
    need_simt();
    in_child(break_in_flight, "launch", 30); /* of the eager step */
    in_child(break_in_flight, "launch", 70); /* kernels of graphs */
    in_child(break_in_flight, "launch", 100);
    in_child(break_in_flight, "launch", 133);
    in_child(break_in_flight, "copy", 9);
    in_child(break_in_flight, "copy", 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_ahead_give_the_ids_of_steps_one_by_one),
        cmocka_unit_test(what_cannot_run_ahead_is_refused_and_nothing_changes),
        cmocka_unit_test(a_sequence_may_be_freed_while_its_steps_are_in_flight),
        cmocka_unit_test(replayed_steps_equal_eager_ones_bit_for_bit),
        cmocka_unit_test(a_shape_runs_once_op_by_op_and_is_replayed_from_then_on),
        cmocka_unit_test(a_capture_that_fails_leaves_the_steps_eager),
        cmocka_unit_test(a_device_that_breaks_with_steps_in_flight_is_an_error),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
