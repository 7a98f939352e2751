/* What has to be done to restored data before it can become a cluster: archive recovery to its target, and a superuser
 * whose password is known. PostgreSQL runs as a child of the worker, by a configuration of its own, and nobody can
 * connect: no TCP, and the socket is in a directory of its own. docs/decisions/0012-recovery-in-a-bootstrap.md */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/pg_text.h"
#include "agent/worker/worker_locks.h"
#include "agent/worker/worker_ops.h"
#include "base/mem.h"
#include "base/str.h"

#define CONF_FILE "regent.recovery.conf"
#define HBA_FILE "regent.recovery.hba"

static bool has(const struct worker_req *q, const char *name)
{
    char path[FILES_PATH];
    return files_path(path, q->data_dir, name, NULL) == ERR_OK && files_exists(path);
}

static enum err drop(const struct worker_req *q, const char *name, struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = files_path(path, q->data_dir, name, e);
    return rv == ERR_OK ? files_remove(path, e) : rv;
}

static enum err put_file(const struct worker_req *q, const char *name, struct slice content,
                         struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = files_path(path, q->data_dir, name, e);
    return rv == ERR_OK ? files_write(path, content, 0600, e) : rv;
}

/* Fewer than the data was written with would not do for its prepared transactions and locks. */
static void put_limits(struct buf *out, const char *limits)
{
    static const char *const names[] = {"max_connections", "max_worker_processes",
                                        "max_wal_senders", "max_prepared_transactions",
                                        "max_locks_per_transaction"};
    const char *at = limits;
    for (size_t i = 0; i < ARRAY_LEN(names) && *at != '\0'; i++) {
        size_t n = strcspn(at, "/");
        buf_printf(out, "%s = '%.*s'\n", names[i], (int)n, at);
        at += n + (at[n] == '/');
    }
}

/* The program's own settings count only where they are to be kept; those of the file that is asked for come behind. */
static enum err put_conf(struct worker *w, const struct worker_req *q, const char *bin_dir,
                         struct errmsg *e)
{
    struct control_data c;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv != ERR_OK)
        return rv;
    if (q->keep_recovery)
        buf_printf(&b, "include_if_exists 'postgresql.conf'\n");
    put_limits(&b, c.limits);
    buf_append_slice(&b, q->recovery);
    rv = put_file(q, CONF_FILE, buf_slice(&b), e);
    return rv == ERR_OK ? put_file(q, HBA_FILE, slice_str("local all all reject\n"), e) : rv;
}

/* Line 8 of postmaster.pid says "ready" when recovery has ended: without hot standby nobody is let in before. */
static void stop_when_ready(void *arg)
{
    const struct worker_req *q = arg;
    char path[FILES_PATH];
    char text[2048];
    if (files_path(path, q->data_dir, "postmaster.pid", NULL) != ERR_OK ||
        files_read(path, text, sizeof text, NULL) != ERR_OK)
        return;
    const char *line = text;
    for (size_t i = 0; i < 7 && line != NULL; i++) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    long pid = strtol(text, NULL, 10);
    if (line != NULL && str_starts(line, "ready") && pid > 1)
        (void)kill((pid_t)pid, SIGINT);
}

static enum err run_server(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           const char *socket_dir, struct errmsg *e)
{
    char path[FILES_PATH];
    char lock[FILES_PATH];
    struct tool t = {.look = stop_when_ready, .arg = (void *)(uintptr_t)q};
    enum err rv = files_path(path, bin_dir, "postgres", e);
    if (rv == ERR_OK)
        rv = files_path(lock, q->data_dir, "postmaster.pid", e);
    if (rv != ERR_OK)
        return rv;
    locks_remove_dead(lock, q->data_dir); /* of the server that was copied */
    char *conf CLEANUP(mem_cleanup) = mem_printf("config_file=%s/" CONF_FILE, q->data_dir);
    char *hba CLEANUP(mem_cleanup) = mem_printf("hba_file=%s/" HBA_FILE, q->data_dir);
    char *ident CLEANUP(mem_cleanup) =
        mem_printf("ident_file=%s/" HBA_FILE ".ident", q->data_dir);
    char *socket CLEANUP(mem_cleanup) = mem_printf("unix_socket_directories=%s", socket_dir);
    const char *args[] = {path, "-D", q->data_dir, "-c", conf, "-c", hba, "-c", ident, "-c",
                          socket, "-c", "listen_addresses=", "-c", "port=5432", "-c",
                          "hot_standby=off", "-c", "recovery_target_action=promote", "-c",
                          "primary_conninfo=", "-c", "synchronous_standby_names=", "-c",
                          "logging_collector=off", "-c", "log_destination=stderr", "-c",
                          "ssl=off", "-c", "external_pid_file=",
                          /* the history file is archived when the cluster runs */
                          "-c", "archive_mode=on", "-c", "archive_command=/bin/false"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    return tool_run(w, &t, NULL, e);
}

static enum err recovered(struct worker *w, const struct worker_req *q, const char *bin_dir,
                          struct errmsg *e)
{
    struct control_data c;
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK && strcmp(c.state, "shut down") != 0)
        rv = err_set(e, ERR_PRECONDITION, "recovery ended in the state \"%s\"", c.state);
    return rv;
}

static enum err tidy(const struct worker_req *q, struct errmsg *e)
{
    enum err rv = drop(q, CONF_FILE, e);
    return rv == ERR_OK ? drop(q, HBA_FILE, e) : rv;
}

enum err recover_to_target(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           struct errmsg *e)
{
    char dir[] = "/tmp/.regent-XXXXXX";
    bool wanted = q->recovery.n > 0 ||
                  (q->keep_recovery && (has(q, "recovery.signal") || has(q, SIGNAL_FILE)));
    enum err rv = q->keep_recovery ? ERR_OK : auto_conf_purge(q, e);
    if (rv == ERR_OK)
        rv = drop(q, SIGNAL_FILE, e);
    if (rv == ERR_OK && !wanted)
        rv = drop(q, "recovery.signal", e);
    if (rv != ERR_OK || !wanted)
        return rv;
    rv = put_conf(w, q, bin_dir, e);
    if (rv == ERR_OK)
        rv = put_file(q, "recovery.signal", slice_of(NULL, 0), e);
    if (rv != ERR_OK)
        return rv;
    if (mkdtemp(dir) == NULL)
        return err_set(e, err_from_errno(errno), "make %s: %s", dir, strerror(errno));
    rv = run_server(w, q, bin_dir, dir, e);
    (void)rmdir(dir);
    if (rv == ERR_OK)
        rv = recovered(w, q, bin_dir, e);
    return rv == ERR_OK ? tidy(q, e) : err_wrap(e, rv, "recovery of the restored data");
}

/* One statement a line; a failed one ends nothing, so that the last says what has come of it. */
static enum err role_sql(const struct worker_req *q, struct buf *out, struct errmsg *e)
{
    struct buf ident CLEANUP(buf_close) = BUF_INIT;
    struct buf name CLEANUP(buf_close) = BUF_INIT;
    struct buf password CLEANUP(buf_close) = BUF_INIT;
    char *text CLEANUP(mem_cleanup) = mem_dup(q->password.p, q->password.n);
    if (q->password.n == 0 || q->password.n > 400 || strpbrk(text, "\r\n") != NULL ||
        strpbrk(q->user, "\r\n") != NULL)
        return err_set(e, ERR_INVALID, "the superuser's name or password cannot be set");
    pg_put_ident(&ident, q->user);
    pg_put_literal(&name, q->user);
    pg_put_literal(&password, text);
    buf_printf(out,
               "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE "
               "ROLE %s; END IF; END$$\n"
               "ALTER ROLE %s LOGIN SUPERUSER PASSWORD %s\n",
               buf_cstr(&name), buf_cstr(&ident), buf_cstr(&ident), buf_cstr(&password));
    explicit_bzero(text, strlen(text));
    explicit_bzero(password.p, password.len);
    return ERR_OK;
}

enum err superuser_set(struct worker *w, const struct worker_req *q, const char *bin_dir,
                       struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    struct buf said CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.timeout_ms = 0};
    enum err rv = put_conf(w, q, bin_dir, e);
    if (rv == ERR_OK)
        rv = role_sql(q, &sql, e);
    if (rv == ERR_OK)
        rv = files_path(path, bin_dir, "postgres", e);
    if (rv != ERR_OK)
        return rv;
    char *conf CLEANUP(mem_cleanup) = mem_printf("config_file=%s/" CONF_FILE, q->data_dir);
    const char *args[] = {path,       "--single",
                          "-D",       q->data_dir,
                          "-c",       conf,
                          "-c",       "archive_mode=off",
                          "-c",       "synchronous_standby_names=",
                          "-c",       "password_encryption=scram-sha-256",
                          "-c",       "logging_collector=off",
                          "-c",       "log_destination=stderr",
                          "-c",       "log_min_error_statement=panic",
                          "-c",       "log_statement=none",
                          "-c",       "default_transaction_read_only=off",
                          "template1"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    t.input = buf_slice(&sql);
    rv = tool_run(w, &t, &said, e);
    explicit_bzero(sql.p, sql.len);
    if (rv == ERR_OK && strstr(buf_cstr(&said), "ERROR:") != NULL)
        rv = err_set(e, ERR_PRECONDITION, "%.300s", strstr(buf_cstr(&said), "ERROR:"));
    return rv == ERR_OK ? tidy(q, e) : err_wrap(e, rv, "password of the superuser");
}
