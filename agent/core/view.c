#include "agent/core/view.h"

#include "base/assert.h"
#include "base/mutant.h"

bool names_have(const char names[][64], size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

enum sync_mode view_record_mode(const struct view *v)
{
    if (v->has_sync && strcmp(v->sync.mode, "on") == 0)
        return SYNC_ON;
    if (v->has_sync && strcmp(v->sync.mode, "quorum") == 0)
        return SYNC_QUORUM;
    return SYNC_OFF;
}

const struct member_rec *view_member(const struct view *v, const char *name)
{
    ASSERT(v->members_n <= VIEW_MEMBERS);
    for (size_t i = 0; name[0] != '\0' && i < v->members_n; i++)
        if (strcmp(v->members[i].name, name) == 0)
            return &v->members[i];
    return NULL;
}

const struct member_rec *view_member_of(const struct view *v, const char *incarnation)
{
    ASSERT(v->members_n <= VIEW_MEMBERS);
    for (size_t i = 0; incarnation[0] != '\0' && i < v->members_n; i++)
        if (strcmp(v->members[i].incarnation, incarnation) == 0)
            return &v->members[i];
    return NULL;
}

const struct seal_rec *view_seal_of(const struct view *v, const char *incarnation,
                                    uint64_t token)
{
    ASSERT(v->seals_n <= VIEW_MEMBERS);
    for (size_t i = 0; incarnation[0] != '\0' && i < v->seals_n; i++)
        if (v->seals[i].token == token && strcmp(v->seals[i].incarnation, incarnation) == 0)
            return &v->seals[i];
    return NULL;
}

bool view_leader_named(const struct view *v)
{
    return v->has_leader && v->lease != 0 && v->leader_lease == v->lease &&
           strcmp(v->leader.name, v->self) == 0;
}

bool view_is_leader(const struct view *v)
{
    return view_leader_named(v) && v->pg.incarnation[0] != '\0' &&
           strcmp(v->leader.incarnation, v->pg.incarnation) == 0;
}

bool view_is_record_leader(const struct view *v)
{
    if (MUTANT(record_by_name) && v->has_sync && strcmp(v->sync.leader, v->self) == 0)
        return true;
    return v->has_sync && v->pg.incarnation[0] != '\0' &&
           strcmp(v->sync.incarnation, v->pg.incarnation) == 0;
}

bool view_in_v(const struct view *v, const char *incarnation)
{
    return v->has_sync && incarnation[0] != '\0' &&
           names_have((const char(*)[64])v->sync.v, v->sync.v_n, incarnation);
}

bool view_lease_valid(const struct view *v)
{
    return v->lease != 0 && v->now_ms < v->deadline_ms;
}

/* A postmaster that starts counts as what its data directory says; one that is dying as what it was. */
bool view_writable(const struct view *v)
{
    const struct view_pg *pg = &v->pg;
    if (pg->proc == PG_PROC_STOPPED || pg->in_recovery)
        return false;
    return !(pg->proc == PG_PROC_STARTING && pg->standby_signal);
}

bool view_disarmed(const struct view *v)
{
    return view_is_record_leader(v) && v->sync.disarmed &&
           (!v->has_leader || strcmp(v->leader.incarnation, v->pg.incarnation) == 0);
}

bool view_nothing_known(const struct view *v)
{
    return !v->dcs_ready && !v->has_sync && v->deadline_ms == 0;
}

bool view_request_leaves(const struct view *v)
{
    return v->has_request && v->request.state[0] != '\0' &&
           strcmp(v->request.kind, "start") != 0;
}

bool view_other_system(const struct view *v)
{
    return v->has_initialize && v->initialize.system_id != 0 && v->pg.data != PG_DATA_EMPTY &&
           v->pg.system_id != 0 && v->pg.system_id != v->initialize.system_id;
}
