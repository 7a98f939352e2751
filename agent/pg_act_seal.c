/* SEAL: from here on the old primary gets no acknowledgement out of this standby.
 *
 * A reload with an empty primary_conninfo is not enough: with replay held up by a report the startup
 * process does not look at it, and the walreceiver goes on. So: the postmaster has taken the reload
 * (a connection forked afterwards shows it, and it signals its children before it forks again), the
 * walreceiver is told to end, and none can come any more. One of two things says that:
 *
 * - The startup process, which alone asks for a walreceiver, is seen in the sleep between two tries
 *   (wait event RecoveryRetrieveRetryInterval). Before that sleep it has waited for the end of the
 *   walreceiver, and after it it looks at the configuration before it asks for another (PostgreSQL
 *   15 and later, WaitForWALToBecomeAvailable()).
 * - It is busy, and there has been no walreceiver for two retry intervals.
 *
 * Then what was received can only be read, and the seal is written down.
 *
 * That is the received position, and there is none since a start until the WAL on the disk is used up: until then
 * nobody knows how far this standby had confirmed, for it lets people in long before. So without one the seal waits
 * for that: the startup process is seen in the same sleep, which comes when all sources have failed, or pg_waldump
 * finds nothing behind the replayed position (a restore_command that takes longer than the interval leaves
 * no sleep). See docs/decisions/0016. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/mutant.h"
#include "base/str.h"

enum { SEAL_MS = 30000, LOCAL_WAL_MS = 10000, LOCAL_WAL_LOOK_MS = 100, LOOKS = 2 };

static void look_again_cb(uv_timer_t *timer);
static void fresh(struct postgres *p);

static bool sound(struct postgres *p, const struct pg_sql_reply *r)
{
    if (r->status == ERR_OK)
        return true;
    action_fail(p, r->status, "seal: %s", r->e.text);
    return false;
}

static void sealed(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->probe.seal_token = p->act.plan.token;
    p->probe.seal_lsn = p->act.lsn;
    p->probe.seal_timeline = p->act.timeline;
    action_swap(p); /* a promotion may follow: it needs a connection */
    action_end(p, ERR_OK, NULL);
}

static void write_down(struct postgres *p)
{
    struct worker_req q;
    postgres_req(p, &q, "seal");
    memcpy(q.incarnation, p->probe.incarnation, sizeof q.incarnation);
    q.token = p->act.plan.token;
    q.lsn = p->act.lsn;
    q.timeline = p->act.timeline;
    action_worker(p, &q, PG_WORKER_MS, sealed);
}

/* The replayed timeline; a received one that is newer was seen while there was a walreceiver. */
static void identified(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    uint64_t timeline = 0;
    if (!sound(p, r))
        return;
    if (r->n != 1 || str_parse_u64(pg_sql_text(r->results[0], 0, 1), &timeline) != ERR_OK) {
        action_fail(p, ERR_INVALID, "seal: IDENTIFY_SYSTEM is not understood");
        return;
    }
    p->act.timeline =
        MAX(p->act.timeline, MAX(timeline, pg_monitor_seen(p->monitor)->timeline));
    write_down(p);
}

static void ended(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    action_in(p, 1, look_again_cb);
}

static void end_walreceiver(struct postgres *p, uint64_t pid)
{
    struct worker_req q;
    postgres_req(p, &q, "signal");
    q.pid = pid;
    q.signal = SIGTERM;
    p->act.pid = pid;
    action_worker(p, &q, PG_WORKER_MS, ended);
}

static bool sleeps(const PGresult *process)
{
    return strcmp(pg_sql_text(process, 0, 2), "RecoveryRetrieveRetryInterval") == 0;
}

/* No walreceiver can come any more; and what is observed at the end shows that: the plan that follows is made
 * from it. */
static bool cut_off(struct postgres *p, const PGresult *process)
{
    struct action *a = &p->act;
    uint64_t now = clock_boot_ms();
    if (a->since_ms == 0) {
        a->since_ms = now;
        pg_monitor_poke(p->monitor);
    }
    bool asleep = PQserverVersion(pg_sql_conn(p->sql)) >= 150000 && sleeps(process);
    bool seen = pg_monitor_seen(p->monitor)->at_ms > a->since_ms || now - a->began_ms > SEAL_MS;
    return seen && (asleep || now - a->since_ms >= 2 * p->retry_interval_ms);
}

static void wait_for_walreceiver(struct postgres *p, uint64_t pid)
{
    p->act.since_ms = 0;
    if (clock_boot_ms() - p->act.began_ms > SEAL_MS)
        action_fail(p, ERR_TIMEOUT, "seal: the walreceiver does not end");
    else if (pid != p->act.pid)
        end_walreceiver(p, pid);
    else
        action_in(p, PG_POLL_MS / 2, look_again_cb);
}

static void fresh_again_cb(uv_timer_t *timer)
{
    fresh(timer->data);
}

/* Is this connection one that was forked after the reload? Else another one is made, or the action ends. */
static bool shows_reload(struct postgres *p, const PGresult *setting)
{
    if (strcmp(pg_sql_text(setting, 0, 1), "t") != 0) {
        action_fail(p, ERR_PRECONDITION, "seal: this PostgreSQL is no standby");
        return false;
    }
    if (strcmp(pg_sql_text(setting, 0, 0), "t") == 0)
        return true;
    if (clock_boot_ms() - p->act.began_ms > SEAL_MS) {
        action_fail(p, ERR_TIMEOUT, "seal: primary_conninfo does not take its value");
        return false;
    }
    pg_sql_reset(p->sql);
    action_in(p, 2, fresh_again_cb);
    return false;
}

/* ---- is there more on the disk? ---- */

/* Twice in a row: a file that the archive replaces at this moment is missed once. */
static void wal_looked(struct postgres *p, const struct worker_reply *r)
{
    struct action *a = &p->act;
    a->step = r->more ? 0 : a->step + 1;
    a->used_up = a->step >= LOOKS;
    if (!r->more) {
        action_in(p, a->used_up ? 0 : PG_POLL_MS, look_again_cb);
        return;
    }
    (void)snprintf(
        p->trouble, sizeof p->trouble,
        "the WAL on the disk is still being replayed, at %X/%X (startup process: %s)",
        (unsigned)(a->lsn >> 32), (unsigned)a->lsn, pg_monitor_seen(p->monitor)->startup_wait);
    if (clock_boot_ms() - a->began_ms > LOCAL_WAL_MS) {
        action_fail(p, ERR_TIMEOUT, "seal: %s", p->trouble);
        return;
    }
    action_in(p, LOCAL_WAL_LOOK_MS, look_again_cb);
    postgres_told(p);
}

static void look_at_wal(struct postgres *p)
{
    struct worker_req q;
    postgres_req(p, &q, "wal");
    q.lsn = p->act.lsn;
    action_worker(p, &q, PG_WORKER_MS, wal_looked);
}

/* The setting, then the processes, then the positions, each in a statement of its own: as they are afterwards. */
static void looked(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct action *a = &p->act;
    uint64_t pid = 0;
    uint64_t timeline = 0;
    uint64_t receive = 0;
    uint64_t replay = 0;
    if (!sound(p, r) || !shows_reload(p, r->results[0]))
        return;
    const PGresult *process = r->results[1];
    const PGresult *position = r->results[2];
    /* NULL: no such process */
    if (str_parse_u64(pg_sql_text(process, 0, 0), &pid) != ERR_OK)
        pid = 0;
    if (str_parse_u64(pg_sql_text(process, 0, 1), &timeline) != ERR_OK)
        timeline = 0;
    a->timeline = MAX(a->timeline, timeline);
    if (pid != 0 && !MUTANT(seal_by_reload)) {
        wait_for_walreceiver(p, pid);
        return;
    }
    if ((pg_sql_text(position, 0, 0)[0] != '\0' &&
         pg_lsn_parse(pg_sql_text(position, 0, 0), &receive) != ERR_OK) ||
        pg_lsn_parse(pg_sql_text(position, 0, 1), &replay) != ERR_OK) {
        action_fail(p, ERR_INVALID, "seal: positions are not understood");
        return;
    }
    a->lsn = MAX(receive, replay);
    a->used_up = a->used_up || receive != 0 || sleeps(process) || MUTANT(seal_in_replay);
    if (!a->used_up)
        look_at_wal(p);
    else if (!cut_off(p, process))
        action_in(p, PG_POLL_MS / 2, look_again_cb);
    else
        pg_sql_query(p->sql, "IDENTIFY_SYSTEM", PG_SQL_MS, identified, p);
}

static void look(struct postgres *p)
{
    pg_sql_query(p->sql,
                 "SELECT current_setting('primary_conninfo') = '', pg_is_in_recovery();"
                 "SELECT (SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver' "
                 "LIMIT 1), (SELECT received_tli FROM pg_stat_get_wal_receiver()), "
                 "(SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup' "
                 "LIMIT 1);"
                 "SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()",
                 PG_SQL_MS, looked, p);
}

static void look_again_cb(uv_timer_t *timer)
{
    look(timer->data);
}

static void fresh_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (sound(p, r))
        look(p);
}

/* Of the kind that replication uses: it answers SQL and IDENTIFY_SYSTEM. */
static void fresh(struct postgres *p)
{
    struct pg_sql_target t = {.n = 0};
    postgres_local_target(p, &t, PG_MONITOR_IDENTIFY);
    pg_sql_connect(p->sql, &t, PG_CONNECT_MS, fresh_connected, p);
}

static void reloading(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    fresh(p);
}

void act_seal(struct postgres *p)
{
    if (!postgres_running(p)) {
        action_fail(p, ERR_PRECONDITION, "seal: PostgreSQL is not running");
        return;
    }
    p->follow = (struct follow){.known = true};
    action_reload(p, NULL, reloading);
}
