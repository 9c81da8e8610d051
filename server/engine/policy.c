/* server/engine/policy.c - flows (tenants with work) in rings, one ring per class. */
#include "server/engine/policy.h"

#include <math.h>
#include <stdlib.h>

/* Of one tenant in one class. */
struct line {
    struct hg_list jobs, ring; /* waiting ones; its place among the flows */
    bool in_ring;
    int64_t tokens;  /* of the waiting ones */
    int64_t deficit; /* tokens it may take in this turn; below 0: debt */
    double left_at;  /* rounds of the class when it left the ring */
};

struct hg_policy_flow {
    struct hg_list chain, unused; /* of its bucket; of flows without a job */
    struct hg_tenant who;
    struct line lines[HG_CLASS_COUNT];
    size_t n_waiting, n_running;
    int64_t waiting_tokens;
    uint64_t epoch;
};

enum { SPARE_FLOWS = 256 }; /* remember debts, beyond those that have a job */
static const double memory_s = 10, enough_s = 0.2; /* of hg_policy_rate */
static const double sure_s = 3;                    /* to refuse for it */
static const double retry_part = 0.25, retry_max_s = 60;

static int weight_of(const struct hg_tenant *who)
{
    return who->weight > 0 ? who->weight : 1;
}

static struct hg_job *job_of(struct hg_list *node)
{
    return HG_LIST_ENTRY(node, struct hg_job, link);
}

static struct hg_policy_flow *flow_of(struct hg_list *ring, enum hg_class c)
{
    return c == HG_CLASS_BULK
               ? HG_LIST_ENTRY(ring, struct hg_policy_flow, lines[HG_CLASS_BULK].ring)
               : HG_LIST_ENTRY(ring, struct hg_policy_flow, lines[0].ring);
}

enum hg_status hg_policy_init(struct hg_policy *p, const struct hg_policy_options *o,
                              struct hg_error *err)
{
    *p = (struct hg_policy){.options = *o};
    p->n_flows = o->max_queue + 2 * (size_t)o->max_batch + SPARE_FLOWS;
    p->n_buckets = p->n_flows;
    p->flows = calloc(p->n_flows, sizeof *p->flows);
    p->buckets = calloc(p->n_buckets, sizeof *p->buckets);
    if (!p->flows || !p->buckets) {
        hg_policy_deinit(p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "policy: out of memory");
    }
    hg_list_init(&p->unused);
    hg_list_init(&p->waiting);
    for (size_t i = 0; i < p->n_buckets; i++)
        hg_list_init(&p->buckets[i]);
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        hg_list_init(&p->classes[c].ring);
    for (size_t i = 0; i < p->n_flows; i++) {
        hg_list_init(&p->flows[i].chain);
        hg_list_push_back(&p->unused, &p->flows[i].unused);
        for (int c = 0; c < HG_CLASS_COUNT; c++) {
            hg_list_init(&p->flows[i].lines[c].jobs);
            hg_list_init(&p->flows[i].lines[c].ring);
        }
    }
    return HG_STATUS_OK;
}

void hg_policy_deinit(struct hg_policy *p)
{
    free(p->flows);
    free(p->buckets);
    *p = (struct hg_policy){0};
}

/* ---- flows ----------------------------------------------------------------------------------- */

static struct hg_list *bucket_of(const struct hg_policy *p, uint64_t id)
{
    return &p->buckets[(id * 0x9e3779b97f4a7c15u >> 32) % p->n_buckets];
}

static struct hg_policy_flow *find_flow(const struct hg_policy *p, uint64_t id)
{
    struct hg_list *bucket = bucket_of(p, id);
    for (struct hg_list *node = bucket->next; node != bucket; node = node->next) {
        struct hg_policy_flow *f = HG_LIST_ENTRY(node, struct hg_policy_flow, chain);
        if (f->who.id == id)
            return f;
    }
    return NULL;
}

/* There is always an unused one: fewer flows than jobs have a job. */
static struct hg_policy_flow *make_flow(struct hg_policy *p, uint64_t id)
{
    struct hg_policy_flow *f = find_flow(p, id);
    if (f)
        return f;
    f = HG_LIST_ENTRY(p->unused.next, struct hg_policy_flow, unused);
    hg_list_remove(&f->chain);
    for (int c = 0; c < HG_CLASS_COUNT; c++)
        f->lines[c].deficit = 0;
    f->who.id = id;
    hg_list_push_back(bucket_of(p, id), &f->chain);
    return f;
}

static bool may_run_more(const struct hg_policy_flow *f)
{
    return f->who.max_running == 0 || f->n_running < (size_t)f->who.max_running;
}

static void leave_ring(struct hg_policy *p, struct hg_policy_flow *f, enum hg_class c)
{
    struct line *l = &f->lines[c];
    struct hg_policy_class *cls = &p->classes[c];
    if (!l->in_ring)
        return;
    cls->rounds += 1.0 / cls->n_ring; /* its turn in this round is over */
    hg_list_remove(&l->ring);
    l->in_ring = false;
    l->left_at = cls->rounds;
    if (l->deficit > 0)
        l->deficit = 0;
    cls->n_ring--;
    cls->ring_weight -= weight_of(&f->who);
}

static void join_ring(struct hg_policy *p, struct hg_policy_flow *f, enum hg_class c)
{
    struct line *l = &f->lines[c];
    struct hg_policy_class *cls = &p->classes[c];
    int64_t quantum = (int64_t)HG_POLICY_QUANTUM * weight_of(&f->who);
    if (l->in_ring || hg_list_empty(&l->jobs) || !may_run_more(f))
        return;
    if (l->deficit < 0) {
        double paid = (cls->rounds - l->left_at) * (double)quantum;
        l->deficit = paid >= (double)-l->deficit ? 0 : l->deficit + (int64_t)paid;
    }
    l->deficit += quantum;
    hg_list_push_back(&cls->ring, &l->ring);
    l->in_ring = true;
    cls->n_ring++;
    cls->ring_weight += weight_of(&f->who);
}

/* After a job has left the flow. */
static void settle_flow(struct hg_policy *p, struct hg_policy_flow *f)
{
    for (int c = 0; c < HG_CLASS_COUNT; c++) {
        if (hg_list_empty(&f->lines[c].jobs) || !may_run_more(f))
            leave_ring(p, f, (enum hg_class)c);
        else
            join_ring(p, f, (enum hg_class)c);
    }
    if (f->n_waiting == 0 && f->n_running == 0)
        hg_list_push_back(&p->unused, &f->unused);
    if (p->n_waiting == 0 && p->n_running == 0)
        p->epoch++;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Within the tenant's own limit, and no more than what is left for others. */
static bool tenant_has_room(const struct hg_policy *p, const struct hg_tenant *who, int64_t cost)
{
    const struct hg_policy_flow *f = find_flow(p, who->id);
    size_t n = f ? f->n_waiting : 0;
    if (who->id == 0 || n == 0)
        return true;
    if (who->max_queued > 0 && n >= (size_t)who->max_queued)
        return false;
    if (n + 1 > p->options.max_queue - p->n_waiting)
        return false;
    return p->options.max_queue_tokens == 0 ||
           f->waiting_tokens + cost <= p->options.max_queue_tokens - p->waiting_tokens;
}

enum hg_policy_verdict hg_policy_may_wait(const struct hg_policy *p, const struct hg_tenant *who,
                                          enum hg_class cls, int64_t cost, double patience_s)
{
    int64_t most = p->options.max_queue_tokens;
    if (!tenant_has_room(p, who, cost))
        return HG_POLICY_TENANT_FULL;
    if (p->n_waiting >= p->options.max_queue)
        return HG_POLICY_FULL;
    if (most > 0 && p->n_waiting > 0 && p->waiting_tokens + cost > most)
        return HG_POLICY_FULL; /* with nobody waiting, a request may be larger than the bound */
    bool late = p->work_s >= sure_s && hg_policy_wait_s(p, who, cls) > patience_s;
    return late ? HG_POLICY_TOO_LATE : HG_POLICY_WAIT;
}

void hg_policy_push(struct hg_policy *p, struct hg_job *job, const struct hg_tenant *who)
{
    struct hg_policy_flow *f = make_flow(p, who->id);
    struct hg_policy_class *cls = &p->classes[job->cls];
    for (int c = 0; c < HG_CLASS_COUNT; c++) { /* its weight may be another now */
        if (f->lines[c].in_ring)
            p->classes[c].ring_weight += weight_of(who) - weight_of(&f->who);
        if (f->epoch != p->epoch)
            f->lines[c].deficit = 0;
    }
    f->who = *who;
    f->epoch = p->epoch;
    hg_list_remove(&f->unused);
    job->flow = f;
    if (job->cost < 1)
        job->cost = 1;
    hg_list_push_back(&f->lines[job->cls].jobs, &job->link);
    hg_list_push_back(&p->waiting, &job->waiting);
    f->n_waiting++;
    f->waiting_tokens += job->cost;
    f->lines[job->cls].tokens += job->cost;
    cls->n_waiting++;
    cls->waiting_tokens += job->cost;
    p->n_waiting++;
    p->waiting_tokens += job->cost;
    join_ring(p, f, job->cls);
}

static void stop_waiting(struct hg_policy *p, struct hg_job *job)
{
    struct hg_policy_flow *f = job->flow;
    hg_list_remove(&job->link);
    hg_list_remove(&job->waiting);
    f->n_waiting--;
    f->waiting_tokens -= job->cost;
    f->lines[job->cls].tokens -= job->cost;
    p->classes[job->cls].n_waiting--;
    p->classes[job->cls].waiting_tokens -= job->cost;
    p->n_waiting--;
    p->waiting_tokens -= job->cost;
}

void hg_policy_remove(struct hg_policy *p, struct hg_job *job)
{
    struct hg_policy_flow *f = job->flow;
    stop_waiting(p, job);
    job->flow = NULL;
    settle_flow(p, f);
}

/* Ahead of it: what waits in its class, but no more than the tenant's own work times the shares of
 * those beside it; interactive work goes before bulk and leaves a fifth. */
double hg_policy_wait_s(const struct hg_policy *p, const struct hg_tenant *who, enum hg_class cls)
{
    double rate = hg_policy_rate(p);
    const struct hg_policy_class *c = &p->classes[cls];
    const struct hg_policy_flow *f = find_flow(p, who->id);
    if (rate <= 0)
        return 0;
    double ahead = (double)c->waiting_tokens, own = f ? (double)f->lines[cls].tokens : 0;
    double weight = weight_of(who), others = (double)c->ring_weight;
    if (f && f->lines[cls].in_ring)
        others -= weight_of(&f->who);
    ahead = fmin(ahead, (own + HG_POLICY_QUANTUM * weight) * (1 + others / weight));
    if (cls == HG_CLASS_BULK)
        ahead +=
            fmin((double)p->classes[HG_CLASS_INTERACTIVE].waiting_tokens, HG_POLICY_TURNS * ahead);
    else if (p->classes[HG_CLASS_BULK].n_waiting > 0)
        ahead *= (HG_POLICY_TURNS + 1.0) / HG_POLICY_TURNS;
    return ahead / rate;
}

double hg_policy_retry_s(const struct hg_policy *p, const struct hg_tenant *who, enum hg_class cls)
{
    return fmin(fmax(hg_policy_wait_s(p, who, cls) * retry_part, 1), retry_max_s);
}

/* ---- running --------------------------------------------------------------------------------- */

/* As many rounds at once as the first flow needs until it can afford its next job. */
static void give_rounds(struct hg_policy_class *cls, enum hg_class c)
{
    int64_t fewest = INT64_MAX;
    for (struct hg_list *n = cls->ring.next; n != &cls->ring; n = n->next) {
        const struct hg_policy_flow *f = flow_of(n, c);
        int64_t quantum = (int64_t)HG_POLICY_QUANTUM * weight_of(&f->who);
        int64_t lacks = job_of(f->lines[c].jobs.next)->cost - f->lines[c].deficit;
        int64_t rounds = lacks <= 0 ? 0 : (lacks + quantum - 1) / quantum;
        fewest = rounds < fewest ? rounds : fewest;
    }
    for (struct hg_list *n = cls->ring.next; n != &cls->ring; n = n->next) {
        struct hg_policy_flow *f = flow_of(n, c);
        f->lines[c].deficit += fewest * HG_POLICY_QUANTUM * weight_of(&f->who);
    }
    cls->rounds += (double)fewest;
}

/* The next job of a class, or NULL: of the flow whose turn it is if it can afford it; else its turn
 * is over, and it has a quantum more in the next one. */
static struct hg_job *next_of(struct hg_policy *p, enum hg_class c)
{
    struct hg_policy_class *cls = &p->classes[c];
    for (int i = 0; cls->n_ring > 0; i++) {
        struct hg_policy_flow *f = flow_of(cls->ring.next, c);
        struct line *l = &f->lines[c];
        struct hg_job *job = job_of(l->jobs.next);
        if (job->cost <= l->deficit)
            return job;
        hg_list_remove(&l->ring);
        hg_list_push_back(&cls->ring, &l->ring);
        l->deficit += (int64_t)HG_POLICY_QUANTUM * weight_of(&f->who);
        cls->rounds += 1.0 / cls->n_ring;
        if (i + 1 == cls->n_ring)
            give_rounds(cls, c);
    }
    return NULL;
}

struct hg_policy_turn hg_policy_next(struct hg_policy *p, const struct hg_policy_bulk *held)
{
    struct hg_policy_turn first = {.cls = HG_CLASS_INTERACTIVE};
    struct hg_policy_turn bulk = {.cls = HG_CLASS_BULK, .parked = held->parked > 0};
    int64_t cost = held->parked;
    first.job = next_of(p, HG_CLASS_INTERACTIVE);
    if (!bulk.parked && held->n_held < hg_policy_bulk_most(p->options.max_batch)) {
        bulk.job = next_of(p, HG_CLASS_BULK);
        cost = bulk.job ? bulk.job->cost : 0;
    }
    bool waits = bulk.job || bulk.parked,
         due = held->n_running < hg_policy_bulk_kept(p->options.max_batch) &&
               (p->n_passed >= HG_POLICY_TURNS || p->passed_tokens >= HG_POLICY_TURNS * cost);
    return waits && (!first.job || due) ? bulk : first;
}

static void count_turn(struct hg_policy *p, enum hg_class cls, int64_t cost)
{
    bool bulk = cls == HG_CLASS_BULK;
    p->n_passed = bulk ? 0 : p->n_passed < HG_POLICY_TURNS ? p->n_passed + 1 : HG_POLICY_TURNS;
    p->passed_tokens = bulk ? 0 : p->passed_tokens + cost;
}

void hg_policy_take(struct hg_policy *p, struct hg_job *job)
{
    struct hg_policy_flow *f = job->flow;
    stop_waiting(p, job);
    f->lines[job->cls].deficit -= job->cost;
    f->n_running++;
    p->n_running++;
    count_turn(p, job->cls, job->cost);
    settle_flow(p, f);
}

void hg_policy_resumed(struct hg_policy *p)
{
    count_turn(p, HG_CLASS_BULK, 0);
}

void hg_policy_end(struct hg_policy *p, struct hg_job *job, int64_t used)
{
    struct hg_policy_flow *f = job->flow;
    struct line *l = &f->lines[job->cls];
    l->deficit -= used - job->cost;
    if (!l->in_ring && l->deficit > 0)
        l->deficit = 0;
    job->flow = NULL;
    f->n_running--;
    p->n_running--;
    settle_flow(p, f);
}

void hg_policy_worked(struct hg_policy *p, int64_t tokens, double seconds)
{
    double fade = seconds > 0 ? exp(-seconds / memory_s) : 1;
    p->work_tokens = p->work_tokens * fade + (double)tokens;
    p->work_s = p->work_s * fade + (seconds > 0 ? seconds : 0);
}

double hg_policy_rate(const struct hg_policy *p)
{
    return p->work_s >= enough_s ? p->work_tokens / p->work_s : 0;
}

int hg_policy_bulk_kept(int max_batch)
{
    return max_batch / 4 > 0 ? max_batch / 4 : 1;
}

int hg_policy_bulk_most(int max_batch)
{
    return max_batch > 1 ? max_batch - hg_policy_bulk_kept(max_batch) : 1;
}

int hg_policy_victim(const struct hg_policy_place *places, int n, int max_batch)
{
    int n_bulk = 0, victim = -1;
    for (int i = 0; i < n; i++) {
        if (places[i].cls != HG_CLASS_BULK || places[i].parked)
            continue;
        n_bulk++;
        if (places[i].n_yields < HG_POLICY_MAX_YIELDS)
            victim = i;
    }
    return n_bulk > hg_policy_bulk_kept(max_batch) ? victim : -1;
}
