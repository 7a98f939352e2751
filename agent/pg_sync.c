/* The synchronous set of this primary: written, reloaded, confirmed. Executes what pg_syncconf asks
 * for, beside the actions; every failure is a later try, and until DONE the old sets count. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/core/syncrep.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

enum { SYNC_ADOPT_MS = 3000, SYNC_SET_MS = 10000 };

enum err sync_text(const struct sync_set *set, char *ret, size_t size)
{
    /* All of S must answer: FIRST says so to people; any k of it: ANY. */
    return syncrep_names(set, set->k == set->s_n ? SYNC_ON : SYNC_QUORUM, ret, size);
}

/* Reads back what sync_text() wrote; anything else is no set of ours. */
static bool parse_names(const char *text, struct sync_set *ret)
{
    struct sync_set s = {0};
    char again[PG_SYNC_NAMES_MAX];
    char *p = NULL;
    *ret = s;
    if (text[0] == '\0')
        return true;
    if (!str_starts(text, "FIRST ") && !str_starts(text, "ANY "))
        return false;
    s.k = strtoul(strchr(text, ' ') + 1, &p, 10);
    for (p = str_starts(p, " (") ? p + 2 : p; *p == '"' && s.s_n < SYNC_MAX;) {
        size_t n = strcspn(p + 1, "\"");
        if (str_copy_slice(s.s[s.s_n], sizeof s.s[0], slice_of(p + 1, n)) != ERR_OK ||
            p[1 + n] != '"')
            return false;
        s.s_n++;
        p += n + 2;
        if (*p == ',')
            p++;
    }
    if (s.k > s.s_n || sync_text(&s, again, sizeof again) != ERR_OK || strcmp(again, text) != 0)
        return false;
    *ret = s;
    return true;
}

static bool same_set(const struct sync_set *a, const struct sync_set *b)
{
    char x[PG_SYNC_NAMES_MAX];
    char y[PG_SYNC_NAMES_MAX];
    return sync_text(a, x, sizeof x) == ERR_OK && sync_text(b, y, sizeof y) == ERR_OK &&
           strcmp(x, y) == 0;
}

static void drop_connections(struct postgres *p)
{
    (void)uv_timer_stop(&p->sync_timer);
    pg_sql_reset(p->sync_sql);
    pg_sql_reset(p->sync_probe);
    p->sync_busy = false;
    p->sync_probing = false;
}

/* ---- the set changes ---------------------------------------------------------------------- */

void sync_set_names(struct postgres *p, const struct sync_set *set)
{
    drop_connections(p);
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = false;
    p->sync_adopt = false;
    p->sync_stale = p->sync_writing;
    if (p->set_known && same_set(&p->set, set))
        return;
    if (p->set_known && p->old_n == VIEW_SETS)
        p->set_known = false;
    else if (p->set_known)
        p->old[p->old_n++] = p->set;
    p->set = *set;
}

void sync_fresh(struct postgres *p, const struct sync_set *set)
{
    drop_connections(p);
    p->set = *set;
    p->set_known = true;
    p->old_n = 0;
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = true;
    p->sync_waits = false;
    p->sync_adopt = false;
}

void sync_adopted(struct postgres *p)
{
    drop_connections(p);
    memset(&p->set, 0, sizeof p->set);
    p->set_known = false;
    p->old_n = 0;
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = false;
    p->sync_waits = false;
    p->sync_adopt = true;
}

/* A stopped one: it will start with what START_* gives it. */
void sync_stop(struct postgres *p)
{
    drop_connections(p);
    p->sync.step = SYNCCONF_OFF;
    p->sync_waits = false;
}

bool sync_probes(const struct postgres *p)
{
    return p->sync_probing || p->sync.step == SYNCCONF_TRY || p->sync.step == SYNCCONF_PROBE;
}

static void finished(struct postgres *p)
{
    p->set_known = true;
    p->old_n = 0;
    p->sync_waits = p->set.k > 0;
    p->sync_serial = pg_monitor_seen(p->monitor)->serial;
    p->trouble[0] = '\0';
    p->conf_dirty = p->conf_dirty || p->closed;
    p->closed = false;
    drop_connections(p);
    if (p->act.active && p->act.plan.action == ACTION_SET_SYNC)
        action_end(p, ERR_OK, NULL);
    postgres_told(p);
}

/* ---- looks ------------------------------------------------------------------------------------ */

static void feed(struct postgres *p, const struct pg_seen *s)
{
    struct syncconf_sender senders[PG_SENDERS_MAX];
    enum syncconf_step before = p->sync.step;
    if (s->serial <= p->sync_serial)
        return;
    for (size_t i = 0; i < s->senders_n; i++)
        senders[i] =
            (struct syncconf_sender){s->senders[i].application_name, s->senders[i].flush_lsn};
    syncconf_look(&p->sync, senders, s->senders_n, s->flush_lsn);
    if (p->sync.step == SYNCCONF_FLUSHED && before == SYNCCONF_SENDERS)
        p->sync_serial = s->serial;
    if (p->sync.step == SYNCCONF_DONE)
        finished(p);
}

static void begin(struct postgres *p)
{
    p->sync_passed = false;
    /* The name nobody bears is in force until the wanted ones are written. */
    syncconf_start(&p->sync, &p->set, p->old, p->old_n, !p->set_known, p->sync_waits,
                   p->sync_written);
    p->sync_since_ms = clock_boot_ms();
    if (p->set_known && p->old_n == 0 && p->set.k == 0 && p->sync_written)
        p->sync.step = SYNCCONF_DONE; /* nothing to confirm: nobody has ever waited here */
    else
        sync_step(p);
}

/* Somebody changed the value behind our back: what is in force is not known any more. */
static void drifted(struct postgres *p)
{
    p->set_known = false;
    p->sync.step = SYNCCONF_OFF;
    p->sync_waits = false;
    p->sync_written = false;
    p->sync_adopt = true;
    (void)snprintf(p->trouble, sizeof p->trouble,
                   "synchronous_standby_names was changed behind the agent's back");
}

void sync_look(struct postgres *p)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    char names[PG_SYNC_NAMES_MAX];
    if (!postgres_running(p) || !pg_monitor_accepts(p->monitor))
        return;
    if (p->sync_adopt && p->sync.step == SYNCCONF_OFF && !p->sync_wanted) {
        /* Nothing commits on a standby: what it shows is all there is. On a primary more may be in
         * force than it shows. */
        p->set_known = parse_names(s->sync_names, &p->set) && s->in_recovery;
        p->sync_adopt = false;
    }
    if (s->in_recovery)
        return;
    if (p->sync.step == SYNCCONF_OFF && (p->set_known || p->sync_wanted)) {
        begin(p);
        p->sync_wanted = false;
    } else if (p->sync.step == SYNCCONF_SENDERS || p->sync.step == SYNCCONF_FLUSHED) {
        feed(p, s);
    } else if (p->sync.step == SYNCCONF_DONE && s->serial > p->sync_serial + 1 &&
               sync_text(&p->set, names, sizeof names) == ERR_OK &&
               strcmp(names, s->sync_names) != 0) {
        drifted(p);
    }
}

/* ---- the action ------------------------------------------------------------------------------- */

static void in_recovery_written(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->sync_written = true;
    action_end(p, ERR_OK, NULL);
}

/* Among unknown sets (adopted) the action lasts until the confirmation. When a member of the set is gone
 * that never comes: the plan must be able to choose again. Of known ones it lasts until the set is written and reloaded:
 * with a full disk, or where nobody gets a connection, it must not hold up what else there is to do. */
static void late_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    action_fail(p, ERR_TIMEOUT,
                p->set_known
                    ? "the synchronous set could not be put in force: PostgreSQL takes "
                      "no file, or no connection"
                    : "the synchronous set could not be confirmed: not all of it "
                      "streams");
}

void act_sync(struct postgres *p)
{
    char names[PG_SYNC_NAMES_MAX];
    if (sync_text(&p->act.plan.set, names, sizeof names) != ERR_OK) {
        action_fail(p, ERR_INVALID, "the synchronous set does not fit");
        return;
    }
    if (!postgres_running(p)) {
        action_fail(p, ERR_PRECONDITION, "PostgreSQL is not running");
        return;
    }
    sync_set_names(p, &p->act.plan.set);
    postgres_told(p); /* the new one shows before a byte of it is written */
    if (pg_monitor_seen(p->monitor)->in_recovery) {
        action_write(p, "write", names, in_recovery_written);
        return;
    }
    p->sync_wanted = true;
    action_in(p, p->set_known ? SYNC_SET_MS : SYNC_ADOPT_MS, late_cb);
    sync_look(p);
}
