#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

/* ---- errors ---- */

int cli_exit_code(enum err code)
{
    switch (code) {
    case ERR_OK:
        return CLI_DONE;
    case ERR_OUTCOME_UNKNOWN:
        return CLI_UNKNOWN;
    case ERR_PRECONDITION:
        return CLI_REFUSED;
    case ERR_CANCELLED:
    case ERR_INVALID:
    case ERR_TIMEOUT:
    case ERR_NOT_FOUND:
    case ERR_EXISTS:
    case ERR_DENIED:
    case ERR_UNAUTHENTICATED:
    case ERR_LIMIT:
    case ERR_NO_SPACE:
    case ERR_COMPACTED:
    case ERR_UNSUPPORTED:
    case ERR_INTERNAL:
    case ERR_UNAVAILABLE:
    case ERR_CORRUPT:
    case ERR_IO:
    case ERR_COUNT:
        break;
    }
    return CLI_FAILED;
}

int cli_fail(enum err code, const char *fmt, ...)
{
    va_list ap;
    (void)fputs("regentctl: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    return cli_exit_code(code);
}

int cli_error(const struct errmsg *e)
{
    return cli_fail(e->code, "%s", e->text);
}

/* ---- connection ---- */

enum err cli_config(struct cli *c)
{
    if (c->configured)
        return ERR_OK;
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    enum err rv = config_load(config_path(c->config_path), &c->config, &report);
    (void)fwrite(report.p, 1, report.len, stderr);
    c->configured = rv == ERR_OK;
    return rv;
}

/* With -H certificates may come from the environment alone: a client machine has no regent.yml. */
static const char *file_of(const char *env, const char *configured)
{
    const char *value = getenv(env);
    return value != NULL ? value : configured;
}

static void split_hosts(char *hosts, struct client_options *o)
{
    char *save = NULL;
    for (char *h = strtok_r(hosts, ",", &save);
         h != NULL && o->n_endpoints < CLIENT_ENDPOINTS_MAX; h = strtok_r(NULL, ",", &save))
        o->endpoints[o->n_endpoints++] = h;
}

static enum err connect_hosts(struct cli *c, struct errmsg *e)
{
    bool env_only = getenv("REGENT_CACERT") != NULL && getenv("REGENT_CERT") != NULL &&
                    getenv("REGENT_KEY") != NULL;
    if (!env_only && cli_config(c) != ERR_OK)
        return err_set(e, ERR_INVALID,
                       "-H needs certificates: a configuration file, or REGENT_CACERT, "
                       "REGENT_CERT and REGENT_KEY");
    struct client_options o = {
        .ca_file = file_of("REGENT_CACERT", c->config.dcs.tls.ca),
        .cert_file = file_of("REGENT_CERT", c->config.dcs.tls.cert),
        .key_file = file_of("REGENT_KEY", c->config.dcs.tls.key),
        .name = "regentctl",
    };
    char *hosts CLEANUP(mem_cleanup) = mem_strdup(c->hosts);
    split_hosts(hosts, &o);
    return client_sync_open(&o, CLIENT_DEADLINE_MS, &c->client, e);
}

/* The members that were known when this node joined: the way when its own daemon is down. */
static enum err connect_members(struct cli *c, bool with_self, struct errmsg *e)
{
    enum { LIMIT_MS = 2000 };
    struct client_options o = {.ca_file = c->config.dcs.tls.ca,
                               .cert_file = c->config.dcs.tls.cert,
                               .key_file = c->config.dcs.tls.key,
                               .name = "regentctl"};
    if (with_self)
        o.endpoints[o.n_endpoints++] = c->config.dcs.connect_address;
    for (size_t i = 0; i < c->config.dcs.n_join && o.n_endpoints < CLIENT_ENDPOINTS_MAX; i++)
        o.endpoints[o.n_endpoints++] = c->config.dcs.join[i];
    if (o.n_endpoints == 0)
        return err_set(e, ERR_UNAVAILABLE, "no other member is known here");
    return client_sync_open(&o, LIMIT_MS, &c->client, e);
}

int cli_socket_error(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (str_copy(a.sun_path, sizeof a.sun_path, path) != ERR_OK)
        return ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rv = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    if (fd >= 0)
        (void)close(fd);
    return rv;
}

static enum err connect_local(struct cli *c, struct errmsg *e)
{
    char *socket_path CLEANUP(mem_cleanup) =
        mem_printf("unix:%s/regent.sock", c->config.data_dir);
    struct client_options o = {
        .endpoints = {socket_path}, .n_endpoints = 1, .name = "regentctl"};
    const char *path = socket_path + strlen("unix:");
    int why = cli_socket_error(path); /* the client would go on trying */
    if (why != 0)
        return err_set(e, err_from_errno(why), "%s: %s; %s", path, strerror(why),
                       why == EACCES ? "only root and the daemon's user may: use sudo"
                                     : "is regentd running on this node?");
    return client_sync_open(&o, CLIENT_DEADLINE_MS, &c->client, e);
}

enum err cli_connect(struct cli *c)
{
    struct errmsg e = {0};
    enum err rv;
    if (c->client != NULL)
        return ERR_OK;
    if (c->hosts != NULL) {
        rv = connect_hosts(c, &e);
    } else {
        rv = cli_config(c);
        if (rv != ERR_OK)
            return rv; /* reported */
        struct errmsg remote = {0};
        rv = connect_local(c, &e);
        if (rv != ERR_OK && connect_members(c, rv == ERR_DENIED, &remote) == ERR_OK)
            rv = ERR_OK;
    }
    if (rv != ERR_OK)
        (void)cli_fail(rv, "cannot reach the DCS: %s", e.text);
    return rv;
}

/* What failed for want of a quorum says so: "no answer in time" names neither reason nor remedy. */
static void blame_quorum(struct cli *c, struct errmsg *e)
{
    enum { STATUS_MS = 1000 };
    static const struct empty nothing;
    struct status_reply s;
    struct errmsg ignored;
    if (client_sync_call(c->client, METHOD_CLUSTER_STATUS, &nothing, STATUS_MS, &s, &ignored) !=
            ERR_OK ||
        s.leader[0] != '\0' || s.reachable_voters >= s.quorum)
        return;
    (void)err_set(e, e->code,
                  "no quorum: %s reaches %" PRIu64 " of %" PRIu64 " voters and %" PRIu64
                  " are needed; start regentd on the others, or mend the network to them",
                  s.name, s.reachable_voters, s.voters, s.quorum);
}

enum err cli_call(struct cli *c, enum method m, const void *params, void *ret_result)
{
    struct errmsg e = {0};
    enum err rv = cli_connect(c);
    if (rv != ERR_OK)
        return rv;
    rv = client_sync_call(c->client, m, params, CLIENT_DEADLINE_MS, ret_result, &e);
    if (rv != ERR_OK && m != METHOD_CLUSTER_STATUS)
        blame_quorum(c, &e);
    if (rv != ERR_OK)
        (void)cli_fail(rv, "%s%s", e.text,
                       rv == ERR_OUTCOME_UNKNOWN
                           ? "; it may have been applied: look before doing it again"
                           : "");
    return rv;
}

/* ---- records ---- */

void cli_key(const struct cli *c, char ret_key[static CLI_KEY_MAX], const char *name)
{
    (void)snprintf(ret_key, CLI_KEY_MAX, "/regent/%s/%s",
                   c->config.scope != NULL ? c->config.scope : "", name);
}

/* Calls cb for each pair of one reply; *ret_last is the last key, for the next page. */
static enum err each_record(const struct range_reply *reply, size_t skip, cli_record_cb *cb,
                            void *arg, struct buf *ret_last, struct errmsg *e)
{
    struct msg_iter it;
    struct kv kv;
    enum err rv = msg_iter_init(&it, reply->kvs);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_kv, &kv, e)) == ERR_OK) {
        buf_clear(ret_last);
        buf_append_slice(ret_last, kv.key);
        const char *name = buf_cstr(ret_last);
        rv = kv.key.n >= skip ? cb(arg, name + skip, &kv, e) : ERR_INTERNAL;
        if (rv != ERR_OK)
            (void)err_wrap(e, rv, "record %s", name);
    }
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

enum err cli_records(struct cli *c, const char *from, const char *to, cli_record_cb *cb,
                     void *arg)
{
    char start[CLI_KEY_MAX];
    char end[CLI_KEY_MAX];
    char scope[CLI_KEY_MAX];
    struct buf last CLEANUP(buf_close) = {.max = 65536};
    struct range_reply reply = {.more = true};
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return rv;
    cli_key(c, scope, "");
    cli_key(c, start, from);
    cli_key(c, end, to != NULL ? to : from);
    if (to == NULL)
        end[strlen(end) - 1]++;
    struct range_req req = {.key = slice_str(start), .end = slice_str(end)};
    while (rv == ERR_OK && reply.more) { /* a reply holds as much as fits into a message */
        struct errmsg e = {0};
        rv = cli_call(c, METHOD_KV_RANGE, &req, &reply);
        if (rv != ERR_OK)
            return rv; /* said */
        rv = each_record(&reply, strlen(scope) + (to == NULL ? strlen(from) : 0), cb, arg,
                         &last, &e);
        if (rv != ERR_OK)
            (void)cli_fail(rv, "%s", e.text);
        if (last.len == 0)
            break;
        buf_append_u8(&last, 0); /* the key right behind */
        req.key = slice_of(last.p, last.len);
    }
    return rv;
}

static enum err read_record(struct cli *c, const char *name, struct kv *ret)
{
    char key[CLI_KEY_MAX];
    struct range_reply reply;
    struct msg_iter it;
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return rv;
    cli_key(c, key, name);
    struct range_req req = {.key = slice_str(key)};
    rv = cli_call(c, METHOD_KV_RANGE, &req, &reply);
    if (rv == ERR_OK)
        rv = msg_iter_init(&it, reply.kvs);
    return rv == ERR_OK ? msg_iter_next(&it, &msg_kv, ret, NULL) : rv;
}

enum err cli_record(struct cli *c, const char *name, const struct msg *m, void *ret_record,
                    struct msg_arena *arena, uint64_t *ret_mod)
{
    struct kv kv;
    struct errmsg e = {0};
    memset(ret_record, 0, m->size);
    enum err rv = read_record(c, name, &kv);
    if (rv != ERR_OK)
        return rv;
    if (ret_mod != NULL)
        *ret_mod = kv.mod_revision;
    rv = msg_from_json(m, kv.value, ret_record, arena, &e);
    if (rv != ERR_OK)
        (void)cli_fail(rv, "record %s: %s", name, e.text);
    return rv;
}

enum err cli_record_text(struct cli *c, const char *name, struct buf *ret_json,
                         uint64_t *ret_mod)
{
    struct kv kv;
    enum err rv = read_record(c, name, &kv);
    if (rv != ERR_OK)
        return rv;
    *ret_mod = kv.mod_revision;
    buf_append_slice(ret_json, kv.value);
    return ERR_OK;
}

/* One operation, if the record has not changed since `mod`. */
static enum err change_record(struct cli *c, const char *name, uint64_t mod, struct txn_op op,
                              bool *ret_taken)
{
    struct buf compares CLEANUP(buf_close) = BUF_INIT;
    struct buf ops CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {0};
    struct txn_reply reply = {0};
    char key[CLI_KEY_MAX];
    cli_key(c, key, name);
    struct compare unchanged = {
        .key = slice_str(key), .target = "mod", .op = "=", .number = mod};
    op.key = slice_str(key);
    msg_list_append(&list, &msg_compare, &unchanged);
    msg_list_end(&list, &compares);
    list = (struct msg_list){0};
    msg_list_append(&list, &msg_txn_op, &op);
    msg_list_end(&list, &ops);
    struct txn_req req = {.compare = buf_slice(&compares), .then = buf_slice(&ops)};
    enum err rv = cli_call(c, METHOD_KV_TXN, &req, &reply);
    *ret_taken = rv == ERR_OK && reply.succeeded;
    return rv;
}

enum err cli_replace(struct cli *c, const char *name, uint64_t mod, struct slice json,
                     bool *ret_taken)
{
    return change_record(c, name, mod, (struct txn_op){.op = "put", .value = json}, ret_taken);
}

enum err cli_delete(struct cli *c, const char *name, uint64_t mod, bool *ret_taken)
{
    return change_record(c, name, mod, (struct txn_op){.op = "delete"}, ret_taken);
}

static void on_change(void *arg, enum err status, const struct watch_event *ev)
{
    (void)status;
    (void)ev;
    *(bool *)arg = true;
}

void cli_wait_change(struct cli *c)
{
    enum { LOOK_MS = 250 };
    char from[CLI_KEY_MAX];
    char end[CLI_KEY_MAX];
    bool stop = false;
    cli_key(c, from, "failover");
    cli_key(c, end, "sync0");
    struct watch_req r = {.key = slice_str(from), .end = slice_str(end)};
    enum err rv = client_sync_watch(c->client, &r, on_change, &stop, &stop, LOOK_MS, NULL);
    (void)rv; /* the records are read again whatever it says */
}

const char *cli_lsn(uint64_t lsn, char ret[static 24])
{
    (void)snprintf(ret, 24, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32), (uint32_t)lsn);
    return ret;
}
