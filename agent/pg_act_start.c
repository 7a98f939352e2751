/* START_PRIMARY, START_STANDBY: files, the order to the fence, and the first connection. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>

#include "agent/postgres_private.h"

enum { STEP_FILES = 1, STEP_WAIT, STEP_LOG, POSTMASTER_MS = 10000 };

/* FATAL: requested timeline 3 is not a child of this server's history */
#define PARTED "is not a child of this server's history"

/* Whom to follow from here on. */
static void set_follow(struct postgres *p)
{
    const struct action *a = &p->act;
    bool follows = a->plan.action == ACTION_START_STANDBY && a->has_upstream;
    if (!follow_set(p, follows ? &a->upstream : NULL, follows ? a->plan.token : 0))
        p->follow = (struct follow){.known = true};
}

static void logged(struct postgres *p, const struct worker_reply *r)
{
    char words[400];
    (void)snprintf(words, sizeof words, "%s", r->text);
    for (char *c = words; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            *c = *c == '\n' ? ';' : ' ';
    if (p->act.plan.action == ACTION_START_STANDBY && strstr(r->text, PARTED) != NULL)
        stuck_found(p, "PostgreSQL refuses to start: the timeline it is to follow left ours "
                       "before our end");
    action_fail(p, ERR_IO, "PostgreSQL did not start: %s", words);
}

/* The postmaster is gone again: its last words say why. */
static void died(struct postgres *p)
{
    struct worker_req q;
    if (p->fence_seen.refused[0] != '\0') {
        action_fail(p, ERR_PRECONDITION, "the fence: %s", p->fence_seen.refused);
        return;
    }
    p->act.step = STEP_LOG;
    postgres_req(p, &q, "tail");
    (void)snprintf(q.path, sizeof q.path, "%s", p->log_path);
    action_worker(p, &q, PG_WORKER_MS, logged);
}

void act_start_look(struct postgres *p)
{
    struct action *a = &p->act;
    if (!a->active || a->step != STEP_WAIT || a->in_worker ||
        (a->plan.action != ACTION_START_PRIMARY && a->plan.action != ACTION_START_STANDBY))
        return;
    if (!postgres_running(p)) {
        if (p->fence_seen.exited)
            died(p);
        return;
    }
    if (!p->ever_seen || !pg_monitor_accepts(p->monitor))
        return;
    action_end(p, ERR_OK, NULL);
}

static void late_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    if (p->act.step == STEP_WAIT && !postgres_running(p))
        action_fail(p, ERR_TIMEOUT, "the fence has not started PostgreSQL in time");
}

/* The five settings that primary and standbys must agree on, where they are not started as configured:
 * "-c", "name=value". */
struct held {
    char text[PG_LIMITS][64];
    size_t n;
};

static void hold_limits(struct postgres *p, bool primary, struct held *ret)
{
    struct pg_render r;
    struct render_texts texts;
    struct pg_limits control;
    postgres_render(p, &r, &texts);
    struct pg_limits wanted = pg_render_limits(&r);
    if (pg_limits_parse(p->probe.limits, &control) != ERR_OK)
        control.known = false;
    struct pg_limits l = primary ? pg_limits_primary(&wanted, &control, &p->standby_limits)
                                 : pg_limits_standby(&wanted, &control, &p->leader_limits);
    for (size_t i = 0; i < PG_LIMITS; i++)
        if (l.v[i] != wanted.v[i])
            (void)snprintf(ret->text[ret->n++], sizeof ret->text[0], "%s=%" PRIu64,
                           pg_limit_names[i], l.v[i]);
    /* Only a reload makes PostgreSQL say that the file wants something else. */
    p->conf_dirty = p->conf_dirty || ret->n > 0;
}

static void prepared(struct postgres *p, const struct worker_reply *r)
{
    char path[WORKER_PATH + 16];
    char conf[WORKER_PATH + 64];
    char hba[WORKER_PATH + 64];
    char ident[WORKER_PATH + 64];
    struct errmsg e = {0};
    bool primary = p->act.plan.action == ACTION_START_PRIMARY;
    (void)r;
    slots_copied(p);
    (void)snprintf(path, sizeof path, "%s/postgres", p->probe.bin_dir);
    (void)snprintf(conf, sizeof conf, "config_file=%s/postgresql.conf",
                   p->config->postgresql.data_dir);
    /* What was adopted may have them elsewhere. */
    (void)snprintf(hba, sizeof hba, "hba_file=%s/pg_hba.conf", p->config->postgresql.data_dir);
    (void)snprintf(ident, sizeof ident, "ident_file=%s/pg_ident.conf",
                   p->config->postgresql.data_dir);
    enum { FIXED = 15 };
    const char *argv[FIXED + 2 * PG_LIMITS + 1] = {path,
                                                   "-D",
                                                   p->config->postgresql.data_dir,
                                                   "-c",
                                                   conf,
                                                   "-c",
                                                   hba,
                                                   "-c",
                                                   ident,
                                                   "-c",
                                                   "hot_standby=on",
                                                   "-c",
                                                   "wal_log_hints=on",
                                                   "-c",
                                                   "recovery_target_timeline=latest"};
    struct held held = {.n = 0};
    hold_limits(p, primary, &held);
    for (size_t i = 0; i < held.n; i++) {
        argv[FIXED + 2 * i] = "-c";
        argv[FIXED + 1 + 2 * i] = held.text[i];
    }
    const char *env[] = {"LC_MESSAGES=C", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin",
                         NULL};
    if (primary && !action_may_lead(p))
        return;
    p->probe.standby = !primary;
    p->act.step = STEP_WAIT;
    p->stopping = false;
    enum err rv = fence_start_postgres(p->fence, argv, env, p->log_path, primary, &e);
    if (rv != ERR_OK) {
        action_end(p, rv, &e);
        return;
    }
    action_in(p, POSTMASTER_MS, late_cb);
    postgres_fence_changed(p);
}

void act_start(struct postgres *p)
{
    char names[PG_SYNC_NAMES_MAX];
    static const struct sync_set none;
    bool primary = p->act.plan.action == ACTION_START_PRIMARY;
    if (postgres_running(p) || p->fence_seen.processes_left) {
        action_fail(p, ERR_PRECONDITION, "PostgreSQL runs already");
        return;
    }
    if (!p->probe_valid || strcmp(p->probe.data, "ours") != 0) {
        action_fail(p, ERR_PRECONDITION, "the data directory cannot be started: %s",
                    p->probe_valid ? p->probe.trouble : "not looked at yet");
        return;
    }
    const struct sync_set *set = primary ? &p->act.plan.set : &none;
    if (sync_text(set, names, sizeof names) != ERR_OK) {
        action_fail(p, ERR_INVALID, "the synchronous set does not fit");
        return;
    }
    p->act.step = STEP_FILES;
    p->conf_dirty = false;
    /* Commits that waited when it ended became visible: nobody is to see them before they are safe. */
    p->closed = primary && p->strict && set->k > 0;
    set_follow(p);
    sync_fresh(p, set);
    action_write(p, "prepare", names, prepared);
}
