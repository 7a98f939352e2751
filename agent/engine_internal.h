/* Shared by the engine's files: engine.c (the tick), engine_dcs.c (fill, watch, transactions, proof reads),
 * engine_lease.c (lease and fence), engine_status.c (member record, journal). */
#ifndef REGENT_AGENT_ENGINE_INTERNAL_H
#define REGENT_AGENT_ENGINE_INTERNAL_H

#include "agent/engine.h"
#include "agent/ha_txn.h"
#include "base/assert.h"

enum { ENGINE_MAGIC = 0x52e61e01, ENGINE_HOUSEKEEPING_MS = 1000 };

/* An action that may destroy something runs only after a linearizable read, begun after the plan was made,
 * has shown leader and sync unchanged. */
struct engine_proof {
    uint64_t number; /* of the read that answers; 0: none is asked for */
    bool proven;
    enum plan_action action;
    uint64_t token;
    char target[64];
    uint64_t leader_mod, sync_mod; /* the mirror's when it was asked */
};

/* A read under way. An answer that was asked for another plan, or before a pause, is none. */
struct engine_proof_read {
    struct engine *engine; /* NULL: free */
    uint64_t number;
};

struct engine {
    uint32_t magic;
    struct engine_options o;
    char scope[64], name[64], conn_host[128], api_url[160], pg_version[16];
    char file_waits[200];
    struct mirror mirror;
    struct lease_keeper keeper;
    struct fence_state fence;
    struct view view;
    struct plan plan;
    bool planned;        /* plan holds one */
    struct plan decided; /* the last that was no mere waiting */

    bool connected;
    bool filling;
    uint64_t fill_asked_ms;
    struct buf fill_kvs;    /* the records before the journal, until those behind it are here */
    uint64_t fill_revision; /* of both */
    uint64_t contact_ms;    /* when the last answer from a quorum was asked for; 0: never */

    bool lease_asked; /* a grant is under way */
    uint64_t lease_asked_ms;
    uint64_t lease_retry_ms;
    uint64_t challenge;   /* of the fence, last answered or being answered */
    uint64_t challenge_n; /* renewal that answers it; 0: none under way */
    bool adopt_tried;     /* the lease of a daemon before us has been looked for */
    uint64_t adopt_nonce; /* of the newest try */
    /* Ours was granted or the old one is gone. Before that what the daemon before us held is ours: its
     * lease, and the deadline that the fence keeps for it. */
    bool lease_settled;

    bool txn_pending, txn_unknown, txn_touching;
    uint64_t txn_revision; /* wait for the mirror to show it; 0: no reply yet */
    enum plan_txn txn;
    struct sync_rec txn_sync_before; /* the sync record when it was sent */

    uint64_t dcs_lost_ms; /* since when the DCS is not to be relied on; 0: it is */
    /* the record our own acquisition replaced, until a promotion is requested */
    bool has_sync_before;
    struct sync_rec sync_before;
    uint64_t handover_token;  /* of the newest hand-over to us that was taken note of */
    uint64_t hook_token;      /* pre_promote is asked for it */
    uint64_t permitted_token; /* its answers */
    uint64_t refused_token;

    struct view_busy busy;
    struct engine_proof proof;
    struct engine_proof_read proof_reads[8];
    uint64_t proof_number; /* of the newest read */
    bool may_write; /* a promotion or a start as primary was ordered of this postmaster */
    bool watching_closely;

    uint64_t since_ms;     /* wall clock of the start */
    uint64_t busy_wall_ms; /* wall clock when the action under way was begun */
    uint64_t born_ms;      /* and the one of now_ms */
    struct member_rec published;
    bool member_known; /* `published` hangs on our lease */
    bool publishing;
    bool left_out;     /* there are as many members as there can be, without us */
    bool position_due; /* a renewal was answered since */
    uint64_t journal_number;
    uint64_t journal_written;
    bool journal_trimming;
    uint64_t config_mod; /* of the config last handed to PostgreSQL */
    struct postgres_dynamic configured;
    /* the catalogue of settings that the record has, and the token it was written under */
    uint64_t catalogue_serial, catalogue_token;
    bool catalogue_writing;

    char request_id[40]; /* of the request seen last, and since when */
    uint64_t request_ms;
    char failover_id[40]; /* the same of the request for another leader */
    uint64_t failover_ms;

    bool tilt;
    bool stopping, restarting, stopped, revoking;
    bool ticking, again;
};

static inline uint64_t engine_now(const struct engine *g)
{
    return g->o.ports->now_ms(g->o.arg);
}

/* engine.c: where a member's PostgreSQL is; false when that is not known. */
bool engine_upstream(const struct engine *g, const char *name,
                     struct postgres_upstream *ret_up);

/* engine_dcs.c */
void engine_fill(struct engine *g);
void engine_txn(struct engine *g, const struct plan *p);
void engine_txn_settle(struct engine *g);
/* True when the proof for p is there; else asks for it. */
bool engine_proven(struct engine *g, const struct plan *p);

/* engine_lease.c */
void engine_lease_step(struct engine *g);
uint64_t engine_arm_token(const struct view *v);
void engine_fence_step(struct engine *g);
void engine_revoke(struct engine *g);

/* engine_status.c */
void engine_publish_member(struct engine *g);
void engine_journal(struct engine *g, const struct plan *p);
void engine_configure(struct engine *g);
void engine_publish_settings(struct engine *g);

#endif
