/* Where PostgreSQL's programs are, and which they are. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/pg_text.h"
#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum { NEWEST_MAJOR = 40, OLDEST_MAJOR = 13, CONTROL_TIMEOUT_MS = 10000 };

static bool has_postgres(const char *dir)
{
    char path[FILES_PATH];
    return files_path(path, dir, "postgres", NULL) == ERR_OK && access(path, X_OK) == 0;
}

static bool find_major(unsigned long major, char ret[static WORKER_PATH])
{
    static const char *const places[] = {"/usr/lib/postgresql/%lu/bin", "/usr/pgsql-%lu/bin",
                                         "/usr/local/pgsql-%lu/bin", "/opt/postgresql/%lu/bin"};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        const char *at = strstr(places[i], "%lu");
        (void)snprintf(ret, WORKER_PATH, "%.*s%lu%s", (int)(at - places[i]), places[i], major,
                       at + 3);
        if (has_postgres(ret))
            return true;
    }
    return false;
}

static unsigned long data_major(const char *data_dir)
{
    char path[FILES_PATH];
    char text[32];
    if (files_path(path, data_dir, "PG_VERSION", NULL) != ERR_OK ||
        files_read(path, text, sizeof text, NULL) != ERR_OK)
        return 0;
    return strtoul(text, NULL, 10);
}

enum err programs_find(const struct worker_req *q, char ret[static WORKER_PATH],
                       struct errmsg *e)
{
    if (q->bin_dir[0] != '\0') {
        memcpy(ret, q->bin_dir, WORKER_PATH);
        if (has_postgres(ret))
            return ERR_OK;
        return err_set(
            e, ERR_NOT_FOUND,
            "postgresql.bin_dir %s has no program \"postgres\": correct it, or leave it "
            "out to have it found",
            q->bin_dir);
    }
    unsigned long major = data_major(q->data_dir);
    if (major != 0 && find_major(major, ret))
        return ERR_OK;
    for (unsigned long m = NEWEST_MAJOR; major == 0 && m >= OLDEST_MAJOR; m--)
        if (find_major(m, ret))
            return ERR_OK;
    (void)snprintf(ret, WORKER_PATH, "/usr/local/pgsql/bin");
    if (major == 0 && has_postgres(ret))
        return ERR_OK;
    ret[0] = '\0';
    if (major != 0)
        return err_set(e, ERR_NOT_FOUND,
                       "no programs of PostgreSQL %lu, which the data directory needs: install "
                       "them, or set postgresql.bin_dir",
                       major);
    return err_set(e, ERR_NOT_FOUND,
                   "no PostgreSQL programs found: install a server package, or set "
                   "postgresql.bin_dir");
}

enum err programs_version(struct worker *w, const char *bin_dir, char ret[static 16],
                          struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.timeout_ms = CONTROL_TIMEOUT_MS};
    ret[0] = '\0';
    enum err rv = files_path(path, bin_dir, "postgres", e);
    tool_arg(&t, path);
    tool_arg(&t, "--version");
    if (rv == ERR_OK)
        rv = tool_run(w, &t, &out, e);
    if (rv != ERR_OK)
        return rv;
    /* "postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)" */
    const char *p = strstr(buf_cstr(&out), ") ");
    size_t n = p != NULL ? strcspn(p + 2, " \n") : 0;
    if (n == 0 || str_copy_slice(ret, 16, slice_of(p + 2, n)) != ERR_OK)
        return err_set(e, ERR_INVALID, "%s --version: not understood", path);
    return ERR_OK;
}

enum err control_read(struct worker *w, const char *bin_dir, const char *data_dir,
                      struct control_data *ret, struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.timeout_ms = CONTROL_TIMEOUT_MS};
    enum err rv = files_path(path, bin_dir, "pg_controldata", e);
    if (rv != ERR_OK)
        return rv;
    tool_arg(&t, path);
    tool_arg(&t, "-D");
    tool_arg(&t, data_dir);
    rv = tool_run(w, &t, &out, e);
    if (rv != ERR_OK)
        return rv;
    if (strstr(buf_cstr(&out), "WARNING") != NULL)
        return err_set(e, ERR_CORRUPT, "the control file of %s is damaged", data_dir);
    return control_parse(buf_cstr(&out), ret, e);
}

void tool_conninfo(const struct worker_req *q, const char *dbname, struct buf *ret)
{
    char port[24];
    (void)snprintf(port, sizeof port, "%u", (unsigned)(q->port & 0xffff));
    pg_put_conninfo(ret, "host", q->host);
    pg_put_conninfo(ret, "port", q->ports[0] != '\0' ? q->ports : port);
    pg_put_conninfo(ret, "user", q->user);
    pg_put_conninfo(ret, "dbname", dbname);
    pg_put_conninfo(ret, "passfile", q->passfile);
    pg_put_conninfo(ret, "application_name", "regent");
    pg_put_conninfo(ret, "connect_timeout", "5");
    pg_put_conninfo(ret, "tcp_user_timeout", "10000");
    pg_put_conninfo(ret, "keepalives_idle", "5");
    pg_put_conninfo(ret, "keepalives_interval", "2");
    pg_put_conninfo(ret, "keepalives_count", "3");
    pg_put_conninfo(ret, "sslmode", "prefer");
    if (q->read_write)
        pg_put_conninfo(ret, "target_session_attrs", "read-write");
}
