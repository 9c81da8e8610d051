/* server/http/http_rate.c - how much an API key may ask for, and how often somebody may fail to
 * have one.
 *
 * Requests are counted when they are let in. Tokens are taken as the most that a request can cost,
 * and what it did not cost is given back at its end: several at once cannot go beyond it together.
 */
#include <math.h>
#include <netinet/in.h>
#include <string.h>

#include "common/clock.h"
#include "server/http/http_exchange.h"

enum { N_ADDRESSES = 4096 };

enum hg_status hg_http_rate_create(struct hg_http_rates *r, double failures_per_minute,
                                   struct hg_error *err)
{
    r->failures = (struct hg_rate){failures_per_minute, failures_per_minute};
    HG_TRY(hg_buckets_create(2 * HG_KEYS_MAX, &r->requests, err));
    HG_TRY(hg_buckets_create(2 * HG_KEYS_MAX, &r->tokens, err));
    return hg_buckets_create(N_ADDRESSES, &r->addresses, err);
}

void hg_http_rate_free(struct hg_http_rates *r)
{
    hg_buckets_free(r->requests);
    hg_buckets_free(r->tokens);
    hg_buckets_free(r->addresses);
}

static struct hg_rate rate_of_requests(const struct hg_tenant *who)
{
    return (struct hg_rate){who->requests_per_minute, who->burst};
}

static struct hg_rate rate_of_tokens(const struct hg_tenant *who)
{
    return (struct hg_rate){who->tokens_per_minute, who->tokens_per_minute};
}

static bool refuse(struct exchange *x, const char *text, const struct hg_rate_state *state)
{
    hg_api_error_set(&x->error, 429, "rate_limit_exceeded", text);
    x->retry_s = state->wait_s;
    x->may_stay = true;
    return false;
}

bool hg_http_rate_begin(struct exchange *x)
{
    const struct hg_tenant *who = &x->who;
    struct hg_rate requests = rate_of_requests(who), tokens = rate_of_tokens(who);
    struct hg_rate_state state;
    int64_t now = hg_now_ns();
    char text[96];
    if (who->tokens_per_minute > 0 &&
        !hg_buckets_take(x->http->rates.tokens, who->id, &tokens, 1, 0, now, &state)) {
        snprintf(text, sizeof text, "this API key has %d tokens per minute, and none are left",
                 who->tokens_per_minute);
        return refuse(x, text, &state);
    }
    if (who->requests_per_minute > 0 &&
        !hg_buckets_take(x->http->rates.requests, who->id, &requests, 1, 1, now, &state)) {
        snprintf(text, sizeof text, "this API key has %d requests per minute, %d at once",
                 who->requests_per_minute, who->burst);
        return refuse(x, text, &state);
    }
    return true;
}

static void spend(struct exchange *x, int64_t tokens)
{
    struct hg_rate rate = rate_of_tokens(&x->who);
    if (x->who.tokens_per_minute > 0 && tokens != 0)
        hg_buckets_take(x->http->rates.tokens, x->who.id, &rate, -INFINITY, (double)tokens,
                        hg_now_ns(), NULL);
}

void hg_http_rate_reserve(struct exchange *x)
{
    const struct hg_answer *a = &x->answer;
    for (int i = 0; i < a->n_requests; i++)
        x->reserved += a->requests[i]->n_prompt + a->requests[i]->max_tokens;
    spend(x, x->reserved);
}

void hg_http_rate_settle(struct exchange *x)
{
    const struct hg_answer *a = &x->answer;
    int64_t used = 0;
    for (int i = 0; i < a->n_requests; i++)
        used += a->requests[i]->n_prompt + hg_stream_tokens(&a->requests[i]->stream);
    if (x->reserved > used)
        spend(x, used - x->reserved);
    x->reserved = 0;
}

static void put(struct MHD_Response *r, const char *name, const char *what, const char *value)
{
    char header[64];
    snprintf(header, sizeof header, "x-ratelimit-%s-%s", name, what);
    MHD_add_response_header(r, header, value);
}

static void put_state(struct exchange *x, struct MHD_Response *r, struct hg_buckets *b,
                      const struct hg_rate *rate, const char *what)
{
    struct hg_rate_state state;
    char value[24];
    hg_buckets_take(b, x->who.id, rate, -INFINITY, 0, hg_now_ns(), &state);
    snprintf(value, sizeof value, "%.0f", rate->per_minute);
    put(r, "limit", what, value);
    snprintf(value, sizeof value, "%.0f", fmax(floor(state.level + 1e-9), 0));
    put(r, "remaining", what, value);
    hg_rate_duration(state.full_s, value);
    put(r, "reset", what, value);
}

void hg_http_rate_headers(struct exchange *x, struct MHD_Response *r)
{
    struct hg_rate requests = rate_of_requests(&x->who), tokens = rate_of_tokens(&x->who);
    if (x->who.requests_per_minute > 0)
        put_state(x, r, x->http->rates.requests, &requests, "requests");
    if (x->who.tokens_per_minute > 0)
        put_state(x, r, x->http->rates.tokens, &tokens, "tokens");
}

/* An IPv4 address, or the network of an IPv6 one (its first 64 bits), which one client may have
 * whole. */
static uint64_t address_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    uint64_t id = 0;
    if (a && a->sa_family == AF_INET) {
        memcpy(&v4, a, sizeof v4);
        return (uint64_t)1 << 32 | v4.sin_addr.s_addr;
    }
    if (!a || a->sa_family != AF_INET6)
        return 0;
    memcpy(&v6, a, sizeof v6);
    const uint8_t *bytes = v6.sin6_addr.s6_addr;
    bool is_mapped = memcmp(bytes, mapped, sizeof mapped) == 0;
    memcpy(&id, is_mapped ? bytes + 12 : bytes, is_mapped ? 4 : 8);
    return is_mapped ? (uint64_t)1 << 32 | id : id;
}

bool hg_http_rate_failure(struct exchange *x)
{
    struct hg_http_rates *r = &x->http->rates;
    struct hg_rate_state state;
    if (!(r->failures.per_minute > 0) || hg_buckets_take(r->addresses, address_of(x->connection),
                                                         &r->failures, 1, 1, hg_now_ns(), &state))
        return true;
    hg_api_error_set(&x->error, 429, "too_many_auth_failures",
                     "too many requests without a known API key from this address");
    x->retry_s = state.wait_s;
    return false;
}
