/* what-if lose NODE...: the records of now without these nodes, given to the very rules that the agents decide by. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/core/plan.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

enum { NOW_MS = 1000000, LOST_FOR_MS = 2000 };

struct lost {
    char *const *names;
    size_t n;
};

struct outcome {
    struct cluster *cl;
    struct history_rec history;
    struct lost lost;
    uint64_t voters, voters_left, quorum;
    const struct member_rec *old; /* the leader, if it has a record */
    const struct member_rec *new; /* who leads afterwards; NULL: nobody */
    bool known, leader_lost;
    json_t *nodes; /* of those that are left: name, rule, reason */
};

static bool is_lost(const struct lost *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->names[i], name) == 0)
            return true;
    return false;
}

/* ---- the store ---- */

/* o->known: each of the lost is a member; else it is said which is none. */
static enum err count_voters(struct cli *c, struct outcome *o)
{
    static const struct empty nothing;
    static struct member_list list;
    enum err rv = cli_call(c, METHOD_MEMBER_LIST, &nothing, &list);
    if (rv != ERR_OK)
        return rv;
    for (size_t k = 0; k < o->lost.n; k++) {
        bool known = false;
        for (size_t i = 0; i < list.members_n; i++)
            known = known || strcmp(list.members[i].name, o->lost.names[k]) == 0;
        if (!known) {
            (void)cli_fail(ERR_NOT_FOUND,
                           "no node \"%s\" is a member; `regentctl member list` shows them",
                           o->lost.names[k]);
            return ERR_OK;
        }
    }
    for (size_t i = 0; i < list.members_n; i++) {
        const struct member *m = &list.members[i];
        bool votes = strcmp(m->role, "learner") != 0 && strcmp(m->state, "active") == 0;
        o->voters += votes;
        o->voters_left += votes && m->reachable && !is_lost(&o->lost, m->name);
    }
    o->quorum = o->voters / 2 + 1;
    o->known = true;
    return ERR_OK;
}

/* ---- views ---- */

static void common(const struct outcome *o, struct view *v)
{
    const struct cluster *cl = o->cl;
    *v = (struct view){.now_ms = NOW_MS, .dcs_ready = true, .revision = 1};
    config_view(&cl->config, &v->config);
    v->has_initialize = true;
    v->initialize = cl->initialize;
    v->has_sync = true;
    v->sync = cl->sync;
    v->sync_mod_revision = 1;
    for (size_t i = 0; i < cl->members_n; i++)
        if (strcmp(cl->members[i].incarnation, v->sync.incarnation) == 0)
            v->leader_lsn = cl->members[i].lsn;
    for (size_t i = 0; i < cl->members_n && v->members_n < VIEW_MEMBERS; i++)
        if (!is_lost(&o->lost, cl->members[i].name))
            v->members[v->members_n++] = cl->members[i];
    size_t skip = o->history.entries_n > VIEW_HISTORY ? o->history.entries_n - VIEW_HISTORY : 0;
    v->history_n = o->history.entries_n - skip;
    memcpy(v->history, &o->history.entries[skip], v->history_n * sizeof v->history[0]);
}

static void as_node(const struct outcome *o, const struct member_rec *m, struct view *v)
{
    str_cut(v->self, sizeof v->self, m->name);
    v->lease = m->lease;
    v->deadline_ms = NOW_MS + v->config.ttl_ms;
    v->nofailover = m->nofailover || m->failover_priority <= 0;
    v->nosync = m->nosync;
    bool runs = strcmp(m->state, "running") == 0 || strcmp(m->state, "streaming") == 0;
    v->pg = (struct view_pg){.data = m->incarnation[0] != '\0' ? PG_DATA_OURS : PG_DATA_EMPTY,
                             .proc = runs ? PG_PROC_RUNNING : PG_PROC_STOPPED,
                             .accepts = runs,
                             .system_id = o->cl->initialize.system_id,
                             .timeline = m->timeline,
                             .lsn = m->lsn,
                             .replay_lsn = m->replay_lsn,
                             .roles_ready = true,
                             .checkpointed = true};
    str_cut(v->pg.incarnation, sizeof v->pg.incarnation, m->incarnation);
}

/* The leader is gone, this node and the others are cut off from it and have said what they have. */
static void as_sealed(const struct outcome *o, const struct member_rec *m, struct view *v)
{
    common(o, v);
    as_node(o, m, v);
    v->lost_ms = NOW_MS - LOST_FOR_MS;
    v->pg.standby_signal = true;
    v->pg.in_recovery = v->pg.proc == PG_PROC_RUNNING;
    v->pg.sealed_token = v->sync.token;
    v->pg.sealed_lsn = m->lsn;
    v->pg.sealed_timeline = m->timeline;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *s = &v->members[i];
        bool seals = strcmp(s->state, "running") == 0 || strcmp(s->state, "streaming") == 0;
        if (!seals)
            continue;
        struct seal_rec *seal = &v->seals[v->seals_n];
        *seal =
            (struct seal_rec){.token = v->sync.token, .timeline = s->timeline, .lsn = s->lsn};
        str_cut(seal->name, sizeof seal->name, s->name);
        str_cut(seal->incarnation, sizeof seal->incarnation, s->incarnation);
        v->seal_mod_revisions[v->seals_n++] = 1;
    }
}

/* The leader goes on and sees that walsenders have ended. */
static void as_leader(const struct outcome *o, const struct member_rec *m, struct view *v)
{
    common(o, v);
    as_node(o, m, v);
    v->has_leader = true;
    v->leader = o->cl->leader;
    v->leader_lease = m->lease;
    v->armed = true;
    v->pg.set_known = true;
    v->pg.set_confirmed = true;
    v->pg.set.k = v->sync.v_n > 0 ? 1 : 0;
    v->pg.set.s_n = v->sync.v_n;
    memcpy(v->pg.set.s, v->sync.v, v->sync.v_n * sizeof v->sync.v[0]);
    if (strcmp(v->sync.mode, "on") == 0)
        v->pg.set.k = v->sync.v_n;
    else if (v->sync.v_n > 0)
        v->pg.set.k = v->sync.v_n + 1 - MIN(v->sync.q, v->sync.v_n);
    for (size_t i = 0; i < v->members_n && v->pg.senders_n < VIEW_WALSENDERS; i++) {
        const struct member_rec *s = &v->members[i];
        if (strcmp(s->upstream, m->name) != 0)
            continue;
        struct view_walsender *w = &v->pg.senders[v->pg.senders_n++];
        *w = (struct view_walsender){.streaming = true, .flush_lsn = s->lsn};
        str_cut(w->incarnation, sizeof w->incarnation, s->incarnation);
        str_cut(w->name, sizeof w->name, s->name);
    }
}

/* ---- deciding ---- */

static void note(struct outcome *o, const struct member_rec *m, const struct plan *p)
{
    json_array_append_new(o->nodes, json_pack("{s:s,s:s,s:s}", "name", m->name, "rule", p->rule,
                                              "reason", p->reason));
}

static void ask_all(struct outcome *o)
{
    static struct view v;
    struct plan p;
    const struct cluster *cl = o->cl;
    for (size_t i = 0; i < cl->members_n; i++) {
        const struct member_rec *m = &cl->members[i];
        bool leads = cluster_leads(cl, m);
        if (is_lost(&o->lost, m->name) || (!o->leader_lost && !leads))
            continue;
        if (o->leader_lost)
            as_sealed(o, m, &v);
        else
            as_leader(o, m, &v);
        decide(&v, &p);
        note(o, m, &p);
        if (!o->leader_lost || p.txn == TXN_ACQUIRE)
            o->new = m;
    }
}

static bool sync_protects(const struct outcome *o)
{
    return (strcmp(o->cl->sync.mode, "on") == 0 || strcmp(o->cl->sync.mode, "quorum") == 0) &&
           o->cl->sync.v_n > 0;
}

/* Bytes that the leader had more than the next one, as both last said; 0: nothing acknowledged is lost. */
static uint64_t may_be_lost(const struct outcome *o)
{
    if (!o->leader_lost || o->new == NULL || o->old == NULL || sync_protects(o))
        return 0;
    return o->old->lsn - MIN(o->old->lsn, o->new->lsn);
}

/* ---- words ---- */

static void say_nodes(const struct outcome *o)
{
    size_t i;
    json_t *n;
    json_array_foreach(o->nodes, i, n)(void)
        printf("  %s: %s: %s\n", json_string_value(json_object_get(n, "name")),
               json_string_value(json_object_get(n, "rule")),
               json_string_value(json_object_get(n, "reason")));
}

static void say_quorum(const struct outcome *o)
{
    bool stays = o->voters_left >= o->quorum;
    (void)printf("quorum       %s: %" PRIu64 " of %" PRIu64 " voters are left, %" PRIu64
                 " are needed\n",
                 stays ? "stays" : "lost", o->voters_left, o->voters, o->quorum);
    if (stays)
        (void)printf("may be lost  %" PRIu64 " more voter(s) after that\n",
                     o->voters_left - o->quorum);
    else
        (void)printf("             nothing can be decided: the primary stops within %" PRIu64
                     " s (unless paused), standbys go on being read\n",
                     o->cl->config.ttl);
}

static void say_leader(const struct outcome *o)
{
    if (!o->cl->has_leader)
        (void)printf("leader       there is none now\n");
    else if (!o->leader_lost)
        (void)printf("leader       %s goes on\n", o->cl->leader.name);
    else
        (void)printf("leader       %s is lost; %s%s\n", o->cl->leader.name,
                     o->new != NULL ? o->new->name : "nobody",
                     o->new != NULL ? " is elected when its lease ends"
                                    : " is elected by itself");
    say_nodes(o);
}

static void say_loss(const struct outcome *o)
{
    uint64_t bytes = may_be_lost(o);
    if (!o->leader_lost || o->new == NULL)
        (void)printf("commits      nothing is lost\n");
    else if (sync_protects(o))
        (void)printf(
            "commits      nothing that was acknowledged is lost (synchronous_mode %s)\n",
            o->cl->sync.mode);
    else
        (void)printf("commits      what %s had not received is lost: %" PRIu64
                     " bytes when both last said where they are\n",
                     o->new->name, bytes);
}

static void print_json(const struct outcome *o, bool primary)
{
    json_t *lost = json_array();
    for (size_t i = 0; i < o->lost.n; i++)
        json_array_append_new(lost, json_string(o->lost.names[i]));
    json_t *j = json_pack("{s:o,s:b,s:I,s:I,s:s?,s:I,s:O}", "lost", lost, "quorum",
                          o->voters_left >= o->quorum, "voters_left",
                          (json_int_t)o->voters_left, "voters_needed", (json_int_t)o->quorum,
                          "leader", primary ? o->new->name : NULL, "bytes_lost",
                          (json_int_t)may_be_lost(o), "nodes", o->nodes);
    char *text = json_dumps(j, JSON_COMPACT);
    (void)printf("%s\n", text);
    free(text);
    json_decref(j);
}

static int answer(struct cli *c, struct outcome *o)
{
    bool quorum = o->voters_left >= o->quorum;
    o->nodes = json_array();
    if (quorum)
        ask_all(o);
    bool primary = o->new != NULL;
    if (c->format == CLI_JSON) {
        print_json(o, primary);
    } else {
        say_quorum(o);
        if (quorum)
            say_leader(o);
        if (quorum)
            say_loss(o);
    }
    json_decref(o->nodes);
    return primary ? CLI_DONE : CLI_FAILED;
}

int cmd_what_if(struct cli *c, int argc, char **argv)
{
    static struct cluster cl;
    static struct outcome o;
    static const struct option none[] = {{NULL, 0, NULL, 0}};
    optind = 1;
    if (cli_option(argc, argv, none) == CLI_BAD_OPTION)
        return CLI_USAGE;
    if (optind == argc)
        return cli_usage("which NODE...?");
    o.lost = (struct lost){.names = argv + optind, .n = (size_t)(argc - optind)};
    o.cl = &cl;
    enum err rv = cluster_read(c, &cl);
    if (rv == ERR_OK)
        rv = count_voters(c, &o);
    if (rv == ERR_OK && !o.known)
        return CLI_FAILED; /* said */
    if (rv == ERR_OK)
        rv = cli_record(c, "history", &msg_history_rec, &o.history, NULL, NULL);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    for (size_t i = 0; i < cl.members_n; i++)
        if (cluster_leads(&cl, &cl.members[i]))
            o.old = &cl.members[i];
    o.leader_lost = !cl.has_leader || is_lost(&o.lost, cl.leader.name);
    int code = answer(c, &o);
    cluster_close(&cl);
    return code;
}
