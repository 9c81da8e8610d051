/* server/config.h - what an operator may set: a JSON file with comments, then flags on top.
 *
 * One X-macro table names each key once: the JSON key, the flag ("max_queue" is --max-queue), its
 * bounds, its default and its help line come from it. config/schema.json describes the same keys.
 */
#ifndef HG_SERVER_CONFIG_H
#define HG_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_CONFIG_TEXT_CAP = 1024 };

/* T(key, default, argument, help)   N(key, default, min, max, help)   B(key, help)
 * R(key, default, min, max, help): a number with a fraction */
#define HG_CONFIG_MAP(T, N, B, R)                                                                  \
    T(listen, "127.0.0.1:8080", "ADDR:PORT", "address to listen on; port 0 takes a free one")      \
    T(model, "", "DIR", "model folder (healthgpt.json); none: the demo model")                     \
    T(backend, "auto", "NAME", "auto, cuda, cpu, ref")                                             \
    T(dtype, "auto", "TYPE", "weights: auto (as stored), f32, f16, bf16, int8, fp8, int4")         \
    T(kv_dtype, "auto", "TYPE", "KV cache: auto, f32, f16, bf16, int8")                            \
    N(threads, 0, 0, 64, "threads of the CPU backend; 0: all")                                     \
    N(http_threads, 2, 1, 64, "threads that parse requests and write answers")                     \
    T(api_keys, "", "FILE", "JSON file of API keys (see keygen); SIGHUP reads it again")           \
    N(max_queue, 64, 1, 65536, "waiting requests; more are answered 503")                          \
    N(max_queue_tokens, 0, 0, 1073741824, "tokens of waiting requests; 0: four KV caches")         \
    N(max_batch, 16, 1, 1024, "sequences that run together")                                       \
    N(max_connections, 1024, 4, 65536, "open connections")                                         \
    N(max_connections_per_address, 0, 0, 65536,                                                    \
      "of one address; 0: no limit, for loopback or a proxy in front; 64 is good without")         \
    T(allowed_hosts, "", "NAMES", "comma-separated names that are good in Host beside local ones") \
    N(kv_tokens, 0, 0, 1073741824,                                                                 \
      "KV cache in tokens; 0: max_batch contexts, at most 65536 or what a card takes")             \
    R(gpu_memory_utilization, 0, 0, 1,                                                             \
      "share of the card's free memory to take; 0: 0.90 (or the environment's)")                   \
    N(timeout_s, 600, 1, 86400, "a request is ended after this time, queue included")              \
    N(drain_s, 30, 0, 3600, "at SIGTERM, time for running requests to finish")                     \
    N(header_timeout_s, 10, 1, 3600, "a request's headers must be complete after this time")       \
    N(body_timeout_s, 60, 1, 3600, "so must its body")                                             \
    N(idle_timeout_s, 75, 1, 3600, "a connection without a request is closed after this time")     \
    N(connection_requests, 1000, 1, 1000000000, "after so many requests a connection is closed")   \
    N(connection_s, 3600, 1, 1000000, "so it is at the next request after this time")              \
    N(min_rate, 16384, 1, 1073741824,                                                              \
      "least bytes per second of a body (after 5 s) and of the rest of an answer")                 \
    N(send_timeout_s, 30, 1, 3600, "a client that does not read is cut after this time")           \
    N(max_unsent_kib, 256, 4, 65536, "so is one for which more is waiting for that long")          \
    N(ping_s, 15, 1, 3600, "an idle stream of server-sent events gets a comment after this time")  \
    N(stall_s, 30, 0, 3600, "a request that has not ended so long after its deadline is logged")   \
    R(step_timeout_s, 120, 0, 86400,                                                               \
      "a step, vision pass or drawing that takes longer ends the process (70); 0: not watched")    \
    N(canary_interval_s, 600, 0, 86400,                                                            \
      "an idle engine repeats the self-test of its start; 0: no self-test")                        \
    B(supervise, "start the server as a child, and again when it fails; keep the socket")          \
    N(max_restarts, 5, 0, 100, "with supervise: restarts within ten minutes; then it ends (70)")   \
    B(forget, "keep nothing of a request after it: no cache of prompts and pictures")              \
    B(strict, "refuse fields that are not known on OpenAI's routes too, instead of ignoring them") \
    B(insecure, "allow a listen address beyond loopback without API keys")                         \
    B(core_dumps, "allow core dumps and debuggers: they see patients' data")                       \
    B(log_json, "log JSON lines")

struct hg_config {
#define HG_CONFIG_TEXT(key, value, arg, help) char key[HG_CONFIG_TEXT_CAP];
#define HG_CONFIG_NUMBER(key, value, min, max, help) int64_t key;
#define HG_CONFIG_FLAG(key, help) bool key;
#define HG_CONFIG_REAL(key, value, min, max, help) double key;
    HG_CONFIG_MAP(HG_CONFIG_TEXT, HG_CONFIG_NUMBER, HG_CONFIG_FLAG, HG_CONFIG_REAL)
#undef HG_CONFIG_REAL
#undef HG_CONFIG_TEXT
#undef HG_CONFIG_NUMBER
#undef HG_CONFIG_FLAG
};

void hg_config_default(struct hg_config *c);

/* Overlay the keys of a JSON text. An unknown key, a wrong type or a value out of bounds is
 * BAD_REQUEST naming the key. `s` is changed (comments become spaces). */
enum hg_status hg_config_parse(struct hg_config *c, char *s, size_t n, struct hg_error *err);
enum hg_status hg_config_read(struct hg_config *c, const char *path, struct hg_error *err);

/* One flag without its dashes: "max-queue", "32"; value NULL: none was given. BAD_REQUEST as above.
 */
enum hg_status hg_config_set(struct hg_config *c, const char *flag, const char *value,
                             struct hg_error *err);
/* 1 when the flag takes a value, 0 when not, -1 when there is no such flag. */
int hg_config_flag_takes_value(const char *flag);
enum hg_status hg_config_help(struct hg_buf *out); /* one line per flag */

#endif
