/* demo status, demo psql: looking at it and working with it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/demo.h"
#include "cli/setup.h"

enum { NUMBER = 24 };

static const json_t *row_of(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)list, i, row)
    {
        const char *member = json_string_value(json_object_get(row, "Member"));
        if (member != NULL && strcmp(member, name) == 0)
            return row;
    }
    return NULL;
}

static const char *number(char ret[static NUMBER], int64_t value, bool shown)
{
    (void)snprintf(ret, NUMBER, "%" PRId64, value);
    return shown ? ret : NULL;
}

static void status_row(struct demo *d, struct output *o, const struct demo_node *n,
                       const json_t *row)
{
    char tl[NUMBER];
    char daemon[NUMBER];
    char postmaster[NUMBER];
    pid_t regentd = demo_find(d, n, "regentd");
    pid_t postgres = demo_find(d, n, "postgres");
    const char *state = json_string_value(json_object_get(row, "State"));
    const json_t *timeline = json_object_get(row, "TL");
    if (regentd == 0 && row == NULL)
        state = "dead";
    output_row(o, (const char *[]){n->name, json_string_value(json_object_get(row, "Host")),
                                   json_string_value(json_object_get(row, "Role")),
                                   state != NULL ? state : "starting",
                                   number(tl, json_integer_value(timeline), timeline != NULL),
                                   number(daemon, regentd, regentd != 0),
                                   number(postmaster, postgres, postgres != 0)});
}

static bool has_leader(const json_t *list)
{
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)list, i, row)
    {
        const char *role = json_string_value(json_object_get(row, "Role"));
        if (role != NULL && strcmp(role, "Leader") == 0)
            return true;
    }
    return false;
}

int cmd_demo_status(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "Member"},
        {.name = "Host"},
        {.name = "Role"},
        {.name = "State"},
        {.name = "TL", .number = true, .right = true},
        {.name = "regentd", .number = true, .right = true},
        {.name = "postgres", .number = true, .right = true}};
    struct demo d;
    struct buf complaints CLEANUP(buf_close) = {.max = 65536};
    json_t *list = NULL;
    int rv = demo_open(&d, c, argc, argv, true);
    if (rv == 0 && d.rest_n > 0)
        rv = cli_usage("unexpected argument \"%s\"", d.rest[0]);
    if (rv != 0)
        return rv;
    (void)demo_list(&d, &list, &complaints);
    struct output *o = output_new(c, d.dir, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d.node[i].exists)
            status_row(&d, o, &d.node[i], row_of(list, d.node[i].name));
    output_print(o);
    if (!has_leader(list))
        rv = complaints.len > 0
                 ? (fwrite(complaints.p, 1, complaints.len, stderr), CLI_FAILED)
                 : cli_fail(ERR_UNAVAILABLE, "no node answers that knows a leader; `regentctl "
                                             "demo up` starts what is dead");
    json_decref(list);
    return rv;
}

/* ---- psql ---- */

struct hosts {
    struct buf host, port;
    char user[64];
    char psql[512];
};

static enum err take_node(struct demo *d, const struct demo_node *n, struct hosts *h,
                          struct errmsg *e)
{
    struct config config;
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    char host[256];
    char secrets[DEMO_PATH_MAX + 16];
    uint16_t port = 0;
    if (config_load(n->config, &config, &report) != ERR_OK)
        return err_set(e, ERR_INVALID, "%s", buf_cstr(&report));
    (void)snprintf(secrets, sizeof secrets, "%s/secrets.yml", n->dir);
    enum err rv = config_load_secrets(&config, secrets, e);
    if (rv == ERR_OK)
        rv = str_host_port(config.postgresql.connect_address, host, sizeof host, &port);
    if (rv == ERR_OK) {
        buf_printf(&h->host, "%s%s", h->host.len > 0 ? "," : "", host);
        buf_printf(&h->port, "%s%u", h->port.len > 0 ? "," : "", (unsigned)port);
        str_cut(h->user, sizeof h->user, config.postgresql.authentication.superuser.username);
        (void)setenv("PGPASSWORD", config.postgresql.authentication.superuser.password, 1);
        /* As root only programs of the system: the file is an ordinary user's. */
        if (geteuid() != 0 && config.postgresql.bin_dir[0] != '\0')
            (void)snprintf(h->psql, sizeof h->psql, "%.500s/psql", config.postgresql.bin_dir);
    }
    (void)d;
    config_close(&config);
    return rv;
}

/* Everything by the environment: psql's own options win over it, and no password is in its arguments. */
static void set_environment(struct hosts *h)
{
    (void)setenv("PGHOST", buf_cstr(&h->host), 1);
    (void)setenv("PGPORT", buf_cstr(&h->port), 1);
    (void)setenv("PGUSER", h->user, 1);
    (void)setenv("PGDATABASE", "postgres", 1);
    (void)setenv("PGTARGETSESSIONATTRS", "read-write", 1);
    (void)setenv("PGCONNECT_TIMEOUT", "2", 1);
    (void)unsetenv("PGHOSTADDR");
    (void)unsetenv("PGSERVICE");
}

static NORETURN void exec_psql(const struct demo *d, struct hosts *h)
{
    char **argv = mem_array((size_t)d->rest_n + 2, sizeof *argv);
    argv[0] = (char *)(uintptr_t) "psql";
    for (int i = 0; i < d->rest_n; i++)
        argv[i + 1] = d->rest[i];
    if (h->psql[0] == '\0' || access(h->psql, X_OK) != 0) {
        char bin[480];
        if (setup_find_postgres(bin, sizeof bin))
            (void)snprintf(h->psql, sizeof h->psql, "%s/psql", bin);
    }
    (void)execv(h->psql, argv);
    (void)execvp("psql", argv);
    exit(cli_fail(ERR_NOT_FOUND, "cannot run psql: %s; install it (postgresql-client)",
                  strerror(errno)));
}

int cmd_demo_psql(struct cli *c, int argc, char **argv)
{
    struct demo d;
    struct hosts h = {0};
    struct errmsg e = {0};
    int rv = demo_open(&d, c, argc, argv, true);
    if (rv != 0)
        return rv;
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d.node[i].exists && take_node(&d, &d.node[i], &h, &e) != ERR_OK)
            return cli_error(&e);
    if (h.host.len == 0)
        return cli_fail(
            ERR_NOT_FOUND,
            "the demo cluster in %s has no node; make it with `%s demo up --dir %s`", d.dir,
            d.typed, d.dir);
    set_environment(&h);
    exec_psql(&d, &h);
}
