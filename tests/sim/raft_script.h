/* Written schedules for a world of Raft cores: one command a line, '#' begins a comment.
 *
 *     run MS                   lets time pass
 *     lead N                   waits until N leads, by election or transfer
 *     leader N | leader none   the leader is N, or nobody is
 *     put N TEXT               N accepts an entry
 *     refuse N TEXT            N refuses it
 *     flood N COUNT            N accepts COUNT entries, one a millisecond
 *     crash N / stop N / start N    a crash loses what the disk had not synced
 *     join                     one more node, empty
 *     cut A B / isolate N / reach N / heal
 *     hold N / release N       the disk of N completes nothing until released
 *     learner N / voter N / remove N     the leader changes the membership, and is allowed to
 *     denied learner N ...     it is not
 *     transfer A B             A hands over to B
 *     members N COUNT          N's newest membership has COUNT members
 *     committed N INDEX        N's commit index
 *     stored N INDEX           N's last stored entry
 *     keep N, roll N           a copy of its directory; put back while it is down
 *     out N                    it was told that it had forgotten, and has stopped for good
 *     restored N COUNT         snapshots N has installed
 *     agree                    all members come to the same end within 10 s
 */
#ifndef REGENT_TESTS_SIM_RAFT_SCRIPT_H
#define REGENT_TESTS_SIM_RAFT_SCRIPT_H

#include "tests/sim/raft_world.h"

/* So many voters, all started, which take a snapshot after so many entries. */
struct world *raft_script_world(uint64_t voters, uint64_t snapshot_every);
/* Plays the script in a world of its own. */
void raft_script_play(uint64_t voters, const char *text);
/* Plays the script; prints the line and the trace, and aborts, where it does not hold. */
void raft_script(struct world *w, const char *text);
/* Everybody in the leader's membership has applied all of the leader's log. */
bool raft_script_agreed(struct world *w);

#endif
