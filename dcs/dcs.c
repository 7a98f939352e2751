/* The thread, its loop, start and stop. */
#include "dcs/dcs.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/thread.h"
#include "dcs/dcs_private.h"

/* ---- the loop ------------------------------------------------------------------------------ */

static void on_tick(uv_timer_t *t)
{
    (void)t; /* waking the loop is all: the pass comes before the next wait */
}

/* From the end of the wait before: callbacks run inside of libuv's wait, which counts them out. */
static void note_turn(struct dcs *d)
{
    uint64_t now_us = clock_boot_us(), idle_ns = uv_metrics_idle_time(&d->loop);
    uint64_t idle_us = (idle_ns - d->idle_ns) / 1000;
    if (d->turn_us != 0) {
        node_turn_took(d->node, now_us - d->turn_us - MIN(idle_us, now_us - d->turn_us));
    }
    d->turn_us = now_us;
    d->idle_ns = idle_ns;
}

/* Right before the loop waits: everything that came in since has been taken in. */
static void on_pass(uv_prepare_t *h)
{
    struct dcs *d = h->data;
    CHECK_MAGIC(d, DCS_MAGIC);
    if (d->stopping) {
        return;
    }
    snapshot_files_go(&d->files);
    node_pass(d->node);
    server_flush(&d->server);
    note_turn(d);
    uint64_t now = clock_boot_ms(), at = node_deadline(d->node);
    uv_update_time(&d->loop);
    (void)uv_timer_start(&d->tick, on_tick, at > now ? at - now : 0, 0);
}

static void shut_down(struct dcs *d)
{
    d->stopping = true;
    node_abandon(d->node);
    heard_end(&d->heard, d->node);
    server_flush(&d->server);
    server_close(&d->server);
    join_close(d);
    peers_close(&d->peers);
    snapshot_files_close(&d->files);
    backup_close(&d->backup);
    log_store_close(TAKE(d->log));
    uv_close((uv_handle_t *)&d->wake, NULL);
    uv_close((uv_handle_t *)&d->pass, NULL);
    uv_close((uv_handle_t *)&d->tick, NULL);
    uv_close((uv_handle_t *)&d->house, NULL);
}

/* Leadership is handed over first, so that the others need no election. */
static void stop_when_ready(struct dcs *d)
{
    uint64_t now = clock_boot_ms();
    if (d->stopping) {
        return;
    }
    if (d->step_aside_until_ms == 0) {
        d->step_aside_until_ms = node_step_aside(d->node) ? now + d->election_ms : now;
    }
    if (node_is_leader(d->node) && now < d->step_aside_until_ms) {
        (void)uv_timer_start(&d->house, d->house.timer_cb, 5, 5);
        return;
    }
    shut_down(d);
}

static void take_shared(struct dcs *d)
{
    int fds[DCS_ADOPT_MAX];
    (void)pthread_mutex_lock(&d->mutex);
    size_t n = d->n_adopt;
    memcpy(fds, d->adopt, n * sizeof fds[0]);
    d->n_adopt = 0;
    bool stop = d->stop;
    (void)pthread_mutex_unlock(&d->mutex);
    for (size_t i = 0; i < n; i++) {
        server_adopt(&d->server, fds[i]);
    }
    if (stop) {
        stop_when_ready(d);
    }
}

static void on_wake(uv_async_t *a)
{
    struct dcs *d = a->data;
    CHECK_MAGIC(d, DCS_MAGIC);
    take_shared(d);
}

static void on_house(uv_timer_t *t)
{
    struct dcs *d = t->data;
    CHECK_MAGIC(d, DCS_MAGIC);
    if (d->step_aside_until_ms != 0) {
        stop_when_ready(d);
    } else {
        dcs_housekeeping(d);
    }
}

static void *run(void *arg)
{
    struct dcs *d = arg;
    CHECK_MAGIC(d, DCS_MAGIC);
    (void)pthread_setname_np(pthread_self(), "regent-dcs");
    thread_prompt();
    (void)uv_run(&d->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* ---- start --------------------------------------------------------------------------------- */

static char *copy(const char *s)
{
    return s != NULL ? mem_strdup(s) : NULL;
}

static struct dcs *dcs_new(const struct dcs_options *o)
{
    struct dcs *d = mem_alloc(sizeof *d);
    d->magic = DCS_MAGIC;
    d->name = copy(o->name);
    d->data_dir = copy(o->data_dir);
    d->listen = copy(o->listen);
    d->address = copy(o->connect_address != NULL ? o->connect_address : o->listen);
    d->role = copy(o->role != NULL ? o->role : "voter");
    d->scope = copy(o->scope != NULL ? o->scope : "");
    d->ca_file = copy(o->ca_file);
    d->cert_file = copy(o->cert_file);
    d->key_file = copy(o->key_file);
    d->ca_key_file = copy(o->ca_key_file);
    d->secrets_file = copy(o->secrets_file);
    for (size_t i = 0; i < o->n_join && i < DCS_JOIN_MAX; i++) {
        d->join_to[d->n_join++] = copy(o->join[i]);
    }
    d->election_ms = o->election_ms != 0 ? o->election_ms : DCS_ELECTION_MS;
    d->heartbeat_ms = o->heartbeat_ms != 0 ? o->heartbeat_ms : DCS_HEARTBEAT_MS;
    d->snapshot_every = o->snapshot_every;
    str_cut(d->archive.dir, sizeof d->archive.dir,
            o->archive_dir != NULL ? o->archive_dir : "");
    d->archive.interval_ms = o->archive_interval_s * 1000;
    d->archive.keep = o->archive_keep;
    d->on_fatal = o->on_fatal;
    d->on_fatal_arg = o->arg;
    d->lock_fd = -1;
    (void)pthread_mutex_init(&d->mutex, NULL);
    return d;
}

static void dcs_free(struct dcs *d)
{
    node_free(d->node);
    state_close(d->state);
    for (size_t i = 0; !d->server_open && i < d->n_fds; i++) {
        (void)close(d->fds[i]);
    }
    for (size_t i = 0; i < d->n_adopt; i++) {
        (void)close(d->adopt[i]);
    }
    if (d->lock_fd >= 0) {
        (void)close(d->lock_fd);
    }
    SSL_CTX_free(d->server_ctx);
    SSL_CTX_free(d->client_ctx);
    buf_close(&d->ca_cert);
    OPENSSL_cleanse(d->ca_key.p, d->ca_key.len);
    buf_close(&d->ca_key);
    OPENSSL_cleanse(d->secrets.p, d->secrets.len);
    buf_close(&d->secrets);
    char *const texts[] = {d->name,     d->data_dir,    d->listen,      d->address,
                           d->role,     d->scope,       d->ca_file,     d->cert_file,
                           d->key_file, d->ca_key_file, d->secrets_file};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        mem_free(texts[i]);
    }
    for (size_t i = 0; i < d->n_join; i++) {
        mem_free(d->join_to[i]);
    }
    (void)pthread_mutex_destroy(&d->mutex);
    d->magic = 0;
    mem_free(d);
}

static void open_handles(struct dcs *d)
{
    int rc = uv_loop_init(&d->loop);
    ASSERT(rc == 0);
    rc = uv_async_init(&d->loop, &d->wake, on_wake);
    ASSERT(rc == 0);
    (void)uv_prepare_init(&d->loop, &d->pass);
    (void)uv_loop_configure(&d->loop, UV_METRICS_IDLE_TIME);
    (void)uv_timer_init(&d->loop, &d->tick);
    (void)uv_timer_init(&d->loop, &d->house);
    d->wake.data = d->pass.data = d->tick.data = d->house.data = d;
    d->loop_open = true;
}

static void open_transport(struct dcs *d)
{
    struct peers *p = &d->peers;
    uint64_t seed;
    rng_system(&seed, sizeof seed);
    rng_seed(&p->rng, seed);
    p->loop = &d->loop;
    p->ctx = d->client_ctx;
    p->self = d->id.member_id;
    p->ping_ms = d->heartbeat_ms * 5;
    p->ops = &dcs_peer_ops;
    p->arg = d;
    memcpy(p->name, d->id.name, sizeof p->name);
    memcpy(p->cluster_id, d->id.cluster_id, sizeof p->cluster_id);
    d->files.loop = &d->loop;
    d->files.ops = &dcs_files_ops;
    d->files.arg = d;
    enum err fits = str_copy(d->files.dir, sizeof d->files.dir, d->data_dir);
    ASSERT(fits == ERR_OK);
    snapshot_files_start(&d->files, d->disk.has_snapshot ? d->disk.snapshot.index : 0);
    backup_start(&d->backup, &d->loop, d->data_dir);
    d->archive.loop = &d->loop;
    if (d->archive.dir[0] == '\0') {
        fits = str_format(d->archive.dir, sizeof d->archive.dir, "%s/backups", d->data_dir);
        ASSERT(fits == ERR_OK);
    }
    archive_start(&d->archive);
    d->heard.loop = &d->loop;
    struct server_options o = {
        .loop = &d->loop,
        .ctx = d->server_ctx,
        .node = d->node,
        .member_id = d->id.member_id,
        .name = d->name,
        .cluster_id = d->id.cluster_id,
        .ops = &dcs_server_ops,
        .arg = d,
    };
    server_start(&d->server, &o, d->fds, d->n_fds, d->local_fd);
    d->server_open = true;
}

static enum err start_loop(struct dcs *d, struct errmsg *e)
{
    open_handles(d);
    open_transport(d);
    enum err err = log_store_start(d->log, &d->loop, &dcs_log_ops, d, e);
    err = err == ERR_OK ? node_start(d->node, &d->disk, e) : err;
    log_store_loaded(d->log);
    if (err != ERR_OK) {
        return err;
    }
    heard_start(&d->heard, d->data_dir, d->node);
    (void)uv_prepare_start(&d->pass, on_pass);
    (void)uv_timer_start(&d->house, on_house, 0, DCS_HOUSE_MS);
    int rc = thread_start(&d->thread, run, d);
    return rc == 0 ? ERR_OK
                   : err_set(e, err_from_errno(rc), "cannot start the DCS thread: %s",
                             strerror(rc));
}

static void end_loop(struct dcs *d)
{
    int rc = uv_loop_close(&d->loop);
    ASSERT(rc == 0);
}

/* The default of 1024 is less than the connections and files this may have. */
static void raise_descriptors(void)
{
    enum { WANTED = 4096 };
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < WANTED) {
        r.rlim_cur = MIN(r.rlim_max, (rlim_t)WANTED);
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

enum err dcs_start(const struct dcs_options *o, struct dcs **ret_dcs, struct errmsg *e)
{
    ASSERT(o->name != NULL && o->data_dir != NULL && o->listen != NULL && o->ca_file != NULL);
    raise_descriptors();
    struct dcs *d = dcs_new(o);
    enum err err = strlen(d->data_dir) < sizeof d->files.dir
                       ? dcs_check(d, e)
                       : err_set(e, ERR_INVALID, "data_dir is too long a path");
    err = err == ERR_OK ? dcs_open(d, e) : err;
    if (err == ERR_OK) {
        err = start_loop(d, e);
        if (err != ERR_OK) {
            shut_down(d);
            (void)uv_run(&d->loop, UV_RUN_DEFAULT);
            end_loop(d);
        }
    } else if (d->log != NULL) {
        log_store_loaded(d->log);
        log_store_close(TAKE(d->log));
    }
    if (err != ERR_OK) {
        dcs_free(d);
        return err;
    }
    *ret_dcs = d;
    return ERR_OK;
}

/* ---- from other threads -------------------------------------------------------------------- */

void dcs_stop(struct dcs *d)
{
    if (d == NULL) {
        return;
    }
    CHECK_MAGIC(d, DCS_MAGIC);
    (void)pthread_mutex_lock(&d->mutex);
    d->stop = true;
    (void)pthread_mutex_unlock(&d->mutex);
    (void)uv_async_send(&d->wake);
    (void)pthread_join(d->thread, NULL);
    end_loop(d);
    dcs_free(d);
}

int dcs_connect(void *dcs)
{
    struct dcs *d = dcs;
    int pair[2];
    CHECK_MAGIC(d, DCS_MAGIC);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return -1;
    }
    (void)pthread_mutex_lock(&d->mutex);
    bool taken = !d->stop && d->n_adopt < DCS_ADOPT_MAX;
    if (taken) {
        d->adopt[d->n_adopt++] = pair[1];
    }
    (void)pthread_mutex_unlock(&d->mutex);
    if (!taken) {
        (void)close(pair[0]);
        (void)close(pair[1]);
        return -1;
    }
    (void)uv_async_send(&d->wake);
    return pair[0];
}

uint64_t dcs_member_id(const struct dcs *d)
{
    CHECK_MAGIC(d, DCS_MAGIC);
    return d->id.member_id;
}

const char *dcs_cluster_id(const struct dcs *d)
{
    CHECK_MAGIC(d, DCS_MAGIC);
    return d->id.cluster_id;
}
