/* tools/healthgpt/bench_floor.h - what a decode step cannot be faster than: the bytes that it must
 * read, at the rate at which this machine reads. */
#ifndef HG_TOOLS_BENCH_FLOOR_H
#define HG_TOOLS_BENCH_FLOOR_H

#include "model/healthgpt.h"

/* Bytes per second that plain reading of memory reaches: of the card where the backend says so, of
 * the processors (n_threads, 0: all) where the backend is theirs; 0: not known, as on an emulation.
 * Takes about a second. */
double hg_bench_read_rate(struct hg_model *m, int n_threads);

/* Bytes that one decode step reads at least: base linears and the heads of the tasks in use once,
 * their plug-ins, and the cached keys and values of n_seqs sequences of n_positions (a mean). Of a
 * head, the rows that a drawing may use (constrained). */
double hg_bench_step_bytes(const struct hg_model *m, const bool tasks[HG_TASK_COUNT], bool plugins,
                           bool constrained, int n_seqs, double n_positions);

/* Bytes of the decoder's linears without plug-ins. */
double hg_bench_linear_bytes(const struct hg_model *m);

/* Until the device has done what was asked of it. */
enum hg_status hg_bench_wait(struct hg_model *m);

#endif
