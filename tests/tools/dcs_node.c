/* A node that is only the DCS, for tests and benches; not installed. The data directory holds pki/ as
 * well.
 *
 *     dcs_node init --dir D --name N --listen H:P            CA and certificate of a first node
 *     dcs_node join --dir D --name N --listen H:P --token T --via H:P
 *     dcs_node run  --dir D --name N --listen H:P [--join H:P]... [--election MS] [--heartbeat MS]
 *                   [--snapshot-every ENTRIES] [--archive SECONDS]
 * --connect H:P, of join and run: what others dial, when it is not what is listened on
 *     dcs_node reseal --dir D --name N --listen H:P          after state.db was changed by hand
 *
 * `run` prints "ready" when dcs_start() has returned and ends on SIGTERM. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "dcs/dcs.h"
#include "dcs/state_internal.h"
#include "proto/client.h"
#include "proto/pki.h"

enum { JOIN_PATIENCE_MS = 30000 };

struct flags {
    const char *dir, *name, *listen, *connect, *token, *via, *role;
    const char *join[DCS_JOIN_MAX];
    size_t n_join;
    uint64_t election_ms, heartbeat_ms, snapshot_every, archive_s;
};

static void die(const char *what, const struct errmsg *e)
{
    (void)fprintf(stderr, "dcs_node: %s: %s\n", what, e->text);
    exit(1);
}

static char *in_pki(const struct flags *f, const char *name)
{
    return mem_printf("%s/pki/%s", f->dir, name);
}

static void put(const struct flags *f, const char *name, struct slice data, unsigned mode)
{
    struct errmsg e;
    char *path = in_pki(f, name);
    if (pki_write_file(path, data, mode, false, &e) != ERR_OK) {
        die(path, &e);
    }
    mem_free(path);
}

static void make_dirs(const struct flags *f)
{
    char *pki = mem_printf("%s/pki", f->dir);
    struct errmsg e;
    if ((mkdir(f->dir, 0700) != 0 && errno != EEXIST) ||
        (mkdir(pki, 0700) != 0 && errno != EEXIST)) {
        (void)err_set(&e, ERR_IO, "%s", strerror(errno));
        die(pki, &e);
    }
    mem_free(pki);
}

static int init(const struct flags *f)
{
    struct errmsg e;
    struct buf ca = BUF_INIT, ca_key = BUF_INIT, csr = BUF_INIT, key = BUF_INIT,
               cert = BUF_INIT;
    struct pki_identity id = {.member_id = 1, .kind = "first"};
    uint8_t random[8];
    char host[128];
    uint16_t port;
    const char *hosts[] = {host};
    rng_system(random, sizeof random);
    hex_encode(id.cluster_id, random, sizeof random);
    make_dirs(f);
    if (str_copy(id.name, sizeof id.name, f->name) != ERR_OK ||
        str_host_port(f->listen, host, sizeof host, &port) != ERR_OK ||
        pki_ca_new(id.cluster_id, &ca, &ca_key, &e) != ERR_OK ||
        pki_csr_new(f->name, &csr, &key, &e) != ERR_OK ||
        pki_sign(buf_slice(&ca), buf_slice(&ca_key), buf_slice(&csr), &id, hosts, 1, &cert,
                 &e) != ERR_OK) {
        die("init", &e);
    }
    put(f, "ca.crt", buf_slice(&ca), 0644);
    put(f, "ca.key", buf_slice(&ca_key), 0600);
    put(f, "node.crt", buf_slice(&cert), 0644);
    put(f, "node.key", buf_slice(&key), 0600);
    buf_close(&ca);
    buf_close(&ca_key);
    buf_close(&csr);
    buf_close(&key);
    buf_close(&cert);
    return 0;
}

static int join(const struct flags *f)
{
    struct errmsg e;
    struct buf csr = BUF_INIT, key = BUF_INIT;
    struct token_redeem req = {.token = ""};
    struct token_grant *grant = mem_alloc(sizeof *grant);
    struct client_options o = {
        .endpoints = {f->via}, .n_endpoints = 1, .name = f->name, .no_session = true};
    struct pki_token token;
    struct client_sync *c = NULL;
    enum err err = pki_token_parse(f->token, &token, &e);
    o.ca_fingerprint = token.ca_fingerprint;
    err = err == ERR_OK ? pki_csr_new(f->name, &csr, &key, &e) : err;
    if (err == ERR_OK && (str_copy(req.token, sizeof req.token, f->token) != ERR_OK ||
                          str_copy(req.name, sizeof req.name, f->name) != ERR_OK ||
                          str_copy(req.address, sizeof req.address,
                                   f->connect != NULL ? f->connect : f->listen) != ERR_OK)) {
        err = err_set(&e, ERR_INVALID, "a name is too long");
    }
    req.csr = buf_slice(&csr);
    err = err == ERR_OK ? client_sync_open(&o, JOIN_PATIENCE_MS, &c, &e) : err;
    err = err == ERR_OK
              ? client_sync_call(c, METHOD_TOKEN_REDEEM, &req, JOIN_PATIENCE_MS, grant, &e)
              : err;
    if (err != ERR_OK) {
        die("join", &e);
    }
    make_dirs(f);
    put(f, "ca.crt", grant->ca, 0644);
    put(f, "node.crt", grant->cert, 0644);
    put(f, "node.key", buf_slice(&key), 0600);
    (void)printf("%llu\n", (unsigned long long)grant->member_id);
    client_sync_close(c);
    mem_free(grant);
    buf_close(&csr);
    buf_close(&key);
    return 0;
}

static int run(const struct flags *f)
{
    struct errmsg e;
    struct dcs *d = NULL;
    char *ca = in_pki(f, "ca.crt"), *cert = in_pki(f, "node.crt"), *key = in_pki(f, "node.key");
    char *ca_key = in_pki(f, "ca.key");
    struct dcs_options o = {
        .scope = "test",
        .name = f->name,
        .data_dir = f->dir,
        .listen = f->listen,
        .connect_address = f->connect,
        .role = f->role,
        .ca_file = ca,
        .cert_file = cert,
        .key_file = key,
        .ca_key_file = ca_key,
        .n_join = f->n_join,
        .election_ms = f->election_ms,
        .heartbeat_ms = f->heartbeat_ms,
        .snapshot_every = f->snapshot_every,
        .archive_interval_s = f->archive_s,
        .archive_keep = 2,
    };
    memcpy(o.join, f->join, sizeof o.join);
    sigset_t ends;
    int signal_number;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &ends, NULL);
    log_set_name(f->name);
    if (dcs_start(&o, &d, &e) != ERR_OK) {
        die("cannot start", &e);
    }
    (void)printf("ready\n");
    (void)fflush(stdout);
    (void)sigwait(&ends, &signal_number);
    dcs_stop(d);
    mem_free(ca);
    mem_free(cert);
    mem_free(key);
    mem_free(ca_key);
    return 0;
}

static int reseal(const struct flags *f)
{
    struct errmsg e;
    sqlite3 *db = NULL;
    char *path = mem_printf("%s/state.db", f->dir);
    if (sqlite3_open(path, &db) != SQLITE_OK) {
        (void)err_set(&e, ERR_IO, "%s", sqlite3_errmsg(db));
        die(path, &e);
    }
    if (hash_reseal(db, path, true, &e) != ERR_OK) {
        die(path, &e);
    }
    (void)sqlite3_close(db);
    mem_free(path);
    return 0;
}

static uint64_t number(const char *text)
{
    uint64_t v = 0;
    if (str_parse_u64(text, &v) != ERR_OK) {
        (void)fprintf(stderr, "dcs_node: %s is no number\n", text);
        exit(2);
    }
    return v;
}

static void parse(int argc, char **argv, struct flags *f)
{
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--dir", &f->dir},        {"--name", &f->name}, {"--listen", &f->listen},
                 {"--token", &f->token},    {"--via", &f->via},   {"--role", &f->role},
                 {"--connect", &f->connect}};
    for (int i = 2; i + 1 < argc; i += 2) {
        bool known = false;
        for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
            if (strcmp(argv[i], texts[k].name) == 0) {
                *texts[k].to = argv[i + 1];
                known = true;
            }
        }
        if (strcmp(argv[i], "--join") == 0 && f->n_join < DCS_JOIN_MAX) {
            f->join[f->n_join++] = argv[i + 1];
        } else if (strcmp(argv[i], "--election") == 0) {
            f->election_ms = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--heartbeat") == 0) {
            f->heartbeat_ms = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--archive") == 0) {
            f->archive_s = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--snapshot-every") == 0) {
            f->snapshot_every = number(argv[i + 1]);
        } else if (!known) {
            (void)fprintf(stderr, "dcs_node: unknown flag %s\n", argv[i]);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct flags f = {.role = "voter"};
    mem_be_frugal(); /* as regentd */
    parse(argc, argv, &f);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && f.dir != NULL && f.name != NULL && f.listen != NULL) {
        if (strcmp(argv[1], "init") == 0) {
            return init(&f);
        }
        if (strcmp(argv[1], "join") == 0 && f.token != NULL && f.via != NULL) {
            return join(&f);
        }
        if (strcmp(argv[1], "run") == 0) {
            return run(&f);
        }
        if (strcmp(argv[1], "reseal") == 0) {
            return reseal(&f);
        }
    }
    (void)fprintf(stderr,
                  "usage: dcs_node init|join|run|reseal --dir D --name N --listen H:P ...\n");
    return 2;
}
