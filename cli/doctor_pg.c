/* What doctor asks the primary: one row for each thing that is not as it should be. */
#include <inttypes.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/doctor.h"
#include "cli/pg.h"

/* Each gives rows of what is found, and is good with none. */
static const struct question {
    const char *check;
    enum doctor_level level;
    const char *good, *remedy, *sql;
} questions[] = {
    {"data safety", DOCTOR_FAIL, "fsync and full_page_writes are on",
     "`regentctl edit-config -p NAME=on`",
     "SELECT name || ' is off: a power cut destroys the data' FROM pg_settings"
     " WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"},
    {"checksums", DOCTOR_WARN, "data checksums are on",
     "pg_checksums --enable on a stopped standby, then switch over",
     "SELECT 'data checksums are off: a bad disk is not noticed' FROM pg_settings"
     " WHERE name = 'data_checksums' AND setting = 'off'"},
    {"WAL retention", DOCTOR_WARN, "no slot holds WAL back",
     "let its consumer go on, or drop the slot; set max_slot_wal_keep_size",
     "SELECT format('slot %s%s keeps %s of WAL (%s)', slot_name,"
     " CASE WHEN active THEN '' ELSE ', which nobody uses,' END,"
     " pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), wal_status)"
     " FROM pg_replication_slots WHERE wal_status IN ('unreserved', 'lost')"
     " OR pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 1073741824"},
    {"replication room", DOCTOR_WARN, "there are walsenders and slots for further standbys",
     "`regentctl edit-config -p NAME=N`: as many as nodes and eight more, then `regentctl "
     "restart`",
     "SELECT format('%s of %s of max_wal_senders are in use', count(*),"
     " current_setting('max_wal_senders')) FROM pg_stat_replication"
     " HAVING count(*) + 4 > current_setting('max_wal_senders')::int"
     " UNION ALL SELECT format('%s of %s of max_replication_slots are in use', count(*),"
     " current_setting('max_replication_slots')) FROM pg_replication_slots"
     " HAVING count(*) + 3 > current_setting('max_replication_slots')::int"},
    {"archive", DOCTOR_FAIL, "archiving works, or is off",
     "mend archive_command; WAL piles up until the disk is full",
     "SELECT format('archiving of %s failed last at %s (%s times)', last_failed_wal,"
     " last_failed_time, failed_count) FROM pg_stat_archiver WHERE last_failed_time IS NOT NULL"
     " AND (last_archived_time IS NULL OR last_failed_time > last_archived_time)"},
    {"pg_hba", DOCTOR_FAIL, "every line of pg_hba.conf is understood",
     "correct postgresql.pg_hba",
     "SELECT format('line %s: %s', line_number, error)"
     " FROM pg_hba_file_rules WHERE error IS NOT NULL"},
    {"configuration", DOCTOR_FAIL, "every setting is accepted",
     "correct it with `regentctl edit-config` or in regent.yml",
     "SELECT format('%s = %s: %s', name, setting, error) FROM pg_file_settings"
     " WHERE error IS NOT NULL AND error <> 'setting could not be applied'"},
    {"drift", DOCTOR_WARN, "nothing was set by ALTER SYSTEM",
     "ALTER SYSTEM RESET it, and use `regentctl edit-config`: other nodes do not have it",
     "SELECT format('%s = %s by ALTER SYSTEM, on this node only', name, setting)"
     " FROM pg_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"},
    {"old transactions", DOCTOR_WARN, "no transaction is older than an hour",
     "end it: pg_terminate_backend(pid); vacuum and slots wait for it",
     "SELECT format('pid %s of %s has been in a transaction for %s', pid, usename,"
     " date_trunc('second', now() - xact_start)) FROM pg_stat_activity"
     " WHERE xact_start < now() - interval '1 hour' AND backend_type = 'client backend'"},
    {"prepared transactions", DOCTOR_WARN, "no prepared transaction is older than an hour",
     "COMMIT PREPARED or ROLLBACK PREPARED it",
     "SELECT format('%s is prepared since %s', gid, date_trunc('second', prepared))"
     " FROM pg_prepared_xacts WHERE prepared < now() - interval '1 hour'"},
    {"wraparound", DOCTOR_FAIL, "transaction ids are far from wrapping around",
     "vacuum that database; see PostgreSQL's manual, routine vacuuming",
     "SELECT format('database %s is %s transactions old', datname, age(datfrozenxid))"
     " FROM pg_database WHERE age(datfrozenxid) > 1500000000"},
};

static void ask(struct doctor *d, PGconn *pg, const struct question *q)
{
    enum { ROWS_MAX = 10 };
    char why[300];
    PGresult *r = PQexec(pg, q->sql);
    int n = PQresultStatus(r) == PGRES_TUPLES_OK ? PQntuples(r) : -1;
    if (n < 0) {
        pg_error_line(PQresultErrorMessage(r), why, sizeof why);
        doctor_say(d, DOCTOR_WARN, q->check, "is the primary well?", "cannot be asked: %s",
                   why);
    } else if (n == 0) {
        doctor_say(d, DOCTOR_OK, q->check, NULL, "%s", q->good);
    }
    for (int i = 0; i < MIN(n, (int)ROWS_MAX); i++)
        doctor_say(d, q->level, q->check, q->remedy, "%s", PQgetvalue(r, i, 0));
    PQclear(r);
}

void doctor_postgres(struct doctor *d)
{
    PGconn *pg = NULL;
    if (pg_connect(d->c, &(struct pg_wanted){.role = "primary"}, &pg) != ERR_OK) {
        doctor_say(d, DOCTOR_FAIL, "PostgreSQL",
                   "does pg_hba let the superuser in from this node? see postgresql.log",
                   "the primary does not let doctor in");
        return;
    }
    PQclear(PQexec(pg, "SET statement_timeout = '5s'; SET lock_timeout = '1s'"));
    for (size_t i = 0; i < ARRAY_LEN(questions); i++)
        ask(d, pg, &questions[i]);
    PQfinish(pg);
}
