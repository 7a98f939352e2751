/* init and join: everything a node needs before regentd starts. Checks first, writes later, and takes away
 * what it wrote when it fails half-way. */
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
    {"scope", required_argument, NULL, 's'},   {"name", required_argument, NULL, 'n'},
    {"listen", required_argument, NULL, 'l'},  {"data-dir", required_argument, NULL, 'd'},
    {"pg-data", required_argument, NULL, 'D'}, {"pg-bin", required_argument, NULL, 'b'},
    {"pg-port", required_argument, NULL, 'p'}, {"rest-port", required_argument, NULL, 'r'},
    {"witness", no_argument, NULL, 'w'},       {"token", required_argument, NULL, 't'},
    {"set", required_argument, NULL, 'S'},     {NULL, 0, NULL, 0},
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
    case 'S':
        if (s->sets_n == SETUP_SETS_MAX || strchr(value, '=') == NULL)
            return cli_usage("--set takes KEY=VALUE, at most %d times", SETUP_SETS_MAX);
        s->sets[s->sets_n++] = value;
        return 0;
    case 'p':
    case 'r':
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

int setup_parse(struct setup *s, int argc, char **argv)
{
    int option;
    *s = (struct setup){.data_dir = "/var/lib/regent", .rest_port = REST_PORT, .pg_port = PG_PORT};
    optind = 1;
    while ((option = cli_option(argc, argv, setup_options)) != -1) {
        int rv = set_option(s, option, optarg);
        if (rv != 0)
            return rv;
    }
    if (s->name == NULL || s->listen == NULL)
        return cli_usage("%s is missing", s->name == NULL ? "--name" : "--listen");
    if (s->data_dir[0] != '/' || (s->pg_data != NULL && s->pg_data[0] != '/'))
        return cli_usage("--data-dir and --pg-data take absolute paths");
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
        if (version > best && str_format(path, sizeof path, "/usr/lib/postgresql/%s/bin/postgres", e->d_name) == ERR_OK &&
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
                           "no PostgreSQL server under /usr/lib/postgresql; install one (postgresql) or name its programs with --pg-bin");
        s->pg_bin = s->pg_bin_found;
        return ERR_OK;
    }
    char *postgres CLEANUP(mem_cleanup) = mem_printf("%s/postgres", s->pg_bin);
    if (access(postgres, X_OK) != 0)
        return err_set(e, ERR_NOT_FOUND, "no PostgreSQL server: %s: %s; --pg-bin names the directory with `postgres` in it",
                       postgres, strerror(errno));
    return ERR_OK;
}

static enum err check_absent(const char *path, const char *what, struct errmsg *e)
{
    if (access(path, F_OK) == 0)
        return err_set(e, ERR_EXISTS, "%s exists already: %s; this machine seems to have a node: choose another %s or remove it first",
                       what, path, what);
    return ERR_OK;
}

enum err setup_check(struct setup *s, const char *config_file, struct errmsg *e)
{
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    char *log CLEANUP(mem_cleanup) = mem_printf("%s/log.db", s->data_dir);
    enum err rv = check_postgres(s, e);
    if (rv == ERR_OK)
        rv = check_absent(config_file, "configuration file", e);
    if (rv == ERR_OK)
        rv = check_absent(pki, "certificate directory", e);
    if (rv == ERR_OK)
        rv = check_absent(log, "DCS", e);
    return rv;
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

static enum err make_dir(struct setup *s, const char *path, struct errmsg *e)
{
    char *copy CLEANUP(mem_cleanup) = mem_strdup(path);
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        bool last = *p == '\0';
        *p = '\0';
        if (mkdir(copy, last ? 0700 : 0755) == 0)
            made(s, mem_strdup(copy));
        else if (errno != EEXIST)
            return err_set(e, err_from_errno(errno), "cannot create %s: %s", copy, strerror(errno));
        if (last)
            return ERR_OK;
        *p = '/';
    }
}

enum err setup_write(struct setup *s, const char *dir, const char *name, struct slice data, unsigned mode, struct errmsg *e)
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
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    enum err rv = make_dir(s, s->data_dir, e);
    return rv == ERR_OK ? make_dir(s, pki, e) : rv;
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

static void host_port(char ret[static 300], const char *host, uint64_t port)
{
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(ret, 300, v6 ? "[%s]:%" PRIu64 : "%s:%" PRIu64, host, port);
}

/* Values given by --set land in their section: "bootstrap.dcs.ttl=10". */
static void config_sets(struct setup *s, struct buf *b, const char *section, const char *indent)
{
    size_t n = strlen(section);
    for (size_t i = 0; i < s->sets_n; i++) {
        const char *rest = s->sets[i];
        if (strncmp(rest, section, n) != 0 || rest[n] != '.' || strcspn(rest + n + 1, ".") < strcspn(rest + n + 1, "="))
            continue;
        rest += n + 1;
        size_t k = strcspn(rest, "=");
        buf_printf(b, "%s%.*s: %s\n", indent, (int)k, rest, rest + k + 1);
    }
}

static void config_text(struct setup *s, struct buf *b)
{
    char at[300];
    host_port(at, s->host, s->dcs_port);
    buf_printf(b, "# Written by regentctl; see regent.yml(5).\nscope: %s\nname: %s\ndata_dir: %s\ndcs:\n  listen: \"%s\"\n",
               s->scope, s->name, s->data_dir, at);
    buf_printf(b, "  role: %s\n", s->witness ? "witness" : s->role != NULL ? s->role : "voter");
    for (size_t i = 0; i < s->join_n; i++)
        buf_printf(b, "%s    - \"%s\"\n", i == 0 ? "  join:\n" : "", s->join[i]);
    config_sets(s, b, "dcs", "  ");
    host_port(at, s->host, s->rest_port);
    buf_printf(b, "restapi:\n  listen: \"%s\"\n", at);
    config_sets(s, b, "restapi", "  ");
    buf_printf(b, "log:\n  level: info\n");
    if (s->witness)
        return;
    buf_printf(b, "bootstrap:\n  initdb: [encoding: UTF8, data-checksums]\n  dcs:\n    ttl: 5\n");
    config_sets(s, b, "bootstrap.dcs", "    ");
    host_port(at, s->host, s->pg_port);
    buf_printf(b, "postgresql:\n  listen: \"%s\"\n", at);
    if (s->pg_data != NULL)
        buf_printf(b, "  data_dir: %s\n", s->pg_data);
    else
        buf_printf(b, "  data_dir: %s/postgres\n", s->data_dir);
    buf_printf(b, "  bin_dir: %s\n", s->pg_bin);
    config_sets(s, b, "postgresql", "  ");
    buf_printf(b, "  parameters: {");
    for (size_t i = 0; i < s->sets_n; i++) {
        static const char section[] = "postgresql.parameters.";
        if (str_starts(s->sets[i], section)) {
            const char *rest = s->sets[i] + strlen(section);
            size_t k = strcspn(rest, "=");
            buf_printf(b, "%.*s: \"%s\", ", (int)k, rest, rest + k + 1);
        }
    }
    buf_printf(b, "}\n");
}

/* Written beside, read back by the parser itself, then moved into place: never a file regentd refuses. */
enum err setup_config(struct setup *s, const char *file, struct errmsg *e)
{
    struct buf text CLEANUP(buf_close) = {.max = 65536};
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    struct config parsed;
    config_text(s, &text);
    char *dir CLEANUP(mem_cleanup) = mem_strdup(file);
    char *slash = strrchr(dir, '/');
    enum err rv = ERR_OK;
    if (slash != NULL && slash != dir) {
        *slash = '\0';
        rv = make_dir(s, dir, e);
    }
    if (rv == ERR_OK)
        rv = pki_write_file(file, buf_slice(&text), 0640, false, e);
    if (rv != ERR_OK)
        return rv;
    made(s, mem_strdup(file));
    if (config_load(file, &parsed, &report) != ERR_OK) {
        report.len -= report.len > 0; /* the last newline */
        return err_set(e, ERR_INVALID, "%s", buf_cstr(&report));
    }
    config_close(&parsed);
    return ERR_OK;
}

/* ---- init ---- */

static enum err make_identity(struct setup *s, struct errmsg *e)
{
    struct buf ca CLEANUP(buf_close) = BUF_INIT;
    struct buf ca_key CLEANUP(buf_close) = BUF_INIT;
    struct buf csr CLEANUP(buf_close) = BUF_INIT;
    struct buf key CLEANUP(buf_close) = BUF_INIT;
    struct buf cert CLEANUP(buf_close) = BUF_INIT;
    struct buf secrets CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.kind = "first", .member_id = 1};
    uint8_t random[16];
    const char *hosts[] = {s->host};
    rng_system(random, sizeof random);
    hex_encode(id.cluster_id, random, sizeof random);
    str_cut(id.name, sizeof id.name, s->name);
    enum err rv = pki_ca_new(id.cluster_id, &ca, &ca_key, e);
    if (rv == ERR_OK)
        rv = pki_csr_new(s->name, &csr, &key, e);
    if (rv == ERR_OK)
        rv = pki_sign(buf_slice(&ca), buf_slice(&ca_key), buf_slice(&csr), &id, hosts, 1, &cert, e);
    setup_secrets(&secrets);
    char *pki CLEANUP(mem_cleanup) = mem_printf("%s/pki", s->data_dir);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "ca.crt", buf_slice(&ca), 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "ca.key", buf_slice(&ca_key), 0600, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.crt", buf_slice(&cert), 0644, e);
    if (rv == ERR_OK)
        rv = setup_write(s, pki, "node.key", buf_slice(&key), 0600, e);
    if (rv == ERR_OK)
        rv = setup_write(s, s->data_dir, "secrets.yml", buf_slice(&secrets), 0600, e);
    return rv;
}

int setup_finish(struct setup *s, enum err rv, const struct errmsg *e, const char *file)
{
    if (rv != ERR_OK) {
        setup_undo(s);
        return cli_fail(rv == ERR_OUTCOME_UNKNOWN ? rv : ERR_IO, "%s", e->text);
    }
    setup_done(s);
    (void)printf("Node %s of cluster %s is ready.\nStart it: regentd -c %s\n", s->name, s->scope, file);
    return CLI_DONE;
}

int cmd_init(struct cli *c, int argc, char **argv)
{
    struct setup s;
    struct errmsg e = {0};
    const char *file = config_path(c->config_path);
    int usage = setup_parse(&s, argc, argv);
    if (usage != 0)
        return usage;
    if (optind < argc)
        return cli_usage("unexpected argument \"%s\"", argv[optind]);
    if (s.scope == NULL || s.token != NULL)
        return cli_usage(s.scope == NULL ? "--scope is missing" : "--token belongs to join");
    enum err rv = setup_check(&s, file, &e);
    if (rv == ERR_OK)
        rv = setup_dirs(&s, &e);
    if (rv == ERR_OK)
        rv = make_identity(&s, &e);
    if (rv == ERR_OK)
        rv = setup_config(&s, file, &e);
    return setup_finish(&s, rv, &e, file);
}
