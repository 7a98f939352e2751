/* The monitor's question, and how its answer is read. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/pg_monitor.h"
#include "agent/pg_text.h"
#include "base/str.h"

/* Of the walsenders first those that a commit may wait for, then those of members: who is not in the answer
 * counts as gone. */
#define SEEN_QUERY                                                                    \
    "SELECT r.r,"                                                                     \
    " CASE WHEN r.r THEN NULL ELSE pg_current_wal_flush_lsn() END,"                   \
    " CASE WHEN r.r THEN pg_last_wal_receive_lsn() END,"                              \
    " CASE WHEN r.r THEN pg_last_wal_replay_lsn() END,"                               \
    " CASE WHEN r.r THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END,"        \
    " c.timeline_id, s.system_identifier,"                                            \
    " current_setting('synchronous_standby_names'),"                                  \
    " current_setting('primary_conninfo'),"                                           \
    " current_setting('regent.upstream', true),"                                      \
    " current_setting('regent.follow_token', true),"                                  \
    " (SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver' LIMIT 1)," \
    " coalesce(w.status = 'streaming', false), w.received_tli,"                       \
    " (SELECT left(wait_event_type || ':' || wait_event, 40) FROM pg_stat_activity"   \
    "   WHERE backend_type = 'startup' LIMIT 1),"                                     \
    " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,"            \
    " (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint,"       \
    " CASE WHEN r.r THEN pg_is_wal_replay_paused() ELSE false END, w.latest_end_lsn"  \
    " FROM (SELECT pg_is_in_recovery() AS r) r"                                       \
    " CROSS JOIN pg_control_checkpoint() c CROSS JOIN pg_control_system() s"          \
    " LEFT JOIN pg_stat_get_wal_receiver() w ON true;"                                \
    "SELECT application_name, coalesce(state = 'streaming', false), flush_lsn, pid,"  \
    " usename, host(client_addr), state, sync_state, sync_priority"                   \
    " FROM pg_stat_replication WHERE state <> 'backup' ORDER BY sync_priority = 0,"   \
    " application_name !~ '^[0-9a-f]{8}-[0-9a-f]{4}-', pid LIMIT 64"

const char pg_seen_query[] = SEEN_QUERY;
const char pg_seen_long_query[] = SEEN_QUERY
    ";SELECT count(*) > 0,"
    " coalesce(json_object_agg(p.name, json_build_object('old_value', left(p.setting, 40),"
    "   'new_value', left(p.wanted, 40))) FILTER (WHERE p.n <= 5), '{}')::text,"
    " concat_ws('/', current_setting('max_connections'), "
    "current_setting('max_worker_processes'),"
    "   current_setting('max_wal_senders'), current_setting('max_prepared_transactions'),"
    "   current_setting('max_locks_per_transaction')),"
    " (SELECT string_agg(concat_ws(',', x.slot_name, x.active::int, x.kept, x.wal_status), ';')"
    "   FROM (SELECT s.slot_name, s.active, s.wal_status,"
    "     greatest(0, coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()"
    "       THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn), "
    "0))::bigint"
    "     AS kept FROM pg_replication_slots s ORDER BY s.slot_name LIMIT 32) x),"
    " (SELECT CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity')"
    "   AND NOT pg_is_in_recovery() AND current_setting('archive_mode') <> 'off'"
    "   THEN left(last_failed_wal, 39) END FROM pg_stat_archiver)"
    " FROM (SELECT s.name, current_setting(s.name) AS setting, row_number() OVER (ORDER BY "
    "s.name)"
    "   AS n, coalesce((SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name"
    "   ORDER BY f.seqno DESC LIMIT 1), s.boot_val) AS wanted"
    /* The flag of what was put into the file and taken out again stays: then the file is silent, and what is in
     * force does not come from it. */
    "   FROM pg_settings s WHERE s.pending_restart AND (s.source = 'configuration file' OR "
    "EXISTS"
    "   (SELECT FROM pg_file_settings f WHERE f.name = s.name))) p";

struct row {
    const PGresult *result;
    int row;
    int col;
    enum err status;
};

static const char *next(struct row *r)
{
    return pg_sql_text(r->result, r->row, r->col++);
}

static void take_bool(struct row *r, bool *ret)
{
    if (pg_bool_parse(next(r), ret) != ERR_OK)
        r->status = ERR_INVALID;
}

/* NULL is 0. */
static void take_lsn(struct row *r, uint64_t *ret)
{
    const char *text = next(r);
    *ret = 0;
    if (text[0] != '\0' && pg_lsn_parse(text, ret) != ERR_OK)
        r->status = ERR_INVALID;
}

static void take_number(struct row *r, uint64_t *ret)
{
    const char *text = next(r);
    *ret = 0;
    if (text[0] != '\0' && str_parse_u64(text, ret) != ERR_OK)
        r->status = ERR_INVALID;
}

/* A bigint that holds 64 bits without a sign. */
static void take_system_id(struct row *r, uint64_t *ret)
{
    const char *text = next(r);
    char *end = NULL;
    *ret = text[0] == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    if (text[0] == '\0' || *end != '\0' || *ret == 0)
        r->status = ERR_INVALID;
}

static void take_text(struct row *r, char *ret, size_t size)
{
    if (str_copy(ret, size, next(r)) != ERR_OK)
        r->status = ERR_INVALID;
}

/* First eight hexadecimal digits of a WAL file's name; NULL in recovery. */
static void take_walfile_timeline(struct row *r, uint64_t *ret)
{
    const char *text = next(r);
    uint8_t raw[4];
    char digits[9] = "";
    *ret = 0;
    if (text[0] == '\0')
        return;
    (void)snprintf(digits, sizeof digits, "%s", text);
    if (strlen(text) != 24 || hex_decode(digits, raw, sizeof raw) != ERR_OK) {
        r->status = ERR_INVALID;
        return;
    }
    *ret = (uint64_t)raw[0] << 24 | (uint64_t)raw[1] << 16 | (uint64_t)raw[2] << 8 | raw[3];
}

/* A setting that a person may have written anything into. */
static void take_token(struct row *r, uint64_t *ret)
{
    if (str_parse_u64(next(r), ret) != ERR_OK)
        *ret = 0;
}

static enum err parse_senders(const PGresult *result, struct pg_seen *s)
{
    int n = PQntuples(result);
    s->senders_n = 0;
    for (int i = 0; i < n && s->senders_n < PG_SENDERS_MAX; i++) {
        struct pg_sender *to = &s->senders[s->senders_n];
        struct row r = {.result = result, .row = i};
        take_text(&r, to->application_name, sizeof to->application_name);
        take_bool(&r, &to->streaming);
        take_lsn(&r, &to->flush_lsn);
        take_number(&r, &to->pid);
        str_cut(to->usename, sizeof to->usename, next(&r));
        str_cut(to->client_addr, sizeof to->client_addr, next(&r));
        str_cut(to->state, sizeof to->state, next(&r));
        str_cut(to->sync_state, sizeof to->sync_state, next(&r));
        take_number(&r, &to->sync_priority);
        if (r.status != ERR_OK)
            return r.status;
        s->senders_n++;
    }
    return ERR_OK;
}

/* The next field up to a comma or the end of the slot; false when it does not fit. */
static bool slot_field(const char **text, char *ret, size_t size)
{
    size_t n = strcspn(*text, ",;");
    bool ok = str_copy_slice(ret, size, slice_of(*text, n)) == ERR_OK;
    *text += n + ((*text)[n] == ',');
    return ok;
}

/* "name,active,bytes,status;...": slots' names have neither commas nor semicolons. */
void pg_slots_parse(const char *text, struct pg_seen *ret)
{
    ret->slots_n = 0;
    while (*text != '\0' && ret->slots_n < PG_SLOTS_MAX) {
        struct pg_slot *s = &ret->slots[ret->slots_n];
        char active[4] = "";
        char bytes[24];
        *s = (struct pg_slot){0};
        bool ok = slot_field(&text, s->name, sizeof s->name) &&
                  slot_field(&text, active, sizeof active) &&
                  slot_field(&text, bytes, sizeof bytes) &&
                  str_parse_u64(bytes, &s->retained_bytes) == ERR_OK;
        s->active = strcmp(active, "1") == 0;
        ret->slots_n += ok && slot_field(&text, s->wal_status, sizeof s->wal_status);
        text += strcspn(text, ";");
        text += *text == ';';
    }
}

enum err pg_seen_parse(const PGresult *facts, const PGresult *senders, const PGresult *settings,
                       struct pg_seen *ret)
{
    struct pg_seen s = *ret;
    struct row r = {.result = facts};
    uint64_t timeline = 0;
    if (PQntuples(facts) != 1 || PQnfields(facts) != 19 || PQnfields(senders) != 9)
        return ERR_INVALID;
    take_bool(&r, &s.in_recovery);
    take_lsn(&r, &s.flush_lsn);
    take_lsn(&r, &s.receive_lsn);
    take_lsn(&r, &s.replay_lsn);
    take_walfile_timeline(&r, &timeline);
    take_number(&r, &s.control_timeline);
    take_system_id(&r, &s.system_id);
    take_text(&r, s.sync_names, sizeof s.sync_names);
    take_text(&r, s.conninfo, sizeof s.conninfo);
    take_text(&r, s.upstream, sizeof s.upstream);
    take_token(&r, &s.follow_token);
    take_number(&r, &s.walreceiver_pid);
    take_bool(&r, &s.streaming);
    take_number(&r, &s.received_timeline);
    take_text(&r, s.startup_wait, sizeof s.startup_wait);
    take_number(&r, &s.start_us);
    take_number(&r, &s.replayed_us);
    take_bool(&r, &s.replay_paused);
    take_lsn(&r, &s.latest_end_lsn);
    if (r.status == ERR_OK)
        r.status = parse_senders(senders, &s);
    if (r.status == ERR_OK && settings != NULL) {
        r = (struct row){.result = settings};
        take_bool(&r, &s.pending_restart);
        if (str_copy(s.pending, sizeof s.pending, next(&r)) != ERR_OK)
            s.pending[0] = '\0';
        take_text(&r, s.limits, sizeof s.limits);
        pg_slots_parse(next(&r), &s);
        str_cut(s.unarchived, sizeof s.unarchived, next(&r));
    }
    if (r.status != ERR_OK)
        return r.status;
    /* No function tells the timeline being replayed: the newest of what is known. */
    if (s.in_recovery)
        timeline = MAX(s.timeline, MAX(s.control_timeline, s.received_timeline));
    s.timeline = timeline;
    if (timeline != ret->timeline)
        s.parent = s.switch_lsn = 0; /* its history file has not been read yet */
    *ret = s;
    return ERR_OK;
}

enum err pg_history_last(const char *text, uint64_t *ret_parent, uint64_t *ret_switch_lsn)
{
    bool found = false;
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (pg_history_line(line, ret_parent, ret_switch_lsn) == ERR_OK)
            found = true;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return found ? ERR_OK : ERR_INVALID;
}
