/* tools/healthgpt/doctor_note.c - findings, and what must not be seen in them. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "tools/healthgpt/doctor.h"

enum { TEXT_CAP = 1024, FORMAT_CAP = 512, PARTED = 0x1e };

static bool was_typed(const struct hg_doctor *d, const char *text)
{
    const char *typed[] = {d->cli->model, d->cli->config, d->cli->weights};
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++)
        if (typed[i] && strcmp(typed[i], text) == 0)
            return true;
    return false;
}

void hg_doctor_hide(struct hg_doctor *d, const char *text, const char *shown)
{
    if (!text || !*text || was_typed(d, text) || d->n_hidden == HG_DOCTOR_HIDDEN)
        return;
    d->hidden[d->n_hidden].text = text;
    d->hidden[d->n_hidden++].shown = shown;
}

static bool put(char *out, size_t *n, const char *s, size_t len)
{
    if (*n + len >= TEXT_CAP)
        len = TEXT_CAP - 1 - *n;
    memcpy(out + *n, s, len);
    *n += len;
    return len > 0;
}

/* Is `s` at the beginning of a path that was typed? Then its length: it may stay. */
static size_t typed_at(const struct hg_doctor *d, const char *s)
{
    const char *typed[] = {d->cli->model, d->cli->config, d->cli->weights};
    size_t best = 0;
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++) {
        size_t n = typed[i] ? strlen(typed[i]) : 0;
        if (n > best && typed[i][0] == '/' && strncmp(s, typed[i], n) == 0)
            best = n;
    }
    return best;
}

/* "/home/x/keys.json" -> ".../keys.json"; the length of what was read. */
static size_t cut_path(const char *s, char *out, size_t *n)
{
    size_t len = strcspn(s, " \t\n\"',:;()<>");
    while (len > 1 && s[len - 1] == '.')
        len--;
    size_t base = len;
    while (base > 0 && s[base - 1] != '/')
        base--;
    put(out, n, ".../", 4);
    put(out, n, s + base, len - base);
    return len;
}

static bool begins_path(const char *text, const char *s)
{
    bool alone = s == text || strchr(" \t\n\"'(=:<,;", s[-1]);
    return *s == '/' && alone && s[1] && !strchr(" \t\n\"',:;()<>/", s[1]);
}

/* Hidden texts go first; then every absolute path that was not typed loses its folders. */
static void scrub(const struct hg_doctor *d, const char *text, char out[TEXT_CAP])
{
    size_t n = 0;
    for (const char *s = text; *s && n < TEXT_CAP - 1;) {
        size_t typed = typed_at(d, s), taken = 0;
        if (typed) {
            put(out, &n, s, typed);
            s += typed;
            continue;
        }
        for (int i = 0; i < d->n_hidden && !taken; i++) {
            size_t len = strlen(d->hidden[i].text);
            if (strncmp(s, d->hidden[i].text, len) == 0) {
                put(out, &n, d->hidden[i].shown, strlen(d->hidden[i].shown));
                taken = len;
            }
        }
        if (!taken && begins_path(text, s))
            taken = cut_path(s, out, &n);
        if (!taken)
            put(out, &n, s, 1);
        s += taken ? taken : 1;
    }
    out[n] = '\0';
}

/* Text and advice are parted by the newline of the format, not by one that a file name brings. */
static char *split(char *text)
{
    char *next = strchr(text, PARTED);
    if (next)
        *next++ = '\0';
    return next && *next ? next : NULL;
}

static void make_valid(char *s)
{
    for (size_t i = 0, n = strlen(s); i < n;) {
        uint32_t cp = 0;
        int len = hg_utf8_decode(s + i, n - i, &cp);
        if (len == 0 || (cp < 0x20 && cp != PARTED) || (cp >= 0x7f && cp < 0xa0))
            memset(s + i, '?', len ? (size_t)len : 1);
        i += len ? (size_t)len : 1;
    }
}

void hg_doctor_note(struct hg_doctor *d, enum hg_doctor_level level, enum hg_status why,
                    const char *id, const char *format, ...)
{
    static const char *const levels[] = {"ok", "warn", "fail"};
    char raw[TEXT_CAP], text[TEXT_CAP], parted[FORMAT_CAP];
    snprintf(parted, sizeof parted, "%s", format);
    char *newline = strchr(parted, '\n');
    if (newline)
        *newline = PARTED;
    va_list args;
    va_start(args, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = vsnprintf(raw, sizeof raw, parted, args);
#pragma GCC diagnostic pop
    va_end(args);
    if (n < 0)
        return;
    scrub(d, raw, text);
    make_valid(text);
    const char *next = split(text);
    struct hg_json_out *o = d->findings;
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "level", levels[level]);
    hg_out_string(o, "area", d->area);
    hg_out_string(o, "id", id);
    hg_out_string(o, "text", text);
    hg_out_string(o, "next", next);
    hg_out_close(o, '}');
    d->n[level]++;
    if (level != HG_DOCTOR_FAIL || d->exit_code)
        return;
    /* as healthgptd has it: a port in use is no reason to start again */
    d->exit_code = why == HG_STATUS_BUSY ? hg_status_exit_code(HG_STATUS_UNSUPPORTED)
                                         : hg_status_exit_code(why);
}
