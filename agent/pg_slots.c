#include "agent/pg_slots.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/pg_text.h"
#include "base/assert.h"
#include "base/mutant.h"
#include "base/str.h"

/* What only some versions have is asked for by name. */
#define SLOTS_QUERY                                                                        \
    "SELECT s.slot_name, s.slot_type, s.database, s.plugin, s.active, s.temporary,"        \
    " s.restart_lsn, s.confirmed_flush_lsn, s.catalog_xmin,"                               \
    " coalesce((j.j->>'failover')::bool, false), coalesce((j.j->>'synced')::bool, false)," \
    " s.wal_status IS NOT DISTINCT FROM 'lost' OR coalesce((j.j->>'conflicting')::bool,"   \
    " false) OR j.j->>'invalidation_reason' IS NOT NULL"                                   \
    " FROM pg_replication_slots s CROSS JOIN LATERAL (SELECT to_jsonb(s) AS j) j"          \
    " ORDER BY s.slot_name LIMIT 64"

const char slots_query[] = SLOTS_QUERY;
/* A segment's name: timeline, then the upper 32 bits of its LSN, then its number within them. */
const char slots_local_query[] = SLOTS_QUERY
    ";SELECT current_setting('wal_level') = 'logical',"
    " CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END,"
    " (SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'),"
    " (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size')";

/* ---- what a server says ---- */

static enum err lsn_of(const char *text, uint64_t *ret)
{
    *ret = 0;
    return text[0] == '\0' ? ERR_OK : pg_lsn_parse(text, ret);
}

static bool is_true(const PGresult *r, int row, int col)
{
    return strcmp(PQgetvalue(r, row, col), "t") == 0;
}

static enum err seen_row(const PGresult *r, int row, struct slot_seen *s)
{
    *s = (struct slot_seen){.active = is_true(r, row, 4),
                            .temporary = is_true(r, row, 5),
                            .failover = is_true(r, row, 9),
                            .synced = is_true(r, row, 10),
                            .lost = is_true(r, row, 11),
                            .catalog_xmin = (uint32_t)strtoul(PQgetvalue(r, row, 8), NULL, 10)};
    bool logical = strcmp(PQgetvalue(r, row, 1), "logical") == 0;
    s->is.type = logical ? SLOT_LOGICAL : SLOT_PHYSICAL;
    bool ok =
        str_copy(s->is.name, sizeof s->is.name, PQgetvalue(r, row, 0)) == ERR_OK &&
        str_copy(s->is.database, sizeof s->is.database, PQgetvalue(r, row, 2)) == ERR_OK &&
        str_copy(s->is.plugin, sizeof s->is.plugin, PQgetvalue(r, row, 3)) == ERR_OK &&
        lsn_of(PQgetvalue(r, row, 6), &s->restart_lsn) == ERR_OK &&
        lsn_of(PQgetvalue(r, row, 7), &s->confirmed_lsn) == ERR_OK;
    return ok ? ERR_OK : ERR_INVALID;
}

/* "0000000100000004": where that segment begins. */
static uint64_t segment_lsn(const char *name, const char *size)
{
    char high[9] = "";
    uint64_t bytes = strtoull(size, NULL, 10);
    if (strlen(name) != 16)
        return 0;
    (void)snprintf(high, sizeof high, "%s", name);
    return strtoull(high, NULL, 16) << 32 | strtoull(name + 8, NULL, 16) * bytes;
}

enum err slots_seen_parse(const PGresult *slots, const PGresult *more, struct slots_seen *ret)
{
    struct slots_seen s = {.n = 0};
    if (PQnfields(slots) != 12 ||
        (more != NULL && (PQntuples(more) != 1 || PQnfields(more) != 4)))
        return ERR_INVALID;
    for (int i = 0; i < PQntuples(slots) && s.n < SLOTS_SEEN_MAX; i++)
        if (seen_row(slots, i, &s.at[s.n++]) != ERR_OK)
            return ERR_INVALID;
    if (more != NULL) {
        s.logical_wal = is_true(more, 0, 0);
        if (lsn_of(PQgetvalue(more, 0, 1), &s.replay_lsn) != ERR_OK)
            return ERR_INVALID;
        s.oldest_wal_lsn = segment_lsn(PQgetvalue(more, 0, 2), PQgetvalue(more, 0, 3));
    }
    *ret = s;
    return ERR_OK;
}

const struct slot_seen *slots_find(const struct slots_seen *s, const char *name)
{
    for (size_t i = 0; s != NULL && i < s->n; i++)
        if (strcmp(s->at[i].is.name, name) == 0)
            return &s->at[i];
    return NULL;
}

/* ---- memory ---- */

void slots_retire(struct slots_memory *m, const struct slot_config *was,
                  const struct slot_config *now)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->retired_n; i++)
        if (slots_permanent(now, m->retired[i].name) == NULL)
            m->retired[kept++] = m->retired[i];
    m->retired_n = kept;
    for (size_t i = 0; i < was->permanent_n; i++)
        if (slots_permanent(now, was->permanent[i].name) == NULL &&
            m->retired_n < SLOTS_PERMANENT_MAX)
            m->retired[m->retired_n++] = was->permanent[i];
}

/* Transaction ids go round. */
static bool xid_older(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

static struct slot_mark *mark_of(struct slots_memory *m, const char *name)
{
    for (size_t i = 0; i < m->mark_n; i++)
        if (strcmp(m->mark[i].name, name) == 0)
            return &m->mark[i];
    if (m->mark_n == SLOTS_PERMANENT_MAX)
        m->mark_n = 0; /* at worst a copy counts as unsafe for longer */
    struct slot_mark *k = &m->mark[m->mark_n++];
    *k = (struct slot_mark){.xmin = 0};
    memcpy(k->name, name, sizeof k->name);
    return k;
}

/* ---- judging ---- */

void slots_say(char *unsafe, size_t size, const char *name, const char *why)
{
    size_t n = strlen(unsafe);
    if (n + strlen(name) + strlen(why) + 5 <= size)
        (void)snprintf(unsafe + n, size - n, "%s%s: %s", n > 0 ? "; " : "", name, why);
}

struct judge {
    const struct slots_facts *f;
    struct slots_memory *m;
    struct slots_plan *plan;
};

static void say(const struct judge *j, const struct slot_def *d, const char *why)
{
    slots_say(j->plan->unsafe, sizeof j->plan->unsafe, d->name, why);
}

static struct slot_step *step(const struct judge *j, const struct slot_def *d)
{
    ASSERT(j->plan->step_n < SLOTS_STEPS_MAX); /* one each of the permanent and the retired */
    struct slot_step *s = &j->plan->step[j->plan->step_n++];
    *s = (struct slot_step){.slot = *d};
    return s;
}

static void create(const struct judge *j, const struct slot_def *d)
{
    struct slot_step *s = step(j, d);
    s->kind = SLOT_CREATE;
    s->failover = d->type == SLOT_LOGICAL && j->f->major >= SLOTS_NATIVE_MAJOR;
}

static void drop(const struct judge *j, const struct slot_seen *s)
{
    if (!s->active)
        step(j, &s->is)->kind = SLOT_DROP;
}

static void advance(const struct judge *j, const struct slot_def *d, uint64_t from,
                    uint64_t wanted)
{
    uint64_t to = MIN(wanted, j->f->here->replay_lsn);
    if (to <= from)
        return;
    struct slot_step *s = step(j, d);
    s->kind = SLOT_ADVANCE;
    s->lsn = to;
}

static bool same_kind(const struct slot_def *a, const struct slot_def *b)
{
    return a->type == b->type && strcmp(a->database, b->database) == 0 &&
           strcmp(a->plugin, b->plugin) == 0;
}

static void on_primary(const struct judge *j, const struct slot_def *d)
{
    const struct slot_seen *s = slots_find(j->f->here, d->name);
    if (s == NULL && d->type == SLOT_LOGICAL && !j->f->here->logical_wal)
        say(j, d, "wal_level is not logical");
    else if (s == NULL)
        create(j, d);
    else if (!same_kind(&s->is, d))
        say(j, d, "exists, but not as configured");
    else if (s->lost && d->type == SLOT_PHYSICAL)
        drop(j, s); /* and made anew: nobody can stream from it any more */
    else if (s->lost)
        say(j, d, "has lost WAL: drop it, its consumer begins anew");
    else if (d->type == SLOT_LOGICAL && j->f->major >= SLOTS_NATIVE_MAJOR && !s->failover)
        say(j, d, "was made without failover: drop it, it is made anew");
}

static void physical(const struct judge *j, const struct slot_def *d,
                     const struct slot_seen *theirs, const struct slot_seen *ours)
{
    if (ours == NULL)
        create(j, d);
    else if (ours->lost || !same_kind(&ours->is, d))
        drop(j, ours);
    else if (theirs != NULL && ours->restart_lsn > theirs->restart_lsn)
        say(j, d, "holds less WAL here than on the leader");
    else if (theirs != NULL)
        advance(j, d, ours->restart_lsn, theirs->restart_lsn);
}

static void native(const struct judge *j, const struct slot_def *d,
                   const struct slot_seen *theirs, const struct slot_seen *ours)
{
    if (ours != NULL && !ours->synced)
        drop(j, ours); /* of a time as primary: it keeps PostgreSQL from synchronizing */
    if (!theirs->failover)
        say(j, d, "the leader's was made without failover");
    else if (ours == NULL || !ours->synced)
        say(j, d, "not synchronized yet");
    else if (ours->temporary || ours->lost)
        say(j, d, "synchronized, but not consistent yet");
}

static void copy(const struct judge *j, const struct slot_def *d,
                 const struct slot_seen *theirs)
{
    if (!j->f->here->logical_wal) {
        say(j, d, "wal_level is not logical here");
    } else if (theirs->restart_lsn == 0 || theirs->restart_lsn < j->f->here->oldest_wal_lsn) {
        say(j, d, "needs WAL that is gone here, until its consumer has moved on");
    } else {
        say(j, d, "to be copied, with a restart");
        memcpy(j->plan->copy[j->plan->copy_n++], d->name, sizeof d->name);
    }
}

/* Have the catalog rows that this copy needs been kept all the time? Says why not. */
static bool rows_kept(const struct judge *j, const struct slot_def *d,
                      const struct slot_seen *theirs, const struct slot_seen *ours)
{
    const struct slot_seen *member = slots_find(j->f->leader, j->f->own_slot);
    struct slot_mark *mark = mark_of(j->m, d->name);
    if (member == NULL || member->catalog_xmin == 0 || theirs->catalog_xmin == 0 ||
        xid_older(ours->catalog_xmin, member->catalog_xmin)) {
        mark->kept = false;
        mark->xmin = 0;
    } else if (!mark->kept) {
        mark->kept = true;
    } else if (mark->xmin == 0) {
        mark->xmin = theirs->catalog_xmin;
    }
    if (MUTANT(slot_without_rows))
        return true;
    if (mark->xmin == 0) {
        say(j, d, "the leader does not keep its catalog rows for this standby yet");
        return false;
    }
    if (!xid_older(ours->catalog_xmin, mark->xmin))
        return true;
    say(j, d, "may lack catalog rows, until its consumer has moved on");
    return false;
}

static void copied(const struct judge *j, const struct slot_def *d,
                   const struct slot_seen *theirs, const struct slot_seen *ours)
{
    if (ours == NULL) {
        copy(j, d, theirs);
        return;
    }
    if (ours->lost || !same_kind(&ours->is, d)) {
        drop(j, ours);
        say(j, d, "the copy here is no good, and is made anew");
        return;
    }
    if (rows_kept(j, d, theirs, ours) && ours->confirmed_lsn > theirs->confirmed_lsn)
        say(j, d, "is ahead of the leader's");
    advance(j, d, ours->confirmed_lsn, theirs->confirmed_lsn);
}

static void on_standby(const struct judge *j, const struct slot_def *d)
{
    const struct slot_seen *ours = slots_find(j->f->here, d->name);
    const struct slot_seen *theirs = slots_find(j->f->leader, d->name);
    if (d->type == SLOT_PHYSICAL)
        physical(j, d, theirs, ours);
    else if (j->f->leader == NULL)
        say(j, d, j->f->why_not);
    else if (theirs == NULL || theirs->lost || !same_kind(&theirs->is, d))
        say(j, d, "the leader has no good one");
    else if (j->f->major >= SLOTS_NATIVE_MAJOR)
        native(j, d, theirs, ours);
    else
        copied(j, d, theirs, ours);
}

static void retired(const struct judge *j)
{
    size_t kept = 0;
    for (size_t i = 0; i < j->m->retired_n; i++) {
        const struct slot_seen *s = slots_find(j->f->here, j->m->retired[i].name);
        /* One of the same name that is something else was made by somebody else. */
        if (s == NULL || !same_kind(&s->is, &j->m->retired[i]))
            continue;
        /* A synchronized one goes with the leader's. */
        if (!slots_ignored(j->f->config, &s->is) && (j->f->primary || !s->synced))
            drop(j, s);
        j->m->retired[kept++] = j->m->retired[i];
    }
    j->m->retired_n = kept;
}

void slots_judge(const struct slots_facts *f, struct slots_memory *m, struct slots_plan *ret)
{
    const struct judge j = {f, m, ret};
    memset(ret, 0, sizeof *ret);
    if (m->token != f->leader_token)
        m->mark_n = 0;
    m->token = f->leader_token;
    for (size_t i = 0; i < f->config->permanent_n; i++) {
        const struct slot_def *d = &f->config->permanent[i];
        const struct slot_seen *s = slots_find(f->here, d->name);
        if (slots_ignored(f->config, s != NULL ? &s->is : d))
            continue;
        if (f->primary)
            on_primary(&j, d);
        else
            on_standby(&j, d);
    }
    retired(&j);
}

void slots_step_sql(const struct slot_step *s, struct buf *sql)
{
    char lsn[PG_LSN_TEXT];
    struct buf name CLEANUP(buf_close) = BUF_INIT;
    struct buf plugin CLEANUP(buf_close) = BUF_INIT;
    pg_put_literal(&name, s->slot.name);
    pg_put_literal(&plugin, s->slot.plugin);
    switch (s->kind) {
    case SLOT_CREATE:
        if (s->slot.type == SLOT_LOGICAL)
            buf_printf(sql, "SELECT pg_create_logical_replication_slot(%s, %s, false%s)",
                       buf_cstr(&name), buf_cstr(&plugin), s->failover ? ", false, true" : "");
        else
            buf_printf(sql, "SELECT pg_create_physical_replication_slot(%s, true)",
                       buf_cstr(&name));
        return;
    case SLOT_ADVANCE:
        pg_lsn_text(s->lsn, lsn);
        buf_printf(sql, "SELECT pg_replication_slot_advance(%s, '%s')", buf_cstr(&name), lsn);
        return;
    case SLOT_DROP:
        buf_printf(sql, "SELECT pg_drop_replication_slot(%s)", buf_cstr(&name));
        return;
    }
    UNREACHABLE();
}
