/* What members say to each other besides the public methods: their names and messages. Only an
 * identified member may use them (server.c); docs/PROTOCOL.md lists them as internal.
 *
 *   raft.frame       notification: one frame of the Raft core
 *   raft.confirm     is my term still the newest you know? (linearizable reads)
 *   member.present   a joined node's first start; answered with the members by the leader
 *   snapshot.read    one piece of a snapshot file, pulled by the receiver
 *   peer.compare     the hash of your state at an index, and what a majority agreed on before
 *   peer.recall      the first on a new link: what the caller heard of the member it calls
 *   peer.ping        heartbeat of an idle link */
#ifndef REGENT_DCS_WIRE_H
#define REGENT_DCS_WIRE_H

#include "proto/messages.h"

#define WIRE_RAFT_FRAME "raft.frame"
#define WIRE_RAFT_CONFIRM "raft.confirm"
#define WIRE_MEMBER_PRESENT "member.present"
#define WIRE_SNAPSHOT_READ "snapshot.read"
#define WIRE_PEER_PING "peer.ping"
#define WIRE_STATE_COMPARE "peer.compare"
#define WIRE_PEER_RECALL "peer.recall"

enum { WIRE_SNAPSHOT_PIECE = 256 * 1024 };

struct wire_confirm {
    uint64_t term;
    uint64_t round;
};
struct wire_confirm_reply {
    uint64_t term; /* the newest this member knows */
    uint64_t round;
    bool yes;
};
struct wire_present {
    uint64_t id;
    char name[64];
    char address[128];
    uint64_t last_index; /* 0: an empty log */
};
struct wire_snapshot_read {
    uint64_t index;
    uint64_t offset;
};
struct wire_compare {
    uint64_t index;
    uint64_t agreed_index; /* 0: none */
    uint64_t agreed_hash;
};
struct wire_compare_reply {
    uint64_t index; /* 0: no hash of the one asked for */
    uint64_t hash;
    bool quarantined;
};
struct wire_recall {
    uint64_t term;  /* the newest that the member was heard in */
    uint64_t index; /* that it acknowledged in it */
    bool voted;     /* for the caller, in it */
};
/* a raft.frame; the answer to snapshot.read */
struct wire_bytes {
    struct slice data;
};

extern const struct msg wire_msg_confirm, wire_msg_confirm_reply, wire_msg_present,
    wire_msg_snapshot_read, wire_msg_bytes, wire_msg_recall, wire_msg_compare,
    wire_msg_compare_reply;

#endif
