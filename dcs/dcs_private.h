/* The production wiring of one node, for dcs*.c and join.c alone. */
#ifndef REGENT_DCS_DCS_PRIVATE_H
#define REGENT_DCS_DCS_PRIVATE_H

#include <pthread.h>
#include <uv.h>

#include "dcs/archive.h"
#include "dcs/backup.h"
#include "dcs/dcs.h"
#include "dcs/hasher.h"
#include "dcs/heard.h"
#include "dcs/log_store.h"
#include "dcs/node.h"
#include "dcs/peer.h"
#include "dcs/querier.h"
#include "dcs/server.h"
#include "dcs/snapshot_files.h"

enum {
    DCS_MAGIC = 0x44435300,
    DCS_ELECTION_MS = 1000,
    DCS_HEARTBEAT_MS = 100,
    DCS_HOUSE_MS = 1000,
    DCS_ADOPT_MAX = 64,
    DCS_EXIT_STORAGE = 70,
    DCS_JOIN_MS = 1000 /* between two attempts to present this node */
};

/* A joined node's first steps: presenting itself until the log names it. */
struct join {
    struct conn *conn; /* NULL: none */
    bool closing;      /* its `closed` is outstanding */
    bool done;
    size_t at; /* which address is next */
    uint64_t next_ms;
    bool complained;
};

struct dcs {
    uint32_t magic;
    /* Copies of the options. */
    char *name, *data_dir, *listen, *address, *role, *scope;
    char *ca_file, *cert_file, *key_file, *ca_key_file, *secrets_file;
    char *join_to[DCS_JOIN_MAX];
    size_t n_join;
    uint64_t election_ms, heartbeat_ms;
    uint64_t snapshot_every;
    void (*on_fatal)(void *arg, const char *what);
    void *on_fatal_arg;

    struct pki_identity id;
    struct buf ca_cert, ca_key, secrets;
    SSL_CTX *server_ctx, *client_ctx;
    int lock_fd;
    int fds[SERVER_LISTENERS_MAX];
    size_t n_fds, local_fd; /* local_fd: index of the local socket; n_fds: none */
    struct state *state;
    struct log_store *log;
    struct raft_core_disk disk;
    struct node *node;
    struct peers peers;
    struct server server;
    struct snapshot_files files;
    struct backup backup;
    struct archive archive;
    struct heard heard;
    struct querier querier;
    struct join join;
    uint64_t checked_applied;
    bool ca_asked;
    uint64_t renewal_ms; /* next look at this node's certificate */

    uv_loop_t loop;
    bool loop_open, handles_open, server_open, log_started;
    uv_async_t wake;
    uv_prepare_t pass;
    /* when the present turn of the loop began to wait; waits before it */
    uint64_t turn_us, idle_ns;
    uv_timer_t tick, house;
    pthread_t thread;

    /* Shared with other threads. */
    pthread_mutex_t mutex;
    int adopt[DCS_ADOPT_MAX];
    size_t n_adopt;
    bool stop; /* no more connections; the thread ends */

    /* Loop thread. */
    bool stopping;
    uint64_t step_aside_until_ms;
};

/* dcs_open.c: everything dcs_start() checks and opens, in an order that changes nothing on disk
 * before the checks are done. */
enum err dcs_check(struct dcs *d, struct errmsg *e) MUST_CHECK;
enum err dcs_open(struct dcs *d, struct errmsg *e) MUST_CHECK;
/* One process at a time in a data directory. */
enum err dcs_lock(const char *data_dir, int *ret_fd, struct errmsg *e) MUST_CHECK;
#define DCS_RECOVERING "recovering"   /* a file there: `dcs recover` is half done */
#define DCS_QUARANTINED "quarantined" /* a file there: why */

/* dcs_wire.c */
extern const struct node_ops dcs_node_ops;
extern const struct peer_ops dcs_peer_ops;
extern const struct server_ops dcs_server_ops;
extern const struct snapshot_files_ops dcs_files_ops;
extern const struct log_store_ops dcs_log_ops;
NORETURN void dcs_fatal(void *dcs, const char *what);
void dcs_set_authority(struct dcs *d);
/* Once a second: certificates' key, removed members, figures. */
void dcs_housekeeping(struct dcs *d);

/* A certificate for `id`, by the CA's key this node holds. */
enum err dcs_sign(void *dcs, const struct pki_identity *id, struct slice csr,
                  struct buf *ret_cert, struct errmsg *e) MUST_CHECK;
#define NUMBER_CA_FETCH 0xfffffff0U /* of peers_call() */
#define NUMBER_CERT_RENEW 0xfffffff1U

/* renewal.c: this node's certificate is renewed in time, under its key, without a restart. */
void renewal_tick(struct dcs *d);
void renewal_answer(struct dcs *d, enum err status, const char *text, struct slice result);

/* join.c */
void join_tick(struct dcs *d);
void join_close(struct dcs *d);

#endif
