#include "agent/pg_render.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "agent/pg_text.h"
#include "base/str.h"
#include "conf/dynamic.h"

enum { SOCKET_PATH_MAX = 100 };

/* Good values that a configuration may override. */
static const struct {
    const char *name;
    const char *value;
} defaults[] = {
    {"wal_level", "replica"},
    {"max_wal_senders", "16"},
    {"max_replication_slots", "16"},
    {"wal_keep_size", "256MB"},
    {"max_slot_wal_keep_size", "10GB"},
    {"password_encryption", "scram-sha-256"},
    {"wal_sender_timeout", "10s"},
    {"wal_receiver_timeout", "10s"},
    {"wal_receiver_status_interval", "1s"},
    {"hot_standby_feedback", "off"},
    {"max_standby_streaming_delay", "30s"},
    {"logging_collector", "off"},
    {"log_destination", "stderr"},
    {"log_line_prefix", "%m [%p] %q%u@%d "},
    {"timezone", "UTC"},
    {"log_timezone", "UTC"},
};

static enum err put(struct buf *out, const char *name, const char *value, struct errmsg *e)
{
    if (!pg_setting_name_ok(name))
        return err_set(e, ERR_INVALID, "no setting of PostgreSQL is called \"%.64s\"", name);
    buf_printf(out, "%s = ", name);
    enum err rv = pg_put_conf(out, value);
    if (rv != ERR_OK)
        return err_set(e, rv, "the value of %s has a line break or control character", name);
    buf_append_u8(out, '\n');
    return ERR_OK;
}

static enum err put_pairs(struct buf *out, const char *heading, const struct conf_pair *pairs,
                          size_t n, struct errmsg *e)
{
    enum err rv = ERR_OK;
    buf_printf(out, "\n# %s\n", heading);
    for (size_t i = 0; i < n && rv == ERR_OK; i++) {
        bool minimal = strcasecmp(pairs[i].key, "wal_level") == 0 &&
                       strcasecmp(pairs[i].value, "minimal") == 0;
        if (settings_is_owned(pairs[i].key) || minimal)
            buf_printf(out, "# %.63s is set below\n",
                       pg_setting_name_ok(pairs[i].key) ? pairs[i].key : "?");
        else
            rv = put(out, pairs[i].key, pairs[i].value, e);
    }
    return rv;
}

void pg_render_conninfo(const struct config *c, const struct postgres_upstream *to,
                        const char *incarnation, const char *passfile, struct buf *out)
{
    pg_put_conninfo(out, "host", to->host);
    pg_put_conninfo(out, "port", to->port);
    pg_put_conninfo(out, "user", c->postgresql.authentication.replication.username);
    pg_put_conninfo(out, "passfile", passfile);
    pg_put_conninfo(out, "application_name", incarnation);
    pg_put_conninfo(out, "dbname", "postgres"); /* for the slots that PostgreSQL synchronizes */
    pg_put_conninfo(out, "sslmode", "prefer");
    pg_put_conninfo(out, "connect_timeout", "2");
    pg_put_conninfo(out, "tcp_user_timeout", "5000");
    pg_put_conninfo(out, "keepalives_idle", "3");
    pg_put_conninfo(out, "keepalives_interval", "1");
    pg_put_conninfo(out, "keepalives_count", "3");
    if (to->read_write)
        pg_put_conninfo(out, "target_session_attrs", "read-write");
}

enum err pg_listen(const struct config *c, char *ret_host, size_t size, uint16_t *ret_port,
                   struct errmsg *e)
{
    const char *listen = c->postgresql.listen;
    if (listen == NULL || str_host_port(listen, ret_host, size, ret_port) != ERR_OK)
        return err_set(e, ERR_INVALID, "postgresql.listen: \"%.100s\" is not host:port",
                       listen != NULL ? listen : "");
    return ERR_OK;
}

/* What PostgreSQL does besides streaming from the other site. */
static enum err put_site(const struct site *s, struct buf *out, struct errmsg *e)
{
    const struct {
        const char *name;
        const char *value;
    } all[] = {
        {"restore_command", s->restore_command},
        {"archive_cleanup_command", s->archive_cleanup_command},
        {"recovery_min_apply_delay", s->recovery_min_apply_delay},
    };
    enum err rv = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(all) && rv == ERR_OK; i++)
        if (all[i].value[0] != '\0')
            rv = put(out, all[i].name, all[i].value, e);
    return rv;
}

/* The agent's own, last in the file but for the synchronous names, so that they win. */
static enum err put_owned(const struct pg_render *r, struct buf *out, struct errmsg *e)
{
    char host[256];
    char port[8];
    char retry[32];
    char token[24];
    uint16_t number = 0;
    uint64_t retry_ms = r->retry_interval_ms != 0 ? r->retry_interval_ms : 100;
    enum err rv = pg_listen(r->config, host, sizeof host, &number, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(port, sizeof port, "%u", number);
    (void)snprintf(retry, sizeof retry, "%" PRIu64 "ms", retry_ms);
    (void)snprintf(token, sizeof token, "%" PRIu64, r->follow_token);
    const struct conf_pair own[] = {
        {(char *)"listen_addresses", host},
        {(char *)"port", port},
        {(char *)"unix_socket_directories", (char *)r->socket_dir},
        {(char *)"cluster_name", r->config->scope},
        {(char *)"hot_standby", (char *)"on"},
        {(char *)"wal_log_hints", (char *)"on"},
        {(char *)"restart_after_crash", (char *)(r->strict ? "off" : "on")},
        {(char *)"recovery_target_timeline", (char *)"latest"},
        {(char *)"wal_retrieve_retry_interval", retry},
        {(char *)"primary_slot_name", (char *)(r->conninfo[0] != '\0' ? r->slot : "")},
        {(char *)"regent.upstream", (char *)r->upstream},
        {(char *)"regent.follow_token", token},
        {(char *)"primary_conninfo", (char *)r->conninfo},
    };
    buf_printf(out, "\n# the agent's\n");
    for (size_t i = 0; i < ARRAY_LEN(own) && rv == ERR_OK; i++)
        rv = put(out, own[i].key, own[i].value != NULL ? own[i].value : "", e);
    if (rv == ERR_OK && r->site != NULL)
        rv = put_site(r->site, out, e);
    if (rv == ERR_OK && r->logical_slots)
        rv = put(out, "hot_standby_feedback", "on", e);
    if (rv == ERR_OK && r->native_slots)
        rv = put(out, "sync_replication_slots", "on", e);
    if (rv == ERR_OK && r->native_slots)
        rv = put(out, "synchronized_standby_slots", r->ahead, e);
    return rv;
}

enum err pg_render_conf(const struct pg_render *r, struct buf *out, struct errmsg *e)
{
    const struct config *c = r->config;
    enum err rv = ERR_OK;
    buf_printf(out, "# Written by regentd; changes made here are lost. Settings belong into\n"
                    "# regent.yml (postgresql.parameters) or the dynamic configuration.\n"
                    "include 'postgresql.base.conf'\n\n");
    for (size_t i = 0; i < ARRAY_LEN(defaults) && rv == ERR_OK; i++)
        rv = put(out, defaults[i].name, defaults[i].value, e);
    if (rv == ERR_OK)
        rv = put_pairs(out, "dynamic configuration", r->dynamic->pairs, r->dynamic->n_pairs, e);
    if (rv == ERR_OK)
        rv = put_pairs(out, "configuration file", c->postgresql.parameters,
                       c->postgresql.n_parameters, e);
    if (rv == ERR_OK)
        rv = put_owned(r, out, e);
    buf_printf(out, "\ninclude_if_exists 'postgresql.regent-sync.conf'\n");
    return rv;
}

static void note_limit(struct pg_limits *l, const char *name, const char *value)
{
    for (size_t i = 0; i < PG_LIMITS; i++)
        if (strcasecmp(name, pg_limit_names[i]) == 0 &&
            str_parse_u64(value, &l->v[i]) != ERR_OK)
            l->v[i] = 0;
}

struct pg_limits pg_render_limits(const struct pg_render *r)
{
    struct pg_limits l = {.known = true};
    const struct config *c = r->config;
    for (size_t i = 0; i < ARRAY_LEN(defaults); i++)
        note_limit(&l, defaults[i].name, defaults[i].value);
    for (size_t i = 0; i < r->dynamic->n_pairs; i++)
        note_limit(&l, r->dynamic->pairs[i].key, r->dynamic->pairs[i].value);
    for (size_t i = 0; i < c->postgresql.n_parameters; i++)
        note_limit(&l, c->postgresql.parameters[i].key, c->postgresql.parameters[i].value);
    return l;
}

static enum err put_line(struct buf *out, const char *line,
                         enum err (*check)(const char *line, struct errmsg *e),
                         struct errmsg *e)
{
    enum err rv = check(line, e);
    if (rv == ERR_OK)
        buf_printf(out, "%s\n", line);
    return rv;
}

static enum err put_hba_user(struct buf *out, const char *type, const char *database,
                             const char *user, const char *rest, struct errmsg *e)
{
    buf_printf(out, "%s %s ", type, database);
    if (pg_put_hba(out, user != NULL ? user : "") != ERR_OK)
        return err_set(e, ERR_INVALID, "pg_hba: the user name \"%.60s\" cannot be written",
                       user != NULL ? user : "");
    buf_printf(out, " %s\n", rest);
    return ERR_OK;
}

enum err pg_render_hba(const struct pg_render *r, struct buf *out, struct errmsg *e)
{
    const struct config *c = r->config;
    const char *superuser = c->postgresql.authentication.superuser.username;
    const char *replication = c->postgresql.authentication.replication.username;
    const char *rewind = c->postgresql.authentication.rewind.username;
    buf_printf(out,
               "# Written by regentd; lines belong into regent.yml (postgresql.pg_hba).\n");
    enum err rv = put_hba_user(out, "local", "all", superuser, "scram-sha-256", e);
    if (rv == ERR_OK)
        rv = put_hba_user(out, "local", "replication", superuser, "scram-sha-256", e);
    if (rv == ERR_OK)
        rv = put_hba_user(out, "host", "replication", replication, "all scram-sha-256", e);
    if (rv == ERR_OK)
        rv = put_hba_user(out, "host", "postgres", rewind, "all scram-sha-256", e);
    if (rv == ERR_OK && r->native_slots)
        rv = put_hba_user(out, "host", "postgres", replication, "all scram-sha-256", e);
    if (r->closed)
        return rv;
    bool dynamic = r->dynamic->n_hba > 0 && c->postgresql.n_pg_hba == 0;
    char *const *lines = dynamic ? r->dynamic->hba : c->postgresql.pg_hba;
    size_t n = dynamic ? r->dynamic->n_hba : c->postgresql.n_pg_hba;
    for (size_t i = 0; i < n && rv == ERR_OK; i++)
        rv = put_line(out, lines[i], hba_check, e);
    if (n == 0)
        buf_printf(out, "local all all scram-sha-256\n"
                        "host all all samehost scram-sha-256\n"
                        "host all all samenet scram-sha-256\n");
    return rv;
}

enum err pg_render_ident(const struct pg_render *r, struct buf *out, struct errmsg *e)
{
    const struct config *c = r->config;
    bool local = c->postgresql.n_pg_ident > 0;
    char *const *lines = local ? c->postgresql.pg_ident : r->dynamic->ident;
    size_t n = local ? c->postgresql.n_pg_ident : r->dynamic->n_ident;
    enum err rv = ERR_OK;
    buf_printf(out,
               "# Written by regentd; lines belong into regent.yml (postgresql.pg_ident).\n");
    for (size_t i = 0; i < n && rv == ERR_OK; i++)
        rv = put_line(out, lines[i], ident_check, e);
    return rv;
}

enum err pg_render_sync(const char *names, struct buf *out)
{
    buf_printf(out, "# Written by regentd.\nsynchronous_standby_names = ");
    enum err rv = pg_put_conf(out, names);
    buf_append_u8(out, '\n');
    return rv;
}

static void put_pass(struct buf *out, const char *database, const struct conf_user *u)
{
    if (u->username == NULL || u->password == NULL || strpbrk(u->password, "\r\n") != NULL)
        return;
    buf_printf(out, "*:*:%s:", database);
    pg_put_passfile(out, u->username);
    buf_append_u8(out, ':');
    pg_put_passfile(out, u->password);
    buf_append_u8(out, '\n');
}

void pg_render_passfile(const struct config *c, struct buf *out)
{
    put_pass(out, "replication", &c->postgresql.authentication.replication);
    put_pass(out, "postgres", &c->postgresql.authentication.replication);
    put_pass(out, "postgres", &c->postgresql.authentication.rewind);
}

void pg_socket_dir(const char *data_dir, char ret[static PG_PATH_MAX])
{
    char real[4096];
    const char *path = realpath(data_dir, real) != NULL ? real : data_dir;
    if (strlen(path) + strlen("/.s.PGSQL.65535.lock") < SOCKET_PATH_MAX &&
        strpbrk(path, ",\"'") == NULL) {
        (void)snprintf(ret, PG_PATH_MAX, "%s", path);
        return;
    }
    uint64_t hash = 14695981039346656037U; /* FNV-1a */
    for (const char *p = path; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211U;
    (void)snprintf(ret, PG_PATH_MAX, "/tmp/.regent-%016" PRIx64, hash);
}
