/* tests/server/test_pieces.c - pictures beside a running stream: how much work stands between two
 * of its steps, counted at the backend; cancellation at many points; the bytes.
 *
 * The model is random: a language model of four small layers, a vision tower and a VQGAN that are
 * several pieces of work each. The backend's table is replaced by one that counts multiply-adds and
 * passes on. */
#include "common/clock.h"
#include "common/log.h"
#include "kernels/cpu/cpu.h"
#include "model/internal.h"
#include "server/engine/engine.h"
#include "tests/parity/model_writer.h"
#include "tests/random_model.h"
#include "tests/server/gate.h"
#include "tests/test.h"

enum { PICTURES = 8, STREAM_TOKENS = 3900 };

static char folder[256];

/* ---- counting ----------------------------------------------------------------------------------
 */

static struct {
    const struct hg_backend_ops *real;
    struct hg_backend_ops ops;
    atomic_bool on;
    bool in_step;
    int64_t gap, largest_gap, largest_op, total; /* cost of what is outside of steps */
    int64_t gap_start, longest_ns;               /* from one step's tokens to the next one's */
    int n_ops;                                   /* outside of steps, ever */
    struct hg_request *victim;                   /* cancelled when n_ops gets to cancel_at */
    int cancel_at;
    int64_t after_cancel; /* cost of what was begun later, its own operation included */
    int fail_at;          /* the linear that fails, at the earliest; 0: none */
} count;

static void counted(int64_t work, int cost)
{
    work *= cost;
    if (count.in_step)
        return;
    if (count.victim && count.n_ops >= count.cancel_at) {
        hg_request_cancel(count.victim);
        count.after_cancel += work;
    }
    count.n_ops++;
    if (!atomic_load(&count.on))
        return;
    count.gap += work;
    count.total += work;
    count.largest_op = work > count.largest_op ? work : count.largest_op;
    count.largest_gap = count.gap > count.largest_gap ? count.gap : count.largest_gap;
}

static enum hg_status count_linear(struct hg_backend *b, const struct hg_linear_args *a)
{
    counted((int64_t)a->n_rows * a->w->n_in * a->w->n_out, HG_SEEN_COST);
    if (count.fail_at && !count.in_step && count.n_ops >= count.fail_at) {
        count.fail_at = 0;
        return HG_STATUS_INTERNAL;
    }
    return count.real->linear(b, a);
}

static enum hg_status count_conv(struct hg_backend *b, const struct hg_conv_args *a)
{
    int64_t out =
        (int64_t)(a->height * a->upsample / a->stride) * (a->width * a->upsample / a->stride);
    counted(out * a->w->n_in * a->w->n_out, HG_DRAWN_COST);
    return count.real->conv(b, a);
}

static enum hg_status count_attention(struct hg_backend *b, const struct hg_attention_full_args *a)
{
    counted(2 * (int64_t)a->n_batch * a->n_rows * a->n_rows * a->n_heads * a->head_dim,
            a->n_heads == 1 ? HG_DRAWN_COST : HG_SEEN_COST);
    return count.real->attention_full(b, a);
}

static enum hg_status count_begin(struct hg_backend *b, const struct hg_plan *plan, bool *replayed)
{
    count.in_step = true;
    return count.real->step_begin(b, plan, replayed);
}

static enum hg_status count_end(struct hg_backend *b, int64_t *step)
{
    count.in_step = false;
    return count.real->step_end(b, step);
}

/* The tokens of a step are handed out. */
static enum hg_status count_wait(struct hg_backend *b, int64_t step)
{
    gate_pass();
    enum hg_status status = count.real->step_wait(b, step);
    int64_t now = hg_now_ns();
    if (atomic_load(&count.on) && count.gap_start && now - count.gap_start > count.longest_ns)
        count.longest_ns = now - count.gap_start;
    count.gap_start = atomic_load(&count.on) ? now : 0;
    count.gap = 0;
    return status;
}

/* ---- the bench ---------------------------------------------------------------------------------
 */

struct bench {
    struct hg_model *model;
    struct hg_scheduler *scheduler;
    struct hg_model_info info;
};

static void open_bench_with(struct bench *b, int max_batch, bool forget)
{
    struct hg_error err = {0};
    struct hg_model_options o = {.path = folder,
                                 .backend = "cpu",
                                 .n_threads = 1,
                                 .max_seqs = max_batch,
                                 .forget = forget,
                                 .kv_tokens = 16384};
    struct hg_scheduler_options s = {.max_batch = max_batch, .max_queue = 64, .timeout_ms = 600000};
    HG_TEST_OK(hg_model_load(&o, &b->model, &err), err);
    hg_model_info(b->model, &b->info);
    memset(&count, 0, sizeof count);
    count.real = b->model->backend->ops;
    count.ops = *count.real;
    count.ops.linear = count_linear;
    count.ops.conv = count_conv;
    count.ops.attention_full = count_attention;
    count.ops.step_begin = count_begin;
    count.ops.step_end = count_end;
    count.ops.step_wait = count_wait;
    b->model->backend->ops = &count.ops;
    HG_TEST_OK(hg_scheduler_create(b->model, &s, &b->scheduler, &err), err);
}

/* Each picture is seen anew. */
static void open_bench(struct bench *b, int max_batch)
{
    open_bench_with(b, max_batch, true);
}

static void close_bench(struct bench *b)
{
    hg_scheduler_free(b->scheduler);
    b->model->backend->ops = count.real;
    hg_model_free(b->model);
}

/* look 0: without a picture. */
static struct hg_request *submit_of(struct bench *b, uint64_t tenant, enum hg_task task, int look,
                                    int max_tokens)
{
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_error err = {0};
    hg_ask_init(&a, task);
    a.question = strdup("What is shown here?");
    a.n_question = strlen(a.question);
    a.sampling.max_tokens = max_tokens;
    a.sampling.ignore_stop = task == HG_TASK_COMPREHENSION;
    a.sampling.seed = (uint64_t)look + 1;
    a.has_seed = true;
    a.tenant.id = tenant;
    if (look) {
        HG_TEST_OK(hg_image_init(&a.images[0], 50, 80, &err), err);
        a.n_images = 1;
        for (int i = 0; i < 50 * 80 * 3; i++)
            a.images[0].rgb[i] = (uint8_t)(i * look + i / 150 * 3);
    }
    HG_TEST_OK(hg_request_create(b->model, &a, &r, &err), err);
    hg_ask_deinit(&a);
    HG_TEST_OK(hg_scheduler_submit(b->scheduler, r, &err), err);
    return r;
}

static struct hg_request *submit(struct bench *b, enum hg_task task, int look, int max_tokens)
{
    return submit_of(b, 0, task, look, max_tokens);
}

static void wait_done(struct hg_request *r)
{
    hg_stream_wait(&r->stream, SIZE_MAX);
    if (r->result.error.status != HG_STATUS_OK)
        fail_msg("%s", r->result.error.text);
}

static void expect_same(const struct hg_request *a, const struct hg_request *b)
{
    assert_int_equal(a->stream.text.len, b->stream.text.len);
    if (a->stream.text.len)
        assert_memory_equal(a->stream.text.data, b->stream.text.data, a->stream.text.len);
    const struct hg_image *x = &a->result.image, *y = &b->result.image;
    assert_int_equal(x->width, y->width);
    if (x->width)
        assert_memory_equal(x->rgb, y->rgb, (size_t)x->width * (size_t)x->height * 3);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

/* A stream runs while eight pictures are seen and eight drawn: between two of its steps stands
 * never more than a piece, which is a chunk of a prompt, though each picture is many chunks. */
static void a_stream_waits_for_one_piece_at_most(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *rs[2 * PICTURES];
    struct hg_scheduler_stats before, after;
    open_bench(&b, 2 * PICTURES + 1);
    gate_close();
    struct hg_request *stream = submit(&b, HG_TASK_COMPREHENSION, 0, STREAM_TOKENS);
    gate_await(); /* in its first step, alone */
    hg_scheduler_stats(b.scheduler, &before);
    atomic_store(&count.on, true);
    for (int i = 0; i < 2 * PICTURES; i++)
        rs[i] = i % 2 ? submit(&b, HG_TASK_GENERATION, 0, 0)
                      : submit(&b, HG_TASK_COMPREHENSION, 1 + i, 4);
    gate_open();
    for (int i = 0; i < 2 * PICTURES; i++)
        wait_done(rs[i]);
    assert_false(hg_stream_ended(&stream->stream)); /* it ran all the time */
    atomic_store(&count.on, false);
    hg_scheduler_stats(b.scheduler, &after);
    hg_request_cancel(stream);
    hg_stream_wait(&stream->stream, SIZE_MAX);
    hg_request_unref(stream);
    for (int i = 0; i < 2 * PICTURES; i++)
        hg_request_unref(rs[i]);
    close_bench(&b);

    int64_t chunk = after.piece_work, seen = b.info.vision_work * HG_SEEN_COST;
    int64_t drawn = b.info.render_work * HG_DRAWN_COST;
    uint64_t n_pieces = after.n_pieces - before.n_pieces;
    printf("# chunk %.1f M; a picture seen %.1f M, drawn %.1f M, largest operation %.1f M; largest "
           "gap %.1f M in %llu pieces; longest from step to step %.1f ms\n",
           (double)chunk / 1e6, (double)seen / 1e6, (double)drawn / 1e6,
           (double)count.largest_op / 1e6, (double)count.largest_gap / 1e6,
           (unsigned long long)n_pieces, (double)count.longest_ns / 1e6);
    assert_int_equal(chunk, 256 * b.info.token_work);
    assert_true(seen > 4 * chunk && drawn > 4 * chunk);
    assert_int_equal(count.total, PICTURES * (seen + drawn)); /* the announced work, all of it */
    int64_t op[] = {b.info.vision_op * HG_SEEN_COST, b.info.render_op * HG_DRAWN_COST};
    assert_true(op[0] <= chunk && op[1] <= chunk);
    assert_true(count.largest_op <= (op[0] > op[1] ? op[0] : op[1]));
    assert_true(count.largest_gap <= chunk);
    assert_true(n_pieces >= (uint64_t)(PICTURES * (seen + drawn) / chunk));
}

/* A prompt of several chunks beside a running stream: it is reported as it is computed. */
static void a_long_prompt_reports_each_chunk(void **state)
{
    (void)state;
    enum { WORDS = 1500 };
    struct bench b;
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_error err = {0};
    struct hg_event e = {.type = HG_EVENT_PREFILL};
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_buf text = {0};
    int n = 0, done = 0;
    open_bench(&b, 2);
    gate_close();
    struct hg_request *stream = submit(&b, HG_TASK_COMPREHENSION, 0, STREAM_TOKENS);
    gate_await(); /* in its first step, alone */
    hg_ask_init(&a, HG_TASK_COMPREHENSION);
    a.question = malloc(2 * WORDS + 1);
    a.n_question = 2 * WORDS;
    for (int i = 0; i < WORDS; i++)
        memcpy(a.question + 2 * i, "a ", 3);
    a.sampling.max_tokens = 2;
    HG_TEST_OK(hg_request_create(b.model, &a, &r, &err), err);
    hg_ask_deinit(&a);
    HG_TEST_OK(hg_scheduler_submit(b.scheduler, r, &err), err);
    gate_open();
    wait_done(r);
    assert_false(hg_stream_ended(&stream->stream));
    for (size_t at = 0;; at++) {
        assert_true(hg_stream_read(&r->stream, at, &e, &text, tops));
        if (e.type != HG_EVENT_PREFILL)
            break;
        assert_int_equal(e.total, r->n_prompt);
        assert_int_equal(e.n_found, 0);
        assert_true(n == 0 ? e.done == 0 : e.done > done && e.done - done <= HG_SHARED_PREFILL);
        done = e.done;
        n++;
    }
    printf("# a prompt of %d tokens: %d reports\n", r->n_prompt, n);
    assert_int_equal(done, r->n_prompt);
    assert_int_equal(n, 1 + (r->n_prompt + HG_SHARED_PREFILL - 1) / HG_SHARED_PREFILL);
    hg_request_cancel(stream);
    hg_stream_wait(&stream->stream, SIZE_MAX);
    hg_request_unref(stream);
    hg_request_unref(r);
    hg_buf_deinit(&text);
    close_bench(&b);
}

/* The bytes of all of them alone, then at once. */
static void pictures_in_pieces_change_no_byte(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *alone[6], *rs[6];
    open_bench(&b, 8);
    for (int i = 0; i < 6; i++) {
        bool draws = i % 3 == 2;
        alone[i] = submit(&b, draws ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION,
                          i == 2 ? 0 : 1 + i, draws ? 0 : 12);
        wait_done(alone[i]);
    }
    for (int i = 0; i < 6; i++) {
        bool draws = i % 3 == 2;
        rs[i] = submit(&b, draws ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION, i == 2 ? 0 : 1 + i,
                       draws ? 0 : 12);
    }
    for (int i = 0; i < 6; i++) {
        wait_done(rs[i]);
        expect_same(rs[i], alone[i]);
    }
    const struct hg_image *one = &rs[2]->result.image, *two = &rs[5]->result.image;
    assert_memory_not_equal(one->rgb, two->rgb, (size_t)one->width * (size_t)one->height * 3);
    for (int i = 0; i < 6; i++) {
        hg_request_unref(rs[i]);
        hg_request_unref(alone[i]);
    }
    close_bench(&b);
}

/* Cancelled at the n-th operation of a picture: the rest of the piece is done and no more, the next
 * picture is right. */
static int cancel_at(struct bench *b, enum hg_task task, int n, const struct hg_request *want)
{
    bool draws = task == HG_TASK_GENERATION;
    struct hg_scheduler_stats stats;
    struct hg_error err = {0};
    struct hg_ask a;
    count.cancel_at = count.n_ops + n;
    count.after_cancel = 0;
    hg_ask_init(&a, task);
    a.question = strdup("What is shown here?");
    a.n_question = strlen(a.question);
    a.sampling.max_tokens = draws ? 0 : 4;
    a.stream = draws; /* with previews: they are drawn in pieces too */
    a.previews = draws ? 2 : 0;
    if (!draws)
        HG_TEST_OK(hg_image_init(&a.images[a.n_images++], 20, 20, &err), err);
    HG_TEST_OK(hg_request_create(b->model, &a, &count.victim, &err), err);
    hg_ask_deinit(&a);
    struct hg_request *victim = count.victim;
    HG_TEST_OK(hg_scheduler_submit(b->scheduler, victim, &err), err);
    hg_stream_wait(&victim->stream, SIZE_MAX);
    bool cancelled = victim->result.error.status == HG_STATUS_CANCELLED;
    count.victim = NULL; /* the engine thread is idle */
    assert_null(hg_model_encoding(b->model));
    assert_int_equal(hg_model_kv_free(b->model), b->info.kv_blocks_free);
    struct hg_request *next = submit(b, task, draws ? 0 : 1, draws ? 0 : 4);
    wait_done(next);
    hg_scheduler_stats(b->scheduler, &stats);
    if (cancelled)
        assert_true(count.after_cancel > 0 && count.after_cancel <= stats.piece_work);
    expect_same(next, want);
    hg_request_unref(victim);
    hg_request_unref(next);
    return cancelled;
}

static void a_picture_is_left_within_a_piece_when_its_client_goes(void **state)
{
    (void)state;
    enum { POINTS = 10 };
    struct bench b;
    int n_seen = 0, n_drawn = 0, n_ops[2];
    struct hg_request *want[2];
    open_bench(&b, 2);
    for (int t = 0; t < 2; t++) {
        int before = count.n_ops;
        want[t] = submit(&b, t ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION, t ? 0 : 1, t ? 0 : 4);
        wait_done(want[t]);
        n_ops[t] =
            (count.n_ops - before) * (t ? 2 : 1); /* a preview and half of the next picture */
    }
    for (int i = 0; i < POINTS; i++) {
        n_seen += cancel_at(&b, HG_TASK_COMPREHENSION, n_ops[0] * i / POINTS, want[0]);
        n_drawn += cancel_at(&b, HG_TASK_GENERATION, n_ops[1] * i / POINTS, want[1]);
    }
    printf("# cancelled at %d of %d points while seen, %d of %d while drawn\n", n_seen, POINTS,
           n_drawn, POINTS);
    assert_int_equal(n_seen, POINTS);
    assert_int_equal(n_drawn, POINTS);
    hg_request_unref(want[0]);
    hg_request_unref(want[1]);
    close_bench(&b);
}

/* ---- one picture, many requests ---------------------------------------------------------------
 */

enum { SHARING = 4, SHARED_LOOK = 5, SHARED_TOKENS = 6 };

struct shared_case {
    bool forget;
    int n_others;   /* of SHARING: of another tenant */
    int cancel_pct; /* of the operations of one picture: the first is cancelled there; 0: not */
    int fail_pct;   /* one fails there; 0: not */
    int n_encoded;  /* what is expected */
};

/* All are waiting before the first can begin. */
static void share(struct hg_request *const want, int n_ops, const struct shared_case *c)
{
    struct bench b;
    struct hg_request *rs[SHARING];
    struct hg_scheduler_stats stats;
    int n_bad = 0, n_free;
    open_bench_with(&b, SHARING + 1, c->forget);
    gate_close();
    struct hg_request *stream = submit(&b, HG_TASK_COMPREHENSION, 0, STREAM_TOKENS);
    gate_await();
    for (int i = 0; i < SHARING; i++)
        rs[i] = submit_of(&b, i >= SHARING - c->n_others, HG_TASK_COMPREHENSION, SHARED_LOOK,
                          SHARED_TOKENS);
    count.victim = c->cancel_pct ? rs[0] : NULL;
    count.cancel_at = count.n_ops + n_ops * c->cancel_pct / 100;
    count.fail_at = c->fail_pct ? count.n_ops + n_ops * c->fail_pct / 100 : 0;
    atomic_store(&count.on, true);
    gate_open();
    for (int i = 0; i < SHARING; i++) {
        hg_stream_wait(&rs[i]->stream, SIZE_MAX);
        enum hg_status status = rs[i]->result.error.status;
        if (i == 0 && (c->cancel_pct || c->fail_pct))
            assert_int_equal(status, c->fail_pct ? HG_STATUS_INTERNAL : HG_STATUS_CANCELLED);
        else if (status != HG_STATUS_OK)
            fail_msg("request %d: %s", i, rs[i]->result.error.text);
        else
            expect_same(rs[i], want);
        n_bad += status != HG_STATUS_OK;
    }
    hg_request_cancel(stream);
    hg_stream_wait(&stream->stream, SIZE_MAX);
    hg_scheduler_stats(b.scheduler, &stats);
    n_free = hg_model_kv_free(b.model);
    int64_t seen = b.info.vision_work * HG_SEEN_COST;
    printf("# forget %d, %d of another tenant, %d left: %llu encodings, the work of %.2f\n",
           c->forget, c->n_others, n_bad, (unsigned long long)stats.n_encoded,
           (double)count.total / (double)seen);
    assert_int_equal(stats.n_encoded, c->n_encoded);
    assert_int_equal(n_bad, c->cancel_pct || c->fail_pct);
    assert_true(count.total >= c->n_encoded * seen);
    assert_true(count.total < (c->n_encoded + n_bad) * seen || !n_bad);
    assert_true(count.total == c->n_encoded * seen || n_bad);
    assert_int_equal(n_free, b.info.kv_blocks_free);
    assert_int_equal(hg_feature_cache_n_owned(&b.model->features.cache), 0);
    hg_request_unref(stream);
    for (int i = 0; i < SHARING; i++)
        hg_request_unref(rs[i]);
    close_bench(&b);
}

static void requests_about_one_picture_encode_it_once(void **state)
{
    (void)state;
    static const struct shared_case cases[] = {
        {.n_encoded = 1},
        {.n_others = 2, .n_encoded = 2},
        {.forget = true, .n_encoded = SHARING},
        {.cancel_pct = 50, .n_encoded = 1},
        {.fail_pct = 50, .n_encoded = 1},
        {.cancel_pct = 50, .n_others = SHARING - 1, .n_encoded = 1},
    };
    struct bench b;
    open_bench(&b, 1);
    struct hg_request *alone = submit(&b, HG_TASK_COMPREHENSION, SHARED_LOOK, SHARED_TOKENS);
    wait_done(alone);
    int n_ops = count.n_ops;
    close_bench(&b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        share(alone, n_ops, &cases[i]);
    hg_request_unref(alone);
}

int main(int argc, char **argv)
{
    static const char *const words[] = {
        "4", "128", "256", HG_TEST_VOCAB, "64", "--ranks", "8,16", "--wide-pictures", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_waits_for_one_piece_at_most),
        cmocka_unit_test(a_long_prompt_reports_each_chunk),
        cmocka_unit_test(pictures_in_pieces_change_no_byte),
        cmocka_unit_test(requests_about_one_picture_encode_it_once),
        cmocka_unit_test(a_picture_is_left_within_a_piece_when_its_client_goes),
    };
    (void)argc;
    hg_log_set(HG_LOG_ERROR, 0);
    hg_test_random_model(argv[0], words, folder);
    int failed = cmocka_run_group_tests_name("server/pieces", tests, NULL, NULL);
    writer_remove(folder);
    return failed;
}
