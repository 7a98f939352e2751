/* A joined node with an empty directory: it presents itself to any member it knows, which asks the
 * leader. Accepted, it takes part in Raft and is sent the log; refused (an id that had data before, a
 * removed member), it ends with the remedy. It presents itself again until the log names it. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "dcs/dcs_private.h"
#include "dcs/wire.h"

enum { NUMBER_HELLO = 1, NUMBER_PRESENT = 2 };

static void finish(struct dcs *d)
{
    if (d->join.conn != NULL) {
        conn_close(d->join.conn);
    }
}

static void complain(struct dcs *d, const char *address, const char *why)
{
    if (!d->join.complained) {
        log_event(LOG_WARN, "join_waits", KV(KV_STR("address", address)), "%s", why);
        d->join.complained = true;
    }
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct dcs *d = arg;
    CHECK_MAGIC(d, DCS_MAGIC);
    if (id == NULL || strcmp(id->cluster_id, d->id.cluster_id) != 0 ||
        id->member_id == d->id.member_id) {
        complain(d, conn_peer_text(d->join.conn),
                 "this is no member of the cluster to be joined");
        finish(d);
        return;
    }
    struct hello hello = {.version = PROTO_VERSION, .role = "peer"};
    struct wire_present present = {.id = d->id.member_id,
                                   .last_index = node_last_index(d->node)};
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    memcpy(hello.cluster_id, d->id.cluster_id, sizeof hello.cluster_id);
    memcpy(hello.name, d->id.name, sizeof hello.name);
    msg_encode(&msg_hello, &hello, &params);
    conn_request(d->join.conn, NUMBER_HELLO, method_table[METHOD_HELLO].name,
                 buf_slice(&params));
    buf_clear(&params);
    memcpy(present.name, d->id.name, sizeof present.name);
    enum err fits = str_copy(present.address, sizeof present.address, d->address);
    ASSERT(fits == ERR_OK);
    msg_encode(&wire_msg_present, &present, &params);
    conn_request(d->join.conn, NUMBER_PRESENT, WIRE_MEMBER_PRESENT, buf_slice(&params));
}

static void accepted(struct dcs *d, struct slice result)
{
    static struct member_list list; /* large; the loop thread's alone */
    if (msg_decode(&msg_member_list, result, &list, NULL) != ERR_OK) {
        return;
    }
    for (size_t i = 0; i < list.members_n; i++) {
        peers_add(&d->peers, list.members[i].id, list.members[i].address);
    }
    node_admit(d->node);
    d->join.complained = false;
    log_event(LOG_INFO, "joining", KV(KV_U64("members", list.members_n)),
              "the leader accepted this node");
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct dcs *d = arg;
    CHECK_MAGIC(d, DCS_MAGIC);
    if (status == ERR_DENIED || status == ERR_PRECONDITION) {
        dcs_fatal(d, error->text);
    }
    if (status != ERR_OK) {
        complain(d, conn_peer_text(d->join.conn), error->text);
        finish(d);
    } else if (msgid == NUMBER_PRESENT) {
        accepted(d, result);
        finish(d);
    }
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct dcs *d = arg;
    CHECK_MAGIC(d, DCS_MAGIC);
    d->join.conn = NULL;
    if (!d->stopping && why->code != ERR_CANCELLED) {
        complain(d, "", why->text);
    }
}

static const struct conn_ops join_ops = {
    .ready = on_ready, .response = on_response, .closed = on_closed};

void join_tick(struct dcs *d)
{
    struct join *j = &d->join;
    if (j->done || j->conn != NULL || d->stopping || d->n_join == 0 ||
        clock_boot_ms() < j->next_ms) {
        return;
    }
    if (node_takes_part(d->node)) {
        j->done = true;
        return;
    }
    const char *address = d->join_to[j->at++ % d->n_join];
    char host[256];
    uint16_t port;
    j->next_ms = clock_boot_ms() + DCS_JOIN_MS;
    if (str_host_port(address, host, sizeof host, &port) != ERR_OK) {
        complain(d, address, "not host:port");
        return;
    }
    j->conn = conn_connect(&d->loop, host, port, d->client_ctx, &join_ops, d);
}

void join_close(struct dcs *d)
{
    finish(d);
}
