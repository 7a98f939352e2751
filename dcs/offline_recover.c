/* `regentctl dcs recover`: this node alone becomes a new cluster, out of what it has.
 *
 * Everything is made in the working directory first. From the moment the mark DCS_RECOVERING is there
 * the change of files goes on whenever it is called again, and no node starts in between. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "dcs/dcs_private.h"
#include "dcs/offline.h"
#include "proto/pki.h"

enum { PEM_MAX = 256 * 1024, PATH_SIZE = 4096 };

static enum err io_error(struct errmsg *e, const char *path)
{
    return err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

/* ---- the state this node has ---- */

static void apply_log(struct state *s, const struct raft_core_disk *d)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->entries[i].type == RAFT_ENTRY_COMMAND)
            state_apply(s, d->first_index + i, d->entries[i].data, clock_boot_ms(), NULL, NULL);
}

/* All of the log counts: an entry here may have been acknowledged by a majority that is gone. */
static enum err replay(const char *path, const char *cluster_id, const char *data_dir,
                       const struct raft_core_disk *d, struct errmsg *e)
{
    struct state *s = NULL;
    enum err rc = state_open(path, cluster_id, &s, e);
    if (rc != ERR_OK)
        return rc;
    uint64_t now_ms = clock_boot_ms();
    if (d->has_snapshot && state_db_applied(s) + 1 < d->first_index) {
        char *from =
            mem_printf("%s/snapshot-%llu.db", data_dir, (unsigned long long)d->snapshot.index);
        rc = state_restore(s, from, d->snapshot.index, now_ms, e);
        mem_free(from);
    }
    state_leases_restart(s, now_ms);
    if (rc == ERR_OK) {
        apply_log(s, d);
        state_commit_full(s, 0);
    }
    state_close(s);
    return rc;
}

/* One plain file of a state that nobody has open. */
static enum err copy_state(const char *from, const char *cluster_id, const char *to,
                           struct errmsg *e)
{
    struct state *s = NULL;
    struct state_copy *copy = NULL;
    enum err rc = state_open(from, cluster_id, &s, e);
    rc = rc == ERR_OK ? state_copy_begin(s, &copy, e) : rc;
    rc = rc == ERR_OK ? state_copy_run(copy, to, e) : rc;
    state_close(s);
    return rc;
}

/* state.db itself is only read: who thinks better of it can start the node as it was. */
static enum err gather(struct offline *x, const char *cluster_id, struct errmsg *e)
{
    struct log_store *log = NULL;
    struct raft_core_disk disk;
    struct state *s = NULL;
    char *path = mem_printf("%s/state.db", x->o->data_dir);
    char *first = mem_printf("%s/state.first", x->tmp);
    enum err rc = state_open(path, cluster_id, &s, e);
    uint64_t logged = rc == ERR_OK ? state_logged(s) : 0;
    state_close(s);
    rc = rc == ERR_OK ? log_store_open(x->o->data_dir, &log, &disk, e) : rc;
    rc = rc == ERR_OK ? log_store_check_logged(&disk, logged, e) : rc;
    rc = rc == ERR_OK ? copy_state(path, cluster_id, first, e) : rc;
    rc = rc == ERR_OK ? replay(first, cluster_id, x->o->data_dir, &disk, e) : rc;
    rc = rc == ERR_OK ? copy_state(first, cluster_id, x->work, e) : rc;
    if (rc == ERR_OK)
        x->term = disk.term;
    if (log != NULL) {
        log_store_loaded(log);
        log_store_close(log);
    }
    mem_free(path);
    mem_free(first);
    return rc;
}

static enum err who_am_i(const struct dcs_options *o, struct pki_identity *ret_id,
                         struct errmsg *e)
{
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    enum err rc = pki_read_file(o->cert_file, PEM_MAX, &cert, e);
    rc = rc == ERR_OK ? pki_identity_of_pem(buf_slice(&cert), ret_id, e) : rc;
    if (rc == ERR_OK && strcmp(ret_id->name, o->name) != 0)
        rc = err_set(e, ERR_INVALID, "%s is the certificate of \"%s\", not of \"%s\"",
                     o->cert_file, ret_id->name, o->name);
    return rc;
}

/* ---- the new cluster's certificates ---- */

static enum err write_pem(const struct offline *x, const char *name, struct slice pem,
                          struct errmsg *e)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", x->tmp, name);
    return pki_write_file(path, pem, 0600, true, e);
}

static enum err make_certificates(const struct offline *x, struct pki_identity *id,
                                  struct errmsg *e)
{
    struct buf CLEANUP(buf_close) ca = BUF_INIT, CLEANUP(buf_close) ca_key = BUF_INIT,
                                  CLEANUP(buf_close) csr = BUF_INIT,
                                  CLEANUP(buf_close) key = BUF_INIT,
                                  CLEANUP(buf_close) cert = BUF_INIT;
    const struct dcs_options *o = x->o;
    uint8_t random[16];
    char host[128];
    uint16_t port;
    const char *hosts[] = {host};
    rng_system(random, sizeof random);
    hex_encode(id->cluster_id, random, sizeof random);
    id->member_id = x->facts.next_member;
    str_cut(id->kind, sizeof id->kind, "node"); /* never founds a cluster by itself */
    const char *address = o->connect_address != NULL ? o->connect_address : o->listen;
    if (str_host_port(address, host, sizeof host, &port) != ERR_OK)
        return err_set(e, ERR_INVALID, "\"%s\" is not host:port", address);
    enum err rc = pki_ca_new(id->cluster_id, &ca, &ca_key, e);
    rc = rc == ERR_OK ? pki_csr_new(id->name, &csr, &key, e) : rc;
    rc = rc == ERR_OK ? pki_sign(buf_slice(&ca), buf_slice(&ca_key), buf_slice(&csr), id, hosts,
                                 1, &cert, e)
                      : rc;
    rc = rc == ERR_OK ? write_pem(x, "ca.crt", buf_slice(&ca), e) : rc;
    rc = rc == ERR_OK ? write_pem(x, "ca.key", buf_slice(&ca_key), e) : rc;
    rc = rc == ERR_OK ? write_pem(x, "node.crt", buf_slice(&cert), e) : rc;
    return rc == ERR_OK ? write_pem(x, "node.key", buf_slice(&key), e) : rc;
}

/* ---- the change of files ---- */

static char *in_data_dir(const struct offline *x, const char *name)
{
    return mem_printf("%s/%s", x->o->data_dir, name);
}

static bool is_old(const char *name)
{
    static const char *const prefixes[] = {"log.db", "state.db", "snapshot-"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (str_starts(name, prefixes[i]))
            return true;
    return false;
}

static enum err set_aside_pem(const char *file, const char *aside, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) pem = BUF_INIT;
    char path[PATH_SIZE];
    const char *slash = strrchr(file, '/');
    (void)snprintf(path, sizeof path, "%s/%s", aside, slash != NULL ? slash + 1 : file);
    if (access(file, F_OK) != 0)
        return ERR_OK;
    enum err rc = pki_read_file(file, PEM_MAX, &pem, e);
    return rc == ERR_OK ? pki_write_file(path, buf_slice(&pem), 0600, true, e) : rc;
}

static enum err set_aside(const struct offline *x, const char *aside, struct errmsg *e)
{
    const struct dcs_options *o = x->o;
    const char *const pems[] = {o->ca_file, o->ca_key_file, o->cert_file, o->key_file};
    DIR *d = mkdir(aside, 0700) == 0 || errno == EEXIST ? opendir(o->data_dir) : NULL;
    struct dirent *f;
    enum err rc = d != NULL ? ERR_OK : io_error(e, aside);
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(pems); i++)
        rc = set_aside_pem(pems[i], aside, e);
    while (rc == ERR_OK && d != NULL && (f = readdir(d)) != NULL) {
        char from[PATH_SIZE], to[PATH_SIZE];
        if (!is_old(f->d_name))
            continue;
        (void)snprintf(from, sizeof from, "%s/%s", o->data_dir, f->d_name);
        (void)snprintf(to, sizeof to, "%s/%s", aside, f->d_name);
        rc = rename(from, to) == 0 ? ERR_OK : io_error(e, to);
    }
    if (d != NULL)
        (void)closedir(d);
    rc = rc == ERR_OK ? offline_sync_dir(aside, e) : rc;
    return rc == ERR_OK ? offline_sync_dir(o->data_dir, e) : rc;
}

/* Certificates may lie on another file system than the data. */
static enum err install_pem(const struct offline *x, const char *name, const char *to,
                            unsigned mode, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) pem = BUF_INIT;
    char from[PATH_SIZE];
    (void)snprintf(from, sizeof from, "%s/%s", x->tmp, name);
    enum err rc = pki_read_file(from, PEM_MAX, &pem, e);
    return rc == ERR_OK ? pki_write_file(to, buf_slice(&pem), mode, true, e) : rc;
}

/* Every step may be done twice; log.db comes last. */
static enum err install(const struct offline *x, struct errmsg *e)
{
    const struct dcs_options *o = x->o;
    DIR *d = opendir(x->tmp);
    struct dirent *f;
    enum err rc = d != NULL ? ERR_OK : io_error(e, x->tmp);
    rc = rc == ERR_OK ? install_pem(x, "ca.crt", o->ca_file, 0644, e) : rc;
    rc = rc == ERR_OK ? install_pem(x, "ca.key", o->ca_key_file, 0600, e) : rc;
    rc = rc == ERR_OK ? install_pem(x, "node.crt", o->cert_file, 0644, e) : rc;
    rc = rc == ERR_OK ? install_pem(x, "node.key", o->key_file, 0600, e) : rc;
    while (rc == ERR_OK && d != NULL && (f = readdir(d)) != NULL) {
        char *to = in_data_dir(x, f->d_name);
        rc = str_starts(f->d_name, "snapshot-") ? offline_move(x, f->d_name, to, e) : ERR_OK;
        mem_free(to);
    }
    if (d != NULL)
        (void)closedir(d);
    rc = rc == ERR_OK ? offline_sync_dir(o->data_dir, e) : rc;
    char *log = in_data_dir(x, "log.db");
    rc = rc == ERR_OK ? offline_move(x, "log.db", log, e) : rc;
    mem_free(log);
    return rc == ERR_OK ? offline_sync_dir(o->data_dir, e) : rc;
}

/* The mark says which of the two steps is under way, and where the old files go. */
static enum err change_files(struct offline *x, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) text = BUF_INIT, CLEANUP(buf_close) next = BUF_INIT;
    char *mark = in_data_dir(x, DCS_RECOVERING);
    enum err rc = pki_read_file(mark, PATH_SIZE, &text, e);
    const char *aside = rc == ERR_OK ? buf_cstr(&text) : "";
    if (rc == ERR_OK && str_starts(aside, "aside ")) {
        rc = set_aside(x, aside + strlen("aside "), e);
        buf_printf(&next, "install %s", aside + strlen("aside "));
        rc = rc == ERR_OK ? pki_write_file(mark, buf_slice(&next), 0600, true, e) : rc;
    }
    rc = rc == ERR_OK ? install(x, e) : rc;
    if (rc == ERR_OK && unlink(mark) != 0)
        rc = io_error(e, mark);
    rc = rc == ERR_OK ? offline_sync_dir(x->o->data_dir, e) : rc;
    mem_free(mark);
    return rc;
}

static enum err begin_change(const struct offline *x, char *ret_aside, size_t size,
                             struct errmsg *e)
{
    struct buf CLEANUP(buf_close) text = BUF_INIT;
    char *mark = in_data_dir(x, DCS_RECOVERING);
    enum err rc = str_format(ret_aside, size, "%s/before-recover-%llu", x->o->data_dir,
                             (unsigned long long)(clock_wall_ms() / 1000));
    ASSERT(rc == ERR_OK);
    buf_printf(&text, "aside %s", ret_aside);
    rc = offline_sync_dir(x->tmp, e);
    rc = rc == ERR_OK ? pki_write_file(mark, buf_slice(&text), 0600, true, e) : rc;
    mem_free(mark);
    return rc;
}

/* ---- recover ---- */

static enum err recover(struct offline *x, bool plan, struct buf *ret_json, struct errmsg *e)
{
    struct pki_identity id;
    char aside[PATH_SIZE] = "";
    uint64_t index = 0;
    enum err rc = offline_workdir(x, e);
    rc = rc == ERR_OK ? who_am_i(x->o, &id, e) : rc;
    rc = rc == ERR_OK ? gather(x, id.cluster_id, e) : rc;
    rc = rc == ERR_OK ? offline_look(x, e) : rc;
    if (rc == ERR_OK)
        offline_json(x, ret_json);
    if (rc != ERR_OK || plan) {
        buf_printf(ret_json, "}\n");
        return rc;
    }
    rc = make_certificates(x, &id, e);
    rc = rc == ERR_OK ? offline_found(x, id.cluster_id, &index, e) : rc;
    rc = rc == ERR_OK ? begin_change(x, aside, sizeof aside, e) : rc;
    rc = rc == ERR_OK ? change_files(x, e) : rc;
    buf_printf(
        ret_json, ", \"new_cluster_id\": \"%s\", \"new_revision\": %llu, \"aside\": \"%s\"}\n",
        id.cluster_id, (unsigned long long)(x->facts.revision + REBIRTH_REVISIONS), aside);
    return rc;
}

enum err dcs_recover(const struct dcs_options *o, bool plan, struct buf *ret_json,
                     struct errmsg *e)
{
    struct offline *x = mem_alloc(sizeof *x);
    enum err rc = offline_begin(x, o, e);
    char *mark = in_data_dir(x, DCS_RECOVERING);
    bool half = rc == ERR_OK && access(mark, F_OK) == 0;
    if (half && plan) {
        buf_printf(ret_json, "{\"interrupted\": true}\n");
    } else if (half) {
        rc = change_files(x, e);
        buf_printf(ret_json, "{\"interrupted\": true}\n");
    } else if (rc == ERR_OK) {
        rc = recover(x, plan, ret_json, e);
    }
    /* While it is half done the working directory is needed. */
    if (access(mark, F_OK) == 0 && x->lock_fd >= 0)
        (void)close(x->lock_fd);
    else
        offline_end(x);
    mem_free(mark);
    mem_free(x);
    return rc;
}
