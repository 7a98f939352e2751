/* Facts about members and the cluster that everybody can ask for. */
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/node_private.h"

const struct raft_server *member_server(const struct raft_membership *m, uint64_t id)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id == id) {
            return &m->servers[i];
        }
    }
    return NULL;
}

size_t node_members(struct node *n, struct member *ret_members, size_t max)
{
    size_t k = 0;
    return state_members(n->state, ret_members, max, &k) == ERR_OK ? k : 0;
}

enum err node_member(struct node *n, uint64_t id, struct member *ret_member)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return state_member(n->state, id, ret_member);
}

bool node_cert_revoked(const struct node *n, const char *name, uint64_t serial)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return state_cert_revoked(n->state, name, serial);
}

uint64_t node_revocations(const struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return state_revocations(n->state);
}

bool node_is_voter(const struct node *n, uint64_t id)
{
    const struct raft_server *s = member_server(raft_core_membership(n->raft), id);
    return s != NULL && s->role == RAFT_ROLE_VOTER;
}

bool node_takes_part(const struct node *n)
{
    return member_server(raft_core_membership(n->raft), n->o.id) != NULL;
}

static void count_voters(const struct node *n, uint64_t *ret_voters, uint64_t *ret_reachable)
{
    const struct raft_membership *m = raft_core_membership(n->raft);
    *ret_voters = *ret_reachable = 0;
    for (size_t i = 0; i < m->n; i++) {
        uint64_t id = m->servers[i].id;
        if (m->servers[i].role == RAFT_ROLE_VOTER) {
            (*ret_voters)++;
            *ret_reachable += id == n->o.id || n->ops->linked(n->arg, id);
        }
    }
}

uint64_t node_program_version(const struct node *n, uint64_t id)
{
    return id == n->o.id ? PROTO_VERSION : n->ops->version(n->arg, id);
}

uint64_t node_version(const struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return state_version(n->state);
}

/* Registered members; `role` is what each has in Raft now, and what it asked for while it joins. */
void member_list_encode(struct node *n, struct buf *ret_reply)
{
    struct member_list *list = mem_alloc(sizeof *list);
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t k = node_members(n, all, MEMBERS_MAX);
    const struct raft_membership *m = raft_core_membership(n->raft);
    uint64_t last = raft_core_last_index(n->raft), reachable;
    for (size_t i = 0; i < k; i++) {
        const struct raft_server *s = member_server(m, all[i].id);
        struct member *to = &list->members[list->members_n];
        if (strcmp(all[i].state, "removed") == 0) {
            continue;
        }
        *to = all[i];
        list->members_n++;
        if (s != NULL && s->role != RAFT_ROLE_VOTER) {
            (void)snprintf(to->role, sizeof to->role, "learner");
        }
        if (s != NULL && node_is_leader(n)) {
            to->match_index = to->id == n->o.id ? last : raft_core_match_index(n->raft, to->id);
            to->lag_entries = last - MIN(last, to->match_index);
        }
        if (compare_quarantined(n, to->id)) {
            memcpy(to->state, "quarantined", sizeof "quarantined");
        }
        to->leader = to->id == raft_core_leader(n->raft);
        to->reachable = to->id == n->o.id || n->ops->linked(n->arg, to->id);
        to->version = node_program_version(n, to->id);
    }
    list->leader_id = raft_core_leader(n->raft);
    list->term = raft_core_term(n->raft);
    list->revision = state_revision(n->state);
    count_voters(n, &list->voters, &reachable);
    list->quorum = list->voters / 2 + 1;
    list->target = state_voters_max(n->state);
    msg_encode(&msg_member_list, list, ret_reply);
    mem_free(all);
    mem_free(list);
}

static void tell_latencies(const struct node *n, struct status_reply *s)
{
    latency_tell(&n->fsync, "fsync", &s->latencies[s->latencies_n++]);
    latency_tell(&n->commit, "commit", &s->latencies[s->latencies_n++]);
    latency_tell(&n->apply, "apply", &s->latencies[s->latencies_n++]);
    latency_tell(&n->round, "round", &s->latencies[s->latencies_n++]);
    latency_tell(&n->state_commit, "state", &s->latencies[s->latencies_n++]);
    latency_tell(&n->loop, "loop", &s->latencies[s->latencies_n++]);
}

static void tell_trouble(const struct node *n, struct status_reply *s)
{
    const char *name = n->out == NODE_QUARANTINED                        ? "quarantined"
                       : n->out == NODE_REMOVED                          ? "removed"
                       : n->compare.split                                ? "state_differs"
                       : n->disk_full                                    ? "disk_full"
                       : state_admit(n->state, 1, false, NULL) != ERR_OK ? "no_space"
                                                                         : "";
    str_cut(s->trouble, sizeof s->trouble, name);
    str_cut(s->trouble_text, sizeof s->trouble_text, n->out_text);
}

void node_status(struct node *n, struct status_reply *ret_status)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    static const char *const states[] = {[RAFT_CORE_FOLLOWER] = "follower",
                                         [RAFT_CORE_CANDIDATE] = "candidate",
                                         [RAFT_CORE_LEADER] = "leader"};
    struct status_reply *s = ret_status;
    struct member leader;
    memset(s, 0, sizeof *s);
    memcpy(s->cluster_id, n->cluster_id, sizeof s->cluster_id);
    memcpy(s->name, n->name, sizeof s->name);
    s->member_id = n->o.id;
    (void)snprintf(s->state, sizeof s->state, "%s", states[raft_core_state(n->raft)]);
    s->leader_id = raft_core_leader(n->raft);
    if (s->leader_id != 0 && node_member(n, s->leader_id, &leader) == ERR_OK) {
        memcpy(s->leader, leader.name, sizeof s->leader);
    }
    s->term = raft_core_term(n->raft);
    s->revision = state_revision(n->state);
    s->compacted_revision = state_compacted(n->state);
    s->last_index = raft_core_last_index(n->raft);
    s->commit_index = raft_core_commit_index(n->raft);
    s->applied_index = raft_core_applied_index(n->raft);
    s->log_bytes = raft_core_log_bytes(n->raft);
    s->db_bytes = state_db_bytes(n->state);
    count_voters(n, &s->voters, &s->reachable_voters);
    s->quorum = s->voters / 2 + 1;
    s->fsync_us_p99 = n->fsync_us;
    tell_latencies(n, s);
    tell_trouble(n, s);
    s->learner = node_takes_part(n) && !node_is_voter(n, n->o.id);
    s->quota_bytes = state_quota_bytes();
    s->requests = n->n_requests;
    s->slow_requests = n->slow_total;
    s->leader_changes = n->leader_changes;
    s->watches = n->hub.n;
    s->watches_behind = watch_hub_behind(&n->hub);
    s->version = state_version(n->state);
    s->program_version = PROTO_VERSION;
}

void node_commit_full(struct node *n)
{
    state_commit_full(n->state,
                      MIN(raft_core_stored_index(n->raft), raft_core_commit_index(n->raft)));
}

enum err node_copy(struct node *n, struct state_copy **ret_copy, struct snapshot_info *ret_info,
                   struct errmsg *e)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    enum err out = node_out(n, e);
    if (out != ERR_OK) {
        return out;
    }
    if (state_is_restoring(n->state)) {
        return err_set(
            e, ERR_UNAVAILABLE,
            "the state of this node is being replaced by a snapshot; ask another node, "
            "or try again");
    }
    node_commit_full(n);
    *ret_info = (struct snapshot_info){.index = state_db_applied(n->state),
                                       .term = raft_core_term(n->raft),
                                       .revision = state_revision(n->state)};
    memcpy(ret_info->cluster_id, n->cluster_id, sizeof ret_info->cluster_id);
    memcpy(ret_info->member, n->name, sizeof ret_info->member);
    return state_copy_begin(n->state, ret_copy, e);
}

/* At an index of which all members have one, the lease counters included: so everything is committed. */
void node_hash_begin(struct node *n, uint64_t index)
{
    struct state_copy *copy = NULL;
    struct errmsg e;
    if (n->ops->hash == NULL || n->hashing) {
        return; /* one at a time: a log may hold many marks */
    }
    node_commit_full(n);
    if (state_copy_begin(n->state, &copy, &e) != ERR_OK) {
        log_event(LOG_WARN, "hash_failed", NO_KV, "%s", e.text);
        return;
    }
    n->hash_index = index;
    n->hash_ready = false;
    n->hashing = true;
    n->ops->hash(n->arg, copy);
}

void node_hashed(struct node *n, enum err status, const char *text, uint64_t hash)
{
    bool ok = status == ERR_OK;
    CHECK_MAGIC(n, NODE_MAGIC);
    ASSERT(n->hashing);
    n->hashing = false;
    n->hash = hash;
    n->hash_ready = ok;
    n->hash_index = ok ? n->hash_index : 0;
    if (status == ERR_CORRUPT) {
        node_leave(n, NODE_QUARANTINED, text); /* damaged since it was opened */
    } else if (!ok) {
        log_event(LOG_WARN, "hash_failed", NO_KV, "%s", text);
    }
}

enum err node_hash(const struct node *n, uint64_t index, struct hash_reply *ret_reply,
                   struct errmsg *e)
{
    enum err out = node_out(n, e);
    if (out != ERR_OK) {
        return out;
    }
    if (index == 0 || index > raft_core_applied_index(n->raft)) {
        return err_set(e, ERR_UNAVAILABLE, "%s has not come to index %llu yet", n->name,
                       (unsigned long long)index);
    }
    if (index != n->hash_index) {
        return err_set(e, ERR_NOT_FOUND, "%s has no hash of index %llu", n->name,
                       (unsigned long long)index);
    }
    if (!n->hash_ready) {
        return err_set(e, ERR_UNAVAILABLE, "the hash is not ready yet");
    }
    *ret_reply = (struct hash_reply){.index = index, .hash = n->hash};
    memcpy(ret_reply->member, n->name, sizeof ret_reply->member);
    return ERR_OK;
}

bool node_is_leader(const struct node *n)
{
    return n->leading_term != 0 && raft_core_state(n->raft) == RAFT_CORE_LEADER &&
           raft_core_term(n->raft) == n->leading_term;
}

uint64_t node_leader(const struct node *n)
{
    return raft_core_leader(n->raft);
}

uint64_t node_term(const struct node *n)
{
    return raft_core_term(n->raft);
}

uint64_t node_last_index(const struct node *n)
{
    return raft_core_last_index(n->raft);
}

uint64_t node_revision(const struct node *n)
{
    return state_revision(n->state);
}

uint64_t node_applied(const struct node *n)
{
    return state_db_applied(n->state);
}

void node_set_fsync(struct node *n, uint64_t p99_us, const struct latency *all)
{
    n->fsync_us = p99_us;
    n->fsync = *all;
}
