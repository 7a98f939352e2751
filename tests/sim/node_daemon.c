/* One regentd: the DCS member and the agent's engine, their wiring to the models, start and end. */
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

/* ---- the DCS: what it asks for ---- */

static uint64_t now_ms(void *arg)
{
    return clock_of(arg);
}

/* Wall clocks differ, and nothing may rest on them. */
static uint64_t now_us(void *arg)
{
    return now_ms(arg) * 1000;
}

static uint64_t wall_ms(void *arg)
{
    const struct sim_node *x = arg;
    return sim_wall_ms(x->w) + 50 * x->id;
}

static void store_append(void *arg, uint64_t first, const struct raft_entry_view *e, size_t n)
{
    disk_append(arg, first, e, n);
}

static void store_truncate(void *arg, uint64_t from)
{
    disk_truncate(arg, from);
}

static void store_meta(void *arg, uint64_t term, uint64_t vote)
{
    disk_meta(arg, term, vote);
}

static void store_snapshot(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed)
{
    disk_snapshot(arg, info, trim_to, installed);
}

static void store_flush(void *arg)
{
    disk_flush(arg);
}

static void send_frame(void *arg, uint64_t member, struct slice frame)
{
    net_frame(arg, member, frame);
}

static bool call(void *arg, uint64_t member, uint32_t number, const char *method,
                 struct slice params)
{
    return net_call(arg, member, number, method, params);
}

static bool linked(void *arg, uint64_t member)
{
    return ((struct sim_node *)arg)->linked[member - 1];
}

static uint64_t version(void *arg, uint64_t member)
{
    return linked(arg, member) ? PROTO_VERSION : 0;
}

static void flush(void *arg)
{
    (void)arg;
}

static void membership(void *arg, const struct raft_membership *m)
{
    struct sim_node *x = arg;
    ASSERT(m->n == x->w->n);
}

/* ---- snapshots: files, as in production ---- */

static void snapshot_path(void *arg, uint64_t index, char *ret_path, size_t size)
{
    struct sim_node *x = arg;
    (void)snprintf(ret_path, size, "%s/%s-%llu.db", x->w->dir, x->name,
                   (unsigned long long)index);
}

struct copied {
    struct raft_snapshot_info info;
    uint64_t from;
    bool ok;
};

static void keep_snapshot(struct sim_node *x, uint64_t index)
{
    ASSERT(x->snapshots_n < ARRAY_LEN(x->snapshots));
    x->snapshots[x->snapshots_n++] = index;
}

static void on_copied(struct sim *w, struct sim_node *x, void *arg)
{
    struct copied *c = arg;
    (void)w;
    node_snapshot_copied(x->node, &c->info, c->ok);
    daemon_pass(x);
}

static void snapshot_copy(void *arg, struct state_copy *copy,
                          const struct raft_snapshot_info *info)
{
    struct sim_node *x = arg;
    struct copied *c = mem_alloc(sizeof *c);
    struct errmsg e;
    char path[128];
    c->info = *info;
    snapshot_path(x, info->index, path, sizeof path);
    c->ok = state_copy_run(copy, path, &e) == ERR_OK &&
            state_file_digest(path, c->info.sha256, &c->info.size, &e) == ERR_OK;
    keep_snapshot(x, info->index);
    sim_note(x->w, x, "snapshot %llu", (unsigned long long)info->index);
    sim_at(x->w, x, DAEMON, sim_between(x->w, 1 * MS, 50 * MS), "copied", on_copied, c);
}

static bool copy_file(const char *from, const char *to)
{
    char bytes[16384];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    bool ok = in != NULL && out != NULL;
    for (size_t n; ok && (n = fread(bytes, 1, sizeof bytes, in)) > 0;)
        ok = fwrite(bytes, 1, n, out) == n;
    if (in != NULL)
        (void)fclose(in);
    if (out != NULL)
        (void)fclose(out);
    return ok;
}

static void on_fetched(struct sim *w, struct sim_node *x, void *arg)
{
    struct copied *c = arg;
    struct sim_node *from = &w->node[c->from - 1];
    char ours[128];
    char theirs[128];
    uint8_t sha[32] = {0};
    uint64_t size = 0;
    struct errmsg e;
    snapshot_path(x, c->info.index, ours, sizeof ours);
    snapshot_path(from, c->info.index, theirs, sizeof theirs);
    c->ok = x->linked[from->id - 1] && copy_file(theirs, ours) &&
            state_file_digest(ours, sha, &size, &e) == ERR_OK &&
            memcmp(sha, c->info.sha256, sizeof sha) == 0;
    keep_snapshot(x, c->info.index);
    sim_note(w, x, "snapshot %llu %s from %s", (unsigned long long)c->info.index,
             c->ok ? "fetched" : "not fetched", from->name);
    node_snapshot_fetched(x->node, &c->info, c->ok);
    daemon_pass(x);
}

static void snapshot_fetch(void *arg, uint64_t from, const struct raft_snapshot_info *info)
{
    struct sim_node *x = arg;
    struct copied *c = mem_alloc(sizeof *c);
    c->info = *info;
    c->from = from;
    sim_at(x->w, x, DAEMON, sim_between(x->w, 5 * MS, 300 * MS), "fetched", on_fetched, c);
}

static void fatal(void *arg, const char *what)
{
    struct sim_node *x = arg;
    (void)fprintf(stderr, "seed %llu: %s cannot go on: %s\n", (unsigned long long)x->w->seed,
                  x->name, what);
    sim_print_trace(x->w);
    _exit(1);
}

static void must(struct sim_node *x, enum err rv, const struct errmsg *e)
{
    if (rv != ERR_OK)
        fatal(x, e->text);
}

/* The file is the state's at once; that it is told of comes later, or never. */
static void on_restored(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    node_restored(x->node, TAKE(x->restoring), ERR_OK, "");
    daemon_pass(x);
}

static void restore(void *arg, struct state_restoring *r)
{
    struct sim_node *x = arg;
    struct errmsg e;
    must(x, state_restore_run(r, &e), &e);
    x->restoring = r;
    sim_at(x->w, x, DAEMON, sim_between(x->w, 1 * MS, 3000 * MS), "restored", on_restored,
           NULL);
}

static void snapshot_sweep(void *arg, uint64_t index)
{
    struct sim_node *x = arg;
    size_t kept = 0;
    for (size_t i = 0; i < x->snapshots_n; i++) {
        char path[128];
        if (x->snapshots[i] >= index) {
            x->snapshots[kept++] = x->snapshots[i];
            continue;
        }
        snapshot_path(x, x->snapshots[i], path, sizeof path);
        (void)unlink(path);
    }
    x->snapshots_n = kept;
}

/* No member of these worlds is ever removed, and nothing damages a state. */
static void out(void *arg, enum node_out why, const char *text)
{
    (void)why;
    fatal(arg, text);
}

static const struct node_ops node_ops = {
    .now_ms = now_ms,
    .now_us = now_us,
    .wall_ms = wall_ms,
    .store_append = store_append,
    .store_truncate = store_truncate,
    .store_meta = store_meta,
    .store_snapshot = store_snapshot,
    .store_flush = store_flush,
    .send_frame = send_frame,
    .call = call,
    .linked = linked,
    .version = version,
    .flush = flush,
    .membership = membership,
    .snapshot_copy = snapshot_copy,
    .snapshot_fetch = snapshot_fetch,
    .snapshot_path = snapshot_path,
    .restore = restore,
    .snapshot_sweep = snapshot_sweep,
    .out = out,
    .fatal = fatal,
};

/* ---- timers: one event under way each; a later time is found out when it comes ---- */

struct timer {
    uint64_t *want_ms, *event_us;
    unsigned *gen;
    const char *what;
    sim_fn *fn;
};

static void set_timer(struct sim_node *x, const struct timer *t, uint64_t at_ms)
{
    uint64_t in_us = until_local(x, at_ms);
    *t->want_ms = at_ms;
    if (*t->event_us != 0 && *t->event_us <= x->w->now_us + in_us)
        return;
    *t->event_us = x->w->now_us + in_us;
    ++*t->gen;
    sim_at(x->w, x, DAEMON, in_us, t->what, t->fn, mem_dup(t->gen, sizeof *t->gen));
}

/* False: it is not time yet, or another event stands for it. */
static bool timer_due(struct sim_node *x, const struct timer *t, const void *gen)
{
    if (*(const unsigned *)gen != *t->gen)
        return false;
    *t->event_us = 0;
    if (clock_of(x) >= *t->want_ms)
        return true;
    set_timer(x, t, *t->want_ms);
    return false;
}

static void on_pass(struct sim *w, struct sim_node *x, void *arg);

static struct timer pass_timer(struct sim_node *x)
{
    return (struct timer){&x->pass_at_ms, &x->pass_event_us, &x->pass_gen, "pass", on_pass};
}

static void on_pass(struct sim *w, struct sim_node *x, void *arg)
{
    const struct timer t = pass_timer(x);
    (void)w;
    if (!timer_due(x, &t, arg))
        return;
    x->pass_at_ms = NEVER;
    node_pass(x->node);
    uint64_t at = node_deadline(x->node);
    if (at < x->pass_at_ms)
        set_timer(x, &t, at);
}

void daemon_pass(struct sim_node *x)
{
    const struct timer t = pass_timer(x);
    uint64_t now = clock_of(x);
    if (x->pass_at_ms > now)
        set_timer(x, &t, now);
}

static void on_wake(struct sim *w, struct sim_node *x, void *arg);

static struct timer wake_timer(struct sim_node *x)
{
    return (struct timer){&x->wake_at_ms, &x->wake_event_us, &x->wake_gen, "tick", on_wake};
}

static void on_wake(struct sim *w, struct sim_node *x, void *arg)
{
    const struct timer t = wake_timer(x);
    (void)w;
    if (!timer_due(x, &t, arg))
        return;
    if (clock_of(x) > x->wake_at_ms + engine_view(x->engine)->config.ttl_ms / 4)
        engine_late(x->engine);
    engine_tick(x->engine);
}

static void wake_at(void *arg, uint64_t at_ms)
{
    struct sim_node *x = arg;
    const struct timer t = wake_timer(x);
    set_timer(x, &t, MAX(at_ms, clock_of(x)));
}

static void on_left(struct sim *w, struct sim_node *x, void *arg);

static void published(void *arg, const struct view *v, const struct plan *p)
{
    struct sim_node *x = arg;
    if (strcmp(x->last_rule, p->rule) != 0) {
        (void)snprintf(x->last_rule, sizeof x->last_rule, "%s", p->rule);
        sim_note(x->w, x, "rule %s: %s", p->rule, p->reason);
    }
    check_plan(x, v);
    check_relief(x, v, p);
    if (engine_stopped(x->engine) && !x->leaving) {
        x->leaving = true;
        sim_at(x->w, x, DAEMON, 1 * MS, "left", on_left, NULL);
    }
}

/* What this PostgreSQL knows has no parameters. */
static uint64_t sim_catalogue(void *arg, struct slice *ret_json)
{
    (void)arg;
    *ret_json = slice_of(NULL, 0);
    return 0;
}

const struct engine_ports sim_ports = {
    .now_ms = now_ms,
    .wall_ms = wall_ms,
    .call = sim_call,
    .watch = sim_watch,
    .observe = sim_observe,
    .run = sim_run_action,
    .cancel = sim_cancel,
    .configure = sim_configure,
    .watch_closely = sim_watch_closely,
    .catalogue = sim_catalogue,
    .fence = sim_fence,
    .arm = sim_arm,
    .extend = sim_extend,
    .shorten = sim_shorten,
    .disarm = sim_disarm,
    .confirm = sim_confirm,
    .kill = sim_kill,
    .remember = sim_remember,
    .wake_at = wake_at,
    .published = published,
};

void daemon_wake(struct sim_node *x)
{
    if (x->up[DAEMON] && x->engine != NULL && !x->ending)
        engine_wake(x->engine);
}

/* ---- life ---- */

static void start_dcs(struct sim_node *x)
{
    struct sim *w = x->w;
    struct errmsg e = {0};
    char path[128];
    char address[32];
    struct raft_core_disk disk;
    struct raft_entry_view *entries;
    (void)snprintf(path, sizeof path, "%s/%s.db", w->dir, x->name);
    (void)snprintf(address, sizeof address, "10.0.0.%llu:7400", (unsigned long long)x->id);
    must(x, state_open(path, "sim", &x->state, &e), &e);
    struct node_options o = {.id = x->id,
                             .name = x->name,
                             .address = address,
                             .role = "voter",
                             .cluster_id = "sim",
                             .election_ms = 1000,
                             .heartbeat_ms = 100,
                             .seed = rng_u64(&w->rng),
                             .snapshot_every = w->snapshot_every,
                             .state = x->state,
                             .authority = {.scope = "sim"},
                             .ops = &node_ops,
                             .arg = x};
    must(x, node_new(&o, &x->node, &e), &e);
    disk_view(x, &disk, &entries);
    enum err rv = node_start(x->node, &disk, &e);
    mem_free(entries);
    must(x, rv, &e);
    x->pass_at_ms = NEVER;
    x->pass_event_us = x->wake_event_us = 0;
    daemon_pass(x);
}

static void start_engine(struct sim_node *x)
{
    struct errmsg e = {0};
    struct engine_options o = {.scope = "sim",
                               .name = x->name,
                               .conn_host = "10.0.0.1",
                               .conn_port = 5432,
                               .api_url = "",
                               .pg_version = "15.8",
                               .bootstrap = &x->w->config,
                               .election_ms = 1000,
                               .kill_budget_ms = SIM_KILL_BUDGET_MS,
                               .failover_priority = 1,
                               .sync_priority = 1,
                               .no_journal = !x->w->journal,
                               .ports = &sim_ports,
                               .arg = x};
    must(x, engine_new(&o, &x->engine, &e), &e);
    see_start(x);
    client_start(x);
    engine_wake(x->engine);
}

void daemon_start(struct sim_node *x)
{
    ASSERT(!x->up[DAEMON] && !x->machine_down);
    sim_note(x->w, x, "daemon starts");
    domain_begin(x, DAEMON);
    x->ending = x->leaving = false;
    x->last_rule[0] = '\0';
    if (!x->up[FENCE])
        fence_start(x);
    start_dcs(x);
    start_engine(x);
    net_changed(x->w);
}

void daemon_end(struct sim_node *x, bool power)
{
    if (!x->up[DAEMON])
        return;
    sim_note(x->w, x, "daemon ends");
    x->ending = true;
    engine_free(TAKE(x->engine));
    client_end(x);
    node_free(TAKE(x->node));
    state_restore_cancel(TAKE(x->restoring));
    state_close(TAKE(x->state));
    disk_crash(x, power);
    memset(x->linked, 0, sizeof x->linked);
    domain_end(x, DAEMON);
    net_changed(x->w);
    for (size_t i = 0; i < x->w->n; i++)
        x->w->node[i].link_busy_us[x->id - 1] = 0;
}

static void on_back(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = &w->node[*(uint64_t *)arg - 1];
    (void)none;
    if (!x->up[DAEMON] && !x->machine_down)
        daemon_start(x);
}

void daemon_back(struct sim_node *x, uint64_t after_us)
{
    sim_at(x->w, NULL, WORLD, after_us, "start", on_back, mem_dup(&x->id, sizeof x->id));
}

/* It has handed over, or had nothing to hand over. */
static void on_left(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    sim_note(w, x, "daemon has left");
    daemon_end(x, false);
    daemon_back(x, sim_between(w, 100 * MS, 3 * SEC));
}
