/* tests/server/test_watchdog.c - the heartbeat and who looks at it, with made-up times; then with a
 * thread that hangs. */
#include "server/engine/watchdog.h"

#include <pthread.h>
#include <semaphore.h>

#include "common/log.h"
#include "tests/test.h"

enum { SECOND = 1000000000, TICK = SECOND / 10 };

static struct hg_heart heart;
static struct hg_watch watch;
static int64_t now;

static void begin(void)
{
    memset(&heart, 0, sizeof heart);
    now = 1000 * (int64_t)SECOND;
    watch =
        (struct hg_watch){.heart = &heart, .limit_ns = SECOND, .period_ns = TICK, .looked_ns = now};
}

/* Eight pieces that take a moment, so that the next one is not among the first. */
static void warm_up(enum hg_piece piece)
{
    for (int i = 0; i < 8; i++) {
        assert_true(hg_heart_beat_at(&heart, piece, now));
        now += SECOND / 1000;
        assert_true(hg_heart_beat_at(&heart, HG_PIECE_NONE, now));
    }
}

/* Look every tick for `ticks`; the number of the look that condemned, 0: none did. */
static int look(int ticks, enum hg_piece *hung)
{
    for (int i = 1; i <= ticks; i++) {
        now += TICK;
        *hung = hg_watch_look(&watch, now);
        if (*hung != HG_PIECE_NONE)
            return i;
    }
    return 0;
}

static void a_piece_over_its_limit_is_condemned_once(void **state)
{
    (void)state;
    enum hg_piece hung;
    begin();
    warm_up(HG_PIECE_STEP);
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
    int at = look(100, &hung);
    assert_int_equal(hung, HG_PIECE_STEP);
    assert_in_range(at, 10, 12); /* one second; the first look only meets it */
    assert_int_equal(look(100, &hung), 0);
    assert_false(hg_heart_beat_at(&heart, HG_PIECE_NONE, now)); /* and its thread has to park */
    assert_false(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
}

static void an_engine_at_rest_or_at_work_is_left_alone(void **state)
{
    (void)state;
    enum hg_piece hung;
    begin();
    assert_int_equal(look(1000, &hung), 0);
    warm_up(HG_PIECE_STEP);
    for (int i = 0; i < 100; i++) { /* each piece is at work for most of the limit */
        assert_true(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
        assert_int_equal(look(8, &hung), 0);
    }
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_NONE, now));
    assert_int_equal(look(1000, &hung), 0);
}

static void the_first_pieces_and_loading_have_more_time(void **state)
{
    (void)state;
    begin();
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_LOAD, SECOND), 30 * (int64_t)SECOND);
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_STEP, SECOND), 10 * (int64_t)SECOND);
    warm_up(HG_PIECE_STEP);
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_STEP, SECOND), SECOND);
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_DRAW, SECOND), 10 * (int64_t)SECOND);
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_TURN, SECOND), SECOND);
}

static void a_slow_machine_gets_five_times_its_longest(void **state)
{
    (void)state;
    begin();
    warm_up(HG_PIECE_STEP);
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
    now += 3 * (int64_t)SECOND;
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_TURN, now));
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_STEP, SECOND), 15 * (int64_t)SECOND);
    assert_int_equal(hg_watch_limit(&heart, HG_PIECE_TURN, SECOND), SECOND);
}

/* An hour between two looks: stopped, or a machine that slept. The piece gets its time again. */
static void time_that_nobody_saw_does_not_count(void **state)
{
    (void)state;
    enum hg_piece hung;
    begin();
    warm_up(HG_PIECE_STEP);
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
    assert_int_equal(look(3, &hung), 0);
    now += 3600 * (int64_t)SECOND;
    assert_int_equal(hg_watch_look(&watch, now), HG_PIECE_NONE);
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_NONE, now));
}

/* ---- with threads ---------------------------------------------------------------------------- */

static sem_t hung_now, go_on;
static struct hg_error reason;
static atomic_bool went_on;

static void on_hung(void *ctx, const struct hg_error *why)
{
    (void)ctx;
    reason = *why;
    sem_post(&hung_now);
}

static void *engine(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < 20; i++)
        hg_heart_beat(&heart, i % 2 ? HG_PIECE_TURN : HG_PIECE_VISION);
    hg_heart_beat(&heart, HG_PIECE_VISION);
    sem_wait(&go_on); /* it hangs */
    hg_heart_beat(&heart, HG_PIECE_TURN);
    atomic_store(&went_on, true);
    return NULL;
}

static void a_thread_that_hangs_is_seen_and_parked(void **state)
{
    (void)state;
    struct hg_watchdog *dog = NULL;
    struct hg_error err = {0};
    pthread_t thread;
    memset(&heart, 0, sizeof heart);
    sem_init(&hung_now, 0, 0);
    sem_init(&go_on, 0, 0);
    HG_TEST_OK(hg_watchdog_start(&heart, 100, on_hung, NULL, &dog, &err), err);
    assert_int_equal(pthread_create(&thread, NULL, engine, NULL), 0);
    sem_wait(&hung_now);
    hg_watchdog_stop(dog); /* before its grace is over, or it would end this process */
    assert_int_equal(reason.status, HG_STATUS_ENGINE);
    assert_non_null(strstr(reason.text, "(vision) takes longer than 0."));
    sem_post(&go_on);
    assert_false(hg_heart_beat_at(&heart, HG_PIECE_NONE, 0));
    assert_false(atomic_load(&went_on));
    pthread_detach(thread); /* it waits for the end of the process */
}

static void a_heart_is_young_until_its_piece_is_late(void **state)
{
    (void)state;
    begin();
    assert_true(hg_heart_is_young(&heart, SECOND, now)); /* it has not begun */
    warm_up(HG_PIECE_STEP);
    assert_true(hg_heart_is_young(&heart, SECOND, now + 1000 * (int64_t)SECOND)); /* at rest */
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_STEP, now));
    assert_true(hg_heart_is_young(&heart, SECOND, now + SECOND - 1));
    assert_false(hg_heart_is_young(&heart, SECOND, now + SECOND));
    assert_true(hg_heart_is_young(&heart, 2 * (int64_t)SECOND, now + SECOND));
    assert_true(hg_heart_beat_at(&heart, HG_PIECE_VISION, now + SECOND)); /* the first has more */
    assert_true(hg_heart_is_young(&heart, SECOND, now + 5 * (int64_t)SECOND));
}

static void no_limit_no_watchdog(void **state)
{
    (void)state;
    struct hg_watchdog *dog = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_watchdog_start(&heart, 0, on_hung, NULL, &dog, &err), err);
    assert_null(dog);
    hg_watchdog_stop(NULL);
    hg_heart_beat(NULL, HG_PIECE_STEP);
}

int main(void)
{
    hg_log_set(HG_LOG_OFF, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_piece_over_its_limit_is_condemned_once),
        cmocka_unit_test(an_engine_at_rest_or_at_work_is_left_alone),
        cmocka_unit_test(the_first_pieces_and_loading_have_more_time),
        cmocka_unit_test(a_slow_machine_gets_five_times_its_longest),
        cmocka_unit_test(time_that_nobody_saw_does_not_count),
        cmocka_unit_test(a_heart_is_young_until_its_piece_is_late),
        cmocka_unit_test(no_limit_no_watchdog),
        cmocka_unit_test(a_thread_that_hangs_is_seen_and_parked),
    };
    return cmocka_run_group_tests_name("server/engine/watchdog", tests, NULL, NULL);
}
