/* server/http/http_audit.c - what the audit log is told of an exchange. */
#include <string.h>

#include "server/http/http_exchange.h"

bool hg_http_audit_begin(struct exchange *x)
{
    const char *subject = x->facts.audit_subject;
    if (!x->http->audit)
        return true;
    if (!hg_audit_begin(x->http->audit)) {
        hg_api_error_set(&x->error, 503, "audit_unavailable",
                         "the audit log cannot be written, and nothing is done without it");
        return false;
    }
    x->audited = true;
    if (!subject)
        return true;
    if (hg_audit_subject_is_good(subject)) {
        snprintf(x->subject, sizeof x->subject, "%s", subject);
        return true;
    }
    hg_api_error_set(&x->error, 400, "invalid_audit_subject",
                     "X-Audit-Subject: expected 1 to 64 of letters, digits, '.', '_' and '-'");
    return false;
}

void hg_http_audit_subject(struct exchange *x, const struct hg_ask *ask)
{
    struct hg_hmac h;
    uint8_t mac[HG_SHA256_BYTES];
    char hex[2 * HG_SHA256_BYTES + 1];
    if (!x->http->audit || x->subject[0] || !ask->subject[0])
        return;
    if (hg_audit_subject_is_good(ask->subject)) {
        snprintf(x->subject, sizeof x->subject, "%.64s", ask->subject);
        return;
    }
    /* An address or a name, perhaps: it stays recognisable and is not told. */
    hg_audit_text_begin(x->http->audit, &h);
    hg_audit_text_add(&h, ask->subject, strlen(ask->subject));
    hg_audit_text_end(&h, mac);
    hg_hex(mac, sizeof mac, hex);
    snprintf(x->subject, sizeof x->subject, "hmac-%.32s", hex);
}

static void add_output(struct hg_request *r, bool ended, const struct hg_audit *audit,
                       struct hg_audit_record *out)
{
    struct hg_stream *s = &r->stream;
    struct hg_hmac h;
    uint8_t *mac = out->outputs[out->n_outputs];
    if (r->task == HG_TASK_GENERATION) {
        if (!ended || !r->result.image.rgb)
            return;
        hg_audit_pixels(audit, &r->result.image, mac);
        out->n_outputs++;
        return;
    }
    pthread_mutex_lock(&s->lock); /* the engine may still be writing */
    if (s->text.len > 0) {
        hg_audit_text_begin(audit, &h);
        hg_audit_text_add(&h, s->text.data, s->text.len);
        hg_audit_text_end(&h, mac);
        out->n_outputs++;
    }
    pthread_mutex_unlock(&s->lock);
}

/* The worst end of all choices is the outcome. */
static void add_request(struct exchange *x, struct hg_request *r, struct hg_audit_record *out)
{
    hg_stream_detach(&r->stream); /* of the connection, which has ended */
    bool ended = hg_stream_ended(&r->stream);
    add_output(r, ended, x->http->audit, out);
    if (!ended) {
        out->n_generated += hg_stream_tokens(&r->stream); /* its client has left */
        out->outcome = HG_AUDIT_CANCELLED;
        return;
    }
    out->n_generated += r->result.n_generated;
    enum hg_status status = r->result.error.status;
    if (status != HG_STATUS_OK && !out->code[0]) {
        struct hg_api_error e = {0};
        hg_reply_error_of(r, &e);
        out->outcome = status == HG_STATUS_CANCELLED ? HG_AUDIT_CANCELLED : HG_AUDIT_FAILED;
        memcpy(out->code, e.code, sizeof out->code);
    }
}

static void add_requests(struct exchange *x, struct hg_audit_record *out)
{
    const struct hg_answer *a = &x->answer;
    const struct hg_request *first = a->requests[0];
    out->task = first->task;
    out->no_plugin = first->no_plugin;
    out->input = first->fingerprints;
    out->n_prompt = first->n_prompt;
    out->outcome = HG_AUDIT_DONE;
    for (int i = 0; i < a->n_requests && i < HG_AUDIT_MAX_OUTPUTS; i++)
        add_request(x, a->requests[i], out);
}

void hg_http_audit_end(struct exchange *x, int status, bool delivered)
{
    struct hg_audit_record r = {.route = x->route ? x->route->path : NULL,
                                .task = x->route ? x->route->task : HG_TASK_COUNT,
                                .http = status,
                                .delivered = delivered,
                                .outcome = HG_AUDIT_CANCELLED};
    snprintf(r.id, sizeof r.id, "%s", x->trace.request_id);
    memcpy(r.key, x->who.name, sizeof r.key);
    memcpy(r.subject, x->subject, sizeof r.subject);
    r.replayed = x->replayed;
    if (x->replayed)
        r.outcome = HG_AUDIT_DONE;
    else if (x->answer.n_requests > 0)
        add_requests(x, &r);
    if (r.outcome != HG_AUDIT_DONE && !r.code[0]) {
        bool refused = x->error.code[0] != '\0';
        r.outcome = refused ? HG_AUDIT_FAILED : HG_AUDIT_CANCELLED;
        snprintf(r.code, sizeof r.code, "%s", refused ? x->error.code : "client_gone");
    }
    hg_audit_end(x->http->audit, &r);
}
