/* Watchers of this node, whatever its Raft role: fed with the events of every applied entry, in order
 * and without gaps. All events of one revision go out together as one encoded `watch_event`; when they do
 * not fit, as several, of which all but the last say `more`.
 *
 * A receiver that does not keep up is not waited for: its watch ends with `cancelled` and the revision
 * to resume from. While the window of one that has a window is closed it is told nothing, nothing
 * is kept for it, and with its next credit it goes on from history (watch_grant). One that asks for more than history keeps ends with `compacted`; so does one whose
 * part of a revision would fill its connection: resuming would only meet it again. Pure: what goes out
 * goes through `send`. */
#ifndef REGENT_DCS_WATCH_H
#define REGENT_DCS_WATCH_H

#include "dcs/list.h"
#include "proto/messages.h"

enum {
    WATCH_MAX = 4096,
    /* of the events of a message: below what a frame may be (proto/conn.h) */
    WATCH_BYTES_MAX = 2 * 1024 * 1024,
    WATCH_ELEMENTS_MAX = 65000,
    /* of the events of a revision: below what a connection takes (server.h) with what waits there;
     * from half a message on, previous pairs are left out */
    WATCH_REVISION_MAX = 6 * 1024 * 1024,
    WATCH_PROGRESS_MS_MIN = 1000,
    WATCH_CREDIT_MAX = 1024 * 1024 * 1024
};

/* One encoded watch_event; the slice is valid during the call. false: the receiver is over its bound
 * and took nothing. `must`: it must go out whatever the bound (the watch has ended, or this is not the
 * first part of a revision). */
typedef bool watch_send(void *arg, struct slice event, bool must);

/* Events of the revision being reported that are not sent yet. */
struct watch_events {
    struct msg_list list;
    size_t elements;
};

struct watch {
    struct list link;
    uint64_t id;
    struct buf key, end;
    bool prev_kv, no_put, no_delete;
    uint64_t progress_ms, quiet_ms; /* 0: no progress wanted; since it was told anything */
    uint64_t next_revision;         /* the first one not yet sent, or not wanted before */
    struct watch_events events;
    size_t revision_bytes; /* of the revision being reported, sent and not sent */
    bool in_parts;         /* some of it was sent */
    bool over;             /* it is more than a connection takes */
    bool slow;             /* the receiver took no more */
    bool window;
    /* window: bytes that may still be sent; a revision that was begun is sent whole */
    uint64_t credit;
    bool behind;      /* window: it was closed at next_revision and is not yet open again */
    bool catching_up; /* from next_revision on it is told by replays alone */
    watch_send *send;
    void *arg;
};

struct watch_hub {
    struct list watches;
    size_t n, n_catching_up;
    uint64_t last_id;
    bool replaying;              /* events come from history, for `only` alone */
    struct watch *only;          /* NULL when it ended meanwhile */
    struct buf plain, with_prev; /* the event at hand, encoded once for all */
    struct buf out;
};

void watch_hub_init(struct watch_hub *h);
size_t watch_hub_behind(const struct watch_hub *h); /* how many have a closed window */
void watch_hub_close(struct watch_hub *h);          /* frees all, tells nobody */
/* revision: of the state now. ERR_LIMIT: too many. Owner of *ret_watch: the hub, until watch_free(),
 * which the receiver must call when it goes away. */
enum err watch_add(struct watch_hub *h, const struct watch_req *req, uint64_t revision,
                   watch_send *send, void *arg, struct watch **ret_watch) MUST_CHECK;
struct watch *watch_find(struct watch_hub *h, uint64_t id,
                         const void *arg); /* NULL: none of that receiver */
void watch_free(struct watch_hub *h, struct watch *w);
void watch_free_all_of(struct watch_hub *h, const void *arg);

/* From the state, while it applies or replays. */
void watch_event(struct watch_hub *h, bool deleted, const struct kv *kv, const struct kv *prev);
void watch_revision_done(struct watch_hub *h, uint64_t revision);
/* elapsed_ms later: those that want it, and have heard nothing for so long, are told how far they are. */
void watch_progress(struct watch_hub *h, uint64_t elapsed_ms, uint64_t revision);
/* More credit for a watch with a window. true: it was closed and is open again: what it has missed is to
 * be replayed. */
bool watch_grant(struct watch *w, uint64_t credit) MUST_CHECK;
/* History is to be replayed for it, or no more. */
void watch_catch_up(struct watch_hub *h, struct watch *w, bool yes);
/* The one that has waited longest to go on; NULL: none. */
struct watch *watch_next_catching_up(struct watch_hub *h);
/* Between these two the events come from history and are for w alone; false: it ended on the way. */
void watch_replay_begin(struct watch_hub *h, struct watch *w);
bool watch_replay_end(struct watch_hub *h) MUST_CHECK;
/* Ends all with `cancelled`: to be resumed on another node. */
void watch_end_all(struct watch_hub *h);
/* Ends it with `compacted`: what it needs is older than `compacted`. Frees it. */
void watch_end_compacted(struct watch_hub *h, struct watch *w, uint64_t compacted);

#endif
