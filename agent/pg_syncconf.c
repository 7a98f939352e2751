#include "agent/pg_syncconf.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/mutant.h"

static bool has(char names[][64], size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void add_who(struct syncconf *c, const struct sync_set *s)
{
    ASSERT(s->s_n <= SYNC_MAX);
    for (size_t i = 0; i < s->s_n; i++) {
        if (has(c->who, c->who_n, s->s[i]))
            continue;
        ASSERT(c->who_n < SYNCCONF_WHO);
        memcpy(c->who[c->who_n++], s->s[i], sizeof c->who[0]);
    }
}

void syncconf_start(struct syncconf *c, const struct sync_set *set, const struct sync_set *old,
                    size_t old_n, bool everybody, bool waits, bool written)
{
    ASSERT(old_n <= VIEW_SETS && set->k <= set->s_n);
    *c = (struct syncconf){.set = *set, .everybody = everybody};
    add_who(c, set);
    for (size_t i = 0; i < old_n; i++)
        add_who(c, &old[i]);
    if (set->k > 0 && !waits && !MUTANT(first_set_without_probe))
        c->step = written ? SYNCCONF_TRY : SYNCCONF_NOBODY;
    else
        c->step = written ? SYNCCONF_SHOW : SYNCCONF_WRITE;
}

void syncconf_written(struct syncconf *c)
{
    if (c->step == SYNCCONF_NOBODY)
        c->step = SYNCCONF_NOBODY_SHOW;
    else if (c->step == SYNCCONF_WRITE)
        c->step = SYNCCONF_SHOW;
}

void syncconf_shown(struct syncconf *c, const char *value, const char *wanted)
{
    if (strcmp(value, wanted) != 0)
        return;
    if (c->step == SYNCCONF_NOBODY_SHOW)
        c->step = SYNCCONF_PROBE;
    else if (c->step == SYNCCONF_SHOW)
        c->step = SYNCCONF_MARK;
}

void syncconf_probe_waits(struct syncconf *c)
{
    if (c->step == SYNCCONF_TRY)
        c->step = SYNCCONF_SHOW;
    else if (c->step == SYNCCONF_PROBE)
        c->step = SYNCCONF_WRITE;
}

void syncconf_probe_passed(struct syncconf *c)
{
    if (c->step == SYNCCONF_TRY)
        c->step = SYNCCONF_NOBODY;
}

void syncconf_marked(struct syncconf *c, uint64_t lsn)
{
    ASSERT(lsn != 0);
    if (c->step != SYNCCONF_MARK)
        return;
    c->lsn_a = lsn;
    c->lsn_b = 0;
    c->step = SYNCCONF_SENDERS;
}

static bool all_confirmed(struct syncconf *c, const struct syncconf_sender *senders, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool counts = c->everybody || has(c->who, c->who_n, senders[i].name);
        if (counts && senders[i].flush_lsn < c->lsn_a && !MUTANT(walsenders_not_asked))
            return false;
    }
    return true;
}

/* Names, not connections, are counted: two walsenders of one name are one standby. */
static bool enough_flushed(struct syncconf *c, const struct syncconf_sender *senders, size_t n)
{
    uint64_t k = 0;
    for (size_t i = 0; i < c->set.s_n; i++) {
        for (size_t j = 0; j < n; j++) {
            if (strcmp(senders[j].name, c->set.s[i]) == 0 && senders[j].flush_lsn >= c->lsn_b) {
                k++;
                break;
            }
        }
    }
    return k >= c->set.k || MUTANT(set_without_flush);
}

void syncconf_look(struct syncconf *c, const struct syncconf_sender *senders, size_t n,
                   uint64_t lsn)
{
    if (c->step == SYNCCONF_SENDERS) {
        if (all_confirmed(c, senders, n))
            c->step = SYNCCONF_FLUSHED;
        return; /* lsn_b comes of a look that began after this */
    }
    if (c->step != SYNCCONF_FLUSHED)
        return;
    if (c->lsn_b == 0)
        c->lsn_b = lsn;
    if (enough_flushed(c, senders, n))
        c->step = SYNCCONF_DONE;
}
