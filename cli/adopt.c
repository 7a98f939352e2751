/* adopt: the data of a server that is there becomes the first node's of a new cluster. Writes what init writes, with a
 * configuration that gives the data to the cluster; the daemon takes it over. docs/decisions/0013-adoption.md */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/adopt.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "conf/dynamic.h"

struct work {
    struct setup s;
    struct adoption a;
    char *made[SETUP_SETS_MAX]; /* our --set, owned; they come before the caller's */
    size_t made_n;
    struct buf left; /* what is not carried over, with the reason, a line each */
    size_t carried, lines;
};

static void put_set(struct work *w, char *owned)
{
    if (w->made_n + w->s.sets_n < SETUP_SETS_MAX)
        w->made[w->made_n++] = owned;
    else
        mem_free(owned);
}

/* ---- what comes along ---- */

static void carry_settings(struct work *w)
{
    for (size_t i = 0; i < w->a.settings_n; i++) {
        const char *name = w->a.settings[i].key;
        const char *value = w->a.settings[i].value;
        struct errmsg e = {0};
        if (settings_is_owned(name))
            continue;
        if (settings_check_safe(name, value, &e) != ERR_OK) {
            buf_printf(&w->left, "%s\n", e.text);
            continue;
        }
        json_t *j = json_string(value);
        char *text = j != NULL ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
        json_decref(j);
        if (text == NULL) {
            buf_printf(&w->left, "%s: its value is no UTF-8\n", name);
            continue;
        }
        put_set(w, mem_printf("bootstrap.dcs.postgresql.parameters.%s=%s", name, text));
        w->carried++;
        free(text);
    }
}

static void carry_lines(struct work *w, const char *key, char *const *lines, size_t n,
                        enum err (*check)(const char *line, struct errmsg *e))
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        struct errmsg e = {0};
        enum err rv = check(lines[i], &e);
        if (rv == ERR_OK && json_array_append_new(list, json_string(lines[i])) == 0)
            w->lines++;
        else
            buf_printf(&w->left, "%s: \"%s\": %s\n", key, lines[i],
                       rv == ERR_OK ? "no UTF-8" : e.text);
    }
    char *text = json_dumps(list, JSON_COMPACT);
    if (json_array_size(list) > 0 && text != NULL)
        put_set(w, mem_printf("bootstrap.dcs.postgresql.%s=%s", key, text));
    free(text);
    json_decref(list);
}

/* The roles are ours alone: nobody's password changes. */
static void carry(struct work *w)
{
    static const char *const own[] = {
        "bootstrap.method=adopt", "postgresql.authentication.superuser.username=regent",
        "postgresql.authentication.replication.username=regent_replication",
        "postgresql.authentication.rewind.username=regent_rewind"};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        put_set(w, mem_strdup(own[i]));
    carry_settings(w);
    carry_lines(w, "pg_hba", w->a.hba, w->a.hba_n, hba_check);
    carry_lines(w, "pg_ident", w->a.ident, w->a.ident_n, ident_check);
    memmove(w->s.sets + w->made_n, w->s.sets, w->s.sets_n * sizeof w->s.sets[0]);
    for (size_t i = 0; i < w->made_n; i++)
        w->s.sets[i] = w->made[i];
    w->s.sets_n += w->made_n;
}

/* ---- checks ---- */

static enum err check_owner(const struct work *w, struct errmsg *e)
{
    const struct passwd *p = w->s.owner.packaged ? getpwnam("postgres") : NULL;
    uid_t wanted = p != NULL ? p->pw_uid : geteuid();
    if (w->a.owner == wanted)
        return ERR_OK;
    p = getpwuid(w->a.owner);
    return err_set(e, ERR_PRECONDITION,
                   "%s belongs to the user %s, as whom PostgreSQL would not run here%s",
                   w->a.data_dir, p != NULL ? p->pw_name : "?",
                   w->s.owner.packaged ? "; hand it to postgres"
                                       : ": run adopt and regentd as that user");
}

static enum err check(const struct work *w, struct errmsg *e)
{
    if (w->a.standby)
        return err_set(
            e, ERR_PRECONDITION,
            "%s is a standby's: adopt its primary; this node is cloned from it when it joins",
            w->a.data_dir);
    return check_owner(w, e);
}

/* ---- what would happen, in words ---- */

static void say_change(const char *name, const char *from, const char *to)
{
    if (strcmp(from, to) != 0)
        (void)printf("  %s: %s -> %s\n", name, from[0] != '\0' ? from : "\"\"", to);
}

/* Those that Regent sets, or gives another default, and that only a start takes. */
static void say_restart_only(const struct work *w)
{
    char port[24];
    char ours[24];
    const struct adoption *a = &w->a;
    (void)snprintf(port, sizeof port, "%" PRIu64, a->port);
    (void)snprintf(ours, sizeof ours, "%" PRIu64, w->s.pg_port);
    (void)printf("Parameters that change with the start:\n");
    say_change("listen_addresses", adoption_setting(a, "listen_addresses", "localhost"),
               w->s.host);
    say_change("port", port, ours);
    say_change("unix_socket_directories",
               adoption_setting(a, "unix_socket_directories", "/var/run/postgresql"),
               w->s.owner.packaged ? "of the service" : w->s.data_dir);
    say_change("cluster_name", adoption_setting(a, "cluster_name", ""), w->s.scope);
    say_change("wal_log_hints", a->hints ? "on" : "off", "on");
    say_change("max_wal_senders", adoption_setting(a, "max_wal_senders", "10"),
               adoption_setting(a, "max_wal_senders", "16"));
    say_change("max_replication_slots", adoption_setting(a, "max_replication_slots", "10"),
               adoption_setting(a, "max_replication_slots", "16"));
}

static void say_server(const struct work *w)
{
    const struct adoption *a = &w->a;
    (void)printf("%s: PostgreSQL %lu, system identifier %s, %s\n", a->data_dir, a->major,
                 a->system_id, a->pid != 0 ? "runs" : a->state);
    if (a->pid != 0)
        (void)printf(
            "Restart: yes. The server (process %lu) is stopped (fast) and started again by "
            "regent-fence, which can only guard what it has started itself.\n",
            a->pid);
    else
        (void)printf("Restart: no, it does not run.\n");
}

static void say_plan(const struct work *w)
{
    const struct adoption *a = &w->a;
    const char *sync = adoption_setting(a, "synchronous_standby_names", "");
    say_server(w);
    say_restart_only(w);
    (void)printf(
        "Carried into the dynamic configuration: %zu parameters, %zu lines of pg_hba and "
        "pg_ident, behind the agent's own.\n",
        w->carried, w->lines);
    if (w->left.len > 0)
        (void)printf("Not carried over:\n%s", buf_cstr((struct buf *)(uintptr_t)&w->left));
    if (sync[0] != '\0')
        (void)printf(
            "synchronous_standby_names (%s) is Regent's from then on: synchronous_mode.\n",
            sync);
    (void)printf(
        "Roles that are made: regent (superuser), regent_replication, regent_rewind; nobody's "
        "password changes.\n");
    if (!a->checksums)
        (void)printf(
            "Data checksums are off: pg_rewind works by wal_log_hints, damaged pages go "
            "unnoticed (pg_checksums --enable while it is stopped).\n");
    if (a->start_conf[0] != '\0')
        (void)printf("%s: disabled; pg_ctlcluster and the machine start it no more.\n",
                     a->start_conf);
}

/* ---- doing it ---- */

/* The first word that is no comment becomes "disabled". */
static enum err disable_start(const struct adoption *a, struct errmsg *e)
{
    char line[512];
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    FILE *f = a->start_conf[0] != '\0' ? fopen(a->start_conf, "re") : NULL;
    if (f == NULL)
        return ERR_OK; /* not of Debian, or it starts nothing */
    while (fgets(line, sizeof line, f) != NULL) {
        const char *p = line + strspn(line, " \t");
        bool word = isalpha((unsigned char)*p) != 0;
        buf_printf(&text, "%s%s", word ? "# adopted by Regent; before: " : "", line);
    }
    (void)fclose(f);
    buf_printf(&text, "disabled\n");
    f = fopen(a->start_conf, "we");
    bool ok = f != NULL && fwrite(text.p, 1, text.len, f) == text.len;
    ok = (f == NULL || fclose(f) == 0) && ok;
    return ok ? ERR_OK
              : err_set(e, err_from_errno(errno),
                        "%s: %s; write \"disabled\" there, or the machine starts the server "
                        "beside Regent",
                        a->start_conf, strerror(errno));
}

static int adopt(struct work *w, const char *file)
{
    struct errmsg e = {0};
    enum err rv = check(w, &e);
    if (rv == ERR_OK)
        rv = setup_check(&w->s, file, &e);
    if (rv != ERR_OK)
        return setup_finish(&w->s, rv, &e, file);
    say_plan(w);
    if (w->s.dry_run) {
        (void)printf("Nothing has been changed (--dry-run).\n");
        return CLI_DONE;
    }
    rv = setup_dirs(&w->s, &e);
    if (rv == ERR_OK)
        rv = setup_identity(&w->s, "first", 1, NULL, &e);
    if (rv == ERR_OK)
        rv = setup_config(&w->s, file, &e);
    if (rv == ERR_OK)
        rv = disable_start(&w->a, &e);
    return setup_finish(&w->s, rv, &e, file);
}

static int prepare(struct work *w, const char *cluster, struct errmsg *e)
{
    enum err rv = adoption_look(cluster, w->s.pg_bin, &w->a, e);
    if (rv != ERR_OK)
        return cli_fail(rv, "%s", e->text);
    w->s.pg_data = w->a.data_dir;
    w->s.pg_bin = w->a.bin_dir;
    w->s.keep_pg_data = true;
    if (!w->s.pg_port_given)
        w->s.pg_port = w->a.port;
    carry(w);
    return 0;
}

int cmd_adopt(struct cli *c, int argc, char **argv)
{
    struct work *w CLEANUP(mem_cleanup) = mem_alloc(sizeof *w);
    struct errmsg e = {0};
    const char *file = config_path(c->config_path);
    int rv = setup_parse(&w->s, file, argc, argv);
    if (rv != 0)
        return rv;
    if (optind + 1 != argc)
        return cli_usage(
            "name one cluster: VERSION/NAME as pg_lsclusters has it, or a data directory");
    if (w->s.scope == NULL || w->s.token != NULL || w->s.witness)
        return cli_usage(w->s.scope == NULL ? "--scope is missing"
                                            : "--token and --witness do not go with adopt");
    rv = prepare(w, argv[optind], &e);
    if (rv == 0)
        rv = adopt(w, file);
    adoption_close(&w->a);
    for (size_t i = 0; i < w->made_n; i++)
        mem_free(w->made[i]);
    buf_close(&w->left);
    return rv;
}
