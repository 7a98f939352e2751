/* One outgoing link per other member, kept up: frames of Raft, forwarded requests, questions and
 * their answers. The other direction is the peer's own link to us (server.c), so a link carries our
 * requests and their responses only.
 *
 * A link is up after TLS, the identity (cluster and member id in the peer's certificate) and hello. It
 * pings every five heartbeats, is dead after two silent seconds, and is dialed again within 100-300 ms,
 * at once when the peer has just dialed us. A slow peer is bounded: frames are dropped above
 * PEER_FRAMES_MAX (Raft sends again), calls refused above PEER_CALLS_MAX. Loop thread. */
#ifndef REGENT_DCS_PEER_H
#define REGENT_DCS_PEER_H

#include <openssl/ssl.h>
#include <uv.h>

#include "base/base.h"
#include "base/err.h"
#include "base/rng.h"
#include "proto/messages.h"

enum {
    PEER_FRAMES_MAX = 16 * 1024 * 1024,
    PEER_CALLS_MAX = 64 * 1024 * 1024,
    PEER_DEAD_MS = 2000,
    PEER_RETRY_MIN_MS = 100,
    PEER_RETRY_SPREAD_MS = 200,
    PEER_REFUSED_MS = 5000 /* after the peer refused us, or was not who it should be */
};

/* Message numbers from here on are the owner's own calls (CALL_NUMBER_MAX of calls.h ends below). */
#define PEER_OWN_CALLS 0x80000000U

struct peer_ops {
    void (*answer)(void *arg, uint64_t member, uint32_t number, enum err status,
                   const char *text, struct slice result);
    /* down: every call without an answer is lost. */
    void (*link)(void *arg, uint64_t member, bool up);
    /* It says that this node is no member any more. */
    void (*removed)(void *arg, uint64_t member, const char *text);
};

struct peer;

struct peers {
    uv_loop_t *loop;
    SSL_CTX *ctx;
    uint64_t self;
    char name[64];
    char cluster_id[40];
    uint64_t ping_ms;
    struct rng rng;
    const struct peer_ops *ops;
    void *arg;
    bool closing;
    struct peer *all[MEMBERS_MAX];
    size_t n;
};

/* ctx is borrowed. Zeroed memory + the fields above up to `arg` set by the owner, then: */
void peers_add(struct peers *p, uint64_t id,
               const char *address); /* or a new address of a known one */
void peers_remove(struct peers *p, uint64_t id);
/* The owner's loop runs on until every handle is closed. */
void peers_close(struct peers *p);
bool peers_linked(const struct peers *p, uint64_t id);
/* The version that is spoken on the link; 0: none. */
uint64_t peers_version(const struct peers *p, uint64_t id);
size_t peers_count(const struct peers *p);
uint64_t peers_id_at(const struct peers *p, size_t i);
void peers_send_frame(struct peers *p, uint64_t id, struct slice frame);
/* false: no link, or it is choked; nothing was sent. */
bool peers_call(struct peers *p, uint64_t id, uint32_t number, const char *method,
                struct slice params);
void peers_flush(struct peers *p);
void peers_dialed_us(struct peers *p, uint64_t id);

#endif
