/* Who may be promoted, and who should. */
#include "agent/core/candidate.h"

#include <stdio.h>

#include "agent/core/rules.h"
#include "base/assert.h"
#include "base/mutant.h"

/* A seal that counts for this loss, with what its order rests on. */
struct stand {
    size_t seal; /* index into view.seals */
    size_t rank; /* lineage */
    uint64_t lsn;
    const struct member_rec *member; /* NULL: sealed, but its agent is not alive */
};

struct poll {
    struct stand s[VIEW_MEMBERS];
    size_t n;
    size_t self;    /* index of this node's own; n: not sealed */
    size_t awaited; /* live members that may still seal and stand */
};

static bool may_count(const struct view *v, const char *incarnation)
{
    if (view_record_mode(v) == SYNC_OFF || MUTANT(count_outside_v))
        return incarnation[0] != '\0';
    return view_in_v(v, incarnation);
}

static void gather(const struct view *v, struct poll *f)
{
    (void)memset(f, 0, sizeof *f);
    ASSERT(v->seals_n <= VIEW_MEMBERS);
    for (size_t i = 0; i < v->seals_n; i++) {
        const struct seal_rec *s = &v->seals[i];
        bool of_this_loss = s->token == v->sync.token || MUTANT(count_old_seals);
        if (!of_this_loss || !may_count(v, s->incarnation))
            continue;
        size_t rank = lineage_rank(v, s->lineage, s->timeline, s->lsn);
        if (rank == 0 && !MUTANT(elect_foreign_lineage))
            continue; /* outside the recorded lineage */
        f->s[f->n++] = (struct stand){.seal = i,
                                      .rank = rank,
                                      .lsn = s->lsn,
                                      .member = view_member_of(v, s->incarnation)};
    }
    f->self = f->n;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(v->seals[f->s[i].seal].incarnation, v->pg.incarnation) == 0)
            f->self = i;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        if (!m->nofailover && !member_sick(v, m) && may_count(v, m->incarnation) &&
            view_seal_of(v, m->incarnation, v->sync.token) == NULL)
            f->awaited++;
    }
}

/* More, as much, or less of the log: the part that safety rests on. */
static int compare_log(const struct stand *a, const struct stand *b)
{
    if (a->rank != b->rank)
        return a->rank > b->rank ? 1 : -1;
    if (MUTANT(elect_any_of_v))
        return 0;
    return (a->lsn > b->lsn) - (a->lsn < b->lsn);
}

static uint64_t replay_lag(const struct stand *a)
{
    uint64_t replayed = a->member == NULL ? 0 : a->member->replay_lsn;
    return a->lsn > replayed ? a->lsn - replayed : 0;
}

/* A total order on live ones: two nodes never both think that the other is better. */
static bool better(const struct stand *a, const struct stand *b)
{
    ASSERT(a->member != NULL && b->member != NULL);
    int log = compare_log(a, b);
    if (log != 0)
        return log > 0;
    if (a->member->failover_priority != b->member->failover_priority)
        return a->member->failover_priority > b->member->failover_priority;
    if (replay_lag(a) != replay_lag(b))
        return replay_lag(a) < replay_lag(b);
    return strcmp(a->member->name, b->member->name) < 0;
}

/* Every seal that is not ahead of ours may be counted; at least q of V makes an acquisition safe. */
static bool count_seals(const struct view *v, const struct poll *f, struct plan *p)
{
    const struct stand *self = &f->s[f->self];
    p->counted_n = 0;
    for (size_t i = 0; i < f->n; i++)
        if (compare_log(self, &f->s[i]) >= 0)
            p->counted[p->counted_n++] = f->s[i].seal;
    return view_record_mode(v) == SYNC_OFF || MUTANT(elect_below_quorum) ||
           (v->sync.v_n > 0 && p->counted_n >= v->sync.q);
}

/* Without synchronous replication a commit may be lost, but not more than was permitted. */
static bool too_far_behind(const struct view *v, const struct poll *f, uint64_t *ret_lag)
{
    uint64_t best = v->leader_lsn;
    const struct member_rec *last = view_member_of(v, v->sync.incarnation);
    for (size_t i = 0; i < f->n; i++)
        best = MAX(best, f->s[i].lsn);
    if (last != NULL)
        best = MAX(best, last->lsn);
    uint64_t own = f->s[f->self].lsn;
    *ret_lag = best > own ? best - own : 0;
    return view_record_mode(v) == SYNC_OFF && *ret_lag > v->config.maximum_lag_on_failover &&
           !MUTANT(elect_however_late);
}

/* The operator's way out goes with what is waited for. */
#define OVERRIDE "; gone for ever: regentctl failover --candidate %s --force"

/* Why nobody can be promoted by the record alone. */
static bool nobody_may(const struct view *v, struct plan *p)
{
    if (v->sync.unknown && !MUTANT(elect_on_unknown_record))
        return plan_say(
            p, "the sync record is unknown after a recovery: %s must come back" OVERRIDE,
            v->sync.leader, v->self);
    if (view_record_mode(v) != SYNC_OFF && v->sync.v_n == 0)
        return plan_say(p, "only %s may lead: the sync record names nobody else" OVERRIDE,
                        v->sync.leader, v->self);
    return false;
}

/* Who of the record may lead: a name where one is known (its agent lives, or it has sealed once). */
static const char *name_in_v(const struct view *v, size_t i)
{
    const struct member_rec *m = view_member_of(v, v->sync.v[i]);
    if (m != NULL)
        return m->name;
    for (size_t k = 0; k < v->seals_n; k++)
        if (strcmp(v->seals[k].incarnation, v->sync.v[i]) == 0)
            return v->seals[k].name;
    return v->sync.v[i];
}

static bool not_in_record(const struct view *v, struct plan *p)
{
    char names[120] = "";
    size_t n = 0;
    for (size_t i = 0; i < v->sync.v_n && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s or %.40s",
                              i == 0 ? v->sync.leader : "", name_in_v(v, i));
    return plan_say(p, "this data is not in the sync record: %s must come back" OVERRIDE, names,
                    v->self);
}

static bool self_may(const struct view *v, const struct poll *f, struct plan *p)
{
    uint64_t lag;
    if (v->nofailover)
        return !plan_say(p, "this node is tagged nofailover");
    if (view_record_mode(v) != SYNC_OFF && !view_in_v(v, v->pg.incarnation))
        return !not_in_record(v, p);
    if (f->self == f->n)
        return !plan_say(p, "timeline %llu of this data is outside the recorded lineage",
                         (unsigned long long)v->pg.sealed_timeline);
    uint64_t newest = v->history_n > 0 ? v->history[v->history_n - 1].timeline : 0;
    if (v->config.check_timeline && v->pg.sealed_timeline < newest)
        return !plan_say(p, "check_timeline: this data was never on timeline %llu",
                         (unsigned long long)newest);
    if (too_far_behind(v, f, &lag))
        return !plan_say(p, "%llu bytes behind, more than maximum_lag_on_failover",
                         (unsigned long long)lag);
    return true;
}

/* What was compared, for the journal: "n2 at 0/500 on 2, n3 at 0/4F0 on 2". */
static void print_positions(const struct view *v, const struct poll *f, char *ret, size_t size)
{
    size_t n = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < f->n && n < size; i++) {
        const struct seal_rec *s = &v->seals[f->s[i].seal];
        int len =
            snprintf(ret + n, size - n, "%s%.40s at %X/%X on %llu", i > 0 ? ", " : "",
                     s->name[0] != '\0' ? s->name : s->incarnation, (unsigned)(s->lsn >> 32),
                     (unsigned)s->lsn, (unsigned long long)s->timeline);
        n += len > 0 ? (size_t)len : 0;
    }
}

enum candidate_verdict candidate_choose(const struct view *v, struct plan *p)
{
    struct poll f;
    char positions[200];
    if (nobody_may(v, p))
        return CANDIDATE_NONE;
    gather(v, &f);
    print_positions(v, &f, positions, sizeof positions);
    if (!self_may(v, &f, p))
        return CANDIDATE_NONE;
    const struct stand *self = &f.s[f.self];
    uint64_t ahead = 0;
    const char *first = "";
    if (self->member == NULL) {
        (void)plan_say(p, "waiting for our own member record");
        return CANDIDATE_WAIT;
    }
    for (size_t i = 0; i < f.n; i++) {
        if (f.s[i].member == NULL || f.s[i].member->nofailover ||
            member_sick(v, f.s[i].member) || !better(&f.s[i], self))
            continue;
        ahead++;
        first = f.s[i].member->name;
    }
    bool sick = v->config.sick_failover && v->pg.sick != SICK_NOT;
    /* The better ones go first, but one that does not use its turn blocks nobody for ever. A promotion
     * that failed here, or a sickness, puts this node behind all others. */
    bool failed = (v->busy.failed && v->busy.failed_action == ACTION_PROMOTE) ||
                  (v->refused_token != 0 && v->refused_token == v->sync.token) || sick;
    uint64_t grace_ms = f.awaited > 0 ? election_grace_ms(v) : 0;
    uint64_t turn_ms = v->lost_ms + grace_ms + (ahead + (failed ? f.n : 0)) * v->config.ttl_ms;
    if (!count_seals(v, &f, p)) {
        (void)plan_say(p, "%zu of %llu seals needed", p->counted_n,
                       (unsigned long long)v->sync.q);
        p->counted_n = 0;
        return CANDIDATE_WAIT; /* for the event of a seal */
    }
    if (v->now_ms < turn_ms) {
        p->counted_n = 0;
        (void)plan_wait(p, turn_ms);
        if (ahead > 0) {
            (void)plan_say(p, "%s is better: %s", first, positions);
            return CANDIDATE_OTHER;
        }
        if (sick) {
            (void)plan_say(p, "this node is sick (%s): the others first", v->pg.sick_why);
            return CANDIDATE_WAIT;
        }
        (void)plan_say(p, "best of the sealed so far, %zu may still seal: %s", f.awaited,
                       positions);
        return CANDIDATE_WAIT;
    }
    (void)plan_say(p, "best of %zu sealed, %zu counted: %s", f.n, p->counted_n, positions);
    return CANDIDATE_SELF;
}

static const struct view_walsender *sender_to(const struct view *v, const char *incarnation)
{
    for (size_t i = 0; i < v->pg.senders_n; i++)
        if (v->pg.senders[i].streaming &&
            strcmp(v->pg.senders[i].incarnation, incarnation) == 0)
            return &v->pg.senders[i];
    return NULL;
}

/* Its walsender here knows better than what it published a while ago. */
static uint64_t has_flushed(const struct view *v, const struct member_rec *m)
{
    const struct view_walsender *w = sender_to(v, m->incarnation);
    return MAX(m->lsn, w != NULL ? w->flush_lsn : 0);
}

static bool lags(const struct view *v, const struct member_rec *m)
{
    return has_flushed(v, m) + v->config.maximum_lag_on_failover < v->pg.lsn;
}

bool has_shutdown_checkpoint(const struct view *v, const struct member_rec *m)
{
    uint64_t end = v->pg.shutdown_lsn;
    if (MUTANT(hand_over_without_checkpoint))
        return true;
    return end != 0 && m->timeline == v->pg.timeline && m->lsn >= end &&
           m->lsn - end <= HANDOVER_SLACK;
}

bool has_received_all(const struct view *v, const struct member_rec *m)
{
    return m->timeline == v->pg.timeline && has_flushed(v, m) >= v->pg.lsn;
}

/* It streams from here: the next step of the synchronous set, or of who is recorded, takes it up. */
static bool gets_into_v(const struct view *v, const struct member_rec *m)
{
    bool room =
        v->config.sync_mode == SYNC_QUORUM || v->sync.v_n < MAX(v->config.sync_node_count, 1);
    return room && sender_to(v, m->incarnation) != NULL;
}

/* Why this member cannot take over. NULL: it can. *ret_passes: soon it may. */
static const char *objection(const struct view *v, const struct member_rec *m, bool sick_too,
                             bool *ret_passes)
{
    bool sync = view_record_mode(v) != SYNC_OFF && v->sync.v_n > 0;
    /* of a stop only the shutdown checkpoint counts */
    bool runs = v->pg.proc == PG_PROC_RUNNING;
    *ret_passes = false;
    if (!member_follows(m) || m->lease == 0) {
        *ret_passes = is_state(m->state, "starting") || is_state(m->state, "restarting");
        return "does not run as a standby";
    }
    if (m->nofailover)
        return "is tagged nofailover";
    if (member_sick(v, m) && !sick_too)
        return m->sick_why;
    if (sync && !view_in_v(v, m->incarnation)) {
        *ret_passes = gets_into_v(v, m);
        return "is not in the synchronous set";
    }
    *ret_passes = m->upstream[0] == '\0' || strcmp(m->upstream, v->self) == 0;
    if (m->timeline != v->pg.timeline)
        return "is on another timeline";
    if (runs && sender_to(v, m->incarnation) == NULL)
        return "does not stream from here";
    if (runs && lags(v, m))
        return "is too far behind";
    return NULL;
}

const struct member_rec *candidate_switchover(const struct view *v, const char *wanted,
                                              struct plan *p, bool *ret_passes)
{
    const struct member_rec *best = NULL;
    *ret_passes = false;
    (void)plan_say(p, wanted[0] != '\0' ? "%s is not a member that runs" : "nobody%s can",
                   wanted);
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        bool named = wanted[0] != '\0' && strcmp(m->name, wanted) == 0;
        if (strcmp(m->name, v->self) == 0 || (wanted[0] != '\0' && !named))
            continue;
        bool sick_too = named && v->has_failover && v->failover.force;
        bool passes;
        const char *why = objection(v, m, sick_too, &passes);
        if (why != NULL) {
            if (passes || !*ret_passes)
                (void)plan_say(p, "%s %s", m->name, why);
            *ret_passes = *ret_passes || passes;
            continue;
        }
        if (best == NULL || has_flushed(v, m) > has_flushed(v, best) ||
            (has_flushed(v, m) == has_flushed(v, best) &&
             m->failover_priority > best->failover_priority))
            best = m;
    }
    return best;
}

/* The same number, another promotion, or nobody knows which: pg_rewind would call that "no rewind
 * required". */
static bool other_promotion(const struct view *v, const struct lineage *recorded)
{
    const struct view_pg *pg = &v->pg;
    struct lineage own;
    lineage_parse(pg->lineage, &own);
    for (size_t i = 0; i < recorded->n; i++) {
        if (recorded->at[i].timeline > pg->timeline)
            continue; /* this data has not been there */
        uint64_t token = lineage_token(&own, recorded->at[i].timeline);
        if (token != 0 && token != recorded->at[i].token && !MUTANT(lineage_by_number))
            return true;
        if (lineage_doubtful(v, &own, recorded->at[i].timeline))
            return true;
    }
    return false;
}

/* Not a timeline of the recorded way. A hole in the record (a promotion that died before it was recorded)
 * hides what lies before it: PostgreSQL will say then. */
static bool before_a_hole(const struct view *v, const struct lineage *recorded)
{
    uint64_t oldest = recorded->at[recorded->n - 1].timeline;
    const struct history_entry *h = history_of(v, oldest);
    return h != NULL && h->parent != 0 && v->pg.timeline < oldest;
}

static enum candidate_follow follow_recorded(const struct view *v,
                                             const struct lineage *recorded,
                                             enum candidate_follow diverged)
{
    const struct view_pg *pg = &v->pg;
    bool was_primary = pg->proc == PG_PROC_STOPPED && !pg->standby_signal;
    /* A crashed primary's control file does not say how far its log goes. */
    if (was_primary && !pg->clean)
        return diverged;
    for (size_t i = 0; i < recorded->n; i++) {
        if (recorded->at[i].timeline != pg->timeline)
            continue;
        if (i == 0)
            return FOLLOW_AS_IS;
        const struct history_entry *next = history_of(v, recorded->at[i - 1].timeline);
        ASSERT(next != NULL);
        uint64_t end = was_primary ? MAX(pg->shutdown_lsn, pg->lsn) : pg->lsn;
        bool known = next->switch_lsn != 0 || was_primary;
        return known && end > next->switch_lsn ? diverged : FOLLOW_AS_IS;
    }
    return before_a_hole(v, recorded) ? FOLLOW_AS_IS : diverged;
}

enum candidate_follow candidate_follow(const struct view *v)
{
    struct lineage recorded;
    const struct view_pg *pg = &v->pg;
    /* A rewind that changed nothing is not tried again. */
    bool rewound = v->busy.done_action == ACTION_REWIND;
    bool rewind = v->config.use_pg_rewind && !pg->rewind_failed && !rewound;
    enum candidate_follow diverged = rewind ? FOLLOW_REWIND : FOLLOW_CLONE;
    lineage_recorded(v, v->leader.timeline, &recorded);
    if (other_promotion(v, &recorded))
        return FOLLOW_CLONE;
    if (pg->stuck)
        return diverged;
    if (recorded.n == 0)
        return FOLLOW_AS_IS; /* no history: PostgreSQL will say */
    return follow_recorded(v, &recorded, diverged);
}
