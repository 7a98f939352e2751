/* Running PostgreSQL's programs as children: output captured, cancellable, with a deadline. */
#ifndef REGENT_AGENT_WORKER_WORKER_TOOL_H
#define REGENT_AGENT_WORKER_WORKER_TOOL_H

#include "agent/worker/worker_messages.h"
#include "base/buf.h"
#include "base/err.h"

/* The connection a request came in by, while it is worked on. */
struct worker {
    int fd;
    struct buf in;  /* bytes read and not yet taken */
    uint64_t id;    /* request under way */
    bool cancelled; /* it was called off */
    bool gone;      /* the other end closed */
};

enum { TOOL_ARGS_MAX = 96, TOOL_OUTPUT_MAX = 65536 };

struct tool {
    const char *argv[TOOL_ARGS_MAX]; /* argv[0]: absolute path; borrowed; ends with NULL */
    struct slice input;              /* its standard input; at most 4096 bytes */
    /* for a program of the administrator: PGPASSFILE; NULL: not set */
    const char *passfile;
    uint64_t timeout_ms; /* 0: none */
    /* Its lines like "12/345 kB (3%)" are told to the agent as progress, and are no part of its output. */
    bool says_percent;
    /* How much is in this directory is told as progress, now and then; NULL: nothing is. */
    const char *fills;
    /* Called about twice a second; NULL: nothing is. */
    void (*look)(void *arg);
    /* Gets everything it writes, as it comes; NULL: nobody does. */
    void (*take)(void *arg, struct slice piece);
    void *arg;
};

void tool_arg(struct tool *t, const char *arg);
/* Those of a list with a NUL behind each for which skip (NULL: none) is not true. */
enum err tool_args(struct tool *t, struct slice args, bool (*skip)(const char *arg),
                   struct errmsg *e) MUST_CHECK;
/* Runs it to its end. ERR_OK: status 0; output (may be NULL) has what it wrote to stdout and
 * stderr, at most TOOL_OUTPUT_MAX bytes, the oldest dropped. Else e has the program's name, why, and
 * its last lines. ERR_CANCELLED after a cancel or when the agent went away. */
enum err tool_run(struct worker *w, const struct tool *t, struct buf *output, struct errmsg *e)
    MUST_CHECK;

/* worker.c: takes what came in meanwhile; a cancel sets w->cancelled, more requests are refused. */
void worker_listen(struct worker *w);
void worker_reply(struct worker *w, const struct worker_reply *r);

#endif
