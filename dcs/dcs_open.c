/* What dcs_start() checks and opens. Checks come first; what they refuse has changed nothing. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"
#include "dcs/dcs_private.h"

enum { PEM_MAX = 256 * 1024 };

static bool exists(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    bool yes = access(path, F_OK) == 0;
    mem_free(path);
    return yes;
}

/* Beside the first node's certificate, once it has bootstrapped: a node whose data is gone must not
 * found the same cluster a second time. */
static char *marker_path(const struct dcs *d)
{
    char *copy = mem_strdup(d->cert_file);
    char *path = mem_printf("%s/bootstrapped", dirname(copy));
    mem_free(copy);
    return path;
}

static bool first_node(const struct dcs *d)
{
    return strcmp(d->id.kind, "first") == 0;
}

/* ---- checks -------------------------------------------------------------------------------- */

static enum err check_identity(struct dcs *d, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    enum err err = pki_read_file(d->cert_file, PEM_MAX, &cert, e);
    if (err == ERR_OK) {
        err = pki_identity_of_pem(buf_slice(&cert), &d->id, e);
        if (err != ERR_OK)
            return err_wrap(e, err, "%s", d->cert_file);
    }
    err = err == ERR_OK ? pki_read_file(d->ca_file, PEM_MAX, &d->ca_cert, e) : err;
    if (err != ERR_OK) {
        return err;
    }
    if (d->id.member_id == 0 || (!first_node(d) && strcmp(d->id.kind, "node") != 0)) {
        return err_set(e, ERR_INVALID,
                       "%s is not the certificate of a node (its kind is \"%s\")", d->cert_file,
                       d->id.kind);
    }
    if (strcmp(d->id.name, d->name) != 0) {
        return err_set(e, ERR_INVALID,
                       "%s is the certificate of \"%s\", but this node's name is \"%s\"",
                       d->cert_file, d->id.name, d->name);
    }
    return ERR_OK;
}

static enum err read_optional(const char *path, struct buf *ret_data, struct errmsg *e)
{
    if (path == NULL || access(path, F_OK) != 0) {
        return ERR_OK;
    }
    return pki_read_file(path, PEM_MAX, ret_data, e);
}

static enum err check_directory(struct dcs *d, struct errmsg *e)
{
    struct stat st;
    if (stat(d->data_dir, &st) != 0) {
        return err_set(e, err_from_errno(errno),
                       "data_dir %s: %s; `regentctl init` or `join` makes it", d->data_dir,
                       strerror(errno));
    }
    if (!S_ISDIR(st.st_mode) || access(d->data_dir, R_OK | W_OK | X_OK) != 0) {
        return err_set(e, ERR_DENIED,
                       "data_dir %s must be a directory that this user may write", d->data_dir);
    }
    char *marker = marker_path(d);
    bool founded = access(marker, F_OK) == 0;
    mem_free(marker);
    if (exists(d->data_dir, "log.db")) {
        return ERR_OK;
    }
    if (first_node(d) && founded) {
        return err_set(e, ERR_PRECONDITION,
                       "%s founded cluster %s, and its data is gone from %s: it may neither "
                       "found it again nor return "
                       "under its old id; on another node run `regentctl member remove %s`, "
                       "then join this one anew",
                       d->name, d->id.cluster_id, d->data_dir, d->name);
    }
    if (!first_node(d) && d->n_join == 0) {
        return err_set(e, ERR_PRECONDITION,
                       "%s is empty and no member of the cluster is known to join it",
                       d->data_dir);
    }
    return ERR_OK;
}

enum err dcs_lock(const char *data_dir, int *ret_fd, struct errmsg *e)
{
    char *path = mem_printf("%s/lock", data_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    int error = errno;
    mem_free(path);
    if (locked) {
        *ret_fd = fd;
        return ERR_OK;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return error == EWOULDBLOCK ? err_set(e, ERR_EXISTS, "another regentd runs in %s", data_dir)
                                : err_set(e, err_from_errno(error), "cannot lock %s: %s",
                                          data_dir, strerror(error));
}

/* Half of it is the old cluster's, half the new one's. */
static enum err check_recovered(struct dcs *d, struct errmsg *e)
{
    return exists(d->data_dir, DCS_RECOVERING)
               ? err_set(e, ERR_PRECONDITION,
                         "a recovery in %s was interrupted: run `regentctl dcs recover` again",
                         d->data_dir)
               : ERR_OK;
}

static enum err check_quarantined(struct dcs *d, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) why = BUF_INIT;
    char *path = mem_printf("%s/" DCS_QUARANTINED, d->data_dir);
    enum err err = read_optional(path, &why, e);
    if (err == ERR_OK && why.len > 0) {
        err = err_set(e, ERR_CORRUPT, "%s is quarantined: %.*s", d->name, (int)why.len,
                      (const char *)why.p);
    }
    mem_free(path);
    return err;
}

static enum err check_sockets(struct dcs *d, struct errmsg *e)
{
    enum err err = server_bind(d->listen, d->fds, &d->n_fds, e);
    d->local_fd = d->n_fds;
    if (err != ERR_OK) {
        return err;
    }
    char *path = mem_printf("%s/regent.sock", d->data_dir);
    err = server_bind_local(path, &d->fds[d->n_fds], e);
    mem_free(path);
    if (err == ERR_OK) {
        d->local_fd = d->n_fds++;
    }
    return err;
}

enum err dcs_check(struct dcs *d, struct errmsg *e)
{
    enum err err = check_identity(d, e);
    err = err == ERR_OK
              ? pki_server_context(d->ca_file, d->cert_file, d->key_file, &d->server_ctx, e)
              : err;
    err = err == ERR_OK
              ? pki_client_context(d->ca_file, d->cert_file, d->key_file, &d->client_ctx, e)
              : err;
    err = err == ERR_OK ? read_optional(d->ca_key_file, &d->ca_key, e) : err;
    err = err == ERR_OK ? read_optional(d->secrets_file, &d->secrets, e) : err;
    err = err == ERR_OK ? check_recovered(d, e) : err;
    err = err == ERR_OK ? check_quarantined(d, e) : err;
    err = err == ERR_OK ? check_directory(d, e) : err;
    err = err == ERR_OK ? dcs_lock(d->data_dir, &d->lock_fd, e) : err;
    return err == ERR_OK ? check_sockets(d, e) : err;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* It may be installed, here or on another member: a damaged one must not be. */
static enum err check_snapshot(const struct dcs *d, struct errmsg *e)
{
    const struct raft_snapshot_info *info = &d->disk.snapshot;
    uint8_t sha256[32];
    uint64_t size = 0;
    char *path =
        mem_printf("%s/snapshot-%llu.db", d->data_dir, (unsigned long long)info->index);
    enum err err = state_file_digest(path, sha256, &size, e);
    if (err == ERR_OK && memcmp(sha256, info->sha256, sizeof sha256) != 0) {
        err = err_set(e, ERR_CORRUPT,
                      "the snapshot %s is damaged. Remove the node (`regentctl member remove "
                      "%s`) and join it again with an empty data directory",
                      path, d->name);
    }
    mem_free(path);
    return err;
}

static enum err open_log(struct dcs *d, struct errmsg *e)
{
    enum err err = log_store_open(d->data_dir, &d->log, &d->disk, e);
    return err == ERR_OK && d->disk.has_snapshot ? check_snapshot(d, e) : err;
}

struct log_opening {
    struct dcs *d;
    enum err err;
    struct errmsg e;
};

static void *open_log_beside(void *arg)
{
    struct log_opening *o = arg;
    o->err = open_log(o->d, &o->e);
    return NULL;
}

/* Each is read as a whole, one beside the other: with a full store that is most of a start. */
static enum err open_files(struct dcs *d, struct errmsg *e)
{
    struct log_opening log = {.d = d};
    struct side_work beside;
    char *path = mem_printf("%s/state.db", d->data_dir);
    state_init_library();
    side_work_start(&beside, open_log_beside, &log);
    enum err err = state_open(path, d->id.cluster_id, &d->state, e);
    side_work_end(&beside);
    mem_free(path);
    if (err == ERR_OK && log.err != ERR_OK)
        err = err_set(e, log.err, "%s", log.e.text);
    return err == ERR_OK ? log_store_check_logged(&d->disk, state_logged(d->state), e) : err;
}

static bool empty(const struct dcs *d)
{
    return d->disk.n == 0 && !d->disk.has_snapshot;
}

static enum err write_marker(const struct dcs *d, struct errmsg *e)
{
    char *marker = marker_path(d);
    enum err err = ERR_OK;
    if (access(marker, F_OK) != 0) {
        err = pki_write_file(marker, slice_str(d->id.cluster_id), 0600, true, e);
    }
    mem_free(marker);
    return err;
}

static enum err bootstrap(struct dcs *d, struct errmsg *e)
{
    struct raft_membership *m = mem_alloc(sizeof *m);
    struct buf CLEANUP(buf_close) entry = BUF_INIT;
    m->n = 1;
    m->servers[0].id = d->id.member_id;
    m->servers[0].role = RAFT_ROLE_VOTER;
    (void)snprintf(m->servers[0].address, sizeof m->servers[0].address, "%s", d->address);
    raft_core_bootstrap_entry(m, &entry);
    mem_free(m);
    enum err err = log_store_bootstrap(d->log, buf_slice(&entry), e);
    log_store_loaded(d->log);
    log_store_close(TAKE(d->log));
    err = err == ERR_OK ? open_log(d, e) : err;
    if (err == ERR_OK) {
        log_event(LOG_INFO, "bootstrap", KV(KV_STR("cluster", d->id.cluster_id)),
                  "founding a new cluster");
    }
    return err;
}

static enum err open_node(struct dcs *d, struct errmsg *e)
{
    uint64_t seed;
    rng_system(&seed, sizeof seed);
    struct node_options o = {
        .id = d->id.member_id,
        .name = d->name,
        .address = d->address,
        .role = d->role,
        .cluster_id = d->id.cluster_id,
        .election_ms = d->election_ms,
        .heartbeat_ms = d->heartbeat_ms,
        .seed = seed,
        .snapshot_every = d->snapshot_every,
        .state = d->state,
        .authority = {.scope = d->scope},
        .ops = &dcs_node_ops,
        .arg = d,
    };
    return node_new(&o, &d->node, e);
}

enum err dcs_open(struct dcs *d, struct errmsg *e)
{
    log_store_make_room(d->data_dir);
    enum err err = open_files(d, e);
    if (err == ERR_OK && first_node(d) && empty(d) && d->disk.term == 0) {
        err = bootstrap(d, e);
    }
    if (err == ERR_OK && first_node(d)) {
        err = write_marker(d, e);
    }
    if (err == ERR_OK && !first_node(d) && empty(d) && d->n_join == 0) {
        err = err_set(e, ERR_PRECONDITION,
                      "%s has no entries yet and no member of the cluster is known to join it",
                      d->data_dir);
    }
    err = err == ERR_OK ? open_node(d, e) : err;
    if (err == ERR_OK) {
        dcs_set_authority(d);
    }
    return err;
}
