/* The transitions of synchronous replication, one safe step at a time.
 *
 * Invariant: k + q > |V u S| for every (k, S) that may be in force, or V is empty. Any k
 * acknowledgements out of S then meet any q seals out of V in at least one node, so the most advanced
 * of q sealed members has every acknowledged commit. */
#include "agent/core/syncrep.h"

#include <stdio.h>

#include "agent/core/rules.h"
#include "base/assert.h"
#include "base/mutant.h"
#include "base/str.h"

static size_t union_size(const char s[][64], size_t s_n, const char v[][64], size_t v_n)
{
    size_t n = s_n;
    for (size_t i = 0; i < v_n; i++)
        if (!names_have(s, s_n, v[i]))
            n++;
    return n;
}

bool syncrep_rule(uint64_t k, const char s[][64], size_t s_n, const char v[][64], size_t v_n,
                  uint64_t q)
{
    if (v_n == 0)
        return true;
    uint64_t slack = MUTANT(rule_off_by_one) ? 1 : 0;
    return k <= s_n && k + q + slack > union_size(s, s_n, v, v_n);
}

static bool rule_holds(const struct sync_set *set, const struct sync_rec *r)
{
    return syncrep_rule(set->k, set->s, set->s_n, (const char(*)[64])r->v, r->v_n, r->q);
}

bool syncrep_set_safe(const struct sync_set *set, const struct sync_rec *r)
{
    return rule_holds(set, r);
}

bool syncrep_record_safe(const struct view_pg *pg, const struct sync_rec *r)
{
    ASSERT(pg->old_n <= VIEW_SETS);
    if (r->v_n == 0)
        return true;
    if (!pg->set_known || !rule_holds(&pg->set, r))
        return false;
    for (size_t i = 0; i < pg->old_n; i++)
        if (!rule_holds(&pg->old[i], r))
            return false;
    return true;
}

static bool subset(const struct sync_rec *a, const struct sync_rec *of)
{
    for (size_t i = 0; i < a->v_n; i++)
        if (!names_have((const char(*)[64])of->v, of->v_n, a->v[i]))
            return false;
    return true;
}

/* Three ways to know that a record is safe:
 * - it names nobody;
 * - it only shrinks V and asks for no fewer seals: the union shrinks, k and q do not, so what held
 *   before holds after, also against sets that are not known;
 * - the rule holds against the set, and the set is confirmed: no other is in force, and k of S have
 *   everything that was acknowledged before it. */
bool syncrep_step_safe(const struct view *v, const struct sync_rec *r)
{
    if (r->v_n == 0)
        return true;
    if (v->sync.v_n > 0 && subset(r, &v->sync) && r->q >= v->sync.q)
        return true;
    bool confirmed = v->pg.set_confirmed || MUTANT(record_before_confirmation);
    return confirmed && v->pg.old_n == 0 && syncrep_record_safe(&v->pg, r);
}

/* Can the set be confirmed by those who stream now? */
static bool confirmable(const struct view_pg *pg)
{
    size_t n = 0;
    for (size_t i = 0; i < pg->set.s_n; i++)
        for (size_t j = 0; j < pg->senders_n; j++)
            if (pg->senders[j].streaming &&
                strcmp(pg->senders[j].incarnation, pg->set.s[i]) == 0) {
                n++;
                break;
            }
    return n >= pg->set.k;
}

static bool record_equal(const struct sync_rec *a, const struct sync_rec *b)
{
    return a->q == b->q && strcmp(a->mode, b->mode) == 0 && a->v_n == b->v_n && subset(a, b);
}

static bool record(const struct view *v, struct plan *p, const struct sync_rec *r,
                   const char *why)
{
    ASSERT(syncrep_step_safe(v, r));
    p->txn = TXN_SYNC;
    p->token = v->leader.token;
    p->sync = *r;
    return plan_say(p, "sync record: V of %zu, q %llu (%s)", r->v_n, (unsigned long long)r->q,
                    why);
}

static bool nobody(const struct view *v, struct plan *p, const char *why)
{
    struct sync_rec r = v->sync;
    (void)memset(r.v, 0, sizeof r.v);
    r.v_n = 0;
    r.q = 1;
    return record(v, p, &r, why);
}

static bool set(const struct view *v, struct plan *p, const struct sync_set *s, const char *why)
{
    ASSERT(syncrep_set_safe(s, &v->sync));
    p->action = ACTION_SET_SYNC;
    p->token = v->leader.token;
    p->set = *s;
    return plan_say(p, "synchronous set: k %llu of %zu (%s)", (unsigned long long)s->k, s->s_n,
                    why);
}

/* After an adoption nobody knows which sets are in force. What PostgreSQL shows may be confirmed
 * again; when somebody of it is gone that would never end, so the record lets go first. */
static bool step_unknown(const struct view *v, struct plan *p, const struct sync_set *want)
{
    const struct view_pg *pg = &v->pg;
    bool present = true;
    for (size_t i = 0; i < pg->set.s_n; i++)
        present = present && names_have(want->s, want->s_n, pg->set.s[i]);
    if (present && syncrep_set_safe(&pg->set, &v->sync))
        return set(v, p, &pg->set, "confirmed anew after an adoption");
    if (v->sync.v_n > 0)
        return nobody(v, p,
                      "the sets in force are not known and one of them cannot be confirmed");
    return set(v, p, want, "nothing is recorded that could be broken");
}

/* Neither end can be reached at once: a record that permits both. `on`: who stays. `quorum`: everybody,
 * with as many seals as the weakest set needs. */
static bool between(const struct view *v, const struct sync_set *want_set,
                    const struct sync_rec *want, struct sync_rec *ret)
{
    *ret = *want;
    (void)memset(ret->v, 0, sizeof ret->v);
    ret->v_n = 0;
    bool on = strcmp(want->mode, "on") == 0;
    for (size_t i = 0; i < v->sync.v_n; i++)
        if (!on || names_have((const char(*)[64])want->v, want->v_n, v->sync.v[i]))
            (void)memcpy(ret->v[ret->v_n++], v->sync.v[i], sizeof ret->v[0]);
    ret->q = 1;
    if (on)
        return true;
    for (size_t i = 0; i < want->v_n; i++) {
        if (names_have((const char(*)[64])ret->v, ret->v_n, want->v[i]))
            continue;
        if (ret->v_n == SYNC_MAX)
            return false;
        (void)memcpy(ret->v[ret->v_n++], want->v[i], sizeof ret->v[0]);
    }
    /* The smallest q that keeps the rule against the wanted set and all in force. */
    const struct sync_set *sets[VIEW_SETS + 2] = {want_set, &v->pg.set};
    size_t n = 2;
    for (size_t i = 0; i < v->pg.old_n; i++)
        sets[n++] = &v->pg.old[i];
    for (size_t i = 0; i < n; i++) {
        size_t all = union_size(sets[i]->s, sets[i]->s_n, (const char(*)[64])ret->v, ret->v_n);
        if (all + 1 > sets[i]->k + ret->q)
            ret->q = all + 1 - sets[i]->k;
    }
    return true;
}

bool syncrep_step(const struct view *v, struct plan *p, bool *ret_wait)
{
    struct sync_set want_set;
    struct sync_rec want;
    struct sync_rec half;
    const struct view_pg *pg = &v->pg;
    *ret_wait = false;
    syncrep_target(v, &want_set, &want);
    /* Another mode promises something else: first promise nothing. */
    if (strcmp(want.mode, v->sync.mode) != 0) {
        half = want;
        (void)memset(half.v, 0, sizeof half.v);
        half.v_n = 0;
        half.q = 1;
        return record(v, p, &half, "synchronous_mode changed");
    }
    if (!pg->set_known && (want_set.k > 0 || pg->set.k > 0 || v->sync.v_n > 0) &&
        !MUTANT(trust_adopted_set))
        return step_unknown(v, p, &want_set);
    bool record_done = record_equal(&want, &v->sync);
    bool set_done = sync_set_equal(&want_set, &pg->set);
    if (!record_done && syncrep_step_safe(v, &want))
        return record(v, p, &want, "as PostgreSQL has it");
    if (!set_done && syncrep_set_safe(&want_set, &v->sync))
        return set(v, p, &want_set, "as wanted");
    if (!set_done && between(v, &want_set, &want, &half) && !record_equal(&half, &v->sync) &&
        syncrep_step_safe(v, &half))
        return record(v, p, &half, "on the way to another set");
    if (record_done && set_done)
        return false;
    /* Confirmation would never come, and the record stands in the way of another set. */
    if (!set_done && v->sync.v_n > 0 && !confirmable(pg))
        return nobody(v, p, "the set in force cannot be confirmed any more");
    if (!set_done && v->sync.v_n > 0 && pg->set_confirmed && pg->old_n == 0)
        return nobody(v, p, "there is no room for who leaves beside who comes");
    *ret_wait = true;
    (void)plan_say(p, "waiting until the synchronous set is confirmed by its standbys");
    return false;
}

enum err syncrep_names(const struct sync_set *s, enum sync_mode mode, char *ret, size_t size)
{
    ASSERT(size > 0 && s->k <= s->s_n);
    ret[0] = '\0';
    if (s->k == 0)
        return ERR_OK;
    int n = snprintf(ret, size, "%s %llu (", mode == SYNC_QUORUM ? "ANY" : "FIRST",
                     (unsigned long long)s->k);
    for (size_t i = 0; i < s->s_n; i++) {
        if (n < 0 || (size_t)n >= size)
            break;
        if (strchr(s->s[i], '"') != NULL)
            return ret[0] = '\0', ERR_INVALID;
        n += snprintf(ret + n, size - (size_t)n, "%s\"%s\"", i == 0 ? "" : ",", s->s[i]);
    }
    if (n > 0 && (size_t)n < size)
        n += snprintf(ret + n, size - (size_t)n, ")");
    if (n > 0 && (size_t)n < size)
        return ERR_OK;
    ret[0] = '\0';
    return ERR_LIMIT;
}
