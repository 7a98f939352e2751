#include "agent/rest_jobs.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/rest_journal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

enum {
    JOBS_MAGIC = 0x52e57002,
    CALL_MS = 5000,
    SWITCH_MS = 20000, /* Patroni's: twice ten seconds */
    RESTART_MS = 300000,
};

enum job_state { JOB_FREE, JOB_NEW, JOB_SENT, JOB_WAIT };

struct job {
    struct rest_jobs *jobs;
    enum job_state state; /* FREE -> NEW by any thread, under the lock; the rest by the loop */
    struct rest_order order;
    rest_job_cb *cb;
    void *arg;
    char id[40];
    uint64_t begun_ms, limit_ms;
    uint64_t first_token;
    char first_leader[64];
    char *config; /* VERB_CONFIG_*: what is written */
};

struct rest_jobs {
    uint32_t magic;
    struct rest_jobs_ports ports;
    void *arg;
    uv_async_t async;
    pthread_mutex_t lock; /* guards state FREE and NEW, and closed */
    bool closed;
    struct job jobs[REST_JOBS_MAX];
};

static void finish(struct job *job, struct rest_reply reply)
{
    struct rest_jobs *j = job->jobs;
    rest_job_cb *cb = job->cb;
    void *arg = job->arg;
    rest_order_close(&job->order);
    free(job->config);
    (void)pthread_mutex_lock(&j->lock);
    *job = (struct job){.jobs = j, .state = JOB_FREE};
    (void)pthread_mutex_unlock(&j->lock);
    if (cb != NULL)
        cb(arg, reply);
    else
        free(reply.body); /* it was told already that the daemon ends */
}

static const char *what(const struct job *job)
{
    return strcmp(job->order.failover.kind, "failover") == 0 ? "Failover" : "Switchover";
}

/* ---- waiting ---- */

static void look_switch(struct job *job)
{
    const struct view *v = job->jobs->ports.view(job->jobs->arg);
    const struct mirror *m = job->jobs->ports.mirror(job->jobs->arg);
    const char *wanted = job->order.failover.candidate;
    bool moved = v->has_leader && v->leader.token != job->first_token &&
                 strcmp(v->leader.name, job->first_leader) != 0;
    if (moved && strcmp(v->leader.state, "running") == 0) {
        bool over = strcmp(job->order.failover.kind, "failover") == 0;
        bool other = wanted[0] != '\0' && strcmp(wanted, v->leader.name) != 0;
        finish(job, other ? rest_text(200, "%s over to \"%s\" instead of \"%s\"",
                                      over ? "Failed" : "Switched", v->leader.name, wanted)
                          : rest_text(200, "Successfully %s over to \"%s\"",
                                      over ? "failed" : "switched", v->leader.name));
    } else if (!moved && strcmp(m->status.request_id, job->id) == 0 &&
               strcmp(m->status.request_result, "done") != 0) {
        finish(job, rest_text(503, "%s failed: %s", what(job), m->status.request_result));
    } else if (clock_boot_ms() >= job->begun_ms + job->limit_ms) {
        finish(job, rest_text(503,
                              "%s status unknown after %llu seconds; operation may still be in "
                              "progress",
                              what(job), (unsigned long long)job->limit_ms / 1000));
    }
}

static void look_restart(struct job *job)
{
    const struct mirror *m = job->jobs->ports.mirror(job->jobs->arg);
    if (strcmp(m->result.id, job->id) == 0)
        finish(job, m->result.ok ? rest_text(200, "restarted successfully")
                                 : rest_text(503, "%s", m->result.text));
    else if (clock_boot_ms() >= job->begun_ms + job->limit_ms)
        finish(job, rest_text(503,
                              "restart status unknown after %llu seconds; operation may still "
                              "be in progress",
                              (unsigned long long)job->limit_ms / 1000));
}

void rest_jobs_look(struct rest_jobs *j)
{
    CHECK_MAGIC(j, JOBS_MAGIC);
    for (size_t i = 0; i < REST_JOBS_MAX; i++) {
        struct job *job = &j->jobs[i];
        if (job->state != JOB_WAIT)
            continue;
        if (job->order.kind == VERB_RESTART)
            look_restart(job);
        else
            look_switch(job);
    }
}

/* ---- the transaction ---- */

static struct rest_reply taken(struct job *job)
{
    switch (job->order.kind) {
    case VERB_CONFIG_PATCH:
    case VERB_CONFIG_PUT:
        return (struct rest_reply){200, TAKE(job->config), "application/json"};
    case VERB_SWITCHOVER_DELETE:
        return rest_text(200, "scheduled switchover deleted");
    case VERB_RESTART_DELETE:
        return rest_text(200, "scheduled restart deleted");
    case VERB_REINITIALIZE:
        return rest_text(200, "reinitialize started");
    case VERB_SWITCHOVER:
    case VERB_FAILOVER:
        return rest_text(202, "Switchover scheduled");
    case VERB_RESTART:
        return rest_text(202, "Restart scheduled");
    case VERB_RELOAD:
    case VERB_JOURNAL:
        break;
    }
    UNREACHABLE();
}

/* The record was not as it should have been. */
static struct rest_reply conflict(const struct job *job)
{
    const struct mirror *m = job->jobs->ports.mirror(job->jobs->arg);
    switch (job->order.kind) {
    case VERB_CONFIG_PATCH:
    case VERB_CONFIG_PUT:
        return rest_text(409, "the configuration was changed by somebody else meanwhile");
    case VERB_SWITCHOVER_DELETE:
        return rest_text(409, "the switchover was changed or has ended meanwhile");
    case VERB_RESTART_DELETE:
        return rest_text(404, "no restarts are scheduled");
    case VERB_SWITCHOVER:
    case VERB_FAILOVER:
        return rest_text(503, "another switchover or failover is asked for already");
    case VERB_RESTART:
        if (m->request.at_ms != 0)
            return rest_text(409, "Another restart is already scheduled");
        return rest_text(503, "%s already in progress",
                         m->request_meta.present ? m->request.kind : "restart");
    case VERB_REINITIALIZE:
        return rest_text(503, "%s already in progress",
                         m->request_meta.present ? m->request.kind : "reinitialize");
    case VERB_RELOAD:
    case VERB_JOURNAL:
        break;
    }
    UNREACHABLE();
}

static bool waits(const struct job *job)
{
    bool scheduled = job->order.failover.at_ms != 0 || job->order.request.at_ms != 0;
    return !scheduled && (job->order.kind == VERB_SWITCHOVER ||
                          job->order.kind == VERB_FAILOVER || job->order.kind == VERB_RESTART);
}

static void on_sent(void *arg, const struct client_reply *reply)
{
    struct job *job = arg;
    struct txn_reply r = {0};
    ASSERT(job->state == JOB_SENT);
    if (reply->status == ERR_OUTCOME_UNKNOWN) {
        finish(job, rest_text(503, "status unknown; operation may still be in progress: %s",
                              reply->error.text));
    } else if (reply->status != ERR_OK ||
               msg_decode(&msg_txn_reply, reply->result, &r, NULL) != ERR_OK) {
        finish(job, rest_text(503, "failed to write to the DCS: %s", reply->error.text));
    } else if (!r.succeeded) {
        finish(job, conflict(job));
    } else if (waits(job)) {
        job->state = JOB_WAIT;
        rest_jobs_look(job->jobs);
    } else {
        finish(job, taken(job));
    }
}

/* One operation on a record that must be as it was at `mod` (0: absent). */
static void write_record(struct job *job, const char *name, uint64_t mod,
                         const struct buf *json)
{
    const struct mirror *m = job->jobs->ports.mirror(job->jobs->arg);
    char key[MIRROR_KEY_MAX];
    struct buf compares CLEANUP(buf_close) = BUF_INIT;
    struct buf ops CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {0};
    if (mirror_key(m, key, "%s", name) != ERR_OK) {
        finish(job, rest_text(503, "the name of a record does not fit"));
        return;
    }
    struct compare unchanged = {
        .key = slice_str(key), .target = "mod", .op = "=", .number = mod};
    struct txn_op op = {.op = "delete", .key = slice_str(key)};
    if (json != NULL)
        op = (struct txn_op){.op = "put", .key = slice_str(key), .value = buf_slice(json)};
    msg_list_append(&list, &msg_compare, &unchanged);
    msg_list_end(&list, &compares);
    list = (struct msg_list){0};
    msg_list_append(&list, &msg_txn_op, &op);
    msg_list_end(&list, &ops);
    struct txn_req req = {.compare = buf_slice(&compares), .then = buf_slice(&ops)};
    job->state = JOB_SENT;
    job->jobs->ports.call(job->jobs->arg, METHOD_KV_TXN, &req, CALL_MS, on_sent, job);
}

/* ---- one job ---- */

static void write_config(struct job *job, struct slice catalogue)
{
    struct rest_jobs *j = job->jobs;
    const struct mirror *m = j->ports.mirror(j->arg);
    struct errmsg e = {0};
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct config_rec rec;
    struct buf now CLEANUP(buf_close) = BUF_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    msg_to_json(&msg_config_rec, &m->config, &now);
    const struct dynamic_edit edit = {
        .before = buf_slice(&now), .catalogue = catalogue, .roles = j->ports.roles(j->arg)};
    enum err rv = rest_config_merge(&edit, job->order.config,
                                    job->order.kind == VERB_CONFIG_PATCH, &job->config, &e);
    if (rv == ERR_OK)
        rv = msg_from_json(&msg_config_rec, slice_str(job->config), &rec, &arena, &e);
    if (rv == ERR_OK)
        rv = j->ports.check_ttl(j->arg, rec.ttl, &e);
    if (rv != ERR_OK) {
        finish(job, rest_text(400, "%s", e.text));
        return;
    }
    buf_append_slice(&json, slice_str(job->config));
    write_record(job, "config", m->config_meta.mod_revision, &json);
}

/* The parameters that PostgreSQL knows; before anybody has told them every value is taken. */
static void on_settings(void *arg, const struct client_reply *reply)
{
    struct job *job = arg;
    struct range_reply r;
    struct msg_iter it;
    struct kv kv;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct settings_rec rec = {.version = ""};
    ASSERT(job->state == JOB_SENT);
    if (reply->status != ERR_OK ||
        msg_decode(&msg_range_reply, reply->result, &r, NULL) != ERR_OK ||
        msg_iter_init(&it, r.kvs) != ERR_OK) {
        finish(job, rest_text(503, "cannot read the parameters that PostgreSQL knows: %s",
                              reply->error.text));
        return;
    }
    if (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK &&
        msg_from_json(&msg_settings_rec, kv.value, &rec, &arena, NULL) != ERR_OK)
        rec.settings = slice_of(NULL, 0);
    write_config(job, rec.settings);
}

static void start_config(struct job *job)
{
    struct rest_jobs *j = job->jobs;
    const struct mirror *m = j->ports.mirror(j->arg);
    char key[MIRROR_KEY_MAX];
    if (!m->config_meta.present || mirror_key(m, key, "settings") != ERR_OK) {
        finish(job, rest_text(503, "there is no dynamic configuration yet"));
        return;
    }
    struct range_req req = {.key = slice_str(key), .local = true};
    job->state = JOB_SENT;
    j->ports.call(j->arg, METHOD_KV_RANGE, &req, CALL_MS, on_settings, job);
}

static void start_failover(struct job *job)
{
    const struct view *v = job->jobs->ports.view(job->jobs->arg);
    struct failover_rec *r = &job->order.failover;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    job->first_token = v->has_leader ? v->leader.token : 0;
    str_cut(job->first_leader, sizeof job->first_leader, v->has_leader ? v->leader.name : "");
    job->limit_ms = SWITCH_MS;
    str_cut(r->id, sizeof r->id, job->id);
    r->requested_ms = clock_wall_ms();
    msg_to_json(&msg_failover_rec, r, &json);
    write_record(job, "failover", 0, &json);
}

static void start_request(struct job *job)
{
    const struct view *v = job->jobs->ports.view(job->jobs->arg);
    struct request_rec *r = &job->order.request;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    char name[96];
    (void)snprintf(name, sizeof name, "request/%s", v->self);
    job->limit_ms = r->timeout_ms != 0 ? r->timeout_ms + SWITCH_MS : RESTART_MS;
    str_cut(r->id, sizeof r->id, job->id);
    r->requested_ms = clock_wall_ms();
    msg_to_json(&msg_request_rec, r, &json);
    write_record(job, name, 0, &json);
}

static void start_deletion(struct job *job)
{
    const struct view *v = job->jobs->ports.view(job->jobs->arg);
    const struct mirror *m = job->jobs->ports.mirror(job->jobs->arg);
    char name[96];
    if (job->order.kind == VERB_SWITCHOVER_DELETE) {
        if (!m->failover_meta.present || m->failover.at_ms == 0)
            finish(job, rest_text(404, "no pending scheduled switchover"));
        else
            write_record(job, "failover", m->failover_meta.mod_revision, NULL);
        return;
    }
    (void)snprintf(name, sizeof name, "request/%s", v->self);
    bool there = m->request_meta.present && m->request.at_ms != 0 &&
                 m->request.state[0] == '\0' && strcmp(m->request.kind, "restart") == 0;
    if (there)
        write_record(job, name, m->request_meta.mod_revision, NULL);
    else
        finish(job, rest_text(404, "no restarts are scheduled"));
}

static void on_journal(void *arg, const struct client_reply *reply)
{
    struct job *job = arg;
    struct range_reply r;
    ASSERT(job->state == JOB_SENT);
    char *body = reply->status == ERR_OK &&
                         msg_decode(&msg_range_reply, reply->result, &r, NULL) == ERR_OK
                     ? rest_journal_body(r.kvs)
                     : NULL;
    finish(job, body != NULL
                    ? (struct rest_reply){200, body, "application/json"}
                    : rest_text(503, "cannot read the journal: %s", reply->error.text));
}

/* As this node has it: without a quorum as well. */
static void start_journal(struct job *job)
{
    struct rest_jobs *j = job->jobs;
    const struct mirror *m = j->ports.mirror(j->arg);
    char from[MIRROR_KEY_MAX];
    char end[MIRROR_KEY_MAX];
    if (mirror_key(m, from, "journal/") != ERR_OK || mirror_key(m, end, "journal0") != ERR_OK) {
        finish(job, rest_text(503, "the name of a record does not fit"));
        return;
    }
    struct range_req req = {.key = slice_str(from),
                            .end = slice_str(end),
                            .limit = job->order.limit,
                            .local = true,
                            .descend = true};
    job->state = JOB_SENT;
    j->ports.call(j->arg, METHOD_KV_RANGE, &req, CALL_MS, on_journal, job);
}

static void start(struct job *job)
{
    struct rest_jobs *j = job->jobs;
    uint8_t random[16];
    rng_system(random, sizeof random);
    hex_encode(job->id, random, sizeof random);
    job->begun_ms = clock_boot_ms();
    switch (job->order.kind) {
    case VERB_RELOAD:
        j->ports.reload(j->arg);
        finish(job, rest_text(202, "reload scheduled"));
        return;
    case VERB_CONFIG_PATCH:
    case VERB_CONFIG_PUT:
        start_config(job);
        return;
    case VERB_SWITCHOVER:
    case VERB_FAILOVER:
        start_failover(job);
        return;
    case VERB_RESTART:
    case VERB_REINITIALIZE:
        start_request(job);
        return;
    case VERB_SWITCHOVER_DELETE:
    case VERB_RESTART_DELETE:
        start_deletion(job);
        return;
    case VERB_JOURNAL:
        start_journal(job);
        return;
    }
    UNREACHABLE();
}

static void on_async(uv_async_t *async)
{
    struct rest_jobs *j = async->data;
    CHECK_MAGIC(j, JOBS_MAGIC);
    for (size_t i = 0; i < REST_JOBS_MAX; i++) {
        (void)pthread_mutex_lock(&j->lock);
        bool is_new = j->jobs[i].state == JOB_NEW;
        (void)pthread_mutex_unlock(&j->lock);
        if (is_new)
            start(&j->jobs[i]);
    }
}

/* ---- life ---- */

struct rest_jobs *rest_jobs_new(uv_loop_t *loop, const struct rest_jobs_ports *ports, void *arg)
{
    struct rest_jobs *j = mem_alloc(sizeof *j);
    j->magic = JOBS_MAGIC;
    j->ports = *ports;
    j->arg = arg;
    (void)pthread_mutex_init(&j->lock, NULL);
    for (size_t i = 0; i < REST_JOBS_MAX; i++)
        j->jobs[i].jobs = j;
    ASSERT(uv_async_init(loop, &j->async, on_async) == 0);
    j->async.data = j;
    return j;
}

bool rest_jobs_add(struct rest_jobs *j, const struct rest_order *o, rest_job_cb *cb, void *arg)
{
    bool found = false;
    size_t most = o->kind == VERB_JOURNAL ? REST_READS_MAX : REST_JOBS_MAX;
    CHECK_MAGIC(j, JOBS_MAGIC);
    (void)pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < most && !found && !j->closed; i++) {
        if (j->jobs[i].state != JOB_FREE)
            continue;
        j->jobs[i] =
            (struct job){.jobs = j, .state = JOB_NEW, .order = *o, .cb = cb, .arg = arg};
        found = true;
        ASSERT(uv_async_send(&j->async) == 0);
    }
    (void)pthread_mutex_unlock(&j->lock);
    return found;
}

void rest_jobs_close(struct rest_jobs *j)
{
    CHECK_MAGIC(j, JOBS_MAGIC);
    (void)pthread_mutex_lock(&j->lock);
    j->closed = true;
    (void)pthread_mutex_unlock(&j->lock);
    for (size_t i = 0; i < REST_JOBS_MAX; i++) {
        struct job *job = &j->jobs[i];
        struct rest_reply ends =
            rest_text(503, "the daemon ends; operation may still be in progress");
        rest_job_cb *cb = TAKE(job->cb);
        if (cb != NULL)
            cb(job->arg, ends);
        else
            free(ends.body);
        if (job->state == JOB_NEW || job->state == JOB_WAIT)
            finish(job, (struct rest_reply){0}); /* one that was sent ends with its reply */
    }
    uv_close((uv_handle_t *)&j->async, NULL);
}

void rest_jobs_free(struct rest_jobs *j)
{
    if (j == NULL)
        return;
    CHECK_MAGIC(j, JOBS_MAGIC);
    (void)pthread_mutex_destroy(&j->lock);
    j->magic = 0;
    mem_free(j);
}
