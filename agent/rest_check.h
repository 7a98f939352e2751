/* The health checks of the REST interface: is this node what the path asks for? Pure; shapes and
 * parameters are those of Patroni 4.1. */
#ifndef REGENT_AGENT_REST_CHECK_H
#define REGENT_AGENT_REST_CHECK_H

#include "agent/rest_facts.h"

enum { REST_TAGS_MAX = 16 };

struct rest_query {
    bool has_lag;
    uint64_t lag_bytes;
    /* mode=write: what is received counts, not what is replayed */
    bool write_mode;
    const char *replication_state; /* borrowed; NULL: any */
    struct {
        const char *name, *value; /* borrowed */
    } tags[REST_TAGS_MAX];
    size_t tags_n;
    uint64_t limit; /* of /journal; 0: not given */
};

/* One parameter. ERR_INVALID: lag is no size, limit no number in its bounds; ERR_LIMIT: too
 * many. Unknown ones are taken no notice of;
 * of a repeated one the first counts. */
enum err rest_query_add(struct rest_query *q, const char *name, const char *value,
                        struct errmsg *e) MUST_CHECK;

typedef bool rest_check(const struct rest_facts *f, const struct rest_query *q,
                        uint64_t now_ms);
rest_check check_primary, check_leader, check_standby_leader, check_replica, check_read_only,
    check_sync, check_read_only_sync, check_quorum, check_read_only_quorum, check_async,
    check_health, check_liveness, check_readiness;
/* The tags asked for are this node's. */
rest_check check_tags;

/* All by the clock at the time of the answer: a view may be from before the daemon stood still. now_ms is CLOCK_BOOTTIME,
 * as the lease's deadline.
 *
 * The facts are not up to date: no quorum confirmed them, the loop stands still, or the leader's lease that this node
 * had has ended. */
bool rest_stale(const struct rest_facts *f, uint64_t now_ms);
/* The fence that was armed has stopped PostgreSQL by now, whatever the view says of it. */
bool rest_fenced(const struct rest_facts *f, uint64_t now_ms);
/* The same of the leader by the view, this node: who leads now is not known here. */
bool rest_lease_ended(const struct rest_facts *f, uint64_t now_ms);
/* PostgreSQL runs and answers, as far as is known: a look older than two TTLs says nothing. */
bool rest_answers(const struct rest_facts *f, uint64_t now_ms);
/* And this node is a member. */
bool rest_accepts(const struct rest_facts *f, uint64_t now_ms);
bool rest_holds_lease(const struct rest_facts *f, uint64_t now_ms);
/* This member is the leader, going by the records; this node itself only while its lease holds. */
bool rest_leads(const struct rest_facts *f, const struct member_rec *m, uint64_t now_ms);
/* This incarnation may be promoted: it is in V of the sync record. */
bool rest_in_sync_set(const struct view *v, const char *incarnation);
/* The newest position of the leader that is known here. */
uint64_t rest_leader_lsn(const struct rest_facts *f);

#endif
