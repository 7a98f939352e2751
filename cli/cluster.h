/* The HA records that describe the cluster, as a person wants to see them. */
#ifndef REGENT_CLI_CLUSTER_H
#define REGENT_CLI_CLUSTER_H

#include "cli/cli.h"

struct cluster {
    struct member_rec members[MEMBERS_MAX]; /* those with a live agent, sorted by name */
    size_t members_n;
    struct leader_rec leader;
    struct sync_rec sync;
    struct initialize_rec initialize;
    struct config_rec config;
    struct failover_rec failover; /* id "": nothing is asked for */
    struct status_rec status;
    bool has_leader;
    /* Since when a member's agent has not renewed its lease, by the clock of the node asked; 0: it did lately,
     * or that is not known. What its record says is as old. */
    uint64_t unheard_ms[MEMBERS_MAX];
    struct msg_arena arena; /* owns what config points to */
};

enum err cluster_read(struct cli *c, struct cluster *ret) MUST_CHECK;
/* Fills unheard_ms: one more question. */
enum err cluster_read_ages(struct cli *c, struct cluster *cl) MUST_CHECK;
void cluster_close(struct cluster *cl);
bool cluster_leads(const struct cluster *cl, const struct member_rec *m);
/* "Leader", "Standby Leader", "Sync Standby", "Quorum Standby", "Replica": patronictl's words. */
const char *cluster_role(const struct cluster *cl, const struct member_rec *m);
/* Where the leader is; without one, the most advanced member. */
uint64_t cluster_top_lsn(const struct cluster *cl);

/* What waits for a restart of its PostgreSQL, "max_connections: 100->200, ..."; NULL: nothing, or not known. */
const char *cluster_pending(const struct member_rec *m, struct buf *ret);
/* How far its data is, being cloned, rewound or made: "41 % copied, for 12 s", "512 MB so far, for 35 s"; "": it is not. */
void cluster_copying(const struct member_rec *m, char *ret, size_t size);
/* What follows from a member's sickness, in words. */
const char *cluster_sick_policy(const struct cluster *cl, const struct member_rec *m);

/* why.c */
int explain_why_not(struct cli *c, const char *node);
/* Says nothing when there is a leader; else what each node waits for. */
enum err explain_nobody(struct cli *c) MUST_CHECK;
int explain_durability(struct cli *c);

#endif
