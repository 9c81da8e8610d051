/* common/fault.c - see fault.h; empty but in a build with HG_FAULTS. */
#include "common/fault.h"

#ifdef HG_FAULTS
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct fault {
    bool planted, early; /* early: not asleep until armed */
    int64_t after, count, value;
    int64_t passes; /* so far */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault faults[HG_FAULT_COUNT];
static bool armed;

static const char *const names[HG_FAULT_COUNT] = {
    "step_hang",  "step_err",     "nan_row",   "kv_exhaust", "slow_step",
    "any_values", "load_corrupt", "open_gate", "overread",   "crash"};

struct word {
    const char *text;
    int64_t value;
};
/* As enum hg_piece of server/engine/watchdog.h. */
static const struct word pieces[] = {{"turn", 1}, {"load", 2}, {"step", 3}, {"vision", 4},
                                     {"draw", 5}, {"wait", 6}, {NULL, 0}};
static const struct word statuses[] = {
    {"device", HG_STATUS_DEVICE}, {"internal", HG_STATUS_INTERNAL}, {NULL, 0}};

static bool read_word(const struct word *w, const char *text, int64_t *out)
{
    while (w->text && strcmp(w->text, text) != 0)
        w++;
    *out = w->value;
    return w->text != NULL;
}

static bool read_number(const char *text, int64_t *out)
{
    char *end;
    *out = strtoll(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *out <= 1000000000;
}

/* "after=20" of a point; *start of the process it is for. */
static bool read_option(struct fault *f, int point, char *text, int64_t *start)
{
    char *value = strchr(text, '=');
    if (!value)
        return false;
    *value++ = '\0';
    if (strcmp(text, "after") == 0)
        return read_number(value, &f->after);
    if (strcmp(text, "count") == 0)
        return read_number(value, &f->count);
    if (strcmp(text, "start") == 0)
        return read_number(value, start);
    if (strcmp(text, "ms") == 0 && point == HG_FAULT_SLOW_STEP)
        return read_number(value, &f->value);
    if (strcmp(text, "piece") == 0 && point == HG_FAULT_STEP_HANG)
        return read_word(pieces, value, &f->value);
    return strcmp(text, "status") == 0 && point == HG_FAULT_STEP_ERR &&
           read_word(statuses, value, &f->value);
}

static int point_of(const char *name)
{
    int i = 0;
    while (i < HG_FAULT_COUNT && strcmp(names[i], name) != 0)
        i++;
    return i;
}

static enum hg_status plant(char *text, int this_start, struct hg_error *err)
{
    struct fault f = {.planted = true, .count = 1};
    int64_t start = this_start;
    char *options = strchr(text, ':'), *next;
    if (options)
        *options++ = '\0';
    int point = point_of(text);
    if (point == HG_FAULT_COUNT)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "HG_FAULT: no point \"%.32s\"", text);
    f.value = point == HG_FAULT_STEP_HANG ? 3 : point == HG_FAULT_STEP_ERR ? HG_STATUS_INTERNAL : 0;
    for (char *o = options ? strtok_r(options, ",", &next) : NULL; o;
         o = strtok_r(NULL, ",", &next))
        if (!read_option(&f, point, o, &start))
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "HG_FAULT: %s: option \"%.32s\"", text, o);
    f.early = point == HG_FAULT_LOAD_CORRUPT || point == HG_FAULT_ANY_VALUES ||
              (point == HG_FAULT_STEP_HANG && f.value == 2);
    if (start == this_start)
        faults[point] = f;
    return HG_STATUS_OK;
}

enum hg_status hg_fault_init(const char *text, int start, struct hg_error *err)
{
    char copy[512], *next;
    enum hg_status status = HG_STATUS_OK;
    pthread_mutex_lock(&lock);
    memset(faults, 0, sizeof faults);
    armed = false;
    if (text && strlen(text) >= sizeof copy) {
        status = hg_fail(err, HG_STATUS_BAD_REQUEST, "HG_FAULT: too long");
    } else if (text) {
        strcpy(copy, text);
        for (char *p = strtok_r(copy, ";", &next); p && status == HG_STATUS_OK;
             p = strtok_r(NULL, ";", &next))
            status = plant(p, start, err);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

enum hg_status hg_fault_plant(int start, struct hg_error *err)
{
    return hg_fault_init(getenv("HG_FAULT"), start, err);
}

void hg_fault_arm(void)
{
    pthread_mutex_lock(&lock);
    armed = true;
    pthread_mutex_unlock(&lock);
}

/* [lock] */
static bool pass(struct fault *f)
{
    if (!f->planted || !(armed || f->early))
        return false;
    int64_t n = f->passes++;
    return n >= f->after && (f->count == 0 || n < f->after + f->count);
}

bool hg_fault(enum hg_fault_point point, int64_t *value)
{
    pthread_mutex_lock(&lock);
    bool due = pass(&faults[point]);
    if (value)
        *value = faults[point].value;
    pthread_mutex_unlock(&lock);
    return due;
}

bool hg_fault_at(enum hg_fault_point point, int64_t value)
{
    pthread_mutex_lock(&lock);
    bool due = faults[point].value == value && pass(&faults[point]);
    pthread_mutex_unlock(&lock);
    return due;
}
#endif
