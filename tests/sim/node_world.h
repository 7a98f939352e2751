/* Whole nodes in one process on virtual time: the production DCS (dcs/node.c with Raft and SQLite), the
 * production engine (mirror, lease keeper, transactions, decide, plan_check), over models of what they
 * touch: log disk, network, client connection, fence, PostgreSQL. Everything random comes from one seed.
 *
 *   node_world.c    events, clocks, the trace        node_fence.c    the fence
 *   node_disk.c     the log's disk                   node_pg.c       PostgreSQL: commits, walsenders
 *   node_net.c      links between the daemons        node_wal.c      and its standbys: streaming
 *   node_daemon.c   one daemon: DCS and engine       node_act.c      what the agent does to it
 *   node_client.c   requests of the agent            node_see.c      what the agent sees of it
 *   node_watch.c    its connection and watch
 *   node_faults.c   what goes wrong, and when        node_check.c    what must never be
 *   node_orders.c   what operators ask for            node_sick.c     disks and servers that fall ill
 *   node_rush.c     one failover after another       node_shrink.c   fewer faults that break it, too
 *
 * Time is microseconds of the world; every node has a clock of its own in milliseconds, at its own rate. */
#ifndef REGENT_TESTS_SIM_NODE_WORLD_H
#define REGENT_TESTS_SIM_NODE_WORLD_H

#include "agent/engine.h"
#include "agent/pg_health.h"
#include "base/rng.h"
#include "dcs/node.h"

enum {
    SIM_NODES = 7,
    SIM_TRACE = 300,
    SIM_LINE = 200,
    SIM_TIMELINES = 128,
    SIM_TOKENS = 512,
    SIM_KINDS = 32,
    SIM_FAULTS = 512
};
enum { SIM_SYSTEM_ID = 77, SIM_LSN = 4096, SIM_KILL_BUDGET_MS = 200 };

#define MS ((uint64_t)1000)
#define SEC (1000 * MS)
#define NEVER UINT64_MAX

/* What can be stopped, killed and frozen by itself. */
enum domain { DAEMON, FENCE, POSTGRES, DOMAINS, WORLD = DOMAINS };

struct sim;
struct sim_node;

/* ---- events ---- */
typedef void sim_fn(struct sim *w, struct sim_node *x, void *arg);

struct sim_event {
    uint64_t at_us, seq;
    struct sim_node *x; /* NULL: the world's */
    enum domain domain;
    unsigned life; /* of the domain: void when it has ended meanwhile */
    const char *what;
    sim_fn *fn;
    void *arg; /* owned by the event; NULL or one allocation */
};

/* ---- the log's disk ---- */
struct disk_entry {
    uint64_t term;
    enum raft_entry_type type;
    uint8_t *data; /* owned */
    size_t n;
};

/* What is durable. Entries first..first+n-1. */
struct disk_log {
    uint64_t term, vote;
    bool has_snapshot;
    struct raft_snapshot_info snapshot;
    uint64_t first;
    struct disk_entry *entries;
    size_t n, cap;
};

struct disk_op;

struct disk {
    struct disk_log log;
    struct disk_op *ops, **ops_end; /* asked for, not durable */
    size_t flushed;                 /* ops that may go */
    size_t batch;                   /* ops in the commit under way */
};

/* ---- PostgreSQL ---- */
struct timeline {
    uint64_t id;
    size_t start; /* index of its first record */
};

struct data {
    enum pg_data state;
    char incarnation[40], lineage[160];
    bool standby_signal, clean;
    uint32_t *wal; /* owned; ids of commits, 0: a record of PostgreSQL's own */
    size_t n, cap;
    struct timeline tl[SIM_TIMELINES];
    size_t tl_n;
    uint64_t sealed_token, sealed_timeline;
    size_t sealed_n, shutdown_n, checkpoint_n;
    size_t consistent_n;       /* nobody is let in before it has that much */
    size_t recovery_n;         /* the control file: at least so much is replayed by a start */
    uint64_t control_timeline; /* of the last checkpoint */
    bool roles;                /* the roles exist */
    int upstream;              /* as configured; -1: nobody */
    uint64_t follow_token;
    struct sync_set set; /* as configured */
    bool stuck;          /* follows, but cannot */
};

struct walsender {
    uint64_t conn; /* 0: none */
    struct sync_set set;
    size_t flushed, sent;
    uint64_t bad_since_us;
    bool streaming;
};

struct waiter {
    size_t n; /* released when everything up to here is safe */
    uint32_t id;
};

enum { WAITERS_MAX = 1024 };

struct pg {
    enum pg_proc proc; /* the truth */
    bool in_recovery, accepts, stopping;
    bool crashed, fenced; /* how the last one ended */
    uint64_t token;       /* of the promotion or start that made it writable */
    /* the fence was frozen while it could write, or its clock had stood */
    bool unfenced;
    uint64_t starts;
    /* primary */
    bool defined;                        /* the shared flag: commits wait */
    uint64_t wal_due;                    /* a sending is on its way to the event */
    struct walsender senders[SIM_NODES]; /* by standby */
    struct waiter waiters[WAITERS_MAX];
    size_t waiters_n;
    uint64_t reloads; /* of the configuration; late ones of an older reload are void */
    /* standby */
    int upstream; /* as the startup process knows it */
    int shown;    /* as a session shows it: what was loaded last, not what is written */
    uint64_t shown_token;
    bool held;      /* replay is held up by a report */
    uint64_t conn;  /* walreceiver; 0: none */
    bool streaming; /* and it streams */
    bool retrying;  /* an attempt is on its way */
    bool waiting;   /* for what it needs to be consistent */
    /* what it found on its disk is being replayed: no walreceiver is asked for, and nobody
     * can say how much there is */
    bool local;
    uint64_t replay_us; /* for one record of that */
    size_t replayed;
    uint64_t bad_since_us, unfed_us;
};

/* ---- the agent's side of PostgreSQL (agent/postgres.c) ---- */
struct look {
    uint64_t serial, start_us;
    bool in_recovery, walreceiver, streaming, checkpointed, stuck;
    uint64_t lsn, replay_lsn, timeline, parent, switch_lsn;
    struct view_walsender senders[SIM_NODES];
    size_t senders_n;
};

struct act {
    bool active, cancelled;
    unsigned serial; /* steps of an earlier action are void */
    int step;
    struct plan plan;
    int upstream;
    uint64_t began_us, since_us, limit_local_ms;
    postgres_cb *cb;
    void *arg;
};

struct agent_pg {
    bool probed, identified, ever_seen, stopping, closely, rewind_failed, roles_ready,
        follow_known;
    bool fence_connected, accepts;
    uint64_t postmaster; /* as last told; 0: none */
    uint64_t starting_ms;
    unsigned arming; /* orders to the fence that it has not answered */
    bool remembers;  /* what it has a fence remember */
    uint64_t lease, nonce;
    struct look look;
    uint64_t look_us; /* when the next look is; 0: none */
    struct sync_set set, old[VIEW_SETS];
    size_t old_n;
    bool set_known, confirmed, confirming, taken;
    bool all; /* any walsender may go by any set */
    size_t mark;
    unsigned confirm_serial;
    struct act act;
    struct health health;
    struct view_pg told;
};

/* ---- fence ---- */
struct fence_model {
    bool alive, armed;
    uint64_t token, deadline_ms;
    uint64_t lease, nonce;
    bool exited, requested;
};

/* ---- requests of the agent ---- */
struct client_call;

struct client_model {
    struct client_call *calls; /* in order of their beginning */
    struct client_call **calls_end;
    unsigned epoch; /* of the connection */
    bool connected;
    uint64_t session, nonce, seq;
    bool opening;
    uint64_t next_id;
    struct buf watch_key, watch_end;
    bool watching;
    uint64_t watch_from;
    struct watch *watch;
    bool watch_ended;
    unsigned watch_serial; /* of the engine's wish */
};

/* What an operator asked of this node's PostgreSQL last, and how it was then. */
struct order {
    char id[40], kind[16], incarnation[40];
    uint64_t starts;
};

struct sim_node {
    struct sim *w;
    uint64_t id; /* member id: index + 1 */
    char name[16];
    /* the clock: local_us + (now - base_us) * rate / 1e6 */
    uint64_t base_us, local_us, rate_ppm;
    uint64_t true_rate_ppm;
    unsigned life[DOMAINS];
    bool up[DOMAINS];
    uint64_t paused_until_us[DOMAINS];
    bool machine_down;        /* powered off */
    uint64_t frozen_until_us; /* the machine: what is started meanwhile stands still too */
    uint64_t doubt_until_us;  /* its clock stood: deadlines of before are later than they say */
    enum sick ill;            /* what is wrong with its disk or PostgreSQL, until then */
    uint64_t ill_since_us, ill_until_us;
    /* daemon */
    struct disk disk;
    struct state *state;
    struct node *node;
    struct state_restoring *restoring; /* until the event that ends it */
    struct engine *engine;
    bool ending; /* callbacks of what is being freed are void */
    uint64_t pass_at_ms, pass_event_us, wake_at_ms, wake_event_us;
    unsigned pass_gen, wake_gen;
    uint64_t slow_disk_us, slow_until_us;
    uint64_t snapshots[64];
    size_t snapshots_n;
    bool linked[SIM_NODES];
    uint64_t link_busy_us[SIM_NODES]; /* frames to that node stay in order */
    struct client_model client;
    bool leaving; /* SIGTERM */
    /* the rest of the node */
    struct fence_model fence;
    struct data data;
    struct pg pg;
    struct agent_pg agent;
    uint64_t wal_busy_us[SIM_NODES];
    struct order order;
    char last_rule[48];
    uint64_t hash_applied, hash;
};

/* Ways to break the parts around the production code: each must be seen by the checks. */
enum mutation {
    MUTATION_NONE,
    MUTATION_FENCE_IDLE,     /* the fence does not kill */
    MUTATION_NO_DEADLINE,    /* the fence is told of a deadline far away */
    MUTATION_NO_SHORTENING,  /* it keeps the longer one when ttl is made shorter */
    MUTATION_NO_SEAL,        /* a seal is published while the walreceiver goes on */
    MUTATION_NO_CONFIRM,     /* a set counts as confirmed at once */
    MUTATION_NO_SYNC_GUARD,  /* transactions do not compare the sync record */
    MUTATION_NO_DAMPING,     /* the sick relieve each other as fast as they like */
    MUTATION_SEAL_IN_REPLAY, /* a seal says what was replayed, not what is on the disk */
    MUTATION_COUNT
};

/* What a seed is about. */
enum scenario {
    SCENARIO_MIX,     /* everything */
    SCENARIO_KILL,    /* the primary's machine dies: how long is the gap? */
    SCENARIO_DAEMONS, /* only daemons die and come back */
    SCENARIO_FENCE,   /* asynchronous, the fences hold */
    SCENARIO_LATE,    /* requests arrive when the world has moved on */
    SCENARIO_ORDERS,  /* operators are busy */
    SCENARIO_SICK,    /* disks fill up or hang, servers hang, and others take over */
    SCENARIO_RUSH,    /* whoever leads is struck at once */
    SCENARIO_OUTAGE,  /* several machines lose power at once, and the standby returns first */
    SCENARIO_COUNT
};

struct ack {
    uint64_t at_us;
    uint64_t token;
    bool acked, forgiven;
};

struct sim {
    uint64_t seed;
    struct rng rng;
    uint64_t now_us, seq;
    struct sim_event **heap;
    size_t heap_n, heap_cap;
    size_t n;
    struct sim_node node[SIM_NODES];
    enum scenario scenario;
    enum mutation mutation;
    bool cut[SIM_NODES][SIM_NODES];    /* from, to */
    unsigned loss, duplicate, reorder; /* thousandths, of frames */
    unsigned late;                     /* thousandths, of calls */
    uint64_t delay_us;
    uint64_t snapshot_every;
    /* the agents write it: half of all revisions, and on nothing of it anything depends */
    bool journal;
    unsigned late_reload; /* thousandths of processes that take a reload late */
    struct config_rec config;
    uint64_t longest_ttl_s; /* that was asked for */
    uint64_t conns;
    uint64_t incarnations;
    char dir[64];
    /* clients */
    uint32_t next_id;
    struct ack *acks; /* by id */
    size_t acks_cap;
    uint64_t acked, last_ack_us, gap_us, gap_from_us;
    /* the DCS as the checks know it */
    uint64_t revision_hash[65536];
    uint64_t revision_max;
    uint64_t key_token, sync_token;
    char key_name[64];
    bool key_there;
    char record_mode[8], record_leader[64];
    bool record_disarmed;
    struct failover_rec asked;    /* the request for another leader that is open */
    uint64_t forced_revision;     /* when a forced one was carried out */
    bool lossy_token[SIM_TOKENS]; /* acquired while the record's mode was off */
    bool clean_token[SIM_TOKENS]; /* handed over */
    uint64_t primary_token;       /* of the newest that became writable */
    struct sim_node *primary;
    uint64_t promotions, kills, lost, orders;
    uint64_t relief_token; /* of the last leader that wanted to be relieved of it */
    /* when this token came to a node that relieved a sick one */
    uint64_t relieved_us[SIM_TOKENS];
    uint64_t promised_sick_s; /* sick_failover_interval */
    uint64_t reliefs;
    uint64_t struck_token, struck_us; /* SCENARIO_RUSH: the leader that was struck last */
    /* faults */
    unsigned weight[SIM_KINDS]; /* of each kind of fault, for this seed */
    uint64_t faults;            /* so many have been chosen; each has its number */
    bool without[SIM_FAULTS];   /* chosen all the same, and left out */
    uint64_t quiet_us, end_us;
    uint64_t calm_until_us; /* no faults until then */
    bool settled;
    /* judging */
    bool trace;
    char lines[SIM_TRACE][SIM_LINE];
    uint64_t n_lines;
    uint64_t hash, events;
    uint64_t busy_ms, busy_from; /* events in this millisecond */
    char violation[400];
};

/* ---- node_world.c ---- */
struct sim_options {
    int scenario; /* -1: by the seed */
    enum mutation mutation;
    uint64_t nodes;   /* 0: by the seed */
    const char *mode; /* NULL: by the seed */
    bool without[SIM_FAULTS];
};
/* node_setup.c */
struct sim *sim_new(uint64_t seed, const struct sim_options *o);
void sim_free(struct sim *w);
void sim_drop_events(struct sim *w);
/* Runs the seed to its end; false: w->violation says what broke. */
bool sim_run(struct sim *w);
void sim_at(struct sim *w, struct sim_node *x, enum domain d, uint64_t delay_us,
            const char *what, sim_fn *fn, void *arg);
void sim_note(struct sim *w, const struct sim_node *x, const char *fmt, ...) PRINTF(3, 4);
void sim_violation(struct sim *w, const char *fmt, ...) PRINTF(2, 3);
void sim_print_trace(const struct sim *w);
uint64_t sim_random(struct sim *w, uint64_t n);              /* 0 .. n-1 */
uint64_t sim_between(struct sim *w, uint64_t a, uint64_t b); /* a .. b */
bool sim_chance(struct sim *w, unsigned permille);
uint64_t sim_hash(uint64_t h, const void *p, size_t n);
struct sim_node *sim_node_named(struct sim *w, const char *name);
uint64_t sim_wall_ms(const struct sim *w);                         /* an operator's watch */
uint64_t clock_of(const struct sim_node *x);                       /* ms on its clock */
uint64_t until_local(const struct sim_node *x, uint64_t local_ms); /* us from now */
void clock_set_rate(struct sim_node *x, uint64_t rate_ppm); /* from now on; 0: it stands */
void domain_begin(struct sim_node *x, enum domain d);
void domain_end(struct sim_node *x, enum domain d);
void domain_pause(struct sim_node *x, enum domain d, uint64_t for_us);
bool domain_runs(const struct sim_node *x, enum domain d);

/* ---- node_disk.c ---- */
void disk_init(struct disk *d, const struct raft_membership *m, struct slice first_entry);
void disk_close(struct disk *d);
void disk_append(struct sim_node *x, uint64_t first, const struct raft_entry_view *e, size_t n);
void disk_truncate(struct sim_node *x, uint64_t from);
void disk_meta(struct sim_node *x, uint64_t term, uint64_t vote);
void disk_snapshot(struct sim_node *x, const struct raft_snapshot_info *info, uint64_t trim_to,
                   bool installed);
void disk_flush(struct sim_node *x);
/* power: what was not synced is lost; else what was handed over gets there. */
void disk_crash(struct sim_node *x, bool power);
/* *ret_entries is the caller's. */
void disk_view(struct sim_node *x, struct raft_core_disk *ret,
               struct raft_entry_view **ret_entries);

/* ---- node_net.c ---- */
void net_frame(struct sim_node *x, uint64_t member, struct slice frame);
bool net_call(struct sim_node *x, uint64_t member, uint32_t number, const char *method,
              struct slice params);
void net_changed(struct sim *w); /* a cut, a death, a pause: links come and go */
uint64_t net_delay(struct sim *w);
/* a to b */
bool net_open(const struct sim *w, const struct sim_node *a, const struct sim_node *b);

/* ---- node_daemon.c ---- */
void daemon_start(struct sim_node *x);
void daemon_end(struct sim_node *x, bool power);
void daemon_back(struct sim_node *x, uint64_t after_us); /* the supervisor starts it again */
void daemon_pass(struct sim_node *x);                    /* soon */
void daemon_wake(struct sim_node *x);
extern const struct engine_ports sim_ports;

/* ---- node_watch.c ---- */
void client_start(struct sim_node *x);
void client_end(struct sim_node *x);
void client_break(struct sim_node *x); /* the connection breaks; answers under way are lost */
/* ---- node_client.c ---- */
void client_connected(struct sim_node *x);
void client_lost(struct sim_node *x);
void client_forget(struct sim_node *x);
void sim_call(void *arg, enum method m, const void *params, uint64_t deadline_ms, client_cb *cb,
              void *cb_arg);
void sim_watch(void *arg, struct slice key, struct slice end, uint64_t start_revision);

/* ---- node_fence.c ---- */
void fence_start(struct sim_node *x);
void fence_die(struct sim_node *x);
void fence_told(struct sim_node *x); /* the daemon hears of a change */
void fence_ended(struct sim_node *x, bool requested);
void sim_fence(void *arg, struct fence_state *ret);
void sim_arm(void *arg, uint64_t token, uint64_t deadline_ms);
void sim_extend(void *arg, uint64_t deadline_ms);
bool sim_shorten(void *arg, uint64_t deadline_ms);
void sim_disarm(void *arg);
void sim_confirm(void *arg, uint64_t challenge);
void sim_kill(void *arg);
void sim_recall(struct sim_node *x); /* of a fence that has just been connected */
void sim_remember(void *arg, uint64_t lease, uint64_t nonce);

/* ---- node_pg.c ---- */
uint64_t pg_lsn(size_t n);
uint64_t data_timeline(const struct data *d);
uint64_t timeline_at(const struct data *d, size_t n); /* of the last of n records */
void data_append(struct data *d, uint32_t id);
bool pg_writable(const struct sim_node *x);
/* records that it can tell of */
size_t pg_has(const struct sim_node *x);
void pg_start(struct sim_node *x, bool primary, uint64_t token);
void pg_loaded(struct sim_node *x);          /* the configuration, by the postmaster */
void pg_look_consistent(struct sim_node *x); /* more has been received */
/* Its processes get SIGQUIT or SIGKILL; dead after `for_us`. */
void pg_kill(struct sim_node *x, uint64_t for_us, bool requested, bool fenced);
void pg_gone(struct sim_node *x); /* at once: the machine lost power */
void pg_stop_fast(struct sim_node *x);
void pg_become_primary(struct sim_node *x, uint64_t token);
/* data.set is to be taken by everybody, each in its time */
void pg_reload_set(struct sim_node *x);
void pg_release(struct sim_node *x, const struct walsender *by);
void pg_client(struct sim *w); /* the writers begin */

/* ---- node_wal.c ---- */
/* the startup process looks for its upstream */
void wal_wake(struct sim_node *x);
void wal_cut(struct sim_node *x);        /* the walreceiver ends */
void wal_send(struct sim_node *primary); /* there is something new */
void wal_end_sender(struct sim_node *primary, size_t standby);
struct sim_node *wal_upstream(struct sim_node *x);
bool wal_can_stream(const struct data *from, const struct data *to);
bool wal_is_prefix(const struct data *a, const struct data *of);

/* ---- node_act.c ---- */
void sim_run_action(void *arg, const struct plan *p, const struct postgres_upstream *up,
                    uint64_t deadline_ms, postgres_cb *cb, void *cb_arg);
void sim_cancel(void *arg);
void act_look(struct sim_node *x); /* something has changed that an action may wait for */
void act_end(struct sim_node *x, enum err status, const char *why);

/* ---- node_see.c ---- */
void see_start(struct sim_node *x); /* a daemon begins */
void see_fence(struct sim_node *x); /* the fence has told something */
void see_probe(struct sim_node *x);
void see_soon(struct sim_node *x, uint64_t delay_us);
void see_told(struct sim_node *x); /* wakes the engine when the view has changed */
void see_set(struct sim_node *x, const struct sync_set *set);
void see_set_fresh(struct sim_node *x, const struct sync_set *set);
void see_confirm(struct sim_node *x); /* begins to confirm the set */
void sim_observe(void *arg, struct view_pg *ret_pg);
void sim_configure(void *arg, const struct postgres_dynamic *d);
void sim_watch_closely(void *arg, bool on);

/* ---- node_faults.c ---- */
void faults_begin(struct sim *w);
/* How long the transaction that is sent now is under way; 0: it is not held up. */
uint64_t faults_late(struct sim *w);

/* Counts a fault that has been chosen; false: it is left out. */
bool faults_next(struct sim *w);
uint64_t faults_left(const struct sim *w, uint64_t us); /* not beyond the faulty time */
struct sim_node *faults_primary(struct sim *w);
void fault_machine(struct sim *w, struct sim_node *x, uint64_t for_us);
void fault_daemon(struct sim *w, struct sim_node *x, uint64_t for_us);
void fault_postmaster(struct sim *w, struct sim_node *x, uint64_t for_us);
void fault_fence(struct sim *w, struct sim_node *x, uint64_t for_us);

/* ---- node_sick.c ---- */
void sick_config(struct sim *w);
void sick_start(struct sim_node *x); /* a daemon begins */
void fault_illness(struct sim *w, struct sim_node *x, uint64_t for_us);
void sick_heal(struct sim_node *x);
/* How long what needs the disk has to wait. */
uint64_t sick_wait_us(const struct sim_node *x);
bool sick_is(const struct sim_node *x, enum sick what);
void check_relief(struct sim_node *x, const struct view *v, const struct plan *p);
void check_key_gone(struct sim *w);
void check_relieved(struct sim *w, uint64_t token, bool other); /* the key has moved */

/* ---- node_shrink.c ---- */
/* Leaves out of the first `faults` of a seed that breaks what it breaks without: in o->without. How many are left. */
size_t sim_shrink(uint64_t seed, struct sim_options *o, uint64_t faults);

/* ---- node_rush.c ---- */
void rush_begin(struct sim *w);

/* ---- node_orders.c ---- */
void order_switchover(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_failover(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_mode(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_ttl(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_pause(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_request(struct sim *w, struct sim_node *x, uint64_t for_us);
void order_answered(struct sim_node *x, const struct result_rec *r);
void orders_end(struct sim *w); /* resumes, and starts what was stopped */
bool orders_open(const struct sim *w);

/* ---- node_check.c ---- */
void check_event(struct sim_node *x, const struct watch_event *ev);
void check_plan(struct sim_node *x, const struct view *v);
void check_primary(struct sim_node *x); /* x has become writable */
void check_disarm(struct sim_node *x);  /* the fence is about to let go */
void check_kill(struct sim_node *x);    /* the agent has the fence kill */
void check_ack(struct sim_node *x, uint32_t id);
void check_states(struct sim *w);
bool check_settled(const struct sim *w, const char **ret_why);
void check_end(struct sim *w);

#endif
