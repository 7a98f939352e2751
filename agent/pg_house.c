/* Housekeeping of a running PostgreSQL, beside the actions: changed configuration is written and
 * reloaded, and one physical slot is kept per other member. */
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

enum { SLOTS_MS = 2000, SLOT_TTL_MS = 30 * 60 * 1000 };

/* What failed is tried again in its turn, on a new connection. */
static void failed(struct postgres *p)
{
    p->house_busy = false;
    pg_sql_reset(p->house_sql);
}

/* The connection stays: making one takes thousands of hashes here and a process there, every look. */
static void done(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    p->house_busy = false;
    if (r->status != ERR_OK)
        failed(p);
}

/* What PostgreSQL itself thinks of the lines: with one that it cannot read it goes on with the old ones. */
static void say_bad_line(const struct pg_sql_reply *r)
{
    if (r->n != 2 || PQntuples(r->results[1]) == 0)
        return;
    const char *line = pg_sql_text(r->results[1], 0, 0);
    log_event(LOG_WARN, "pg_hba", KV(KV_STR("line", line)), "pg_hba.conf, line %s: %s", line,
              pg_sql_text(r->results[1], 0, 1));
}

static void reloaded(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    done(arg, r);
    if (r->status != ERR_OK)
        return;
    say_bad_line(r);
    if (!p->conf_changed)
        return;
    p->conf_changed = false;
    p->reloads++;
    if (p->ops.changed != NULL)
        p->ops.changed(p->arg);
}

static void reload_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        p->conf_dirty = true;
        failed(p);
        return;
    }
    pg_sql_query(p->house_sql,
                 "SELECT pg_reload_conf(); SELECT line_number, error FROM "
                 "pg_catalog.pg_hba_file_rules WHERE error IS NOT NULL ORDER BY 1 LIMIT 1",
                 PG_SQL_MS, reloaded, p);
}

static void with_connection(struct postgres *p, pg_sql_cb *cb)
{
    struct pg_sql_target t = {.n = 0};
    if (pg_sql_ready(p->house_sql)) {
        const struct pg_sql_reply ready = {.status = ERR_OK};
        cb(p, &ready);
        return;
    }
    postgres_local_target(p, &t, PG_MONITOR_LOOK);
    pg_sql_connect(p->house_sql, &t, PG_CONNECT_MS, cb, p);
}

static void written(void *arg, enum err status, const struct errmsg *e,
                    const struct worker_reply *r)
{
    struct postgres *p = container_of(arg, struct postgres, house_busy);
    (void)e;
    (void)r;
    if (!p->house_busy)
        return; /* that postmaster is gone */
    if (status != ERR_OK || !postgres_running(p)) {
        p->conf_dirty = p->conf_dirty || postgres_running(p);
        failed(p);
        return;
    }
    with_connection(p, reload_connected);
}

/* Not while an action runs: it writes the same files. */
static void write_conf(struct postgres *p)
{
    struct worker_req q;
    struct errmsg e = {0};
    struct msg_list list = {0};
    struct buf files CLEANUP(buf_close) = BUF_INIT;
    p->conf_dirty = false;
    if (postgres_files(p, NULL, &list, &e) != ERR_OK) {
        msg_list_close(&list);
        return;
    }
    msg_list_end(&list, &files);
    postgres_req(p, &q, "write");
    q.files = buf_slice(&files);
    p->house_busy = true;
    pg_worker_send(p->worker, &q, PG_WORKER_MS, written, &p->house_busy);
}

static bool named(const struct postgres_dynamic *d, const char *name)
{
    for (size_t i = 0; i < d->members_n; i++)
        if (strcmp(d->members[i], name) == 0)
            return true;
    return false;
}

static void note_absent(struct postgres *p, const char *name, uint64_t since_ms)
{
    if (p->absent_n == ARRAY_LEN(p->absent)) /* the longest gone makes room */
        memmove(p->absent, p->absent + 1, --p->absent_n * sizeof p->absent[0]);
    memcpy(p->absent[p->absent_n].name, name, sizeof p->absent[0].name);
    p->absent[p->absent_n++].since_ms = since_ms;
}

void house_members(struct postgres *p, const struct postgres_dynamic *d)
{
    uint64_t now = clock_boot_ms();
    size_t kept = 0;
    ASSERT(d->members_n <= VIEW_MEMBERS);
    p->slot_ttl_ms = d->slot_ttl_ms != 0 ? d->slot_ttl_ms : SLOT_TTL_MS;
    for (size_t i = 0; i < p->absent_n; i++)
        if (!named(d, p->absent[i].name) && now - p->absent[i].since_ms < p->slot_ttl_ms)
            p->absent[kept++] = p->absent[i];
    p->absent_n = kept;
    for (size_t i = 0; i < p->members_n; i++)
        if (!named(d, p->members[i]))
            note_absent(p, p->members[i], now);
    memcpy(p->members, d->members, sizeof p->members);
    memcpy(p->below, d->below, sizeof p->below);
    memcpy(p->elsewhere, d->elsewhere, sizeof p->elsewhere);
    p->members_n = d->members_n;
}

static void put_slot(struct buf *sql, const char *member)
{
    char slot[64];
    pg_slot_name(member, slot);
    buf_printf(sql, ", '%s'", slot);
}

/* A slot of a member that is gone keeps WAL for ever: dropped after a while, unless it is in use. Ours
 * are known by their prefix. A standby has them too, so that the others find them the moment it is
 * promoted; but there they hold no WAL, but for those who are meant to stream from it: one that was used in an
 * earlier life is made anew. So it is on the primary with one of a member that streams from a standby. */
static void slots_sql(const struct postgres *p, struct buf *sql)
{
    char slot[64];
    uint64_t now = clock_boot_ms();
    bool long_enough = now - p->born_ms >= p->slot_ttl_ms;
    buf_printf(sql,
               "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE "
               "slot_type = 'physical' AND NOT active AND left(slot_name, 7) = 'regent_' AND "
               "((restart_lsn IS NOT NULL AND CASE WHEN pg_is_in_recovery() THEN slot_name NOT "
               "IN (''");
    for (size_t i = 0; i < p->members_n; i++)
        if (p->below[i])
            put_slot(sql, p->members[i]);
    buf_printf(sql, ") ELSE slot_name IN (''");
    for (size_t i = 0; i < p->members_n; i++)
        if (p->elsewhere[i])
            put_slot(sql, p->members[i]);
    buf_printf(sql, ") END) OR (%s AND slot_name NOT IN (''", long_enough ? "true" : "false");
    for (size_t i = 0; i < p->members_n; i++)
        put_slot(sql, p->members[i]);
    for (size_t i = 0; i < p->absent_n; i++)
        if (now - p->absent[i].since_ms < p->slot_ttl_ms)
            put_slot(sql, p->absent[i].name);
    buf_printf(sql, ")))");
    for (size_t i = 0; i < p->members_n; i++) {
        pg_slot_name(p->members[i], slot);
        buf_printf(
            sql,
            "; SELECT pg_create_physical_replication_slot('%s') WHERE NOT EXISTS (SELECT "
            "FROM pg_replication_slots WHERE slot_name = '%s')",
            slot, slot);
    }
}

static void slots_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    if (r->status != ERR_OK) {
        failed(p);
        return;
    }
    slots_sql(p, &sql);
    pg_sql_query(p->house_sql, buf_cstr(&sql), PG_SQL_MS, done, p);
}

/* ---- what this server says of its parameters ---- */

static void catalogue_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    done(arg, r);
    if (r->status != ERR_OK || r->n != 1)
        return;
    const char *text = pg_sql_text(r->results[0], 0, 0);
    buf_clear(&p->catalogue);
    buf_append_slice(&p->catalogue, slice_str(text));
    p->catalogue_serial++;
}

static void catalogue_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        failed(p);
    else
        pg_sql_query(
            p->house_sql,
            "SELECT json_object_agg(n, r) FROM (SELECT lower(name) AS n, "
            "json_build_array(vartype, context, coalesce(unit, ''), "
            "coalesce(min_val, ''), coalesce(max_val, ''), "
            "coalesce(array_to_string(enumvals, '|'), '')) AS r FROM pg_settings "
            "UNION ALL SELECT '$libdir', json_build_array('libraries', 'internal', '', "
            "'', '', (SELECT string_agg(left(f, -3), '|') FROM pg_config, "
            "pg_ls_dir(setting) f WHERE name = 'PKGLIBDIR' AND f LIKE '%.so')) "
            "WHERE current_setting('dynamic_library_path') = '$libdir') x",
            PG_SQL_MS, catalogue_read, p);
}

uint64_t postgres_reloads(const struct postgres *p)
{
    return p->reloads;
}

uint64_t postgres_catalogue(const struct postgres *p, struct slice *ret_json)
{
    *ret_json = buf_slice(&p->catalogue);
    return p->catalogue.len > 0 ? p->catalogue_serial : 0;
}

static bool slots_due(const struct postgres *p, uint64_t now)
{
    return p->use_slots && p->members_n > 0 && now >= p->slots_ms;
}

void house_look(struct postgres *p)
{
    uint64_t now = clock_boot_ms();
    /* Of the connections that are kept for superusers three are sure, however many clients there are: the monitor's, and
     * two as long as there is a probe. It is the set_sync under way that waits for them. */
    if (sync_probes(p) && !p->house_busy) {
        pg_sql_reset(p->house_sql);
        slots_pause(p);
        return;
    }
    if (p->act.active || p->house_busy || !postgres_running(p) || p->stopping ||
        !p->follow.known || !p->ever_seen || !pg_monitor_accepts(p->monitor))
        return;
    /* Before the dynamic configuration is known the files stay as the last daemon left them: a standby whose slot went
     * away for a moment would connect anew. */
    if (p->conf_dirty && p->configured) {
        write_conf(p);
        return;
    }
    slots_look(p);
    if (slots_due(p, now)) {
        p->slots_ms = now + SLOTS_MS;
        p->house_busy = true;
        with_connection(p, slots_connected);
    } else if (p->catalogue.len == 0) {
        p->house_busy = true;
        with_connection(p, catalogue_connected);
    }
}
