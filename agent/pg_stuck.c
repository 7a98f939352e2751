/* A standby that should stream and does not, although its upstream answers: has its history parted
 * from the upstream's, or is the WAL it needs gone? Only then is it stuck; a network that is down, or
 * a slot that is not there yet, passes by itself.
 *
 * The other site of a standby cluster has no token that tells its promotions from ours: there the points where
 * timelines began are compared, once, also while it streams; and as it may go on behind us for ever, whether it takes
 * writes is asked. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/pg_remote.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/str.h"

enum { UNFED_MS = 2000, STUCK_SQL_MS = 3000 };

void stuck_forget(struct postgres *p)
{
    p->stuck = false;
    p->stuck_why[0] = '\0';
    stuck_stop(p);
}

void stuck_copied(struct postgres *p, bool rewound)
{
    stuck_forget(p);
    p->rewound = rewound;
    p->rewind_failed = false;
}

void stuck_stop(struct postgres *p)
{
    p->unfed_ms = 0;
    if (p->checking) {
        p->checking = false;
        pg_sql_reset(p->remote);
    }
}

static void settle(struct postgres *p)
{
    p->checking = false;
    p->unfed_ms = clock_boot_ms(); /* looked at again after another while */
    pg_sql_reset(p->remote);
}

void stuck_found(struct postgres *p, const char *why)
{
    p->stuck = true;
    p->rewind_failed = p->rewind_failed || p->rewound;
    p->stuck_token = p->follow.token;
    (void)snprintf(p->stuck_why, sizeof p->stuck_why, "%s", why);
    settle(p);
    postgres_told(p);
}

/* 58P01: requested WAL segment ... has already been removed */
static void streamed(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status == ERR_PRECONDITION && strcmp(r->sqlstate, "58P01") == 0)
        stuck_found(p, "the upstream no longer has the WAL that is needed next");
    else
        settle(p);
}

static void stream_begun(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status == ERR_OK)
        pg_sql_wait_stream(p->remote, STUCK_SQL_MS, streamed, p);
    else
        streamed(arg, r);
}

/* From the start of the segment that the walreceiver would ask for. */
static void try_stream(struct postgres *p)
{
    char sql[96];
    char lsn[PG_LSN_TEXT];
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    uint64_t at = MAX(s->receive_lsn, s->replay_lsn);
    pg_lsn_text(at - at % (16U << 20), lsn);
    (void)snprintf(sql, sizeof sql, "START_REPLICATION PHYSICAL %s TIMELINE %" PRIu64, lsn,
                   s->timeline);
    pg_sql_query(p->remote, sql, STUCK_SQL_MS, stream_begun, p);
}

static bool to_site(const struct postgres *p)
{
    return site_followed(p) != NULL;
}

/* What the other site says of the point where our timeline began. */
static bool other_beginning(struct postgres *p, uint64_t timeline, uint64_t end)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    return to_site(p) && s->parent != 0 && timeline == s->parent && end != s->switch_lsn;
}

/* Was (timeline, lsn) ever on the way to the upstream's timeline? */
static void compare(struct postgres *p, const char *history)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    uint64_t at = MAX(s->receive_lsn, s->replay_lsn);
    for (const char *line = history; line != NULL && *line != '\0';) {
        uint64_t timeline;
        uint64_t end;
        bool sound = pg_history_line(line, &timeline, &end) == ERR_OK;
        if (sound && other_beginning(p, timeline, end)) {
            stuck_found(
                p, "its timeline began elsewhere than the other site's of the same number");
            return;
        }
        if (sound && timeline == s->timeline) {
            if (at > end)
                stuck_found(
                    p, "has WAL of its timeline behind the point where the upstream left it");
            else
                try_stream(p);
            return;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    stuck_found(p, "its timeline is not in the upstream's history");
}

/* Of the very timeline that we are on. */
static void same_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    uint64_t parent;
    uint64_t end;
    bool sound = r->status == ERR_OK && r->n == 1 &&
                 pg_history_last(pg_sql_text(r->results[0], 0, 1), &parent, &end) == ERR_OK;
    if (sound && other_beginning(p, parent, end))
        stuck_found(p, "its timeline began elsewhere than the other site's of the same number");
    else if (sound)
        try_stream(p);
    else
        settle(p);
}

/* A site behind us that takes writes will never have what we have. */
static void writable_said(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status == ERR_OK && r->n == 1 &&
        strcmp(pg_sql_text(r->results[0], 0, 0), "off") == 0)
        stuck_found(p, "it has more than the other site, which takes writes without it");
    else
        settle(p);
}

static void history_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status == ERR_OK && r->n == 1)
        compare(p, pg_sql_text(r->results[0], 0, 1));
    else
        settle(p);
}

/* Not our data at all: nothing is done to ours for its sake. */
static bool other_system(struct postgres *p, const char *text)
{
    uint64_t id = 0;
    bool other =
        str_parse_u64(text, &id) != ERR_OK || id != pg_monitor_seen(p->monitor)->system_id;
    if (other)
        (void)snprintf(p->trouble, sizeof p->trouble,
                       "the other site has another system identifier (%.24s): its data is not "
                       "this cluster's",
                       text);
    else if (str_starts(p->trouble, "the other site"))
        p->trouble[0] = '\0';
    return other;
}

static void identified(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    char sql[48];
    uint64_t timeline = 0;
    uint64_t lsn = 0;
    if (r->status != ERR_OK || r->n != 1 ||
        str_parse_u64(pg_sql_text(r->results[0], 0, 1), &timeline) != ERR_OK ||
        pg_lsn_parse(pg_sql_text(r->results[0], 0, 2), &lsn) != ERR_OK || s->timeline == 0) {
        settle(p);
        return;
    }
    if (to_site(p) && other_system(p, pg_sql_text(r->results[0], 0, 0))) {
        settle(p);
        return;
    }
    bool behind = timeline < s->timeline ||
                  (timeline == s->timeline && lsn < MAX(s->receive_lsn, s->replay_lsn));
    (void)snprintf(sql, sizeof sql, "TIMELINE_HISTORY %" PRIu64, timeline);
    if (timeline > s->timeline) {
        pg_sql_query(p->remote, sql, STUCK_SQL_MS, history_read, p);
    } else if (to_site(p) && behind) {
        pg_sql_query(p->remote, "SHOW transaction_read_only", STUCK_SQL_MS, writable_said, p);
    } else if (to_site(p) && timeline == s->timeline && timeline > 1) {
        pg_sql_query(p->remote, sql, STUCK_SQL_MS, same_read, p);
    } else if (timeline == s->timeline && lsn >= MAX(s->receive_lsn, s->replay_lsn)) {
        try_stream(p);
    } else {
        settle(p); /* the upstream is behind: it may still be on its way up */
    }
}

static void connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        p->site_checked = false;
        settle(p);
    } else
        pg_sql_query(p->remote, "IDENTIFY_SYSTEM", STUCK_SQL_MS, identified, p);
}

/* host and port as they stand in our own connection string */
static bool upstream_of(const struct postgres *p, struct postgres_upstream *ret)
{
    char *error = NULL;
    PQconninfoOption *options = PQconninfoParse(p->follow.conninfo, &error);
    PQfreemem(error);
    *ret = (struct postgres_upstream){.port = ""};
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        if (o->val == NULL)
            continue;
        if (strcmp(o->keyword, "host") == 0)
            str_cut(ret->host, sizeof ret->host, o->val);
        if (strcmp(o->keyword, "port") == 0)
            str_cut(ret->port, sizeof ret->port, o->val);
        if (strcmp(o->keyword, "target_session_attrs") == 0)
            ret->read_write = strcmp(o->val, "read-write") == 0;
    }
    PQconninfoFree(options);
    return ret->host[0] != '\0' && ret->port[0] != '\0';
}

void stuck_look(struct postgres *p)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    struct postgres_upstream up;
    uint64_t now = clock_boot_ms();
    bool should = postgres_running(p) && pg_monitor_accepts(p->monitor) && s->in_recovery &&
                  p->follow.known && p->follow.conninfo[0] != '\0';
    bool unknown = to_site(p) && !p->site_checked;
    /* What was found holds through the stop that follows from it: a walreceiver that is refused streams for a moment. */
    if (p->stuck && (p->act.active || !postgres_running(p) || !pg_monitor_accepts(p->monitor)))
        return;
    if (!should || (s->streaming && !unknown)) {
        p->rewound = p->rewound && !s->streaming;
        stuck_forget(p);
        return;
    }
    if (p->act.active || p->checking || p->stuck)
        return;
    if (p->unfed_ms == 0)
        p->unfed_ms = now;
    if (now - p->unfed_ms < UNFED_MS || !upstream_of(p, &up))
        return;
    p->checking = true;
    p->site_checked = true; /* unless it cannot be reached */
    pg_remote_connect(p->remote, &up, &p->config->postgresql.authentication.replication, true,
                      connected, p);
}
