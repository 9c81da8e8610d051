/* common/status.h - one list of result codes, one way to explain a failure.
 *
 * Every fallible function returns enum hg_status. Functions that can explain themselves take a last
 * `struct hg_error *` (may be NULL) and fill it through hg_fail(): the text names the thing, what
 * was expected and what was found. Nothing here allocates; hg_error lives on the caller's stack. */
#ifndef HG_COMMON_STATUS_H
#define HG_COMMON_STATUS_H

/* X(name, text, HTTP status, process exit code) */
#define HG_STATUS_MAP(X)                                                                           \
    X(OK, "ok", 200, 0)                                                                            \
    X(BAD_REQUEST, "bad request", 400, 64)                                                         \
    X(BAD_IMAGE, "bad image", 400, 65)                                                             \
    X(BAD_FILE, "bad file", 500, 65)                                                               \
    X(NOT_FOUND, "not found", 404, 66)                                                             \
    X(TOO_LARGE, "too large", 413, 65)                                                             \
    X(UNSUPPORTED, "unsupported", 422, 69)                                                         \
    X(BUSY, "busy", 503, 75)                                                                       \
    X(QUOTA, "quota exceeded", 429, 75)                                                            \
    X(TIMEOUT, "deadline exceeded", 504, 75)                                                       \
    X(CANCELLED, "cancelled", 499, 75)                                                             \
    X(NUMERIC, "numeric fault", 500, 70)                                                           \
    X(NO_MEMORY, "out of memory", 503, 75)                                                         \
    X(IO, "input/output error", 500, 74)                                                           \
    X(DEVICE, "device error", 500, 71)                                                             \
    X(ENGINE, "engine broken", 503, 70)                                                            \
    X(INTERNAL, "internal error", 500, 70)

enum hg_status {
#define HG_STATUS_ENUM(name, text, http, code) HG_STATUS_##name,
    HG_STATUS_MAP(HG_STATUS_ENUM)
#undef HG_STATUS_ENUM
        HG_STATUS_COUNT
};

struct hg_error {
    enum hg_status status;
    char text[320]; /* always NUL-terminated; cut, never overrun */
};

/* Short English text ("bad file"), HTTP status and process exit code of a status. */
const char *hg_status_text(enum hg_status s);
int hg_status_http(enum hg_status s);
int hg_status_exit_code(enum hg_status s);

/* Fill *err (when not NULL) with the formatted text and return `s`, so that a failing function ends
 * in `return hg_fail(err, HG_STATUS_BAD_FILE, "tensor %s: ...", name);`. */
enum hg_status hg_fail(struct hg_error *err, enum hg_status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Evaluate a call that yields enum hg_status; on failure leave the function with that status, or
 * (HG_TRY_OUT) store it in `status` and jump to the `out:` label that releases. */
#define HG_TRY(call)                                                                               \
    do {                                                                                           \
        enum hg_status hg_try_status_ = (call);                                                    \
        if (hg_try_status_ != HG_STATUS_OK)                                                        \
            return hg_try_status_;                                                                 \
    } while (0)

#define HG_TRY_OUT(call)                                                                           \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != HG_STATUS_OK)                                                                \
            goto out;                                                                              \
    } while (0)

#endif
