#include "agent/rest_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/rest_journal.h"
#include "base/str.h"

/* ---- parameters ---- */

/* "1048576", "1024kB", "1.5 GB": PostgreSQL's units, as in its configuration file. */
static enum err parse_bytes(const char *text, uint64_t *ret_bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"kB", UINT64_C(1) << 10},
                 {"MB", UINT64_C(1) << 20},
                 {"GB", UINT64_C(1) << 30},
                 {"TB", UINT64_C(1) << 40}};
    size_t digits = strspn(text, "0123456789.");
    if (text[0] < '0' || text[0] > '9')
        return ERR_INVALID;
    char *end;
    double n = strtod(text, &end);
    if ((size_t)(end - text) != digits)
        return ERR_INVALID; /* 1e9, 0x10, 1.2.3 */
    end += strspn(end, " ");
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (strcmp(end, units[i].name) == 0) {
            double bytes = n * (double)units[i].bytes;
            *ret_bytes = bytes < (double)INT64_MAX ? (uint64_t)bytes : INT64_MAX;
            return ERR_OK;
        }
    return ERR_INVALID;
}

enum err rest_query_add(struct rest_query *q, const char *name, const char *value,
                        struct errmsg *e)
{
    if (strcmp(name, "lag") == 0 && !q->has_lag) {
        if (parse_bytes(value, &q->lag_bytes) != ERR_OK)
            return err_set(e, ERR_INVALID,
                           "lag: \"%.40s\" is no size; write bytes, or 16kB, 10MB, 1GB", value);
        q->has_lag = true;
    } else if (strcmp(name, "mode") == 0) {
        q->write_mode = q->write_mode || strcmp(value, "write") == 0;
    } else if (strcmp(name, "replication_state") == 0 && q->replication_state == NULL) {
        q->replication_state = value;
    } else if (strcmp(name, "limit") == 0 && q->limit == 0) {
        if (str_parse_u64(value, &q->limit) != ERR_OK || q->limit == 0 ||
            q->limit > REST_JOURNAL_MAX)
            return err_set(e, ERR_INVALID, "limit: \"%.40s\" is no number from 1 to %d", value,
                           REST_JOURNAL_MAX);
    } else if (str_starts(name, "tag_")) {
        if (q->tags_n == REST_TAGS_MAX)
            return err_set(e, ERR_LIMIT, "more than %d tags", REST_TAGS_MAX);
        q->tags[q->tags_n].name = name + strlen("tag_");
        q->tags[q->tags_n++].value = value;
    }
    return ERR_OK;
}

/* ---- facts ---- */

/* A holder whose lease has ended knows that the records may have moved on. */
bool rest_stale(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    return !f->known || !v->dcs_ready || now_ms >= v->now_ms + v->config.ttl_ms ||
           rest_lease_ended(f, now_ms);
}

bool rest_fenced(const struct rest_facts *f, uint64_t now_ms)
{
    return (f->view.armed && now_ms >= f->view.deadline_ms) ||
           (f->fence_kills_ms != 0 && now_ms >= f->fence_kills_ms);
}

bool rest_lease_ended(const struct rest_facts *f, uint64_t now_ms)
{
    return view_is_leader(&f->view) && rest_fenced(f, now_ms);
}

/* Quarantined, or removed: it never serves again, and its data grows old. */
static bool rest_out(const struct rest_facts *f)
{
    const char *trouble = f->has_dcs ? f->dcs.trouble : "";
    return strcmp(trouble, "quarantined") == 0 || strcmp(trouble, "removed") == 0;
}

bool rest_answers(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    return v->pg.proc == PG_PROC_RUNNING && v->pg.accepts && !rest_fenced(f, now_ms) &&
           now_ms < v->now_ms + 2 * v->config.ttl_ms;
}

bool rest_accepts(const struct rest_facts *f, uint64_t now_ms)
{
    return !rest_out(f) && rest_answers(f, now_ms);
}

bool rest_holds_lease(const struct rest_facts *f, uint64_t now_ms)
{
    return view_is_leader(&f->view) && now_ms < f->view.deadline_ms;
}

bool rest_leads(const struct rest_facts *f, const struct member_rec *m, uint64_t now_ms)
{
    const struct view *v = &f->view;
    return v->has_leader && strcmp(v->leader.name, m->name) == 0 &&
           !rest_lease_ended(f, now_ms);
}

bool rest_in_sync_set(const struct view *v, const char *incarnation)
{
    for (size_t i = 0; i < v->sync.v_n; i++)
        if (incarnation[0] != '\0' && strcmp(v->sync.v[i], incarnation) == 0)
            return true;
    return false;
}

uint64_t rest_leader_lsn(const struct rest_facts *f)
{
    const struct view *v = &f->view;
    const struct member_rec *leader = v->has_leader ? view_member(v, v->leader.name) : NULL;
    uint64_t lsn = leader != NULL ? leader->lsn : 0;
    return MAX(lsn, MAX(f->pg.latest_end_lsn, v->pg.lsn));
}

static bool lags(const struct rest_facts *f, uint64_t at_lsn, uint64_t limit_bytes)
{
    uint64_t leader = rest_leader_lsn(f);
    return leader - MIN(leader, at_lsn) > limit_bytes;
}

/* ---- tags ---- */

static bool tag_is(const struct rest_facts *f, const char *name, const char *value)
{
    const struct rest_tags *t = &f->tags;
    const struct {
        const char *name;
        bool on;
    } flags[] = {{"nofailover", t->nofailover},
                 {"noloadbalance", t->noloadbalance},
                 {"clonefrom", t->clonefrom},
                 {"nostream", t->nostream},
                 {"nosync", t->nosync}};
    char number[24];
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (strcmp(name, flags[i].name) == 0)
            return flags[i].on && strcmp(value, "true") == 0; /* one that is off is not there */
    if (strcmp(name, "replicatefrom") == 0)
        return t->replicatefrom[0] != '\0' && strcmp(value, t->replicatefrom) == 0;
    bool failover = strcmp(name, "failover_priority") == 0;
    int64_t priority = failover ? t->failover_priority : t->sync_priority;
    if ((!failover && strcmp(name, "sync_priority") != 0) || priority == 1)
        return false;
    (void)snprintf(number, sizeof number, "%" PRId64, priority);
    return strcmp(value, number) == 0;
}

bool check_tags(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    (void)now_ms;
    for (size_t i = 0; i < q->tags_n; i++)
        if (!tag_is(f, q->tags[i].name, q->tags[i].value))
            return false;
    return true;
}

/* ---- roles ---- */

bool check_leader(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    (void)q;
    return rest_holds_lease(f, now_ms);
}

bool check_primary(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    (void)q;
    return rest_holds_lease(f, now_ms) && rest_accepts(f, now_ms) && !f->view.pg.in_recovery;
}

bool check_standby_leader(const struct rest_facts *f, const struct rest_query *q,
                          uint64_t now_ms)
{
    (void)q;
    return rest_holds_lease(f, now_ms) && rest_accepts(f, now_ms) && f->view.pg.in_recovery &&
           f->view.config.standby_cluster;
}

bool check_replica(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    const struct view_pg *pg = &f->view.pg;
    if (!rest_accepts(f, now_ms) || !pg->in_recovery || rest_holds_lease(f, now_ms) ||
        f->tags.noloadbalance)
        return false;
    if (q->has_lag && lags(f, pg->replay_lsn, q->lag_bytes))
        return false;
    return q->replication_state == NULL ||
           strcmp(q->replication_state, pg->streaming ? "streaming" : "") == 0;
}

static bool leads_readers(const struct rest_facts *f, const struct rest_query *q,
                          uint64_t now_ms)
{
    return check_primary(f, q, now_ms) || check_standby_leader(f, q, now_ms);
}

bool check_read_only(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    return leads_readers(f, q, now_ms) || check_replica(f, q, now_ms);
}

/* ---- what a standby is to the leader; with a view that is not stale only ---- */

static bool standby_is(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms,
                       bool in_set, enum sync_mode a, enum sync_mode b)
{
    enum sync_mode mode = view_record_mode(&f->view);
    bool is_sync = mode != SYNC_OFF && rest_in_sync_set(&f->view, f->view.pg.incarnation);
    return !rest_stale(f, now_ms) && is_sync == in_set && (!in_set || mode == a || mode == b) &&
           check_replica(f, q, now_ms);
}

bool check_sync(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    return standby_is(f, q, now_ms, true, SYNC_ON, SYNC_ON);
}

bool check_quorum(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    return standby_is(f, q, now_ms, true, SYNC_QUORUM, SYNC_QUORUM);
}

bool check_async(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    return standby_is(f, q, now_ms, false, SYNC_OFF, SYNC_OFF);
}

bool check_read_only_sync(const struct rest_facts *f, const struct rest_query *q,
                          uint64_t now_ms)
{
    return leads_readers(f, q, now_ms) || check_sync(f, q, now_ms);
}

bool check_read_only_quorum(const struct rest_facts *f, const struct rest_query *q,
                            uint64_t now_ms)
{
    return check_primary(f, q, now_ms) || check_quorum(f, q, now_ms);
}

/* ---- the process ---- */

bool check_health(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    (void)q;
    return rest_accepts(f, now_ms);
}

bool check_liveness(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    const struct view *v = &f->view;
    bool primary = v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
    (void)q;
    if (rest_out(f))
        return false;
    return v->config.pause || now_ms < v->now_ms + v->config.ttl_ms * (primary ? 1 : 2);
}

bool check_readiness(const struct rest_facts *f, const struct rest_query *q, uint64_t now_ms)
{
    const struct view *v = &f->view;
    if (rest_holds_lease(f, now_ms))
        return true;
    if (!rest_accepts(f, now_ms) || !v->pg.in_recovery || !v->pg.streaming)
        return false;
    if (!v->dcs_ready && f->pg.latest_end_lsn == 0)
        return false; /* nobody says how far the leader is */
    return !lags(f, q->write_mode ? v->pg.lsn : v->pg.replay_lsn,
                 q->has_lag ? q->lag_bytes : v->config.maximum_lag_on_failover);
}
