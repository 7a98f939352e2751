/* Who calls whom: the node's operations on the log store, the links and the snapshot files, and their
 * reports back to it. Nothing is decided here. */
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/calls.h"
#include "dcs/dcs_private.h"
#include "dcs/wire.h"

void dcs_fatal(void *dcs, const char *what)
{
    struct dcs *d = dcs;
    log_event(LOG_FATAL, "fatal", NO_KV, "%s", what);
    if (d->on_fatal != NULL) {
        d->on_fatal(d->on_fatal_arg, what);
    }
    _exit(DCS_EXIT_STORAGE);
}

/* ---- the node asks ------------------------------------------------------------------------- */

static uint64_t now_ms(void *arg)
{
    (void)arg;
    return clock_boot_ms();
}

static uint64_t now_us(void *arg)
{
    (void)arg;
    return clock_boot_us();
}

static uint64_t wall_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static void store_append(void *arg, uint64_t first_index, const struct raft_entry_view *entries,
                         size_t n)
{
    log_store_append(((struct dcs *)arg)->log, first_index, entries, n);
}

static void store_truncate(void *arg, uint64_t from_index)
{
    log_store_truncate(((struct dcs *)arg)->log, from_index);
}

static void store_meta(void *arg, uint64_t term, uint64_t voted_for)
{
    log_store_meta(((struct dcs *)arg)->log, term, voted_for);
}

static void store_snapshot(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed)
{
    log_store_snapshot(((struct dcs *)arg)->log, info, trim_to, installed);
}

static void store_flush(void *arg)
{
    log_store_flush(((struct dcs *)arg)->log);
}

static void send_frame(void *arg, uint64_t member, struct slice frame)
{
    peers_send_frame(&((struct dcs *)arg)->peers, member, frame);
}

static bool call(void *arg, uint64_t member, uint32_t number, const char *method,
                 struct slice params)
{
    ASSERT(number <= CALL_NUMBER_MAX);
    return peers_call(&((struct dcs *)arg)->peers, member, number, method, params);
}

static bool linked(void *arg, uint64_t member)
{
    return peers_linked(&((struct dcs *)arg)->peers, member);
}

static uint64_t version(void *arg, uint64_t member)
{
    return peers_version(&((struct dcs *)arg)->peers, member);
}

static void flush(void *arg)
{
    peers_flush(&((struct dcs *)arg)->peers);
}

/* Links are only added: a member that a newer membership leaves out may still have to hear of it. */
static void membership(void *arg, const struct raft_membership *m)
{
    struct dcs *d = arg;
    struct member row;
    for (size_t i = 0; i < m->n; i++) {
        bool gone = node_member(d->node, m->servers[i].id, &row) == ERR_OK &&
                    strcmp(row.state, "removed") == 0;
        if (!gone) {
            peers_add(&d->peers, m->servers[i].id, m->servers[i].address);
        }
    }
}

static void snapshot_copy(void *arg, struct state_copy *copy,
                          const struct raft_snapshot_info *info)
{
    struct dcs *d = arg;
    snapshot_files_copy(&d->files, copy, state_db_bytes(d->state), info);
}

static void hash(void *arg, struct state_copy *copy)
{
    struct dcs *d = arg;
    hasher_start(&d->loop, copy, &d->node);
}

static void snapshot_fetch(void *arg, uint64_t from, const struct raft_snapshot_info *info)
{
    snapshot_files_fetch(&((struct dcs *)arg)->files, from, info);
}

static void snapshot_path(void *arg, uint64_t index, char *ret_path, size_t size)
{
    snapshot_files_path(&((struct dcs *)arg)->files, index, ret_path, size);
}

static void restore(void *arg, struct state_restoring *r)
{
    snapshot_files_restore(&((struct dcs *)arg)->files, r);
}

static void snapshot_sweep(void *arg, uint64_t index)
{
    snapshot_files_sweep(&((struct dcs *)arg)->files, index);
}

/* A quarantine is written down: the node must not serve again only because it was started anew. */
static void out(void *arg, enum node_out why, const char *text)
{
    struct dcs *d = arg;
    struct errmsg e;
    if (why != NODE_QUARANTINED) {
        return;
    }
    char *path = mem_printf("%s/" DCS_QUARANTINED, d->data_dir);
    if (pki_write_file(path, slice_str(text), 0600, true, &e) != ERR_OK) {
        log_event(LOG_ERROR, "quarantine_note_failed", NO_KV, "%s", e.text);
    }
    mem_free(path);
}

const struct node_ops dcs_node_ops = {
    .now_ms = now_ms,
    .now_us = now_us,
    .wall_ms = wall_ms,
    .store_append = store_append,
    .store_truncate = store_truncate,
    .store_meta = store_meta,
    .store_snapshot = store_snapshot,
    .store_flush = store_flush,
    .send_frame = send_frame,
    .call = call,
    .linked = linked,
    .version = version,
    .flush = flush,
    .membership = membership,
    .snapshot_copy = snapshot_copy,
    .hash = hash,
    .snapshot_fetch = snapshot_fetch,
    .snapshot_path = snapshot_path,
    .restore = restore,
    .snapshot_sweep = snapshot_sweep,
    .out = out,
    .fatal = dcs_fatal,
};

/* ---- the log store reports ----------------------------------------------------------------- */

static void appended(void *arg, uint64_t last_index)
{
    node_append_stored(((struct dcs *)arg)->node, last_index);
}

static void truncated(void *arg)
{
    node_truncate_stored(((struct dcs *)arg)->node);
}

static void meta_stored(void *arg)
{
    node_meta_stored(((struct dcs *)arg)->node);
}

static void snapshot_stored(void *arg)
{
    node_snapshot_stored(((struct dcs *)arg)->node);
}

static void disk_full(void *arg, bool full)
{
    node_set_disk_full(((struct dcs *)arg)->node, full);
}

const struct log_store_ops dcs_log_ops = {
    .appended = appended,
    .truncated = truncated,
    .meta = meta_stored,
    .snapshot = snapshot_stored,
    .disk_full = disk_full,
    .fatal = dcs_fatal,
};

/* ---- links and snapshot files report ------------------------------------------------------- */

static void ca_fetched(struct dcs *d, enum err status, const char *text, struct slice result)
{
    struct ca_reply ca;
    struct errmsg e = {.text = ""};
    d->ca_asked = false;
    if (status == ERR_OK) {
        status = msg_decode(&msg_ca_reply, result, &ca, &e);
        text = e.text;
    }
    /* A few hundred bytes, once in a node's life: no worker for that. */
    if (status == ERR_OK) {
        status = pki_write_file(d->ca_key_file, ca.key, 0600, true, &e);
    }
    if (status == ERR_OK) {
        buf_clear(&d->ca_key);
        buf_append_slice(&d->ca_key, ca.key);
        dcs_set_authority(d);
        log_event(LOG_INFO, "ca_key_fetched", NO_KV, "this voter can sign certificates now");
    } else if (status != ERR_UNAVAILABLE && status != ERR_DENIED) {
        log_event(LOG_WARN, "ca_key_fetch_failed", NO_KV, "%s", text);
    }
}

static void answer(void *arg, uint64_t member, uint32_t number, enum err status,
                   const char *text, struct slice result)
{
    struct dcs *d = arg;
    (void)member;
    if (number <= CALL_NUMBER_MAX) {
        node_answer(d->node, number, status, text, result);
    } else if (number == NUMBER_CA_FETCH) {
        ca_fetched(d, status, text, result);
    } else if (number == NUMBER_CERT_RENEW) {
        renewal_answer(d, status, text, result);
    } else {
        (void)snapshot_files_answer(&d->files, number, status, result);
    }
}

static void link_changed(void *arg, uint64_t member, bool up)
{
    struct dcs *d = arg;
    node_link(d->node, member, up);
    if (!up) {
        d->ca_asked = false;
        snapshot_files_link_down(&d->files, member);
    }
}

/* Removals are for ever, so any member that has applied it may tell. */
static void told_removed(void *arg, uint64_t member, const char *text)
{
    (void)member;
    node_leave(((struct dcs *)arg)->node, NODE_REMOVED, text);
}

const struct peer_ops dcs_peer_ops = {
    .answer = answer, .link = link_changed, .removed = told_removed};

static void copied(void *arg, const struct raft_snapshot_info *info, bool ok)
{
    node_snapshot_copied(((struct dcs *)arg)->node, info, ok);
}

static void fetched(void *arg, const struct raft_snapshot_info *info, bool ok)
{
    node_snapshot_fetched(((struct dcs *)arg)->node, info, ok);
}

static void restored(void *arg, struct state_restoring *r, enum err status, const char *text)
{
    node_restored(((struct dcs *)arg)->node, r, status, text);
}

static bool call_snapshot_read(void *arg, uint64_t member, uint32_t number, struct slice params)
{
    return peers_call(&((struct dcs *)arg)->peers, member, number, WIRE_SNAPSHOT_READ, params);
}

const struct snapshot_files_ops dcs_files_ops = {
    .copied = copied,
    .fetched = fetched,
    .restored = restored,
    .call = call_snapshot_read,
    .fatal = dcs_fatal,
};

/* ---- the server asks ----------------------------------------------------------------------- */

static void dialed(void *arg, uint64_t member)
{
    peers_dialed_us(&((struct dcs *)arg)->peers, member);
}

enum err dcs_sign(void *arg, const struct pki_identity *id, struct slice csr,
                  struct buf *ret_cert, struct errmsg *e)
{
    struct dcs *d = arg;
    struct member m;
    char host[128];
    uint16_t port;
    const char *hosts[1] = {host};
    if (d->ca_key.len == 0) {
        return err_set(e, ERR_UNAVAILABLE, "%s does not hold the CA's key; ask a voter",
                       d->name);
    }
    bool has_host = id->member_id != 0 && node_member(d->node, id->member_id, &m) == ERR_OK &&
                    str_host_port(m.address, host, sizeof host, &port) == ERR_OK;
    return pki_sign(buf_slice(&d->ca_cert), buf_slice(&d->ca_key), csr, id, hosts,
                    has_host ? 1 : 0, ret_cert, e);
}

static enum err authority(void *arg, struct ca_reply *ret_reply, struct errmsg *e)
{
    struct dcs *d = arg;
    if (d->ca_key.len == 0) {
        return err_set(e, ERR_UNAVAILABLE, "%s does not hold the CA's key either", d->name);
    }
    *ret_reply =
        (struct ca_reply){.cert = buf_slice(&d->ca_cert), .key = buf_slice(&d->ca_key)};
    return ERR_OK;
}

static void snapshot_read(void *arg, uint64_t index, uint64_t offset, node_reply_cb *done,
                          void *done_arg, uint64_t tag)
{
    snapshot_files_read(&((struct dcs *)arg)->files, index, offset, done, done_arg, tag);
}

static void sql_query(void *arg, const struct sql_req *q, node_reply_cb *done, void *done_arg)
{
    struct dcs *d = arg;
    querier_run(&d->querier, &d->loop, d->node, q, done, done_arg);
}

static void snapshot_save(void *arg, node_reply_cb *done, void *done_arg)
{
    struct dcs *d = arg;
    backup_save(&d->backup, d->node, done, done_arg);
}

static void snapshot_piece(void *arg, const struct snapshot_piece *p, node_reply_cb *done,
                           void *done_arg)
{
    backup_piece(&((struct dcs *)arg)->backup, p, done, done_arg);
}

const struct server_ops dcs_server_ops = {
    .dialed = dialed,
    .sign = dcs_sign,
    .authority = authority,
    .snapshot_read = snapshot_read,
    .sql_query = sql_query,
    .snapshot_save = snapshot_save,
    .snapshot_piece = snapshot_piece,
};

/* ---- now and then -------------------------------------------------------------------------- */

void dcs_set_authority(struct dcs *d)
{
    struct node_authority a = {
        .scope = d->scope,
        .ca_cert = buf_slice(&d->ca_cert),
        .ca_key = buf_slice(&d->ca_key),
        .secrets = buf_slice(&d->secrets),
    };
    node_set_authority(d->node, &a);
}

/* Every voter holds the CA's key, so that losing the first node costs nothing. */
static void want_ca_key(struct dcs *d)
{
    if (d->ca_key.len > 0 || d->ca_asked || d->ca_key_file == NULL ||
        !node_is_voter(d->node, d->id.member_id)) {
        return;
    }
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t n = node_members(d->node, all, MEMBERS_MAX);
    for (size_t i = 0; i < n && !d->ca_asked; i++) {
        d->ca_asked = all[i].id != d->id.member_id && node_is_voter(d->node, all[i].id) &&
                      peers_call(&d->peers, all[i].id, NUMBER_CA_FETCH,
                                 method_table[METHOD_CA_FETCH].name, slice_of(NULL, 0));
    }
    mem_free(all);
}

static void drop_removed(struct dcs *d)
{
    struct member self;
    if (node_applied(d->node) == d->checked_applied) {
        return;
    }
    d->checked_applied = node_applied(d->node);
    if (node_member(d->node, d->id.member_id, &self) == ERR_OK &&
        strcmp(self.state, "removed") == 0) {
        node_leave(d->node, NODE_REMOVED, SERVER_REMOVED);
    }
    struct member m;
    for (size_t i = peers_count(&d->peers); i > 0; i--) {
        uint64_t id = peers_id_at(&d->peers, i - 1);
        if (node_member(d->node, id, &m) == ERR_OK && strcmp(m.state, "removed") == 0) {
            log_event(LOG_INFO, "member_removed", KV(KV_STR("member", m.name)),
                      "its link is given up");
            peers_remove(&d->peers, id);
        }
    }
}

void dcs_housekeeping(struct dcs *d)
{
    struct latency fsync;
    log_store_fsync(d->log, &fsync);
    node_set_fsync(d->node, log_store_fsync_us_p99(d->log), &fsync);
    log_store_look(d->log);
    server_look(&d->server);
    node_watch_progress(d->node, DCS_HOUSE_MS);
    state_tidy(d->state, clock_boot_ms());
    drop_removed(d);
    backup_tick(&d->backup);
    archive_tick(&d->archive, d->node, state_db_bytes(d->state));
    heard_tick(&d->heard, d->node);
    want_ca_key(d);
    renewal_tick(d);
    join_tick(d);
}
