/* A new cluster: three members that know each other, empty data directories. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"
#include "tests/unit/scratch.h"

static const char secret[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static void address_of(uint64_t id, char *ret, size_t size)
{
    (void)snprintf(ret, size, "10.0.0.%u:7400", (unsigned)id);
}

/* The members' rows, as init, token create, join and their first entries leave them. */
static void member_rows(const struct sim *w, struct buf *ret_entry)
{
    struct state_batch b = {0};
    struct buf params CLEANUP(buf_close) = BUF_INIT;
    struct member first = {.id = 1, .role = "voter", .state = "active"};
    memcpy(first.name, w->node[0].name, sizeof w->node[0].name);
    address_of(1, first.address, sizeof first.address);
    (void)state_batch_member_init(&b, &first);
    struct token_info t = {.uses_left = SIM_NODES, .expires_ms = 1800000000000};
    memcpy(t.id, "t", 2);
    memcpy(t.role, "voter", 6);
    memcpy(t.token, secret, sizeof secret);
    msg_encode(&msg_token_info, &t, &params);
    (void)state_batch_add(&b, STATE_CMD_TOKEN_CREATE, buf_slice(&params));
    for (size_t i = 1; i < w->n; i++) {
        struct token_redeem r = {0};
        (void)snprintf(r.token, sizeof r.token, "t:%s", secret);
        memcpy(r.name, w->node[i].name, sizeof w->node[i].name);
        address_of(i + 1, r.address, sizeof r.address);
        buf_clear(&params);
        msg_encode(&msg_token_redeem, &r, &params);
        (void)state_batch_add(&b, STATE_CMD_TOKEN_REDEEM, buf_slice(&params));
    }
    for (size_t i = 1; i < w->n; i++)
        (void)state_batch_member(&b, i + 1, "active");
    state_batch_end(&b, 1700000000000, ret_entry);
    buf_close(&b.body);
}

static void init_disks(struct sim *w)
{
    struct raft_membership m = {.index = 1, .n = w->n};
    struct buf rows CLEANUP(buf_close) = BUF_INIT;
    for (size_t i = 0; i < w->n; i++) {
        m.servers[i] = (struct raft_server){.id = i + 1, .role = RAFT_ROLE_VOTER};
        address_of(i + 1, m.servers[i].address, sizeof m.servers[i].address);
    }
    member_rows(w, &rows);
    for (size_t i = 0; i < w->n; i++)
        disk_init(&w->node[i].disk, &m, buf_slice(&rows));
}

static void init_config(struct sim *w, const char *mode)
{
    static const char *const modes[] = {"on", "quorum", "off", "on", "quorum"};
    struct config_rec *c = &w->config;
    *c = (struct config_rec){.ttl = 5,
                             .maximum_lag_on_failover = 1 << 30,
                             .primary_start_timeout = 300,
                             .use_pg_rewind = true,
                             .use_slots = true};
    if (mode == NULL)
        mode = modes[sim_random(w, ARRAY_LEN(modes))];
    if (w->scenario == SCENARIO_FENCE)
        mode = "off";
    (void)snprintf(c->synchronous_mode, sizeof c->synchronous_mode, "%s", mode);
    c->synchronous_mode_strict = sim_chance(w, 250);
    c->synchronous_node_count = w->n == 5 ? sim_between(w, 1, 2) : 1;
    if (w->scenario == SCENARIO_SICK)
        sick_config(w);
    if (w->scenario == SCENARIO_RUSH)
        (void)snprintf(c->on_primary_crash, sizeof c->on_primary_crash, "failover");
    config_defaults(c);
    w->longest_ttl_s = c->ttl;
}

static void init_node(struct sim *w, size_t i)
{
    struct sim_node *x = &w->node[i];
    bool exact = w->scenario == SCENARIO_KILL;
    x->w = w;
    x->id = i + 1;
    (void)snprintf(x->name, sizeof x->name, "n%zu", i + 1);
    x->local_us = sim_between(w, 100 * SEC, 900 * SEC);
    x->rate_ppm = x->true_rate_ppm = exact ? 1000000 : sim_between(w, 950000, 1050000);
    x->data.state = PG_DATA_EMPTY;
    x->data.upstream = -1;
    x->pg.upstream = -1;
    x->pg.in_recovery = true;
    x->client.calls_end = &x->client.calls;
}

static void on_start(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    daemon_start(&w->node[*(uint64_t *)arg]);
}

struct sim *sim_new(uint64_t seed, const struct sim_options *o)
{
    struct sim *w = mem_alloc(sizeof *w);
    static const enum scenario scenarios[] = {
        SCENARIO_MIX,  SCENARIO_MIX,    SCENARIO_ORDERS, SCENARIO_LATE,  SCENARIO_FENCE,
        SCENARIO_KILL, SCENARIO_ORDERS, SCENARIO_MIX,    SCENARIO_FENCE, SCENARIO_DAEMONS};
    w->seed = seed;
    rng_seed(&w->rng, seed);
    w->hash = 0xcbf29ce484222325;
    w->mutation = o->mutation;
    memcpy(w->without, o->without, sizeof w->without);
    w->scenario =
        o->scenario >= 0 ? (enum scenario)o->scenario : scenarios[seed % ARRAY_LEN(scenarios)];
    w->n = o->nodes != 0 ? o->nodes : seed % 8 == 7 ? 5 : 3;
    w->delay_us = sim_chance(w, 800) ? 800 : 5 * MS;
    w->late_reload = sim_chance(w, 500) ? 400 : 0;
    w->snapshot_every = sim_chance(w, 500) ? sim_between(w, 40, 200) : 8192;
    if (w->scenario == SCENARIO_KILL || w->scenario == SCENARIO_RUSH)
        w->delay_us = 800, w->late_reload = 0;
    if (w->scenario == SCENARIO_RUSH && sim_chance(w, 800))
        w->snapshot_every = 8192;
    w->journal = seed % 4 == 0;
    init_config(w, o->mode);
    scratch_dir(w->dir, sizeof w->dir, "sim");
    for (size_t i = 0; i < w->n; i++)
        init_node(w, i);
    init_disks(w);
    for (uint64_t i = 0; i < w->n; i++)
        sim_at(w, NULL, WORLD, sim_random(w, 300 * MS), "start", on_start,
               mem_dup(&i, sizeof i));
    pg_client(w);
    faults_begin(w);
    return w;
}

static void drop_files(struct sim_node *x)
{
    static const char *const ends[] = {".db", ".db-wal", ".db-shm"};
    char path[128];
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        (void)snprintf(path, sizeof path, "%s/%s%s", x->w->dir, x->name, ends[i]);
        (void)unlink(path);
    }
    for (size_t i = 0; i < x->snapshots_n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s-%llu.db", x->w->dir, x->name,
                       (unsigned long long)x->snapshots[i]);
        (void)unlink(path);
    }
}

void sim_free(struct sim *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct sim_node *x = &w->node[i];
        daemon_end(x, false);
        disk_close(&x->disk);
        mem_free(x->data.wal);
        drop_files(x);
    }
    (void)rmdir(w->dir);
    sim_drop_events(w);
    mem_free(w->acks);
    mem_free(w);
}
