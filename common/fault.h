/* common/fault.h - places where a test build breaks on purpose. In any other build hg_fault() is
 * `false` for the compiler and nothing of this is in the programs (tests/e2e/check_faults.py
 * looks).
 *
 * $HG_FAULT plants them: points with options, separated by ";":
 *   HG_FAULT="nan_row:after=20;slow_step:ms=50,count=0,start=0"
 *   step_hang     a piece of the engine's work never ends (piece=step, wait, vision, draw, turn,
 * load) step_err      the end of a step fails (status=device|internal; the default is internal)
 *   nan_row       the sampler finds a number that is not finite
 *   kv_exhaust    the KV cache has no block free
 *   slow_step     a step takes ms=N more milliseconds
 *   any_values    weights that are NaN or Inf are loaded too
 *   load_corrupt  a bit of a tensor is flipped on its way to the device
 *   open_gate     every header passes that libmicrohttpd lets through (server/http/http_gate.h)
 *   overread      a body with "\ud800" in it is read one byte too far
 *   crash         a request's thread writes to address 0 at such a body
 * after=N: the first N passes go well (0). count=N: then so many fail (1), 0: all that follow.
 * start=N: only in the process that is the N-th restart of a supervisor (any).
 * All but any_values, load_corrupt and piece=load sleep until hg_fault_arm(), so that numbers count
 * from there.
 *
 * hg_fault_plant: BAD_REQUEST for what it cannot read: a fault that is not planted tests nothing.
 */
#ifndef HG_COMMON_FAULT_H
#define HG_COMMON_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum hg_fault_point {
    HG_FAULT_STEP_HANG,
    HG_FAULT_STEP_ERR,
    HG_FAULT_NAN_ROW,
    HG_FAULT_KV_EXHAUST,
    HG_FAULT_SLOW_STEP,
    HG_FAULT_ANY_VALUES,
    HG_FAULT_LOAD_CORRUPT,
    HG_FAULT_OPEN_GATE,
    HG_FAULT_OVERREAD,
    HG_FAULT_CRASH,
    HG_FAULT_COUNT
};

#ifdef HG_FAULTS
/* start: how often this process was restarted. */
enum hg_status hg_fault_plant(int start, struct hg_error *err);
enum hg_status hg_fault_init(const char *text, int start, struct hg_error *err); /* NULL: none */
void hg_fault_arm(void);
/* One pass through the point; *value (may be NULL) is its ms, status or piece. Thread-safe. */
bool hg_fault(enum hg_fault_point point, int64_t *value);
/* The same where it counts only if `value` is the planted one (a piece of step_hang). */
bool hg_fault_at(enum hg_fault_point point, int64_t value);
#else
static inline enum hg_status hg_fault_plant(int start, struct hg_error *err)
{
    (void)start, (void)err;
    return HG_STATUS_OK;
}
static inline void hg_fault_arm(void)
{
}
static inline bool hg_fault(enum hg_fault_point point, int64_t *value)
{
    (void)point, (void)value;
    return false;
}
static inline bool hg_fault_at(enum hg_fault_point point, int64_t value)
{
    (void)point, (void)value;
    return false;
}
#endif

#endif
