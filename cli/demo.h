/* demo: a real cluster on loopback, for trying things out and for tests.
 *
 * DIR holds one directory per node (DIR/n1, ...) with everything of that node: regent.yml, log, pid,
 * state, PGDATA in pg/. The marker file says that `demo down` may delete DIR. Every process of a
 * node works below its directory or names it on its command line: so they are found, and no other
 * is ever touched. As root everything runs as the ordinary user who owns DIR. */
#ifndef REGENT_CLI_DEMO_H
#define REGENT_CLI_DEMO_H

#include <jansson.h>
#include <sys/types.h>

#include "cli/cli.h"

enum {
    DEMO_NODES_MAX = 7,
    DEMO_DIR_MAX = 72,
    DEMO_PATH_MAX = 256,
    DEMO_LIMIT_MS = 120000,
    DEMO_PROGRAMS = 3
};

#define DEMO_MARKER ".regent-demo"

struct demo_node {
    char name[8];
    char dir[DEMO_PATH_MAX];
    char config[DEMO_PATH_MAX];
    bool exists;   /* it has been made: there is a regent.yml */
    pid_t started; /* by us, in this run; 0: not */
    char shown[64];
};

struct demo {
    const struct cli *cli;
    char dir[DEMO_DIR_MAX]; /* canonical once it exists */
    const char *pg_bin;     /* --pg-bin; NULL: found by init */
    uint64_t nodes;         /* 0: not given */
    uint64_t base_port;     /* 0: not given */
    bool async;
    bool marked; /* DIR exists and is a demo's */
    uid_t uid;   /* who runs it */
    gid_t gid;
    char user[64];
    char self[DEMO_PATH_MAX], regentd[DEMO_PATH_MAX]; /* programs that user can run */
    char typed[DEMO_PATH_MAX];                        /* what a person types to run regentctl */
    int sources[DEMO_PROGRAMS];                       /* open while they are copied */
    struct demo_node node[DEMO_NODES_MAX];
    uint64_t start_ms, start_wall_ms;
    char **rest; /* arguments behind the options */
    int rest_n;
};

/* ---- demo.c ---- */
/* Options, DIR, its nodes. Exit code, 0 when all is well; `needed`: DIR must be a demo's. */
int demo_open(struct demo *d, const struct cli *c, int argc, char **argv, bool needed);
struct demo_node *demo_node(struct demo *d, const char *name); /* NULL: there is none */
void demo_look(struct demo *d);                                /* which nodes exist */
size_t demo_count(const struct demo *d);

/* ---- demo_up.c ---- */
/* Makes what is missing, starts what does not run, waits until all is well. Exit code. */
int demo_up(struct demo *d);
/* `list -f json` of a node that answers; false: none does, the last complaint is in complaints. The
 * caller frees it with json_decref(). */
bool demo_list(struct demo *d, json_t **ret_list, struct buf *complaints);

/* ---- demo_user.c ---- */
/* Finds regentd and, as root, a user who shall run everything. */
enum err demo_user_pick(struct demo *d, struct errmsg *e) MUST_CHECK;
/* DIR, owned by that user, with the marker; programs copied to where that user can run them. */
enum err demo_user_prepare(struct demo *d, struct errmsg *e) MUST_CHECK;
/* From here on this process is that user's, for good. */
enum err demo_user_become(struct demo *d, struct errmsg *e) MUST_CHECK;
/* Takes DIR away, as that user. */
enum err demo_user_remove(struct demo *d, struct errmsg *e) MUST_CHECK;

/* ---- demo_run.c ---- */
/* regentctl -c CONFIG ARGUMENTS (NULL at the end): its exit code, what it wrote to out and to
 * complaints. A failure to run it at all is -1, with a complaint. */
int demo_run(const struct demo *d, const struct demo_node *n, const char *const *arguments,
             struct buf *out, struct buf *complaints);
enum err demo_start(struct demo *d, struct demo_node *n, struct errmsg *e) MUST_CHECK;
bool demo_died(struct demo_node *n);          /* started by us and ended since */
bool demo_answers(const struct demo_node *n); /* regentd takes connections */
/* Waits until it answers or dies, at most until DEMO_LIMIT_MS after the start of all. */
enum err demo_wait(struct demo *d, struct demo_node *n, struct errmsg *e) MUST_CHECK;
void demo_show_log(const struct demo_node *n); /* its last lines, on stderr */
/* a line with the time */
void demo_say(const struct demo *d, const char *fmt, ...) PRINTF(2, 3);

/* ---- demo_proc.c ---- */
/* Processes of a node (NULL: of all nodes), by program; 0: none. */
pid_t demo_find(const struct demo *d, const struct demo_node *n, const char *program);
/* kill -9 to every process of a node, daemon first, until none is left. */
enum err demo_kill(const struct demo *d, const struct demo_node *n, struct errmsg *e)
    MUST_CHECK;
/* The same for all nodes, but PostgreSQL may clear its shared memory away. */
enum err demo_stop(const struct demo *d, struct errmsg *e) MUST_CHECK;

#endif
