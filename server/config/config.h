/* server/config/config.h - what an operator may set, and where a value comes from.
 *
 * Defaults < a JSON file with comments < the environment (HEALTHGPT_MAX_QUEUE) < flags
 * (--max-queue). One X-macro table names each key once; JSON keys, names in the environment, flags,
 * config/schema.json (make schema), --help, completions and man pages are all made from it.
 * Everything that is wrong is collected, a line for each, and not only the first. */
#ifndef HG_SERVER_CONFIG_H
#define HG_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_CONFIG_TEXT_CAP = 1024, HG_CONFIG_MAX_BYTES = 1 << 20, HG_CONFIG_MAX_ERRORS = 50 };

#define HG_CONFIG_ENVIRONMENT_PREFIX "HEALTHGPT_"

/* G(title): what follows stands under this title in --help and in the man page
 * T(key, default, argument, help)   E(key, default, argument, "a|b|c", help): one of these
 * N(key, default, min, max, help)   R(key, default, min, max, help): a number with a fraction
 * B(key, help): false by default */
#define HG_CONFIG_MAP(G, T, E, N, B, R)                                                            \
    G("Network and access")                                                                        \
    T(listen, "127.0.0.1:8080", "ADDR:PORT", "address to listen on; port 0 takes a free one")      \
    T(ops_listen, "127.0.0.1:8081", "ADDR:PORT", "address of the operators' port; \"\": none")     \
    T(api_keys, "", "FILE", "JSON file of API keys (see keygen); SIGHUP reads it again")           \
    T(allowed_hosts, "", "NAMES", "comma-separated names that are good in Host beside local ones") \
    N(auth_failures_per_minute, 20, 0, 1000000,                                                    \
      "requests of an address without a known key; more are answered 429 (0: not counted)")        \
    T(cors_origins, "", "ORIGINS",                                                                 \
      "comma-separated origins (https://viewer.example) whose pages may ask: CORS")                \
    B(insecure, "allow a listen address beyond loopback without API keys")                         \
    G("Model and device")                                                                          \
    T(model, "", "PATH", "model folder (healthgpt.json) or card file; none: the demo model")       \
    T(weights, "", "DIR",                                                                          \
      "where the card's weights are: plain folders, clones or a Hugging Face cache; none: its "    \
      "folder")                                                                                    \
    T(system_prompt, "", "TEXT",                                                                   \
      "instead of the card's system prompt; a request may bring its own")                          \
    E(backend, "auto", "NAME", "auto|cuda|cpu|cpu-scalar|cpu-avx2|cpu-avx512|ref|simt",            \
      "where it computes; auto: cuda where there is a card, else cpu; simt: for tests")            \
    E(dtype, "auto", "TYPE", "auto|f32|f16|bf16|int8|fp8|int4",                                    \
      "storage of the base weights; auto: as in the files")                                        \
    E(kv_dtype, "auto", "TYPE", "auto|f32|f16|bf16|int8",                                          \
      "storage of the KV cache; auto: f16, or f32 with dtype f32")                                 \
    E(lock, "auto", "MODE", "auto|require|off",                                                    \
      "model.lock beside the weights: verified when it is there, must be there, not looked at")    \
    T(quant_cache, "", "DIR",                                                                      \
      "folder that keeps base weights of int8, fp8, int4 for the next start; \"\": none")          \
    E(plugin_dtype, "auto", "TYPE", "auto|f32|f16|bf16|int8",                                      \
      "storage of the plug-ins; auto: bf16 beside int8, fp8 and int4, else as dtype")              \
    E(numerics, "default", "MODE", "default|strict",                                               \
      "strict: round where the reference's FP16 run rounds; slow, on the ref backend")             \
    N(threads, 0, 0, 64, "threads of the CPU backend; 0: all processors")                          \
    N(kv_tokens, 0, 0, 1073741824,                                                                 \
      "KV cache in tokens; 0: max_batch contexts, at most 65536 and half of the free memory, or "  \
      "what a card takes")                                                                         \
    R(gpu_memory_utilization, 0.9, 0.01, 1, "share of the card's free memory to take at start")    \
    B(forget, "keep nothing of a request after it: no cache of prompts and pictures")              \
    G("Load")                                                                                      \
    N(http_threads, 2, 1, 64, "threads that parse requests and write answers")                     \
    N(max_connections, 1024, 4, 65536, "open connections")                                         \
    N(max_connections_per_address, 0, 0, 65536,                                                    \
      "of one address; 0: no limit, for loopback or a proxy in front; 64 is good without")         \
    N(max_queue, 64, 1, 65536, "waiting requests; more are answered 503 with Retry-After")         \
    N(max_queue_tokens, 0, 0, 1073741824,                                                          \
      "tokens of waiting requests, prompts and expected answers; 0: four KV caches")               \
    N(max_batch, 16, 1, 1024, "sequences that run together")                                       \
    G("Times and slow clients")                                                                    \
    N(timeout_s, 600, 1, 86400, "a request is ended after this time, queue included")              \
    N(drain_s, 30, 0, 3600, "at SIGTERM, time for running requests to finish")                     \
    N(header_timeout_s, 10, 1, 3600,                                                               \
      "a request's headers must be complete after this time, however they drip")                   \
    N(body_timeout_s, 60, 1, 3600, "a request's body must be complete after this time")            \
    N(idle_timeout_s, 75, 1, 3600, "a connection without a request is closed after this time")     \
    N(connection_requests, 1000, 1, 1000000000, "a connection is closed after so many requests")   \
    N(connection_s, 3600, 1, 1000000,                                                              \
      "the first request after this time is the connection's last")                                \
    N(min_rate, 16384, 1, 1073741824,                                                              \
      "least bytes per second of a body (after 5 s) and of the rest of an answer")                 \
    N(send_timeout_s, 30, 1, 3600, "a client that does not read is cut after this time")           \
    N(max_unsent_kib, 256, 4, 65536,                                                               \
      "a client for which more than this is waiting for send_timeout_s is cut")                    \
    N(ping_s, 15, 1, 3600, "an idle stream of server-sent events gets a comment after this time")  \
    N(stall_s, 30, 0, 3600, "a request that has not ended so long after its deadline is logged")   \
    G("Failures")                                                                                  \
    R(step_timeout_s, 120, 0, 86400,                                                               \
      "a step, vision pass or drawing that takes longer ends the process (70); first ones: ten "   \
      "times, loading: thirty times as long; 0: not watched")                                      \
    N(canary_interval_s, 600, 0, 86400,                                                            \
      "an idle engine repeats the self-test of its start; 0: no self-test, at start either")       \
    B(supervise, "start the server as a child, and again when it fails; keep the socket")          \
    N(max_restarts, 5, 0, 100, "with supervise: restarts within ten minutes; then it ends (70)")   \
    G("API")                                                                                       \
    B(strict, "refuse fields that are not known on OpenAI's routes too, instead of ignoring them") \
    B(no_page, "no web page at GET /")                                                             \
    G("Logs")                                                                                      \
    B(core_dumps, "allow core dumps and debuggers: they see patients' data")                       \
    B(log_json, "log JSON lines")                                                                  \
    T(audit_log, "", "FILE",                                                                       \
      "file or named pipe that gets a line for each request (docs/audit.md); SIGHUP opens it "     \
      "again")                                                                                     \
    T(audit_key_file, "", "FILE",                                                                  \
      "32 random bytes or more, the key of its fingerprints; none: random, new at each start")     \
    E(audit_fail, "open", "POLICY", "open|closed",                                                 \
      "when its lines cannot be written: go on and count (open), or refuse new requests with 503 " \
      "(closed)")

struct hg_config {
#define HG_CONFIG_GROUP(title)
#define HG_CONFIG_TEXT(key, value, arg, help) char key[HG_CONFIG_TEXT_CAP];
#define HG_CONFIG_CHOICE(key, value, arg, choices, help) char key[HG_CONFIG_TEXT_CAP];
#define HG_CONFIG_NUMBER(key, value, min, max, help) int64_t key;
#define HG_CONFIG_FLAG(key, help) bool key;
#define HG_CONFIG_REAL(key, value, min, max, help) double key;
    HG_CONFIG_MAP(HG_CONFIG_GROUP, HG_CONFIG_TEXT, HG_CONFIG_CHOICE, HG_CONFIG_NUMBER,
                  HG_CONFIG_FLAG, HG_CONFIG_REAL)
#undef HG_CONFIG_REAL
#undef HG_CONFIG_FLAG
#undef HG_CONFIG_NUMBER
#undef HG_CONFIG_CHOICE
#undef HG_CONFIG_TEXT
#undef HG_CONFIG_GROUP
};

enum hg_config_source {
    HG_CONFIG_FROM_DEFAULT,
    HG_CONFIG_FROM_FILE,
    HG_CONFIG_FROM_ENVIRONMENT,
    HG_CONFIG_FROM_FLAG
};

/* A configuration on its way: what holds so far, where each value is from, what was wrong. */
struct hg_config_build {
    struct hg_config config;
    unsigned char source[sizeof(struct hg_config)]; /* enum hg_config_source, at a key's offset */
    struct hg_buf errors;                           /* a line for each, at most MAX_ERRORS */
    int n_errors;
};

void hg_config_default(struct hg_config *c);
void hg_config_begin(struct hg_config_build *b); /* the defaults */
void hg_config_deinit(struct hg_config_build *b);

/* Each lays its values over those before; what is wrong is an error line, and the value before it
 * stays. In this order:
 * A file: "FILE:LINE:COLUMN: KEY: expected ..., got ...". A JSON text of that name. Lines and
 * columns count from 1, columns in characters. */
void hg_config_add_file(struct hg_config_build *b, const char *path);
void hg_config_add_json(struct hg_config_build *b, const char *name, const char *s, size_t n);
/* "HEALTHGPT_<KEY>=value" of environ(7); an empty value is none. An unknown name with this prefix
 * is an error, except those that Kubernetes sets for a service called healthgpt. `skip`: a name
 * that is somebody else's to read. */
void hg_config_add_environment(struct hg_config_build *b, char *const *environment,
                               const char *skip);
/* One flag without its dashes: "max-queue", "32"; NULL: no value was given (true for a switch). */
void hg_config_add_flag(struct hg_config_build *b, const char *flag, const char *value);

void hg_config_error(struct hg_config_build *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The effective values: {"max_queue": {"value": 64, "from": "default"}, ...}, a line each. */
enum hg_status hg_config_show(const struct hg_config_build *b, struct hg_buf *out);
enum hg_status hg_config_schema(struct hg_buf *out); /* JSON Schema, draft 2020-12 */

#endif
