/* server/ops/audit_check.c - is a file the chain that it was? In bounded memory, line by line. */
#include <errno.h>
#include <string.h>

#include "server/ops/audit_chain.h"

enum hg_status hg_audit_check_use_key(struct hg_audit_check *c, const char *path,
                                      struct hg_error *err)
{
    HG_TRY(hg_audit_read_key(path, c->key, err));
    c->has_key = true;
    return HG_STATUS_OK;
}

struct place {
    const char *path;
    unsigned long line;
};

static enum hg_status wrong(const struct place *p, struct hg_error *err, const char *text)
{
    return hg_fail(err, HG_STATUS_BAD_FILE, "%.120s: line %lu: %s", p->path, p->line, text);
}

static bool is_zero(const uint8_t digest[HG_SHA256_BYTES])
{
    uint8_t any = 0;
    for (int i = 0; i < HG_SHA256_BYTES; i++)
        any |= digest[i];
    return any == 0;
}

static enum hg_status first_line(struct hg_audit_check *c, const struct hg_audit_line *l,
                                 const struct place *p, struct hg_error *err)
{
    if (l->seq == 1 && is_zero(l->prev)) {
        c->n_chains++;
    } else if (!l->is_rotate) {
        char text[96];
        snprintf(text, sizeof text, "begins with seq %llu: lines before it are missing",
                 (unsigned long long)l->seq);
        return wrong(p, err, text);
    }
    if (!c->begun)
        c->first_seq = l->seq;
    return HG_STATUS_OK;
}

static enum hg_status follows(const struct hg_audit_check *c, const struct hg_audit_line *l,
                              const struct place *p, struct hg_error *err)
{
    char text[160];
    if (l->seq != c->last_seq + 1) {
        snprintf(text, sizeof text,
                 "seq %llu, expected %llu: lines were taken out, put in or moved",
                 (unsigned long long)l->seq, (unsigned long long)c->last_seq + 1);
        return wrong(p, err, text);
    }
    if (memcmp(l->prev, c->last, sizeof c->last) == 0)
        return HG_STATUS_OK;
    const struct place before = {p->path, p->line - 1};
    return wrong(p->line > 1 ? &before : p, err,
                 p->line > 1 ? "was changed: the line after it holds another hash"
                             : "does not follow the file before");
}

static void step(struct hg_audit_check *c, const char *s, size_t n, uint64_t seq)
{
    c->last_seq = seq;
    hg_sha256(s, n, c->last);
    c->n_lines++;
    c->begun = true;
    if (c->anchor_seq && seq == c->anchor_seq && memcmp(c->last, c->anchor, sizeof c->last) == 0)
        c->anchor_seen = true;
}

/* s[0..n) without its newline. */
static enum hg_status check_line(struct hg_audit_check *c, const char *s, size_t n,
                                 const struct place *p, struct hg_error *err)
{
    struct hg_audit_line l = {0};
    bool starts = !c->begun || p->line == 1;
    if (!hg_audit_parse(s, n, &l)) {
        if (c->torn)
            return wrong(p, err, "no line of an audit log");
        /* Good if the next line says that this one was cut off. */
        c->torn = true;
        step(c, s, n, c->last_seq + 1);
        return HG_STATUS_OK;
    }
    if (c->torn && !l.torn && !(p->line == 1 && c->begun)) {
        const struct place before = {p->path, p->line - 1};
        return wrong(&before, err, "no line of an audit log, or cut off");
    }
    /* A new file may begin a new chain, or go on with the one of the file before. */
    bool anew = starts && l.seq == 1 && is_zero(l.prev);
    if (c->begun && !anew)
        HG_TRY(follows(c, &l, p, err));
    else
        HG_TRY(first_line(c, &l, p, err));
    if (c->has_key && !hg_audit_mac_is_right(s, n, c->key))
        return wrong(p, err, "its mac is not that of this key: changed, or written by another");
    c->n_torn += c->torn + c->cut;
    c->torn = c->cut = false;
    step(c, s, n, l.seq);
    return HG_STATUS_OK;
}

enum hg_status hg_audit_check_file(struct hg_audit_check *c, const char *path, struct hg_error *err)
{
    char line[HG_AUDIT_LINE_CAP + 2];
    struct place p = {.path = path};
    enum hg_status status = HG_STATUS_OK;
    FILE *f = fopen(path, "r");
    if (!f)
        return hg_fail(err, errno == ENOENT ? HG_STATUS_NOT_FOUND : HG_STATUS_IO, "%.200s: %s",
                       path, strerror(errno));
    size_t n = 0;
    for (int ch = getc(f); status == HG_STATUS_OK && ch != EOF; ch = getc(f)) {
        if (ch != '\n' && n <= HG_AUDIT_LINE_CAP) {
            line[n++] = (char)ch;
            continue;
        }
        if (ch != '\n')
            status = wrong(&(struct place){path, p.line + 1}, err, "longer than a line can be");
        p.line++;
        if (status == HG_STATUS_OK)
            status = check_line(c, line, n, &p, err);
        n = 0;
    }
    if (status == HG_STATUS_OK && ferror(f))
        status = hg_fail(err, HG_STATUS_IO, "%.200s: %s", path, strerror(errno));
    if (status == HG_STATUS_OK && n > 0) /* good if the next file goes on before it */
        c->cut = true;
    if (status == HG_STATUS_OK && c->torn)
        status = wrong(&p, err, "no line of an audit log, or cut off");
    if (status == HG_STATUS_OK && p.line == 0 && !c->cut)
        status = hg_fail(err, HG_STATUS_BAD_FILE, "%.200s: empty", path);
    fclose(f);
    return status;
}

enum hg_status hg_audit_check_end(const struct hg_audit_check *c, struct hg_error *err)
{
    if (c->cut)
        return hg_fail(err, HG_STATUS_BAD_FILE, "the last line is cut off: it has no end");
    if (!c->anchor_seq || c->anchor_seen)
        return HG_STATUS_OK;
    if (c->last_seq < c->anchor_seq)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "the chain ends with seq %llu, expected %llu: lines at the end are missing",
                       (unsigned long long)c->last_seq, (unsigned long long)c->anchor_seq);
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "no line with seq %llu has the hash that was noted: the chain was written anew",
                   (unsigned long long)c->anchor_seq);
}
