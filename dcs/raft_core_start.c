/* What the disk holds: checked, then given to the library. */
#include "base/mem.h"
#include "dcs/raft_core_internal.h"

static enum err check_entries(const struct raft_core_disk *d, struct errmsg *e)
{
    uint64_t term = 1;
    struct raft_membership m;
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        uint64_t index = d->first_index + i;
        if (v->term < term || v->term > d->term)
            return err_set(e, ERR_CORRUPT, "log entry %llu has term %llu between %llu and %llu",
                           (unsigned long long)index, (unsigned long long)v->term,
                           (unsigned long long)term, (unsigned long long)d->term);
        if (v->type == RAFT_ENTRY_CHANGE &&
            raft_membership_decode(v->data, index, &m) != ERR_OK)
            return err_set(e, ERR_CORRUPT, "log entry %llu is no membership",
                           (unsigned long long)index);
        if (d->has_snapshot && index == d->snapshot.index && v->term != d->snapshot.term)
            return err_set(e, ERR_CORRUPT,
                           "log entry %llu and the snapshot differ in their terms",
                           (unsigned long long)index);
        term = v->term;
    }
    return ERR_OK;
}

static enum err check_disk(const struct raft_core_disk *d, struct errmsg *e)
{
    uint64_t last = d->first_index + d->n - 1;
    if (d->first_index == 0 || (d->n > 0 && d->term == 0) ||
        (d->term == 0 && d->voted_for != 0))
        return err_set(e, ERR_CORRUPT, "the log has entries or a vote, and no term");
    if (!d->has_snapshot) {
        if (d->n > 0 && (d->first_index != 1 || d->entries[0].type != RAFT_ENTRY_CHANGE))
            return err_set(e, ERR_CORRUPT,
                           "the log begins at entry %llu and there is no snapshot",
                           (unsigned long long)d->first_index);
        return check_entries(d, e);
    }
    if (d->snapshot.index == 0 || d->snapshot.term == 0 || d->snapshot.term > d->term ||
        d->snapshot.membership.index == 0 || d->snapshot.membership.index > d->snapshot.index ||
        raft_membership_check(&d->snapshot.membership, NULL) != ERR_OK)
        return err_set(e, ERR_CORRUPT, "the snapshot's record is damaged");
    if (d->first_index > d->snapshot.index + 1 || last < d->snapshot.index)
        return err_set(e, ERR_CORRUPT,
                       "the log (%llu to %llu) does not meet the snapshot at %llu",
                       (unsigned long long)d->first_index, (unsigned long long)last,
                       (unsigned long long)d->snapshot.index);
    return check_entries(d, e);
}

static void newest_membership(const struct raft_core_disk *d, struct raft_membership *ret)
{
    *ret = (struct raft_membership){0};
    if (d->has_snapshot)
        *ret = d->snapshot.membership;
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        if (v->type == RAFT_ENTRY_CHANGE && d->first_index + i > ret->index) {
            enum err r = raft_membership_decode(v->data, d->first_index + i, ret);
            ASSERT(r == ERR_OK);
        }
    }
}

static void load(struct raft_core *c, const struct raft_core_disk *d)
{
    raft_log_reset(&c->log,
                   d->n == 0 && d->has_snapshot ? d->snapshot.index + 1 : d->first_index);
    for (size_t i = 0; i < d->n; i++)
        raft_log_append(&c->log, d->entries[i].term, d->entries[i].type, d->entries[i].data);
    c->meta_term = d->term;
    c->meta_vote = d->voted_for;
    if (d->term > 0)
        core_own_term(c, d->term, d->voted_for, d->first_index + d->n - 1);
    if (d->has_snapshot) {
        c->has_snapshot = true;
        c->snapshot = d->snapshot;
        c->committed = d->snapshot.membership;
    }
    newest_membership(d, &c->membership);
}

static void start_lib(struct raft_core *c, const struct raft_core_disk *d)
{
    struct raft_snapshot_metadata md = {.index = d->snapshot.index, .term = d->snapshot.term};
    struct raft_entry *entries = mem_array(d->n, sizeof *entries);
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        entries[i] = (struct raft_entry){.term = v->term,
                                         .type = (enum raft_lib_entry_type)v->type,
                                         .buf = {.base = (void *)v->data.p, .len = v->data.n}};
    }
    /* The library would make a sole voter the leader of its old term at once. */
    bool sole = raft_membership_sole_voter(&c->membership, c->o.id);
    struct raft_event e = {.type = RAFT_START};
    e.start.term = sole ? d->term + 1 : d->term;
    e.start.voted_for = sole ? c->o.id : d->voted_for;
    e.start.start_index = c->log.first;
    e.start.entries = entries;
    e.start.n_entries = (unsigned)d->n;
    if (d->has_snapshot) {
        md.configuration_index = d->snapshot.membership.index;
        core_lib_configuration(&d->snapshot.membership, &md.configuration);
        e.start.metadata = &md;
    }
    core_event_ok(c, &e);
    mem_free(entries);
}

enum err raft_core_start(struct raft_core *c, const struct raft_core_disk *disk,
                         uint64_t now_ms, struct errmsg *e)
{
    core_clock(c, now_ms);
    ASSERT(!c->started);
    enum err r = check_disk(disk, e);
    if (r != ERR_OK)
        return r;
    load(c, disk);
    c->started = true;
    c->snapshot_ms = c->now_ms;
    c->told_term = UINT64_MAX; /* the first role is always told */
    if (c->has_snapshot)
        core_restore(c);
    start_lib(c, disk);
    return ERR_OK;
}
