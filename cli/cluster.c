#include "cli/cluster.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "proto/model.h"

/* A record that cannot be read is no reason to hide the others. */
static enum err take(const struct msg *m, const struct kv *kv, void *ret,
                     struct msg_arena *arena, struct errmsg *e)
{
    return msg_from_json(m, kv->value, ret, arena, e);
}

static enum err take_member(struct cluster *cl, const struct kv *kv, struct errmsg *e)
{
    if (cl->members_n == MEMBERS_MAX)
        return ERR_OK;
    enum err rv = take(&msg_member_rec, kv, &cl->members[cl->members_n], NULL, e);
    cl->members_n += rv == ERR_OK;
    return rv;
}

static enum err take_record(void *arg, const char *name, const struct kv *kv, struct errmsg *e)
{
    struct cluster *cl = arg;
    if (strncmp(name, "members/", strlen("members/")) == 0)
        return take_member(cl, kv, e);
    const struct {
        const char *name;
        const struct msg *m;
        void *at;
    } records[] = {{"leader", &msg_leader_rec, &cl->leader},
                   {"sync", &msg_sync_rec, &cl->sync},
                   {"initialize", &msg_initialize_rec, &cl->initialize},
                   {"failover", &msg_failover_rec, &cl->failover},
                   {"status", &msg_status_rec, &cl->status},
                   {"config", &msg_config_rec, &cl->config}};
    for (size_t i = 0; i < ARRAY_LEN(records); i++) {
        if (strcmp(name, records[i].name) != 0)
            continue;
        cl->has_leader = cl->has_leader || records[i].at == &cl->leader;
        return take(records[i].m, kv, records[i].at, &cl->arena, e);
    }
    return ERR_OK; /* history, seals */
}

/* Two reads, around the journal, which is long. Leader, members and sync come in one, so that they
 * are of one revision and never show two leaders. */
enum err cluster_read(struct cli *c, struct cluster *ret)
{
    *ret = (struct cluster){0};
    enum err rv = cli_records(c, "config", "journal/", take_record, ret);
    return rv == ERR_OK ? cli_records(c, "leader", "sync0", take_record, ret) : rv;
}

/* An agent renews four times a TTL: who has missed two is not there, or was not a moment ago. */
static void note_age(struct cluster *cl, const struct lease_state *s)
{
    uint64_t age_ms = s->ttl_ms - MIN(s->ttl_ms, s->remaining_ms);
    for (size_t i = 0; i < cl->members_n; i++)
        if (cl->members[i].lease == s->id && age_ms > s->ttl_ms / 2)
            cl->unheard_ms[i] = age_ms;
}

enum err cluster_read_ages(struct cli *c, struct cluster *cl)
{
    struct lease_list list;
    struct msg_iter it;
    struct lease_state s;
    enum err rv = cli_call(c, METHOD_LEASE_INFO, &(struct lease_ref){.local = true}, &list);
    if (rv == ERR_OK)
        rv = msg_iter_init(&it, list.leases);
    while (rv == ERR_OK && (rv = msg_iter_next(&it, &msg_lease_state, &s, NULL)) == ERR_OK)
        note_age(cl, &s);
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

void cluster_close(struct cluster *cl)
{
    msg_arena_close(&cl->arena);
}

bool cluster_leads(const struct cluster *cl, const struct member_rec *m)
{
    return cl->has_leader && strcmp(cl->leader.name, m->name) == 0;
}

const char *cluster_role(const struct cluster *cl, const struct member_rec *m)
{
    if (cluster_leads(cl, m))
        return cl->leader.standby ? "Standby Leader" : "Leader";
    if (!model_is_sync(&cl->sync, m))
        return "Replica";
    return strcmp(cl->sync.mode, "quorum") == 0 ? "Quorum Standby" : "Sync Standby";
}

uint64_t cluster_top_lsn(const struct cluster *cl)
{
    uint64_t top = 0;
    for (size_t i = 0; i < cl->members_n; i++)
        if (cluster_leads(cl, &cl->members[i]))
            top = cl->members[i].lsn;
    for (size_t i = 0; top == 0 && i < cl->members_n; i++)
        top = MAX(top, cl->members[i].lsn);
    return top;
}

void cluster_copying(const struct member_rec *m, char *ret, size_t size)
{
    enum { MIB = 1048576 };
    char how[40] = "";
    uint64_t now_ms = clock_wall_ms();
    ret[0] = '\0';
    if (m->copied != 0)
        (void)snprintf(how, sizeof how, "%" PRIu64 " %% copied, ", m->copied);
    else if (m->copied_bytes != 0)
        (void)snprintf(how, sizeof how, "%" PRIu64 " MB so far, ", m->copied_bytes / MIB);
    if (m->copy_since_ms != 0)
        (void)snprintf(ret, size, "%sfor %" PRIu64 " s", how,
                       (now_ms - MIN(now_ms, m->copy_since_ms)) / 1000);
}

const char *cluster_sick_policy(const struct cluster *cl, const struct member_rec *m)
{
    if (strcmp(cl->config.on_sick_node, "failover") != 0)
        return "on_sick_node is report: nothing follows from it";
    if (cl->config.pause)
        return "the cluster is paused: nothing follows from it";
    return cluster_leads(cl, m)
               ? "when it lasts, a healthy node takes over (on_sick_node: failover)"
               : "it is chosen after all others (on_sick_node: failover)";
}
