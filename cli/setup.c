/* What init and join share: options, checks before anything is written, writing, and taking away what
 * was written when it fails half-way. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/setup.h"

enum { DCS_PORT = 7400, REST_PORT = 8008, PG_PORT = 5432, PASSWORD_BYTES = 24 };

/* ---- options ---- */

static const struct option setup_options[] = {
    {"scope", required_argument, NULL, 's'},
    {"name", required_argument, NULL, 'n'},
    {"listen", required_argument, NULL, 'l'},
    {"data-dir", required_argument, NULL, 'd'},
    {"pg-data", required_argument, NULL, 'D'},
    {"pg-bin", required_argument, NULL, 'b'},
    {"pg-port", required_argument, NULL, 'p'},
    {"rest-port", required_argument, NULL, 'r'},
    {"witness", no_argument, NULL, 'w'},
    {"token", required_argument, NULL, 't'},
    {"set", required_argument, NULL, 'S'},
    {"dry-run", no_argument, NULL, 'N'},
    {"standby-of", required_argument, NULL, 'o'},
    {"secrets", required_argument, NULL, 'x'},
    {NULL, 0, NULL, 0},
};

static bool parse_port(const char *text, uint64_t *ret)
{
    return str_parse_u64(text, ret) == ERR_OK && *ret > 0 && *ret < 65536;
}

static int set_option(struct setup *s, int option, const char *value)
{
    switch (option) {
    case 's':
        s->scope = value;
        return 0;
    case 'n':
        s->name = value;
        return 0;
    case 'l':
        s->listen = value;
        return 0;
    case 'd':
        s->data_dir = value;
        return 0;
    case 'D':
        s->pg_data = value;
        return 0;
    case 'b':
        s->pg_bin = value;
        return 0;
    case 't':
        s->token = value;
        return 0;
    case 'w':
        s->witness = true;
        return 0;
    case 'N':
        s->dry_run = true;
        return 0;
    case 'o':
        s->standby_of = value;
        return 0;
    case 'x':
        s->secrets = value;
        return 0;
    case 'S':
        if (s->sets_n == SETUP_SETS_MAX || strchr(value, '=') == NULL)
            return cli_usage("--set takes KEY=VALUE, at most %d times", SETUP_SETS_MAX);
        s->sets[s->sets_n++] = value;
        return 0;
    case 'p':
    case 'r':
        s->pg_port_given = s->pg_port_given || option == 'p';
        if (!parse_port(value, option == 'p' ? &s->pg_port : &s->rest_port))
            return cli_usage("\"%s\" is not a port (1 to 65535)", value);
        return 0;
    default:
        return CLI_USAGE; /* said already */
    }
}

static int split_listen(struct setup *s)
{
    uint16_t port = 0;
    s->dcs_port = DCS_PORT;
    if (str_host_port(s->listen, s->host, sizeof s->host, &port) == ERR_OK) {
        s->dcs_port = port;
        return 0;
    }
    const char *bare = s->listen;
    size_t n = strlen(bare);
    struct slice host = slice_str(bare);
    if (n > 2 && bare[0] == '[' && bare[n - 1] == ']')
        host = slice_of(bare + 1, n - 2);
    else if (strchr(bare, ':') != NULL && strchr(bare, ':') == strrchr(bare, ':'))
        return cli_usage("--listen: \"%s\" is not HOST or HOST:PORT", bare);
    if (n == 0 || str_copy_slice(s->host, sizeof s->host, host) != ERR_OK)
        return cli_usage("--listen: \"%s\" is not HOST or HOST:PORT", bare);
    return 0;
}

/* /etc/regent/NAME.yml is of regent@NAME.service: it has directories of its own. */
static void default_dirs(struct setup *s, const char *config_file)
{
    char instance[128];
    setup_instance(config_file, instance, sizeof instance);
    const char *dash = instance[0] != '\0' ? "-" : "";
    (void)snprintf(s->data_dir_default, sizeof s->data_dir_default, "/var/lib/regent%s%s", dash,
                   instance);
    s->data_dir = s->data_dir_default;
}

/* Beside Debian's own clusters, where PostgreSQL's user may write; below data_dir when that is its own. */
static void default_pg_data(struct setup *s)
{
    size_t n = strlen(s->data_dir);
    while (n > 1 && s->data_dir[n - 1] == '/')
        n--;
    size_t name = n;
    while (name > 1 && s->data_dir[name - 1] != '/')
        name--;
    if (s->owner.packaged)
        (void)snprintf(s->pg_data_default, sizeof s->pg_data_default,
                       "/var/lib/postgresql/%.*s", (int)(n - name), s->data_dir + name);
    else
        (void)snprintf(s->pg_data_default, sizeof s->pg_data_default, "%s/postgres",
                       s->data_dir);
    if (s->pg_data == NULL)
        s->pg_data = s->pg_data_default;
}

static int check_options(const struct setup *s, const char *command)
{
    bool site = s->standby_of != NULL || s->secrets != NULL;
    if (site && strcmp(command, "init") != 0)
        return cli_usage("--standby-of and --secrets belong to init");
    if (s->standby_of != NULL && s->secrets == NULL)
        return cli_usage("--standby-of takes --secrets FILE: the other site's secrets.yml, for "
                         "its passwords come with its data");
    if (s->dry_run && strcmp(command, "adopt") != 0)
        return cli_usage("--dry-run belongs to adopt");
    if (s->name == NULL || s->listen == NULL)
        return cli_usage("%s is missing", s->name == NULL ? "--name" : "--listen");
    return 0;
}

int setup_parse(struct setup *s, const char *config_file, int argc, char **argv)
{
    int option;
    *s = (struct setup){.rest_port = REST_PORT, .pg_port = PG_PORT};
    setup_owner_find(config_file, &s->owner);
    default_dirs(s, config_file);
    optind = 1;
    while ((option = cli_option(argc, argv, setup_options)) != -1) {
        int rv = set_option(s, option, optarg);
        if (rv != 0)
            return rv;
    }
    int usage = check_options(s, argv[0]);
    if (usage != 0)
        return usage;
    if (s->data_dir[0] != '/' || (s->pg_data != NULL && s->pg_data[0] != '/'))
        return cli_usage("--data-dir and --pg-data take absolute paths");
    default_pg_data(s);
    return split_listen(s);
}

/* ---- checks ---- */

/* The newest /usr/lib/postgresql/N/bin with a server in it. */
bool setup_find_postgres(char *ret, size_t size)
{
    unsigned long best = 0;
    DIR *d = opendir("/usr/lib/postgresql");
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        char path[512];
        unsigned long version = strtoul(e->d_name, NULL, 10);
        if (version > best &&
            str_format(path, sizeof path, "/usr/lib/postgresql/%s/bin/postgres", e->d_name) ==
                ERR_OK &&
            access(path, X_OK) == 0) {
            best = version;
            path[strlen(path) - strlen("/postgres")] = '\0';
            if (str_copy(ret, size, path) != ERR_OK)
                best = 0;
        }
    }
    if (d != NULL)
        (void)closedir(d);
    return best != 0;
}

static enum err check_postgres(struct setup *s, struct errmsg *e)
{
    if (s->witness)
        return ERR_OK;
    if (s->pg_bin == NULL) {
        if (!setup_find_postgres(s->pg_bin_found, sizeof s->pg_bin_found))
            return err_set(e, ERR_NOT_FOUND,
                           "no PostgreSQL server under /usr/lib/postgresql; install one "
                           "(postgresql) or name its programs with --pg-bin");
        s->pg_bin = s->pg_bin_found;
        return ERR_OK;
    }
    char *postgres CLEANUP(mem_cleanup) = mem_printf("%s/postgres", s->pg_bin);
    if (access(postgres, X_OK) != 0)
        return err_set(
            e, ERR_NOT_FOUND,
            "no PostgreSQL server: %s: %s; --pg-bin names the directory with `postgres` in it",
            postgres, strerror(errno));
    return ERR_OK;
}

static enum err check_absent(const char *path, const char *option, struct errmsg *e)
{
    if (access(path, F_OK) == 0)
        return err_set(e, ERR_EXISTS,
                       "%s exists already: there is a node here; remove it first, or name "
                       "another place with %s",
                       path, option);
    return ERR_OK;
}

/* A node gets its data from initdb or from the leader: what is there already is somebody's. */
static enum err check_pg_data(const struct setup *s, struct errmsg *e)
{
    DIR *d = s->witness || s->keep_pg_data ? NULL : opendir(s->pg_data);
    bool empty = true;
    for (struct dirent *x = d != NULL ? readdir(d) : NULL; x != NULL && empty; x = readdir(d))
        empty = strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0;
    if (d != NULL)
        (void)closedir(d);
    char *found CLEANUP(mem_cleanup) = mem_printf("%s/lost+found", s->pg_data);
    if (d != NULL && access(found, F_OK) == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s has lost+found in it, which nobody could copy it with: name a "
                       "subdirectory of it with --pg-data",
                       s->pg_data);
    return empty ? ERR_OK
                 : err_set(e, ERR_EXISTS,
                           "%s is not empty: data of another cluster is never taken over or "
                           "overwritten; move it away, or name another place with --pg-data",
                           s->pg_data);
}

/* Everything that can be known to be wrong before the first byte is written. */
enum err setup_check(struct setup *s, const char *config_file, struct errmsg *e)
{
    static const char *const leftovers[] = {"pki", "log.db", "state.db", "secrets.yml"};
    struct buf text CLEANUP(buf_close) = {.max = 65536};
    struct setup look = *s;
    enum err rv = check_postgres(s, e);
    if (rv == ERR_OK)
        rv = check_pg_data(s, e);
    if (rv == ERR_OK)
        rv = check_absent(config_file, "-c FILE", e);
    for (size_t i = 0; i < ARRAY_LEN(leftovers) && rv == ERR_OK; i++) {
        char *path CLEANUP(mem_cleanup) = mem_printf("%s/%s", s->data_dir, leftovers[i]);
        rv = check_absent(path, "--data-dir", e);
    }
    look.pg_bin = s->pg_bin;
    look.scope = s->scope != NULL ? s->scope : "unknown"; /* a joining node hears it later */
    return rv == ERR_OK ? setup_config_text(&look, &text, e) : rv;
}

/* ---- writing, with undo ---- */

static void made(struct setup *s, char *path)
{
    if (s->made_n < ARRAY_LEN(s->made))
        s->made[s->made_n++] = path;
    else
        mem_free(path);
}

void setup_undo(struct setup *s)
{
    while (s->made_n > 0) {
        char *path = s->made[--s->made_n];
        (void)remove(path);
        mem_free(path);
    }
}

void setup_done(struct setup *s)
{
    while (s->made_n > 0)
        mem_free(s->made[--s->made_n]);
}

/* What lies above the last one may be read by all. */
static enum err make_dir(struct setup *s, const char *path, bool *ret_made, struct errmsg *e)
{
    char *copy CLEANUP(mem_cleanup) = mem_strdup(path);
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        bool last = *p == '\0';
        *p = '\0';
        *ret_made = mkdir(copy, last ? 0700 : 0755) == 0;
        if (*ret_made)
            made(s, mem_strdup(copy));
        else if (errno != EEXIST)
            return err_set(e, err_from_errno(errno), "cannot create %s: %s", copy,
                           strerror(errno));
        if (last)
            return ERR_OK;
        *p = '/';
    }
}

static enum err hand_over(const char *path, uid_t uid, gid_t gid, mode_t mode, struct errmsg *e)
{
    return lchown(path, uid, gid) == 0 && chmod(path, mode) == 0
               ? ERR_OK
               : err_set(e, err_from_errno(errno), "cannot hand %s over: %s", path,
                         strerror(errno));
}

static enum err write_as_we_are(struct setup *s, const char *dir, const char *name,
                                struct slice data, unsigned mode, struct errmsg *e)
{
    char *path = mem_printf("%s/%s", dir, name);
    enum err rv = pki_write_file(path, data, mode, false, e);
    if (rv == ERR_OK)
        made(s, path);
    else
        mem_free(path);
    return rv;
}

enum err setup_dirs(struct setup *s, struct errmsg *e)
{
    bool fresh = false;
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    enum err rv = make_dir(s, s->data_dir, &fresh, e);
    if (rv == ERR_OK && fresh && s->owner.packaged)
        rv = hand_over(s->data_dir, s->owner.uid, s->owner.gid, 0700, e);
    setup_become(&s->owner, true);
    if (rv == ERR_OK)
        rv = make_dir(s, pki, &fresh, e);
    setup_become(&s->owner, false);
    return rv;
}

enum err setup_write(struct setup *s, const char *dir, const char *name, struct slice data,
                     unsigned mode, struct errmsg *e)
{
    setup_become(&s->owner, true);
    enum err rv = write_as_we_are(s, dir, name, data, mode, e);
    setup_become(&s->owner, false);
    return rv;
}

void setup_secrets(struct buf *ret)
{
    static const char *const roles[] = {"superuser", "replication", "rewind"};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        uint8_t random[PASSWORD_BYTES];
        char hex[2 * PASSWORD_BYTES + 1];
        rng_system(random, sizeof random);
        hex_encode(hex, random, sizeof random);
        buf_printf(ret, "%s: \"%s\"\n", roles[i], hex);
    }
}

/* The configuration stays root's; the daemon's group may read it. */
static enum err write_config(struct setup *s, const char *dir, const char *name,
                             struct slice text, struct errmsg *e)
{
    char *path CLEANUP(mem_cleanup) = mem_printf("%s/%s", dir, name);
    enum err rv = write_as_we_are(s, dir, name, text, 0640, e);
    return rv == ERR_OK && s->owner.packaged ? hand_over(path, 0, s->owner.gid, 0640, e) : rv;
}

enum err setup_config(struct setup *s, const char *file, struct errmsg *e)
{
    struct buf text CLEANUP(buf_close) = {.max = 65536};
    char *dir CLEANUP(mem_cleanup) = mem_strdup(file);
    char *slash = strrchr(dir, '/');
    bool fresh = false;
    enum err rv = setup_config_text(s, &text, e);
    if (rv == ERR_OK && slash != NULL && slash != dir) {
        *slash = '\0';
        rv = make_dir(s, dir, &fresh, e);
        if (rv == ERR_OK && fresh && s->owner.packaged)
            rv = hand_over(dir, 0, s->owner.gid, 0750, e);
    }
    if (rv != ERR_OK)
        return rv;
    return slash != NULL ? write_config(s, dir, slash + 1, buf_slice(&text), e)
                         : write_config(s, ".", file, buf_slice(&text), e);
}

static void say_start(const struct setup *s, const char *file)
{
    char instance[128];
    setup_instance(file, instance, sizeof instance);
    if (s->owner.packaged)
        (void)printf("systemctl start regent%s%s\n", instance[0] != '\0' ? "@" : "", instance);
    else
        (void)printf("regentd -c %s\n", file);
}

int setup_finish(struct setup *s, enum err rv, const struct errmsg *e, const char *file)
{
    if (rv != ERR_OK) {
        setup_undo(s);
        return cli_fail(rv == ERR_OUTCOME_UNKNOWN || rv == ERR_PRECONDITION ? rv : ERR_IO, "%s",
                        e->text);
    }
    setup_done(s);
    (void)printf("Node %s of cluster %s is ready.\nStart it: ", s->name, s->scope);
    say_start(s, file);
    return CLI_DONE;
}
