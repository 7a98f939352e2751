/* What the synchronous set and the record should be, given who streams now. */
#include <stdio.h>

#include "agent/core/rules.h"
#include "agent/core/syncrep.h"
#include "base/assert.h"

bool sync_set_equal(const struct sync_set *a, const struct sync_set *b)
{
    if (a->k != b->k || a->s_n != b->s_n)
        return false;
    for (size_t i = 0; i < a->s_n; i++)
        if (!names_have(b->s, b->s_n, a->s[i]))
            return false;
    return true;
}

static void add_name(struct sync_set *s, const char *name)
{
    if (s->s_n < SYNC_MAX && !names_have(s->s, s->s_n, name))
        (void)snprintf(s->s[s->s_n++], sizeof s->s[0], "%s", name);
}

static bool may_be_sync(const struct view *v, const struct member_rec *m)
{
    return strcmp(m->name, v->self) != 0 && !m->nosync && !m->nofailover;
}

/* What others' lag is measured by: the furthest standby; for the only one, what was written here. */
static uint64_t furthest(const struct view *v)
{
    uint64_t lsn = v->pg.senders_n == 1 ? v->pg.lsn : 0;
    for (size_t i = 0; i < v->pg.senders_n; i++)
        lsn = MAX(lsn, v->pg.senders[i].flush_lsn);
    return lsn;
}

/* One that may be chosen, with what its order rests on. */
struct choice {
    const struct view_walsender *sender;
    bool sick;
    int64_t priority;
    int rank; /* recorded 2, in the set 1 */
};

/* A standby whose incarnation is known, whose agent lives, that streams and keeps up. */
static size_t choices(const struct view *v, struct choice ret[static VIEW_WALSENDERS])
{
    size_t n = 0;
    uint64_t first = furthest(v);
    uint64_t lag_max = v->config.maximum_lag_on_syncnode;
    ASSERT(v->pg.senders_n <= VIEW_WALSENDERS);
    for (size_t i = 0; i < v->pg.senders_n; i++) {
        const struct view_walsender *w = &v->pg.senders[i];
        bool keeps_up =
            lag_max == 0 || first <= w->flush_lsn || first - w->flush_lsn <= lag_max;
        const struct member_rec *m = view_member_of(v, w->incarnation);
        if (!w->streaming || !keeps_up || m == NULL || !may_be_sync(v, m))
            continue;
        ret[n++] = (struct choice){
            .sender = w,
            .sick = member_sick(v, m),
            .priority = m->sync_priority == 0 ? 1 : m->sync_priority,
            .rank = 2 * view_in_v(v, w->incarnation) +
                    names_have(v->pg.set.s, v->pg.set.s_n, w->incarnation),
        };
    }
    return n;
}

/* Who is well; by sync_priority; then sticky: who is recorded stays, then who is in the set, then who is furthest, then by
 * incarnation. */
static bool preferred(const struct choice *a, const struct choice *b)
{
    if (a->sick != b->sick)
        return b->sick;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->rank != b->rank)
        return a->rank > b->rank;
    if (a->rank == 0 && a->sender->flush_lsn != b->sender->flush_lsn)
        return a->sender->flush_lsn > b->sender->flush_lsn;
    return strcmp(a->sender->incarnation, b->sender->incarnation) < 0;
}

/* Up to `max` of those who stream, best first. */
static void choose(const struct view *v, uint64_t max, struct sync_set *ret)
{
    struct choice all[VIEW_WALSENDERS];
    size_t n = choices(v, all);
    (void)memset(ret, 0, sizeof *ret);
    while (ret->s_n < max && ret->s_n < SYNC_MAX) {
        const struct choice *best = NULL;
        for (size_t i = 0; i < n; i++) {
            if (names_have(ret->s, ret->s_n, all[i].sender->incarnation))
                continue;
            if (best == NULL || preferred(&all[i], best))
                best = &all[i];
        }
        if (best == NULL)
            return;
        add_name(ret, best->sender->incarnation);
    }
}

static void record_of(const struct sync_set *s, enum sync_mode mode, struct sync_rec *ret)
{
    (void)memset(ret->v, 0, sizeof ret->v);
    ret->v_n = 0;
    for (size_t i = 0; i < s->s_n; i++)
        (void)memcpy(ret->v[ret->v_n++], s->s[i], sizeof ret->v[0]);
    ret->q = mode == SYNC_QUORUM && s->s_n > 0 ? s->s_n - s->k + 1 : 1;
}

static uint64_t node_count(const struct view *v)
{
    return MAX(v->config.sync_node_count, 1);
}

/* Of V: who may still be used. `absent`: also whose agent is not alive; its data may be. */
static void recorded(const struct view *v, bool absent, struct sync_set *ret)
{
    (void)memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < v->sync.v_n; i++) {
        const struct member_rec *m = view_member_of(v, v->sync.v[i]);
        if (m == NULL ? absent : may_be_sync(v, m) && member_follows(m))
            add_name(ret, v->sync.v[i]);
    }
}

/* Strict and nobody streams: commits wait. The set stays as it is, so that who comes back is good at
 * once; who is recorded stays too while its data may still be used. With fewer than q of them nobody could be elected,
 * whoever came back: then those stay as well of whom nothing is heard. */
static void keep_strict(const struct view *v, struct sync_set *ret_set,
                        struct sync_rec *ret_rec)
{
    *ret_set = v->pg.set;
    if (ret_set->k == 0) {
        ret_set->s_n = 0;
        add_name(ret_set, SYNC_NOBODY);
        ret_set->k = 1;
    }
    struct sync_set stay;
    uint64_t q = v->sync.q; /* V only shrinks: as many seals as before */
    recorded(v, false, &stay);
    if (stay.s_n < q)
        recorded(v, true, &stay);
    record_of(&stay, SYNC_ON, ret_rec);
    ret_rec->q = stay.s_n > 0 ? q : 1;
}

/* On the way to another set a record names all of both, and has room for SYNC_MAX: then who is new comes after
 * who leaves has left. */
static void make_room(const struct view *v, struct sync_set *s)
{
    struct sync_set stay = {0};
    for (size_t i = 0; i < s->s_n; i++)
        if (view_in_v(v, s->s[i]))
            add_name(&stay, s->s[i]);
    size_t both = v->sync.v_n + s->s_n - stay.s_n;
    if (both > SYNC_MAX && stay.s_n >= node_count(v))
        *s = stay;
}

void syncrep_target(const struct view *v, struct sync_set *ret_set, struct sync_rec *ret_rec)
{
    enum sync_mode mode = v->config.sync_mode;
    (void)memset(ret_set, 0, sizeof *ret_set);
    *ret_rec = v->sync;
    (void)memset(ret_rec->mode, 0, sizeof ret_rec->mode);
    (void)snprintf(ret_rec->mode, sizeof ret_rec->mode, "%s",
                   mode == SYNC_ON       ? "on"
                   : mode == SYNC_QUORUM ? "quorum"
                                         : "off");
    if (mode != SYNC_OFF)
        choose(v, mode == SYNC_ON ? node_count(v) : SYNC_MAX, ret_set);
    if (mode == SYNC_QUORUM)
        make_room(v, ret_set);
    ret_set->k = MIN(node_count(v), ret_set->s_n);
    if (mode != SYNC_OFF && v->config.sync_strict && ret_set->s_n == 0)
        keep_strict(v, ret_set, ret_rec);
    else
        record_of(ret_set, mode, ret_rec);
}

/* Before anything is known about who will stream. It must keep the rule against the record, which is not
 * empty after a crash in place: there nobody else has been promoted, so V itself will do. In strict mode
 * no write is acknowledged alone from the first on. */
void syncrep_first_set(const struct view *v, struct sync_set *ret_set)
{
    (void)memset(ret_set, 0, sizeof *ret_set);
    if (v->sync.v_n > 0) {
        if (v->pg.set_known && syncrep_set_safe(&v->pg.set, &v->sync)) {
            *ret_set = v->pg.set;
            return;
        }
        for (size_t i = 0; i < v->sync.v_n; i++)
            add_name(ret_set, v->sync.v[i]);
        ret_set->k = v->sync.q > ret_set->s_n ? 1 : ret_set->s_n - v->sync.q + 1;
        return;
    }
    if (v->config.sync_mode == SYNC_OFF || !v->config.sync_strict)
        return;
    for (size_t i = 0; i < v->members_n; i++) {
        bool room = v->config.sync_mode == SYNC_QUORUM || ret_set->s_n < node_count(v);
        if (room && may_be_sync(v, &v->members[i]) && member_follows(&v->members[i]))
            add_name(ret_set, v->members[i].incarnation);
    }
    if (ret_set->s_n == 0)
        add_name(ret_set, SYNC_NOBODY);
    ret_set->k = MIN(node_count(v), ret_set->s_n);
}
