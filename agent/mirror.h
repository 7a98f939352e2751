/* This node's copy of the HA records below /regent/<scope>/, at one revision: filled from a range,
 * kept current by a watch. No I/O: whoever owns the connection feeds it. Loop thread of the agent. */
#ifndef REGENT_AGENT_MIRROR_H
#define REGENT_AGENT_MIRROR_H

#include "agent/core/view.h"

enum { MIRROR_KEY_MAX = 256 };

struct mirror_meta {
    bool present;
    bool unreadable; /* there is one, but it cannot be read, and none before it is known */
    uint64_t mod_revision;
    uint64_t lease;
};

struct mirror {
    char prefix[MIRROR_KEY_MAX]; /* "/regent/demo/" */
    uint64_t revision;
    bool complete; /* filled, and the watch has not been lost since */
    struct mirror_meta initialize_meta, leader_meta, sync_meta, failover_meta, config_meta,
        history_meta, status_meta;
    struct initialize_rec initialize;
    struct leader_rec leader;
    struct sync_rec sync;
    struct sync_rec sync_before; /* which the newest replaced; none after a fill */
    bool has_sync_before;
    struct failover_rec failover;
    struct config_rec config;
    struct msg_arena config_arena; /* what the RAW fields of `config` point into */
    struct history_rec history;
    struct status_rec status;
    char self[64]; /* whose request is kept; set by the owner, "" nobody's */
    struct request_rec request;
    struct result_rec result; /* of its last one */
    struct mirror_meta request_meta, result_meta;
    struct member_rec members[VIEW_MEMBERS]; /* sorted by name */
    uint64_t member_mods[VIEW_MEMBERS];
    size_t members_n;
    struct seal_rec seals[VIEW_MEMBERS];
    uint64_t seal_mods[VIEW_MEMBERS];
    size_t seals_n;
    uint64_t leader_lost_ms; /* when the leader key was first seen absent; 0: present */
    uint64_t leader_token, leader_since_ms; /* the newest seen in the key, and when first */
    char sick_leader[40];                   /* view.sick_leader */
    char lsn_of[40];                        /* incarnation of a leader, and ... */
    uint64_t leader_lsn;                    /* ... the furthest it said of itself */
};

enum err mirror_init(struct mirror *m, const char *scope) MUST_CHECK;
void mirror_close(struct mirror *m);
/* "/regent/<scope>/<name>"; the key of a record. */
enum err mirror_key(const struct mirror *m, char ret[static MIRROR_KEY_MAX], const char *fmt,
                    ...) PRINTF(3, 4) MUST_CHECK;

/* mod_revision of members/<name>; 0: there is none. */
uint64_t mirror_member_mod(const struct mirror *m, const char *name);

/* Before the first fill: the dynamic configuration alone, from a range reply over its key. The mirror stays incomplete. */
enum err mirror_config(struct mirror *m, const struct range_reply *r, struct errmsg *e)
    MUST_CHECK;
/* Starts over from a range reply over the whole prefix (journal excluded or not). ERR_CORRUPT names
 * the record that cannot be read; the others are taken. */
enum err mirror_fill(struct mirror *m, const struct range_reply *r, uint64_t now_ms,
                     struct errmsg *e) MUST_CHECK;
/* The same from two replies of one revision, taken over together: what comes before the journal and what
 * comes behind it. The journal alone can fill a message. */
enum err mirror_fill_two(struct mirror *m, const struct range_reply *first,
                         const struct range_reply *second, uint64_t now_ms, struct errmsg *e)
    MUST_CHECK;
/* All events of one revision. */
enum err mirror_events(struct mirror *m, const struct watch_event *ev, uint64_t now_ms,
                       struct errmsg *e) MUST_CHECK;
void mirror_lost(struct mirror *m);
/* Filled, and of what decisions rest on nothing is unreadable. */
bool mirror_ready(const struct mirror *m);
/* The first of that which is; NULL: none. */
const char *mirror_unreadable(const struct mirror *m);

/* The DCS part of a view. `bootstrap` stands in for the config record until there is one. */
void mirror_view(const struct mirror *m, const struct config_rec *bootstrap,
                 struct view *ret_view);
/* From JSON as a person writes it (bootstrap.dcs, edit-config): absent keys get their defaults, unknown
 * ones are refused. `arena` owns what the record borrows. */
enum err config_from_json(struct slice json, struct config_rec *ret_config,
                          struct msg_arena *arena, struct errmsg *e) MUST_CHECK;

#endif
