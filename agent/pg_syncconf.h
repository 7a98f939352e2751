/* Is a new synchronous_standby_names in force everywhere? (DESIGN.md §4 (a) and (b).) A state machine
 * that is told what was done and seen, and says what to do next. Pure.
 *
 * What makes it long: each walsender takes a reload by itself, in its own time, and releases commits
 * under the old value until then; and from "" to a name the checkpointer sets the shared flag that
 * makes commits wait at all, again in its own time. So
 *
 *   TRY      (unless commits are known to wait; the wanted names are in the file since before the first commit) a
 *            commit of our own may be seen waiting, for after a promotion no standby is there yet: then SHOW. One that
 *            came back has proven nothing, and for certainty
 *   NOBODY   a name that nobody bears is written and reloaded,
 *   PROBE    and a commit of our own has been seen waiting: from here on commits wait;
 *   WRITE    the wanted names are written and reloaded;
 *   SHOW     a connection opened afterwards shows them: the postmaster has signalled everybody;
 *   MARK     WAL is written after that, up to lsn_a;
 *   SENDERS  every walsender of old u new has confirmed lsn_a, or is gone: to send it, it had to pass
 *            its check for the reload, so that it treats that reply under the new value;      (a)
 *   FLUSHED  k of the new set have flushed lsn_b, the position after that: they have whatever was
 *            acknowledged under the old value;                                               (b)
 *   DONE */
#ifndef REGENT_AGENT_PG_SYNCCONF_H
#define REGENT_AGENT_PG_SYNCCONF_H

#include "agent/core/view.h"

enum { SYNCCONF_WHO = SYNC_MAX * (VIEW_SETS + 1) };

enum syncconf_step {
    SYNCCONF_OFF,
    SYNCCONF_TRY,
    SYNCCONF_NOBODY,
    SYNCCONF_NOBODY_SHOW,
    SYNCCONF_PROBE,
    SYNCCONF_WRITE,
    SYNCCONF_SHOW,
    SYNCCONF_MARK,
    SYNCCONF_SENDERS,
    SYNCCONF_FLUSHED,
    SYNCCONF_DONE
};

struct syncconf_sender {
    const char *name;
    uint64_t flush_lsn;
};

struct syncconf {
    enum syncconf_step step;
    struct sync_set set;        /* to be confirmed */
    char who[SYNCCONF_WHO][64]; /* old u new */
    size_t who_n;
    bool everybody; /* the old sets are not known: every walsender counts */
    uint64_t lsn_a, lsn_b;
};

#define SYNCCONF_NOBODY_NAMES "FIRST 1 (\"regent_nobody\")"

/* old: every set that may still be in force. waits: commits are known to wait already (the last
 * confirmed set was not empty, same postmaster). written: set is in the file already. */
void syncconf_start(struct syncconf *c, const struct sync_set *set, const struct sync_set *old,
                    size_t old_n, bool everybody, bool waits, bool written);
/* NOBODY, WRITE: written and reloaded. */
void syncconf_written(struct syncconf *c);
/* NOBODY_SHOW, SHOW: a connection opened after the reload shows this; wanted is what it should. */
void syncconf_shown(struct syncconf *c, const char *value, const char *wanted);
/* TRY, PROBE: the probe's backend waits on SyncRep. */
void syncconf_probe_waits(struct syncconf *c);
/* TRY: it was not seen waiting. */
void syncconf_probe_passed(struct syncconf *c);
/* MARK: WAL written after SHOW ends there, flushed. */
void syncconf_marked(struct syncconf *c, uint64_t lsn);
/* SENDERS, FLUSHED: a look that was asked for after the step began; lsn: flushed by the primary at
 * its beginning. */
void syncconf_look(struct syncconf *c, const struct syncconf_sender *senders, size_t n,
                   uint64_t lsn);

#endif
