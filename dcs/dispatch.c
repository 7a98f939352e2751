/* Requests of a session by name: who may call what, and who answers it. Public methods are in
 * proto/methods.def; what only members say to each other is in dcs/wire.h. */
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mutant.h"
#include "base/str.h"
#include "dcs/server.h"
#include "dcs/wire.h"

struct call_in {
    struct session *x;
    uint64_t msgid;
    struct slice params;
};

typedef void handler(const struct call_in *c);

static bool decode(const struct call_in *c, const struct msg *m, void *ret_params)
{
    struct errmsg e = {.text = ""};
    enum err err = msg_decode(m, c->params, ret_params, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
    }
    return err == ERR_OK;
}

static void reply(const struct call_in *c, const struct msg *m, const void *result)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    msg_encode(m, result, &out);
    session_reply(c->x, c->msgid, buf_slice(&out));
}

static bool identified(const struct session *x)
{
    return x->local || x->has_id;
}

/* ---- public methods answered here ---------------------------------------------------------- */

static void hello(const struct call_in *c)
{
    struct hello in;
    struct session *x = c->x;
    const struct server_options *o = &x->server->o;
    if (!decode(c, &msg_hello, &in)) {
        return;
    }
    if (in.version < PROTO_VERSION_MIN) {
        session_error(x, c->msgid, ERR_UNSUPPORTED,
                      "this protocol version is too old for this node: upgrade the caller");
        return;
    }
    if (strcmp(in.role, "peer") == 0 && in.version < node_version(o->node)) {
        struct errmsg e;
        (void)err_set(&e, ERR_UNSUPPORTED,
                      "this cluster is at version %llu, and the program of %s knows %llu: "
                      "upgrade regent there",
                      (unsigned long long)node_version(o->node), in.name,
                      (unsigned long long)in.version);
        session_error(x, c->msgid, ERR_UNSUPPORTED, e.text);
        return;
    }
    if (in.cluster_id[0] != '\0' && strcmp(in.cluster_id, o->cluster_id) != 0) {
        session_error(x, c->msgid, ERR_PRECONDITION, "this node belongs to another cluster");
        return;
    }
    x->said_hello = true;
    x->peer = x->has_id && x->id.member_id != 0 && x->id.member_id != o->member_id &&
              strcmp(in.role, "peer") == 0;
    if (x->peer) {
        conn_set_dead_after(x->conn, SERVER_PEER_DEAD_MS);
        conn_set_write_max(x->conn, SERVER_PEER_WRITE_MAX);
        o->ops->dialed(o->arg, x->id.member_id);
    }
    struct hello_reply out = {
        .version = MIN(in.version, (uint64_t)PROTO_VERSION),
        .member_id = o->member_id,
        .leader_id = node_leader(o->node),
        .term = node_term(o->node),
        .revision = node_revision(o->node),
    };
    (void)snprintf(out.cluster_id, sizeof out.cluster_id, "%s", o->cluster_id);
    (void)snprintf(out.name, sizeof out.name, "%s", o->name);
    (void)snprintf(out.software, sizeof out.software, "regent " REGENT_VERSION);
    (void)snprintf(out.access, sizeof out.access, "%s",
                   x->peer ? "peer" : access_name(x->access));
    reply(c, &msg_hello_reply, &out);
}

static void watch_create(const struct call_in *c)
{
    struct watch_req req;
    struct errmsg e = {.text = ""};
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    struct node *n = c->x->server->o.node;
    struct watch *w;
    if (!decode(c, &msg_watch_req, &req)) {
        return;
    }
    enum err err = node_watch(n, &req, session_watch_send, c->x, &out, &w, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
        return;
    }
    session_reply(c->x, c->msgid, buf_slice(&out));
    node_watch_start(n, w);
}

static void watch_cancel(const struct call_in *c)
{
    struct watch_cancel req;
    struct empty none;
    if (!decode(c, &msg_watch_cancel, &req)) {
        return;
    }
    if (node_unwatch(c->x->server->o.node, req.watch, c->x)) {
        reply(c, &msg_empty, &none);
    } else {
        session_error(c->x, c->msgid, ERR_NOT_FOUND,
                      "there is no such watch on this connection");
    }
}

static void watch_credit(const struct call_in *c)
{
    struct watch_credit req;
    struct empty none;
    struct errmsg e = {.text = ""};
    if (!decode(c, &msg_watch_credit, &req)) {
        return;
    }
    enum err err = node_watch_credit(c->x->server->o.node, &req, c->x, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
    } else {
        reply(c, &msg_empty, &none);
    }
}

static void cluster_status(const struct call_in *c)
{
    struct status_reply status;
    node_status(c->x->server->o.node, &status);
    reply(c, &msg_status_reply, &status);
}

static void ca_fetch(const struct call_in *c)
{
    const struct server_options *o = &c->x->server->o;
    struct ca_reply out;
    struct errmsg e = {.text = ""};
    if (!c->x->peer || !node_is_voter(o->node, c->x->id.member_id)) {
        session_error(c->x, c->msgid, ERR_DENIED, "the CA's key is for voters only");
        return;
    }
    enum err err = o->ops->authority(o->arg, &out, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
        return;
    }
    reply(c, &msg_ca_reply, &out);
}

/* A client's: a new one of the same name and role, which the store lists as any other. */
static void renew_client(const struct call_in *c, const struct pki_identity *id,
                         struct slice csr)
{
    struct cert_issue issue = {.csr = csr, .renews = id->serial};
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    struct ticket *t = session_begin(c->x, c->msgid, c->params.n);
    if (t == NULL) {
        return;
    }
    memcpy(issue.name, id->name, sizeof issue.name);
    memcpy(issue.role, id->kind, sizeof issue.role);
    msg_encode(&msg_cert_issue, &issue, &params);
    struct node_caller caller = {.cb = session_done, .arg = t};
    node_request(c->x->server->o.node, METHOD_CERT_ISSUE, buf_slice(&params), &caller);
}

/* A certificate that has expired identifies its owner, a member, for this alone. */
static void cert_renew(const struct call_in *c)
{
    const struct server_options *o = &c->x->server->o;
    const struct pki_identity *id = c->x->has_id  ? &c->x->id
                                    : c->x->local ? NULL
                                                  : conn_peer_expired(c->x->conn);
    struct cert_req req;
    struct errmsg e = {.text = ""};
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    struct member m;
    if (!decode(c, &msg_cert_req, &req)) {
        return;
    }
    if (c->x->has_id && id->member_id == 0) {
        renew_client(c, id, req.csr);
        return;
    }
    if (id == NULL || id->member_id == 0 || strcmp(id->cluster_id, o->cluster_id) != 0 ||
        node_member(o->node, id->member_id, &m) != ERR_OK || strcmp(m.state, "removed") == 0) {
        session_error(c->x, c->msgid, ERR_UNAUTHENTICATED,
                      "only the owner of a known certificate can have it renewed");
        return;
    }
    enum err err = o->ops->sign(o->arg, id, req.csr, &cert, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
        return;
    }
    struct cert_reply out = {.cert = buf_slice(&cert)};
    reply(c, &msg_cert_reply, &out);
}

static void hash_read(const struct call_in *c)
{
    struct hash_ref req;
    struct hash_reply out;
    struct errmsg e = {.text = ""};
    if (!decode(c, &msg_hash_ref, &req)) {
        return;
    }
    enum err err = node_hash(c->x->server->o.node, req.index, &out, &e);
    if (err != ERR_OK) {
        session_error(c->x, c->msgid, err, e.text);
    } else {
        reply(c, &msg_hash_reply, &out);
    }
}

static void sql_query(const struct call_in *c)
{
    struct sql_req req;
    const struct server_options *o = &c->x->server->o;
    struct ticket *t =
        decode(c, &msg_sql_req, &req) ? session_begin(c->x, c->msgid, c->params.n) : NULL;
    if (t != NULL) {
        o->ops->sql_query(o->arg, &req, session_done, t);
    }
}

static void snapshot_save(const struct call_in *c)
{
    struct empty none;
    const struct server_options *o = &c->x->server->o;
    struct ticket *t =
        decode(c, &msg_empty, &none) ? session_begin(c->x, c->msgid, c->params.n) : NULL;
    if (t != NULL) {
        o->ops->snapshot_save(o->arg, session_done, t);
    }
}

static void snapshot_piece(const struct call_in *c)
{
    struct snapshot_piece req;
    const struct server_options *o = &c->x->server->o;
    struct ticket *t = decode(c, &msg_snapshot_piece, &req)
                           ? session_begin(c->x, c->msgid, c->params.n)
                           : NULL;
    if (t != NULL) {
        o->ops->snapshot_piece(o->arg, &req, session_done, t);
    }
}

static handler *const here[METHOD_COUNT] = {
    [METHOD_HELLO] = hello,
    [METHOD_WATCH_CREATE] = watch_create,
    [METHOD_WATCH_CANCEL] = watch_cancel,
    [METHOD_WATCH_CREDIT] = watch_credit,
    [METHOD_CLUSTER_STATUS] = cluster_status,
    [METHOD_CA_FETCH] = ca_fetch,
    [METHOD_CERT_RENEW] = cert_renew,
    [METHOD_HASH_READ] = hash_read,
    [METHOD_SQL_QUERY] = sql_query,
    [METHOD_SNAPSHOT_SAVE] = snapshot_save,
    [METHOD_SNAPSHOT_PIECE] = snapshot_piece,
};

/* ---- what members say ---------------------------------------------------------------------- */

/* on_behalf: the caller passes on its own client's request, which is not forwarded once more. */
static void to_node(const struct call_in *c, unsigned method, bool on_behalf)
{
    struct session *x = c->x;
    struct ticket *t = session_begin(x, c->msgid, c->params.n);
    if (t != NULL) {
        t->read = method < METHOD_COUNT && method_table[method].kind == METHOD_KIND_READ;
        struct node_caller caller = {
            .peer = on_behalf ? x->id.member_id : 0, .cb = session_done, .arg = t};
        node_request(x->server->o.node, method, c->params, &caller);
    }
}

static void raft_confirm(const struct call_in *c)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    node_confirm(c->x->server->o.node, c->params, &out);
    session_reply(c->x, c->msgid, buf_slice(&out));
}

static void state_compare(const struct call_in *c)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    node_compare(c->x->server->o.node, c->params, &out);
    session_reply(c->x, c->msgid, buf_slice(&out));
}

static void peer_recall(const struct call_in *c)
{
    struct empty none;
    node_recall(c->x->server->o.node, c->x->id.member_id, c->params);
    reply(c, &msg_empty, &none);
}

/* From the node itself, or passed on by the member it reached first. */
static void member_present(const struct call_in *c)
{
    struct wire_present p;
    if (decode(c, &wire_msg_present, &p)) {
        to_node(c, NODE_METHOD_PRESENT, p.id != c->x->id.member_id);
    }
}

static void snapshot_read(const struct call_in *c)
{
    struct wire_snapshot_read req;
    const struct server_options *o = &c->x->server->o;
    if (!decode(c, &wire_msg_snapshot_read, &req)) {
        return;
    }
    struct ticket *t = session_begin(c->x, c->msgid, c->params.n);
    if (t != NULL) {
        o->ops->snapshot_read(o->arg, req.index, req.offset, session_done, t, 0);
    }
}

static void peer_ping(const struct call_in *c)
{
    struct empty none;
    reply(c, &msg_empty, &none);
}

static const struct {
    const char *name;
    handler *run;
} among_members[] = {
    {WIRE_PEER_PING, peer_ping},           {WIRE_RAFT_CONFIRM, raft_confirm},
    {WIRE_STATE_COMPARE, state_compare},   {WIRE_SNAPSHOT_READ, snapshot_read},
    {WIRE_MEMBER_PRESENT, member_present}, {WIRE_PEER_RECALL, peer_recall},
};

static bool member_call(const struct call_in *c, struct slice method)
{
    for (size_t i = 0; i < ARRAY_LEN(among_members); i++) {
        if (slice_eq(method, slice_str(among_members[i].name))) {
            if (c->x->peer) {
                among_members[i].run(c);
            } else {
                session_error(c->x, c->msgid, ERR_DENIED,
                              "this method is for members of the cluster");
            }
            return true;
        }
    }
    return false;
}

/* ---- entry --------------------------------------------------------------------------------- */

void dispatch_request(struct session *x, uint64_t msgid, struct slice method,
                      struct slice params)
{
    const struct call_in c = {.x = x, .msgid = msgid, .params = params};
    if (member_call(&c, method)) {
        return;
    }
    enum method m = method_find(method);
    if (m == METHOD_COUNT) {
        struct errmsg e;
        (void)err_set(&e, ERR_UNSUPPORTED, "there is no method \"%.*s\"",
                      (int)MIN(method.n, (size_t)64), (const char *)method.p);
        session_error(x, msgid, ERR_UNSUPPORTED, e.text);
        return;
    }
    if (!identified(x) && method_table[m].kind != METHOD_KIND_OPEN) {
        session_error(x, msgid, ERR_UNAUTHENTICATED,
                      "a client certificate of this cluster is needed");
    } else if (x->access < access_needed(m) && !MUTANT(role_not_asked)) {
        struct errmsg e;
        (void)err_set(&e, ERR_DENIED, "%s is for the role %s; this certificate is of a %s",
                      method_table[m].name, access_name(access_needed(m)), x->id.kind);
        session_error(x, msgid, ERR_DENIED, e.text);
    } else if (!x->said_hello && m != METHOD_HELLO) {
        session_error(x, msgid, ERR_PRECONDITION, "the first request must be hello");
    } else if (here[m] != NULL) {
        here[m](&c);
    } else {
        to_node(&c, m, x->peer);
    }
}

void dispatch_notify(struct session *x, struct slice method, struct slice params)
{
    struct wire_bytes frame;
    struct errmsg e = {.text = "not a message of this protocol"};
    if (!x->peer || !slice_eq(method, slice_str(WIRE_RAFT_FRAME)) ||
        msg_decode(&wire_msg_bytes, params, &frame, &e) != ERR_OK ||
        node_frame(x->server->o.node, x->id.member_id, frame.data, &e) != ERR_OK) {
        conn_close(x->conn);
    }
}
