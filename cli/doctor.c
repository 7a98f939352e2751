/* doctor: what an experienced administrator would look at, each with its remedy. */
#include "cli/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "cli/commands.h"
#include "conf/lease_rule.h"

void doctor_say(struct doctor *d, enum doctor_level level, const char *check,
                const char *remedy, const char *fmt, ...)
{
    static const char *const names[] = {"ok", "warn", "fail"};
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->n[level]++;
    output_row(d->out,
               (const char *[]){names[level], check, text, level != DOCTOR_OK ? remedy : NULL});
}

/* ---- the store ---- */

static void look_at_quorum(struct doctor *d, const struct status_reply *s)
{
    bool quorum = s->reachable_voters >= s->quorum && s->leader[0] != '\0';
    bool spare = s->reachable_voters > s->quorum;
    doctor_say(
        d,
        !quorum ? DOCTOR_FAIL
        : spare ? DOCTOR_OK
                : DOCTOR_WARN,
        "quorum",
        !quorum ? "start regentd on the other nodes, or mend the network to them"
                : "bring the missing voters back, or join nodes until there are 3",
        "%" PRIu64 " of %" PRIu64 " voters are reached, %" PRIu64 " are needed; DCS leader %s",
        s->reachable_voters, s->voters, s->quorum, s->leader[0] != '\0' ? s->leader : "none");
    enum { SLOW_US = 50000 };
    doctor_say(d, s->fsync_us_p99 > SLOW_US ? DOCTOR_WARN : DOCTOR_OK, "store disk",
               "put data_dir on a faster disk: each change waits for it",
               "99 of 100 fsyncs of the log take at most %" PRIu64 " us", s->fsync_us_p99);
    if (s->trouble[0] != '\0')
        doctor_say(d, DOCTOR_FAIL, "store", s->trouble_text, "%s: %s", s->name, s->trouble);
}

/* ---- the HA records ---- */

static const struct member_rec *leader_of(const struct cluster *cl)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (cluster_leads(cl, &cl->members[i]))
            return &cl->members[i];
    return NULL;
}

static void look_at_leader(struct doctor *d, const struct cluster *cl)
{
    const struct member_rec *m = leader_of(cl);
    bool runs = m != NULL && strcmp(m->state, "running") == 0;
    doctor_say(d, runs ? DOCTOR_OK : DOCTOR_FAIL, "leader",
               "`regentctl explain` says what is waited for", "%s, %s",
               cl->has_leader ? cl->leader.name : "none",
               m != NULL ? m->state : "PostgreSQL cannot be written");
    if (cl->sync.unknown)
        doctor_say(
            d, DOCTOR_FAIL, "sync record",
            "bring the last leader back, or `regentctl failover --candidate NODE --force`",
            "it is unknown since a recovery: nobody is promoted by itself");
    if (cl->config.pause)
        doctor_say(d, DOCTOR_WARN, "pause", "`regentctl resume`",
                   "paused: no failover happens by itself");
    else if (cl->sync.disarmed)
        doctor_say(
            d, DOCTOR_FAIL, "fence", "`regentctl resume`; `--force` when it is certainly down",
            "%s was paused and holds no deadline yet: nobody else may lead", cl->sync.leader);
}

static void look_at_member(struct doctor *d, const struct cluster *cl,
                           const struct member_rec *m, const struct member_rec *leader)
{
    uint64_t unheard_ms = cl->unheard_ms[m - cl->members];
    bool leads = m == leader;
    bool good = leads || strcmp(m->state, "streaming") == 0;
    if (unheard_ms != 0)
        doctor_say(d, DOCTOR_FAIL, m->name, "is regentd running there? mend its network",
                   "not heard of for %.1f s", (double)unheard_ms / 1000);
    else
        doctor_say(d, good ? DOCTOR_OK : DOCTOR_WARN, m->name,
                   "see `regentctl explain` and its postgresql.log", "%s, %s",
                   cluster_role(cl, m), m->state);
    if (!m->armed)
        doctor_say(d, DOCTOR_FAIL, m->name, "start regent-fence; see its log",
                   "its daemon has no connection to its fence: it cannot lead");
    if (m->sick[0] != '\0')
        doctor_say(d, DOCTOR_FAIL, m->name, "see docs/failures.md, \"sick nodes\"",
                   "sick: %s; %s", m->sick_why, cluster_sick_policy(cl, m));
    struct buf pending CLEANUP(buf_close) = BUF_INIT;
    const char *what = cluster_pending(m, &pending);
    if (m->pending_restart)
        doctor_say(d, DOCTOR_WARN, m->name, "`regentctl restart --pending`",
                   "settings wait for a restart of PostgreSQL: %s", what != NULL ? what : "?");
    if (m->file_waits[0] != '\0')
        doctor_say(d, DOCTOR_WARN, m->name,
                   "systemctl restart regent there: PostgreSQL goes on meanwhile",
                   "keys of its file wait for a new start of regentd: %s", m->file_waits);
    if (leader != NULL && strcmp(m->software, leader->software) != 0)
        doctor_say(d, DOCTOR_WARN, m->name, "finish the upgrade", "Regent %s, and %s on %s",
                   m->software, leader->software, leader->name);
    if (leader != NULL && strcmp(m->pg_version, leader->pg_version) != 0)
        doctor_say(d, DOCTOR_WARN, m->name, "install the same minor release everywhere",
                   "PostgreSQL %s, and %s on %s", m->pg_version, leader->pg_version,
                   leader->name);
}

static void look_at_sync(struct doctor *d, const struct cluster *cl)
{
    size_t able = 0;
    for (size_t i = 0; i < cl->members_n; i++)
        able += !cluster_leads(cl, &cl->members[i]) && !cl->members[i].nosync &&
                !cl->members[i].nofailover;
    const char *mode = cl->config.synchronous_mode;
    bool sync = strcmp(mode, "on") == 0 || strcmp(mode, "quorum") == 0;
    if (!sync) {
        doctor_say(d, DOCTOR_OK, "durability", NULL,
                   "asynchronous: a lost leader may lose up to %" PRIu64 " bytes",
                   cl->config.maximum_lag_on_failover);
    } else if (cl->sync.v_n == 0) {
        doctor_say(d,
                   able > 0 || cl->config.synchronous_mode_strict ? DOCTOR_FAIL : DOCTOR_WARN,
                   "durability", "bring a standby to stream; `regentctl explain durability`",
                   "synchronous_mode is %s, and no standby is synchronous", mode);
    } else {
        bool few = able < cl->config.synchronous_node_count;
        doctor_say(d, few ? DOCTOR_WARN : DOCTOR_OK, "durability",
                   "join a node, or lower synchronous_node_count",
                   "synchronous_mode %s: %zu standby(s) have every acknowledged commit%s", mode,
                   cl->sync.v_n, few ? "; fewer than synchronous_node_count" : "");
    }
}

static void look_at_ttl(struct doctor *d, const struct cluster *cl)
{
    struct errmsg e = {0};
    enum err rv = lease_rule_check(cl->config.ttl * 1000, d->c->config.dcs.election_ms, &e);
    if (rv == ERR_OK)
        doctor_say(d, DOCTOR_OK, "ttl", NULL, "%" PRIu64 " s", cl->config.ttl);
    else
        doctor_say(d, DOCTOR_FAIL, "ttl", "`regentctl edit-config -s ttl=N`", "%s", e.text);
}

/* Members of the store whose agent has no record. */
static void look_for_silent(struct doctor *d, const struct cluster *cl,
                            const struct member_list *list)
{
    for (size_t i = 0; i < list->members_n; i++) {
        const struct member *m = &list->members[i];
        bool heard = strcmp(m->role, "witness") == 0 || strcmp(m->state, "active") != 0;
        for (size_t j = 0; j < cl->members_n; j++)
            heard = heard || strcmp(cl->members[j].name, m->name) == 0;
        if (!heard)
            doctor_say(d, DOCTOR_FAIL, m->name,
                       "start regentd there, or `regentctl member remove` it",
                       "a member of the DCS whose agent is not heard");
        else if (!m->reachable)
            doctor_say(d, DOCTOR_FAIL, m->name,
                       "start regentd there, or mend the network to it",
                       "not reached from here");
    }
}

static void look_at_records(struct doctor *d, const struct cluster *cl,
                            const struct member_list *list)
{
    const struct member_rec *leader = leader_of(cl);
    look_at_leader(d, cl);
    for (size_t i = 0; i < cl->members_n; i++)
        look_at_member(d, cl, &cl->members[i], leader);
    look_for_silent(d, cl, list);
    look_at_sync(d, cl);
    look_at_ttl(d, cl);
    if (leader != NULL && strcmp(leader->state, "running") == 0)
        doctor_postgres(d);
}

static void examine(struct doctor *d)
{
    static struct cluster cl;
    static struct member_list list;
    static const struct empty nothing;
    struct status_reply s;
    doctor_host(d);
    enum err rv = cli_call(d->c, METHOD_CLUSTER_STATUS, &nothing, &s);
    if (rv == ERR_OK)
        look_at_quorum(d, &s);
    if (rv == ERR_OK && s.reachable_voters < s.quorum)
        return; /* the records cannot be read */
    if (rv == ERR_OK)
        rv = cluster_read(d->c, &cl);
    if (rv == ERR_OK)
        rv = cluster_read_ages(d->c, &cl);
    if (rv == ERR_OK)
        rv = cli_call(d->c, METHOD_MEMBER_LIST, &nothing, &list);
    if (rv == ERR_OK)
        look_at_records(d, &cl, &list);
    else
        doctor_say(d, DOCTOR_FAIL, "store", "is regentd running on this node?",
                   "it does not answer");
    cluster_close(&cl);
}

int cmd_doctor(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {{.name = "Level"},
                                                   {.name = "Check"},
                                                   {.name = "Finding"},
                                                   {.name = "Remedy", .optional = true}};
    struct doctor d = {.c = c};
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv); /* said, with lines */
    d.out = output_new(c, NULL, columns, ARRAY_LEN(columns));
    examine(&d);
    output_print(d.out);
    if (c->format == CLI_TABLE)
        (void)printf("%zu ok, %zu warnings, %zu failures\n", d.n[DOCTOR_OK], d.n[DOCTOR_WARN],
                     d.n[DOCTOR_FAIL]);
    return d.n[DOCTOR_FAIL] == 0 ? CLI_DONE : CLI_FAILED;
}
